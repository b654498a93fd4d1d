"""The sweep's config: YAML to a checked, frozen model. Every error names the place in the file and the nearest word."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    ConfigDict,
    Discriminator,
    Field,
    PrivateAttr,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from harness.registry import Kind, load, nearest
from trainers.algorithm import Pairing
from trainers.options import Endpoint, Options, Positive, Sampling, Training

WORLDS = ("pocket",)
NAMES = {("name",), *(("policy", key) for key in Endpoint.model_fields)}
"""Keys whose texts are never paths."""

WORDING = {
    "too_short": "the list is empty; give at least one entry, or leave the key out where it has a default",
    "tuple_type": "must be a list, such as [a, b]",
    "model_type": "must be a group of keys",
}
"""pydantic's words for what it calls tuples and models, in the words of a config."""


class ConfigError(ValueError):
    """The config is wrong: one message that says where, what and what to do."""


class Entry(Options):
    """A trainer, judge or leaderboard by name, with its options; `place` says where the config has it."""

    model_config = ConfigDict(frozen=True, extra="allow")
    name: str
    _place: str = PrivateAttr("include")

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @property
    def options(self) -> dict[str, Any]:
        """All keys but `name`; a list is several values."""
        return dict(self.model_extra or {})

    @property
    def place(self) -> str:
        """File and line, for messages."""
        return self._place


Entries = Annotated[tuple[Entry, ...], Field(min_length=1)]


class Game(Options):
    """An exact game as the policy: a named game or a CSV matrix."""

    game: str


def _kind_of_policy(policy: Any) -> str:
    if isinstance(policy, Endpoint) or (isinstance(policy, dict) and policy.keys() & Endpoint.model_fields.keys()):
        return "Endpoint"
    return "Game" if isinstance(policy, Game | dict) else "str"


Policy = Annotated[
    Annotated[str, Tag("str")] | Annotated[Game, Tag("Game")] | Annotated[Endpoint, Tag("Endpoint")],
    Discriminator(_kind_of_policy),
]
GROUPS = {"Game": Game, "Endpoint": Endpoint}
"""Policies that are groups of keys, as pydantic's places have them."""


class PairOptions(Options):
    """How responses become labelled pairs; None is each algorithm's own way."""

    protocol: Literal["tournament", "iid", "best-worst"] | None = None
    label: Literal["argmax", "sampled", "soft"] | None = None
    orders: Literal["one", "both"] | None = None

    def over(self, own: Pairing) -> Pairing:
        """An algorithm's own pairing with what is given here."""
        return dataclasses.replace(own, **{k: v for k, v in self.model_dump().items() if v is not None})


class Matrix(Options):
    """What is multiplied: trainers (none where policies are evaluated as they are), judges, seeds."""

    trainer: tuple[Entry, ...] = ()
    judge: Entries
    seed: Annotated[tuple[Annotated[int, Field(ge=0, strict=True)], ...], Field(min_length=1)] = (0,)


class Config(Options):
    """A sweep. See `nashbench sweep --help` and README for what each key means."""

    name: str
    policy: tuple[Policy, ...]
    prompts: str | None = None
    matrix: Matrix
    iterations: Positive = 3
    prompts_per_iteration: Positive = 256
    sampling: Sampling = Sampling()
    pairs: PairOptions = PairOptions()
    training: Training = Training()
    graders: Entries | None = None
    leaderboards: Entries
    exclude: tuple[dict[str, Any], ...] = ()
    include: tuple[dict[str, Any], ...] = ()

    @field_validator("name")
    @classmethod
    def _is_folder_name(cls, name: str) -> str:
        if not re.fullmatch(r"[\w][\w .+=-]*", name):
            raise ValueError(f"{name!r} cannot name a folder; use letters, digits, '.', '_' and '-'")
        return name

    @field_validator("policy", mode="before")
    @classmethod
    def _listed(cls, policy: Any) -> Any:
        return policy if isinstance(policy, list | tuple) else [policy]

    @field_validator("policy")
    @classmethod
    def _not_empty(cls, policy: tuple[Policy, ...]) -> tuple[Policy, ...]:
        if not policy:
            raise ValueError("the list of policies is empty")
        return policy


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read, override and check a config.

    Args:
        path: a YAML file; paths inside it are relative to its folder.
        overrides: `a.b=YAML`, as from `--set`; paths in them are relative to the working directory.

    Raises:
        ConfigError: with the place (file and line, or the override) and the nearest valid word.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the config {path}: {getattr(error, 'strerror', error)}") from error
    try:
        raw, tree = yaml.load(text, _Loader), yaml.compose(text, _Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {_one_line(error)}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} must be a mapping of keys; it holds {type(raw).__name__}")
    raw = _absolute(raw, path.resolve().parent)
    places = _Places(path, tree, [_override(raw, override) for override in overrides])
    try:
        config = Config.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(_explain(error, places, raw)) from error
    _note_places(config, places)
    return config


