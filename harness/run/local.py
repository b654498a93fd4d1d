"""Runs stages in warm worker processes on this machine, those at once that do not need each other.

A worker keeps torch and the frozen policies loaded between stages. Where one dies (out of memory, a crash) its stage is
tried once more in a fresh worker, and fails with the reason if that one dies too.
"""

from __future__ import annotations

import contextlib
import heapq
import multiprocessing
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any

from harness.errors import printable
from harness.run.devices import cores, machine, oom_kills
from harness.run.executor import Listener, Schedule, failure_file
from harness.run.worker import worker_main
from harness.stage import Stage
from harness.store.artifacts import Store

TICK = 1.0
"""Seconds between two looks at workers that say nothing."""
GRACE = 10.0
"""Seconds that a worker has to clear up before it is killed."""
OOM_ADVICE = "lower training.batch_size, sampling.batch_size or --jobs"
DETAILS_LIMIT = 1_000_000
"""Characters of a traceback that are kept."""


@dataclass
class _Worker:
    """A worker process, our end of its pipe, the stage it is at, and what memory had cost when it began that."""

    process: Any
    pipe: Connection
    stage: Stage | None = None
    oom_kills: int | None = None


@dataclass
class _Execution:
    """One call of `execute`: the schedule, and stages that may begin and have no worker, first in order first."""

    schedule: Schedule
    listener: Listener
    waiting: list[tuple[int, Stage]] = field(default_factory=list)
    retried: set[str] = field(default_factory=set)

    def wait(self, stage: Stage) -> None:
        heapq.heappush(self.waiting, (self.schedule.place(stage), stage))

    def finish(self, stage: Stage, computed: bool) -> None:
        self.listener.finished(stage, computed)
        self.schedule.finish(stage)

    def fail(self, stage: Stage, reason: str, details: str) -> None:
        reason = printable(f"{stage.title}: {reason}" if stage.title else reason)
        self.listener.failed(stage, reason, printable(details, DETAILS_LIMIT))
        for reader in self.schedule.fail(stage):
            self.listener.failed(reader, reason, "")


class LocalExecutor:
    """Warm worker processes on this machine. Two stages at work may ask a judge the same question, each for itself."""

    def __init__(self, store: Store, jobs: int = 1) -> None:
        self.store, self.jobs = store, jobs
        self._workers: list[_Worker] = []

    def __enter__(self) -> LocalExecutor:
        return self

    def __exit__(self, *exception: object) -> None:
        for worker in self._workers:
            worker.pipe.close()
            worker.process.terminate()
        for worker in list(self._workers):
            self._stop(worker)

    def execute(self, stages: Sequence[Stage], listener: Listener) -> None:
        """Compute every stage that is not in the store; one whose input failed fails with that reason.

        A stage begins when all it reads is there; of several, the first in order. The store is asked once a stage.

        Raises:
            OSError: nothing more can be written into the store.
        """
        run = _Execution(Schedule(stages), listener)
        while run.schedule.unfinished:
            while stage := run.schedule.next_ready():
                if self.store.has(stage):
                    run.finish(stage, computed=False)
                else:
                    run.wait(stage)
            while run.waiting and len(self._busy) < self.jobs:
                self._begin(heapq.heappop(run.waiting)[1], listener)
            if self._busy:
                self._poll(run)

    @property
    def _busy(self) -> list[_Worker]:
        return [worker for worker in self._workers if worker.stage is not None]

    def _begin(self, stage: Stage, listener: Listener) -> None:
        for idle in [w for w in self._workers if w.stage is None and not w.process.is_alive()]:
            self._stop(idle)
        worker = next((w for w in self._workers if w.stage is None), None) or self._spawn_worker()
        worker.stage, worker.oom_kills = stage, oom_kills()
        listener.started(stage)
        with contextlib.suppress(ConnectionError):  # a dead worker is noticed when its outcome is read
            worker.pipe.send(stage)

    def _poll(self, run: _Execution) -> None:
        """Wait for what workers say, at most a second, and pass it on."""
        ready = wait([worker.pipe for worker in self._busy], TICK)
        for worker in self._busy:
            # A process that a dead worker forked may hold its end of the pipe open.
            if worker.pipe in ready or not worker.process.is_alive():
                self._handle(worker, self._receive(worker), run)
        run.listener.tick()

    def _receive(self, worker: _Worker) -> tuple[Any, ...]:
        """The next message of a worker; of a dead one, how it ended."""
        try:
            if worker.pipe.poll():
                return tuple(worker.pipe.recv())
        except (EOFError, OSError):  # killed, perhaps in the middle of a message
            pass
        return "died", self._exit_reason(worker)

    def _handle(self, worker: _Worker, message: tuple[Any, ...], run: _Execution) -> None:
        assert worker.stage is not None
        stage, (kind, *facts) = worker.stage, message
        if kind == "progress":
            run.listener.progressed(stage, *facts)
            return
        worker.stage = None
        if kind == "done":
            run.finish(stage, computed=True)
        elif kind == "unwritable":
            number, text, file = facts
            raise OSError(number, text, file or str(self.store.root))
        elif kind == "bug":
            reason, details = facts
            note = f"this is a bug, of nashbench or of a plug-in; the traceback is in {failure_file(stage)}"
            run.fail(stage, f"{printable(reason, 1000)} ({note})", details)
        elif kind == "damaged":
            key, text = facts
            if run.schedule.recompute(stage, key):
                run.listener.retried(stage, text)
            else:
                run.fail(stage, text, "")
        elif kind == "died" and stage.key not in run.retried:
            run.retried.add(stage.key)
            run.listener.retried(stage, facts[0])
            run.wait(stage)
        else:
            run.fail(stage, facts[0], "")

    def _exit_reason(self, worker: _Worker) -> str:
        """How a dead worker ended, as far as that can be known."""
        worker.process.join(5)
        code = worker.process.exitcode
        self._stop(worker)
        if code is None or code >= 0:
            return f"the worker process ended with exit code {code}"
        killed = f"the worker process was killed by signal {-code} ({signal.strsignal(-code)})"
        if code == -signal.SIGKILL and (oom_kills() or 0) > (worker.oom_kills or 0):
            return f"{killed}: the machine ran out of memory; {OOM_ADVICE}"
        return killed

    def _spawn_worker(self) -> _Worker:
        if self.jobs * machine()["threads"] > cores():
            # Threads that spin while they wait take the cores from other stages. Elsewhere they must spin: where they
            # sleep instead, a stage on two threads takes three times as long (measured). A fit in several processes
            # counts its own when it launches them.
            os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        # Not daemonic: vLLM's tensor parallelism has processes of its own. It ends with this process all the same.
        process = context.Process(target=worker_main, args=(theirs, str(self.store.root)))
        _start_ignoring_sigint(process)
        theirs.close()
        self._workers.append(_Worker(process, ours))
        return self._workers[-1]

    def _stop(self, worker: _Worker) -> None:
        """End a worker, by SIGKILL where it does not end by itself."""
        self._workers.remove(worker)
        worker.pipe.close()
        worker.process.terminate()
        worker.process.join(GRACE)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()


def _start_ignoring_sigint(process: Any) -> None:
    """Start a process that inherits a blocked SIGINT: the parent alone decides what Ctrl-C means."""
    resource_tracker.ensure_running()  # or the start below would do it, and unblock
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
