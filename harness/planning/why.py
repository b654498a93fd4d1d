"""What in a stage's key differs from the nearest artifact that is there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from harness.stage import Stage
from harness.store.artifacts import Store

ABSENT = "(absent)"


def explain(stage: Stage, store: Store) -> str:
    """One paragraph: whether the stage's artifact is there and, where it is not, how its key differs from that of the
    artifact of the same kind with the fewest differences.
    """
    name = f"{stage.kind} {stage.key} ({stage.title or stage.kind})"
    if store.has(stage):
        return f"{name} is there"
    wanted = dict(_leaves(stage.identity))
    others = [(differences(wanted, dict(_leaves(identity))), key) for key, identity in store.identities(stage.kind)]
    if not others:
        return f"{name} is missing, and the store has no artifact of its kind"
    fewest, key = min(others, key=lambda other: (len(other[0]), other[1]))
    lines = [f"{name} is missing; the nearest artifact of its kind is {key}, with"]
    return "\n".join(lines + [f"  {path}: {there} there, {here} here" for path, there, here in fewest])


def differences(wanted: Mapping[str, Any], there: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """(path, value there, value wanted) of every leaf in which two identities differ."""
    paths = sorted(wanted.keys() | there.keys())
    pairs = [(path, there.get(path, ABSENT), wanted.get(path, ABSENT)) for path in paths]
    return [(path, other, own) for path, other, own in pairs if other != own]


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _leaves(item, f"{path}.{name}" if path else str(name))
    else:
        yield path, value
