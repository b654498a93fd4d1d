"""A stage: one distinct computation, named by the hash of everything that determines its result."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

VERSIONS = {
    "pocket": 2,
    "votes": 4,
    "judge": 4,
    "sets": 3,
    "prompts": 1,
    "questions": 1,
    "sample": 4,
    "pair": 2,
    "score": 2,
    "fit": 3,
    "stream": 5,
    "answer": 5,
    "grade": 5,
    "benchmark": 1,
    "compare": 2,
    "play": 1,
    "gap": 3,
}
"""Raised when a stage's code changes what it computes, so that old artifacts are not taken for new ones."""


@dataclass(frozen=True)
class Stage:
    """What to compute, from which artifacts, with which options.

    Attributes:
        kind: a key of `VERSIONS`.
        options: everything that determines the result besides the inputs; plain JSON.
        inputs: name -> stage whose artifact is read.
        where: facts the computation needs that do not determine its result (paths of files whose content is in
            `options` as a fingerprint).
        title: what a person reads while it runs.
    """

    kind: str
    options: Mapping[str, Any]
    inputs: Mapping[str, Stage] = field(default_factory=dict)
    where: Mapping[str, Any] = field(default_factory=dict)
    title: str = ""

    @cached_property
    def key(self) -> str:
        """SHA-256 (hex, 40 digits) of kind, version, options, inputs' keys and the machine."""
        described = {
            "kind": self.kind,
            "version": VERSIONS[self.kind],
            "options": self.options,
            "inputs": {name: stage.key for name, stage in self.inputs.items()},
            "machine": machine(),
        }
        return hashlib.sha256(canonical(described).encode()).hexdigest()[:40]

    def __getstate__(self) -> dict[str, Any]:
        """Pickled with its key, and its inputs by theirs alone: whole chains of iterations are too deep to pickle."""
        return {**self.__dict__, "key": self.key, "inputs": {name: s._alone() for name, s in self.inputs.items()}}

    def _alone(self) -> Stage:
        named = Stage(self.kind, {})
        named.__dict__["key"] = self.key
        return named

    @property
    def seed(self) -> int:
        """The seed of the stage's own generators, from its key."""
        return int(self.key[:15], 16)


def canonical(value: Any) -> str:
    """JSON with sorted keys: equal values, equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


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
