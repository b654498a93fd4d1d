"""From a config to the cells of its matrix: policy x trainer x judge x seed."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePath
from typing import Any

from pydantic import ValidationError

from harness.config import Config, ConfigError, Entry, Game, TrainerEntry
from harness.registry import load
from judges.plugins import nearest
from judges.reading import clipped, shortened
from trainers.options import Endpoint

CONTROL = "sft"
RESPONSE_CONTROLS = ("constant", "longest")
"""Controls that no policy stands behind: one fixed answer to everything, and the longest of k of the untrained policy.
They show what a pairwise leaderboard pays for nothing.
"""
ONE_LIST = "and a value that is itself a list is written as a list in a list, [[A, B]]"
"""The end of an error about a list that became several variants."""
AXES = ("policy", "trainer", "judge", "seed")
LONGEST_ID = 80
LONGEST_PART = 18
"""Characters of an id, and of each label in one that would be longer."""
MOST_STAGES = 200_000
"""A plan of 45,000 stages takes a minute; one of millions is a slip of the pen."""


@dataclass(frozen=True)
class Variant:
    """A trainer, judge or leaderboard with one choice of options; `label` tells it from its siblings.

    `taken` names the options whose value is one of a list's. The label leaves out an option that names a file or folder
    like the variant itself (`panel: panel.yaml`), and of any other it has the file's name without folder and suffix.
    `own` are a trainer's own training options, in the groups `training`, `pairs` and `phases`; a label has them without
    the group. `called` is the label the config gives; where a list makes several variants of one entry, their labels
    have the list's option as well. `tune` are the lists among which trials choose, by dotted key.
    """

    name: str
    options: Mapping[str, Any]
    place: str = field(default="", compare=False)
    taken: tuple[str, ...] = field(default=(), compare=False)
    called: str = ""
    own: Mapping[str, Any] = field(default_factory=dict)
    tune: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        given_all = {**self.options, **{self._short_key(path): value for path, value in _flat(self.own).items()}}
        taken = {*self.taken, *(self._short_key(path) for path in self.taken)}
        told = {k: v for k, v in given_all.items() if not self.called or k in taken}
        short = {k: _short(v) for k, v in told.items()}
        tuned = ["tuned"] if self.tune and not self.called else []
        given = ",".join([*(f"{k}={v}" for k, v in short.items() if v != self.name), *tuned])
        name = self.called or self.name
        return f"{name}({given})" if given else name

    def _short_key(self, path: str) -> str:
        """A dotted key of `own` without its group, where no option of the algorithm has that name."""
        short = path.partition(".")[2]
        return path if short in self.options else short


@dataclass(frozen=True)
class Cell:
    """One run of the matrix. A control has the trainer `sft`, `constant` or `longest`, no judge and no seed."""

    policy: str | Game | Endpoint
    trainer: Variant
    judge: Variant | None
    seed: int | None

    @property
    def is_control(self) -> bool:
        """Whether it is a policy that no judge trained."""
        return self.judge is None

    @property
    def policy_label(self) -> str:
        """The policy's own label, or its or the game's name without its folders."""
        if not isinstance(self.policy, str) and self.policy.label:
            return self.policy.label
        name = self.policy.game if isinstance(self.policy, Game) else str(self.policy)
        return name.rstrip("/").rpartition("/")[2]

    @property
    def judge_label(self) -> str:
        """The judge's label; empty for a control."""
        return self.judge.label if self.judge else ""

    @property
    def label(self) -> str:
        """The cell as people call it, in full."""
        return " · ".join((*self._labels, *(() if self.seed is None else (f"seed {self.seed}",))))

    @cached_property
    def id(self) -> str:
        """The cell's name, unique in its sweep and usable as a file's name; nobody takes it apart."""
        return _id((*self._labels, *(() if self.seed is None else (f"s{self.seed}",))))

    @property
    def algorithm(self) -> str:
        """The id of what all seeds of a cell have in common, which a claim about an algorithm is about."""
        return _id(self._labels)

    @property
    def _labels(self) -> tuple[str, ...]:
        return tuple(filter(None, (self.policy_label, self.trainer.label, self.judge_label)))


def _id(labels: Sequence[str]) -> str:
    """The labels as one name of ASCII letters, digits and signs that every file system has, at most 120 bytes.

    Where they do not fit, or hold other characters, it is shorter and ends in a hash of the labels.
    """
    whole = "~".join(labels)
    parts = [re.sub(r"[^A-Za-z0-9_.=,()+-]", "_", label) for label in labels]
    if "~".join(parts) == whole and len(whole) <= LONGEST_ID:
        return whole
    if len(whole) > LONGEST_ID:
        parts = [part if len(part) <= LONGEST_PART else f"{part[: LONGEST_PART - 1]}-" for part in parts]
    digest = hashlib.sha256(json.dumps(labels).encode()).hexdigest()[:8]
    return "~".join([*parts, digest])


