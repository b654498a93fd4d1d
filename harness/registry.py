"""Names in a config to classes, through entry points, so that a third-party package adds a trainer in three lines.

Classes are imported when asked for. A broken plug-in names itself and disturbs nobody else.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

Kind = Literal["trainers", "judges", "leaderboards"]


def nearest(word: str, words: Iterable[str]) -> str:
    """A did-you-mean tail for an error message: '; did you mean X?' or the list of what there is."""
    known = sorted(words)
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; there is {', '.join(known)}"


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
        raise ValueError(f"no {kind[:-1]} is called {name!r}{nearest(name, names(kind))}")
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
    try:
        return cls(**{**options, **made})
    except TypeError as error:
        raise ValueError(f"{kind[:-1]} {name!r} refused its options {', '.join(options)}: {error}") from error


def _check_options(kind: Kind, name: str, options: Mapping[str, Any]) -> None:
    """Raise ValueError for an option that the class registered under a name does not have."""
    fields = [f.name for f in dataclasses.fields(load(kind, name)) if f.init]
    for option in options:
        if option not in fields:
            tail = nearest(option, fields) if fields else "; it has no options"
            raise ValueError(f"{kind[:-1]} {name!r} has no option {option!r}{tail}")


def _judges(name: str, option: str, listed: Any) -> list[Any]:
    """The judges that an option lists, each a name or {name: NAME, option: value, ...}."""
    specs: list[Any] = (
        [{"name": each} if isinstance(each, str) else each for each in listed] if isinstance(listed, list) else []
    )
    wrong = [spec for spec in specs if not isinstance(spec, Mapping) or not isinstance(spec.get("name"), str)]
    if not specs or wrong:
        raise ValueError(
            f"judge {name!r}: {option} must be a list of judges, each {{name: NAME, OPTION: VALUE}} or a name, "
            f"got {wrong[0] if wrong else listed!r}"
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
            f"{kind[:-1]} {entry.name!r} ({entry.value} of {_package(entry)}) fails to import: {error!r}"
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
