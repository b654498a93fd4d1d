"""How the arms of a group stand to each other: by their paired comparison, and in no other way."""

from __future__ import annotations

import bisect
import itertools

from reports.boards import Arm, Group, alpha, comparisons, oriented, significant
from reports.tables import Row


def versus(group: Group, a: str, b: str) -> Row | None:
    """The comparison of two cells or algorithms, `a` first, if the table has it with a difference."""
    row = group.sweep.paired.get((group.compared_by, frozenset((a, b))))
    return None if row is None or row["difference"] is None else oriented(row, a)


def tests_of(group: Group, comparison: Row) -> int:
    """How many tests the comparison's p-value is adjusted for: its family is (board, metric, grader, claim)."""
    return sum(row["p_value"] is not None for row in comparisons(group, comparison["claim"]))


def better_sign(group: Group, comparison: Row) -> int:
    """+1 where the first side of a comparison is the better one, -1 where the second is."""
    return (group.board.lead.sign or 1) * _sign(comparison["difference"])


def better(group: Group, a: Arm, b: Arm) -> int | None:
    """+1 where a is separably better than b, -1 where worse, 0 where not separable, None where nothing tests it.

    Exact values, as those of games, are better where they are better.
    """
    paired = versus(group, a.name, b.name)
    if paired is not None:
        return better_sign(group, paired) if significant(paired, alpha(group.rows)) else 0
    return (group.board.lead.sign or 1) * _sign(a.value - b.value) if group.is_exact else None


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)


def ranks(group: Group) -> dict[str, tuple[int, int]]:
    """Arm -> the ranks it may hold: 1 + those separably better, up to all but those separably worse.

    Exact values hold the rank of their order, equal ones sharing it. Empty where nothing is tested.
    """
    ranked = group.ranked
    if group.is_exact:
        return _exact_ranks(ranked, group.board.lead.sign or 1)
    against = {arm.name: [better(group, arm, other) for other in ranked if other is not arm] for arm in ranked}
    if all(standing is None for standing in itertools.chain(*against.values())):
        return {}
    return {name: (1 + of.count(-1), len(ranked) - of.count(1)) for name, of in against.items()}


def _exact_ranks(ranked: list[Arm], sign: int) -> dict[str, tuple[int, int]]:
    values = sorted(-sign * arm.value for arm in ranked)
    return {arm.name: (1 + bisect.bisect_left(values, -sign * arm.value),) * 2 for arm in ranked}


def against_null(group: Group, arm: Arm) -> int:
    """+1 where the arm's interval lies on the better side of the metric's null value, -1 on the worse, 0 otherwise."""
    null, sign = group.board.lead.null, group.board.lead.sign or 1
    if null is None or arm.ci_low is None or arm.ci_high is None:
        return 0
    return sign * ((arm.ci_low > null) - (arm.ci_high < null))


def start_is_null(group: Group) -> bool:
    """Whether an arm's standing to the untrained policy is its standing to the null value: that is not scored."""
    start, null = group.control("sft"), group.board.lead.null
    return null is not None and (start is None or (not start.has_interval and start.value == null))


def against_start(group: Group, arm: Arm) -> int | None:
    """How an arm stands to the untrained policy: +1, 0, -1; None where nothing tests it."""
    start = group.control("sft")
    standing = None if start is None else better(group, arm, start)
    if standing is None and start_is_null(group) and arm.has_interval:
        return against_null(group, arm)
    return standing


def tested_to_start(group: Group, arm: Arm) -> bool:
    """Whether a paired comparison says how an arm stands to the untrained policy."""
    start = group.control("sft")
    return start is not None and versus(group, arm.name, start.name) is not None
