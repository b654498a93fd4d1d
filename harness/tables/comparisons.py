"""Which policies are compared with which, on the same prompts, and what is claimed about each difference."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.matrix import CONTROL
from leaderboards.statistics.means import Bounds
from reports.seeds import seeds_of_most

if TYPE_CHECKING:
    from leaderboards.statistics.paired import Comparison, SeedVariance

Values = NDArray[np.float64]
Named = Collection[frozenset[str]]
LEVEL = 0.05  # of the tests, beside 95% intervals
MOST_BASES = 8
"""Base policies that are all compared with each other; of more each is compared with the first alone."""


@dataclass(frozen=True)
class PolicyValues:
    """One checkpoint's value on every prompt (NaN where it failed), and where it came from.

    Attributes:
        algorithm: the id that all its seeds share.
        policy: the base policy's label; a control is compared with what was trained from its own.
        trainer: the trainer's name.
        judge: the label of the judge that trained it; empty for a control.
        baseline: whose answers the values compare with, where that is a policy of the sweep: values against different
            baselines are never compared.
    """

    cell: str
    algorithm: str
    policy: str
    trainer: str
    judge: str
    seed: int | None
    values: Values
    baseline: str = ""


def compare_all(
    graded: Sequence[PolicyValues], bounds: Bounds | None = None, named: Named | None = ()
) -> list[dict[str, Any]]:
    """Every comparison of one metric under one grader, with Holm-adjusted p-values within each kind of claim.

    `checkpoint`: each trained policy against the untrained ones of its base; each two trained under the same judge with
    the same seed; the untrained ones of one base with each other, and those of several bases as they are (`sft`), all
    pairs of at most MOST_BASES, else each with the first.
    `algorithm`: the same over the seeds that most algorithms of a base have (`seeds_of_most`), at least two of them.

    Args:
        named: pairs of cells that are compared besides; None compares all. One that cannot be compared has a row that
            says why.
    """
    from leaderboards.statistics.paired import compare_algorithms, compare_checkpoints

    graded = [policy for policy in graded if not np.isnan(policy.values).all()]
    checkpoints = [
        (a.cell, b.cell, compare_checkpoints(a.values, b.values, bounds=bounds), a.values - b.values)
        for a, b in _rivals(graded, named)
    ]
    over_seeds = _OverSeeds(graded)
    algorithms = [
        (a, b, compare_algorithms(x, y, alike=over_seeds.alike(policy)), x - y)
        for policy, a, b, x, y in over_seeds.rivals(named)
    ]
    rows = [row for family in (checkpoints, algorithms) for row in _rows(family)]
    return rows + [_NO_COMPARISON | why for why in _not_compared(graded, named or ())]


_NO_COMPARISON = dict.fromkeys(("difference", "ci_low", "ci_high", "p_value", "p_adjusted"), math.nan) | {
    "n": 0,
    "claim": "checkpoint",
}


def _not_compared(graded: Sequence[PolicyValues], named: Named) -> Iterator[dict[str, str]]:
    """The named pairs that have no comparison, each with the reason."""
    there = {policy.cell: policy for policy in graded}
    for pair in sorted(map(sorted, named)):
        if missing := [cell for cell in pair if cell not in there]:
            yield {"a": pair[0], "b": pair[1], "not_compared": f"no value of {' and '.join(missing)}"}
        elif len(baselines := {there[cell].baseline for cell in pair}) > 1:
            yield {
                "a": pair[0],
                "b": pair[1],
                "not_compared": f"their values are against different baselines: {' and '.join(sorted(baselines))}",
            }


def algorithm_rows(graded: Sequence[PolicyValues], sign: int) -> list[dict[str, Any]]:
    """Each algorithm's mean over seeds and prompts with its interval, and the seeds under which it collapsed.

    Args:
        sign: +1 where more is better, -1 where less is, 0 where neither: then no seed has collapsed.
    """
    from leaderboards.statistics.collapse import collapsed_seeds
    from leaderboards.statistics.intervals import algorithm_estimate

    rows = []
    over_seeds = _OverSeeds([policy for policy in graded if not np.isnan(policy.values).all()])
    for algorithms in over_seeds.policies.values():
        tables = {name: _table(seeds) for name, seeds in algorithms.items()}
        collapsed = collapsed_seeds({name: sign * table for name, table in tables.items()}) if sign else {}
        for name, table in tables.items():
            seeds, estimate = [of.seed for of in algorithms[name]], algorithm_estimate(table)
            rows.append(
                {
                    "algorithm": name,
                    "seeds": _listed(seeds),
                    "value": estimate.value,
                    "ci_low": estimate.ci_low,
                    "ci_high": estimate.ci_high,
                    "ci_level": estimate.ci_level,
                    "n": estimate.n,
                    "collapsed": _listed(seeds[row] for row in collapsed.get(name, [])),
                }
            )
    return rows


def _listed(seeds: Iterable[int | None]) -> str:
    return ", ".join(map(str, seeds))


def _rows(family: Sequence[tuple[str, str, Comparison, Values]]) -> Iterator[dict[str, Any]]:
    """A row a comparison of one family; with what would settle it, where the difference is not separable."""
    from leaderboards.statistics.corrections import holm

    p_values = [made.p_value for _, _, made, _ in family]
    tests = sum(not math.isnan(p) for p in p_values)
    for (a, b, made, differences), adjusted in zip(family, holm(p_values), strict=True):
        difference, alike = made.difference, made.if_alike
        yield {
            "a": a,
            "b": b,
            "difference": difference.value,
            "ci_low": difference.ci_low,
            "ci_high": difference.ci_high,
            "p_value": made.p_value,
            "p_adjusted": float(adjusted),
            "n": difference.n,
            "claim": made.claim,
            "alike_low": alike.ci_low if alike else math.nan,
            "alike_high": alike.ci_high if alike else math.nan,
            **(_settling(differences, tests) if adjusted >= LEVEL else {}),
        }


def _settling(differences: Values, tests: int) -> dict[str, float]:
    """The difference that the numbers at hand show, and how many prompts or seeds would show the observed one."""
    from leaderboards.statistics.power import detectable_difference, prompts_needed, seeds_needed

    level = 1 - LEVEL / max(tests, 1)
    needed = {"prompts_needed": prompts_needed(differences, level=level)}
    if differences.ndim == 2:
        needed["seeds_needed"] = seeds_needed(differences, level=level)
    return {"detectable": detectable_difference(differences, level=level), **needed}


def _rivals(graded: Sequence[PolicyValues], named: Named | None) -> Iterator[tuple[PolicyValues, PolicyValues]]:
    trained = [policy for policy in graded if policy.seed is not None]
    untrained = [policy for policy in graded if policy.seed is None]
    untrained.sort(key=lambda policy: policy.trainer != CONTROL)
    pairs = [(policy, control) for control in untrained for policy in trained]
    pairs += itertools.combinations(trained, 2)
    pairs += itertools.combinations(untrained, 2)
    bases = list(dict.fromkeys(policy.policy for policy in untrained if policy.trainer == CONTROL))
    first = bases[0] if len(bases) > MOST_BASES else None
    for a, b in pairs:
        asked = named is None or frozenset((a.cell, b.cell)) in named
        if a.baseline == b.baseline and (asked or _is_default(a, b, first)):
            yield a, b


def _is_default(a: PolicyValues, b: PolicyValues, first: str | None) -> bool:
    """Whether two policies are compared without being asked for; bases all with each other, or with the `first`."""
    if a.seed is None and b.seed is None and a.policy != b.policy:
        return a.trainer == b.trainer == CONTROL and first in (None, a.policy, b.policy)
    same_training = a.judge == b.judge and a.seed == b.seed
    return a.policy == b.policy and (b.seed is None or same_training)


class _OverSeeds:
    """The algorithms of each base policy that have all the seeds that most of them have, at least two."""

    def __init__(self, graded: Sequence[PolicyValues]) -> None:
        found: dict[str, dict[str, dict[int, PolicyValues]]] = defaultdict(lambda: defaultdict(dict))
        for policy in graded:
            if policy.seed is not None:
                found[policy.policy][policy.algorithm][policy.seed] = policy
        self.untrained = [policy for policy in graded if policy.seed is None]
        self.policies: dict[str, dict[str, list[PolicyValues]]] = {}
        for base, algorithms in found.items():
            seeds = seeds_of_most(algorithms.values())
            complete = {name: of for name, of in algorithms.items() if set(seeds) <= of.keys()}
            if len(seeds) > 1:
                self.policies[base] = {name: [of[seed] for seed in seeds] for name, of in complete.items()}

    def alike(self, base: str) -> SeedVariance | None:
        """The pooled variance of the seeds of a base's algorithms, where there are two, and prompts that all have."""
        from leaderboards.statistics.intervals import complete_prompts
        from leaderboards.statistics.paired import pooled_seed_variance

        scores = np.stack([_table(seeds) for seeds in self.policies[base].values()])
        return pooled_seed_variance(scores) if len(scores) > 1 and complete_prompts(scores).shape[-1] else None

    def rivals(self, named: Named | None) -> Iterator[tuple[str, str, str, Values, Values]]:
        """(base, a, b, [seeds, prompts] of a, the same or [prompts] of b) for every pair that is compared."""
        every = [(base, *entry) for base, algorithms in self.policies.items() for entry in algorithms.items()]
        for (base, name, seeds), control in itertools.product(every, self.untrained):
            if any(_is_compared(of, control, named) for of in seeds):
                yield base, name, control.cell, _table(seeds), control.values
        for (base, one, seeds), (_, other, others) in itertools.combinations(every, 2):
            paired = [of.seed for of in seeds] == [of.seed for of in others]
            if paired and any(map(_is_compared, seeds, others, itertools.repeat(named))):
                yield base, one, other, _table(seeds), _table(others)


def _table(seeds: Sequence[PolicyValues]) -> Values:
    return np.stack([policy.values for policy in seeds])


def _is_compared(a: PolicyValues, b: PolicyValues, named: Named | None) -> bool:
    return any(True for _ in _rivals([a, b], named))


def aligned(values: Mapping[str, Mapping[str, float | None]]) -> dict[str, Values]:
    """For each cell its value on every prompt that all cells were asked, in one order; NaN where it failed."""
    shared = sorted(set.intersection(*(set(v) for v in values.values())))
    return {cell: np.array([np.nan if v[id] is None else v[id] for id in shared], float) for cell, v in values.items()}
