"""What a person sees while a sweep runs: which cell, which stage, how long still."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from harness.errors import printable
from harness.stage import Stage

QUIET = 30.0
"""Seconds after which a stage at work tells how far it is, where there are no bars."""


class ProgressListener:
    """Bars on a terminal (all stages, and each at work), one line a stage elsewhere.

    Args:
        stages: all stages that will be heard of.
        checks: keys of stages whose failure the caller reports itself.
    """

    def __init__(self, stages: Sequence[Stage], console: Console, checks: Collection[str] = ()) -> None:
        self.console, self.checks = console, checks
        self.left = {stage.key: stage.kind for stage in stages}
        self.total = len(self.left)
        self.left_by_kind = Counter(self.left.values())
        self.running: dict[str, float] = {}
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.spoke = time.monotonic()
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
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

    def started(self, stage: Stage) -> None:
        self.running[stage.key] = time.monotonic()
        self.bar_of[stage.key] = self.bars.add_task(_name(stage), total=None, left="")

    def progressed(self, stage: Stage, done: int, total: int) -> None:
        self.bars.update(self.bar_of[stage.key], completed=done, total=total)
        if time.monotonic() - self.spoke > QUIET:
            self._say(f"{_name(stage)}: {done} of {total}")

    def retried(self, stage: Stage, reason: str) -> None:
        self._print(f"{_name(stage)}: {reason}; it is tried once more", "yellow")
        self.bars.remove_task(self.bar_of.pop(stage.key))

    def finished(self, stage: Stage, computed: bool) -> None:
        self._leave(stage)
        if computed:
            self.seconds[stage.kind].append(time.monotonic() - self.running[stage.key])
            self._line(stage, f"{self.seconds[stage.kind][-1]:.1f} s")
        self._ended(stage)

    def failed(self, stage: Stage, reason: str, details: str) -> None:
        if stage.key in self.running and stage.key not in self.checks:
            self._print(f"failed: {reason}", "red")
        self._leave(stage)
        self._ended(stage)

    def tick(self) -> None: ...

    def _leave(self, stage: Stage) -> None:
        kind = self.left.pop(stage.key, None)
        if kind is not None:
            self.left_by_kind[kind] -= 1

    def _ended(self, stage: Stage) -> None:
        self.running.pop(stage.key, None)
        self.bars.update(self.all, completed=self.total - len(self.left), left=self._remaining())
        if stage.key in self.bar_of:
            self.bars.remove_task(self.bar_of.pop(stage.key))

    def _remaining(self) -> str:
        """Time left, from the mean seconds of each kind of stage so far."""
        means = {kind: sum(s) / len(s) for kind, s in self.seconds.items()}
        unseen = sum(count for kind, count in self.left_by_kind.items() if kind not in means)
        if not self.left or unseen > len(self.left) / 10:
            return ""  # too little has been seen to say
        total = sum(means.get(kind, 0.0) * count for kind, count in self.left_by_kind.items())
        seconds = total / max(1, len(self.running) + 1)
        return f"about {seconds / 60:.0f} min left" if seconds >= 90 else f"about {seconds:.0f} s left"

    def _line(self, stage: Stage, took: str) -> None:
        left = self._remaining()
        self._say(f"{_name(stage)}: {took}{left and ', ' + left}")

    def _say(self, words: str) -> None:
        """A line where there are no bars."""
        if not self.console.is_terminal:
            self._print(f"[{self.total - len(self.left)}/{self.total}] {words}")
            self.spoke = time.monotonic()

    def _print(self, words: str, style: str | None = None) -> None:
        self.console.print(words, style=style, markup=False, highlight=False, soft_wrap=True)


def _name(stage: Stage) -> str:
    return printable(stage.title or stage.kind, 300)
