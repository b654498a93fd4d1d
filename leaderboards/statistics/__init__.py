"""Intervals, paired comparisons, corrections for many tests, and the length-controlled win rate of AlpacaEval."""

from leaderboards.statistics.corrections import holm
from leaderboards.statistics.intervals import Estimate, algorithm_estimate, prompt_bootstrap
from leaderboards.statistics.paired import Comparison, compare_algorithms, compare_checkpoints, sign_flip_test

__all__ = [
    "Comparison",
    "Estimate",
    "algorithm_estimate",
    "compare_algorithms",
    "compare_checkpoints",
    "holm",
    "prompt_bootstrap",
    "sign_flip_test",
]
