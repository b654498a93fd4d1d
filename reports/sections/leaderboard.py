"""The leaderboard tables: final scores with interval, rank range, coverage, cost; the seeds of an arm share a row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from reports.boards import Arm, Board, Group, boards, groups
from reports.charts import Axis, near, whisker, whisker_axis
from reports.numbers import MetricDisplay
from reports.sections.caveats import CONTROLS
from reports.sections.common import figure, spread, tags
from reports.sections.ties import ties
from reports.standings import ranks
from reports.tables import Row, Sweep, grouped, is_control, unique

# Controls that may lie far off: a fixed answer loses nearly always, and must not squeeze all others.
FAR = ("constant", "longest")
COUNTS = ("n", "coverage", "samples", "queries", "steps")


def leaderboard(sweeps: Sequence[Sweep]) -> list[dict[str, Any]]:
    """For each leaderboard a table a metric, the first of them with the other metrics' values as columns.

    Rows by grader, then trained policies best first, those that lack seeds last, then the controls.
    """
    return [
        {
            "board": board,
            "tables": [_table(sweeps, view, board.metrics[1:] if view == board else ()) for view in board.views],
            "ties": _ties(sweeps, board),
            "categories": None if board.is_of_tasks else categories(sweeps, board),
        }
        for board in boards(sweeps)
    ]


def controls(sweeps: Sequence[Sweep]) -> list[tuple[str, str]]:
    """The controls of the sweeps and what each of them is."""
    present = {row["trainer"] for sweep in sweeps for row in sweep.info.values() if is_control(row)}
    return [(name, what) for name, what in {"sft": "the untrained policy", **CONTROLS}.items() if name in present]


def _ties(sweeps: Sequence[Sweep], board: Board) -> list[dict[str, Any]]:
    """What to know of the graders most of whose games on this board are ties."""
    graders = unique((group.sweep.name, group.grader) for group in groups(sweeps, board))
    named = {sweep.name: sweep for sweep in sweeps}
    notes = [
        {"tags": {"sweep": name, "grader": grader}, "sentence": ties(named[name], board.name, grader)}
        for name, grader in graders
    ]
    return [note for note in notes if note["sentence"]]


def _table(sweeps: Sequence[Sweep], board: Board, others: Sequence[MetricDisplay]) -> dict[str, Any]:
    comparable = groups(sweeps, board)
    rows = [row for group in comparable for row in group.rows]
    axis = whisker_axis(_reach(rows), board.lead.null, log=board.lead.log)
    lines = [
        line | {"group": index}
        for index, group in enumerate(comparable)
        for line in _lines(group, axis, others, first=index > 0)
    ]
    same = [key for key in COUNTS if len({tuple(line["counts"][key]) for line in lines}) == 1]
    return {
        "board": board,
        "lead": board.lead,
        "others": others,
        "rows": lines,
        "level": next((row["ci_level"] for row in rows if row["ci_low"] is not None), None),
        "counts": [key for key in COUNTS if key not in same],
        "same": [(key, lines[0]["counts"][key][0]) for key in same if lines[0]["counts"][key]],
        "varies": _varying(rows),
    }


def _reach(rows: Sequence[Row]) -> list[float | None]:
    """What the axis of some rows' whiskers must show."""
    return [row[key] for row in rows if row["trainer"] not in FAR for key in ("value", "ci_low", "ci_high")]


def _varying(rows: Sequence[Row]) -> set[str]:
    """The columns that tell rows apart; grader and judge also where there is only one."""
    trained = [row for row in rows if not is_control(row)]
    keys = {key for key in ("iteration", "seed") if len({row[key] for row in trained}) > 1}
    keys |= {key for key in ("grader", "judge") if any(row[key] for row in rows)}
    return keys | ({"policy"} if len({row["policy"] for row in rows}) > 1 else set())


def _lines(group: Group, axis: Axis, others: Sequence[MetricDisplay], *, first: bool) -> list[dict[str, Any]]:
    board = group.board
    rank = ranks(group) if board.lead.sign else {}
    other_rows = _rows_of_metrics(group, others)
    start = group.control("sft")
    null = near(start.value if start else board.lead.null, _reach(group.rows))
    at = {"null_x": None if null is None else axis(null)}
    arms = [arm for arm in group.ranked if not is_control(arm.rows[0])] + group.incomplete
    controls = [arm for arm in group.ranked if is_control(arm.rows[0])]
    shown = {row["cell"] for arm in group.ranked + group.incomplete for row in arm.rows}
    lines = [_line(group, arm.rows, arm, rank, other_rows, axis) | at for arm in arms]
    without = [row for row in group.ordered if row["cell"] not in shown]
    lines += [_line(group, [row], None, rank, other_rows, axis) | at for row in without if not is_control(row)]
    lines += [_line(group, arm.rows, arm, rank, other_rows, axis) | at for arm in controls]
    lines += [_line(group, [row], None, rank, other_rows, axis) | at for row in without if is_control(row)]
    lines[0]["first"] = first
    return lines


