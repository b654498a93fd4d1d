"""What judges that open a checkpoint share: cheap checks, loading, encoding, batches that change no verdict.

torch and transformers are imported with the weights.
"""

from __future__ import annotations

import json
import os
import re
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from judges.errors import JudgeError
from judges.judge import Judge, Prompt, Question, deciding_empty, messages_of, prompt_text
from judges.reading import shortened
from judges.verdicts import Answer

if TYPE_CHECKING:
    import torch

HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
Message = dict[str, str]
BATCHES = 16
"""Batches per call where answers are saved after each call: enough to sort texts by length across them."""


@dataclass(frozen=True)
class Loaded:
    """A model in evaluation mode on its device, and its tokenizer."""

    model: Any
    tokenizer: Any

    @cached_property
    def limit(self) -> int:
        """The longest input in tokens, by the model's positions and the tokenizer's own limit."""
        positions = getattr(self.model.config, "max_position_embeddings", None) or 10**9
        return min(positions, self.tokenizer.model_max_length)


@dataclass(eq=False)
class CheckpointJudge(Judge):
    """A judge that is a Hugging Face checkpoint: a folder, or a hub id with an optional revision.

    Args:
        model: folder or hub id; weights in safetensors.
        revision: branch, tag or commit of a hub id.
        batch_size: texts in one forward pass; changes no verdict.
        trust_remote_code: run the code that comes with the checkpoint.

    Raises:
        ValueError: the folder is missing, holds no checkpoint of this kind, or no weights in safetensors.
    """

    model: str | Path
    revision: str | None = None
    batch_size: int = 16
    trust_remote_code: bool = False

    paths: ClassVar[tuple[str, ...]] = ("model",)
    tuning: ClassVar[tuple[str, ...]] = ("batch_size",)
    kind: ClassVar[str] = ""
    """What the name of the checkpoint's architecture ends with."""

    def __post_init__(self) -> None:
        check_batch_size(self.batch_size)
        config = read_config(self.model)
        if config is not None and not self.trust_remote_code:
            check_kind(self.model, config.get("architectures"), self.kind)

    @property
    def chunk_size(self) -> int:
        """Several batches, so that texts of similar length share one; this can change the last bits of a verdict."""
        return BATCHES * self.batch_size

    def answer(self, questions: Sequence[Question], advance: Callable[[int], None]) -> list[Answer]:
        return deciding_empty(questions, advance, self.read)

    @abstractmethod
    def read(self, questions: Sequence[Question], advance: Callable[[int], None]) -> Sequence[Answer]:
        """As `answer`, for questions whose responses both have text."""

    @cached_property
    def loaded(self) -> Loaded:
        """The checkpoint, loaded when first asked for."""
        return load(self.model, self.kind, revision=self.revision, trust_remote_code=self.trust_remote_code)


def check_batch_size(batch_size: int) -> None:
    """Raises ValueError for a batch size that is not a positive whole number."""
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size must be a whole number of at least 1, got {batch_size!r}")


def check_training(epochs: float, lr: float, batch_size: int, holdout: float) -> None:
    """Raises ValueError for a value that no judge can be trained with, naming it."""
    check_batch_size(batch_size)
    for name, value in (("epochs", epochs), ("lr", lr)):
        if not value > 0:
            raise ValueError(f"{name} must be above 0, got {value}")
    if not 0 < holdout < 1:
        raise ValueError(f"holdout must be between 0 and 1, such as 0.1; got {holdout}")


def read_config(model: str | Path) -> dict[str, Any] | None:
    """The `config.json` of a local checkpoint, None for a hub id. Raises ValueError for what is neither."""
    folder = Path(model)
    if not os.path.exists(folder):
        if not HUB_ID.fullmatch(str(model)):
            raise ValueError(
                f"judge model not found: there is no folder {shortened(str(model), 200)}, and it is no hub id"
            )
        return None
    if not (folder / "config.json").is_file():
        raise ValueError(f"judge model {str(model)!r} is no checkpoint folder: it has no config.json")
    if not any(folder.glob("*.safetensors")):
        raise ValueError(f"judge model {str(model)!r} has no weights in safetensors; pickled weights are not loaded")
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"judge model {str(model)!r}: config.json is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"judge model {str(model)!r}: config.json holds no keys and values")
    return config


def check_kind(model: str | Path, architectures: Sequence[str] | None, kind: str) -> None:
    """Raises ValueError for a checkpoint that says it is of another kind than the judge needs."""
    if architectures and not architectures[0].endswith(kind):
        raise JudgeError(f"judge model {str(model)!r} is a {architectures[0]}; this judge needs a ...{kind}")


