"""Two policies, or two algorithms, on the same prompts: the difference, its interval, and a test of "no difference".

Which claim a comparison makes is said in `leaderboards.statistics.intervals`. Pure numpy, float64.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from leaderboards.statistics.intervals import (
    Estimate,
    algorithm_estimate,
    as_vectors,
    chunk_sizes,
    complete_prompts,
    half_width,
    mean_variances,
    prompt_bootstrap,
)
from leaderboards.statistics.t_distribution import bisect


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The difference a - b on the same prompts, the two-sided p-value of "no difference", and what is claimed about."""

    difference: Estimate
    p_value: float
    claim: Literal["checkpoint", "algorithm"]


def compare_checkpoints(a: ArrayLike, b: ArrayLike, *, seed: int = 0, level: float = 0.95) -> Comparison:
    """a - b for two sets of weights on the same prompts: bootstrap interval over prompts and sign-flip test.

    Says nothing about training again with another seed: that is `compare_algorithms`.

    Args:
        a, b: [prompts], scores of the same prompts in the same order; a prompt counts where both are there.

    Raises:
        ValueError: for arrays of different or not one-dimensional shapes.
    """
    first, second = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if first.shape != second.shape:
        raise ValueError(f"a has shape {first.shape} and b {second.shape}; a paired comparison needs the same prompts")
    differences = first - second
    estimate = prompt_bootstrap(differences, seed=seed, level=level)
    return Comparison(difference=estimate, p_value=sign_flip_test(differences, seed=seed), claim="checkpoint")


def compare_algorithms(a: ArrayLike, b: ArrayLike, *, level: float = 0.95) -> Comparison:
    """a - b for two algorithms, each trained with several seeds, on the same prompts: `algorithm_estimate` of a - b.

    The p-value is the level at which the interval touches zero.

    Args:
        a: [seeds, prompts].
        b: the same, row s trained with the same seed as a's row s; or [prompts], a policy that no seed changes.

    Raises:
        ValueError: for shapes that do not match, or fewer than two seeds.
    """
    first, second = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if first.ndim != 2 or second.shape not in (first.shape, first.shape[1:]):
        raise ValueError(
            f"a has shape {first.shape} and b {second.shape}; a must be [seeds, prompts] and b the same or [prompts]"
        )
    differences = first - second
    estimate = algorithm_estimate(differences, level=level)
    variances = mean_variances(complete_prompts(differences))
    reach = abs(estimate.value)
    p_value = bisect(lambda p: half_width(variances, p) - reach, 0.0, 1.0) if estimate.n > 1 else math.nan
    return Comparison(difference=estimate, p_value=p_value, claim="algorithm")


def sign_flip_test(differences: ArrayLike, *, seed: int = 0, rounds: int = 10_000) -> float:
    """Two-sided p-value of "differences [prompts] are symmetric about 0", by flipping their signs.

    All 2^n flips where they are no more than `rounds`, then exact; else `rounds` random ones with the observed one
    counted in, so the p-value is never 0 (Phipson and Smyth 2010). NaN without any difference; NaNs are left out.
    """
    values, _ = as_vectors(differences, None)
    present = values[~np.isnan(values)]
    if not len(present):
        return math.nan
    moving = present[present != 0]  # flipping a zero changes nothing
    exact = 2 ** len(moving) <= rounds
    flips = _all_flips(len(moving)) if exact else _random_flips(len(moving), np.random.default_rng(seed), rounds)
    observed = abs(moving.sum()) - 1e-9 * np.abs(moving).sum()  # sums in another order differ in the last digits
    extreme = sum(int(np.count_nonzero(np.abs(moving.sum() - 2 * (some @ moving)) >= observed)) for some in flips)
    return extreme / 2 ** len(moving) if exact else (extreme + 1) / (rounds + 1)


def _all_flips(n: int) -> Iterator[NDArray[np.uint8]]:
    """Every choice of n signs, [2^n, n] of 0 (kept) and 1 (flipped)."""
    yield (np.arange(2**n)[:, None] >> np.arange(n) & 1).astype(np.uint8)


def _random_flips(n: int, generator: np.random.Generator, rounds: int) -> Iterator[NDArray[np.uint8]]:
    """`rounds` random choices of n signs, in chunks [size, n]."""
    for size in chunk_sizes(rounds, n):
        random_bytes = generator.integers(256, size=(size, -(-n // 8)), dtype=np.uint8)
        yield np.unpackbits(random_bytes, axis=1, count=n)