MetricRows = list[tuple[MetricDisplay, dict[str, Row]]]


def _rows_of_metrics(group: Group, metrics: Sequence[MetricDisplay]) -> MetricRows:
    """Each metric with its final rows by cell."""
    rows = [r for r in group.sweep.final if (r["leaderboard"], r["grader"]) == (group.board.name, group.grader)]
    return [
        (m, {row["cell"]: row for row in rows if (row["metric"], row["category"]) == (m.name, m.category)})
        for m in metrics
    ]


def _line(
    group: Group,
    rows: Sequence[Row],
    arm: Arm | None,
    rank: dict[str, tuple[int, int]],
    others: MetricRows,
    axis: Axis,
) -> dict[str, Any]:
    """One row of the table: an arm's mean over its seeds and their range, or a row without a value."""
    row, lead = rows[0], group.board.lead
    coverage = [row["coverage"] for row in rows if row["coverage"] is not None]
    mean = {key: getattr(arm, key) if arm else None for key in ("value", "ci_low", "ci_high")}
    whiskers = [mean] if mean["ci_low"] is not None else rows
    return {
        "row": row,
        "first": False,
        "tags": {**tags(group.sweep, row), **({"seed": None} if len(rows) > 1 else {})},
        "arm": group.sweep.info[row["cell"]]["arm"],
        "cells": ", ".join(row["cell"] for row in rows),
        "seeds": [row["seed"] for row in rows if row["seed"] is not None],
        "lacking": ", ".join(map(str, arm.lacking)) if arm else "",
        "control": is_control(row),
        "own": bool(row["judge"]) and row["judge"] == row["grader"],
        "rank": rank.get(arm.name) if arm and not arm.lacking else None,
        "value": [figure(arm.value, lead)] if arm else [],
        "of_seeds": _spread([row["value"] for row in rows], lead) if len(rows) > 1 else [],
        "interval": ends(mean, lead),
        "whiskers": [w for row in whiskers if (w := whisker(axis, row["value"], row["ci_low"], row["ci_high"]))],
        "others": [
            _mean([other_rows[r["cell"]]["value"] for r in rows if r["cell"] in other_rows], m)
            for m, other_rows in others
        ],
        "counts": {key: _spread([row[key] for row in rows]) for key in COUNTS},
        "thin": any(share < 1 for share in coverage),
    }


def _mean(values: Sequence[float | None], metric: MetricDisplay) -> list[Any]:
    """The mean over seeds; [] where a seed has no value."""
    present = [value for value in values if value is not None]
    return [figure(sum(present) / len(present), metric)] if present and len(present) == len(values) else []


def _spread(values: Iterable[float | None], metric: MetricDisplay | None = None) -> list[Any]:
    present = [value for value in values if value is not None]
    return spread(present, metric) if present else []


def ends(row: Row, metric: MetricDisplay) -> list[Any]:
    """The two ends of a row's interval, [] where it has none."""
    has_interval = row["ci_low"] is not None and row["ci_high"] is not None
    return [figure(row["ci_low"], metric), figure(row["ci_high"], metric)] if has_interval else []


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
    by_cell = grouped(rows, lambda pair: (pair[0].name, pair[1]["cell"], pair[1]["grader"]))
    return {
        "lead": board.lead,
        "names": names,
        "rows": [_categories_of(members, names, board.lead) for members in by_cell.values()],
    }


def _categories_of(members: Sequence[tuple[Sweep, Row]], names: Sequence[str], lead: MetricDisplay) -> dict[str, Any]:
    sweep, first = members[0]
    values = {row["category"]: row["value"] for _, row in members}
    return {
        "row": first,
        "tags": tags(sweep, first),
        "arm": sweep.info[first["cell"]]["label"],
        "own": bool(first["judge"]) and first["judge"] == first["grader"],
        "values": [figure(values.get(name), lead) for name in names],
    }
