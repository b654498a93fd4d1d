"""The lock on shared machinery: which modules each kind of stage rests on, and their hashes when its version was given.

Leaf code (algorithms, judges, protocols, boards) is in keys by itself. Machinery (loops, sampler, statistics) is not,
or an upgrade would train everything anew: a kind of stage has a `version` for it. After a change that alters results
raise the version of the kinds that the failing test names, then run

    python tests/code_lock.py

After one that does not, say why: `python tests/code_lock.py --same "the loop was only split"`.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import pkgutil
from pathlib import Path
from typing import Any

import harness.stages
from harness.stage import Stage
from judges.code_modules import import_closure

LOCK = Path(__file__).with_name("code_lock.json")
MOVING = (
    *("harness.cli", "harness.components", "harness.config", "harness.errors", "harness.matrix", "harness.planning"),
    *("harness.registry", "harness.run", "harness.specs", "harness.stage.", "harness.store", "judges.code_"),
    *("judges.runs", "judges.transports", "judges.record_log"),
)
"""What moves results and does not compute them: planning, runner, store, transports, the hashing of code."""
LEAVES = {"algorithm": "trainers.algorithms", "board": "leaderboards.boards", "judge": "judges.kinds"}
"""What a field's component may be; a stage reaches it through the registry, and so whatever it rests on."""


def kinds() -> list[type[Stage]]:
    """Every kind of stage that the harness has, by name."""
    for module in pkgutil.iter_modules(harness.stages.__path__):
        importlib.import_module(f"harness.stages.{module.name}")
    of_harness = [kind for kind in Stage.__subclasses__() if kind.__module__.startswith("harness.stages.")]
    return sorted(of_harness, key=lambda kind: kind.kind)


def modules_of(kind: type[Stage]) -> dict[str, str]:
    """Module -> hash of the machinery that a kind of stage rests on."""
    leaves = [leaf for f in dataclasses.fields(kind) if f.name in LEAVES for leaf in _modules(LEAVES[f.name])]
    closure = import_closure([kind.__module__, *leaves])
    return {m: h for m, h in closure.items() if not m.startswith(MOVING)}


def _modules(package: str) -> list[str]:
    paths = importlib.import_module(package).__path__
    return [f"{package}.{module.name}" for module in pkgutil.iter_modules(paths)]


def current() -> dict[str, Any]:
    """What the lock would hold now, but for its notes."""
    modules: dict[str, str] = {}
    versions: dict[str, Any] = {}
    for kind in kinds():
        own = modules_of(kind)
        modules |= own
        versions[kind.kind] = {"version": kind.version, "modules": sorted(own)}
    return {"kinds": versions, "modules": dict(sorted(modules.items()))}


def changed(lock: dict[str, Any], now: dict[str, Any]) -> dict[str, list[str]]:
    """Kind -> the modules that changed since its version was given."""
    return {
        name: stale
        for name, kind in now["kinds"].items()
        if kind["version"] == lock["kinds"].get(name, {}).get("version")
        and (stale := [m for m in kind["modules"] if lock["modules"].get(m) != now["modules"][m]])
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--same", metavar="WHY", help="the changes alter no result, because ...")
    why = parser.parse_args().same
    lock, now = json.loads(LOCK.read_text()) if LOCK.exists() else {}, current()
    stale = changed(lock, now) if lock else {}
    if stale and not why:
        names = ", ".join(sorted(stale))
        parser.error(f"raise the version of {names}, or say --same WHY")
    modules = sorted({module for names in stale.values() for module in names})
    notes = [*lock.get("same_results", []), *([{"modules": modules, "because": why}] if modules else [])]
    LOCK.write_text(json.dumps({**now, "same_results": notes[-20:]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
