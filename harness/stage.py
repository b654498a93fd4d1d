"""A stage: one distinct computation, named by the hash of everything that determines its result.

A kind of stage is a frozen dataclass of its options and inputs with the function that computes it; each lives in a file
of its own below `harness.stages`. The key and the seed are made from the fields:

- a stage, or what holds one, is an input and enters by its key;
- a component (an algorithm, a judge, a board) enters by name, options, contents of files and code;
- any other field is an option, left out where it is at its first default, so that a later release with a new option
  computes nothing anew;
- a field made with `fact` enters nothing.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from harness.identity import Artifact, Identified, Part, described, digest, is_first_default

if TYPE_CHECKING:
    from harness.stages.context import Context

Facts = dict[str, Any]
"""What a stage tells of its run, for the manifest; under `work` (samples, queries, steps) what a score cost."""


def fact(default: Any = dataclasses.MISSING) -> Any:
    """A field that a computation needs and that does not determine its result."""
    return field(default=default, metadata={"in_key": False})


def not_in_seed(default: Any = dataclasses.MISSING) -> Any:
    """A field of the key that leaves the draws as they are: which part of the questions, where a file's content is."""
    return field(default=default, metadata={"in_seed": False})


@dataclass(frozen=True)
class Resources:
    """What a stage holds while it runs.

    Attributes:
        gpus: devices; 0 where it computes on the processor alone.
        memory: bytes, 0 where nobody knows.
    """

    gpus: int = 0
    memory: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Stage(ABC):
    """One computation of a sweep.

    Attributes:
        title: what a person reads while it runs.
    """

    title: str = fact("")

    kind: ClassVar[str]
    version: ClassVar[int] = 1
    """Raised when shared machinery (loops, sampler, statistics) changes what the stage computes."""
    memory_advice: ClassVar[str] = "lower the batch_size of the judge or of what else it opens, or --jobs"
    """What a user can do where it needs more memory than there is."""
    resources: ClassVar[Resources] = Resources()

    def __post_init__(self) -> None:
        _ = self.key, self.seed_identity  # now, from the inputs' own: a chain of iterations is too deep to recurse into

    @abstractmethod
    def run(self, context: Context) -> Facts:
        """Compute the artifact into `context.out`.

        Raises:
            ValueError: the inputs cannot be computed with; the message says why and what to change.
        """

    @cached_property
    def inputs(self) -> Mapping[str, Identified]:
        """The stages whose artifacts it reads, by name."""
        return {
            f"{name}.{end}" if end else name: source
            for name, value in self._values()
            for end, source in _sources(value).items()
        }

    @property
    def optional(self) -> frozenset[str]:
        """Keys of the inputs without which it can do where they fail."""
        return frozenset()

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What the key is the hash of: kind, version, options, and the inputs' keys."""
        return {
            "kind": self.kind,
            "version": self.version,
            "options": self._options(code=True),
            "inputs": {name: source.key for name, source in self.inputs.items()},
        }

    @cached_property
    def key(self) -> str:
        """SHA-256 (hex, 40 digits) of the identity."""
        return digest(self.identity)[:40]

    @cached_property
    def seed_identity(self) -> str:
        """SHA-256 (hex) of kind, options and the inputs' seed identities: no code and no version, so that a mended
        loss is compared with the old one on the same draws.
        """
        sources = {name: source.seed_identity for name, source in self.inputs.items()}
        return digest([self.kind, self._options(code=False), sources])

    @property
    def seed(self) -> int:
        """The seed of the stage's own generators."""
        return int(self.seed_identity[:15], 16)

    def alone(self) -> Artifact:
        """Its artifact by name."""
        return Artifact(self.kind, self.key, self.seed_identity)

    def parts(self) -> list[Part]:
        """The policies and components that it uses."""
        return [value for _, value in self._values() if isinstance(value, Part)]

    def _values(self) -> Iterator[tuple[str, Any]]:
        for f in dataclasses.fields(self):
            if f.metadata.get("in_key", True):
                yield f.name, getattr(self, f.name)

    def _options(self, *, code: bool) -> dict[str, Any]:
        options: dict[str, Any] = {}
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            counts = f.metadata.get("in_key", True) and (code or f.metadata.get("in_seed", True))
            if counts and not is_first_default(f, value):
                options[f.name] = described(_without_stages(value), code=code)
        return {name: value for name, value in options.items() if value is not None}

    def __getstate__(self) -> dict[str, Any]:
        """Pickled with its identities, and what it reads by name alone: chains of iterations are too deep to pickle."""
        named = {f.name: _alone(getattr(self, f.name)) for f in dataclasses.fields(self)}
        known = {"key": self.key, "seed_identity": self.seed_identity, "identity": self.identity}
        return named | known | {"inputs": {name: source.alone() for name, source in self.inputs.items()}}


def in_order(stages: Iterable[Stage], *, needed_alone: bool = False) -> list[Stage]:
    """These stages and all they read, once each, every stage after what it reads.

    Args:
        needed_alone: leaves out what is read where it is there and can be done without.
    """
    ordered: dict[str, Stage] = {}
    for stage in stages:
        pending = [stage]
        while pending:
            top = pending[-1]
            left_out = top.optional if needed_alone else frozenset()
            read = [s for s in top.inputs.values() if isinstance(s, Stage) and s.key not in left_out]
            missing = [s for s in read if s.key not in ordered]
            if top.key in ordered or not missing:
                ordered.setdefault(top.key, top)
                pending.pop()
            else:
                pending.extend(reversed(missing))
    return list(ordered.values())


def _without_stages(value: Any) -> Any:
    """A field's value without the stages in it, which are inputs; None where nothing is left."""
    if isinstance(value, Stage | Artifact):
        return None
    if isinstance(value, Mapping):
        return {k: rest for k, item in value.items() if (rest := _without_stages(item)) is not None} or None
    return value


def _sources(value: Any) -> Mapping[str, Identified]:
    if isinstance(value, Stage | Artifact):
        return {"": value}
    if isinstance(value, Part):
        return value.sources()
    if isinstance(value, Mapping):
        return {
            f"{name}.{end}" if end else str(name): source
            for name, item in value.items()
            for end, source in _sources(item).items()
        }
    return {}


def _alone(value: Any) -> Any:
    if isinstance(value, Stage | Artifact | Part):
        return value.alone()
    if isinstance(value, Mapping):
        return {name: _alone(item) for name, item in value.items()}
    return value
