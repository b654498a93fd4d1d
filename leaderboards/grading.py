"""Answers that a judge compares with a baseline's, and the items and figures that pairwise boards make of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from judges.judge import NO_REFERENCE, Judge, Prompt, References
from judges.verdicts import empty_outcome, is_transient
from leaderboards.records import OK, BoardAnswer, BoardQuestion, GradedItem, Metric
from leaderboards.statistics.means import Bounds, Floats

PERCENT = (0.0, 100.0)


def win_rate(estimates: str, *, official: bool, bounds: Bounds | None = PERCENT) -> Metric:
    """A win rate against a baseline in percent: 50 where neither is ahead."""
    return Metric(unit="percent", better="higher", estimates=estimates, official=official, null_value=50, bounds=bounds)


@dataclass(frozen=True)
class Games:
    """A judge's preferences between answers and a baseline's, each pair in one order or in several.

    Attributes:
        preference: float64 [orders, n], P(the answer beats the baseline's), NaN where it failed.
        status: [n], "ok" or the kinds of failure.
    """

    preference: Floats
    status: list[str]

    def mean(self) -> Floats:
        """P(the answer beats the baseline's) [n], the mean over orders; NaN where one failed."""
        return self.preference.mean(0)


def play_games(
    judge: Judge,
    prompts: Sequence[Prompt],
    answers: Sequence[BoardAnswer],
    baseline_responses: Sequence[str],
    answer_first: NDArray[Any],
    categories: Sequence[str] | None = None,
) -> Games:
    """Preferences about every answer that is one, in the orders of `answer_first`, bool [orders, n].

    Where a text is empty on either side `judges.verdicts.empty_outcome` is the preference, whoever the judge is.

    Args:
        categories: of the prompts, [n], for judges that ask about each kind in other words.
    """
    decided = [empty_outcome(a.text, b) for a, b in zip(answers, baseline_responses, strict=True)]
    asked = [i for i, a in enumerate(answers) if a.status == OK and decided[i] is None]
    games = [(order, i) for order in range(len(answer_first)) for i in asked]
    pairs = [(answers[i].text, baseline_responses[i])[:: 1 if answer_first[order, i] else -1] for order, i in games]
    record = judge.verdicts(
        [prompts[i] for _, i in games],
        [a for a, _ in pairs],
        [b for _, b in pairs],
        categories=None if categories is None else [categories[i] for _, i in games],
    )
    preference = np.full(answer_first.shape, np.nan)
    for i, (answer, outcome) in enumerate(zip(answers, decided, strict=True)):
        if answer.status == OK and outcome is not None:
            preference[:, i] = outcome
    statuses = [{answer.status} for answer in answers]
    for (order, i), p, status in zip(games, record.preference, record.status, strict=True):
        preference[order, i] = p if answer_first[order, i] else 1 - p
        statuses[i].add(status)
    return Games(preference, ["+".join(sorted(kinds - {OK})) or OK for kinds in statuses])


def both_orders(n: int) -> NDArray[np.bool_]:
    """bool [2, n]: the baseline's answer placed first, then the policy's."""
    return np.repeat([[False], [True]], n, axis=1)


def graded_item(
    question: BoardQuestion,
    answer: BoardAnswer,
    baseline_response: str,
    preference: float,
    status: str,
    category: str = "",
    **extra: Any,
) -> GradedItem:
    """One compared answer; the status counts where there is no preference."""
    return GradedItem(
        id=question.id,
        preference=preference,
        status=status,
        prompt=question.prompt,
        response=answer.text,
        baseline_response=baseline_response,
        category=category,
        turn=question.turn,
        extra=extra,
    )


def preferences(items: Sequence[GradedItem]) -> Floats:
    """P(the answer beats the baseline's) [n], NaN where it failed."""
    return np.array([item.preference for item in items], np.float64)


def lengths(items: Sequence[GradedItem]) -> Floats:
    """Characters of each answer [n], 0 for one without text, NaN where there is none."""
    sizes = [0 if item.empty else len(item.response) if item.response.strip() else np.nan for item in items]
    return np.array(sizes, np.float64)


LOWEST_RATING = 1.0


def rate_answers(
    judge: Judge, prompts: Sequence[Prompt], answers: Sequence[BoardAnswer], references: Sequence[References]
) -> list[tuple[float, str]]:
    """The rating (1..10, NaN where it failed) and status of every answer.

    The judge is asked about empty answers too; where it gives no rating to one (it refuses, or says nothing that can be
    read), that is the lowest rating. What the call itself causes, or a reference that is not there, stays a failure.
    """
    asked = [i for i, answer in enumerate(answers) if answer.status == OK]
    record = judge.rate([prompts[i] for i in asked], [answers[i].text for i in asked], [references[i] for i in asked])
    ratings = [(np.nan, answer.status) for answer in answers]
    for i, rating, status in zip(asked, record.rating.tolist(), record.status, strict=True):
        ratings[i] = (LOWEST_RATING, OK) if not answers[i].text.strip() and _refused(status) else (rating, status)
    return ratings


def _refused(status: str) -> bool:
    """Whether it is the judge that gave no rating; several kinds of failure are joined by "+"."""
    return status != OK and not any(is_transient(kind) or kind == NO_REFERENCE for kind in status.split("+"))
