"""The paired comparisons: the key ones, a matrix a board and grader, and the whole table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reports.boards import (
    Board,
    Group,
    alpha,
    boards,
    compared,
    comparisons,
    groups,
    oriented,
    significant,
)
from reports.charts import Axis, whisker, whisker_axis
from reports.numbers import MetricDisplay, metric
from reports.sections.common import counted, figure, kinds, p_figure, settling
from reports.sections.leaderboard import ends
from reports.sections.matrix import pale
from reports.standings import against_start, tested_to_start
from reports.tables import Row, Sweep, compared_by, grouped, is_control, unique

SHOWN = 36  # comparisons on the main page
MOST_ROWS = 400  # comparisons on their own page; the rest is in comparisons.csv
MOST_NAMES = 40  # a wider matrix cannot be read


def key_comparisons(sweeps: Sequence[Sweep]) -> list[dict[str, Any]]:
    """The comparisons worth a place on the main page, one block a board, of its first metric that has any.

    Algorithms first; of checkpoints, those against the untrained policy, or all where there are few.
    """
    blocks = []
    for board in _compared(sweeps):
        comparable = groups(sweeps, board)
        rows = [pair for group in comparable for pair in _key_pairs(group)]
        rows = list({(sweep.name, *map(str, row.values())): (sweep, row) for sweep, row in rows}.values())
        if rows:
            lines = _lines(rows[:SHOWN], whisker_axis(_reach([row for _, row in rows[:SHOWN]]), 0.0))
            counts = [_counts(group) for group in comparable if any(tested_to_start(group, arm) for arm in group.arms)]
            blocks.append({"board": board, "rows": lines, "counts": counts, "left": len(rows) - len(lines)})
    return blocks


def _counts(group: Group) -> dict[str, Any]:
    """How many arms are separably better and worse than the untrained policy, of those that are tested, and how many
    tests each claim's p-values are adjusted for.
    """
    standings = [against_start(group, arm) for arm in group.arms if tested_to_start(group, arm)]
    tests = {claim: _tests(comparisons(group, claim)) for claim in ("checkpoint", "algorithm")}
    return {
        "tags": {"grader": group.grader, "sweep": group.sweep.name},
        "kind": kinds(group, 2),
        "better": standings.count(1),
        "worse": standings.count(-1),
        "of": len(standings),
        "families": " and ".join(f"{counted(n, 'test')} on {claim}s" for claim, n in tests.items() if n),
    }


def _tests(family: Sequence[Row]) -> int:
    return sum(row["p_value"] is not None for row in family)


def _compared(sweeps: Sequence[Sweep]) -> list[Board]:
    return [compared(sweeps, board) for board in boards(sweeps)]


def _key_pairs(group: Group) -> list[tuple[Sweep, Row]]:
    untrained = {row["cell"] for row in group.rows if row["trainer"] == "sft"} | {"sft"}
    checkpoints = comparisons(group, "checkpoint")
    against = [row for row in checkpoints if {row["a"], row["b"]} & untrained]
    chosen = [*comparisons(group, "algorithm"), *(against or checkpoints)]
    return [(group.sweep, oriented(row, row["b"]) if row["a"] in untrained else row) for row in chosen]


def every(sweeps: Sequence[Sweep]) -> dict[str, Any]:
    """The comparisons of the smallest p-values, at most MOST_ROWS, each board, metric and grader by itself."""
    rows = [(sweep, row) for sweep in sweeps for row in sweep.comparisons]
    rows.sort(key=lambda pair: _p(pair[1]))
    axes = {
        key: whisker_axis(_reach([row for _, row in members]), 0.0)
        for key, members in grouped(rows, lambda pair: (pair[1]["leaderboard"], pair[1]["metric"])).items()
    }
    families = unique(_family(*pair) for pair in rows)
    chosen = sorted(rows[:MOST_ROWS], key=lambda pair: families.index(_family(*pair)))
    lines = [_lines([pair], axes[pair[1]["leaderboard"], pair[1]["metric"]])[0] for pair in chosen]
    return {"rows": lines, "left": len(rows) - len(lines)}


def matrices(sweeps: Sequence[Sweep]) -> list[dict[str, Any]]:
    """Row minus column for every pair, a matrix a board, grader, claim and training judge."""
    squares = []
    for board in _compared(sweeps):
        for group in groups(sweeps, board):
            for claim in ("algorithm", "checkpoint"):
                for judge, rows in _by_judge(group.sweep, comparisons(group, claim)):
                    names = unique(name for row in rows for name in (row["a"], row["b"]))
                    if 2 < len(names) <= MOST_NAMES and len(rows) >= len(names):
                        squares.append(_matrix(group, claim, judge, rows, _controls_last(group.sweep, names)))
    return squares


def _by_judge(sweep: Sweep, rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """The comparisons by the judge that trained the sides; all of them under '' where two judges meet in one."""
    judges = [{sweep.info[row[side]]["judge"] for side in "ab" if row[side] in sweep.info} - {""} for row in rows]
    if any(len(cells) > 1 for cells in judges):
        return [("", list(rows))]
    pairs = grouped(zip(rows, judges, strict=True), lambda pair: "".join(pair[1]))
    return [(judge, [row for row, _ in members]) for judge, members in pairs.items()]


def _controls_last(sweep: Sweep, names: Sequence[str]) -> list[str]:
    controls = {name for name in names if name in sweep.info and is_control(sweep.info[name])}
    return sorted(names, key=lambda name: (name in controls, sweep.display_name(name)))


def _matrix(group: Group, claim: str, judge: str, rows: Sequence[Row], names: Sequence[str]) -> dict[str, Any]:
    row_of = {(row["a"], row["b"]): row for row in rows}
    row_of |= {(row["b"], row["a"]): oriented(row, row["b"]) for row in rows}
    reach = max((abs(row["difference"]) for row in rows if row["difference"] is not None), default=0) or 1
    lead, info = group.board.lead, group.sweep.info

    def display_name(name: str) -> str:
        return info[name]["label"] if judge and name in info else group.sweep.display_name(name)

    return {
        "judge": judge,
        "board": group.board,
        "grader": group.grader,
        "sweep": group.sweep.name,
        "claim": claim,
        "names": [display_name(name) for name in names],
        "rows": [
            {"name": display_name(a), "cells": [_square(row_of.get((a, b)), lead, reach) for b in names]} for a in names
        ],
    }


def _square(row: Row | None, lead: MetricDisplay, reach: float) -> dict[str, Any] | None:
    if row is None or row["difference"] is None:
        return None
    shade, sure = round((lead.sign or 1) * row["difference"] / reach, 2), significant(row, alpha([row]))
    return {"figure": figure(row["difference"], lead, signed=True), "shade": pale(shade, sure), "sure": sure}


def _lines(rows: Sequence[tuple[Sweep, Row]], axis: Axis) -> list[dict[str, Any]]:
    return [_line(sweep, row, axis) for sweep, row in rows]


def _line(sweep: Sweep, row: Row, axis: Axis) -> dict[str, Any]:
    of = metric(row["metric"], sweep.meta(row["leaderboard"], row["metric"]), row.get("category") or "")
    return {
        "row": row,
        "group": " · ".join(_family(sweep, row)),
        "sweep": sweep.name,
        "metric": of.label,
        "a": sweep.display_name(row["a"]),
        "b": sweep.display_name(row["b"]),
        "difference": figure(row["difference"], of, signed=True),
        "interval": ends(row, of),
        "p": p_figure(row["p_value"]),
        "p_adjusted": p_figure(row["p_adjusted"]),
        "tests": _tests(sweep.compared[*compared_by(row), row["claim"]]),
        "n": figure(row["n"]),
        "alike": _alike(row, of),
        "settling": settling(row, of),
        "not_compared": row.get("not_compared") or "",
        "sure": significant(row, alpha(sweep.results)),
        "whisker": whisker(axis, row["difference"], row["ci_low"], row["ci_high"]),
        "zero": axis(0.0),
    }


def _family(sweep: Sweep, row: Row) -> tuple[str, ...]:
    """What sorting keeps together."""
    return (sweep.name, *compared_by(row))


def _alike(row: Row, of: MetricDisplay) -> list[Any]:
    """The two ends of the interval if all trainers vary alike, [] where there is none."""
    low, high = row.get("alike_low"), row.get("alike_high")
    return [] if low is None or high is None else [figure(low, of, signed=True), figure(high, of, signed=True)]


def _reach(rows: Sequence[Row]) -> list[float | None]:
    return [row[key] for row in rows for key in ("difference", "ci_low", "ci_high")]


def _p(row: Row) -> tuple[float, str, str]:
    p = row["p_adjusted"] if row["p_adjusted"] is not None else row["p_value"]
    return (2.0 if p is None else p, row["a"], row["b"])
