"""The sweep's config: YAML to a checked, frozen model. Every error names the place in the file and the nearest word."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import ConfigDict, Field, ValidationError, field_validator, model_validator

from harness.registry import nearest
from trainers.options import Options, Positive, Sampling, Training

WORLDS = ("pocket",)
NOT_BUILT = {
    ("training", "lora"): "LoRA is not built yet; train the full weights",
    ("policy", "endpoint"): "policies behind an endpoint are not built yet; give a local path or a hub id",
}


class ConfigError(ValueError):
    """The config is wrong: one message that says where, what and what to do."""


class Entry(Options):
    """A trainer, judge or leaderboard by name, with its options."""

    model_config = ConfigDict(frozen=True, extra="allow")
    name: str

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class Game(Options):
    """An exact game as the policy: a named game or a CSV matrix."""

    game: str


class PairOptions(Options):
    """How responses become labelled pairs; None is each algorithm's own way."""

    protocol: Literal["tournament", "iid"] | None = None
    label: Literal["argmax", "sampled", "soft"] | None = None
    orders: Literal["one", "both"] | None = None


class Matrix(Options):
    """What is multiplied: trainers, judges, seeds."""

    trainer: Annotated[tuple[Entry, ...], Field(min_length=1)]
    judge: Annotated[tuple[Entry, ...], Field(min_length=1)]
    seed: Annotated[tuple[int, ...], Field(min_length=1)] = (0,)


class Config(Options):
    """A sweep. See `nashbench sweep --help` and README for what each key means."""

    name: str
    policy: tuple[str | Game, ...]
    prompts: str | None = None
    matrix: Matrix
    iterations: Positive = 3
    prompts_per_iteration: Positive = 256
    sampling: Sampling = Sampling()
    pairs: PairOptions = PairOptions()
    training: Training = Training()
    graders: tuple[Entry, ...] | None = None
    leaderboards: Annotated[tuple[Entry, ...], Field(min_length=1)]
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
    def _not_empty(cls, policy: tuple[str | Game, ...]) -> tuple[str | Game, ...]:
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
    except OSError as error:
        raise ConfigError(f"cannot read the config {path}: {error.strerror}") from error
    try:
        raw, tree = yaml.load(text, _Loader), yaml.compose(text, _Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} must be a mapping of keys; it holds {type(raw).__name__}")
    raw = _absolute(raw, path.resolve().parent)
    overridden = [_override(raw, override) for override in overrides]
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(_explain(error, path, tree, raw, overridden)) from error


class _Loader(yaml.SafeLoader):
    """YAML in which 5e-7 is a number, as it is everywhere else."""


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), None)


def _absolute(value: Any, folder: Path, *, top: bool = True) -> Any:
    """Texts that name a file or folder below `folder`, or look like a relative path, made absolute."""
    if isinstance(value, Mapping):
        return {k: v if top and k == "name" else _absolute(v, folder, top=False) for k, v in value.items()}
    if isinstance(value, list):
        return [_absolute(v, folder, top=False) for v in value]
    if not isinstance(value, str) or not value or value in WORLDS:
        return value
    looks_like_path = value.startswith(("./", "../", "~")) or ("/" in value and (folder / value).exists())
    has_suffix = value.endswith((".jsonl", ".yaml", ".yml", ".csv", ".json"))
    return str((folder / Path(value).expanduser()).resolve()) if looks_like_path or has_suffix else value


def _override(raw: dict[str, Any], override: str) -> tuple[str, ...]:
    """Apply `a.b=YAML` in place; the path it set."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {override!r} is not KEY=VALUE, for example --set matrix.seed=[7]")
    try:
        value = _absolute(yaml.load(text, _Loader), Path.cwd(), top=False)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override!r}: the value is not YAML: {error}") from error
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


def _explain(
    error: ValidationError,
    path: Path,
    tree: yaml.Node | None,
    raw: Mapping[str, Any],
    overridden: Sequence[tuple[str, ...]],
) -> str:
    """One line: place, key, fact, nearest word."""
    first = error.errors()[0]
    where = tuple(
        part for part in first["loc"] if part in _keys(raw) or isinstance(part, int) or first["type"] == "missing"
    )
    where = where or tuple(first["loc"])
    dotted = ".".join(map(str, where))
    for known, reason in NOT_BUILT.items():
        if known[0] == where[0] and known[-1] in map(str, (*where, *_keys(first.get("input")))):
            return f"{path}:{_line(tree, where)}: {'.'.join(known)}: {reason}"
    place = next((f"--set {'.'.join(o)}" for o in overridden if o == tuple(map(str, where))[: len(o)]), None)
    place = place or f"{path}:{_line(tree, where)}"
    if first["type"] == "extra_forbidden":
        return f"{place}: unknown key {dotted!r}{nearest(str(where[-1]), _fields_at(where[:-1]))}"
    if first["type"] == "missing":
        return f"{place}: the key {dotted!r} is missing"
    message = first["msg"].removeprefix("Value error, ")
    given = first["input"]
    value = "" if isinstance(given, dict | list) or str(given) in message else f" (it is {given!r})"
    return f"{place}: {dotted}: {message}{value}"


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
        model = field.annotation if field else model
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
