"""Heat maps: trainer x training judge for each grader, and training judge x grader for each trainer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from reports.boards import Group, boards, groups
from reports.charts import finite, near
from reports.sections.common import figure
from reports.standings import against_start
from reports.tables import Row, Sweep, grouped, is_control, unique

PALE = 0.25  # the deepest shade of a difference that is not separable from zero
Shade = Callable[[Sequence[float]], float]


def trainer_by_judge(sweeps: Sequence[Sweep]) -> list[dict[str, Any]]:
    """One heat map a metric and grader: rows are arms, columns the judges that trained them; the controls apart."""
    views = [view for of in boards(sweeps) for view in of.views]
    return [_by_judge(group) for view in views for group in groups(sweeps, view) if group.trained]


def cross_judge(sweeps: Sequence[Sweep]) -> list[dict[str, Any]]:
    """One heat map an arm and metric: rows are the judges that trained, columns those that graded.

    Only where at least two judges graded: otherwise it would repeat the first kind of map.
    """
    maps = []
    for board in (view for of in boards(sweeps) for view in of.views):
        for of_policy in grouped(groups(sweeps, board), lambda group: (group.sweep.name, group.policy)).values():
            if len(of_policy) > 1:
                maps += _crossed(of_policy)
    return maps


def shading(group: Group) -> Shade:
    """From the values of a square to a shade in [-1, 1]: 0 at the group's origin, above 0 where better, 1 furthest.

    Without an origin a shade in [0, 1], 1 the best.
    """
    lead, at = group.board.lead, origin(group)

    def scaled(values: Iterable[float]) -> list[float]:
        return [math.log10(value) for value in values if value > 0] if lead.log else list(values)

    values, sign = scaled(finite(row["value"] for row in group.trained)), lead.sign or 1
    worst = min(values, default=0.0) if sign > 0 else max(values, default=0.0)
    start = worst if at is None else scaled([at])[0]
    reach = max((abs(value - start) for value in values), default=0) or 1

    def shade(square: Sequence[float]) -> float:
        # A gap of exactly 0 has no logarithm and is the best there is.
        on_scale = scaled(square) or [start + sign * reach]
        return round(sign * (sum(on_scale) / len(on_scale) - start) / reach, 2)

    return shade


def origin(group: Group) -> float | None:
    """What a group's values are held against: the untrained policy's, else a null value nearby, else None."""
    start, lead = group.control("sft"), group.board.lead
    value = start.value if start and finite([start.value]) else None
    if value is None:
        value = near(lead.null, finite(row["value"] for row in group.trained))
    return None if lead.log and value is not None and value <= 0 else value


def _by_judge(group: Group) -> dict[str, Any]:
    sweep, rows, shade = group.sweep, group.trained, shading(group)
    cells = [row for row in sweep.info.values() if row["policy"] == group.policy and not is_control(row)]
    judges, arms = unique(row["judge"] for row in cells), unique(row["arm"] for row in cells)
    placed = grouped(rows, lambda row: (sweep.info[row["cell"]]["arm"], row["judge"]))
    undone = grouped(
        (c for c in sweep.cells if c["state"] != "done" and sweep.info[c["cell"]]["policy"] == group.policy),
        lambda cell: (sweep.info[cell["cell"]]["arm"], cell["judge"]),
    )

    def square(arm: str, judge: str) -> dict[str, Any]:
        return _square(placed.get((arm, judge), []), undone.get((arm, judge), []), group, shade)

    controls = [row for row in group.ordered if is_control(row)]
    return {
        "sweep": sweep.name,
        "policy": group.policy,
        "board": group.board,
        "grader": group.grader,
        "columns": judges,
        "rows": [{"name": arm, "cells": [square(arm, judge) for judge in judges]} for arm in arms],
        "around": _around(group),
        "controls": [{"trainer": row["trainer"], "value": figure(row["value"], group.board.lead)} for row in controls],
    }


def _around(group: Group) -> dict[str, Any] | None:
    """The value at which a map is white, and whether it is the untrained policy's."""
    at, start = origin(group), group.control("sft")
    if at is None:
        return None
    return {"value": figure(at, group.board.lead), "untrained": start is not None and start.value == at}


def _crossed(of_policy: Sequence[Group]) -> list[dict[str, Any]]:
    first, shades = of_policy[0], [shading(group) for group in of_policy]
    rows = [row for group in of_policy for row in group.trained]
    order = list(first.sweep.info)
    rows.sort(key=lambda row: order.index(row["cell"]))
    by_arm = grouped(rows, lambda row: first.sweep.info[row["cell"]]["arm"])
    return [
        {
            "sweep": first.sweep.name,
            "policy": first.policy,
            "board": first.board,
            "arm": arm,
            "trainer": members[0]["trainer"],
            "columns": [group.grader for group in of_policy],
            "rows": [
                {
                    "name": judge,
                    "cells": [
                        _square([r for r in of_judge if r["grader"] == group.grader], [], group, shade)
                        for group, shade in zip(of_policy, shades, strict=True)
                    ],
                }
                for judge, of_judge in grouped(members, lambda row: row["judge"]).items()
            ],
        }
        for arm, members in by_arm.items()
    ]


def _square(rows: Sequence[Row], undone: Sequence[Row], group: Group, shade: Shade) -> dict[str, Any]:
    """One square: the mean over seeds; the states of cells that are not done, and why; which seeds are missing.

    `sure`: separable from the untrained policy; None where nothing tells.
    """
    cells = {row["cell"] for row in rows}
    arm = next((arm for arm in [*group.arms, *group.incomplete] if cells & {row["cell"] for row in arm.rows}), None)
    standing = None if arm is None or arm.lacking else against_start(group, arm)
    values, sure = finite([arm.value] if arm else []), None if standing is None else standing != 0
    missing = [f"lacks seed {', '.join(map(str, arm.lacking))}"] if arm and arm.lacking else []
    return {
        "figures": [figure(value, group.board.lead) for value in values],
        "shade": pale(shade(values), sure) if values else None,
        "sure": sure,
        "own": any(row["judge"] and row["judge"] == row["grader"] for row in rows),
        "states": [*unique(cell["state"] for cell in undone), *missing],
        "reason": "; ".join(unique(cell["reason"] for cell in undone if cell["reason"]))[:300],
    }


def pale(shade: float, sure: bool | None) -> float:
    """A shade as it is drawn: below PALE where not separable from zero, above it where separable."""
    size = abs(shade) if sure is None else PALE + (1 - PALE) * abs(shade) if sure else PALE * abs(shade)
    return round(math.copysign(size, shade), 3)
