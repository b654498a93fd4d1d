"""A judge's verdicts, question by question: the record from which every figure about a judge is computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

Order = Literal["original", "swapped"]
OK = "ok"
OUT_OF_RANGE = "out-of-range"
NOT_A_NUMBER = "not-a-number"
TRANSIENT = {
    "timeout",
    "connection",
    "rate-limit",
    "budget",
    "upstream-error",
    "http-401",
    "http-402",
    "http-403",
    "http-408",
    "http-409",
}


@dataclass(frozen=True)
class Answer:
    """One answer of a judge about two responses as they were placed in the question.

    Attributes:
        preference: P(the response placed first beats the one placed second), NaN where the question failed.
        status: "ok", or the kind of failure in a word or two ("empty-reply", "timeout", ...); after an HTTP refusal
            also the server's reason ("http-400: ...").
        input_tokens, output_tokens: tokens read and written for this question, 0 where they are not counted.
        latency: seconds; a batch's seconds are shared evenly among its questions.
        cost: US$.
        raw: the judge's own words, where it has some.
        truncated: whether the judge saw only part of the texts, as its own protocol cuts them.
        calls: paid calls made for this question, retries included; 0 where nothing is called or a reply was cached.
    """

    preference: float
    status: str = OK
    input_tokens: int = 0
    output_tokens: int = 0
    latency: float = 0.0
    cost: float = 0.0
    raw: str = ""
    truncated: bool = False
    calls: int = 0

    @classmethod
    def failure(cls, status: str, raw: str = "") -> Answer:
        """A failed answer: its preference is NaN and `status` says why."""
        return cls(preference=float("nan"), status=status, raw=raw)


@dataclass(frozen=True)
class Verdicts:
    """The full record of one call: a row for every question asked, two for each pair when both orders were asked.

    Attributes:
        pairs: how many pairs were asked about.
        question: int64 [m], the pair a row is about, in 0..pairs - 1.
        order: "original" where the pair's first response was placed first, else "swapped".
        preference: float64 [m], P(first beats second) in the pair's own naming whatever the order; NaN where the
            question failed.
        status: "ok" or the kind of failure; a failed question is NaN, never 0, 1/2 or a tie.
        input_tokens, output_tokens: int64 [m], tokens.
        latency: float64 [m], seconds.
        cost: float64 [m], US$.
        truncated: bool [m], whether the judge saw only part of the texts.
        raw: the judge's own words.
        calls: int64 [m], paid calls made, retries included.
    """

    pairs: int
    question: NDArray[np.int64]
    order: Sequence[Order]
    preference: NDArray[np.float64]
    status: Sequence[str]
    input_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]
    latency: NDArray[np.float64]
    cost: NDArray[np.float64]
    truncated: NDArray[np.bool_]
    raw: Sequence[str]
    calls: NDArray[np.int64]

    @classmethod
    def of(cls, pairs: int, question: Sequence[int], order: Sequence[Order], answers: Sequence[Answer]) -> Verdicts:
        """The record of `answers` to `question` in `order`; answers that break the rules become failures of their own
        kind.
        """
        checked = [_checked(answer) for answer in answers]
        preference = np.array([answer.preference for answer in checked], dtype=np.float64)
        swapped = np.array([placement == "swapped" for placement in order], dtype=bool)
        return cls(
            pairs=pairs,
            question=np.asarray(question, dtype=np.int64),
            order=list(order),
            preference=np.where(swapped, 1 - preference, preference),
            status=[answer.status for answer in checked],
            input_tokens=np.array([answer.input_tokens for answer in checked], dtype=np.int64),
            output_tokens=np.array([answer.output_tokens for answer in checked], dtype=np.int64),
            latency=np.array([answer.latency for answer in checked], dtype=np.float64),
            cost=np.array([answer.cost for answer in checked], dtype=np.float64),
            truncated=np.array([answer.truncated for answer in checked], dtype=np.bool_),
            raw=[answer.raw for answer in checked],
            calls=np.array([answer.calls for answer in checked], dtype=np.int64),
        )

    def __len__(self) -> int:
        return len(self.question)

    def answers(self) -> list[Answer]:
        """The rows as answers, with preferences in the pair's own naming: what `of` was given, for original orders."""
        columns = [getattr(self, field.name) for field in fields(Answer)]
        return [Answer(*row) for row in zip(*(_plain(column) for column in columns), strict=True)]

    def mean(self) -> NDArray[np.float64]:
        """P(first beats second) of each pair: float64 [pairs], the mean over the orders asked.

        NaN where one of them failed: one order alone carries the judge's bias towards a place, which the mean over both
        takes out, so it is no substitute for it.
        """
        count = np.bincount(self.question, minlength=self.pairs)
        total = np.bincount(self.question, weights=self.preference, minlength=self.pairs)
        return np.divide(total, count, out=np.full(self.pairs, np.nan), where=count > 0)

    def flips(self) -> NDArray[np.bool_]:
        """Pairs whose winner depends on the order: bool [pairs], the two lie strictly either side of 1/2."""
        above = np.bincount(self.question[self.preference > 0.5], minlength=self.pairs)
        below = np.bincount(self.question[self.preference < 0.5], minlength=self.pairs)
        return (above > 0) & (below > 0)

    def coverage(self) -> float:
        """Share of the questions that were answered, in 0..1; NaN where nothing was asked."""
        return float(np.mean(~np.isnan(self.preference))) if len(self) else float("nan")

    def failures(self) -> dict[str, int]:
        """How many questions failed, by kind."""
        kinds = [kind_of(status) for status in self.status if status != OK]
        return {kind: kinds.count(kind) for kind in sorted(set(kinds))}

    def frame(self) -> pd.DataFrame:
        """The record as a data frame, a row a question."""
        import pandas as pd

        return pd.DataFrame({field.name: getattr(self, field.name) for field in fields(self) if field.name != "pairs"})


def empty_outcome(first: str, second: str) -> float | None:
    """P(first beats second) where a text is missing: an empty answer loses to one with text and ties with another empty
    one. None where both have text, so that a judge must be asked.

    This is our convention; nobody is asked, since an answer without words has none to judge, and to leave such a pair
    out would make silence pay wherever a policy would lose.
    """
    has_first, has_second = bool(first.strip()), bool(second.strip())
    return None if has_first and has_second else 0.5 + (has_first - has_second) / 2


def kind_of(status: str) -> str:
    """The kind of failure, without the reason that an HTTP refusal gave: `http-400` of `http-400: no such model`."""
    return status.partition(":")[0]


def is_transient(status: str) -> bool:
    """Whether the call failed, as by a timeout or a server error, so that a retry may succeed."""
    return kind_of(status) in TRANSIENT or status.startswith("http-5")


def _plain(column: Sequence[Any] | NDArray[Any]) -> list[Any]:
    return column.tolist() if isinstance(column, np.ndarray) else list(column)


def _checked(answer: Answer) -> Answer:
    """The answer, or a failure where its preference is no probability: an error must not pass for a verdict."""
    if answer.status != OK:
        problem = answer.status
    elif np.isnan(answer.preference):
        problem = NOT_A_NUMBER
    elif not 0 <= answer.preference <= 1:
        problem = OUT_OF_RANGE
    else:
        return answer
    return replace(answer, preference=float("nan"), status=problem)
