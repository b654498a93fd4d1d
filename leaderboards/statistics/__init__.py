"""Estimates with intervals (`intervals`, `means`), paired comparisons (`paired`), corrections for many tests
(`corrections`), how much more would settle a comparison (`power`), seeds that collapsed (`collapse`), and the
length-controlled win rate of AlpacaEval (`length_control`).
"""

from leaderboards.statistics.corrections import holm
from leaderboards.statistics.intervals import Estimate, algorithm_estimate, mean_estimate
from leaderboards.statistics.paired import (
    IF_ALIKE,
    Comparison,
    compare_algorithms,
    compare_checkpoints,
    pooled_seed_variance,
)

__all__ = [
    "IF_ALIKE",
    "Comparison",
    "Estimate",
    "algorithm_estimate",
    "compare_algorithms",
    "compare_checkpoints",
    "holm",
    "mean_estimate",
    "pooled_seed_variance",
]
