"""What a sample says about the mean of its distribution: an interval at any level, and the p-value of any value.

The p-value of a value is the level at which the interval touches it. Three ways, by what is known of the outcome:

- `BinomialMean`: an outcome at either bound is a share (Clopper and Pearson 1934);
- `BettingMean`: fewer than 50 outcomes within bounds; valid for every distribution and number of prompts, and wide
  (Waudby-Smith and Ramdas 2024, JRSS B 86:1, arXiv 2010.09686; the bets are mixed over fixed stakes, so that the
  order of the prompts does not matter);
- `StudentMean`: Student's t. Within bounds an outcome at each bound is added first, as Bonett and Price (2012, JEBS
  37:479) add one to each discordant count of a paired comparison: the plain t covers .80 where 80 prompts with a rare
  win of .02 hold none.

Pure numpy; scipy is imported where a distribution is asked for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bounds = tuple[float, float]

FINITE_SAMPLE = 50  # fewer prompts than this get a method that is valid at any number
STAKES = np.sqrt((np.arange(16) + 0.5) / 16)  # parts of the capital, more of them large: few prompts want bold bets
ROUNDING = 1e-9  # of a bounded outcome beyond its bounds, and of a spread that is none, both relative


class Mean(Protocol):
    """The mean of a sample's distribution, as far as the sample tells."""

    def interval(self, alpha: float) -> tuple[float, float]:
        """The interval at level 1 - alpha, NaNs where there is none."""

    def p_value(self, null: float) -> float:
        """Two-sided p-value of "the mean is `null`", a value strictly within the bounds."""


def infer_mean(values: Floats, weights: Floats, bounds: Bounds | None) -> Mean:
    """The way that fits the sample; values [n] without NaN, weights above 0, n at least 1.

    Raises:
        ValueError: for a value outside of its bounds.
    """
    if bounds is None:
        return StudentMean.of(values, weights)
    low, high = bounds
    shares = _shares(values, bounds)
    equal = bool((weights == weights[0]).all())
    if equal and np.isin(shares, (0, 1)).all():
        return BinomialMean(wins=int(shares.sum()), n=len(shares), low=low, high=high)
    if len(values) < FINITE_SAMPLE:
        return BettingMean(shares=shares, weights=weights / weights.max(), low=low, high=high)
    return StudentMean.within(values, weights, bounds)


def _shares(values: Floats, bounds: Bounds) -> Floats:
    """Where the values lie between the bounds, in 0..1."""
    low, high = bounds
    shares = (values - low) / (high - low)
    outside = values[(shares < -ROUNDING) | (shares > 1 + ROUNDING)]
    if len(outside):
        raise ValueError(f"a value is {outside[0]:g}, outside of its bounds {low:g} to {high:g}; give the right bounds")
    return shares.clip(0, 1)


@dataclass(frozen=True)
class BinomialMean:
    """Of an outcome that is `high` (a win) or `low`."""

    wins: int
    n: int
    low: float
    high: float

    def interval(self, alpha: float) -> tuple[float, float]:
        from scipy.special import betainccinv, betaincinv

        wins, losses = self.wins, self.n - self.wins
        least = float(betaincinv(wins, losses + 1, alpha / 2)) if wins else 0.0
        most = float(betainccinv(wins + 1, losses, alpha / 2)) if losses else 1.0
        return self.low + (self.high - self.low) * least, self.low + (self.high - self.low) * most

    def p_value(self, null: float) -> float:
        from scipy.special import betainc, betaincc

        share = (null - self.low) / (self.high - self.low)
        wins, losses = self.wins, self.n - self.wins
        at_least = float(betainc(wins, losses + 1, share)) if wins else 1.0
        at_most = float(betaincc(wins + 1, losses, share)) if losses else 1.0
        return min(1.0, 2 * min(at_least, at_most))


