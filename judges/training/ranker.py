"""PairRM's network over any encoder: LLM-Blender (arXiv 2306.02561), pair_ranker/pairrm.py. Imports torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel

from judges.kinds.checkpoint import load_tokenizer

PREFIXES = {"source": "<|source|>", "cand1": "<|candidate1|>", "cand2": "<|candidate2|>", "cand": "<|candidate|>"}
READ = ("source", "cand1", "cand2")


class PairRanker(nn.Module):
    """An encoder read at three prefix tokens, and a head on (source, candidate): names of weights as in PairRM.

    Args:
        encoder: a transformers encoder; its config carries `n_tasks` and `drop_out`.
    """

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        config = encoder.config
        self.pretrained_model = encoder
        self.head_layer = nn.Sequential(
            nn.Dropout(config.drop_out),
            nn.Linear(2 * config.hidden_size, config.hidden_size),
            nn.Tanh(),
            nn.Dropout(config.drop_out),
            nn.Linear(config.hidden_size, config.n_tasks),
        )

    def forward(self, input_ids: Tensor, attention_mask: Tensor, prefixes: Tensor) -> Tensor:
        """Log-odds that candidate 1 beats candidate 2, [batch], from ids [batch, length] and prefix positions [batch,
        3].
        """
        hidden = self.pretrained_model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        rows = torch.arange(len(prefixes), device=hidden.device)[:, None]
        source, first, second = hidden[rows, prefixes].unbind(dim=1)
        scores = [self.head_layer(torch.cat([source, candidate], dim=-1)) for candidate in (first, second)]
        return (scores[0] - scores[1]).mean(dim=-1)

    def save(self, folder: str | Path, tokenizer: Any) -> None:
        """Write the layout of `llm-blender/PairRM-hf`: config.json, model.safetensors, the tokenizer's files."""
        encoder = type(self.pretrained_model).__name__.removesuffix("Model")
        self.pretrained_model.config.architectures = [f"{encoder}PairRM"]  # of PairRM-hf: DebertaV2PairRM
        self.pretrained_model.config.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        weights = {name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}
        save_file(weights, Path(folder) / "model.safetensors", metadata={"format": "pt"})


def new_ranker(encoder: Any, tokenizer: Any, *, drop_out: float = 0.05) -> PairRanker:
    """A ranker with a fresh head over an encoder; adds the prefix tokens to the tokenizer and the embeddings.

    Raises:
        ValueError: the encoder reads one way only, so that prefixes do not see the texts behind them.
    """
    if not _reads_both_ways(encoder):
        raise ValueError(
            "it reads one way only, and its attention cannot be opened: take an encoder, such as a DeBERTa"
        )
    tokenizer.add_tokens(list(PREFIXES.values()))
    if encoder.get_input_embeddings().num_embeddings < len(tokenizer):
        encoder.resize_token_embeddings(len(tokenizer))
    ids = {f"{name}_prefix_id": tokenizer.convert_tokens_to_ids(token) for name, token in PREFIXES.items()}
    encoder.config.update({"n_tasks": 1, "drop_out": drop_out, "sep_token_id": tokenizer.sep_token_id, **ids})
    return PairRanker(encoder)


@torch.no_grad()
def _reads_both_ways(encoder: Any) -> bool:
    """Whether a token's hidden state depends on later tokens; determined by running the encoder."""
    was_training = encoder.training
    encoder.eval()
    first_states = [encoder(input_ids=torch.tensor([[1, 2, last]])).last_hidden_state[0, 0] for last in (3, 4)]
    encoder.train(was_training)
    return not torch.equal(*first_states)


