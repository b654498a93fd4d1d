"""Answers that a judge compares with a baseline's, and the items and figures that pairwise boards make of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from judges.judge import Judge, Prompt
from leaderboards.records import OK, BoardAnswer, BoardQuestion, GradedItem, Metric
from leaderboards.statistics.intervals import Floats


def win_rate(estimates: str, *, official: bool) -> Metric:
    """A win rate against a baseline in percent: 50 where neither is ahead."""
    return Metric(unit="percent", better="higher", estimates=estimates, official=official, null_value=50)


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
    """Ask the judge about every answer that is one, in the orders of `answer_first`, bool [orders, n].

    Args:
        categories: of the prompts, [n], for judges that ask about each kind in other words.
    """
    games = [(order, i) for order in range(len(answer_first)) for i, a in enumerate(answers) if a.status == OK]
    pairs = [(answers[i].text, baseline_responses[i])[:: 1 if answer_first[order, i] else -1] for order, i in games]
    record = judge.verdicts(
        [prompts[i] for _, i in games],
        [a for a, _ in pairs],
        [b for _, b in pairs],
        categories=None if categories is None else [categories[i] for _, i in games],
    )
    preference = np.full(answer_first.shape, np.nan)
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
        stripped=answer.stripped,
        extra=extra,
    )


def preferences(items: Sequence[GradedItem]) -> Floats:
    """P(the answer beats the baseline's) [n], NaN where it failed."""
    return np.array([item.preference for item in items], np.float64)


def lengths(items: Sequence[GradedItem]) -> Floats:
    """Characters of each answer [n], NaN where there is none."""
    return np.array([len(item.response) if item.response.strip() else np.nan for item in items], np.float64)