@dataclass(frozen=True)
class BettingMean:
    """Of an outcome within bounds, by what a gambler would win against each mean.

    A gambler who stakes a fixed part of the capital on every prompt keeps it on average where the mean is as supposed,
    so it exceeds 2 / alpha with probability alpha / 2 at most. The capital is the mean over `STAKES`.

    Attributes:
        shares: [n], the outcomes between the bounds, in 0..1.
        weights: [n], in 0..1; the mean is the weighted one.
        low, high: the bounds.
    """

    shares: Floats
    weights: Floats
    low: float
    high: float

    def interval(self, alpha: float) -> tuple[float, float]:
        least = _least_mean(self.shares, self.weights, alpha)
        most = 1 - _least_mean(1 - self.shares, self.weights, alpha)
        return self.low + (self.high - self.low) * least, self.low + (self.high - self.low) * most

    def p_value(self, null: float) -> float:
        share = (null - self.low) / (self.high - self.low)
        gains = (
            _log_capital(self.shares, self.weights, share),
            _log_capital(1 - self.shares, self.weights, 1 - share),
        )
        return min(1.0, 2 * math.exp(-max(gains)))


def _log_capital(shares: Floats, weights: Floats, mean: float) -> float:
    """Logarithm of the capital from 1, staked on the shares [n] being above `mean`; falls as `mean` rises."""
    gains = np.log1p(np.outer(STAKES, weights * (shares / mean - 1))).sum(1)
    most = gains.max()
    return float(most + np.log(np.exp(gains - most).mean()))


def _least_mean(shares: Floats, weights: Floats, alpha: float) -> float:
    """The lower end of the interval at level 1 - alpha: below it the capital exceeds 2 / alpha."""
    from scipy.optimize import brentq

    goal = math.log(2 / alpha)
    smallest, mean = 1e-12, float(shares @ weights / weights.sum())
    if mean <= smallest or _log_capital(shares, weights, smallest) <= goal:
        return 0.0
    return float(brentq(lambda m: _log_capital(shares, weights, m) - goal, smallest, mean, xtol=1e-12))


@dataclass(frozen=True)
class StudentMean:
    """By Student's t: the centre, its standard error and the degrees of freedom, cut to the bounds where there are any.

    Without bounds a sample of equal values (or of one) tells nothing of its spread: its interval is NaN, and so is the
    p-value of every other value.
    """

    centre: float
    standard_error: float
    df: int
    bounds: Bounds = (-math.inf, math.inf)

    @classmethod
    def of(cls, values: Floats, weights: Floats) -> StudentMean:
        """Of values without bounds; the weighted mean is a ratio, and its error that of the linearised one."""
        n, mean = len(values), float(values @ weights / weights.sum())
        if n < 2 or np.ptp(values) <= ROUNDING * abs(values).max():
            return cls(mean, 0.0, max(n - 1, 1))
        deviations = weights * (values - mean) / weights.mean()
        return cls(mean, float(math.sqrt(deviations @ deviations / (n - 1) / n)), n - 1)

    @classmethod
    def within(cls, values: Floats, weights: Floats, bounds: Bounds) -> StudentMean:
        """Of values within bounds: an outcome at each, of average weight, is added."""
        added = cls.of(np.append(values, bounds), np.append(weights, [weights.mean()] * 2))
        return cls(added.centre, added.standard_error, added.df, bounds)

    def interval(self, alpha: float) -> tuple[float, float]:
        if not self.standard_error:
            return math.nan, math.nan
        half = t_quantile(alpha / 2, self.df) * self.standard_error
        return max(self.centre - half, self.bounds[0]), min(self.centre + half, self.bounds[1])

    def p_value(self, null: float) -> float:
        if not self.standard_error:
            return 1.0 if self.centre == null else math.nan
        return 2 * t_tail(abs(self.centre - null) / self.standard_error, self.df)


def t_quantile(tail: float, df: float) -> float:
    """The t with P(T > t) = tail of Student's t with df degrees of freedom."""
    from scipy.special import stdtrit

    return -float(stdtrit(df, tail))


def t_tail(t: float, df: float) -> float:
    """P(T > t) of Student's t with df degrees of freedom."""
    from scipy.special import stdtr

    return float(stdtr(df, -t))
