"""Runs stages in warm worker processes on this machine, those at once that do not need each other.

A worker keeps torch and the frozen policies loaded between stages; where one dies (out of memory, a crash) its stage
fails with the reason and a fresh worker goes on.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Protocol

from harness.run.devices import cores, machine
from harness.stage import Stage
from harness.store.artifacts import Store


class Listener(Protocol):
    """Hears what happens to stages; every stage given to an executor ends as finished or failed."""

    def started(self, stage: Stage) -> None: ...

    def progressed(self, stage: Stage, done: int, total: int) -> None: ...

    def finished(self, stage: Stage, computed: bool) -> None:
        """The artifact is there; `computed` is false where it was there before."""

    def failed(self, stage: Stage, reason: str, details: str) -> None: ...


def default_jobs() -> int:
    """Stages at once: as many as the cores hold on a CPU (at most eight, for the memory), one on a GPU."""
    known = machine()
    return min(8, max(1, cores() // known["threads"])) if known["device"] == "cpu" else 1


@dataclass
class _Worker:
    """A worker process, our end of its pipe, and the stage it is at."""

    process: Any
    pipe: Connection
    stage: Stage | None = None


class LocalExecutor:
    """Warm worker processes on this machine. Two stages at work may ask a judge the same question, each for itself."""

    def __init__(self, store: Store, jobs: int = 1) -> None:
        self.store, self.jobs = store, jobs
        self._workers: list[_Worker] = []

    def __enter__(self) -> LocalExecutor:
        return self

    def __exit__(self, *exception: object) -> None:
        for worker in list(self._workers):
            self._stop(worker)

    def execute(self, stages: Sequence[Stage], listener: Listener) -> None:
        """Compute every stage that is not in the store; one whose input failed fails with that reason.

        A stage begins when all it reads is there; of several, the first in order.
        """
        waiting = {stage.key: stage for stage in stages}
        failures: dict[str, str] = {}
        while waiting or any(self._busy()):
            for stage in list(waiting.values()):
                broken = next((failures[s.key] for s in stage.inputs.values() if s.key in failures), None)
                at_work = {worker.stage.key for worker in self._busy() if worker.stage}
                if broken is not None:
                    failures[stage.key] = broken
                    listener.failed(stage, broken, "")
                elif any(s.key in waiting or s.key in at_work for s in stage.inputs.values()):
                    continue
                elif self.store.has(stage):
                    listener.finished(stage, computed=False)
                elif len(at_work) < self.jobs:
                    self._begin(stage, listener)
                else:
                    break
                del waiting[stage.key]
            failures |= self._hear(listener)

    def _begin(self, stage: Stage, listener: Listener) -> None:
        for idle in [w for w in self._workers if w.stage is None and not w.process.is_alive()]:
            self._stop(idle)
        worker = next((w for w in self._workers if w.stage is None), None) or self._hire()
        worker.stage = stage
        listener.started(stage)
        with contextlib.suppress(ConnectionError):  # a dead worker is heard of when its outcome is read
            worker.pipe.send(stage)

    def _hear(self, listener: Listener) -> dict[str, str]:
        """Wait until a stage has ended; key -> reason of those that failed."""
        failures: dict[str, str] = {}
        ended = False
        while not ended and any(self._busy()):
            for pipe in wait([worker.pipe for worker in self._busy()]):
                worker = next(w for w in self._workers if w.pipe is pipe)
                assert worker.stage is not None
                stage, (kind, *said) = worker.stage, self._outcome(worker)
                if kind == "progress":
                    listener.progressed(stage, *said)
                    continue
                ended, worker.stage = True, None
                if kind == "done":
                    listener.finished(stage, computed=True)
                    continue
                reason, details = said
                failures[stage.key] = f"{stage.title}: {reason}" if stage.title else reason
                listener.failed(stage, failures[stage.key], details)
        return failures

    def _outcome(self, worker: _Worker) -> tuple[Any, ...]:
        """The next thing a worker says; its death is a failure."""
        try:
            return tuple(worker.pipe.recv())
        except (EOFError, ConnectionError):
            return "failed", self._epitaph(worker), ""

    def _busy(self) -> Iterator[_Worker]:
        return (worker for worker in self._workers if worker.stage is not None)

    def _epitaph(self, worker: _Worker) -> str:
        worker.process.join(5)
        code = worker.process.exitcode
        self._stop(worker)
        killed = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        hint = "; out of memory? lower training.batch_size, sampling.batch_size or --jobs"
        return f"the worker process died ({killed}){hint if code == -signal.SIGKILL else ''}"

    def _hire(self) -> _Worker:
        if self.jobs * machine()["threads"] > cores():
            # Threads that spin while they wait take the cores from other stages. Elsewhere they must spin: where they
            # sleep instead, a stage on two threads takes three times as long (measured). A fit in several processes
            # counts its own when it launches them.
            os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, str(self.store.root)), daemon=True)
        _start_deaf_to_ctrl_c(process)
        theirs.close()
        self._workers.append(_Worker(process, ours))
        return self._workers[-1]

    def _stop(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        worker.pipe.close()
        worker.process.terminate()
        worker.process.join()


def _start_deaf_to_ctrl_c(process: Any) -> None:
    """Start a process that inherits a blocked SIGINT: the parent alone decides what Ctrl-C means."""
    resource_tracker.ensure_running()  # or the start below would do it, and unblock
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _serve(pipe: Connection, store_root: str) -> None:
    """The worker: stages in, progress and outcomes out, until the pipe closes."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # as an exception, so that half an artifact is cleared away
    # Asked of the environment, so that a sweep of games never waits for the import of transformers.
    os.environ |= {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    import torch

    from harness.stages.context import ModelCache
    from harness.stages.running import run_stage

    torch.set_num_threads(machine()["threads"])
    store, models = Store(Path(store_root)), ModelCache()
    while True:
        try:
            stage = pipe.recv()
        except EOFError:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)  # nothing is half done, and an exception now would be heard
            return
        try:
            run_stage(stage, store, models, lambda done, total: pipe.send(("progress", done, total)))
            pipe.send(("done",))
        except (ValueError, FloatingPointError, OSError) as error:
            pipe.send(("failed", str(error), traceback.format_exc()))
        except Exception as error:  # our own bug or a plug-in's: the cell fails with its name, the others go on
            pipe.send(("failed", f"{type(error).__name__}: {error}", traceback.format_exc()))
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()  # for the stages of other workers
