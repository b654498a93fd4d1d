"""The machine that a process runs on."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from functools import cache
from importlib.metadata import version
from typing import Any


@cache
def machine() -> dict[str, Any]:
    """Kind of device and threads a stage: the same inputs give the same bytes only where these are the same.

    On a CPU an operation has one thread, or what `OMP_NUM_THREADS` says; other stages use the other cores, so that a
    stage's own arithmetic does not depend on how many run at once. A model judge's verdicts can, in their last bits:
    it is asked in batches for what the store does not hold yet, padding follows the batch, and stages that share a
    judge ask in an order that time decides. A verdict once stored is every later stage's.
    """
    device = _device()
    given = os.environ.get("OMP_NUM_THREADS", "")
    return {"device": device, "threads": int(given) if given.isdecimal() else 1 if device == "cpu" else cores()}


@cache
def environment() -> dict[str, Any]:
    """What a stage ran on: facts of its artifact, and no part of its key."""
    versions = {name: version(name) for name in ("torch", "transformers", "numpy")}
    return machine() | {"platform": platform.platform(), "python": platform.python_version(), **versions}


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def _device() -> str:
    """The first visible GPU's name, or `cpu`; asked of the driver, so that planning does not load torch."""
    if shutil.which("nvidia-smi") is None or os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        return "cpu"
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    found = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip().splitlines()
    return found[0] if found else "cpu"
