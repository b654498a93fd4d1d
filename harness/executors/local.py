"""Runs stages one after another in one warm worker process.

The worker keeps torch and the frozen policies loaded between stages; where it dies (out of memory, a crash) the stage
fails with its reason and a fresh worker goes on.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

from harness.stage import Stage, machine
from harness.store import Store


class Listener(Protocol):
    """Hears what happens to stages; every stage given to an executor ends as finished or failed."""

    def started(self, stage: Stage) -> None: ...

    def progressed(self, stage: Stage, done: int, total: int) -> None: ...

    def finished(self, stage: Stage, computed: bool) -> None:
        """The artifact is there; `computed` is false where it was there before."""

    def failed(self, stage: Stage, reason: str, details: str) -> None: ...


class LocalExecutor:
    """One warm worker process on this machine."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._worker: tuple[Any, Connection] | None = None

    def __enter__(self) -> LocalExecutor:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop()

    def execute(self, stages: Sequence[Stage], listener: Listener) -> None:
        """Compute every stage that is not in the store, in order; one whose input failed fails with that reason."""
        failures: dict[str, str] = {}
        for stage in stages:
            broken = next((failures[s.key] for s in stage.inputs.values() if s.key in failures), None)
            if broken is not None:
                failures[stage.key] = broken
                listener.failed(stage, broken, "")
            elif self.store.has(stage):
                listener.finished(stage, computed=False)
            else:
                reason = self._compute(stage, listener)
                if reason is not None:
                    failures[stage.key] = reason

    def _compute(self, stage: Stage, listener: Listener) -> str | None:
        """Run one stage in the worker; the reason where it failed."""
        listener.started(stage)
        pipe = self._pipe()
        try:
            pipe.send(stage)
            while True:
                kind, *said = pipe.recv()
                if kind == "progress":
                    listener.progressed(stage, *said)
                    continue
                if kind == "done":
                    listener.finished(stage, computed=True)
                    return None
                reason, details = said
                break
        except (EOFError, ConnectionError):
            reason, details = self._epitaph(stage), ""
        reason = f"{stage.title}: {reason}" if stage.title else reason
        listener.failed(stage, reason, details)
        return reason

    def _epitaph(self, stage: Stage) -> str:
        assert self._worker is not None
        process = self._worker[0]
        process.join(5)
        code = process.exitcode
        self._stop()
        killed = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        hint = "; out of memory? lower training.batch_size or sampling.batch_size" if code == -signal.SIGKILL else ""
        return f"the worker process died ({killed}){hint}"

    def _pipe(self) -> Connection:
        if self._worker is None:
            # Idle OpenMP threads that spin are ruinous where another process wants the cores (3x slower, measured).
            os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
            context = multiprocessing.get_context("spawn")
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, str(self.store.root)), daemon=True)
            _start_deaf_to_ctrl_c(process)
            theirs.close()
            self._worker = (process, ours)
        return self._worker[1]

    def _stop(self) -> None:
        if self._worker is not None:
            process, pipe = self._worker
            pipe.close()
            process.terminate()
            process.join()
            self._worker = None


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

    from harness.stages import ModelCache, run_stage

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
        except torch.OutOfMemoryError:
            models.models.clear()
            torch.cuda.empty_cache()
            fix = "lower training.micro_batch_size, sampling.batch_size or max_tokens"
            pipe.send(("failed", f"out of GPU memory; {fix}", traceback.format_exc()))
        except (ValueError, FloatingPointError, OSError) as error:
            pipe.send(("failed", str(error), traceback.format_exc()))
        except Exception as error:  # our own bug or a plug-in's: the cell fails with its name, the others go on
            pipe.send(("failed", f"{type(error).__name__}: {error}", traceback.format_exc()))
