"""Duality gap: how far each policy of an exact game is from the Nash policy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from leaderboards.leaderboard import Leaderboard, Metric, Score
from trainers.games import duality_gap


@dataclass(frozen=True, kw_only=True)
class DualityGap(Leaderboard):
    """The unregularised duality gap of the last and of the average policy (arXiv 2502.16852, section 2); 0 is Nash.

    Exact, so it has no interval. It rates games only.
    """

    name = "duality-gap"
    plays = "game"
    metrics = {  # noqa: RUF012
        "duality_gap": Metric(
            unit="probability",
            better="lower",
            estimates="gap of the last policy; 0 at Nash",
            null_value=0.0,
            axis="log",
        ),
        "average_duality_gap": Metric(
            unit="probability",
            better="lower",
            estimates="gap of the mean of all policies so far",
            null_value=0.0,
            axis="log",
        ),
        "entropy": Metric(unit="nats", better="neither", estimates="entropy of the last policy"),
    }

    def rate(self, preference: ArrayLike, policies: ArrayLike) -> list[tuple[int, Score]]:
        """(iteration, score) at log-spaced iterations of policies [iterations + 1, n]; policies[0] is the start."""
        path = np.asarray(policies, np.float64)
        means = path.cumsum(0) / np.arange(1, len(path) + 1)[:, None]
        shown = log_spaced(len(path) - 1)
        entropy = -(path * np.log(np.where(path > 0, path, 1.0))).sum(-1)
        figures = {
            "duality_gap": duality_gap(preference, path[shown]),
            "average_duality_gap": duality_gap(preference, means[shown]),
            "entropy": entropy[shown],
        }
        return [
            (int(t), Score(metric=name, value=float(value), n=1))
            for name, values in figures.items()
            for t, value in zip(shown, values, strict=True)
        ]


def log_spaced(last: int, per_decade: int = 12) -> list[int]:
    """0, then about `per_decade` iterations a decade, up to and with the last."""
    points = np.geomspace(1, max(last, 1), max(2, int(per_decade * np.log10(max(last, 10)))))
    return sorted({0, last, *(int(p) for p in points.round() if p <= last)})
