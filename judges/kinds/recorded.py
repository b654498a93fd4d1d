"""Judges that answer from files: verdicts given earlier, and people's labels."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from judges.files import VOTES, Verdict, placed, read_labels, read_pairs, read_verdicts
from judges.judge import Judge, Prompt, Question, messages_of
from judges.reading import shortened
from judges.verdicts import OK, Answer

Key = tuple[str, str, str]


@dataclass(eq=False)
class RecordedJudge(Judge):
    """Answers with the verdicts of a `verdicts.jsonl` on the pairs of a `pairs.jsonl` (or `labels.jsonl`).

    A question is looked up by its prompt and its responses as placed; one that was not recorded in that order fails as
    "not-recorded", one that failed then fails with the same status. Where one question was answered several times (by
    repeats, under several ids, or in both orders of equal texts), the answer is the mean of those that did not fail.

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
        answers_by_key: dict[Key, list[Answer]] = defaultdict(list)
        for verdict in read_verdicts(self.verdicts_file):
            if verdict.id not in pairs:
                raise ValueError(f"{self.verdicts_file}: id {shortened(verdict.id)} is no pair of {self.pairs_file}")
            key = _key(*placed(pairs[verdict.id], verdict.order))
            answers_by_key[key].append(_answer(verdict))
        self._answers = {key: _pooled(repeats) for key, repeats in answers_by_key.items()}

    def answer(self, questions: Sequence[Question], advance: Callable[[int], None]) -> list[Answer]:
        advance(len(questions))
        missing = Answer.failure("not-recorded")
        return [
            self._answers.get(_key(question.prompt, question.first, question.second), missing) for question in questions
        ]


@dataclass(eq=False)
class HumanJudge(Judge):
    """The share of people's votes: P(first beats second) of the pairs in a `labels.jsonl`, a tie counting one half.

    Knows each pair in both orders. Votes on one pair of texts under several ids, in either naming, are pooled; equal
    texts are 1/2. A pair without labels fails as "unlabelled".

    Args:
        labels: path of the labels.

    Raises:
        ValueError: the file is missing or wrong.
    """

    labels: str | Path
    paths: ClassVar[tuple[str, ...]] = ("labels",)

    def __post_init__(self) -> None:
        votes: dict[Key, list[float]] = defaultdict(list)
        for pair in read_labels(self.labels):
            scores_of_pair = [VOTES[vote] for vote in pair.votes]
            votes[_key(pair.prompt, pair.first, pair.second)] += scores_of_pair
            votes[_key(pair.prompt, pair.second, pair.first)] += [1 - vote for vote in scores_of_pair]
        self._shares = {key: sum(scores) / len(scores) for key, scores in votes.items()}

    def answer(self, questions: Sequence[Question], advance: Callable[[int], None]) -> list[Answer]:
        advance(len(questions))
        shares = [self._shares.get(_key(question.prompt, question.first, question.second)) for question in questions]
        return [Answer.failure("unlabelled") if share is None else Answer(share) for share in shares]


def _key(prompt: Prompt, first: str, second: str) -> Key:
    return json.dumps(messages_of(prompt)), first, second


def _answer(verdict: Verdict) -> Answer:
    """A recorded verdict as the answer to the question as it was placed."""
    if math.isnan(verdict.preference):
        return Answer.failure(verdict.status, verdict.raw)
    return Answer(verdict.preference if verdict.order == "original" else 1 - verdict.preference, raw=verdict.raw)


def _pooled(answers: Sequence[Answer]) -> Answer:
    """One answer as it is; of several the mean over those that did not fail, or the first failure."""
    succeeded = [answer for answer in answers if answer.status == OK]
    if len(succeeded) < 2:
        return (succeeded or answers)[0]
    return Answer(sum(answer.preference for answer in succeeded) / len(succeeded))
