"""Duality gap: how far each policy of an exact game is from the Nash policy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from leaderboards.leaderboard import Leaderboard
from leaderboards.records import Metric, Score
from trainers.games import (
    duality_gap,
    entropy,
    kl_divergence,
    log_log_slope,
    nash_policy,
    regularised_gap,
    reward_change,
)


@dataclass(frozen=True, kw_only=True)
class DualityGap(Leaderboard):
    """How far each policy of a game is from the Nash policy (arXiv 2502.16852, section 2); the game is exact, so no
    number has an interval.
    """

    name = "duality-gap"
    policy_kind = "game"
    metrics = {  # noqa: RUF012
        "duality_gap": Metric(unit="probability", better="lower", estimates="gap of the last policy", axis="log"),
        "average_duality_gap": Metric(
            unit="probability", better="lower", estimates="gap of the mean of all policies so far", axis="log"
        ),
        "regularised_gap": Metric(
            unit="probability", better="lower", estimates="gap of the last policy in the regularised game", axis="log"
        ),
        "kl_to_nash": Metric(
            unit="nats", better="lower", estimates="KL(maximum-entropy Nash policy || last policy)", axis="log"
        ),
        "reward_change": Metric(
            unit="probability",
            better="lower",
            estimates="largest change of a win rate in the last iteration",
            axis="log",
        ),
        "entropy": Metric(unit="nats", better="neither", estimates="entropy of the last policy"),
        "average_gap_slope": Metric(
            unit="exponent", better="lower", estimates="fitted slope of the average gap, log against log of iterations"
        ),
    }

    def rate(self, preference: ArrayLike, policies: ArrayLike, tau: float = 0.0) -> list[tuple[int, Score]]:
        """(iteration, score) at log-spaced iterations of policies [iterations + 1, n]; policies[0] is the start.

        Where the algorithm regularises with a tau above 0, the gap of its own game (towards the uniform policy) is
        among the scores.
        """
        path = np.asarray(policies, np.float64)
        last = len(path) - 1
        averages = duality_gap(preference, path.cumsum(0) / np.arange(1, last + 2)[:, None])
        figures = {
            "duality_gap": duality_gap(preference, path),
            "average_duality_gap": averages,
            "kl_to_nash": kl_divergence(nash_policy(preference), path),
            "entropy": entropy(path),
        }
        if tau > 0:
            uniform = np.full(path.shape[-1], 1 / path.shape[-1])
            figures["regularised_gap"] = regularised_gap(preference, path, uniform, tau)
        curves = [(t, name, values[t]) for name, values in figures.items() for t in log_spaced(last)]
        if last > 0:
            changes = reward_change(preference, path)
            curves += [(t, "reward_change", changes[t - 1]) for t in log_spaced(last)[1:]]
            curves.append((last, "average_gap_slope", float(log_log_slope(averages))))
        return [(t, Score(metric=name, value=float(value), n=1)) for t, name, value in curves if np.isfinite(value)]


def log_spaced(last: int, per_decade: int = 12) -> list[int]:
    """0, then about `per_decade` iterations a decade, up to and with the last."""
    points = np.geomspace(1, max(last, 1), max(2, int(per_decade * np.log10(max(last, 10)))))
    return sorted({0, last, *(int(p) for p in points.round() if p <= last)})
