"""What a person sees while a sweep runs: which cell, which stage, how long still."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from harness.stage import Stage

QUIET = 30.0
"""Seconds after which a stage at work tells how far it is, where there are no bars."""


class ProgressListener:
    """Bars on a terminal (all stages, and each at work), one line a stage elsewhere.

    Args:
        stages: all stages that will be heard of.
        changed: called when a stage begins or ends, and at the end of all.
        checks: keys of stages whose failure the caller reports itself.
    """

    def __init__(
        self, stages: Sequence[Stage], changed: Callable[[], None], console: Console, checks: Collection[str] = ()
    ) -> None:
        self.console, self.changed, self.checks = console, changed, checks
        self.left = {stage.key: stage for stage in stages}
        self.total = len(self.left)
        self.executed: list[str] = []
        self.reasons: dict[str, str] = {}
        self.details: dict[str, str] = {}
        self.running: dict[str, float] = {}
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.spoke = time.monotonic()
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        self.bars = Progress(
            *columns, TextColumn("{task.fields[left]}"), console=console, disable=not console.is_terminal
        )
        self.all = self.bars.add_task("stages", total=self.total, left="")
        self.bar_of: dict[str, TaskID] = {}

    def __enter__(self) -> ProgressListener:
        self.bars.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.bars.stop()
        self.running.clear()
        self.changed()

    def started(self, stage: Stage) -> None:
        self.running[stage.key] = time.monotonic()
        self.bar_of[stage.key] = self.bars.add_task(stage.title or stage.kind, total=None, left="")
        self.changed()

    def progressed(self, stage: Stage, done: int, total: int) -> None:
        self.bars.update(self.bar_of[stage.key], completed=done, total=total)
        if time.monotonic() - self.spoke > QUIET:
            self._say(f"{stage.title or stage.kind}: {done} of {total}")

    def finished(self, stage: Stage, computed: bool) -> None:
        self.left.pop(stage.key, None)
        if computed:
            self.executed.append(stage.key)
            self.seconds[stage.kind].append(time.monotonic() - self.running[stage.key])
            self._line(stage, f"{self.seconds[stage.kind][-1]:.1f} s")
        self._ended(stage)

    def failed(self, stage: Stage, reason: str, details: str) -> None:
        self.reasons[stage.key], self.details[stage.key] = reason, details
        if stage.key in self.running and stage.key not in self.checks:
            self.console.print(f"failed: {reason}", style="red", markup=False, highlight=False, soft_wrap=True)
        self._ended(stage)

    def _ended(self, stage: Stage) -> None:
        self.running.pop(stage.key, None)
        self.left.pop(stage.key, None)
        self.bars.update(self.all, completed=self.total - len(self.left), left=self._remaining())
        if stage.key in self.bar_of:
            self.bars.remove_task(self.bar_of.pop(stage.key))
        self.changed()

    def _remaining(self) -> str:
        """Time left, from the mean seconds of each kind of stage so far."""
        known = {kind: sum(s) / len(s) for kind, s in self.seconds.items()}
        unknown = sum(stage.kind not in known for stage in self.left.values())
        if not self.left or unknown > len(self.left) / 10:
            return ""  # too little has been seen to say
        seconds = sum(known.get(stage.kind, 0.0) for stage in self.left.values()) / max(1, len(self.running) + 1)
        return f"about {seconds / 60:.0f} min left" if seconds >= 90 else f"about {seconds:.0f} s left"

    def _line(self, stage: Stage, took: str) -> None:
        left = self._remaining()
        self._say(f"{stage.title or stage.kind}: {took}{left and ', ' + left}")

    def _say(self, words: str) -> None:
        """A line where there are no bars."""
        if not self.console.is_terminal:
            done = self.total - len(self.left)
            self.console.print(f"[{done}/{self.total}] {words}", markup=False, highlight=False, soft_wrap=True)
            self.spoke = time.monotonic()
