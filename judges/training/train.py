"""Training judges on labelled pairs with transformers.Trainer. Imports torch and transformers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import transformers
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from judges.audit.agreement import accuracy, calibration_error, length_bias, log_loss
from judges.files import LabelledPair, read_labels
from judges.judge import Judge, Progress, Prompt, Question, messages_of, prompt_text
from judges.kinds.checkpoint import (
    batches,
    check_training,
    encode_response,
    label_ids,
    load_tokenizer,
    next_logits,
    padded,
)
from judges.kinds.llm import LLMJudge
from judges.kinds.pair_preference import PairPreferenceJudge, encode_preference
from judges.kinds.pairrm import PairRMJudge
from judges.kinds.reward_model import RewardModelJudge
from judges.protocols.custom import TEMPLATE, CustomProtocol, compile_template, encode_template
from judges.training.ranker import encode_pair, new_ranker, rank

Kind = Literal["reward-model", "pairrm", "pair-preference", "llm"]
JUDGES: dict[str, type[Judge]] = {
    "reward-model": RewardModelJudge,
    "pairrm": PairRMJudge,
    "pair-preference": PairPreferenceJudge,
    "llm": LLMJudge,
}
Encoded = Any
PART = 16  # questions that go through the network together
HELDOUT = "heldout.jsonl"
"""Written next to the checkpoint: for each held-out pair its id, its prompt's number among the distinct ones, P(first
beats second) over both orders, the share of votes."""


@dataclass(frozen=True)
class Recipe:
    """What differs between kinds of judge: how a question becomes ids, and ids the log-odds that the first wins.

    Attributes:
        encode: the ids of one question (a kind's own form).
        tokens: how many tokens the longest input of an encoded question has.
        margin: log-odds [batch] of a batch of encoded questions, with gradients.
        save: writes an ordinary checkpoint into a folder.
    """

    encode: Callable[[Question], Encoded]
    tokens: Callable[[Encoded], int]
    margin: Callable[[torch.nn.Module, Sequence[Encoded]], Tensor]
    save: Callable[[Path], None]


def train_judge(
    kind: Kind,
    data: str | Path | Sequence[LabelledPair],
    base: str | Path,
    out: str | Path,
    *,
    epochs: float = 1.0,
    lr: float = 1e-5,
    beta2: float = 0.999,
    batch_size: int = 32,
    seed: int = 0,
    max_length: int = 2048,
    holdout: float = 0.1,
    options: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> dict[str, float]:
    """Train a judge on human votes, save it as an ordinary checkpoint in safetensors, and measure it on held-out
    prompts.

    All kinds minimise the cross-entropy between the share of votes for the first response and P(first beats second) as
    the judge itself will compute it: sigmoid of the reward difference (Bradley-Terry), of the ranker's logit, or of the
    difference of the two labels' logits. Each pair is shown in an order drawn anew every time. AdamW, cosine schedule,
    5% warm-up, gradients clipped at 1.

    Args:
        kind: `reward-model`, `pairrm`, `pair-preference` (RLHFlow's prompt) or `llm` (LLMJudge's template).
        data: a `labels.jsonl`, or labelled pairs.
        base: folder or hub id; a folder with only config.json and tokenizer starts from random weights. A causal
            language model; for `pairrm` an encoder, or a causal model whose attention is then opened to both sides
            (`is_causal: false` in its config).
        out: folder to write.
        epochs, lr, beta2 (AdamW's decay of squared gradients), batch_size (pairs), seed: of the training.
        max_length: pairs with an input of more tokens are left out and counted.
        holdout: share of the distinct prompts kept for the figures, at least one.
        options: of the judge: `labels` and, for `llm`, `template`; give the judge the same.
        progress: called with (steps done, steps in all) after each optimiser step.

    Returns:
        `train_pairs`, `heldout_pairs`, `left_out`, `steps`, `train_loss` (nats), and on the held-out pairs, averaged
            over
        both orders: `coverage`, `accuracy`, `log_loss` (nats), `calibration_error`, `length_bias` (see
        `judges.audit.agreement`).

    Raises:
        ValueError: an unknown kind, a base of the wrong kind, a value out of range, or too few prompts to hold some
            out.
    """
    if kind not in RECIPES:
        raise ValueError(f"there is no kind of judge {kind!r} to train; choose among {', '.join(RECIPES)}")
    check_training(epochs, lr, batch_size, holdout)
    pairs = list(data) if not isinstance(data, str | Path) else read_labels(data)
    train, heldout = split_by_prompt(pairs, holdout, seed)
    transformers.set_seed(seed)
    network, recipe = RECIPES[kind](base, dict(options or {}))
    rows = [
        (
            recipe.encode(Question(pair.prompt, pair.first, pair.second)),
            recipe.encode(Question(pair.prompt, pair.second, pair.first)),
            pair.share,
        )
        for pair in train
    ]
    fits = [row for row in rows if max(recipe.tokens(row[0]), recipe.tokens(row[1])) <= max_length]
    if not fits:
        raise ValueError(f"no training pair fits into max_length = {max_length} tokens; raise it")
    network.train()
    arguments = _arguments(Path(out), epochs, lr, beta2, batch_size, seed)
    result = _fit(network, recipe, fits, arguments, progress)
    network.eval()
    recipe.save(Path(out))
    judge = JUDGES[kind](out, batch_size=batch_size, **dict(options or {}))  # type: ignore[call-arg]
    sizes = {"train_pairs": len(fits), "heldout_pairs": len(heldout), "left_out": len(rows) - len(fits)}
    return sizes | result | measure(judge, heldout, Path(out) / HELDOUT)


def measure(judge: Judge, pairs: Sequence[LabelledPair], out: Path) -> dict[str, float]:
    """A judge's figures on labelled pairs, each asked in both orders: see `train_judge`. Writes the pairs to `out`."""
    first, second = [pair.first for pair in pairs], [pair.second for pair in pairs]
    verdicts = judge.verdicts([pair.prompt for pair in pairs], first, second, both_orders=True)
    preference, share = verdicts.mean(), np.array([pair.share for pair in pairs])
    keys = [_prompt_key(pair) for pair in pairs]
    number = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    with out.open("w", encoding="utf-8") as file:
        for pair, key, p, s in zip(pairs, keys, preference.tolist(), share.tolist(), strict=True):
            row = {"id": pair.id, "prompt": number[key], "preference": None if np.isnan(p) else p, "share": s}
            file.write(json.dumps(row) + "\n")
    return {
        "coverage": verdicts.coverage(),
        "accuracy": accuracy(preference, share),
        "log_loss": log_loss(preference, share),
        "calibration_error": calibration_error(preference, share),
        "length_bias": length_bias(preference, share, first, second),
    }


def split_by_prompt(
    pairs: Sequence[LabelledPair], holdout: float, seed: int
) -> tuple[list[LabelledPair], list[LabelledPair]]:
    """Training and held-out pairs, no prompt in both. Raises ValueError for fewer than two distinct prompts."""
    keys = [_prompt_key(pair) for pair in pairs]
    distinct = list(dict.fromkeys(keys))
    if len(distinct) < 2:
        raise ValueError(f"{len(distinct)} distinct prompts: training needs at least 2, so that one can be held out")
    count = min(max(1, round(holdout * len(distinct))), len(distinct) - 1)
    chosen = {distinct[i] for i in np.random.default_rng(seed).permutation(len(distinct))[:count]}
    train = [pair for pair, key in zip(pairs, keys, strict=True) if key not in chosen]
    return train, [pair for pair, key in zip(pairs, keys, strict=True) if key in chosen]


def _prompt_key(pair: LabelledPair) -> str:
    """Equal for prompts that say the same, as text or as one turn of a chat."""
    return json.dumps(messages_of(pair.prompt))


class _Steps(transformers.TrainerCallback):
    """Reports how many steps are done."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        self.progress(state.global_step, state.max_steps)


@dataclass(frozen=True)
class _Batch:
    """Questions and vote shares. Not a list: the trainer would look for tensors at every token id."""

    encoded: Sequence[Encoded]
    share: Sequence[float]


class _Fit(transformers.Trainer):
    """Cross-entropy of vote shares under a recipe's margin."""

    recipe: Recipe

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        batch: _Batch = inputs["batch"]
        margin = _margin(model, self.recipe, batch.encoded)
        share = torch.tensor(batch.share, dtype=margin.dtype, device=margin.device)
        loss = binary_cross_entropy_with_logits(margin, share)
        return (loss, {"margin": margin}) if return_outputs else loss


def _margin(model: Any, recipe: Recipe, encoded: Sequence[Encoded]) -> Tensor:
    """The margins of a batch, computed in parts of similar length: padding would be a third of the work."""
    parts = list(batches([recipe.tokens(question) for question in encoded], PART))
    margins = torch.cat([recipe.margin(model, [encoded[i] for i in part]) for part in parts])
    return margins[torch.tensor(np.argsort(np.concatenate(parts)), device=margins.device)]


def _arguments(
    out: Path, epochs: float, lr: float, beta2: float, batch_size: int, seed: int
) -> transformers.TrainingArguments:
    return transformers.TrainingArguments(
        output_dir=str(out),
        per_device_train_batch_size=batch_size,
        num_train_epochs=epochs,
        learning_rate=lr,
        adam_beta2=beta2,
        lr_scheduler_type="cosine",
        warmup_steps=0.05,
        max_grad_norm=1.0,
        seed=seed,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
    )


def _fit(
    network: torch.nn.Module,
    recipe: Recipe,
    rows: Sequence[tuple[Encoded, Encoded, float]],
    arguments: transformers.TrainingArguments,
    progress: Progress | None,
) -> dict[str, float]:
    coin = np.random.default_rng(arguments.seed)

    def collate(batch: Sequence[tuple[Encoded, Encoded, float]]) -> dict[str, Any]:
        turned = coin.random(len(batch)) < 0.5
        encoded = [row[1] if turn else row[0] for row, turn in zip(batch, turned, strict=True)]
        shares = [1 - row[2] if turn else row[2] for row, turn in zip(batch, turned, strict=True)]
        return {"batch": _Batch(encoded, shares)}

    trainer = _Fit(model=network, args=arguments, train_dataset=_Rows(rows), data_collator=collate)
    trainer.recipe = recipe
    trainer.remove_callback(transformers.trainer_callback.PrinterCallback)
    if progress is not None:
        trainer.add_callback(_Steps(progress))
    result = trainer.train()
    return {"steps": result.global_step, "train_loss": result.training_loss}


class _Rows(torch.utils.data.Dataset):
    def __init__(self, rows: Sequence[tuple[Encoded, Encoded, float]]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Encoded, Encoded, float]:
        return self.rows[index]


def _start(base: str | Path, kind: str, **changes: Any) -> tuple[Any, Any]:
    """A network and tokenizer to train from: the base's weights, or random ones where a local folder has none."""
    tokenizer = load_tokenizer(base)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    auto = getattr(transformers, f"AutoModel{kind}")
    try:
        config = transformers.AutoConfig.from_pretrained(base)
        config.update(changes)
        if Path(base).is_dir() and not any(Path(base).glob("*.safetensors")):
            return auto.from_config(config), tokenizer
        return auto.from_pretrained(base, config=config, use_safetensors=True, dtype=torch.float32), tokenizer
    except (OSError, ValueError) as error:
        raise ValueError(f"base model {str(base)!r} cannot be trained as ...{kind or 'encoder'}: {error}") from error


def _reward_model(base: str | Path, options: dict[str, Any]) -> tuple[torch.nn.Module, Recipe]:
    network, tokenizer = _start(base, "ForSequenceClassification", num_labels=1)
    network.config.pad_token_id = tokenizer.pad_token_id

    encodings: dict[str, list[int]] = {}  # each pair is encoded in both orders

    def encode_once(prompt: Prompt, text: str) -> list[int]:
        key = json.dumps([prompt, text])
        if key not in encodings:
            encodings[key] = encode_response(tokenizer, prompt, text)
        return encodings[key]

    def encode(question: Question) -> Encoded:
        return [encode_once(question.prompt, text) for text in (question.first, question.second)]

    def margin(model: torch.nn.Module, batch: Sequence[Encoded]) -> Tensor:
        rows = [row for pair in batch for row in pair]
        rewards = model(**padded(rows, tokenizer.pad_token_id, network.device)).logits[:, 0]
        return rewards[0::2] - rewards[1::2]

    return network, Recipe(encode, lambda rows: max(map(len, rows)), margin, _saver(network, tokenizer))


def _pairrm(base: str | Path, options: dict[str, Any]) -> tuple[torch.nn.Module, Recipe]:
    encoder, tokenizer = _start(base, "", is_causal=False)
    try:
        ranker = new_ranker(encoder, tokenizer)
    except ValueError as error:
        raise ValueError(f"base model {str(base)!r} cannot become a ranker: {error}") from error
    limits = (PairRMJudge.source_max_length, PairRMJudge.candidate_max_length)

    def encode(question: Question) -> Encoded:
        return encode_pair(tokenizer, prompt_text(question.prompt), question.first, question.second, limits)

    def margin(model: Any, batch: Sequence[Encoded]) -> Tensor:
        return rank(model, [ids for ids, _, _ in batch], [at for _, at, _ in batch], tokenizer.pad_token_id)

    return ranker, Recipe(encode, lambda row: len(row[0]), margin, lambda out: ranker.save(out, tokenizer))


def _labels(
    base: str | Path, options: dict[str, Any], encode: Callable[[Any, Question], list[int]]
) -> tuple[torch.nn.Module, Recipe]:
    network, tokenizer = _start(base, "ForCausalLM")
    labels = options.get("labels", PairPreferenceJudge.labels)
    tokens = label_ids(tokenizer, labels)
    network.config.judge_labels = dict(
        zip(labels, tokens, strict=True)
    )  # a judge reads these alone: only they are trained

    def margin(model: torch.nn.Module, batch: Sequence[Encoded]) -> Tensor:
        logits = next_logits(model, padded(batch, 0, network.device), tokens)
        return logits[:, 0] - logits[:, 1]

    return network, Recipe(lambda question: encode(tokenizer, question), len, margin, _saver(network, tokenizer))


def _pair_preference(base: str | Path, options: dict[str, Any]) -> tuple[torch.nn.Module, Recipe]:
    return _labels(base, options, encode_preference)


def _llm(base: str | Path, options: dict[str, Any]) -> tuple[torch.nn.Module, Recipe]:
    template = compile_template(options.get("template", TEMPLATE))
    labels = tuple(options.get("labels", CustomProtocol.labels))
    return _labels(base, options, lambda tokenizer, question: encode_template(tokenizer, template, labels, question))


RECIPES: dict[str, Callable[[str | Path, dict[str, Any]], tuple[torch.nn.Module, Recipe]]] = {
    "reward-model": _reward_model,
    "pairrm": _pairrm,
    "pair-preference": _pair_preference,
    "llm": _llm,
}


def _saver(network: Any, tokenizer: Any) -> Callable[[Path], None]:
    def save(out: Path) -> None:
        network.save_pretrained(out)
        tokenizer.save_pretrained(out)

    return save
