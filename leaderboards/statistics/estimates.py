"""How sure a number is: intervals over prompts and over seeds, paired tests, corrections for many tests.

Two claims are kept apart. `checkpoint`: about these weights, on prompts like these; prompts are resampled. `algorithm`:
about training again; seeds vary too, and one seed says nothing about that. A failed verdict is NaN: it is left out and
lowers the coverage, never counted as a loss or a tie. Missing verdicts are not imputed. Pure numpy, float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
CHUNK = 1 << 20  # random draws held in memory at a time
NODES, WEIGHTS = np.polynomial.legendre.leggauss(64)


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


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The difference a - b on the same prompts, the two-sided p-value of "no difference", and what is claimed about."""

    difference: Estimate
    p_value: float
    claim: Literal["checkpoint", "algorithm"]


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
    value, weight = _vectors(values, weights)
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
    variances = _mean_variances(_complete(differences))
    reach = abs(estimate.value)
    p_value = _bisect(lambda p: _half_width(variances, p) - reach, 0.0, 1.0) if estimate.n > 1 else math.nan
    return Comparison(difference=estimate, p_value=p_value, claim="algorithm")


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
    complete = _complete(table)
    n = complete.shape[1]
    mean = float(complete.mean()) if n else math.nan
    half = _half_width(_mean_variances(complete), 1 - level) if n > 1 else math.nan
    coverage = n / table.shape[1] if table.shape[1] else math.nan
    return Estimate(value=mean, ci_low=mean - half, ci_high=mean + half, ci_level=level, n=n, coverage=coverage)


def sign_flip_test(differences: ArrayLike, *, seed: int = 0, rounds: int = 10_000) -> float:
    """Two-sided p-value of "differences [prompts] are symmetric about 0", by flipping their signs.

    All 2^n flips where they are no more than `rounds`, then exact; else `rounds` random ones with the observed one
    counted in, so the p-value is never 0 (Phipson and Smyth 2010). NaN without any difference; NaNs are left out.
    """
    values, _ = _vectors(differences, None)
    known = values[~np.isnan(values)]
    if not len(known):
        return math.nan
    moving = known[known != 0]  # flipping a zero changes nothing
    exact = 2 ** len(moving) <= rounds
    flips = _all_flips(len(moving)) if exact else _random_flips(len(moving), np.random.default_rng(seed), rounds)
    observed = abs(moving.sum()) - 1e-9 * np.abs(moving).sum()  # sums in another order differ in the last digits
    extreme = sum(int(np.count_nonzero(np.abs(moving.sum() - 2 * (some @ moving)) >= observed)) for some in flips)
    return extreme / 2 ** len(moving) if exact else (extreme + 1) / (rounds + 1)


def holm(p_values: ArrayLike) -> Floats:
    """Holm's step-down adjusted p-values [tests], in the order given; the family-wise error is held at the level.

    A NaN is a test that could not be made: it stays NaN and is not counted among the tests.
    """
    p, _ = _vectors(p_values, None)
    order = np.argsort(p)[: np.count_nonzero(~np.isnan(p))]  # NaNs sort last
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted = np.full(len(p), np.nan)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted


def normal_tail(z: float) -> float:
    """P(Z > z) of a standard normal."""
    return math.erfc(z / math.sqrt(2)) / 2


def t_tail(t: float, df: float) -> float:
    """P(T > t) of Student's t with df degrees of freedom, t >= 0.

    With t = sqrt(df) tan(theta) the density is proportional to cos(theta)^(df - 1): a smooth integral over theta.
    """
    angle = math.atan(t / math.sqrt(df))
    area = math.sqrt(math.pi) * math.exp(math.lgamma(df / 2) - math.lgamma((df + 1) / 2))
    inside = angle / 2 * float(WEIGHTS @ np.cos(angle / 2 * (NODES + 1)) ** (df - 1))
    return 0.5 - inside / area


