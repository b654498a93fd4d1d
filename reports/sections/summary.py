"""Which trainer leads under each judge, board by board: the verdict as one small table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reports.boards import Arm, Group, alpha, significant
from reports.sections.common import figure, listed
from reports.standings import better, versus
from reports.tables import grouped, unique

MOST_LEVEL = 2  # names of arms that are level with the leader


def summary(with_findings: Sequence[Group]) -> list[dict[str, Any]]:
    """One table a sweep and start policy: a row a training judge, a column a board and grader.

    A square holds the arm with the best mean over seeds, its paired difference to the untrained policy, whether that is
    separable, and the arms that are not separable from it. Only where a judge trained two arms or more.
    """
    tables = []
    for (sweep, policy), groups in grouped(with_findings, lambda group: (group.sweep.name, group.policy)).items():
        judges = unique(row["judge"] for group in groups for row in group.trained)
        rows = [{"judge": judge, "cells": [_square(group, judge) for group in groups]} for judge in judges]
        if any(cell and cell["of"] > 1 for row in rows for cell in row["cells"]):
            columns = [_column(group) for group in groups]
            tables.append({"sweep": sweep, "policy": policy, "columns": columns, "rows": rows})
    return tables


def _column(group: Group) -> dict[str, Any]:
    tags = {"leaderboard": group.board.name, "grader": group.grader}
    return {"board": group.board.name, "grader": group.grader, "metric": group.board.lead.label, "tags": tags}


def _square(group: Group, judge: str) -> dict[str, Any] | None:
    of_judge = [arm for arm in group.arms if arm.judge == judge]
    if not of_judge:
        return None
    best, *others = of_judge
    level = [_name(group, arm) for arm in others if better(group, best, arm) in (0, -1) and not group.is_exact]
    start = group.control("sft")
    paired = versus(group, best.name, start.name) if start else None
    lead = group.board.lead
    return {
        "leader": _name(group, best),
        "of": len(of_judge),
        "differences": [figure(paired["difference"], lead, signed=True)] if paired else [],
        "sure": paired is not None and significant(paired, alpha(group.rows)),
        "level": "all others" if len(level) == len(others) > MOST_LEVEL else listed(level, MOST_LEVEL),
    }


def _name(group: Group, arm: Arm) -> str:
    return str(group.sweep.info[arm.rows[0]["cell"]]["arm"])
