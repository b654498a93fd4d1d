"""How sure a number is: intervals over prompts and over seeds.

Two claims are kept apart. `checkpoint`: about these weights, on prompts like these; prompts are resampled. `algorithm`:
about training again; seeds vary too, and one seed says nothing about that. A failed verdict is NaN: it is left out and
lowers the coverage, never counted as a loss or a tie. Missing verdicts are not imputed. Pure numpy, float64.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from leaderboards.statistics.t_distribution import normal_tail, t_quantile

Floats = NDArray[np.float64]
CHUNK = 1 << 20  # random draws held in memory at a time


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A number with its doubt.

    Attributes:
        value: the estimate; NaN where no verdict is left.
        ci_low, ci_high: the interval at `ci_level`; NaN where there is none (fewer than two prompts).
        n: prompts the number rests on.
        coverage: share of the prompts that gave a verdict, in 0..1.
    """

    value: float
    ci_low: float
    ci_high: float
    ci_level: float = 0.95
    n: int
    coverage: float


def prompt_bootstrap(
    values: ArrayLike, weights: ArrayLike | None = None, *, seed: int = 0, level: float = 0.95, rounds: int = 2000
) -> Estimate:
    """The (weighted) mean over prompts and its percentile interval, whole prompts being resampled.

    The percentiles are those of a t interval (Hesterberg 2014, arXiv 1411.5279), since plain ones are too
    narrow on few prompts. A sample whose values are all equal has an interval of width zero.

    Args:
        values: [prompts], one number a prompt (the mean of its verdicts where it has several); NaN where it failed.
        weights: [prompts], what each prompt's number weighs (how many verdicts are in it); equal by default.
        seed: of the resampling's own generator.

    Raises:
        ValueError: for values that are not one-dimensional, negative weights, a bad level or too few rounds.
    """
    value, weight = as_vectors(values, weights)
    _check(level, rounds)
    usable = ~np.isnan(value) & (weight > 0)
    value, weight = value[usable], weight[usable]
    n = len(value)
    mean = float(value @ weight / weight.sum()) if n else math.nan
    low, high = math.nan, math.nan
    if n > 1:
        means = _resampled_means(value, weight, np.random.default_rng(seed), rounds)
        tail = normal_tail(math.sqrt(n / (n - 1)) * t_quantile((1 - level) / 2, n - 1))
        low, high = np.quantile(means, [tail, 1 - tail])
    coverage = n / len(usable) if len(usable) else math.nan
    return Estimate(value=mean, ci_low=float(low), ci_high=float(high), ci_level=level, n=n, coverage=coverage)


def algorithm_estimate(values: ArrayLike, *, level: float = 0.95) -> Estimate:
    """The mean over seeds and prompts, both drawn at random: what training again and asking anew would give.

    Variance components of the crossed layout seeds x prompts without replication; the seeds' part (seed and residual
    mean square) takes the t quantile of seeds - 1 degrees of freedom, the prompts' part that of prompts - 1, and the
    two half-widths add in quadrature (Howe 1974, JASA 69:789). Prompts that failed
    under any seed are left out.

    Args:
        values: [seeds, prompts], NaN where a verdict failed.

    Raises:
        ValueError: for fewer than two seeds: one seed cannot say how much seeds matter.
    """
    table = np.asarray(values, np.float64)
    if table.ndim != 2 or len(table) < 2:
        raise ValueError(
            f"a claim about an algorithm needs scores [seeds, prompts] of at least 2 seeds, and these have shape "
            f"{table.shape}; train more seeds (matrix.seed) or make a claim about the checkpoint"
        )
    _check(level)
    complete = complete_prompts(table)
    n = complete.shape[1]
    mean = float(complete.mean()) if n else math.nan
    half = half_width(mean_variances(complete), 1 - level) if n > 1 else math.nan
    coverage = n / table.shape[1] if table.shape[1] else math.nan
    return Estimate(value=mean, ci_low=mean - half, ci_high=mean + half, ci_level=level, n=n, coverage=coverage)


def complete_prompts(table: Floats) -> Floats:
    """The prompts (columns) that have a verdict under every seed."""
    return table[:, ~np.isnan(table).any(axis=0)]


def mean_variances(table: Floats) -> tuple[tuple[float, int], tuple[float, int]]:
    """Variance of the grand mean of [seeds, prompts] from seeds (with the residual) and from prompts, with their df."""
    seeds, prompts = table.shape
    if prompts < 2:
        return (math.nan, seeds - 1), (math.nan, 1)
    by_seed, by_prompt = table.mean(1, keepdims=True), table.mean(0, keepdims=True)
    residual = float(((table - by_seed - by_prompt + table.mean()) ** 2).sum() / ((seeds - 1) * (prompts - 1)))
    of_seeds = float(by_seed.var(ddof=1)) / seeds
    of_prompts = float(by_prompt.var(ddof=1)) / prompts - residual / (seeds * prompts)
    return (of_seeds, seeds - 1), (max(of_prompts, 0.0), prompts - 1)


def half_width(variances: tuple[tuple[float, int], ...], alpha: float) -> float:
    """Half the interval at level 1 - alpha: each part with its own t quantile, added in quadrature."""
    return math.sqrt(sum(variance * t_quantile(alpha / 2, df) ** 2 for variance, df in variances))


def chunk_sizes(rounds: int, n: int) -> Iterator[int]:
    """Sizes that add up to `rounds`, each at most CHUNK draws of n."""
    step = max(1, CHUNK // max(n, 1))
    return (min(step, rounds - start) for start in range(0, rounds, step))


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


def _resampled_means(values: Floats, weights: Floats, generator: np.random.Generator, rounds: int) -> Floats:
    """Weighted means [rounds] of samples of prompts drawn with replacement."""
    n = len(values)
    draws = (generator.integers(n, size=(size, n), dtype=np.int32) for size in chunk_sizes(rounds, n))
    return np.concatenate([(values * weights)[d].sum(1) / weights[d].sum(1) for d in draws])


def _check(level: float, rounds: int = 2000) -> None:
    if not 0 < level < 1:
        raise ValueError(f"the interval's level is {level}; it must lie between 0 and 1, such as 0.95")
    if rounds < 100:
        raise ValueError(f"{rounds} bootstrap rounds cannot place a percentile; use at least 100, better 2000")
