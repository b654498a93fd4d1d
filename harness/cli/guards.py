"""Are the packages that this process imports ours? Asked at start, of the standard library alone.

The names of our packages are ordinary words. A folder of such a name in the working directory comes before the
installed package where Python puts that directory on its path, and a distribution that installs a package of the same
name overwrites ours. Either would otherwise end a sweep after hours, at the first import that finds the other one.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

ROOMS = ("harness", "trainers", "judges", "leaderboards", "reports")
REINSTALL = "run `pip install --force-reinstall --no-deps nashbench`, or install it in an environment of its own"
HOME = Path(__file__).parents[2]


def check_imports() -> None:
    """Take the working directory off the import path and make sure of our packages.

    Workers and ranks take the import path over from this process.

    Raises:
        ValueError: one of our packages is missing, or an import of it finds another project's.
    """
    leave_working_directory(sys.path)
    for room in ROOMS:
        _check_found(room)
    _check_overwritten(HOME)


def leave_working_directory(path: list[str], home: Path = HOME) -> None:
    """Take out the entry that `python -m` and `python -c` put first, unless our packages are there (a checkout).

    What PYTHONPATH or a .pth file names was asked for, and stays.
    """
    with suppress(FileNotFoundError):  # a working directory that was deleted holds nothing to import
        here = os.getcwd()
        if path and path[0] in ("", here) and not os.path.samefile(here, home):
            del path[0]


def _check_found(room: str, home: Path = HOME) -> None:
    """ValueError unless an import of `room` finds the one beside `harness`."""
    spec, ours = find_spec(room), home / room
    if not (ours / "__init__.py").is_file():
        raise ValueError(f"nashbench is not whole: {ours} has no __init__.py; {REINSTALL}")
    places = list(spec.submodule_search_locations or [str(spec.origin)]) if spec else []
    if [os.path.realpath(place) for place in places] != [os.path.realpath(ours)]:
        owner = next((f" of {name}" for place in places for name in _owners(Path(place).parent, room)), "")
        raise ValueError(
            f"an import of {room} finds {', '.join(places) or 'nothing'}{owner}, not nashbench's {ours}; rename that "
            "folder or take it off PYTHONPATH, or uninstall it, or install nashbench in an environment of its own"
        )


def _check_overwritten(home: Path) -> None:
    """ValueError where another distribution has installed its own package over one of ours."""
    for room in _changed(home):
        if owner := next(_owners(home, room), None):
            raise ValueError(
                f"{home / room / '__init__.py'} is not nashbench's: {owner} has overwritten it with its own package "
                f"{room}; uninstall that and {REINSTALL}"
            )


def _changed(home: Path) -> Iterator[str]:
    """Packages whose first file is not the one that was installed; none in a checkout, which has no record."""
    recorded = {path: digest for record in home.glob("nashbench-*.dist-info/RECORD") for path, digest in _rows(record)}
    for room in ROOMS:
        expected = recorded.get(f"{room}/__init__.py")
        if expected and expected != _digest(home / room / "__init__.py"):
            yield room


def _owners(home: Path, room: str) -> Iterator[str]:
    """Other distributions in this folder, name-version, that say they installed the package `room`."""
    for record in sorted(home.glob("*.dist-info/RECORD")):
        name = record.parent.name.removesuffix(".dist-info")
        if not name.startswith("nashbench-") and any(path == f"{room}/__init__.py" for path, _ in _rows(record)):
            yield name


def _rows(record: Path) -> list[tuple[str, str]]:
    """Paths and digests of a wheel's RECORD (PEP 627)."""
    with record.open(encoding="utf-8", newline="") as file:
        return [(row[0], row[1]) for row in csv.reader(file) if len(row) > 1]


def _digest(file: Path) -> str:
    """As RECORD writes it."""
    digest = hashlib.sha256(file.read_bytes()).digest()
    return "sha256=" + base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
