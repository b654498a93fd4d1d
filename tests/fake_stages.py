"""Stages of any kind with any options, for tests of what is the same for all kinds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from harness.stage import Facts, Stage
from harness.stages.context import Context


@dataclass(frozen=True, kw_only=True, eq=False)
class FakeStage(Stage):
    """Writes its options into a file."""

    kind: str  # type: ignore[misc]
    options: Mapping[str, Any] = field(default_factory=dict)
    reads: Mapping[str, Stage] = field(default_factory=dict)

    @cached_property
    def inputs(self) -> Mapping[str, Any]:
        return dict(self.reads)

    def run(self, context: Context) -> Facts:
        (context.out / "options.txt").write_text(repr(dict(self.options)), encoding="utf-8")
        return {}


def fake(
    kind: str, options: Mapping[str, Any] | None = None, reads: Mapping[str, Stage] | None = None, *, title: str = ""
) -> FakeStage:
    """A stage of this kind with these options and inputs."""
    return FakeStage(kind=kind, options=options or {}, reads=reads or {}, title=title)