@dataclass(frozen=True)
class _Places:
    """Where a key of the config was written: a line of the file, or a `--set`."""

    path: Path
    tree: yaml.Node | None
    overridden: Sequence[tuple[str, ...]]

    def of(self, where: Sequence[Any]) -> str:
        words = tuple(map(str, where))
        setting = (o for o in self.overridden if all(a == b for a, b in zip(o, words, strict=False)))
        override = next(setting, None)
        return f"--set {'.'.join(override)}" if override else f"{self.path}:{_line(self.tree, where)}"


def _note_places(config: Config, places: _Places) -> None:
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


def _one_line(error: Exception) -> str:
    return " ".join(str(error).replace('"<unicode string>", ', "").split())


class _Loader(yaml.SafeLoader):
    """YAML in which 5e-7 is a number, as it is everywhere else."""


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), None)


ENTRIES: dict[tuple[str, ...], Kind] = {
    ("matrix", "judge"): "judges",
    ("graders",): "judges",
    ("leaderboards",): "leaderboards",
}
"""Where a config lists things whose classes say which of their options are paths."""


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
    if where in NAMES or not isinstance(value, str) or not value or value in WORLDS:
        return value
    target = os.path.normpath(folder / Path(value).expanduser())
    marked = value.startswith(("./", "../", "~")) or value.endswith((".jsonl", ".yaml", ".yml", ".csv", ".json"))
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
    if kind is not None and isinstance(name, str):
        with contextlib.suppress(ValueError):
            return tuple(load(kind, name).paths)
    return ()


def _override(raw: dict[str, Any], override: str) -> tuple[str, ...]:
    """Apply `a.b=YAML` in place; the path it set."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {override!r} is not KEY=VALUE, for example --set matrix.seed=[7]")
    try:
        value = _absolute(yaml.load(text, _Loader), Path.cwd(), tuple(key.split(".")))
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override!r}: the value is not YAML: {_one_line(error)}") from error
    path = tuple(key.split("."))
    node: Any = raw
    for part in path[:-1]:
        if node.get(part) is None:
            node[part] = {}
        node = node[part]
        if not isinstance(node, dict):
            raise ConfigError(f"--set {override!r}: {part!r} is not a group of keys")
    node[path[-1]] = value
    return path


def _explain(error: ValidationError, places: _Places, raw: Mapping[str, Any]) -> str:
    """One line: place, key, fact, nearest word. Unknown keys come first, since one may be another that is missing; of
    missing keys all are told.
    """
    unknown = [each for each in error.errors() if each["type"] == "extra_forbidden"]
    missing = [_parts(each["loc"]) for each in error.errors() if each["type"] == "missing"]
    if missing and not unknown:
        return _tell_missing(missing, places)
    first = (unknown or error.errors())[0]
    loc = _parts(first["loc"])
    where = tuple(part for part in loc if part in _keys(raw) or isinstance(part, int)) or loc
    dotted, place = ".".join(map(str, where)), places.of(where)
    if first["type"] == "extra_forbidden":
        return f"{place}: unknown key {dotted!r}{nearest(str(where[-1]), _fields_at(first['loc'][:-1]))}"
    given = first["input"]
    message = WORDING.get(first["type"], first["msg"].removeprefix("Value error, "))
    value = "" if isinstance(given, dict | list) or repr(given) in message else f" (it is {given!r})"
    return f"{place if place.endswith(dotted) else f'{place}: {dotted}'}: {message}{value}"


def _parts(loc: Sequence[Any]) -> tuple[Any, ...]:
    """A place of pydantic's as the config has it."""
    return tuple(part for part in loc if part not in GROUPS)


def _tell_missing(missing: Sequence[tuple[Any, ...]], places: _Places) -> str:
    found: dict[str, list[str]] = {}
    for where in missing:
        found.setdefault(places.of(where), []).append(repr(".".join(map(str, where))))
    facts = {p: f"keys {', '.join(k)} are" if len(k) > 1 else f"key {k[0]} is" for p, k in found.items()}
    return "; ".join(f"{place}: the {fact} missing" for place, fact in facts.items())


def _keys(value: Any) -> set[Any]:
    """Every mapping key anywhere in the value."""
    if isinstance(value, Mapping):
        return set(value) | {k for v in value.values() for k in _keys(v)}
    return {k for v in value for k in _keys(v)} if isinstance(value, list) else set()


def _fields_at(where: Sequence[Any]) -> list[str]:
    """The keys that are valid at a place of the config."""
    model: Any = Config
    for part in where:
        field = getattr(model, "model_fields", {}).get(part)
        model = field.annotation if field else GROUPS.get(part, model)
    return list(getattr(model, "model_fields", {}))


def _line(tree: yaml.Node | None, where: Sequence[Any]) -> int:
    """The line of the deepest part of the path that is in the file."""
    node = tree
    line = 1
    for part in where:
        if isinstance(node, yaml.MappingNode):
            found = [(k, v) for k, v in node.value if k.value == str(part)]
            if not found:
                break
            line, node = found[0][0].start_mark.line + 1, found[0][1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            break
    return line
