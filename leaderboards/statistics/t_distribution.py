"""Tails and quantiles of the normal and of Student's t distribution, without scipy. Pure numpy, float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np

NODES, WEIGHTS = np.polynomial.legendre.leggauss(64)


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
    angle = bisect(lambda a: t_tail(math.sqrt(df) * math.tan(a), df) - tail, 0.0, math.pi / 2)
    return math.sqrt(df) * math.tan(angle)


def bisect(falling: Callable[[float], float], low: float, high: float) -> float:
    """Where a falling function crosses zero between low and high, to double precision."""
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > 0 else (low, middle)
    return (low + high) / 2
