"""Facts about the machine that stages run on: device, threads of a stage, and how many processes memory has cost."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from trainers.cores import cores

__all__ = ["cores", "default_jobs", "machine", "oom_kills", "threads"]

MOST_JOBS = 8
"""Stages at once by default, for the memory."""


@cache
def machine() -> dict[str, Any]:
    """Kind of device and threads a stage: the same inputs give the same bytes only where these are the same.

    On a CPU an operation has one thread, or what `OMP_NUM_THREADS` says; other stages use the other cores, so that a
    stage's own arithmetic does not depend on how many run at once. A model judge's verdicts can, in their last bits:
    it is asked in batches for what the store does not hold yet, padding follows the batch, and stages that share a
    judge ask in an order that time decides. A verdict once stored is every later stage's.
    """
    device = _device()
    return {"device": device, "threads": threads(device)}


@cache
def environment() -> dict[str, Any]:
    """What a stage ran on: facts of its artifact, and no part of its key."""
    versions = {name: version(name) for name in ("torch", "transformers", "numpy")}
    return machine() | {"platform": platform.platform(), "python": platform.python_version(), **versions}


def threads(device: str) -> int:
    """Threads of an operation: what `OMP_NUM_THREADS` says where it is a number from 1 to 9999."""
    given = re.fullmatch(r"0*([1-9][0-9]{0,3})", os.environ.get("OMP_NUM_THREADS", "").strip())
    if given:
        return int(given[1])
    return 1 if device == "cpu" else cores()


def default_jobs() -> int:
    """Stages at once: as many as the cores hold on a CPU (at most eight, for the memory), one on a GPU."""
    facts = machine()
    return min(MOST_JOBS, max(1, cores() // facts["threads"])) if facts["device"] == "cpu" else 1


def _device() -> str:
    """The first visible GPU's name, or `cpu`; asked of the driver, so that planning does not load torch."""
    if shutil.which("nvidia-smi") is None or os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        return "cpu"
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    names = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip().splitlines()
    return names[0] if names else "cpu"


def oom_kills() -> int | None:
    """Processes that the kernel has killed for lack of memory, in this control group or else on this machine.

    None where the system does not say.
    """
    for file in _oom_counters():
        with suppress(OSError):
            count = re.search(r"^oom_kill (\d+)$", file.read_text(), re.MULTILINE)
            if count:
                return int(count[1])
    return None


def _oom_counters() -> Iterator[Path]:
    """Files that may hold the counter, the narrowest first: cgroup v2, cgroup v1, the whole machine."""
    root = Path("/sys/fs/cgroup")
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, group = line.split(":", 2)
            if not controllers:
                yield root / group.lstrip("/") / "memory.events"
            elif "memory" in controllers.split(","):
                yield root / "memory" / group.lstrip("/") / "memory.oom_control"
    yield root / "memory.events"
    yield root / "memory" / "memory.oom_control"
    yield Path("/proc/vmstat")
