"""From a config to the cells of its matrix: policy x trainer x judge x seed."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from pydantic import ValidationError

from harness.config.schema import Config, ConfigError, Entry, Game
from harness.registry import nearest
from trainers.options import Endpoint

CONTROL = "sft"
REPLIES = ("constant", "longest")
"""Controls that no policy stands behind: one fixed answer to everything, and the longest of k of the untrained policy.
They show what a pairwise leaderboard pays for nothing.
"""
ONE_LIST = "and a value that is itself a list is written as a list in a list, [[A, B]]"
"""The end of an error about a list that became several variants."""
AXES = ("policy", "trainer", "judge", "seed")


@dataclass(frozen=True)
class Variant:
    """A trainer, judge or leaderboard with one choice of options; `label` tells it from its siblings.

    `taken` names the options whose value is one of a list's. The label leaves out an option that names a file or folder
    like the variant itself (`panel: panel.yaml`), and of any other it has the file's name without folder and suffix.
    """

    name: str
    options: Mapping[str, Any]
    place: str = field(default="", compare=False)
    taken: tuple[str, ...] = field(default=(), compare=False)

    @property
    def label(self) -> str:
        short = {k: _short(v) for k, v in self.options.items()}
        given = ",".join(f"{k}={v}" for k, v in short.items() if v != self.name)
        return f"{self.name}({given})" if given else self.name


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
        """The policy's or game's name, without its folders."""
        name = self.policy.game if isinstance(self.policy, Game) else str(self.policy)
        return name.rstrip("/").rpartition("/")[2]

    @property
    def judge_label(self) -> str:
        """The judge's label; empty for a control."""
        return self.judge.label if self.judge else ""

    @property
    def id(self) -> str:
        """The cell's name, unique in its sweep and usable as a file name."""
        parts = [self.policy_label, self.trainer.label, self.judge_label, "" if self.seed is None else f"s{self.seed}"]
        return "~".join(re.sub(r"[^\w.=,()+-]", "_", part) for part in parts if part)


def variants(entry: Entry) -> list[Variant]:
    """An entry whose options hold lists, multiplied out; a list in a list is one value."""
    lists = {k: v if isinstance(v, list) else [v] for k, v in entry.options.items()}
    empty = [k for k, v in lists.items() if not v]
    if empty:
        raise ConfigError(f"{entry.place}: {entry.name}: the list of {empty[0]!r} is empty")
    chosen = [dict(zip(lists, values, strict=True)) for values in itertools.product(*lists.values())]
    taken = tuple(k for k, v in entry.options.items() if isinstance(v, list) and not isinstance(v[0], list))
    return [Variant(entry.name, options, entry.place, taken) for options in chosen]


def expand(config: Config) -> list[Cell]:
    """Every cell in a stable order: for each policy its control `sft`, then trainer x judge x seed.

    Raises:
        ConfigError: two cells are the same, a pattern of `exclude` matches nothing, nothing is left of the trainers, or
            one is to train a policy behind an endpoint.
    """
    trainers = [v for entry in config.matrix.trainer for v in variants(entry) if v.name not in (CONTROL, *REPLIES)]
    judges = [v for entry in config.matrix.judge for v in variants(entry)]
    product = itertools.product(config.policy, trainers, judges, config.matrix.seed)
    cells = [Cell(policy, trainer, judge, seed) for policy, trainer, judge, seed in product]
    for pattern in config.exclude:
        matched = [cell for cell in cells if _matches(cell, pattern)]
        if not matched:
            raise ConfigError(f"exclude: {pattern} matches no cell; take it out")
        cells = [cell for cell in cells if cell not in matched]
    included = [_included(config, pattern) for pattern in config.include]
    if trainers and not cells and not included:
        raise ConfigError("the matrix has no cell; exclude less")
    _refuse_endpoints(cells, included)
    cells = [*(Cell(policy, Variant(CONTROL, {}), None, None) for policy in config.policy), *cells, *included]
    repeated = [name for name, count in Counter(cell.id for cell in cells).items() if count > 1]
    if repeated:
        raise ConfigError(
            f"the matrix has the cell {repeated[0]!r} twice; every cell must differ in a name or an option"
        )
    return cells


def _refuse_endpoints(cells: Sequence[Cell], included: Sequence[Cell]) -> None:
    for cell in (*cells, *included):
        if isinstance(cell.policy, Endpoint):
            label, place, fix = cell.policy_label, "include", "take the entry out or name another policy in it"
            if cell in cells:
                place, exclude = "matrix.trainer", f"exclude: [{{policy: {label!r}}}]"
                fix = f"leave matrix.trainer out or, where other policies are trained, write {exclude}"
            raise ConfigError(
                f"{place}: {cell.trainer.name!r} cannot train the policy {label!r}, which is behind an endpoint: it is "
                f"evaluated, never trained; {fix}"
            )


def replies(policy: str | Endpoint) -> list[Cell]:
    """The cells of the controls that pairwise leaderboards of a language model have besides `sft`."""
    return [Cell(policy, Variant(name, {}), None, None) for name in REPLIES]


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
        if not isinstance(pattern[axis], str | int):
            raise ConfigError(
                f"exclude: {axis} is {pattern[axis]!r}; give one name as the report shows it, or one seed"
            )
    return all(value in values[axis] for axis, value in pattern.items())


def _included(config: Config, pattern: Mapping[str, Any]) -> Cell:
    """The extra cell that an entry of `include` describes; what it leaves out is the config's first."""
    for axis in pattern:
        if axis not in AXES:
            raise ConfigError(f"include: unknown key {axis!r}{nearest(str(axis), AXES)}")
    policies = {Cell(policy, Variant(CONTROL, {}), None, None).policy_label: policy for policy in config.policy}
    policy = pattern.get("policy", next(iter(policies)))
    if not isinstance(policy, str) or policy not in policies:
        raise ConfigError(f"include: {policy!r} is none of the policies{nearest(str(policy), policies)}")
    seed = pattern.get("seed", config.matrix.seed[0])
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise ConfigError(f"include: the seed is {seed!r}; it must be a whole number from 0")
    trainer, judge = (
        _one_variant(axis, pattern.get(axis, next(iter(getattr(config.matrix, axis)), CONTROL)))
        for axis in ("trainer", "judge")
    )
    if trainer.name == CONTROL:
        raise ConfigError(f"include: name a trainer other than {CONTROL!r}; the control is always there")
    return Cell(policies[policy], trainer, judge, seed)


def _one_variant(axis: str, value: Any) -> Variant:
    try:
        entry = value if isinstance(value, Entry) else Entry.model_validate(value)
    except ValidationError as error:
        raise ConfigError(f"include: {axis}: {error.errors()[0]['msg']} (it is {value!r})") from error
    found = variants(entry)
    if len(found) > 1:
        raise ConfigError(f"include: {axis} {found[0].name!r} has a list of options; an entry is one cell, {ONE_LIST}")
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
