"""The judges: what each trained and graded, and how well those that the sweep trained predict held-out votes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from reports.boards import Board, boards, graders, groups, significant
from reports.charts import near, whisker, whisker_axis
from reports.numbers import MetricDisplay, metric
from reports.sections.common import Figure, Prose, Strong, figure, interval, p_figure, p_note, spread
from reports.sections.leaderboard import ends
from reports.tables import CONTROLS, Row, Sweep, grouped, is_control, unique

LEVEL = 0.05  # of the tests; the table of judges does not say its own
SCALAR = "reward-model"  # one score a response


def judges(sweeps: Sequence[Sweep]) -> dict[str, Any]:
    """One entry a judge and sweep: what it trained and graded, its lowest coverage, what it gives to the controls."""
    scored = [(board, name) for board in boards(sweeps) for name in CONTROLS if _controls(sweeps, board.name, name)]
    rows = []
    for sweep in sweeps:
        trained = grouped((row for row in sweep.info.values() if row["judge"]), lambda row: row["judge"])
        for judge in unique([*graders([sweep]), *trained]):
            graded = [row for row in sweep.final if row["grader"] == judge]
            coverage = [row["coverage"] for row in graded if row["coverage"] is not None]
            rows.append(
                {
                    "sweep": sweep.name,
                    "judge": judge,
                    "trained": len(trained.get(judge, [])),
                    "boards": unique(row["leaderboard"] for row in graded),
                    "coverage": figure(min(coverage, default=None)),
                    "controls": [_control(sweep, board, judge, name) for board, name in scored],
                }
            )
    return {"rows": rows, "controls": [(board.name, name) for board, name in scored]}


def _controls(sweeps: Sequence[Sweep], board: str, trainer: str) -> list[Row]:
    rows = (row for sweep in sweeps for row in sweep.final if row["leaderboard"] == board and row["grader"])
    return [row for row in rows if is_control(row) and row["trainer"] == trainer]


def _control(sweep: Sweep, board: Board, judge: str, trainer: str) -> list[Figure]:
    """A control's score, or the lowest and the highest of several policies' controls."""
    controls = [group.control(trainer) for group in groups([sweep], board) if group.grader == judge]
    values = [control.value for control in controls if control is not None]
    return spread(values, board.lead) if values else []


def held_out(sweeps: Sequence[Sweep]) -> list[dict[str, Any]]:
    """For each sweep that trained judges a table a metric, the differences between them, and what these say."""
    return [
        {
            "sweep": sweep.name,
            "sentences": _sentences(sweep),
            "metrics": [_metric(*pair) for pair in _metrics(sweep)],
        }
        for sweep in sweeps
        if sweep.judges
    ]


def _metrics(sweep: Sweep) -> list[tuple[MetricDisplay, list[Row]]]:
    """Each metric with its rows, in the table's order."""
    by_metric = grouped(sweep.judges, lambda row: row["metric"])
    return [(_described(sweep, name), rows) for name, rows in by_metric.items()]


def _described(sweep: Sweep, name: str) -> MetricDisplay:
    described = metric(name, sweep.meta("judges", name))
    return described if described.decimals is not None else replace(described, decimals=4)


def _metric(of: MetricDisplay, rows: Sequence[Row]) -> dict[str, Any]:
    judges = [row for row in rows if not row["against"]]
    judges.sort(key=lambda row: (row["value"] is None, -(of.sign or 1) * (row["value"] or 0)))
    return {"metric": of, "judges": _lines(judges, of, None), "differences": _lines(_differences(rows, of), of, 0.0)}


def _differences(rows: Sequence[Row], of: MetricDisplay) -> list[Row]:
    """Each pair of judges once, the better one first, the largest difference at the top."""
    differences = [row for row in rows if row["against"] and row["value"] is not None]
    pairs = grouped(differences, lambda row: frozenset((row["judge"], row["against"]))).values()
    return sorted(
        (max(pair, key=lambda row: (of.sign or 1) * row["value"]) for pair in pairs), key=lambda row: -abs(row["value"])
    )


def _lines(rows: Sequence[Row], of: MetricDisplay, null: float | None) -> list[dict[str, Any]]:
    reach = [row[key] for row in rows for key in ("value", "ci_low", "ci_high")]
    axis, null = whisker_axis(reach, null), near(null, reach)
    return [
        {
            "row": row,
            "value": figure(row["value"], of, signed=bool(row["against"])),
            "interval": ends(row, of),
            "whisker": whisker(axis, row["value"], row["ci_low"], row["ci_high"]),
            "null_x": None if null is None else axis(null),
            "sure": _sure(row),
            "p": p_figure(row["p_value"]),
            "p_adjusted": p_figure(row["p_adjusted"]),
            "n": figure(row["n"]),
            "coverage": figure(row["coverage"]),
        }
        for row in rows
    ]


def _sure(row: Row) -> bool:
    return bool(row["against"]) and significant(row, LEVEL)


def _sentences(sweep: Sweep) -> list[Prose]:
    """Who predicts votes better than whom by the first metric with a direction, and why a scalar score may lose."""
    of, rows = next(((of, rows) for of, rows in _metrics(sweep) if of.sign), (None, []))
    if of is None:
        return []
    pairs = _differences(rows, of)
    sentences = [_sentence(row, of) for row in pairs]
    above = [row for row in pairs if row["against"] == SCALAR and _sure(row)]
    return sentences + ([_why(above)] if above else [])


def _sentence(row: Row, of: MetricDisplay) -> Prose:
    names: Prose = [Strong(row["judge"]), " and ", Strong(row["against"]), " are not separable: "]
    if _sure(row):
        names = [Strong(row["judge"]), " predicts held-out votes better than ", Strong(row["against"]), ": "]
    bounds = interval(row, of, signed=True)
    n = [", n = ", figure(row["n"])] if row["n"] else []
    notes = [" (interval ", *bounds, *p_note(row), *n, ")"] if bounds else []
    unit = f" {of.unit}" if of.unit and of.unit != "share" else ""
    return [*names, f"difference in {of.label} ", figure(row["value"], of, signed=True), unit, *notes, "."]


def _why(above: Sequence[Row]) -> Prose:
    names = " and ".join(row["judge"] for row in above)
    return [
        f"{SCALAR} gives each response one score, so it cannot represent preferences that run in a circle; "
        f"{names} {'sees' if len(above) == 1 else 'see'} both responses at once and can."
    ]