def load_ranker(folder: Path) -> tuple[PairRanker, Any]:
    """A ranker in evaluation mode and its tokenizer, from PairRM-hf's layout or LLM-Blender's original one.

    The original's config.json names its encoder (`model_name`, a folder or hub id) instead of describing it.

    Raises:
        ValueError: the weights do not fit the network, or it was trained to read both ways and here reads one.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    tokenizer = load_tokenizer(folder)
    weights = load_file(folder / "model.safetensors")
    if "ranker_type" in config:
        tokenizer.add_tokens(list(PREFIXES.values()))
        encoder_config = AutoConfig.from_pretrained(config["model_name"])
        encoder_config.update({"n_tasks": config["n_tasks"], "drop_out": config.get("drop_out", 0.05)})
    else:
        encoder_config = AutoConfig.from_pretrained(folder)
    words = next((value for name, value in weights.items() if name.endswith("word_embeddings.weight")), None)
    if words is not None:
        encoder_config.vocab_size = len(words)
    ranker = PairRanker(AutoModel.from_config(encoder_config))
    wrong = ranker.load_state_dict(weights, strict=False)
    # Some published files carry position ids, a buffer that newer encoders compute.
    unexpected = [name for name in wrong.unexpected_keys if not name.endswith("position_ids")]
    if wrong.missing_keys or unexpected:
        named = ", ".join([*wrong.missing_keys, *unexpected][:3])
        raise ValueError(f"judge model {str(folder)!r} holds no PairRM: weights missing or unknown: {named}")
    if getattr(encoder_config, "is_causal", True) is False and not _reads_both_ways(ranker.pretrained_model):
        raise ValueError(
            f"judge model {str(folder)!r} was trained to read both ways (is_causal: false in config.json), which this "
            "version of transformers does not do with it"
        )
    return ranker.eval(), tokenizer


@lru_cache(maxsize=8)
def prefix_ids(tokenizer: Any) -> list[int]:
    """Ids of the source, candidate-1 and candidate-2 prefixes. Raises ValueError for a tokenizer that lacks them."""
    tokens = [PREFIXES[name] for name in READ]
    ids = [tokenizer.convert_tokens_to_ids(token) for token in tokens]
    if None in ids or tokenizer.unk_token_id in ids:
        raise ValueError(
            f"this judge's tokenizer does not know the prefix tokens {', '.join(tokens)}: it is no PairRM's"
        )
    return ids


def encode_pair(
    tokenizer: Any, source: str, first: str, second: str, limits: tuple[int, int]
) -> tuple[list[int], list[int], bool]:
    """Token ids, positions of the three prefixes, and whether something was cut.

    Each text is encoded with its prefix and special tokens of its own. The source takes at most limits[0] tokens; what
    is left of limits[0] + 2 limits[1] is split evenly between the candidates. Separators and prefixes inside the texts
    become spaces, as upstream does with separators: a response cannot pose as another one.
    """
    ids: list[int] = []
    positions: list[int] = []
    truncated = False
    room = limits[0]
    marked = [
        PREFIXES[name] + _plain(tokenizer, text) for name, text in zip(READ, (source, first, second), strict=True)
    ]
    for text, row, prefix in zip(marked, tokenizer(marked)["input_ids"], prefix_ids(tokenizer), strict=True):
        if len(row) > room:
            row, truncated = tokenizer(text, truncation=True, max_length=room)["input_ids"], True
        positions.append(len(ids) + row.index(prefix))
        ids += row
        if len(positions) == 1:
            room = (limits[0] + 2 * limits[1] - len(row)) // 2
    return ids, positions, truncated


def _plain(tokenizer: Any, text: str) -> str:
    for token in _reserved(tokenizer):
        text = text.replace(token, " ")
    return text


@lru_cache(maxsize=8)
def _reserved(tokenizer: Any) -> tuple[str, ...]:
    return (*PREFIXES.values(), *tokenizer.all_special_tokens)


def rank(ranker: PairRanker, rows: Sequence[Sequence[int]], positions: Sequence[Sequence[int]], pad: int) -> Tensor:
    """Log-odds [rows] of one batch."""
    from judges.kinds.checkpoint import padded

    device = next(ranker.parameters()).device
    return ranker(**padded(rows, pad, device), prefixes=torch.tensor(positions, device=device))