def load(model: str | Path, kind: str, *, revision: str | None, trust_remote_code: bool) -> Loaded:
    """A checkpoint through `AutoModelFor...` on the GPU if there is one, in the precision it was saved in.

    Raises:
        ValueError: it cannot be loaded, it is of another kind, weights are missing from it, or it has no tokenizer.
    """
    import torch
    import transformers

    source: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    tokenizer = load_tokenizer(model, **source)
    try:
        config = transformers.AutoConfig.from_pretrained(model, **source)
        if not trust_remote_code:
            check_kind(model, config.architectures, kind)
        network, report = getattr(transformers, f"AutoModel{kind}").from_pretrained(
            model, config=config, dtype="auto", use_safetensors=True, output_loading_info=True, **source
        )
    except (OSError, RuntimeError) as error:
        raise JudgeError(f"judge model {str(model)!r} cannot be loaded: {_one_line(error)}") from error
    if report["missing_keys"]:
        missing = ", ".join(sorted(report["missing_keys"])[:3])
        raise JudgeError(f"judge model {str(model)!r} lacks weights ({missing}): it is not a trained ...{kind}")
    return Loaded(network.eval().to("cuda" if torch.cuda.is_available() else "cpu"), tokenizer)


def load_tokenizer(model: str | Path, **source: Any) -> Any:
    """The tokenizer of a checkpoint. Raises ValueError where it has none."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(model, **source)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise JudgeError(f"judge model {str(model)!r} has no tokenizer that loads: {_one_line(error)}") from error


def encode_chat(tokenizer: Any, messages: Sequence[Message], *, generation_prompt: bool = False) -> list[int]:
    """Token ids of a chat through the tokenizer's own template, applied once: the template itself writes the BOS."""
    text = tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=generation_prompt)
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def encode_response(tokenizer: Any, prompt: Prompt, response: str) -> list[int]:
    """Token ids of a prompt and the response to it: the chat, or the two as lines of plain text without a template."""
    if tokenizer.chat_template is None:
        text = f"{defused(tokenizer, prompt_text(prompt))}\n{defused(tokenizer, response)}"
        return tokenizer(text)["input_ids"]
    turns = [*messages_of(prompt), {"role": "assistant", "content": response}]
    return encode_chat(tokenizer, [{**turn, "content": defused(tokenizer, turn["content"])} for turn in turns])


def defused(tokenizer: Any, text: str) -> str:
    """The text with the tokenizer's special tokens split, so that a response cannot end its own turn."""
    pattern = _special_tokens(tokenizer)
    return pattern.sub(lambda match: f"{match[0][0]} {match[0][1:]}", text) if pattern else text


@lru_cache(maxsize=8)
def _special_tokens(tokenizer: Any) -> re.Pattern[str] | None:
    special = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    longest_first = sorted((token for token in special if len(token) > 1), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first))) if longest_first else None


def batches(lengths: Sequence[int], batch_size: int, *, equal: bool = False) -> Iterator[list[int]]:
    """Row numbers in batches, longest first, so that a batch too large for memory fails at once.

    With `equal` a batch holds rows of one length only: for models that cannot mask padding.
    """
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    batch: list[int] = []
    for row in order:
        if len(batch) == batch_size or (equal and batch and lengths[row] != lengths[batch[0]]):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def padded(rows: Sequence[Sequence[int]], pad: int, device: Any) -> dict[str, torch.Tensor]:
    """`input_ids` and `attention_mask` [rows, longest], padded on the right."""
    import torch

    longest = max(map(len, rows))
    ids = torch.tensor([[*row, *[pad] * (longest - len(row))] for row in rows], device=device)
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=device)
    return {"input_ids": ids, "attention_mask": mask}


def last_logits(
    loaded: Loaded,
    rows: Sequence[Sequence[int]],
    tokens: Sequence[int],
    batch_size: int,
    advance: Callable[[int], None],
) -> NDArray[np.float64]:
    """A causal model's logits of some tokens after each row of token ids: float64 [rows, tokens]."""
    import torch

    logits = np.empty((len(rows), len(tokens)))
    with torch.inference_mode():
        for batch in batches([len(row) for row in rows], batch_size):
            inputs = padded([rows[i] for i in batch], 0, loaded.model.device)
            logits[batch] = next_logits(loaded.model, inputs, tokens).float().cpu().numpy()
            advance(len(batch))
    return logits


def next_logits(model: Any, inputs: dict[str, torch.Tensor], tokens: Sequence[int]) -> torch.Tensor:
    """Logits of some tokens after each row of one right-padded batch: [rows, tokens]; only those rows' ends are
    computed.
    """
    import torch

    last, where = torch.unique(inputs["attention_mask"].sum(dim=1) - 1, return_inverse=True)
    logits = model(**inputs, logits_to_keep=last).logits
    return logits[torch.arange(len(where), device=logits.device), where][:, list(tokens)]


def label_ids(tokenizer: Any, labels: Sequence[str]) -> list[int]:
    """The token of each label. Raises ValueError for labels that are not single, known and different tokens."""
    encoded = [tokenizer.encode(label, add_special_tokens=False) for label in labels]
    for label, ids in zip(labels, encoded, strict=True):
        if len(ids) != 1 or ids[0] == tokenizer.unk_token_id:
            problem = "unknown" if len(ids) == 1 else f"{len(ids)} tokens"
            raise JudgeError(
                f"label {label!r} is {problem} to this judge's tokenizer; choose labels that are one known token each"
            )
    if len({ids[0] for ids in encoded}) < len(labels):
        raise JudgeError(
            f"labels {', '.join(map(repr, labels))} are one token to this judge's tokenizer; choose others"
        )
    return [ids[0] for ids in encoded]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
