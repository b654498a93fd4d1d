"""What runs stages and what hears of it, as protocols; and the order in which stages may begin."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Sequence
from typing import Protocol, Self

from harness.stage import Stage


class Listener(Protocol):
    """Hears what happens to stages; every stage given to an executor ends as finished or failed."""

    def started(self, stage: Stage) -> None: ...

    def progressed(self, stage: Stage, done: int, total: int) -> None: ...

    def retried(self, stage: Stage, reason: str) -> None:
        """The worker died; the stage, which has started, starts once more."""

    def finished(self, stage: Stage, computed: bool) -> None:
        """The artifact is there; `computed` is false where it was there before."""

    def failed(self, stage: Stage, reason: str, details: str) -> None:
        """`details` is the traceback where the stage failed by itself, else empty."""

    def tick(self) -> None:
        """Called about once a second, and after every event, while stages are at work."""


class Executor(Protocol):
    """Computes stages; its workers end with the block."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...

    def execute(self, stages: Sequence[Stage], listener: Listener) -> None:
        """Compute every stage that is not in the store; one whose input failed fails with that reason.

        Raises:
            OSError: nothing more can be written into the store.
        """


def failure_file(stage: Stage) -> str:
    """Where the traceback of a failed stage is written, below the sweep's folder."""
    return f"failures/{stage.kind}-{stage.key[:12]}.txt"


class Schedule:
    """Which stages may begin: those whose inputs have all ended well, the first in order first.

    Inputs that are not among the stages count as there. Every stage is handed out once, by `next_ready`, and then
    reported by `finish` or `fail`; the whole takes time in proportion to stages and inputs.

    Attributes:
        unfinished: how many stages have not ended.
    """

    def __init__(self, stages: Sequence[Stage]) -> None:
        self._stages = list({stage.key: stage for stage in stages}.values())
        self._places = {stage.key: place for place, stage in enumerate(self._stages)}
        self._readers: dict[int, list[int]] = defaultdict(list)
        self._awaited = [0] * len(self._stages)
        for place, stage in enumerate(self._stages):
            for key in {source.key for source in stage.inputs.values()}:
                if key in self._places:
                    self._readers[self._places[key]].append(place)
                    self._awaited[place] += 1
        self._ready = [place for place, count in enumerate(self._awaited) if not count]  # in order: already a heap
        self._lost: set[int] = set()
        self._again: set[int] = set()
        self.unfinished = len(self._stages)

    def place(self, stage: Stage) -> int:
        """Its number in the order."""
        return self._places[stage.key]

    def next_ready(self) -> Stage | None:
        """The first stage that may begin and was not handed out; None where there is none now."""
        return self._stages[heapq.heappop(self._ready)] if self._ready else None

    def finish(self, stage: Stage) -> None:
        """Its artifact is there: what waited for it alone may begin."""
        self.unfinished -= 1
        self._again.discard(self._places[stage.key])
        for reader in self._readers[self._places[stage.key]]:
            self._ended(reader)

    def _ended(self, reader: int) -> None:
        """One of the inputs that a stage waits for has ended."""
        self._awaited[reader] -= 1
        if not self._awaited[reader] and reader not in self._lost:
            heapq.heappush(self._ready, reader)

    def recompute(self, reader: Stage, key: str) -> bool:
        """Hand out again the stage whose artifact was lost after it ended, and then `reader`, which was at work on it.

        False where no stage of this schedule makes that artifact.
        """
        source = self._places.get(key)
        if source is None:
            return False
        if source not in self._again:
            self._again.add(source)
            self._readers[source] = []  # others have read it, or ask for it themselves
            self.unfinished += 1
            heapq.heappush(self._ready, source)
        self._readers[source].append(self._places[reader.key])
        self._awaited[self._places[reader.key]] += 1
        return True

    def fail(self, stage: Stage) -> list[Stage]:
        """The stages that it takes along: all that need it, directly or not, and were not lost before."""
        reached = [self._places[stage.key]]
        for place in reached:
            key = self._stages[place].key
            fresh = [reader for reader in self._readers[place] if reader not in self._lost]
            lost = [reader for reader in fresh if key not in self._stages[reader].optional]
            self._lost.update(lost)
            reached += lost
            for reader in set(fresh).difference(lost):
                self._ended(reader)
        self.unfinished -= len(reached)
        return [self._stages[place] for place in sorted(reached[1:])]
