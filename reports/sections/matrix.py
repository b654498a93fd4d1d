"""Heat maps: trainer x training judge for each grader, and training judge x grader for each trainer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from reports.boards import Board, Group, boards, groups
from reports.charts import finite, near
from reports.sections.common import figure, spread
from reports.tables import Row, Sweep, grouped, is_control, unique

Shade = Callable[[Sequence[float]], float]


def trainer_by_judge(sweeps: Sequence[Sweep]) -> list[dict[str, Any]]:
    """One heat map a metric and grader: rows are arms, columns the judges that trained them; the controls apart."""
    maps = []
    for board in (view for of in boards(sweeps) for view in of.views):
        found = groups(sweeps, board)
        shade = shading(board, [row for group in found for row in group.rows])
        maps += [_by_judge(group, shade) for group in found if group.trained]
    return maps


def cross_judge(sweeps: Sequence[Sweep]) -> list[dict[str, Any]]:
    """One heat map an arm and metric: rows are the judges that trained, columns those that graded.

    Only where at least two judges graded: otherwise it would repeat the first kind of map.
    """
    maps = []
    for board in (view for of in boards(sweeps) for view in of.views):
        found = groups(sweeps, board)
        shade = shading(board, [row for group in found for row in group.rows])
        for of_policy in grouped(found, lambda group: (group.sweep.name, group.policy)).values():
            if len(of_policy) > 1:
                maps += _crossed(of_policy, shade)
    return maps


def shading(board: Board, rows: Sequence[Row]) -> Shade:
    """From the values of a square to a shade, 1 the best: in [-1, 1] around a null value nearby, else in [0, 1]."""

    def scaled(values: Iterable[float]) -> list[float]:
        return [math.log10(value) for value in values if value > 0] if board.lead.log else list(values)

    values, sign = scaled(finite(row["value"] for row in rows if row["judge"])), board.lead.sign or 1
    null = None if board.lead.log else near(board.lead.null, values)
    low, high = min(values, default=0.0), max(values, default=0.0)
    origin = null if null is not None else low if sign > 0 else high
    reach = max((abs(value - origin) for value in values), default=0) or 1

    def shade(found: Sequence[float]) -> float:
        known = scaled(found) or [origin + sign * reach]  # a gap of exactly 0 has no logarithm and is the best there is
        return round(sign * (sum(known) / len(known) - origin) / reach, 2)

    return shade


def _by_judge(group: Group, shade: Shade) -> dict[str, Any]:
    sweep, rows = group.sweep, group.trained
    cells = [row for row in sweep.info.values() if row["policy"] == group.policy and not is_control(row)]
    judges, arms = unique(row["judge"] for row in cells), unique(row["arm"] for row in cells)
    placed = grouped(rows, lambda row: (sweep.info[row["cell"]]["arm"], row["judge"]))
    undone = grouped(
        (c for c in sweep.cells if c["state"] != "done" and sweep.info[c["cell"]]["policy"] == group.policy),
        lambda cell: (sweep.info[cell["cell"]]["arm"], cell["judge"]),
    )

    def square(arm: str, judge: str) -> dict[str, Any]:
        return _square(placed.get((arm, judge), []), undone.get((arm, judge), []), group.board, shade)

    controls = [row for row in group.ordered if is_control(row)]
    return {
        "sweep": sweep.name,
        "policy": group.policy,
        "board": group.board,
        "grader": group.grader,
        "columns": judges,
        "rows": [{"name": arm, "cells": [square(arm, judge) for judge in judges]} for arm in arms],
        "controls": [{"trainer": row["trainer"], "value": figure(row["value"], group.board.lead)} for row in controls],
    }


def _crossed(of_policy: Sequence[Group], shade: Shade) -> list[dict[str, Any]]:
    first = of_policy[0]
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
                        _square([r for r in of_judge if r["grader"] == group.grader], [], first.board, shade)
                        for group in of_policy
                    ],
                }
                for judge, of_judge in grouped(members, lambda row: row["judge"]).items()
            ],
        }
        for arm, members in by_arm.items()
    ]


def _square(rows: Sequence[Row], undone: Sequence[Row], board: Board, shade: Shade) -> dict[str, Any]:
    """One square: the value, or lowest and highest over seeds; the states of cells that are not done, and why."""
    values = finite(row["value"] for row in rows)
    return {
        "figures": spread(values, board.lead) if values else [],
        "shade": shade(values) if values else None,
        "own": any(row["judge"] and row["judge"] == row["grader"] for row in rows),
        "states": unique(cell["state"] for cell in undone),
        "reason": "; ".join(unique(cell["reason"] for cell in undone if cell["reason"]))[:300],
    }
