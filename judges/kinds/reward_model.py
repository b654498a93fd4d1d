"""Scalar reward models: one score a response, and so a preference that is always transitive."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from judges.judge import Prompt, Question, messages_of
from judges.kinds.checkpoint import CheckpointJudge, Loaded, batches, encode_response, padded
from judges.verdicts import Answer

Key = bytes


@dataclass(eq=False)
class RewardModelJudge(CheckpointJudge):
    """A sequence classifier with one logit as Bradley-Terry reward: P(a beats b) = sigmoid(r(a) - r(b)).

    The prompt and the response go through the checkpoint's own chat template once, or as two lines of plain text where
    it has none. A response is scored once however often it is compared, so K responses cost K forward passes. Both
    orders of a pair are one verdict. An empty response has no reward, its pairs are decided without one
    (`judges.verdicts.empty_outcome`); texts beyond the model's limit fail as "too-long", they are never cut.

    Args and errors: as `CheckpointJudge`; a checkpoint with more than one logit is a ValueError at the first question.
    """

    kind: ClassVar[str] = "ForSequenceClassification"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._scores: dict[Key, float | str] = {}

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> NDArray[np.float64]:
        """The reward of each response, in nats of log-odds: float64 [n], NaN where it failed.

        Raises ValueError where the lengths differ.
        """
        pairs = list(zip(prompts, responses, strict=True))
        self._score_new(pairs)
        return np.array([_number(self._scores[_key(*pair)]) for pair in pairs], dtype=np.float64)

    def read(self, questions: Sequence[Question], advance: Callable[[int], None]) -> list[Answer]:
        started = time.perf_counter()
        sides = [((question.prompt, question.first), (question.prompt, question.second)) for question in questions]
        unbilled = self._score_new([side for both_sides in sides for side in both_sides])
        latency = (time.perf_counter() - started) / len(questions)
        advance(len(questions))
        return [self._answer(_key(*first), _key(*second), unbilled, latency) for first, second in sides]

    def _answer(self, first: Key, second: Key, unbilled: dict[Key, int], latency: float) -> Answer:
        tokens = unbilled.pop(first, 0) + unbilled.pop(second, 0)
        scores = self._scores[first], self._scores[second]
        failed = next((score for score in scores if isinstance(score, str)), "ok")
        gap = _number(scores[0]) - _number(scores[1])
        return Answer(0.5 * (1 + float(np.tanh(gap / 2))), status=failed, input_tokens=tokens, latency=latency)

    def _score_new(self, pairs: Sequence[tuple[Prompt, str]]) -> dict[Key, int]:
        """Score what was not scored before; returns the tokens that took, by response."""
        new = {key: pair for pair in pairs if (key := _key(*pair)) not in self._scores}
        if not new:
            return {}
        check_one_logit(self.model, self.loaded)
        rows = {key: encode_response(self.loaded.tokenizer, *pair) for key, pair in new.items() if pair[1].strip()}
        fits = {key: row for key, row in rows.items() if len(row) <= self.loaded.limit}
        self._scores |= dict.fromkeys(new.keys() - rows.keys(), "empty-response")
        self._scores |= dict.fromkeys(rows.keys() - fits.keys(), "too-long")
        self._scores |= _forward(self.loaded, fits, self.batch_size)
        return {key: len(row) for key, row in fits.items()}


def check_one_logit(model: Any, loaded: Loaded) -> None:
    """Raises ValueError for a classifier that is no scalar reward model."""
    if loaded.model.config.num_labels != 1:
        raise ValueError(
            f"judge model {str(model)!r} has {loaded.model.config.num_labels} logits; a reward model has 1"
        )


def _forward(loaded: Loaded, rows: Mapping[Key, Sequence[int]], batch_size: int) -> dict[Key, float]:
    import torch

    # A classifier finds the last token by the padding token, its own or else the tokenizer's; without one, no padding.
    config = loaded.model.config.get_text_config()
    if config.pad_token_id is None:
        config.pad_token_id = loaded.tokenizer.pad_token_id
    pad = config.pad_token_id
    size = batch_size if pad is not None else 1
    keys = list(rows)
    scores: dict[Key, float] = {}
    with torch.inference_mode():
        for batch in batches([len(rows[key]) for key in keys], size):
            inputs = padded([rows[keys[i]] for i in batch], pad or 0, loaded.model.device)
            rewards = loaded.model(**inputs).logits[:, 0].float().cpu().tolist()
            scores |= {keys[i]: reward for i, reward in zip(batch, rewards, strict=True)}
    return scores


def _key(prompt: Prompt, response: str) -> Key:
    return blake2b(json.dumps([messages_of(prompt), response]).encode(), digest_size=16).digest()


def _number(score: float | str) -> float:
    return float("nan") if isinstance(score, str) else score
