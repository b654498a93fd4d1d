"""Accelerate config files of two processes on a CPU, and the processes that they start."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import yaml

CPU = {"use_cpu": True, "num_machines": 1, "num_processes": 2, "mixed_precision": "no"}
DDP = {"distributed_type": "MULTI_CPU", **CPU}
FSDP = {
    "distributed_type": "FSDP",
    "fsdp_config": {"fsdp_version": 2, "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP"},
    **CPU,
}


def written(folder: Path, said: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "accelerate.yaml"
    path.write_text(yaml.safe_dump(said), encoding="utf-8")
    return path


def rank_1(folder: Path) -> list[int]:
    """The processes of this machine that are rank 1 of a job below a folder."""
    found = []
    for entry in (entry for entry in Path("/proc").iterdir() if entry.name.isdecimal()):
        with contextlib.suppress(OSError):
            command = (entry / "cmdline").read_bytes().decode(errors="replace")
            environment = (entry / "environ").read_bytes().split(b"\0")
            if "trainers.fitting.distributed" in command and str(folder) in command and b"RANK=1" in environment:
                found.append(int(entry.name))
    return found
