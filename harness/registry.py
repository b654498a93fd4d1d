"""Names in a config to classes, through entry points, so that a third-party package adds a trainer in three lines.

Classes are imported when asked for. A broken plug-in names itself and disturbs nobody else.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal

from judges.plugins import check_options, entries, load_class
from judges.reading import clipped, shortened

Kind = Literal["trainers", "judges", "leaderboards", "protocols", "transports"]
LONGEST_ERROR = 220
LONGEST_FOLDER = 255
"""Characters of a component's own error that a message has, and of a path in it on top."""


@cache
def names(kind: Kind) -> tuple[str, ...]:
    """Every registered name of a kind, sorted."""
    return tuple(sorted({entry.name for entry in entries(kind)}))


def load(kind: Kind, name: str) -> type[Any]:
    """The class registered under a name.

    Raises:
        ValueError: no such name (with the nearest one), two packages claim it, the plug-in fails to import, or it is
            not of the kind's base class.
    """
    return load_class(kind, name, lambda: _base(kind))


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
    options = cls.nested(options) if kind == "judges" else options
    check_options(f"{kind[:-1]} {name!r}", cls, options)
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


def _base(kind: Kind) -> type[Any]:
    if kind == "trainers":
        from trainers.algorithm import Algorithm

        return Algorithm
    if kind == "judges":
        from judges.judge import Judge

        return Judge
    if kind == "protocols":
        from judges.protocols.protocol import Protocol

        return Protocol
    if kind == "transports":
        from judges.transports.transport import Transport

        return Transport
    from leaderboards.leaderboard import Leaderboard

    return Leaderboard
