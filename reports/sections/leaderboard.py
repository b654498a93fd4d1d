"""The leaderboard tables: every final score with its interval, rank range, coverage and cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reports.boards import Board, boards, groups, ranks
from reports.charts import Axis, near, whisker, whisker_axis
from reports.numbers import Metric
from reports.sections.common import figure, tags
from reports.tables import Row, Sweep, grouped, is_control

FAR = ("constant", "longest")
WORK = ("samples", "queries", "steps")


def leaderboard(sweeps: Sequence[Sweep]) -> list[dict[str, Any]]:
    """One table a leaderboard: columns and rows, rows by grader and then best first."""
    return [_table(sweeps, board) for board in boards(sweeps)]


def _table(sweeps: Sequence[Sweep], board: Board) -> dict[str, Any]:
    found = groups(sweeps, board)
    rows = [row for group in found for row in group.rows]
    # A control far off (a fixed answer loses nearly always) must not squeeze all others: it is drawn as an arrow at the edge.
    reach = [row[key] for row in rows if row["trainer"] not in FAR for key in ("value", "ci_low", "ci_high")]
    axis, null = whisker_axis(reach, board.lead.null), near(board.lead.null, reach)
    level = next((row["ci_level"] for row in rows if row["ci_level"]), None)
    lines = []
    for group in found:
        by_cell = _by_cell(group.sweep, board, group.grader)
        rank = ranks(group) if board.lead.sign else {}
        lines += [_line(group.sweep, board, row, by_cell[row["cell"]], rank, axis) for row in group.ordered]
    return {
        "board": board,
        "lead": board.lead,
        "others": board.metrics[1:],
        "rows": lines,
        "null_x": None if null is None else axis(null),
        "level": level,
        "work": [key for key in WORK if any(line["row"][key] is not None for line in lines)],
        "iterations": len({line["row"]["iteration"] for line in lines}) > 1,
        "own": any(line["own"] for line in lines),
        "policies": len({line["row"]["policy"] for line in lines}) > 1,
        "categories": categories(sweeps, board),
    }


def _by_cell(sweep: Sweep, board: Board, grader: str) -> dict[str, dict[str, Row]]:
    """cell -> metric -> its overall final row."""
    rows = (r for r in sweep.final if r["leaderboard"] == board.name and r["grader"] == grader and not r["category"])
    return {cell: {row["metric"]: row for row in of} for cell, of in grouped(rows, lambda row: row["cell"]).items()}


def _line(
    sweep: Sweep, board: Board, row: Row, by_metric: dict[str, Row], rank: dict[str, tuple[int, int]], axis: Axis
) -> dict[str, Any]:
    return {
        "row": row,
        "tags": tags(sweep, row),
        "arm": sweep.info[row["cell"]]["arm"],
        "control": is_control(row),
        "own": bool(row["judge"]) and row["judge"] == row["grader"],
        "rank": rank.get(row["cell"]),
        "value": figure(row["value"], board.lead),
        "interval": ends(row, board.lead),
        "whisker": whisker(axis, row["value"], row["ci_low"], row["ci_high"]),
        "others": [_other(by_metric.get(metric.name), metric) for metric in board.metrics[1:]],
        "n": figure(row["n"]),
        "coverage": figure(row["coverage"]),
        "thin": row["coverage"] is not None and row["coverage"] < 1,
        "work": {key: figure(row[key]) for key in WORK},
    }


def ends(row: Row, metric: Metric) -> list[Any]:
    """The two ends of a row's interval, [] where it has none."""
    known = row["ci_low"] is not None and row["ci_high"] is not None
    return [figure(row["ci_low"], metric), figure(row["ci_high"], metric)] if known else []


def _other(row: Row | None, metric: Metric) -> dict[str, Any]:
    if row is None:
        return {"value": figure(None), "interval": []}
    return {"value": figure(row["value"], metric), "interval": ends(row, metric)}


def categories(sweeps: Sequence[Sweep], board: Board) -> dict[str, Any] | None:
    """The lead metric by category: a row a cell and grader, a column a category. None on boards without categories."""
    rows = [
        (sweep, row)
        for sweep in sweeps
        for row in sweep.final
        if row["category"] and (row["leaderboard"], row["metric"]) == (board.name, board.lead.name)
    ]
    if not rows:
        return None
    names = sorted({row["category"] for _, row in rows})
    by_cell: dict[tuple[str, str, str], list[tuple[Sweep, Row]]] = {}
    for sweep, row in rows:
        by_cell.setdefault((sweep.name, row["cell"], row["grader"]), []).append((sweep, row))
    return {"names": names, "rows": [_categories_of(members, names, board.lead) for members in by_cell.values()]}


def _categories_of(members: list[tuple[Sweep, Row]], names: list[str], lead: Metric) -> dict[str, Any]:
    sweep, first = members[0]
    values = {row["category"]: row["value"] for _, row in members}
    return {
        "row": first,
        "tags": tags(sweep, first),
        "arm": sweep.info[first["cell"]]["arm"],
        "values": [figure(values.get(name), lead) for name in names],
    }
