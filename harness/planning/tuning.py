"""Trials of each trainer's options, as many for each, and the stage that chooses among them.

What may be tuned is what a fit or a stream reads when it runs; what decides which stages there are, or what they sample
and compare, is refused.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from harness.components import board_spec
from harness.config import Config, ConfigError, Tune
from harness.matrix import Cell, Variant, nested, variants
from harness.planning.boards import checked_algorithm
from harness.planning.own_options import own_training, phase_trainings
from harness.specs import ComponentSpec
from harness.stages.choose import Choose
from harness.stages.rate import Rate
from judges.plugins import nearest
from judges.reading import shortened
from trainers.algorithm import Algorithm
from trainers.options import Endpoint

BOARD, METRIC = "head-to-head", "win_rate"
TUNABLE = ("lr", "optimizer", "schedule", "warmup", "max_grad_norm")
"""Training options that are read when a fit or a stream runs, and change neither its steps nor its batches."""
PLANNED = ("schedule", "player", "phases", "pairing", "temperature", "mixture")
"""What of an algorithm decides its stages, and what they sample and compare."""

MakeTrial = Callable[[Cell, Algorithm, int], Rate]


@dataclass
class Tuning:
    """The trials of one policy's trainers.

    Attributes:
        board: by which trials are ranked.
        grader: the judge by which they are.
    """

    config: Config
    tune: Tune
    board: ComponentSpec
    grader: Variant
    _choices: dict[tuple[str, str], Choose] = field(default_factory=dict)

    def choice(self, cell: Cell, algorithm: Algorithm, make: MakeTrial) -> Choose:
        """The stage that chooses a trainer's options under a judge, one for all seeds.

        Raises:
            ConfigError: the trainer's lists have fewer combinations than there are trials, or hold what is not read
                when a policy is trained.
        """
        place = (cell.trainer.label, cell.judge_label)
        if place not in self._choices:
            self._choices[place] = self._choose(cell, algorithm, make)
        return self._choices[place]

    def _choose(self, cell: Cell, algorithm: Algorithm, make: MakeTrial) -> Choose:
        given = cell.trainer
        _check(self.config, given, algorithm)
        trials, options = {}, []
        for number, values in enumerate(_drawn(given, self.tune), 1):
            trial = replace(cell, trainer=_with(given, values), seed=self.tune.seed)
            tried = checked_algorithm(trial, "text")
            _check_planned(given, algorithm, tried)
            options.append(self._options(trial.trainer, tried, values))
            trials[str(number)] = make(trial, tried, number)
        title = f"{given.label} under {cell.judge_label}: choose of {len(options)} trials"
        return Choose(trials=trials, options=tuple(options), metric=METRIC, title=title)

    def _options(self, trainer: Variant, algorithm: Algorithm, values: Mapping[str, Any]) -> dict[str, Any]:
        """A trial's options as checked: numbers that a config spells differently are one."""
        training = own_training(self.config, trainer, algorithm)
        groups = {path: path.partition(".")[2] for path in values}
        return {
            "algorithm": {path: getattr(algorithm, path) for path, name in groups.items() if not name},
            "training": {name: getattr(training, name) for name in groups.values() if name},
        }


def tuning(config: Config, policy: str | Endpoint, cells: Sequence[Cell]) -> Tuning | None:
    """The trials of a policy's trainers; None where the config has none.

    Raises:
        ConfigError: a trainer has lists and the config no trials, or the other way round; or the trials' seed is one of
            the cells'.
    """
    tune, trained = config.tune, [cell for cell in cells if not cell.is_control]
    for cell in trained:
        if bool(cell.trainer.tune) != (tune is not None):
            raise ConfigError(_unequal(cell.trainer, tune))
        if tune is not None and cell.seed == tune.seed:
            raise ConfigError(f"tune.seed is {tune.seed}, which a cell of the matrix has too; give the trials another")
    if tune is None or not trained:
        return None
    graders = variants(tune.grader)
    if len(graders) > 1:
        raise ConfigError(f"{tune.grader.place}: trials are ranked by one judge; this is a list of {len(graders)}")
    return Tuning(config, tune, board_spec(Variant(BOARD, {}), policy), graders[0])


def _unequal(trainer: Variant, tune: Tune | None) -> str:
    if tune is None:
        return (
            f"{trainer.place}: {trainer.name} has lists to tune and the config says not how; give it, for example, "
            "tune: {trials: 4, grader: panel}"
        )
    return (
        f"{trainer.place}: {trainer.name} has nothing to tune, and each trainer gets {tune.trials} trials; give it "
        "lists, for example tune: {training: {lr: [1.0e-5, 3.0e-5]}}, or sweep it by itself"
    )


def _check(config: Config, trainer: Variant, algorithm: Algorithm) -> None:
    """Raise ConfigError for what cannot be tuned, or is given elsewhere too."""
    tunable = [*(f"training.{name}" for name in TUNABLE), *vars(algorithm)]
    phases = phase_trainings(config, trainer, algorithm) and trainer.own.get("phases", {})
    for path, values in trainer.tune.items():
        where, name = f"{trainer.place}: tune.{shortened(path)}", path.partition(".")[2]
        if path not in tunable:
            reads = f"options of {trainer.name} and training.{{{', '.join(TUNABLE)}}} can be tuned"
            raise ConfigError(
                f"{where}: {reads}; what else a config has decides what is sampled or how long, so give "
                f"it as a fixed value{nearest(path, tunable)}"
            )
        if not isinstance(values, list) or not values:
            raise ConfigError(f"{where} is {shortened(values)}; give a list of values")
        fixed = name in trainer.own.get("training", {}) if name else path in trainer.options
        if fixed or any(name in own for own in phases.values()):
            raise ConfigError(f"{where}: the trainer gives the option a value as well; leave out the one or the other")


def _check_planned(trainer: Variant, algorithm: Algorithm, trial: Algorithm) -> None:
    for name in PLANNED:
        if getattr(algorithm, name, None) != getattr(trial, name, None):
            raise ConfigError(
                f"{trainer.place}: a value to tune changes the {name} of {trainer.name}, which decides what is "
                "sampled; only what a fit reads can be tuned. Give it as a fixed value, or as a list outside of tune"
            )


def _drawn(trainer: Variant, tune: Tune) -> Iterator[dict[str, Any]]:
    """As many combinations of the lists' values as there are trials, each once.

    Raises:
        ConfigError: there are fewer, or a list has a value twice.
    """
    for path, values in trainer.tune.items():
        if any(a == b for a, b in itertools.combinations(values, 2)):
            raise ConfigError(f"{trainer.place}: tune.{path} has a value twice: {shortened(values)}")
    sizes = [len(values) for values in trainer.tune.values()]
    if (size := math.prod(sizes)) < tune.trials:
        raise ConfigError(
            f"{trainer.place}: the lists to tune of {trainer.name} have {size} combinations and each trainer gets "
            f"{tune.trials} trials; give more values, or lower tune.trials"
        )
    for index in sorted(np.random.default_rng(tune.seed).choice(size, tune.trials, replace=False).tolist()):
        places = np.unravel_index(index, sizes)
        yield {path: v[int(i)] for (path, v), i in zip(trainer.tune.items(), places, strict=True)}


def _with(trainer: Variant, values: Mapping[str, Any]) -> Variant:
    """A trainer with a trial's options, as if the config gave it these."""
    own = nested({path: value for path, value in values.items() if "." in path})
    training = {**trainer.own.get("training", {}), **own.get("training", {})}
    options = {path: value for path, value in values.items() if "." not in path}
    return replace(
        trainer,
        options={**trainer.options, **options},
        own={**trainer.own, **({"training": training} if training else {})},
        taken=(*trainer.taken, *values),
        tune={},
    )