@lru_cache(maxsize=1024)
def t_quantile(tail: float, df: float) -> float:
    """The t >= 0 with P(T > t) = tail, for tail in (0, 1/2]."""
    angle = _bisect(lambda a: t_tail(math.sqrt(df) * math.tan(a), df) - tail, 0.0, math.pi / 2)
    return math.sqrt(df) * math.tan(angle)


def _bisect(falling: Callable[[float], float], low: float, high: float) -> float:
    """Where a falling function crosses zero between low and high, to double precision."""
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > 0 else (low, middle)
    return (low + high) / 2


def _resampled_means(values: Floats, weights: Floats, generator: np.random.Generator, rounds: int) -> Floats:
    """Weighted means [rounds] of samples of prompts drawn with replacement."""
    n = len(values)
    draws = (generator.integers(n, size=(size, n), dtype=np.int32) for size in _chunks(rounds, n))
    return np.concatenate([(values * weights)[d].sum(1) / weights[d].sum(1) for d in draws])


def _chunks(rounds: int, n: int) -> Iterator[int]:
    """Sizes that add up to `rounds`, each at most CHUNK draws of n."""
    step = max(1, CHUNK // max(n, 1))
    return (min(step, rounds - start) for start in range(0, rounds, step))


def _all_flips(n: int) -> Iterator[NDArray[np.uint8]]:
    """Every choice of n signs, [2^n, n] of 0 (kept) and 1 (flipped)."""
    yield (np.arange(2**n)[:, None] >> np.arange(n) & 1).astype(np.uint8)


def _random_flips(n: int, generator: np.random.Generator, rounds: int) -> Iterator[NDArray[np.uint8]]:
    """`rounds` random choices of n signs, in chunks [size, n]."""
    for size in _chunks(rounds, n):
        drawn = generator.integers(256, size=(size, -(-n // 8)), dtype=np.uint8)
        yield np.unpackbits(drawn, axis=1, count=n)


def _complete(table: Floats) -> Floats:
    """The prompts (columns) that have a verdict under every seed."""
    return table[:, ~np.isnan(table).any(axis=0)]


def _mean_variances(table: Floats) -> tuple[tuple[float, int], tuple[float, int]]:
    """Variance of the grand mean of [seeds, prompts] from seeds (with the residual) and from prompts, with their df."""
    seeds, prompts = table.shape
    if prompts < 2:
        return (math.nan, seeds - 1), (math.nan, 1)
    by_seed, by_prompt = table.mean(1, keepdims=True), table.mean(0, keepdims=True)
    residual = float(((table - by_seed - by_prompt + table.mean()) ** 2).sum() / ((seeds - 1) * (prompts - 1)))
    of_seeds = float(by_seed.var(ddof=1)) / seeds
    of_prompts = float(by_prompt.var(ddof=1)) / prompts - residual / (seeds * prompts)
    return (of_seeds, seeds - 1), (max(of_prompts, 0.0), prompts - 1)


def _half_width(variances: tuple[tuple[float, int], ...], alpha: float) -> float:
    """Half the interval at level 1 - alpha: each part with its own t quantile, added in quadrature."""
    return math.sqrt(sum(variance * t_quantile(alpha / 2, df) ** 2 for variance, df in variances))


def _vectors(values: ArrayLike, weights: ArrayLike | None) -> tuple[Floats, Floats]:
    """Values and weights as float64 [n]."""
    value = np.asarray(values, np.float64)
    weight = np.ones_like(value) if weights is None else np.asarray(weights, np.float64)
    if value.ndim != 1 or weight.shape != value.shape or not (weight >= 0).all():
        raise ValueError(
            f"values have shape {value.shape} and weights {weight.shape}; they must be two lists of the same length, "
            "one number a prompt, and weights must not be negative"
        )
    return value, weight


def _check(level: float, rounds: int = 2000) -> None:
    if not 0 < level < 1:
        raise ValueError(f"the interval's level is {level}; it must lie between 0 and 1, such as 0.95")
    if rounds < 100:
        raise ValueError(f"{rounds} bootstrap rounds cannot place a percentile; use at least 100, better 2000")
