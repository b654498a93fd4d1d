"""What a sweep's config holds: frozen models, each key checked."""

from __future__ import annotations

import dataclasses
import datetime
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, PrivateAttr, Tag, field_validator, model_validator

from judges.reading import LARGEST_INTEGER, shortened
from trainers.algorithm import Pairing
from trainers.options import Endpoint, Label, Options, Positive, Sampling, Training

LONGEST_NAME = 200  # bytes; file systems hold 255


class ConfigError(ValueError):
    """The config is wrong: one message that says where, what and what to do."""


class Entry(Options):
    """A trainer, judge or leaderboard by name, with its options; `place` says where the config has it.

    `label` is what cells and tables call it, in place of its name and options.
    """

    model_config = ConfigDict(frozen=True, extra="allow")
    name: str
    label: Label | None = None
    _place: str = PrivateAttr("include")

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @property
    def options(self) -> dict[str, Any]:
        """All keys but `name` and `label`; a list is several values."""
        return dict(self.model_extra or {})

    @property
    def own(self) -> dict[str, Any]:
        """Training options of its own, which only trainers have."""
        return {}

    @property
    def tuned(self) -> dict[str, Any]:
        """What trials choose among, which only trainers have."""
        return {}

    @property
    def place(self) -> str:
        """File and line, for messages."""
        return self._place


class TrainerEntry(Entry):
    """A trainer by name, with the algorithm's options and its own training options over the config's.

    Attributes:
        training, pairs: as the config's groups of these names; lists inside are several values.
        phases: for each phase, by the slot that it writes, what of `training` it has of its own.
        tune: lists of options among which trials choose; those of `training` in a group of that name.
    """

    training: dict[str, Any] = Field(default_factory=dict)
    pairs: dict[str, Any] = Field(default_factory=dict)
    phases: dict[str, dict[str, Any]] = Field(default_factory=dict)
    tune: dict[str, Any] = Field(default_factory=dict)

    @property
    def own(self) -> dict[str, Any]:
        """The training options by dotted key, such as `phases.auxiliary.epochs`; a list is several values."""
        groups = {"training": self.training, "pairs": self.pairs, "phases": self.phases}
        return {".".join(path): value for path, value in _leaves(groups)}

    @property
    def tuned(self) -> dict[str, Any]:
        """What trials choose among, by dotted key, such as `training.lr`."""
        return {".".join(path): value for path, value in _leaves(self.tune)}


def _leaves(group: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, value in group.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, (*path, str(name)))
        else:
            yield (*path, str(name)), value


Entries = Annotated[tuple[Entry, ...], Field(min_length=1)]


class Game(Options):
    """An exact game as the policy: a named game or a CSV matrix; `label` is what cells and tables call it."""

    game: str
    label: Label | None = None


def _kind_of_policy(policy: Any) -> str:
    served = Endpoint.model_fields.keys() - Game.model_fields.keys()
    if isinstance(policy, Endpoint) or (isinstance(policy, dict) and policy.keys() & served):
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


Seed = Annotated[int, Field(ge=0, lt=LARGEST_INTEGER, strict=True)]


class Matrix(Options):
    """What is multiplied: trainers (none where policies are evaluated as they are), judges, seeds."""

    trainer: tuple[TrainerEntry, ...] = ()
    judge: Entries
    seed: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0,)


class Tune(Options):
    """How each trainer's options are chosen: by head-to-head against the untrained policy on a split of its own.

    Attributes:
        trials: of each trainer under each judge, drawn without replacement from the product of its lists.
        prompts: how many are cut from the training prompts; nothing else is trained or scored on them.
        grader: the judge by which trials are ranked.
        seed: of the draw and of the trials' training; none of the matrix's.
    """

    trials: Annotated[int, Field(ge=2, strict=True)]
    prompts: Positive = 64
    grader: Entry
    seed: Seed = 1000


class Config(Options):
    """A sweep. See `nashbench sweep --help` and README for what each key means."""

    name: str
    policy: tuple[Policy, ...]
    prompts: str | None = None
    template_date: str | None = None
    matrix: Matrix
    iterations: Positive = 3
    prompts_per_iteration: Positive = 256
    sampling: Sampling = Sampling()
    pairs: PairOptions = PairOptions()
    training: Training = Training()
    tune: Tune | None = None
    graders: Entries | None = None
    leaderboards: Entries
    _path: str = PrivateAttr("")
    exclude: tuple[dict[str, Any], ...] = ()
    include: tuple[dict[str, Any], ...] = ()
    compare: Literal["all"] | tuple[tuple[str, str], ...] = ()

    @property
    def path(self) -> str:
        """The file it was read from; empty where it was made otherwise."""
        return self._path

    @field_validator("name")
    @classmethod
    def _is_folder_name(cls, name: str) -> str:
        if not re.fullmatch(r"[\w][\w .+=-]*", name):
            raise ValueError(f"{shortened(name)} cannot name a folder; use letters, digits, '.', '_' and '-'")
        if len(name.encode()) > LONGEST_NAME:
            raise ValueError(f"a name of {len(name)} characters cannot name a folder; use at most {LONGEST_NAME}")
        return name

    @field_validator("template_date", mode="before")
    @classmethod
    def _is_date(cls, date: Any) -> str | None:
        try:
            return None if date is None else datetime.date.fromisoformat(str(date)).isoformat()
        except ValueError as error:
            raise ValueError("must be a date such as 2026-11-27") from error

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
