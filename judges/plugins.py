"""Names to classes through entry points, and the check of options against a class: for all that a config names.

Classes are imported when asked for. A broken plug-in names itself and disturbs nobody else.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from judges.reading import clipped, shortened


def nearest(word: str, words: Iterable[str]) -> str:
    """A did-you-mean tail for an error message: '; did you mean X?' or the list of what there is."""
    known = sorted(words)
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; there is {clipped(', '.join(known), 160)}"


@cache
def entries(kind: str) -> tuple[EntryPoint, ...]:
    """The entry points of the group `nashbench.KIND`, of all installed packages."""
    return tuple(entry_points(group=f"nashbench.{kind}"))


def load_class(kind: str, name: str, base: Callable[[], type[Any]]) -> type[Any]:
    """The class registered under a name in the group `nashbench.KIND`.

    Args:
        kind: a plural, such as `protocols`; errors say "protocol".
        base: gives what the class must be derived from, asked for where there is a class.

    Raises:
        ValueError: no such name (with the nearest one), two packages claim it, the plug-in fails to import, or it is
            no dataclass of the base.
    """
    found = [entry for entry in entries(kind) if entry.name == name]
    if not entries(kind):
        raise ValueError(f"no {kind} are registered: nashbench was installed before it had any; install it again")
    if not found:
        known = {entry.name for entry in entries(kind)}
        raise ValueError(f"no {kind[:-1]} is called {shortened(name)}{nearest(name, known)}")
    if len({entry.value for entry in found}) > 1:
        claims = " and ".join(f"{entry.value} of {_package(entry)}" for entry in found)
        raise ValueError(f"{kind[:-1]} {name!r} is claimed by {claims}; uninstall one")
    return _import(kind, found[0], base)


def check_options(owner: str, cls: type[Any], options: Mapping[str, Any]) -> None:
    """Raise ValueError for an option that a dataclass does not have, or of another type; `owner` begins the message."""
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
    for option, value in options.items():
        if option not in fields:
            tail = nearest(option, fields) if fields else "; it has no options"
            raise ValueError(f"{owner} has no option {shortened(option)}{tail}")
        wanted = _types(fields[option].type)
        if wanted and not any(TYPES[kind_of][1](value) for kind_of in wanted):
            words = " or ".join(dict.fromkeys(TYPES[kind_of][0] for kind_of in wanted if kind_of != "None"))
            raise ValueError(f"{owner}: {option} is {shortened(value)}; it must be {words}")


TYPES: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "None": ("nothing", lambda value: value is None),
    "str": ("a text", lambda value: isinstance(value, str)),
    "Path": ("a text", lambda value: isinstance(value, str | Path)),
    "bool": ("true or false", lambda value: isinstance(value, bool)),
    "int": ("a whole number", lambda value: isinstance(value, int) and not isinstance(value, bool)),
    "float": (
        "a number",
        lambda value: isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value),
    ),
}
"""The plain types of options, as a field's annotation names them: in words, and whether a value is of it."""


def _types(annotation: Any) -> list[str]:
    """The plain types that an annotation such as `int | None` is made of; none where it has another part."""
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))
    named = [part.strip().rpartition(".")[2] for part in text.split("|")]
    return named if all(name in TYPES for name in named) else []


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist else "an unknown package"


def _import(kind: str, entry: EntryPoint, base: Callable[[], type[Any]]) -> type[Any]:
    try:
        cls = entry.load()
    except Exception as error:  # whatever a third-party module raises on import is its own fault, and is named so
        raise ValueError(
            f"{kind[:-1]} {entry.name!r} ({entry.value} of {_package(entry)}) fails to import: {shortened(error, 120)}"
        ) from error
    wanted = base()
    if not (isinstance(cls, type) and issubclass(cls, wanted) and dataclasses.is_dataclass(cls)):
        raise ValueError(
            f"{kind[:-1]} {entry.name!r} ({entry.value}) is not a dataclass derived from {wanted.__name__}"
        )
    return cls
