"""Which trainer leads under each judge, board by board: the verdict as one small table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reports.boards import Group, against_start, arms, better, by_prompt, versus
from reports.sections.common import Figure, figure, listed
from reports.tables import Row, grouped, unique

MOST_LEVEL = 2  # names of arms that are level with the leader


def summary(with_findings: Sequence[Group]) -> list[dict[str, Any]]:
    """One table a sweep and start policy: a row a training judge, a column a board and grader.

    A square holds the arm with the best median seed, its paired difference to the untrained policy (lowest and highest
    over seeds, in the metric that is compared), whether that is separable, and the arms that are not separable from it.
    Only where a judge trained two arms or more.
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
    board, compared = group.board, by_prompt(group).board
    tags = {"leaderboard": board.name, "grader": group.grader}
    difference = "" if compared.lead == board.lead else compared.lead.label
    return {"board": board.name, "grader": group.grader, "metric": board.lead.label, "in": difference, "tags": tags}


def _square(group: Group, judge: str) -> dict[str, Any] | None:
    of_judge = [rows for rows in arms(group) if rows[0]["judge"] == judge]
    if not of_judge:
        return None
    best, *others = of_judge
    arm_of = {rows[0]["cell"]: group.sweep.info[rows[0]["cell"]]["arm"] for rows in of_judge}
    # Exact values, as those of games, have no intervals and differ where they differ.
    uncertain = [rows for rows in others if rows[0]["ci_low"] is not None]
    level = [arm_of[rows[0]["cell"]] for rows in uncertain if not _ahead(group, best, rows)]
    differences, sure = _against_untrained(group, best)
    return {
        "leader": arm_of[best[0]["cell"]],
        "of": len(of_judge),
        "differences": differences,
        "sure": sure,
        "level": "all others" if len(level) == len(others) > MOST_LEVEL else listed(level, MOST_LEVEL),
    }


def _ahead(group: Group, best: Sequence[Row], rows: Sequence[Row]) -> bool:
    """Whether each seed of an arm is separably better than the same seed of another, or than all where none is.

    In the metric that is compared by prompt, where there is one.
    """
    group = by_prompt(group)
    compared = {row["cell"]: row for row in group.trained}
    pairs = [(compared.get(a["cell"], a), compared.get(b["cell"], b)) for a in best for b in rows]
    same = [(a, b) for a, b in pairs if a["seed"] == b["seed"]]
    return all(better(group, a, b) > 0 for a, b in same or pairs)


def _against_untrained(group: Group, best: Sequence[Row]) -> tuple[list[Figure], bool]:
    of, start = by_prompt(group), group.control("sft")
    paired = [versus(of, row["cell"], start["cell"] if start else "sft") for row in best]
    differences = [row["difference"] for row in paired if row is not None and row["difference"] is not None]
    if not differences:
        return [], False
    rows = [row for row in of.trained if row["cell"] in {row_of_best["cell"] for row_of_best in best}]
    sure = {against_start(of, row) for row in rows} in ({1}, {-1})
    return [figure(value, of.board.lead, signed=True) for value in sorted({min(differences), max(differences)})], sure
