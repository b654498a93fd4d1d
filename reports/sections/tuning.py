"""What was tried for each trainer's options, and what was chosen."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from reports.numbers import metric
from reports.sections.common import figure, interval
from reports.tables import Sweep, compact


def trials(sweeps: Sequence[Sweep]) -> list[dict[str, Any]]:
    """One entry a trial of every sweep, in the table's order."""
    return [_trial(sweep, row) for sweep in sweeps for row in sweep.trials]


def _trial(sweep: Sweep, row: dict[str, Any]) -> dict[str, Any]:
    shown = metric(row["metric"], sweep.meta(row["leaderboard"], row["metric"]))
    return {
        "sweep": sweep.name,
        "row": row,
        "options": _told(row["options"]),
        "value": figure(row["value"], shown),
        "interval": interval(row, shown),
    }


def _told(options: str) -> str:
    """A trial's options as `name value`, those of the algorithm first."""
    groups = json.loads(options)
    flat = groups.get("algorithm", {}) | groups.get("training", {})
    return ", ".join(f"{name} {compact(value)}" for name, value in flat.items())
