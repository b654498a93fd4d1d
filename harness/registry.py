"""Names in a config to classes, through entry points, so that a third-party package adds a trainer in three lines.

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
from typing import Any, Literal

from judges.reading import clipped, shortened

Kind = Literal["trainers", "judges", "leaderboards"]
LONGEST_ERROR = 220
LONGEST_FOLDER = 255
"""Characters of a component's own error that a message has, and of a path in it on top."""


def nearest(word: str, words: Iterable[str]) -> str:
    """A did-you-mean tail for an error message: '; did you mean X?' or the list of what there is."""
    known = sorted(words)
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; there is {clipped(', '.join(known), 160)}"


@cache
def names(kind: Kind) -> tuple[str, ...]:
    """Every registered name of a kind, sorted."""
    return tuple(sorted({entry.name for entry in _entries(kind)}))


def load(kind: Kind, name: str) -> type[Any]:
    """The class registered under a name.

    Raises:
        ValueError: no such name (with the nearest one), two packages claim it, the plug-in fails to import, or it is
            not of the kind's base class.
    """
    found = [entry for entry in _entries(kind) if entry.name == name]
    if not found:
        raise ValueError(f"no {kind[:-1]} is called {shortened(name)}{nearest(name, names(kind))}")
    if len({entry.value for entry in found}) > 1:
        claims = " and ".join(f"{entry.value} of {_package(entry)}" for entry in found)
        raise ValueError(f"{kind[:-1]} {name!r} is claimed by {claims}; uninstall one")
    return _import(kind, found[0])


ENTRY = "{{name: {name}, {option}: VALUE}}"
"""How an option is given in a config, and to a judge that another one lists."""


def make(kind: Kind, name: str, options: Mapping[str, Any], give: str = ENTRY) -> Any:
    """An instance of the class registered under a name.

    Args:
        give: how the user gives an option, for the error about one that is missing.

    Raises:
        ValueError: as `load`; an unknown or missing option, or one the class refuses.
    """
    cls = load(kind, name)
    _check_options(kind, name, options)
    for field in dataclasses.fields(cls):
        needed = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if field.init and needed and field.name not in options:
            how = give.format(name=name, option=field.name)
            raise ValueError(f"{kind[:-1]} {name!r} needs the option {field.name!r}; write {how}")
    listed = [option for option in getattr(cls, "members", ()) if option in options]
    made = {option: _judges(name, option, options[option]) for option in listed}
    return _built(kind, name, cls, {**options, **made})


def _built(kind: Kind, name: str, cls: type[Any], options: Mapping[str, Any]) -> Any:
    """An instance. What a class refuses by ValueError is the user's to mend, and a file that cannot be opened; any
    other error is a bug in the class, and is told as one.
    """
    paths = (len(v) for v in options.values() if isinstance(v, str) and v.startswith("/"))
    room = LONGEST_ERROR + max((length for length in paths if length <= LONGEST_FOLDER), default=0)
    try:
        return cls(**options)
    except ValueError as error:
        if len(str(error)) <= room:
            raise
        raise ValueError(clipped(str(error), room)) from error
    except OSError as error:
        why = f"{shortened(error.filename, room - 100)}: {error.strerror}" if error.filename else shortened(error)
        raise ValueError(f"{kind[:-1]} {name!r}: {why}; give a file or folder that can be read") from error
    except Exception as error:
        raise ValueError(
            f"{kind[:-1]} {name!r} cannot be made: {cls.__module__}.{cls.__qualname__} fails with "
            f"{type(error).__name__}: {clipped(str(error), 100)}; this is a bug in it, to be told to its authors"
        ) from error


def _check_options(kind: Kind, name: str, options: Mapping[str, Any]) -> None:
    """Raise ValueError for an option that the class registered under a name does not have, or of another type."""
    fields = {f.name: f for f in dataclasses.fields(load(kind, name)) if f.init}
    for option, value in options.items():
        if option not in fields:
            tail = nearest(option, fields) if fields else "; it has no options"
            raise ValueError(f"{kind[:-1]} {name!r} has no option {shortened(option)}{tail}")
        wanted = _types(fields[option].type)
        if wanted and not any(TYPES[kind_of][1](value) for kind_of in wanted):
            words = " or ".join(dict.fromkeys(TYPES[kind_of][0] for kind_of in wanted if kind_of != "None"))
            raise ValueError(f"{kind[:-1]} {name!r}: {option} is {shortened(value)}; it must be {words}")


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


def _judges(name: str, option: str, listed: Any) -> list[Any]:
    """The judges that an option lists, each a name or {name: NAME, option: value, ...}."""
    specs: list[Any] = (
        [{"name": each} if isinstance(each, str) else each for each in listed] if isinstance(listed, list) else []
    )
    wrong = [spec for spec in specs if not isinstance(spec, Mapping) or not isinstance(spec.get("name"), str)]
    if not specs or wrong:
        raise ValueError(
            f"judge {name!r}: {option} must be a list of judges, each {{name: NAME, OPTION: VALUE}} or a name, "
            f"got {shortened(wrong[0] if wrong else listed)}"
        )
    return [make("judges", spec["name"], {k: v for k, v in spec.items() if k != "name"}) for spec in specs]


@cache
def _entries(kind: Kind) -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group=f"nashbench.{kind}"))


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist else "an unknown package"


def _import(kind: Kind, entry: EntryPoint) -> type[Any]:
    try:
        cls = entry.load()
    except Exception as error:  # whatever a third-party module raises on import is its own fault, and is named so
        raise ValueError(
            f"{kind[:-1]} {entry.name!r} ({entry.value} of {_package(entry)}) fails to import: {shortened(error, 120)}"
        ) from error
    base = _base(kind)
    if not (isinstance(cls, type) and issubclass(cls, base) and dataclasses.is_dataclass(cls)):
        raise ValueError(f"{kind[:-1]} {entry.name!r} ({entry.value}) is not a dataclass derived from {base.__name__}")
    return cls


def _base(kind: Kind) -> type[Any]:
    if kind == "trainers":
        from trainers.algorithm import Algorithm

        return Algorithm
    if kind == "judges":
        from judges.judge import Judge

        return Judge
    from leaderboards.leaderboard import Leaderboard

    return Leaderboard
