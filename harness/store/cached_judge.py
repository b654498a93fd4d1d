"""A judge whose answers are remembered for the life of a store.

Stages at work at once may both ask what neither found; the answer that is stored first is the one that both use.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from harness.errors import UserError
from harness.store.artifacts import VerdictTable, verdict_key
from judges.judge import Judge, Prompt, Question, Ratings, References
from judges.verdicts import OK, Answer, is_transient

MOST_LOST = 0.01
"""Share of a stage's questions that may fail for reasons that may pass without failing the stage."""


@dataclass(eq=False)
class RememberingJudge(Judge):
    """Answers from the verdict table; asks the inner judge what is not there, and keeps it.

    Attributes:
        asked: questions so far, known ones and ratings included.
        failures: how many of them failed, by kind.
    """

    inner: Judge
    table: VerdictTable
    asked: int = field(default=0, init=False)
    failures: Counter[str] = field(default_factory=Counter, init=False)

    def __post_init__(self) -> None:
        self._fingerprint = self.inner.fingerprint()

    def fingerprint(self) -> str:
        return self._fingerprint

    def answer(self, questions: Sequence[Question], advance: Callable[[int], None]) -> list[Answer]:
        keys = [verdict_key(self._fingerprint, question) for question in questions]
        known = self.table.find(list(dict.fromkeys(keys)))
        missing = {key: question for key, question in zip(keys, questions, strict=True) if key not in known}
        advance(len(questions) - len(missing))
        if missing:
            asked = list(missing.values())
            references = [question.references for question in asked]
            record = self.inner.verdicts(*_columns(asked), progress=_Deltas(advance), references=references)
            fresh = dict(zip(missing, record.answers(), strict=True))
            self.table.add(fresh)
            known |= fresh | self.table.find(list(fresh))  # another stage may have been quicker, with other bits
        self._count(known[key].status for key in keys)
        return [known[key] for key in keys]

    def rate(self, prompts: Sequence[Prompt], answers: Sequence[str], references: Sequence[References]) -> Ratings:
        """Comparisons with references are remembered; a judge with a protocol of its own for ratings is asked."""
        if not self.inner.rates_alone:
            return super().rate(prompts, answers, references)
        ratings = self.inner.rate(prompts, answers, references)
        self._count(ratings.status)
        return ratings

    def check_losses(self, planned: int = 0) -> None:
        """Refuse to go on where too many calls failed: what is made of the others would stay as it is for good.

        Args:
            planned: questions that the stage asks in all, where more are to come.

        Raises:
            UserError: more than 1% of the questions failed for reasons that pass (see `judges.verdicts`).
        """
        lost = {kind: count for kind, count in sorted(self.failures.items()) if is_transient(kind)}
        asked = max(self.asked, planned)
        if sum(lost.values()) > MOST_LOST * asked:
            kinds = ", ".join(f"{kind}: {count}" for kind, count in lost.items())
            kept = "; ratings that came are kept only by a judge's `cache`" if self.inner.rates_alone else ""
            raise UserError(
                f"{sum(lost.values())} of {asked} questions to the judge failed for reasons that may pass ({kinds}), "
                f"more than {MOST_LOST:.0%}; run again to ask these, the answers that came are kept{kept}"
            )

    def _count(self, statuses: Iterable[str]) -> None:
        kinds = Counter(statuses)
        self.asked += kinds.total()
        del kinds[OK]
        self.failures += kinds


def compare_with(judge: Judge, prompts: Sequence[Prompt]) -> Callable[..., NDArray[np.float64]]:
    """A `compare(prompt numbers, first, second)` callable over these prompts, as pairing and streams take it."""

    def compare(rows: Sequence[int], first: Sequence[str], second: Sequence[str]) -> NDArray[np.float64]:
        return judge.compare([prompts[int(i)] for i in rows], first, second)

    return compare


class _Deltas:
    """Turns (done, total) reports into increments."""

    def __init__(self, advance: Callable[[int], None]) -> None:
        self.advance, self.done = advance, 0

    def __call__(self, done: int, total: int) -> None:
        self.advance(done - self.done)
        self.done = done


def _columns(questions: Sequence[Question]) -> tuple[list[Prompt], list[str], list[str]]:
    return [q.prompt for q in questions], [q.first for q in questions], [q.second for q in questions]
