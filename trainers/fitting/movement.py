"""How far training moved a policy, and how far of the way to its loss's target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainers.algorithm import Algorithm
from trainers.fitting.pairs import Pairs, score, token_counts
from trainers.policies.policy import Policy

MOST_PAIRS = 256
"""Pairs that are watched: two more passes over them without gradients, less than an epoch's cost on 128 pairs."""


@dataclass(frozen=True)
class Watch:
    """Pairs whose responses' log-probabilities are taken where training starts, and again where it ends.

    Of a fit these are its first pairs; of a stream those of its first step, which the policy drew before it moved.

    Attributes:
        batch_size: pairs in memory at once.
        start: [pairs, 2], log-probabilities of chosen and rejected at the start, nats.
    """

    pairs: Pairs
    batch_size: int
    start: NDArray[np.float32]

    @classmethod
    def at(cls, policy: Policy, pairs: Pairs, batch_size: int) -> Watch:
        """A watch of a policy that is where training starts."""
        first = pairs.select(range(min(MOST_PAIRS, len(pairs))))
        return cls(first, batch_size, score(policy, first, batch_size))

    def figures(self, policy: Policy, algorithm: Algorithm) -> dict[str, float]:
        """`movement` and, where the algorithm has a target, `target_slope`, of a policy that went on from the start."""
        return movement(score(policy, self.pairs, self.batch_size) - self.start, self.pairs, algorithm)


def movement(log_ratios: NDArray[Any], pairs: Pairs, algorithm: Algorithm) -> dict[str, float]:
    """How far a policy moved from where it started.

    Returns:
        `movement`, the root mean square log-ratio of the responses (nats), and where the algorithm has a target
        `target_slope`, the least-squares slope through 0 of each pair's log-ratio (chosen less rejected) on
        (2p - 1) target: 0 where nothing moved, 1 where the labels' target is reached at once. Of a loss that is held
        against another policy than the start (offline IPO later on, INPO's reference) it is this iteration's part.

    Args:
        log_ratios: [pairs, 2], log pi / pi_start of chosen and rejected, nats.
    """
    figures = {"movement": float(np.sqrt(np.mean(np.square(log_ratios, dtype=np.float64))))}
    target = algorithm.target_nats()
    if target is None or not np.isfinite(target):
        return figures
    # A target in nats a token is that of a loss of mean log-probabilities.
    scaled = log_ratios / token_counts(pairs) if getattr(algorithm, "log_prob", "sum") == "mean" else log_ratios
    wanted, moved = target * _gain(pairs), scaled[:, 0] - scaled[:, 1]
    norm = float(wanted @ wanted)
    return figures | ({"target_slope": float(wanted @ moved) / norm} if norm else {})


def _gain(pairs: Pairs) -> NDArray[np.float64]:
    """2p - 1 of each pair; where responses earn rewards and not labels, twice the difference of these."""
    rewards = next(iter(pairs.rewards.values()), None)
    return 2 * pairs.preference - 1 if rewards is None else 2 * (rewards[:, 0] - rewards[:, 1])
