"""The account of a sweep: its cells, its judges, and where everything came from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reports.boards import boards, graders, groups
from reports.numbers import metric
from reports.sections.common import figure, tags
from reports.tables import CONTROLS, Row, Sweep, compact, grouped, is_control, unique

STATES = ("done", "running", "failed", "missing")


def cells(sweeps: Sequence[Sweep]) -> list[dict[str, Any]]:
    """The cells of each sweep with their state and, where there is one, the reason; how many are in each state."""
    return [
        {
            "sweep": sweep.name,
            "counts": [
                (state, count) for state in STATES if (count := sum(cell["state"] == state for cell in sweep.cells))
            ],
            "rows": [
                {
                    "cell": cell,
                    "arm": sweep.info[cell["cell"]]["label"],
                    "tags": tags(sweep, cell),
                    "stages": [_stage(stage) for stage in cell["stages"] if isinstance(stage, dict)],
                }
                for cell in sweep.cells
            ],
        }
        for sweep in sweeps
    ]


def _stage(stage: Row) -> dict[str, Any]:
    seconds = stage.get("seconds")
    return {
        "name": str(stage.get("name", "")),
        "key": str(stage.get("key") or "")[:12],
        "state": str(stage.get("state") or ""),
        "seconds": figure(seconds if isinstance(seconds, int | float) else None),
    }


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


def _control(sweep: Sweep, board: Any, judge: str, trainer: str) -> Any:
    for group in groups([sweep], board):
        row = group.control(trainer) if group.grader == judge else None
        if row is not None:
            return figure(row["value"], board.lead)
    return figure(None)


def provenance(sweeps: Sequence[Sweep]) -> list[dict[str, Any]]:
    """For each sweep its losses with their equations, command, versions, hardware, prompt, configuration, warnings."""
    return [
        {
            "sweep": sweep.name,
            "losses": [_loss(name, loss) for name, loss in sorted(_table(sweep.provenance, "losses").items())],
            "command": compact(sweep.provenance.get("command") or ""),
            "started": compact(sweep.provenance.get("started") or ""),
            "versions": [
                (name, compact(version)) for name, version in sorted(_table(sweep.provenance, "versions").items())
            ],
            "hardware": _pairs(sweep.provenance.get("hardware")),
            "prompt": _pairs(sweep.provenance.get("prompts_sample")),
            "config": sweep.config,
            "warnings": [compact(warning) for warning in sweep.provenance.get("warnings") or []],
            "metrics": [metric(name, meta) for name, meta in sorted(sweep.metrics.items())],
        }
        for sweep in sweeps
    ]


def _loss(trainer: str, loss: Any) -> dict[str, Any]:
    loss = loss if isinstance(loss, dict) else {"equation": loss}
    return {
        "trainer": trainer,
        "equation": compact(loss.get("equation") or ""),
        "target": loss.get("target_nats"),
        "conventions": _pairs(loss.get("conventions")),
        "source": compact(loss.get("source") or ""),
    }


def _table(record: Row, key: str) -> Row:
    found = record.get(key)
    return found if isinstance(found, dict) else {}


def _pairs(value: Any) -> list[tuple[str, str]]:
    """A JSON document as name and text: the entries of an object or of a list of objects, or one unnamed text."""
    if isinstance(value, list) and value and all(isinstance(entry, dict) for entry in value):
        return [pair for entry in value for pair in _pairs(entry)]
    if isinstance(value, dict):
        return [(str(name), compact(entry)) for name, entry in value.items()]
    return [("", compact(value))] if value not in (None, "", []) else []
