"""Corrections for many tests at once. Pure numpy, float64."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from leaderboards.statistics.intervals import as_vectors
from leaderboards.statistics.means import Floats


def holm(p_values: ArrayLike) -> Floats:
    """Holm's step-down adjusted p-values [tests], in the order given; the family-wise error is held at the level.

    A NaN is a test that could not be made: it stays NaN and is not counted among the tests.
    """
    p, _ = as_vectors(p_values, None)
    order = np.argsort(p)[: np.count_nonzero(~np.isnan(p))]  # NaNs sort last
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted = np.full(len(p), np.nan)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted
