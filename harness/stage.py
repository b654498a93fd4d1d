"""A stage: one distinct computation, named by the hash of everything that determines its result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from harness.run.devices import machine

VERSIONS = {
    "pocket": 2,
    "votes": 3,
    "judge": 4,
    "sets": 2,
    "prompts": 1,
    "questions": 1,
    "sample": 3,
    "pair": 2,
    "score": 2,
    "fit": 3,
    "stream": 4,
    "answer": 4,
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
