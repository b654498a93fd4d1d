"""How far preferences agree with human votes: accuracy, log-loss, calibration, bias towards length; and the bootstrap
that gives their confidence intervals. Pure numpy.

`preference` is P(first beats second), float64 [n], NaN where there is no verdict; `share` is the share of votes for the
first response, float64 [n], a tie counting one half. Pairs without a verdict are left out of every figure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
RESAMPLES = 2000
CURVE_BINS = 5
MATCHED = 0.1


def accuracy(preference: Floats, share: Floats) -> float:
    """Share of the decided pairs (share away from 1/2) with one winner by judge and votes; a judge's 1/2 is wrong."""
    decided = ~np.isnan(preference) & (share != 0.5)
    agrees = np.sign(preference[decided] - 0.5) == np.sign(share[decided] - 0.5)
    return _mean(agrees)


def log_loss(preference: Floats, share: Floats) -> float:
    """Mean cross-entropy of the votes under the preferences, in nats; preferences are kept 1e-12 away from 0 and 1."""
    answered = ~np.isnan(preference)
    p, s = preference[answered].clip(1e-12, 1 - 1e-12), share[answered]
    return _mean(-(s * np.log(p) + (1 - s) * np.log1p(-p)))


def calibration_error(preference: Floats, share: Floats, *, bins: int = 10) -> float:
    """Expected calibration error: the gap between mean preference and mean share in equal bins, weighted by pairs."""
    rows = reliability(preference, share, bins=bins)
    gaps = sum(row["n"] * abs(row["preference"] - row["share"]) for row in rows)
    return gaps / sum(row["n"] for row in rows) if rows else float("nan")


def reliability(preference: Floats, share: Floats, *, bins: int = 10) -> list[dict[str, Any]]:
    """The reliability table: for each of `bins` equal bins of the preference that is not empty its `low` and `high`,
    `n`, and the mean `preference` and `share` of its pairs.
    """
    answered = ~np.isnan(preference)
    bin_numbers = np.minimum((preference[answered] * bins).astype(int), bins - 1)
    return [
        {
            "low": number / bins,
            "high": (number + 1) / bins,
            "n": int((bin_numbers == number).sum()),
            "preference": _mean(preference[answered][bin_numbers == number]),
            "share": _mean(share[answered][bin_numbers == number]),
        }
        for number in np.unique(bin_numbers).tolist()
    ]


def length_bias(preference: Floats, share: Floats, first: Sequence[str], second: Sequence[str]) -> float:
    """How much more than the votes the judge prefers the longer response, in -1..1; 0 is none.

    Over the pairs whose lengths in characters differ: mean preference for the longer one less its mean share of votes.
    """
    longer = np.sign(length_difference(first, second))
    chosen = ~np.isnan(preference) & (longer != 0)
    return _mean(longer[chosen] * (preference[chosen] - share[chosen]))


def length_difference(first: Sequence[str], second: Sequence[str]) -> Floats:
    """Characters by which the first is longer than the second: float64 [n]."""
    return np.array([len(a) - len(b) for a, b in zip(first, second, strict=True)], dtype=np.float64)


def matched_length(preference: Floats, share: Floats, first: Sequence[str], second: Sequence[str]) -> dict[str, Any]:
    """`accuracy` over the pairs whose lengths differ by at most a tenth (`within`) of the longer one; `n` of them are
    decided by people.
    """
    longest = np.array([max(len(a), len(b)) for a, b in zip(first, second, strict=True)])
    close = np.abs(length_difference(first, second)) <= MATCHED * longest
    decided = close & ~np.isnan(preference) & (share != 0.5)
    return {
        "accuracy": accuracy(preference[decided], share[decided]),
        "n": int(decided.sum()),
        "within": MATCHED,
    }


def length_curve(
    preference: Floats, share: Floats, first: Sequence[str], second: Sequence[str]
) -> list[dict[str, Any]]:
    """Win rate against length difference: up to five bins of equal size, by first's length less second's.

    For each bin `low` and `high` (characters, inclusive), `n`, and the mean `preference` and `share` for the first.
    """
    chosen = np.flatnonzero(~np.isnan(preference))
    if not len(chosen):
        return []
    difference = length_difference(first, second)[chosen]
    edges = np.unique(np.quantile(difference, np.linspace(0, 1, CURVE_BINS + 1)[1:-1], method="lower"))
    bin_numbers = np.searchsorted(edges, difference)
    return [
        {
            "low": int(difference[bin_numbers == number].min()),
            "high": int(difference[bin_numbers == number].max()),
            "n": int((bin_numbers == number).sum()),
            "preference": _mean(preference[chosen][bin_numbers == number]),
            "share": _mean(share[chosen][bin_numbers == number]),
        }
        for number in np.unique(bin_numbers).tolist()
    ]


def bootstrap(sums: Floats, statistic: Callable[[Floats], Floats], *, seed: int) -> Floats:
    """95% percentile intervals [figures, 2] of figures computed from sums over groups, resampling the groups.

    Args:
        sums: [groups, columns], what each group (a prompt with all its pairs) adds to the figures' sums.
        statistic: sums [draws, columns] to figures [draws, figures], NaN where a draw gives none.
        seed: of the 2,000 draws.
    """
    generator = np.random.default_rng(seed)
    groups = len(sums)
    resampled = np.full((RESAMPLES, sums.shape[1]), np.nan)
    for i in range(RESAMPLES if groups else 0):
        resampled[i] = np.bincount(generator.integers(groups, size=groups), minlength=groups) @ sums
    with np.errstate(invalid="ignore", divide="ignore"):
        figures = statistic(resampled)
    intervals = [
        np.quantile(column[~np.isnan(column)], [0.025, 0.975]) if not np.isnan(column).all() else (np.nan, np.nan)
        for column in figures.T
    ]
    return np.array(intervals, dtype=np.float64).reshape(-1, 2)


def _mean(values: NDArray[np.float64] | NDArray[np.bool_]) -> float:
    return float(np.mean(values)) if len(values) else float("nan")
