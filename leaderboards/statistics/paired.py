"""Two policies, or two algorithms, on the same prompts: the difference, its interval, and a test of "no difference".

The null hypothesis is a mean difference of 0, and the p-value is the level at which the interval touches 0: the two
never disagree, and no p-value has a floor that a correction for many tests could turn into silence. Which claim a
comparison makes is said in `leaderboards.statistics.intervals`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from leaderboards.statistics.intervals import (
    Estimate,
    Variances,
    complete_prompts,
    estimate_and_test,
    estimate_of_parts,
    half_width,
    mean_variances,
    residual_variance,
    seeds_by_prompts,
)
from leaderboards.statistics.means import Bounds, Floats

IF_ALIKE = "if all trainers vary alike"
SMALLEST_P = 1e-200  # quantiles of few degrees of freedom overflow beyond; less is 0


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The difference a - b on the same prompts, and what is claimed about.

    Attributes:
        p_value: of "no difference", two-sided.
        if_alike: the difference of two algorithms with the interval that holds if all trainers vary alike (`IF_ALIKE`)
            from seed to seed: to be shown under that name, never to rank or to claim by.
    """

    difference: Estimate
    p_value: float
    claim: Literal["checkpoint", "algorithm"]
    if_alike: Estimate | None = None


@dataclass(frozen=True)
class SeedVariance:
    """How much the means of trainers under the same seeds vary, beyond what a seed does to all: variance and its df."""

    variance: float
    df: int


def compare_checkpoints(a: ArrayLike, b: ArrayLike, *, bounds: Bounds | None = None, level: float = 0.95) -> Comparison:
    """a - b for two sets of weights on the same prompts.

    Says nothing about training again with another seed: that is `compare_algorithms`.

    Args:
        a, b: [prompts], scores of the same prompts in the same order; a prompt counts where both are there.
        bounds: the least and the greatest score that a prompt can have; None where there is none (then fewer than 50
            prompts with rare large differences have too narrow an interval).

    Raises:
        ValueError: for arrays of different or not one-dimensional shapes, or scores outside of the bounds.
    """
    first, second = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if first.shape != second.shape:
        raise ValueError(f"a has shape {first.shape} and b {second.shape}; a paired comparison needs the same prompts")
    span = None if bounds is None else (bounds[0] - bounds[1], bounds[1] - bounds[0])
    estimate, mean = estimate_and_test(first - second, None, bounds=span, level=level)
    return Comparison(difference=estimate, p_value=mean.p_value(0.0) if mean else math.nan, claim="checkpoint")


def compare_algorithms(
    a: ArrayLike, b: ArrayLike, *, level: float = 0.95, alike: SeedVariance | None = None
) -> Comparison:
    """a - b for two algorithms, each trained with several seeds, on the same prompts: `algorithm_estimate` of a - b.

    Args:
        a: [seeds, prompts].
        b: the same, row s trained with the same seed as a's row s; or [prompts], a policy that no seed changes.
        alike: of all trainers (`pooled_seed_variance`), for `Comparison.if_alike`; not used where no seed changes b.

    Raises:
        ValueError: for shapes that do not match, or fewer than two seeds.
    """
    first, second = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if first.ndim != 2 or second.shape not in (first.shape, first.shape[1:]):
        raise ValueError(
            f"a has shape {first.shape} and b {second.shape}; a must be [seeds, prompts] and b the same or [prompts]"
        )
    table = seeds_by_prompts(first - second)
    variances = mean_variances(complete_prompts(table))
    estimate = estimate_of_parts(table, variances, level)
    pooled = None
    if alike and second.ndim == 2:
        pooled = estimate_of_parts(table, ((2 * alike.variance / len(table), alike.df), variances[1]), level)
    return Comparison(
        difference=estimate, p_value=_p_value(variances, abs(estimate.value)), claim="algorithm", if_alike=pooled
    )


def pooled_seed_variance(scores: ArrayLike) -> SeedVariance:
    """From all trainers' scores [trainers, seeds, prompts]: the trainer x seed residual of their means.

    It has (trainers - 1)(seeds - 1) degrees of freedom in place of the seeds - 1 of one pair, and is right only where
    all trainers vary alike. Prompts that failed anywhere are left out.

    Raises:
        ValueError: for fewer than two trainers or seeds.
    """
    table = np.asarray(scores, np.float64)
    if table.ndim != 3 or min(table.shape[:2]) < 2:
        raise ValueError(
            f"pooling needs scores [trainers, seeds, prompts] of at least 2 trainers and seeds, not {table.shape}"
        )
    means: Floats = complete_prompts(table).mean(2)
    return SeedVariance(residual_variance(means), (means.shape[0] - 1) * (means.shape[1] - 1))


def _p_value(variances: Variances, reach: float) -> float:
    """The level at which half the interval is `reach`."""
    from scipy.optimize import brentq

    if math.isnan(reach) or not half_width(variances, 0.5) > 0:
        return 1.0 if reach == 0 and half_width(variances, 0.5) == 0 else math.nan
    if half_width(variances, SMALLEST_P) <= reach:
        return 0.0
    return math.exp(brentq(lambda p: half_width(variances, math.exp(p)) - reach, math.log(SMALLEST_P), 0.0, xtol=1e-12))
