"""Judges that answer from files: verdicts given earlier, and people's labels."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from judges.files import read_labels, read_pairs, read_verdicts
from judges.judge import Judge, Prompt, Question, messages_of
from judges.verdicts import Answer

Key = tuple[str, str, str]


@dataclass(eq=False)
class RecordedJudge(Judge):
    """Answers with the verdicts of a `verdicts.jsonl` on the pairs of a `pairs.jsonl` (or `labels.jsonl`).

    A question is found by its prompt and its responses as placed; one that was not asked then, in that order, fails as
    "not-recorded", one that failed then fails alike.

    Args:
        verdicts_file: path of the verdicts.
        pairs_file: path of the pairs they are about.

    Raises:
        ValueError: a file is missing or wrong, or a verdict is about no pair.
    """

    verdicts_file: str | Path
    pairs_file: str | Path
    paths: ClassVar[tuple[str, ...]] = ("verdicts_file", "pairs_file")

    def __post_init__(self) -> None:
        pairs = {pair.id: pair for pair in read_pairs(self.pairs_file)}
        self._answers: dict[Key, Answer] = {}
        for each in read_verdicts(self.verdicts_file):
            if each.id not in pairs:
                raise ValueError(f"{self.verdicts_file}: id {each.id!r} is no pair of {self.pairs_file}")
            pair = pairs[each.id]
            if each.order == "original":
                self._answers[_key(pair.prompt, pair.first, pair.second)] = _answer(each.preference, each.status)
            else:
                self._answers[_key(pair.prompt, pair.second, pair.first)] = _answer(1 - each.preference, each.status)

    def answer(self, questions: Sequence[Question], advance: Callable[[int], None]) -> list[Answer]:
        advance(len(questions))
        missing = Answer.failure("not-recorded")
        return [self._answers.get(_key(each.prompt, each.first, each.second), missing) for each in questions]


@dataclass(eq=False)
class HumanJudge(Judge):
    """The share of people's votes: P(first beats second) of the pairs in a `labels.jsonl`, a tie counting one half.

    Knows each pair in both orders. A pair without labels fails as "unlabelled".

    Args:
        labels: path of the labels.

    Raises:
        ValueError: the file is missing or wrong.
    """

    labels: str | Path
    paths: ClassVar[tuple[str, ...]] = ("labels",)

    def __post_init__(self) -> None:
        self._shares: dict[Key, float] = {}
        for pair in read_labels(self.labels):
            self._shares[_key(pair.prompt, pair.first, pair.second)] = pair.share
            self._shares[_key(pair.prompt, pair.second, pair.first)] = 1 - pair.share

    def answer(self, questions: Sequence[Question], advance: Callable[[int], None]) -> list[Answer]:
        advance(len(questions))
        shares = [self._shares.get(_key(each.prompt, each.first, each.second)) for each in questions]
        return [Answer.failure("unlabelled") if share is None else Answer(share) for share in shares]


def _key(prompt: Prompt, first: str, second: str) -> Key:
    return json.dumps(messages_of(prompt)), first, second


def _answer(preference: float, status: str) -> Answer:
    return Answer.failure(status) if math.isnan(preference) else Answer(preference)
