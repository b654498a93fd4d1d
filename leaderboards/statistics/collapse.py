"""Seeds under which a training run collapsed: they make intervals over seeds cover less than they say."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from leaderboards.statistics.intervals import complete_prompts, residual_variance
from leaderboards.statistics.means import Floats

THRESHOLD = 4.0
NORMAL_MAD = 0.6745  # median absolute deviation of a standard normal


def collapsed_seeds(scores: Mapping[str, ArrayLike]) -> dict[str, list[int]]:
    """Rows of each algorithm's scores that lie far below its other ones; algorithms without any are left out.

    Far is more than 4 standard deviations of a seed below the algorithm's median over seeds. The standard deviation
    is a robust one over all algorithms (from the median difference of two seeds of one algorithm), and no less than the
    prompts alone would give. What is found of what there is: docs/statistics.md; with two seeds it is little.

    Args:
        scores: algorithm -> [seeds, prompts], more being better, NaN where a verdict failed; algorithms may have
            different seeds. Those with one seed are passed over.
    """
    tables = {name: complete_prompts(np.asarray(table, np.float64)) for name, table in scores.items()}
    tables = {name: table for name, table in tables.items() if len(table) > 1 and table.shape[1] > 1}
    if not tables:
        return {}
    means = {name: table.mean(1) for name, table in tables.items()}
    limit = THRESHOLD * max(_spread(list(means.values())), _noise(list(tables.values())))
    falls = {name: (np.median(of) - of) / np.sqrt(1 - 1 / len(of)) for name, of in means.items()}
    rows = {name: np.flatnonzero(fall > limit).tolist() for name, fall in falls.items()}
    return {name: collapsed for name, collapsed in rows.items() if collapsed}


def _spread(means: list[Floats]) -> float:
    """Standard deviation of a seed, robust: by the median difference of two seeds of an algorithm."""
    differences = [abs(np.subtract.outer(of, of))[np.triu_indices(len(of), 1)] for of in means]
    return float(np.median(np.concatenate(differences))) / (np.sqrt(2) * NORMAL_MAD)


def _noise(tables: list[Floats]) -> float:
    """Standard deviation of a seed's mean if seeds differed by their prompts' residuals alone."""
    return float(np.sqrt(np.mean([residual_variance(table) / table.shape[1] for table in tables])))
