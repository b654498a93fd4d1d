"""What names a result: artifacts by kind and key, and how values enter a key.

Equal values give equal text, and what is at its first default is left out, so that a later release with a new option
computes nothing anew.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol, Self

from pydantic import BaseModel


class Identified(Protocol):
    """What has an artifact: a stage, or its artifact by name alone."""

    @property
    def kind(self) -> str:
        """The stage's kind."""

    @property
    def key(self) -> str:
        """The hash of all that determines the artifact (hex, 40 digits)."""

    @property
    def seed_identity(self) -> str:
        """The hash of all that determines its draws (hex)."""

    def alone(self) -> Artifact:
        """The artifact by name."""


@dataclass(frozen=True)
class Artifact:
    """A stage's result by name alone, as another process reads it."""

    kind: str
    key: str
    seed_identity: str = ""

    def alone(self) -> Artifact:
        """Itself."""
        return self


class Computed(Identified, Protocol):
    """What an artifact is written for: it says all that its key is the hash of."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """Kind, version, options, and the inputs' keys."""


class Part(ABC):
    """A field's value that is more than plain data: it knows how it enters a key and which stages it rests on."""

    @abstractmethod
    def described(self, *, code: bool) -> Any:
        """What determines the result, as JSON; without `code` what determines the draws. None leaves it out."""

    @abstractmethod
    def sources(self) -> Mapping[str, Identified]:
        """The stages whose artifacts it needs, by the end of the input's name ("" for the field's own name)."""

    @abstractmethod
    def alone(self) -> Self:
        """The same with stages by name alone, to send to another process."""


def changed_options(options: Any) -> dict[str, Any]:
    """The fields of a group of options (pydantic's or a dataclass's) that differ from their first defaults, as JSON.

    A field whose default changed in a later release keeps the first one as `first_default` in its metadata; one that
    changes no law is marked with `in_key: False` there.
    """
    return {
        name: described(value, code=True)
        for name, first_default, metadata in _option_fields(type(options))  # type: ignore[arg-type]
        if metadata.get("in_key", True) and (value := getattr(options, name)) != first_default
    }


@cache
def _option_fields(kind: Hashable) -> list[tuple[str, Any, Mapping[str, Any]]]:
    """Name, first default and metadata of each field."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        known: Any = [(n, f.default, f.json_schema_extra or {}) for n, f in kind.model_fields.items()]
    else:
        known = [(f.name, f.default, f.metadata) for f in dataclasses.fields(kind) if f.init]  # type: ignore[arg-type]
    return [(name, metadata.get("first_default", default), metadata) for name, default, metadata in known]


def digest(value: Any) -> str:
    """SHA-256 (hex) of a value's canonical JSON."""
    return hashlib.sha256(canonical(value).encode("utf-8", "surrogatepass")).hexdigest()


def canonical(value: Any) -> str:
    """JSON with sorted keys: equal values, equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def is_first_default(f: dataclasses.Field[Any], value: Any) -> bool:
    """Whether a dataclass's field has the default that it had at first."""
    return bool(f.default is not dataclasses.MISSING and value == f.metadata.get("first_default", f.default))


def described(value: Any, *, code: bool) -> Any:
    """A field's value as JSON; None leaves it out."""
    if isinstance(value, Part):
        return value.described(code=code)
    if isinstance(value, BaseModel) or (dataclasses.is_dataclass(value) and not isinstance(value, type)):
        return changed_options(value)
    if isinstance(value, Mapping):
        return {str(k): d for k, v in value.items() if (d := described(v, code=code)) is not None} or None
    if isinstance(value, list | tuple):
        return [described(item, code=code) for item in value]
    return value
