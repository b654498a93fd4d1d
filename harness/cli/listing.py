"""What `nashbench list` shows of each registered class."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

from harness.registry import Kind, load, names


def describe(kind: Kind) -> list[dict[str, Any]]:
    """Name, summary, options with defaults, and for trainers equation, source, schedule and target in nats.

    A plug-in that fails to import is listed with its error; it disturbs no other.
    """
    return [_describe(kind, name) for name in names(kind)]


def _describe(kind: Kind, name: str) -> dict[str, Any]:
    try:
        cls = load(kind, name)
    except ValueError as error:
        return {"name": name, "summary": f"broken: {error}"}
    summary = (inspect.getdoc(cls) or "").partition("\n\n")[0].replace("\n", " ")
    item = {"name": name, "summary": summary, "class": f"{cls.__module__}.{cls.__qualname__}", "options": _options(cls)}
    return item | (_algorithm(cls) if kind == "trainers" else {})


def _options(cls: type[Any]) -> dict[str, Any]:
    return {f.name: _default(f) for f in dataclasses.fields(cls) if f.init}


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    return "required" if field.default_factory is dataclasses.MISSING else field.default_factory()


def _algorithm(cls: type[Any]) -> dict[str, Any]:
    known = {"equation": cls.equation, "source": cls.source}
    if "required" in _options(cls).values():
        return known
    made = cls()
    return known | {
        "schedule": made.schedule.value,
        "player": made.player.value,
        "pairing": dataclasses.asdict(made.pairing),
        "target_nats": made.target_nats(),
    }
