"""What is wrong with a config, in one line: the place, the key, the fact, the nearest word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from harness.config.schema import GROUPS, Config
from judges.plugins import nearest
from judges.reading import clipped, shortened

WORDING = {
    "too_short": "the list is empty; give at least one entry, or leave the key out where it has a default",
    "tuple_type": "must be a list, such as [a, b]",
    "model_type": "must be a group of keys",
}
"""pydantic's words for what it calls tuples and models, in the words of a config."""
LISTED = 5


@dataclass(frozen=True)
class Places:
    """Where a key of the config was written: a line of the file, or a `--set`."""

    path: Path
    tree: yaml.Node | None
    overridden: Sequence[tuple[str, ...]]

    def of(self, where: Sequence[Any]) -> str:
        words = tuple(map(str, where))
        setting = (o for o in self.overridden if all(a == b for a, b in zip(o, words, strict=False)))
        override = next(setting, None)
        return f"--set {clipped('.'.join(override), 60)}" if override else f"{self.path}:{_line(self.tree, where)}"


def explain(error: ValidationError, places: Places, raw: Mapping[str, Any]) -> str:
    """One line: place, key, fact, nearest word. Unknown keys come first, since one may be another that is missing; of
    missing keys all are told.
    """
    errors = error.errors(include_url=False)
    unknown = [problem for problem in errors if problem["type"] == "extra_forbidden"]
    missing = [_parts(problem["loc"]) for problem in errors if problem["type"] == "missing"]
    if missing and not unknown:
        return _missing_keys(missing, places)
    first = (unknown or errors)[0]
    loc = _parts(first["loc"])
    where = tuple(part for part in loc if part in _keys(raw) or isinstance(part, int)) or loc
    dotted, place = ".".join(map(str, where)), places.of(where)
    if first["type"] == "extra_forbidden":
        return f"{place}: unknown key {shortened(dotted)}{nearest(str(where[-1]), _fields_at(first['loc'][:-1]))}"
    given = first["input"]
    message = clipped(WORDING.get(first["type"], first["msg"].removeprefix("Value error, ")), 160)
    shown = shortened(given)
    value = "" if isinstance(given, dict | list) or shown in message else f" (it is {shown})"
    return f"{place if place.endswith(dotted) else f'{place}: {clipped(dotted, 60)}'}: {message}{value}"


def _parts(loc: Sequence[Any]) -> tuple[Any, ...]:
    """A place of pydantic's as the config has it."""
    return tuple(part for part in loc if part not in GROUPS)


def _missing_keys(missing: Sequence[tuple[Any, ...]], places: Places) -> str:
    by_place: dict[str, list[str]] = {}
    for where in missing[:LISTED]:
        by_place.setdefault(places.of(where), []).append(shortened(".".join(map(str, where)), 40))
    facts = {p: f"keys {', '.join(k)} are" if len(k) > 1 else f"key {k[0]} is" for p, k in by_place.items()}
    more = f"; and {len(missing) - LISTED} more" if len(missing) > LISTED else ""
    return "; ".join(f"{place}: the {fact} missing" for place, fact in facts.items()) + more


def _keys(value: Any) -> set[Any]:
    """Every mapping key anywhere in the value."""
    if isinstance(value, Mapping):
        return set(value) | {k for v in value.values() for k in _keys(v)}
    return {k for v in value for k in _keys(v)} if isinstance(value, list) else set()


def _fields_at(where: Sequence[Any]) -> list[str]:
    """The keys that are valid at a place of the config."""
    model: Any = Config
    for part in where:
        field = getattr(model, "model_fields", {}).get(part)
        model = field.annotation if field else GROUPS.get(part, model)
    return list(getattr(model, "model_fields", {}))


def _line(tree: yaml.Node | None, where: Sequence[Any]) -> int:
    """The line of the deepest part of the path that is in the file."""
    node = tree
    line = 1
    for part in where:
        if isinstance(node, yaml.MappingNode):
            found = [(k, v) for k, v in node.value if k.value == str(part)]
            if not found:
                break
            line, node = found[0][0].start_mark.line + 1, found[0][1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            break
    return line