def variants(entry: Entry) -> list[Variant]:
    """An entry whose options hold lists, multiplied out; a list in a list is one value."""
    values = _values(entry)
    lists = {k: v if isinstance(v, list) else [v] for k, v in values.items()}
    empty = [k for k, v in lists.items() if not v]
    if empty:
        raise ConfigError(f"{entry.place}: {clipped(entry.name, 60)}: the list of {shortened(empty[0])} is empty")
    if _count([entry]) > MOST_STAGES:
        raise ConfigError(
            f"{entry.place}: the lists of {shortened(entry.name)} multiply to {_count([entry]):,} variants; a plan has "
            f"at most {MOST_STAGES:,} stages"
        )
    chosen = [dict(zip(lists, values, strict=True)) for values in itertools.product(*lists.values())]
    taken = tuple(k for k, v in values.items() if isinstance(v, list) and not isinstance(v[0], list))
    return [
        Variant(
            entry.name,
            {k: v for k, v in one.items() if k in entry.options},
            entry.place,
            taken,
            entry.label or "",
            nested({k: v for k, v in one.items() if k in entry.own}),
            entry.tuned,
        )
        for one in chosen
    ]


def _values(entry: Entry) -> dict[str, Any]:
    """All that an entry gives, its own training options by dotted key; a list is several values."""
    return {**entry.options, **entry.own}


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys as groups within groups."""
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        *groups, name = path.split(".")
        node = tree
        for group in groups:
            node = node.setdefault(group, {})
        node[name] = value
    return tree


def _flat(tree: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Groups within groups as dotted keys."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= _flat(value, f"{before}{name}.") if isinstance(value, Mapping) else {f"{before}{name}": value}
    return flat


def expand(config: Config) -> list[Cell]:
    """Every cell in a stable order: for each policy its control `sft`, then trainer x judge x seed.

    Raises:
        ConfigError: two cells are the same, two different entries have one label, a pattern of `exclude` matches
            nothing, nothing is left of the trainers, there would be too many stages, or one is to train a policy behind
            an endpoint.
    """
    _refuse_size(config)
    trainers = [v for v in _all(config.matrix.trainer) if v.name not in (CONTROL, *RESPONSE_CONTROLS)]
    judges = _all(config.matrix.judge)
    _refuse_shared_labels(config, trainers, judges)
    product = itertools.product(config.policy, trainers, judges, config.matrix.seed)
    cells = [Cell(policy, trainer, judge, seed) for policy, trainer, judge, seed in product]
    for pattern in config.exclude:
        matched = {cell.id for cell in cells if _matches(cell, pattern)}
        if not matched:
            raise ConfigError(f"exclude: {shortened(pattern)} matches no cell; take it out")
        cells = [cell for cell in cells if cell.id not in matched]
    included = [_included(config, pattern) for pattern in config.include]
    if trainers and not cells and not included:
        raise ConfigError("the matrix has no cell; exclude less")
    _refuse_endpoints(cells, included)
    cells = [*(Cell(policy, Variant(CONTROL, {}), None, None) for policy in config.policy), *cells, *included]
    _refuse_repeated(cells)
    return cells


def _all(entries: Iterable[Entry]) -> list[Variant]:
    return [variant for entry in entries for variant in variants(entry)]


def _refuse_shared_labels(config: Config, trainers: Sequence[Variant], judges: Sequence[Variant]) -> None:
    """A label that the config gives stands for one thing; a judge and a grader that are the same may share one."""
    for kind in (trainers, [*judges, *_all(config.graders or ())], _all(config.leaderboards)):
        known: dict[str, Variant] = {}
        for variant in kind:
            first = known.setdefault(variant.label, variant)
            if (variant.called or first.called) and (first.name, first.options, first.own) != (
                variant.name,
                variant.options,
                variant.own,
            ):
                raise ConfigError(
                    f"{variant.place}: the label {shortened(variant.label)} is that of {shortened(first.name)} at "
                    f"{first.place} too, with other options; give one of the two another label"
                )


def _refuse_size(config: Config) -> None:
    """Raise ConfigError where cells, or the training and curves of text policies alone, are more stages than a plan
    may have; before anything is multiplied out.
    """
    trained = _count(e for e in config.matrix.trainer if e.name not in (CONTROL, *RESPONSE_CONTROLS))
    each = trained * _count(config.matrix.judge) * len(config.matrix.seed)
    cells, texts = each * len(config.policy), each * sum(isinstance(policy, str) for policy in config.policy)
    curves, graders = sum(map(_has_curve, config.leaderboards)), _count(config.graders or config.matrix.judge)
    trials = 0 if config.tune is None else texts // len(config.matrix.seed) * config.tune.trials
    stages = max(cells, graders, config.iterations * (texts * (1 + curves * (1 + graders)) + trials))
    if stages > MOST_STAGES:
        raise ConfigError(
            f"the plan has at least {stages:,} stages ({cells:,} cells, {config.iterations:,} iterations, {curves} "
            f"leaderboards with a curve, {graders:,} graders) and may have {MOST_STAGES:,}; lower iterations, take "
            "cells out, or give leaderboards curve_limit: 0"
        )


def _count(entries: Iterable[Entry]) -> int:
    """How many variants the entries are."""
    return sum(math.prod(map(_length, _values(entry).values())) for entry in entries)


def _has_curve(entry: Entry) -> bool:
    """Whether a leaderboard is asked after every iteration; a name that is wrong is told later with its place."""
    with contextlib.suppress(ValueError):
        return entry.options.get("curve_limit") != 0 and hasattr(load("leaderboards", entry.name), "curve_limit")
    return False


def _length(value: Any) -> int:
    return len(value) if isinstance(value, list) else 1


def _refuse_repeated(cells: Sequence[Cell]) -> None:
    """Raise ConfigError where two cells have one id, or ids that differ in capitals, which some file systems ignore."""
    known: dict[str, str] = {}
    for cell in cells:
        first = known.setdefault(cell.id.lower(), "")
        if first == cell.id:
            raise ConfigError(
                f"the matrix has the cell {first!r} twice; every cell must differ in a name, an option or a label"
            )
        if first:
            raise ConfigError(f"the cells {first!r} and {cell.id!r} differ in capitals alone; give one of them a label")
        known[cell.id.lower()] = cell.id


def _refuse_endpoints(cells: Sequence[Cell], included: Sequence[Cell]) -> None:
    for cell in (*cells, *included):
        if isinstance(cell.policy, Endpoint):
            label, place = shortened(cell.policy_label), "include"
            fix = "take the entry out or name another policy in it"
            if cell in cells:
                place, exclude = "matrix.trainer", f"exclude: [{{policy: {label}}}]"
                fix = f"leave matrix.trainer out or, where other policies are trained, write {exclude}"
            raise ConfigError(
                f"{place}: {shortened(cell.trainer.name)} cannot train the policy {label}, which is behind an "
                f"endpoint: it is evaluated, never trained; {fix}"
            )


def response_controls(policy: str | Endpoint) -> list[Cell]:
    """The cells of the controls that pairwise leaderboards of a language model have besides `sft`."""
    return [Cell(policy, Variant(name, {}), None, None) for name in RESPONSE_CONTROLS]


def _matches(cell: Cell, pattern: Mapping[str, Any]) -> bool:
    values: dict[str, set[Any]] = {
        "policy": {cell.policy_label},
        "trainer": {cell.trainer.name, cell.trainer.label},
        "judge": {cell.judge_label, cell.judge.name if cell.judge else ""},
        "seed": {cell.seed},
    }
    for axis in pattern:
        if axis not in AXES:
            raise ConfigError(f"exclude: unknown key {shortened(axis)}{nearest(str(axis), AXES)}")
        if not isinstance(pattern[axis], str | int):
            raise ConfigError(
                f"exclude: {axis} is {shortened(pattern[axis])}; give one name as the report shows it, or one seed"
            )
    return all(value in values[axis] for axis, value in pattern.items())


def _included(config: Config, pattern: Mapping[str, Any]) -> Cell:
    """The extra cell that an entry of `include` describes; what it leaves out is the config's first."""
    for axis in pattern:
        if axis not in AXES:
            raise ConfigError(f"include: unknown key {shortened(axis)}{nearest(str(axis), AXES)}")
    policies = {Cell(policy, Variant(CONTROL, {}), None, None).policy_label: policy for policy in config.policy}
    policy = pattern.get("policy", next(iter(policies)))
    if not isinstance(policy, str) or policy not in policies:
        raise ConfigError(f"include: {shortened(policy)} is none of the policies{nearest(str(policy), policies)}")
    seed = pattern.get("seed", config.matrix.seed[0])
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise ConfigError(f"include: the seed is {shortened(seed)}; it must be a whole number from 0")
    trainer, judge = (
        _one_variant(axis, pattern.get(axis, next(iter(getattr(config.matrix, axis)), CONTROL)))
        for axis in ("trainer", "judge")
    )
    if trainer.name == CONTROL:
        raise ConfigError(f"include: name a trainer other than {CONTROL!r}; the control is always there")
    return Cell(policies[policy], trainer, judge, seed)


def _one_variant(axis: str, value: Any) -> Variant:
    try:
        kind = TrainerEntry if axis == "trainer" else Entry
        entry = value if isinstance(value, Entry) else kind.model_validate(value)
    except ValidationError as error:
        raise ConfigError(f"include: {axis}: {clipped(error.errors()[0]['msg'])} (it is {shortened(value)})") from error
    found = variants(entry)
    if len(found) > 1:
        raise ConfigError(
            f"include: {axis} {shortened(found[0].name)} has a list of options; an entry is one cell, {ONE_LIST}"
        )
    return found[0]


def _short(value: Any) -> Any:
    """An option as a label has it; a judge among judges by its own label."""
    if isinstance(value, list):
        return "+".join(str(_short(each)) for each in value)
    if isinstance(value, Mapping) and isinstance(value.get("name"), str):
        return Variant(value["name"], {k: v for k, v in value.items() if k != "name"}).label
    return _file_name(value) if isinstance(value, str) else value


def _file_name(text: str) -> str:
    """A path or hub id without its folders and without the suffix of a data file; other text as it is."""
    path = PurePath(text)
    return path.stem if path.suffix in (".yaml", ".yml", ".json", ".jsonl", ".csv") else path.name
