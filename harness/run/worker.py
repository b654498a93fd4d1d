"""A worker process: stages in, progress and outcomes out; it ends with its driver, however that ended."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from harness.errors import UNWRITABLE, UserError
from harness.run.devices import machine
from harness.store.artifacts import DamagedArtifact, Store
from judges.errors import JudgeError
from leaderboards.leaderboard import BoardError
from trainers.errors import TrainingError

TOLD_BY_TEXT = (UserError, TrainingError, JudgeError, BoardError, FloatingPointError, ChildProcessError)
"""Errors that are no bugs; the last two are the trainers', of weights that diverged and of processes that died."""
GRACE = 2.0
"""Seconds that a worker has to clear up after its driver's death."""
UNWRITABLE_WORDS = (
    "No space left on device",
    "Disk quota exceeded",
    "database or disk is full",
    "Read-only file system",
    "PytorchStreamWriter failed writing",
)
"""How libraries that raise no OSError say that a file cannot be written."""


def worker_main(pipe: Connection, store_root: str) -> None:
    """Serve stages until the pipe closes.

    Messages: ("progress", done, total), ("done",), ("failed", reason), ("bug", reason, traceback), ("damaged", key of
    an input, text), or ("unwritable", error number, text, file) where to go on would be in vain.
    """
    signal.signal(signal.SIGTERM, _end)
    threading.Thread(target=_exit_with_driver, daemon=True).start()
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
        except (EOFError, ConnectionError):
            signal.signal(signal.SIGTERM, _ignore)  # it ends by itself, and gives back what it holds
            return
        try:
            run_stage(stage, store, models, lambda done, total: _send(pipe, "progress", done, total))
            _send(pipe, "done")
        except Exception as error:  # the cell fails with its reason, the others go on
            _send(pipe, *failure_message(error))
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()  # for the stages of other workers


def _end(*_: Any) -> None:
    """End by an exception, so that half an artifact is cleared away; what is being cleared is not ended again."""
    signal.signal(signal.SIGTERM, _ignore)
    sys.exit(1)


def _ignore(*_: Any) -> None:
    """Not SIG_IGN: Python complains aloud of a signal that came before it was ignored and is handled after."""


def _send(pipe: Connection, *message: Any) -> None:
    try:
        pipe.send(message)
    except ConnectionError:  # the driver is dead
        sys.exit(1)


def _exit_with_driver() -> None:
    """Wait for the driver's death; then end this process, however long the call is that it is in."""
    driver = multiprocessing.parent_process()
    assert driver is not None
    driver.join()
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
    time.sleep(GRACE)
    os._exit(1)


def failure_message(error: Exception) -> tuple[Any, ...]:
    """What is told of an error that a stage raised: the user's, the environment's, or a bug."""
    text = _text(error)
    if isinstance(error, OSError) and error.errno in UNWRITABLE:
        return "unwritable", error.errno, error.strerror, error.filename
    if any(words in text for words in UNWRITABLE_WORDS):
        return "unwritable", UNWRITABLE[0], text, None
    if isinstance(error, OSError) and error.filename is not None:
        return "failed", f"{error.filename}: {error.strerror}"
    if isinstance(error, TOLD_BY_TEXT):
        return "failed", text
    if isinstance(error, DamagedArtifact):
        return "damaged", error.key, text
    return "bug", f"{type(error).__name__}: {text}", _traceback(error)


def _text(error: Exception) -> str:
    try:
        return str(error)
    except Exception:  # a plug-in's own
        return "(its text cannot be read)"


def _traceback(error: Exception) -> str:
    return "".join(traceback.format_exception(error))
