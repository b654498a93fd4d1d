"""A trainer's own training options, merged over the config's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from harness.config import Config, ConfigError, PairOptions
from harness.matrix import Variant
from judges.plugins import nearest
from judges.reading import clipped, shortened
from trainers.algorithm import Algorithm, Schedule
from trainers.options import Training

Group = TypeVar("Group", bound=BaseModel)
SHARED = ("precision", "accelerate")
"""Training options that are the whole sweep's: sampling and evaluation read them too, or the machine does."""
OF_A_PHASE = tuple(
    name
    for name in Training.model_fields
    if name not in (*SHARED, "lora", "max_length")  # these hold for all of an iteration's fits
)


def own_training(config: Config, variant: Variant, algorithm: Algorithm) -> Training:
    """The training of a trainer: the config's with its own over it.

    Raises:
        ConfigError: an unknown key or a wrong value, a key that is the whole sweep's, or epochs that are not read, with
            the entry's place.
    """
    own = variant.own.get("training", {})
    refused = dict.fromkeys(SHARED, "it is one for the whole sweep; set it in the config's own training")
    if algorithm.schedule is Schedule.STREAM:
        refused["epochs"] = f"{algorithm.name} trains on the schedule stream, which does not read it"
    _refuse(variant, "training", own, refused)
    merged = _merged(variant, "training", config.training, own, Training.model_fields)
    return _with_epochs_read(variant, "training", own, merged)


def phase_trainings(config: Config, variant: Variant, algorithm: Algorithm) -> dict[str, Training]:
    """The training of each phase of a refit, by the slot that it writes.

    Raises:
        ConfigError: as `own_training`; or a phase that the algorithm does not have.
    """
    training, own = own_training(config, variant, algorithm), variant.own.get("phases", {})
    written = dict.fromkeys(phase.writes for phase in algorithm.phases)
    if own and algorithm.schedule is not Schedule.REFIT:
        raise ConfigError(
            f"{variant.place}: {algorithm.name} takes the step of every phase with one optimiser, so phases has no "
            "training options there; give them in training"
        )
    for name in own:
        if name not in written:
            raise ConfigError(f"{variant.place}: unknown key {shortened(f'phases.{name}')}{nearest(name, written)}")
    return {name: _of_phase(variant, f"phases.{name}", training, own.get(name, {})) for name in written}


def _of_phase(variant: Variant, where: str, training: Training, own: Mapping[str, Any]) -> Training:
    return _with_epochs_read(variant, where, own, _merged(variant, where, training, own, OF_A_PHASE))


def _with_epochs_read(variant: Variant, where: str, own: Mapping[str, Any], merged: Training) -> Training:
    """The training, where epochs of the trainer's own are not overruled by a number of steps."""
    steps = merged.steps_per_iteration
    if steps is not None:
        words = f"steps_per_iteration is {steps} and sets the number of steps; take one out, or make that null here"
        _refuse(variant, where, own, {"epochs": words})
    return merged


def own_pairs(config: Config, variant: Variant) -> PairOptions:
    """How a trainer's responses become pairs: the config's options with its own over them.

    Raises:
        ConfigError: an unknown key or a wrong value, with the entry's place.
    """
    return _merged(variant, "pairs", config.pairs, variant.own.get("pairs", {}), PairOptions.model_fields)


def refuse_on_games(variant: Variant, *, by_gradient: bool) -> None:
    """Raise ConfigError for own options that a game does not read: all but the step of those that take one."""
    given = [f"{group}.{name}" for group, options in variant.own.items() for name in options]
    unread = [name for name in given if name != "training.lr" or not by_gradient]
    if unread:
        reads = "reads training.lr alone" if by_gradient else "is solved exactly and reads none"
        raise ConfigError(f"{variant.place}: {variant.name} on a game {reads}; take {shortened(unread[0])} out")


def _merged(variant: Variant, where: str, base: Group, own: Mapping[str, Any], known: Sequence[str] | Any) -> Group:
    if not own:
        return base
    for name in own:
        if name not in known:
            raise ConfigError(f"{variant.place}: unknown key {shortened(f'{where}.{name}')}{nearest(name, known)}")
    given = base.model_dump(exclude_unset=True)
    try:
        return type(base).model_validate(_over(given, own))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, (where, *first["loc"])))
        fact = f"{clipped(first['msg'], 160)} (it is {shortened(first['input'])})"
        raise ConfigError(f"{variant.place}: {clipped(key, 60)}: {fact}") from error


def _over(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `own` over it, groups within groups too."""
    merged = dict(base)
    for name, value in own.items():
        below = merged.get(name) or {}
        merged[name] = _over(below, value) if isinstance(value, Mapping) else value
    return merged


def _refuse(variant: Variant, where: str, own: Mapping[str, Any], reasons: Mapping[str, str]) -> None:
    for name in own:
        if name in reasons:
            raise ConfigError(f"{variant.place}: {where}.{name}: {reasons[name]}")
