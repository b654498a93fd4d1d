"""How sure a number is: intervals over prompts and over seeds.

Two claims are kept apart. `checkpoint`: about these weights, on prompts like these. `algorithm`: about training again;
seeds vary too, and one seed says nothing about that. A failed verdict is NaN: it is left out and lowers the coverage,
never counted as a loss or a tie. Missing verdicts are not imputed. What the intervals cover: docs/statistics.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from leaderboards.statistics.means import Bounds, Floats, Mean, infer_mean, t_quantile

Variances = tuple[tuple[float, int], ...]
"""Parts of a variance, each with its degrees of freedom."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A number with its doubt.

    Attributes:
        value: the estimate; NaN where no verdict is left.
        ci_low, ci_high: the interval at `ci_level`; NaN where there is none (of an outcome without bounds: fewer than
            two prompts, or values that are all equal).
        n: prompts the number rests on.
        coverage: share of the prompts that gave a verdict, in 0..1.
    """

    value: float
    ci_low: float
    ci_high: float
    ci_level: float = 0.95
    n: int
    coverage: float


def mean_estimate(
    values: ArrayLike, weights: ArrayLike | None = None, *, bounds: Bounds | None = None, level: float = 0.95
) -> Estimate:
    """The (weighted) mean over prompts and its interval, by the method that `leaderboards.statistics.means` names.

    Args:
        values: [prompts], one number a prompt (the mean of its verdicts where it has several); NaN where it failed.
        weights: [prompts], what each prompt's number weighs (how many verdicts are in it); equal by default.
        bounds: the least and the greatest value that a prompt can have; None where there is none.

    Raises:
        ValueError: for values that are not one-dimensional or outside of the bounds, negative weights, or a bad level.
    """
    return estimate_and_test(values, weights, bounds=bounds, level=level)[0]


def estimate_and_test(
    values: ArrayLike, weights: ArrayLike | None, *, bounds: Bounds | None, level: float
) -> tuple[Estimate, Mean | None]:
    """`mean_estimate`, and what its p-values are asked of; None where no verdict is left."""
    value, weight = as_vectors(values, weights)
    check_level(level)
    usable = ~np.isnan(value) & (weight > 0)
    coverage = float(usable.mean()) if len(usable) else math.nan
    value, weight = value[usable], weight[usable]
    n = len(value)
    mean = infer_mean(value, weight, bounds) if n else None
    low, high = mean.interval(1 - level) if mean else (math.nan, math.nan)
    centre = float(value @ weight / weight.sum()) if n else math.nan
    return Estimate(value=centre, ci_low=low, ci_high=high, ci_level=level, n=n, coverage=coverage), mean


def algorithm_estimate(values: ArrayLike, *, level: float = 0.95) -> Estimate:
    """The mean over seeds and prompts, both drawn at random: what training again and asking anew would give.

    Variance components of the crossed layout seeds x prompts without replication; the seeds' part (seed and residual
    mean square) takes the t quantile of seeds - 1 degrees of freedom, the prompts' part that of prompts - 1, and the
    two half-widths add in quadrature (Howe 1974, JASA 69:789). Prompts that failed under any seed are left out. With
    two seeds the interval is about nine times as wide as with ten; three to five are a sensible least.

    Args:
        values: [seeds, prompts], NaN where a verdict failed.

    Raises:
        ValueError: for fewer than two seeds: one seed cannot say how much seeds matter.
    """
    table = seeds_by_prompts(values)
    return estimate_of_parts(table, mean_variances(complete_prompts(table)), level)


def estimate_of_parts(table: Floats, variances: Variances, level: float) -> Estimate:
    """The mean of [seeds, prompts] and its interval from the parts of its variance."""
    check_level(level)
    complete = complete_prompts(table)
    n = complete.shape[1]
    mean = float(complete.mean()) if n else math.nan
    half = half_width(variances, 1 - level) or math.nan  # no spread at all tells nothing of the spread
    coverage = n / table.shape[1] if table.shape[1] else math.nan
    return Estimate(value=mean, ci_low=mean - half, ci_high=mean + half, ci_level=level, n=n, coverage=coverage)


def seeds_by_prompts(values: ArrayLike) -> Floats:
    """Float64 [seeds, prompts]. Raises ValueError for fewer than two seeds."""
    table = np.asarray(values, np.float64)
    if table.ndim != 2 or len(table) < 2:
        raise ValueError(
            f"a claim about an algorithm needs scores [seeds, prompts] of at least 2 seeds, and these have shape "
            f"{table.shape}; train more seeds (matrix.seed) or make a claim about the checkpoint"
        )
    return table


def complete_prompts(table: Floats) -> Floats:
    """The prompts (last axis) that have a verdict everywhere else."""
    return table[..., ~np.isnan(table).any(axis=tuple(range(table.ndim - 1)))]


def mean_variances(table: Floats) -> Variances:
    """Variance of the grand mean of [seeds, prompts] from seeds (with the residual) and from prompts, with their df."""
    seeds, prompts = table.shape
    if prompts < 2:
        return (math.nan, seeds - 1), (math.nan, 1)
    of_seeds = float(table.mean(1).var(ddof=1)) / seeds
    of_prompts = float(table.mean(0).var(ddof=1)) / prompts - residual_variance(table) / (seeds * prompts)
    return (of_seeds, seeds - 1), (max(of_prompts, 0.0), prompts - 1)


def residual_variance(table: Floats) -> float:
    """Mean square of [rows, columns] that neither rows nor columns explain."""
    rows, columns = table.shape
    residual = table - table.mean(1, keepdims=True) - table.mean(0, keepdims=True) + table.mean()
    return float((residual**2).sum() / ((rows - 1) * (columns - 1)))


def half_width(variances: Variances, alpha: float) -> float:
    """Half the interval at level 1 - alpha: each part with its own t quantile, added in quadrature."""
    return math.hypot(*(math.sqrt(variance) * t_quantile(alpha / 2, df) for variance, df in variances))


def as_vectors(values: ArrayLike, weights: ArrayLike | None) -> tuple[Floats, Floats]:
    """Values and weights as float64 [n]."""
    value = np.asarray(values, np.float64)
    weight = np.ones_like(value) if weights is None else np.asarray(weights, np.float64)
    if value.ndim != 1 or weight.shape != value.shape or not (weight >= 0).all():
        raise ValueError(
            f"values have shape {value.shape} and weights {weight.shape}; they must be two lists of the same length, "
            "one number a prompt, and weights must not be negative"
        )
    return value, weight


def check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"the interval's level is {level}; it must lie between 0 and 1, such as 0.95")
