"""What would settle a comparison: the difference that the prompts and seeds at hand show, and how many it takes.

By the t intervals of `leaderboards.statistics.intervals`; fewer than 50 bounded outcomes have wider ones, so that a
number of prompts below 50 is a lower limit. For one of many tests give the corrected level, such as 1 - 0.05 / tests.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from leaderboards.statistics.intervals import Variances, complete_prompts, half_width, mean_variances, residual_variance
from leaderboards.statistics.means import Floats

POWER = 0.8
MOST = 10**7  # prompts or seeds; beyond it nothing is settled


def detectable_difference(differences: ArrayLike, *, level: float = 0.95, power: float = POWER) -> float:
    """The smallest true difference whose interval lies beyond 0 with probability `power`, at the numbers at hand.

    Args:
        differences: a - b, [prompts] of two checkpoints or [seeds, prompts] of two algorithms; NaN where one failed.

    Returns:
        In the scores' unit; NaN for fewer than two prompts.
    """
    table = _complete(differences)
    if table.shape[-1] < 2:
        return math.nan
    return _detectable(_variances(table, *table.shape), level, power)


def prompts_needed(differences: ArrayLike, *, level: float = 0.95, power: float = POWER) -> float:
    """How many prompts, with as many seeds as there are, would settle a difference as large as the observed one.

    Returns:
        A whole number, or infinity where no number of prompts would: the seeds differ too much.
    """
    table = _complete(differences)
    seeds = table.shape[:-1]
    return _least(lambda n: _variances(table, *seeds, n), _mean_size(table), level, power)


def seeds_needed(differences: ArrayLike, *, level: float = 0.95, power: float = POWER) -> float:
    """How many seeds, on as many prompts as there are, would settle a difference as large as the observed one.

    Args:
        differences: [seeds, prompts].

    Returns:
        A whole number, or infinity where no number of seeds would: the prompts are too few.
    """
    table = _complete(differences)
    prompts = table.shape[-1]
    return _least(lambda n: _variances(table, n, prompts), _mean_size(table), level, power)


def _complete(differences: ArrayLike) -> Floats:
    table = np.asarray(differences, np.float64)
    if table.ndim not in (1, 2):
        raise ValueError(f"differences have shape {table.shape}; they must be [prompts] or [seeds, prompts]")
    return complete_prompts(table.reshape(-1, table.shape[-1])).reshape(*table.shape[:-1], -1)


def _mean_size(table: Floats) -> float:
    return abs(float(table.mean())) if table.shape[-1] > 1 else math.nan


def _variances(table: Floats, *size: int) -> Variances:
    """Parts of the mean's variance over `size` = (prompts) or (seeds, prompts), of which `table` is a sample."""
    if table.ndim == 1:
        return ((float(table.var(ddof=1)) / size[0], size[0] - 1),)
    (of_seeds, _), (of_prompts, _) = mean_variances(table)
    residual = residual_variance(table)
    seed_effect = max(of_seeds * len(table) - residual / table.shape[1], 0.0)
    seeds, prompts = size
    return (seed_effect / seeds + residual / (seeds * prompts), seeds - 1), (
        of_prompts * table.shape[1] / prompts,
        prompts - 1,
    )


def _detectable(variances: Variances, level: float, power: float) -> float:
    from scipy.special import ndtri

    return half_width(variances, 1 - level) + float(ndtri(power)) * math.sqrt(sum(part for part, _ in variances))


def _least(variances_of: Callable[[int], Variances], difference: float, level: float, power: float) -> float:
    """The least number from 2 on at which the difference is detectable, which falls as the number rises."""
    if not difference > 0 or _detectable(variances_of(MOST), level, power) > difference:
        return math.nan if math.isnan(difference) else math.inf
    low, high = 1, MOST
    while high - low > 1:
        middle = (low + high) // 2
        settled = _detectable(variances_of(middle), level, power) <= difference
        low, high = (low, middle) if settled else (middle, high)
    return high
