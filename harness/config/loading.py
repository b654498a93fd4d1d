"""From a file's text, and what `--set` changes, to a checked config."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from harness.config.messages import Places, explain
from harness.config.schema import Config, ConfigError, Entry
from harness.registry import Kind, load
from judges.reading import compose_yaml, construct_yaml, parse_yaml, read_text, shortened
from trainers.options import Endpoint

Planned = TypeVar("Planned")
WORLDS = ("pocket",)
NAMES = {("name",), *(("policy", key) for key in Endpoint.model_fields)}
"""Keys whose texts are never paths, like every `label`."""
DEEPEST_SETTING = 20

ENTRIES: dict[tuple[str, ...], Kind] = {
    ("matrix", "judge"): "judges",
    ("graders",): "judges",
    ("tune", "grader"): "judges",
    ("leaderboards",): "leaderboards",
}
"""Where a config lists things whose classes say which of their options are paths."""
PARTS: dict[str, Kind] = {"protocol": "protocols", "transport": "transports"}
"""Options of a judge that are things of their own."""


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read, override and check a config.

    Args:
        path: a YAML file; paths inside it are relative to its folder.
        overrides: `a.b=YAML`, as from `--set`; paths in them are relative to the working directory.

    Raises:
        ConfigError: with the place (file and line, or the override) and the nearest valid word.
    """
    try:
        tree = compose_yaml(read_text(path), str(path))
        raw = construct_yaml(tree, str(path))
    except ValueError as error:
        raise ConfigError(f"config {error}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} must be a mapping of keys; it holds {type(raw).__name__}")
    raw = _absolute(raw, path.resolve().parent)
    places = Places(path, tree, [_override(raw, override) for override in overrides])
    try:
        config = Config.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(explain(error, places, raw)) from error
    config._path = str(path)
    _note_places(config, places)
    return config


def naming_the_file(plan: Callable[[Config], Planned]) -> Callable[[Config], Planned]:
    """A function of a config whose ValueErrors name the config's file, where they do not yet."""

    @wraps(plan)
    def named(config: Config) -> Planned:
        try:
            return plan(config)
        except ValueError as error:
            if config.path in str(error):
                raise
            raise ValueError(f"{config.path}: {error}") from error

    return named


def _note_places(config: Config, places: Places) -> None:
    """Tell every entry where it was written, for errors that are found later."""
    groups: dict[tuple[str, ...], tuple[Entry, ...]] = {
        ("matrix", "trainer"): config.matrix.trainer,
        ("matrix", "judge"): config.matrix.judge,
        ("graders",): config.graders or (),
        ("leaderboards",): config.leaderboards,
    }
    for where, entries in groups.items():
        for number, entry in enumerate(entries):
            entry._place = f"{places.of((*where, number))}: {'.'.join(where)}"
    if config.tune is not None:
        config.tune.grader._place = f"{places.of(('tune', 'grader'))}: tune.grader"


def _absolute(value: Any, folder: Path, where: tuple[str, ...] = (), *, is_path: bool = False) -> Any:
    """Texts that name a file or folder below `folder`, or look like a relative path, made absolute.

    A bare word is a path under the top-level keys `policy` and `prompts` and in the option `model` of a judge where
    such a file or folder is there, and always in an option that is nothing but a path; elsewhere it is a name.
    """
    if isinstance(value, Mapping):
        paths = _paths(where, value.get("name"))
        return {k: _absolute(v, folder, (*where, str(k)), is_path=k in paths) for k, v in value.items()}
    if isinstance(value, list):
        return [_absolute(v, folder, where, is_path=is_path) for v in value]
    if where in NAMES or where[-1:] == ("label",) or not isinstance(value, str) or not value or value in WORLDS:
        return value
    home = os.path.expanduser(value)  # the text itself where there is no such user, or no home
    target = os.path.normpath(os.path.join(folder, home))
    marked = value.startswith(("./", "../")) or home != value
    marked = marked or value.endswith((".jsonl", ".yaml", ".yml", ".csv", ".json"))
    only = is_path and where[-1] != "model"  # a model's name may be a hub's or an endpoint's
    there = ("/" in value or is_path or where[:1] in (("policy",), ("prompts",))) and os.path.exists(target)
    return target if marked or only or there else value


def _paths(where: tuple[str, ...], name: Any) -> tuple[str, ...]:
    """The options of an entry, or keys of the training, that are paths.

    None where the name is wrong, which is told later with its place.
    """
    if where == ("training",):
        return ("accelerate",)
    kind = next((kind for at, kind in ENTRIES.items() if where[: len(at)] == at), None)
    if kind == "judges" and where[-1] == "limits":
        return ("cache", "prices")
    if kind == "judges":
        kind = PARTS.get(where[-1], kind)
    if kind is not None and isinstance(name, str):
        with contextlib.suppress(ValueError):
            return tuple(load(kind, name).paths)
    return ()


def _override(raw: dict[str, Any], override: str) -> tuple[str, ...]:
    """Apply `a.b=YAML` in place; the path it set."""
    key, equals, text = override.partition("=")
    setting = f"--set {shortened(override)}"
    path = tuple(key.split("."))
    if not equals or not key:
        raise ConfigError(f"{setting} is not KEY=VALUE, for example --set matrix.seed=[7]")
    if len(path) > DEEPEST_SETTING:
        raise ConfigError(f"{setting}: a key has at most {DEEPEST_SETTING} parts")
    try:
        value = _absolute(parse_yaml(text, f"{setting}: the value", numbered=False), Path.cwd(), path)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    node: Any = raw
    for part in path[:-1]:
        if node.get(part) is None:
            node[part] = {}
        node = node[part]
        if not isinstance(node, dict):
            raise ConfigError(f"{setting}: {shortened(part)} is not a group of keys")
    node[path[-1]] = value
    return path
