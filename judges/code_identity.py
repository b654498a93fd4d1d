"""The hash of the code that decides what an object computes, which nobody can forget to raise.

Of our own classes *leaf code* counts: the definitions that a class reaches in `judges.code_modules.LEAVES`. All else of
ours is machinery. A plug-in counts with all files of its package, its distribution's version, and the leaf code of ours
that it imports or derives from.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Collection, Iterator
from functools import cache
from importlib.metadata import Distribution, PackageNotFoundError, distribution, entry_points, packages_distributions
from itertools import accumulate
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

from judges.code_modules import Module
from judges.code_reach import ClassSource, Reach
from judges.code_syntax import ROOMS, file_digest, parse

INSTALLED = ("site-packages", "dist-packages")
GROUPS = tuple(f"nashbench.{kind}" for kind in ("trainers", "judges", "protocols", "transports", "leaderboards"))


def code_identity(cls: type, base: type, entry: Collection[str] | None = None) -> str:
    """SHA-256 (hex) of the code that decides what objects of `cls` compute, up to `base`, which is left out.

    Equal wherever the code lies, in Python 3.11 to 3.13, and after edits of comments, docstrings or layout. Cached
    for the process, whose own code does not change.

    Args:
        entry: names of methods or class attributes: of our own classes only the code that these reach counts, and
            options only where it reads them. None: all of the modules that define the class.

    Raises:
        TypeError: `cls` is not derived from `base`.
        ValueError: the class has no member of one of the names.
    """
    if base not in cls.__mro__:
        raise TypeError(f"{cls.__name__} is not derived from {base.__name__}")
    if missing := sorted(name for name in entry or () if not hasattr(cls, name) and name not in _annotated(cls)):
        raise ValueError(f"{cls.__name__} has no member {', '.join(missing)}")
    return _identity(cls, base, None if entry is None else frozenset(entry))


def class_name(cls: type) -> str:
    """The top-level package and the class's name in it: a name that stays when a file moves within the package."""
    return f"{_top(cls)}.{cls.__qualname__}"


@cache
def _identity(cls: type, base: type, entry: frozenset[str] | None) -> str:
    own = [kind for kind in cls.__mro__ if kind not in base.__mro__]
    ours = [kind for kind in own if _top(kind) in ROOMS]
    foreign = {_top(kind): kind for kind in own if kind not in ours and _top(kind) not in sys.stdlib_module_names}
    if foreign or entry is None:
        reach = _whole(ours)
        packages = [_package(kind, reach, is_ancestor=_top(cls) != top) for top, kind in foreign.items()]
    else:
        reach, packages = _from_members(cls, ours, entry), []
    text = json.dumps([cls.__qualname__, sorted(reach.run()), packages])
    return hashlib.sha256(text.encode()).hexdigest()


def _top(cls: type) -> str:
    return "__main__" if cls.__module__ == "__mp_main__" else _module_name(cls).partition(".")[0]


def _module_name(cls: type) -> str:
    """The module's name; the one it would be imported by where `python -m` runs it."""
    spec = getattr(sys.modules.get(cls.__module__), "__spec__", None)
    return spec.name if spec is not None and cls.__module__ == "__main__" else cls.__module__


def _annotated(cls: type) -> set[str]:
    return {name for kind in cls.__mro__ for name in vars(kind).get("__annotations__", ())}


def _whole(classes: Collection[type]) -> Reach:
    reach = Reach()
    for source in filter(None, map(ClassSource.of, classes)):
        if source.module.is_leaf:
            reach.add_module(source.module)
    return reach


def _from_members(cls: type, own: Collection[type], entry: frozenset[str]) -> Reach:
    """The members of these names; ancestors beyond `own` are looked through for what they use of the class."""
    sources = {kind: source for kind in cls.__mro__ if (source := ClassSource.of(kind))}
    leaves = [sources[kind] for kind in own if sources[kind].module.is_leaf]
    machinery = [source for source in sources.values() if not source.module.is_leaf]
    reach = Reach([*leaves, *machinery])
    for source in leaves:
        reach.add_class_frame(source)
    for name in entry:
        reach.add_member(name)
    return reach


