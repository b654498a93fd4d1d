"""The parts of a judge that are objects of their own: from what a config writes to the object, and back to what names
it in a key.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from judges.judge import content_of
from judges.plugins import check_options, entries, load_class, nearest
from judges.reading import clipped, shortened

NAME = "name"


def part(kind: str, base: type[Any], given: Any) -> Any:
    """An object of a kind from its name, {name: NAME, OPTION: VALUE}, or itself.

    Raises:
        ValueError: an unknown name or option, or a value that the class refuses.
    """
    if isinstance(given, base):
        return given
    spec = spelled(kind, given)
    options = {name: value for name, value in spec.items() if name != NAME}
    cls = load_class(kind, spec[NAME], lambda: base)
    check_options(f"{kind[:-1]} {spec[NAME]!r}", cls, options)
    needed = [f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING]
    if missing := [name for name in needed if name not in options]:
        raise ValueError(f"{kind[:-1]} {spec[NAME]!r} needs the option {missing[0]!r}")
    return cls(**options)


def spelled(kind: str, given: Any) -> Mapping[str, Any]:
    """A part as {name: NAME, OPTION: VALUE}. Raises ValueError for what is neither that nor a name."""
    spec = {NAME: given} if isinstance(given, str) else given
    if not isinstance(spec, Mapping) or not isinstance(spec.get(NAME), str):
        raise ValueError(f"{kind[:-1]} must be a name or {{name: NAME, OPTION: VALUE}}, got {shortened(given)}")
    return spec


def described_part(made: Any) -> dict[str, Any]:
    """What of a part determines results, but code: its class, and the options that are not at their default, files by
    their content, as JSON.
    """
    changed = {f.name: getattr(made, f.name) for f in fields(made) if f.init}
    changed = {f.name: changed[f.name] for f in fields(made) if f.init and changed[f.name] != f.default}
    tuning, paths = getattr(made, "tuning", ()), getattr(made, "paths", ())
    options = {
        name: content_of(value) if name in paths else value for name, value in changed.items() if name not in tuning
    }
    return {"class": type(made).__qualname__, "options": options, "brings": made.described()}


def owners(kind: str, base: type[Any]) -> dict[str, set[str]]:
    """Name -> the options of each class of a kind that imports."""
    found = {}
    for entry in entries(kind):
        try:
            cls = load_class(kind, entry.name, lambda: base)
        except ValueError:  # broken, which is told where it is asked for
            continue
        found[entry.name] = {f.name for f in fields(cls) if f.init}
    return found


def place(option: str, chosen: Mapping[str, str], kinds: Mapping[str, Mapping[str, set[str]]], judge: str) -> str:
    """Which part of a judge has an option that is written beside the parts' names.

    Args:
        chosen: part -> the name in use, such as {"protocol": "custom"}.
        kinds: part -> its classes' options, as `owners` gives them.

    Raises:
        ValueError: no part in use has it: it is another's, or nobody's.
    """
    for name in chosen:
        if option in kinds[name].get(chosen[name], ()):
            return name
    for name, classes in kinds.items():
        if having := sorted(each for each, options in classes.items() if option in options):
            plural = "s" if len(having) > 1 else ""
            raise ValueError(
                f"{option} is an option of {name}{plural} {' and '.join(map(repr, having))}; leave it out with "
                f"{chosen[name]!r}"
            )
    known = [each for name in chosen for each in kinds[name].get(chosen[name], ())]
    raise ValueError(f"judge {judge!r} has no option {clipped(repr(option), 60)}{nearest(option, known)}")
