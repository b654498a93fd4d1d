"""Answers placed before a judge against a baseline's, and the rows and figures that pairwise boards make of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from judges.judge import Judge, Prompt
from leaderboards.leaderboard import Metric, Reply, Request, Verdict
from leaderboards.statistics.means import Bounds, Floats

PERCENT = (0.0, 100.0)


def win_rate(estimates: str, *, official: bool, bounds: Bounds | None = PERCENT) -> Metric:
    """A win rate against a baseline in percent: 50 where neither is ahead."""
    return Metric(unit="percent", better="higher", estimates=estimates, official=official, null_value=50, bounds=bounds)


@dataclass(frozen=True)
class Games:
    """What a judge said of answers and a baseline's, each pair in one order or in several.

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
    judge: Judge, prompts: Sequence[Prompt], replies: Sequence[Reply], before: Sequence[str], answer_first: NDArray[Any]
) -> Games:
    """Ask the judge about every reply that is one, in the orders of `answer_first`, bool [orders, n]."""
    asked = [(order, i) for order in range(len(answer_first)) for i, r in enumerate(replies) if r.status == "ok"]
    pairs = [(replies[i].text, before[i])[:: 1 if answer_first[order, i] else -1] for order, i in asked]
    record = judge.verdicts([prompts[i] for _, i in asked], [a for a, _ in pairs], [b for _, b in pairs])
    preference = np.full(answer_first.shape, np.nan)
    kinds = [{reply.status} for reply in replies]
    for (order, i), p, status in zip(asked, record.preference, record.status, strict=True):
        preference[order, i] = p if answer_first[order, i] else 1 - p
        kinds[i].add(status)
    return Games(preference, ["+".join(sorted(kind - {"ok"})) or "ok" for kind in kinds])


def both_orders(n: int) -> NDArray[np.bool_]:
    """bool [2, n]: the baseline's answer placed first, then the policy's."""
    return np.repeat([[False], [True]], n, axis=1)


def verdict_row(
    request: Request, reply: Reply, before: str, preference: float, status: str, category: str = ""
) -> Verdict:
    """One graded item; the status counts where there is no preference."""
    failed = bool(np.isnan(preference))
    return {
        "id": request.id,
        "prompt": request.prompt,
        "response": reply.text,
        "before": before,
        "preference": None if failed else float(preference),
        "status": status if failed else "ok",
        "category": category,
        "turn": request.turn,
        "stripped": reply.stripped,
    }


def preferences(verdicts: Sequence[Verdict]) -> Floats:
    """P(the answer beats the baseline's) [n], NaN where it failed."""
    return np.array([np.nan if v["preference"] is None else v["preference"] for v in verdicts], np.float64)


def lengths(verdicts: Sequence[Verdict]) -> Floats:
    """Characters of each answer [n], NaN where there is none."""
    return np.array([len(v["response"]) if v["response"].strip() else np.nan for v in verdicts], np.float64)
