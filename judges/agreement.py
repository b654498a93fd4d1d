"""How far preferences agree with human votes: accuracy, log-loss, calibration, bias towards length. Pure numpy.

`preference` is P(first beats second), float64 [n], NaN where there is no verdict; `share` is the share of votes for the
first response, float64 [n], a tie counting one half. Pairs without a verdict are left out of every figure.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


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
    answered = ~np.isnan(preference)
    p, s = preference[answered], share[answered]
    where = np.minimum((p * bins).astype(int), bins - 1)
    gaps = np.bincount(where, weights=p - s, minlength=bins)
    return float(np.abs(gaps).sum() / len(p)) if len(p) else float("nan")


def length_bias(preference: Floats, share: Floats, first: Sequence[str], second: Sequence[str]) -> float:
    """How much more than the votes the judge prefers the longer response, in -1..1; 0 is none.

    Over the pairs whose lengths in characters differ: mean preference for the longer one less its mean share of votes.
    """
    longer = np.sign(np.array([len(a) - len(b) for a, b in zip(first, second, strict=True)], dtype=np.float64))
    chosen = ~np.isnan(preference) & (longer != 0)
    return _mean(longer[chosen] * (preference[chosen] - share[chosen]))


def _mean(values: NDArray[np.float64] | NDArray[np.bool_]) -> float:
    return float(np.mean(values)) if len(values) else float("nan")
