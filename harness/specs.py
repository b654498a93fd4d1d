"""What a stage knows of the policies, algorithms, judges and leaderboards that it uses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from harness.identity import Identified, Part
from harness.registry import Kind
from trainers.options import Endpoint


@dataclass(frozen=True)
class Checkpoint(Part):
    """A policy: a stage's artifact, or from outside.

    Attributes:
        stage: what trains it, where a sweep does.
        location: a folder, a hub id, or an endpoint's options, where it comes from outside.
        fingerprint: changes with the contents of what comes from outside.
        template_date: what a chat template that writes the date writes; "" for one that does not.
    """

    stage: Identified | None = None
    location: str | Mapping[str, Any] = ""
    fingerprint: str = ""
    template_date: str = ""

    def described(self, *, code: bool) -> str | list[str] | None:
        dated = [self.template_date] if self.template_date else []
        return [self.fingerprint, *dated] if dated else self.fingerprint or None

    def trained_by(self, stage: Identified) -> Checkpoint:
        """What a stage made of this policy."""
        return Checkpoint(stage=stage, template_date=self.template_date)

    def sources(self) -> Mapping[str, Identified]:
        return {} if self.stage is None else {"": self.stage}

    def alone(self) -> Self:
        return replace(self, stage=self.stage and self.stage.alone())

    @property
    def endpoint(self) -> Endpoint | None:
        """The policy where it is one behind an endpoint."""
        return Endpoint.model_validate(self.location) if isinstance(self.location, Mapping) else None


@dataclass(frozen=True)
class ComponentSpec(Part):
    """An algorithm, a judge or a leaderboard by name and options.

    Attributes:
        options: what it is made with; may hold paths.
        label: its name in tables.
        determines: what of options and files determines what it computes, as JSON.
        code: hash of the code that does.
        source: the stage whose artifact holds its model or its questions, where a world makes them.
    """

    kind: Kind
    name: str
    options: Mapping[str, Any]
    label: str
    determines: Any
    code: str = ""
    source: Identified | None = None

    def described(self, *, code: bool) -> dict[str, Any]:
        described = {"name": self.name, "is": self.determines}
        return described | {"code": self.code} if code and self.code else described

    def sources(self) -> Mapping[str, Identified]:
        return {} if self.source is None else {"source": self.source}

    def alone(self) -> Self:
        return replace(self, source=self.source and self.source.alone())
