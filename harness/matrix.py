"""From a config to the cells of its matrix: policy x trainer x judge x seed."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.config import Config, ConfigError, Entry, Game
from harness.registry import nearest

CONTROL = "sft"
AXES = ("policy", "trainer", "judge", "seed")


@dataclass(frozen=True)
class Variant:
    """A trainer or judge with one choice of options; `label` tells it from its siblings."""

    name: str
    options: Mapping[str, Any]

    @property
    def label(self) -> str:
        given = ",".join(f"{k}={v}" for k, v in self.options.items() if not _is_path(v))
        return f"{self.name}({given})" if given else self.name


@dataclass(frozen=True)
class Cell:
    """One run of the matrix. A control has the trainer `sft`, no judge and no seed."""

    policy: str | Game
    trainer: Variant
    judge: Variant | None
    seed: int | None

    @property
    def policy_label(self) -> str:
        name = self.policy.game if isinstance(self.policy, Game) else self.policy
        return name.rstrip("/").rpartition("/")[2]

    @property
    def judge_label(self) -> str:
        return self.judge.label if self.judge else ""

    @property
    def id(self) -> str:
        """The cell's name, unique in its sweep and usable as a file name."""
        parts = [self.policy_label, self.trainer.label, self.judge_label, "" if self.seed is None else f"s{self.seed}"]
        return "~".join(re.sub(r"[^\w.=,()+-]", "_", part) for part in parts if part)


def variants(entry: Entry) -> list[Variant]:
    """An entry whose options hold lists, multiplied out."""
    lists = {k: v if isinstance(v, list) else [v] for k, v in entry.options.items()}
    empty = [k for k, v in lists.items() if not v]
    if empty:
        raise ConfigError(f"{entry.name}: the list of {empty[0]!r} is empty")
    return [Variant(entry.name, dict(zip(lists, values, strict=True))) for values in itertools.product(*lists.values())]


def expand(config: Config) -> list[Cell]:
    """Every cell in a stable order: for each policy its control `sft`, then trainer x judge x seed.

    Raises:
        ConfigError: two cells are the same, a pattern of `exclude` matches nothing, or nothing is left.
    """
    trainers = [v for entry in config.matrix.trainer for v in variants(entry) if v.name != CONTROL]
    judges = [v for entry in config.matrix.judge for v in variants(entry)]
    product = itertools.product(config.policy, trainers, judges, config.matrix.seed)
    cells = [Cell(policy, trainer, judge, seed) for policy, trainer, judge, seed in product]
    for pattern in config.exclude:
        matched = [cell for cell in cells if _matches(cell, pattern)]
        if not matched:
            raise ConfigError(f"exclude: {pattern} matches no cell; take it out")
        cells = [cell for cell in cells if cell not in matched]
    cells += [_included(config, pattern) for pattern in config.include]
    if not cells:
        raise ConfigError("the matrix has no cell; list a trainer other than 'sft', or exclude less")
    repeated = [name for name, count in Counter(cell.id for cell in cells).items() if count > 1]
    if repeated:
        raise ConfigError(
            f"the matrix has the cell {repeated[0]!r} twice; every cell must differ in a name or an option"
        )
    controls = [Cell(policy, Variant(CONTROL, {}), None, None) for policy in config.policy]
    return [*controls, *cells]


def _matches(cell: Cell, pattern: Mapping[str, Any]) -> bool:
    values: dict[str, set[Any]] = {
        "policy": {cell.policy_label},
        "trainer": {cell.trainer.name, cell.trainer.label},
        "judge": {cell.judge_label, cell.judge.name if cell.judge else ""},
        "seed": {cell.seed},
    }
    for axis in pattern:
        if axis not in AXES:
            raise ConfigError(f"exclude: unknown key {axis!r}{nearest(str(axis), AXES)}")
    return all(value in values[axis] for axis, value in pattern.items())


def _included(config: Config, pattern: Mapping[str, Any]) -> Cell:
    """The extra cell that an entry of `include` describes; what it leaves out is the config's first."""
    for axis in pattern:
        if axis not in AXES:
            raise ConfigError(f"include: unknown key {axis!r}{nearest(str(axis), AXES)}")
    first = {"trainer": config.matrix.trainer[0], "judge": config.matrix.judge[0]}
    chosen = {axis: variants(Entry.model_validate(pattern.get(axis, first[axis]))) for axis in first}
    policies = {str(getattr(p, "game", p)).rpartition("/")[2]: p for p in config.policy}
    policy = policies.get(str(pattern.get("policy")), config.policy[0])
    return Cell(policy, chosen["trainer"][0], chosen["judge"][0], int(pattern.get("seed", config.matrix.seed[0])))


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and "/" in value
