"""A judge whose answers are kept as they come, for the life of a store.

Stages at work at once may both ask what neither has seen; later ones use the answer that was written first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from harness.errors import UserError
from harness.store.verdicts import VerdictStore, rating_key, verdict_key
from judges.judge import Judge, Prompt, Question, Ratings, References, reference_texts
from judges.verdicts import OK, Answer, is_transient, kind_of

MAX_TRANSIENT_FAILURE_RATE = 0.01
"""Share of a stage's questions that may fail for reasons that may pass without failing the stage."""

Advance = Callable[[int], None]
Ask = Callable[[Sequence[Question], Advance], Sequence[Answer]]


@dataclass(eq=False)
class CachedJudge(Judge):
    """Answers from the store; asks the inner judge what is not there, some questions at a time, and keeps each answer.

    Attributes:
        question_count: questions so far, ratings and those with an answer in the store included.
        failures: how many of them failed, by kind.
    """

    inner: Judge
    store: VerdictStore
    question_count: int = field(default=0, init=False)
    failures: Counter[str] = field(default_factory=Counter, init=False)

    def __post_init__(self) -> None:
        self._fingerprint = self.inner.fingerprint()

    def fingerprint(self) -> str:
        return self._fingerprint

    def answer(self, questions: Sequence[Question], advance: Advance) -> list[Answer]:
        keys = [verdict_key(self._fingerprint, question) for question in questions]
        return self._answers(keys, questions, self._compare, advance)

    def rate(self, prompts: Sequence[Prompt], answers: Sequence[str], references: Sequence[References]) -> Ratings:
        """As the inner judge rates: by comparison with the references, or by its own protocol. Both are kept."""
        if not self.inner.supports_single_rating:
            return super().rate(prompts, answers, references)
        texts = reference_texts(references, len(prompts))
        questions = [Question(p, a, "", r) for p, a, r in zip(prompts, answers, texts, strict=True)]
        keys = [rating_key(self._fingerprint, question) for question in questions]
        rated = self._answers(keys, questions, self._rate, lambda n: None)
        rating = np.array([answer.preference for answer in rated], np.float64)
        return Ratings(rating, [answer.status for answer in rated], [answer.raw for answer in rated])

    def check_losses(self, planned: int = 0) -> None:
        """Refuse to go on where too many calls failed: what is made of the others would stay as it is for good.

        Args:
            planned: questions that the stage asks in all, where more are to come.

        Raises:
            UserError: more than 1% of the questions failed for reasons that pass (see `judges.verdicts`).
        """
        transient = {kind: count for kind, count in sorted(self.failures.items()) if is_transient(kind)}
        lost, total = sum(transient.values()), max(self.question_count, planned)
        if lost > MAX_TRANSIENT_FAILURE_RATE * total:
            kinds = ", ".join(f"{kind}: {count}" for kind, count in transient.items())
            raise UserError(
                f"{lost} of {total} questions to the judge failed for reasons that may pass ({kinds}), more than "
                f"{MAX_TRANSIENT_FAILURE_RATE:.0%}; run again to ask these, the answers that came are kept"
            )

    def _answers(self, keys: Sequence[str], questions: Sequence[Question], ask: Ask, advance: Advance) -> list[Answer]:
        """The store's answers, and new ones where it has none; equal questions are one."""
        answers = self.store.find(keys)
        missing = {key: question for key, question in zip(keys, questions, strict=True) if key not in answers}
        advance(len(questions) - len(missing))
        waiting, size = list(missing), self.inner.chunk_size
        for start in range(0, len(waiting), size):
            chunk = waiting[start : start + size]
            fresh = dict(zip(chunk, ask([missing[key] for key in chunk], advance), strict=True))
            self.store.add(fresh)
            answers |= fresh
        if missing:
            answers |= self.store.find(missing)  # another stage may have been quicker, with other bits
        self._count(answers[key].status for key in keys)
        return [answers[key] for key in keys]

    def _compare(self, questions: Sequence[Question], advance: Advance) -> list[Answer]:
        columns = [[getattr(question, name) for question in questions] for name in ("prompt", "first", "second")]
        references = [question.references for question in questions]
        categories = [question.category for question in questions]
        progress = _Deltas(advance)
        return self.inner.verdicts(*columns, progress=progress, references=references, categories=categories).answers()

    def _rate(self, questions: Sequence[Question], advance: Advance) -> list[Answer]:
        references = [question.references or None for question in questions]
        ratings = self.inner.rate([q.prompt for q in questions], [q.first for q in questions], references)
        raw = ratings.raw or [""] * len(questions)
        rows = zip(ratings.rating.tolist(), ratings.status, raw, strict=True)
        return [Answer(rating, status, raw=words) for rating, status, words in rows]

    def _count(self, statuses: Iterable[str]) -> None:
        kinds = Counter(map(kind_of, statuses))
        self.question_count += kinds.total()
        del kinds[OK]
        self.failures += kinds


def compare_with(judge: Judge, prompts: Sequence[Prompt]) -> Callable[..., NDArray[np.float64]]:
    """A `compare(prompt numbers, first, second)` callable over these prompts, as pairing and streams take it."""

    def compare(rows: Sequence[int], first: Sequence[str], second: Sequence[str]) -> NDArray[np.float64]:
        return judge.compare([prompts[int(i)] for i in rows], first, second)

    return compare


class _Deltas:
    """Turns (done, total) reports into increments."""

    def __init__(self, advance: Advance) -> None:
        self.advance, self.done = advance, 0

    def __call__(self, done: int, total: int) -> None:
        self.advance(done - self.done)
        self.done = done