def _package(cls: type, reach: Reach, *, is_ancestor: bool) -> list[Any]:
    """A plug-in's distributions and files; what it imports of our leaf code is added to `reach`.

    An ancestor's package that is installed as a library, such as torch, counts by its version.
    """
    files = _files(cls)
    distributions = _distributions(_top(cls), any(part in INSTALLED for _, path in files[:1] for part in path.parts))
    stated = sorted({f"{installed.metadata['Name']} {installed.version}" for installed in distributions})
    if is_ancestor and any(_is_library(installed, path) for installed in distributions for _, path in files[:1]):
        return [stated]
    for name, path in files:
        tree = parse(path.read_bytes()) if path.suffix == ".py" else None
        if tree is not None:
            module = Module(".".join([_top(cls), *Path(name).parts[:-1], "_"]), tree)  # for relative imports
            for target in module.imports_of(tree):
                if target.module.partition(".")[0] in ROOMS:
                    reach.add_import(module, target)
    return [stated, [(name, file_digest(path)) for name, path in files] or _compiled(cls)]


def _is_library(installed: Distribution, path: Path) -> bool:
    """Whether a distribution brings no plug-in and holds the file itself, which an editable one does not."""
    if any(entry.group in GROUPS for entry in installed.entry_points):
        return False
    return path.is_relative_to(Path(str(installed.locate_file(""))).resolve())


@cache
def _distributions(package: str, is_installed: bool) -> list[Distribution]:
    """What a top-level package was installed by: the one that names it in its entry points, or else brings its files.

    The second is looked up for installed files alone; it takes a second.
    """
    entries = [entry for group in GROUPS for entry in entry_points(group=group)]
    named = [entry.dist for entry in entries if entry.dist and entry.module.partition(".")[0] == package]
    names = packages_distributions().get(package, ()) if is_installed and not named else ()
    return named or [installed for name in names if (installed := _distribution(name))]


def _distribution(name: str) -> Distribution | None:
    try:
        return distribution(name)
    except PackageNotFoundError:  # its folder is broken, or it went away
        return None


def _files(cls: type) -> list[tuple[str, Path]]:
    """(name in the package, path) of all files of the class's package, or its module's one file under no name.

    Empty where there is no file. Of a namespace the first package within it counts; of an archive the whole archive.
    """
    for name in accumulate(_module_name(cls).split("."), "{}.{}".format):
        module = sys.modules.get(name if name in sys.modules else cls.__module__)
        file = _file(module)
        if file and getattr(module, "__path__", None):
            return sorted(_within(file.parent)) if file.is_file() else _archive(file)
    file = _file(sys.modules.get(cls.__module__))
    return _archive(file) if file else []


def _file(module: ModuleType | None) -> Path | None:
    file = getattr(module, "__file__", None)
    return Path(file).resolve() if file else None


def _archive(file: Path) -> list[tuple[str, Path]]:
    """The file, or the one among its parents that is a file."""
    return [("", path) for path in (file, *file.parents) if path.is_file()][:1]


def _within(folder: Path) -> Iterator[tuple[str, Path]]:
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name != "__pycache__" and not name.startswith(".")]
        for path in (Path(parent, name) for name in files if not name.startswith(".")):
            if path.is_file():
                yield path.relative_to(folder).as_posix(), path


def _compiled(cls: type) -> list[str]:
    """The functions of a class that has no file, such as one typed into a notebook."""
    functions = {name: getattr(value, "__func__", value) for name, value in vars(cls).items()}
    functions |= {name: value.fget for name, value in functions.items() if isinstance(value, property)}
    return [f"{name} {_code(value.__code__)}" for name, value in functions.items() if isinstance(value, FunctionType)]


def _code(code: CodeType) -> str:
    constants = [_code(constant) if isinstance(constant, CodeType) else ascii(constant) for constant in code.co_consts]
    return f"{code.co_code.hex()} {code.co_names} {code.co_varnames} {constants}"
