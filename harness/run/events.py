"""What a sweep's events add up to: the state of every cell in `cells.json`, what was computed, why stages failed."""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.planning.plan import CellPlan
from harness.run.executor import Listener, failure_file
from harness.run.files import write_atomically
from harness.stage import Stage

WRITE_EVERY = 1.0
"""Seconds between two writings of `cells.json`."""
PRECEDENCE = ("failed", "running", "missing")
"""A cell has the first of these that one of its stages has; else it is done."""


@dataclass
class _CellState:
    """A cell's facts, its stages as `cells.json` has them, how many are in each state, and the first failure."""

    facts: dict[str, Any]
    stages: list[dict[str, str]]
    counts: Counter[str]
    failure: tuple[int, str] | None = None
    text: str | None = None
    """The JSON, until a stage changes."""

    @property
    def state(self) -> str:
        return next((state for state in PRECEDENCE if self.counts[state]), "done")

    def update(self, place: int, state: str, reason: str) -> None:
        before = self.stages[place]["state"]
        self.counts[before] -= 1
        self.counts[state] += 1
        self.stages[place]["state"], self.text = state, None
        if reason and (self.failure is None or place < self.failure[0]):
            self.failure = (place, reason)

    def json(self) -> str:
        if self.text is None:
            reason = self.failure[1] if self.failure else ""
            self.text = json.dumps({**self.facts, "state": self.state, "reason": reason, "stages": self.stages})
        return self.text


def _facts(cell: CellPlan) -> dict[str, Any]:
    """What `cells.json` says of a cell besides its state and its stages."""
    return {
        "cell": cell.cell.id,
        "label": cell.cell.label,
        "algorithm": cell.cell.algorithm,
        "policy": cell.cell.policy_label,
        "trainer": cell.cell.trainer.label,
        "options": cell.options,
        "judge": cell.cell.judge_label,
        "seed": cell.cell.seed,
    }


class CellStates:
    """The state of every cell, kept as stages change: a change costs as much as there are cells that need the stage.

    Args:
        done: keys of the stages whose artifacts are there.
    """

    def __init__(self, cells: Sequence[CellPlan], done: Collection[str] = ()) -> None:
        self._cells: list[_CellState] = []
        self._places: dict[str, list[tuple[_CellState, int]]] = defaultdict(list)
        for cell in cells:
            stages = [
                {"name": s.title or s.kind, "key": s.key, "state": "done" if s.key in done else "missing"}
                for s in cell.stages
            ]
            state = _CellState(_facts(cell), stages, Counter(stage["state"] for stage in stages))
            self._cells.append(state)
            for place, stage in enumerate(stages):
                self._places[stage["key"]].append((state, place))

    def update(self, key: str, state: str, reason: str = "") -> None:
        """Note a stage's state, and why it failed. An artifact that is there outweighs a failure."""
        for cell, place in self._places.get(key, ()):
            if cell.stages[place]["state"] != "done":
                cell.update(place, state, reason)

    @property
    def done(self) -> set[str]:
        """Keys of the stages that are done."""
        return {key for key, ((cell, place), *_) in self._places.items() if cell.stages[place]["state"] == "done"}

    @property
    def counts(self) -> dict[str, int]:
        """Cells by state, in the states' alphabetical order."""
        return dict(sorted(Counter(cell.state for cell in self._cells).items()))

    def json(self) -> str:
        """What `cells.json` holds: a list of cells with their stages."""
        return "[" + ", ".join(cell.json() for cell in self._cells) + "]"


@dataclass
class SweepRecord:
    """A listener that keeps what a sweep reports at its end, and `cells.json` while it runs.

    Attributes:
        executed: keys of the stages that were computed now.
        reasons: key -> reason of the stages that failed.
    """

    states: CellStates
    out: Path
    executed: list[str] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)
    _running: set[str] = field(default_factory=set)
    _changed: bool = True
    _written: float = -WRITE_EVERY

    def __enter__(self) -> SweepRecord:
        self._write()
        return self

    def __exit__(self, *exception: object) -> None:
        for key in self._running:  # interrupted
            self.states.update(key, "missing")
        self._write()

    def started(self, stage: Stage) -> None:
        self._running.add(stage.key)
        self._set(stage, "running")

    def progressed(self, stage: Stage, done: int, total: int) -> None: ...

    def retried(self, stage: Stage, reason: str) -> None: ...

    def finished(self, stage: Stage, computed: bool) -> None:
        if computed:
            self.executed.append(stage.key)
        self._running.discard(stage.key)
        self._set(stage, "done")

    def failed(self, stage: Stage, reason: str, details: str) -> None:
        self.reasons[stage.key] = reason
        self._running.discard(stage.key)
        self._set(stage, "failed", reason)
        if details:
            with suppress(OSError):  # the reason is told anyway
                file = self.out / failure_file(stage)
                file.parent.mkdir(exist_ok=True)
                file.write_text(f"{reason}\n\n{details}", encoding="utf-8")

    def tick(self) -> None:
        """Write `cells.json` where something changed and it is time; a full disk may be free again at the next."""
        if self._changed and time.monotonic() - self._written >= WRITE_EVERY:
            with suppress(OSError):
                self._write()

    def _set(self, stage: Stage, state: str, reason: str = "") -> None:
        self.states.update(stage.key, state, reason)
        self._changed = True
        self.tick()

    def _write(self) -> None:
        self._written = time.monotonic()
        write_atomically(self.out / "cells.json", self.states.json())
        self._changed = False


class Broadcast:
    """Passes events on to several listeners, in this order."""

    def __init__(self, *listeners: Listener) -> None:
        self.listeners = listeners

    def started(self, stage: Stage) -> None:
        for listener in self.listeners:
            listener.started(stage)

    def progressed(self, stage: Stage, done: int, total: int) -> None:
        for listener in self.listeners:
            listener.progressed(stage, done, total)

    def retried(self, stage: Stage, reason: str) -> None:
        for listener in self.listeners:
            listener.retried(stage, reason)

    def finished(self, stage: Stage, computed: bool) -> None:
        for listener in self.listeners:
            listener.finished(stage, computed)

    def failed(self, stage: Stage, reason: str, details: str) -> None:
        for listener in self.listeners:
            listener.failed(stage, reason, details)

    def tick(self) -> None:
        for listener in self.listeners:
            listener.tick()
