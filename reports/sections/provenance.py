"""The account of a sweep: its cells, and where everything came from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reports.numbers import metric
from reports.sections.common import figure, tags
from reports.tables import Row, Sweep, compact

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
    table = record.get(key)
    return table if isinstance(table, dict) else {}


def _pairs(value: Any) -> list[tuple[str, str]]:
    """A JSON document as name and text: the entries of an object or of a list of objects, or one unnamed text."""
    if isinstance(value, list) and value and all(isinstance(entry, dict) for entry in value):
        return [pair for entry in value for pair in _pairs(entry)]
    if isinstance(value, dict):
        return [(str(name), compact(entry)) for name, entry in value.items()]
    return [("", compact(value))] if value not in (None, "", []) else []
