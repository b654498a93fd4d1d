"""Which policies are compared with which, on the same prompts, and what is claimed about each difference."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.matrix import CONTROL
from leaderboards.statistics.means import Bounds

Values = NDArray[np.float64]


@dataclass(frozen=True)
class PolicyValues:
    """One checkpoint's value on every prompt (NaN where it failed), and where it came from.

    Attributes:
        algorithm: the id that all its seeds share.
        policy: the base policy's label; a control is compared with what was trained from its own.
        trainer: the trainer's name.
        judge: the label of the judge that trained it; empty for a control.
    """

    cell: str
    algorithm: str
    policy: str
    trainer: str
    judge: str
    seed: int | None
    values: Values


def compare_all(graded: Sequence[PolicyValues], bounds: Bounds | None = None) -> list[dict[str, Any]]:
    """Every comparison of one metric under one grader, with Holm-adjusted p-values within each kind of claim.

    `checkpoint`: each policy against its control, and each two trained under the same judge with the same seed.
    `algorithm`: the same over all seeds, where there are at least two.
    """
    from leaderboards.statistics.corrections import holm
    from leaderboards.statistics.paired import compare_algorithms, compare_checkpoints

    checkpoints = [(a.cell, b.cell, compare_checkpoints(a.values, b.values, bounds=bounds)) for a, b in _rivals(graded)]
    algorithms = [(a, b, compare_algorithms(x, y)) for a, b, x, y in _over_seeds(graded)]
    rows: list[dict[str, Any]] = []
    for family in (checkpoints, algorithms):
        adjusted = holm([made.p_value for _, _, made in family])
        for (a, b, made), p_adjusted in zip(family, adjusted, strict=True):
            difference = made.difference
            rows.append(
                {
                    "a": a,
                    "b": b,
                    "difference": difference.value,
                    "ci_low": difference.ci_low,
                    "ci_high": difference.ci_high,
                    "p_value": made.p_value,
                    "p_adjusted": float(p_adjusted),
                    "n": difference.n,
                    "claim": made.claim,
                }
            )
    return rows


def _rivals(graded: Sequence[PolicyValues]) -> Iterator[tuple[PolicyValues, PolicyValues]]:
    controls = [g for g in graded if g.trainer == CONTROL]
    trained = [g for g in graded if g.trainer != CONTROL]
    for control, policy in itertools.product(controls, trained):
        if control.policy == policy.policy:
            yield policy, control
    for a, b in itertools.combinations(trained, 2):
        if (a.policy, a.judge, a.seed) == (b.policy, b.judge, b.seed) and a.seed is not None:
            yield a, b


def _over_seeds(graded: Sequence[PolicyValues]) -> Iterator[tuple[str, str, Values, Values]]:
    """(a, b, [seeds, prompts] of a, the same or [prompts] of b) for every pair of algorithms with common seeds."""
    by_algorithm: dict[tuple[str, str, str], dict[int, Values]] = defaultdict(dict)
    for g in graded:
        if g.seed is not None:
            by_algorithm[g.policy, g.judge, g.algorithm][g.seed] = g.values
    for (policy, _, name), seeds in by_algorithm.items():
        for control in graded:
            if control.trainer == CONTROL and control.policy == policy and len(seeds) > 1:
                yield name, control.cell, np.stack(list(seeds.values())), control.values
    for (one, seeds), (other, others) in itertools.combinations(by_algorithm.items(), 2):
        common = sorted(set(seeds) & set(others))
        if one[:2] == other[:2] and len(common) > 1:
            yield one[2], other[2], np.stack([seeds[s] for s in common]), np.stack([others[s] for s in common])


def aligned(values: Mapping[str, Mapping[str, float | None]]) -> dict[str, Values]:
    """For each cell its value on every prompt that all cells were asked, in one order; NaN where it failed."""
    shared = sorted(set.intersection(*(set(v) for v in values.values())))
    return {cell: np.array([np.nan if v[id] is None else v[id] for id in shared], float) for cell, v in values.items()}
