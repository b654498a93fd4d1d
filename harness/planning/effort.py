"""How much a cell trains: pairs and optimiser steps, before anything runs."""

from __future__ import annotations

import math
from dataclasses import dataclass

from harness.config import Config
from harness.matrix import Variant
from harness.planning.own_options import own_pairs, own_training, phase_trainings
from trainers.algorithm import Algorithm, Schedule


@dataclass(frozen=True)
class Effort:
    """What a cell's training takes.

    Attributes:
        pairs: of an iteration.
        steps: optimiser steps of a fit (the longest of an iteration), or of a stream's iteration.
        total: optimiser steps in all.
        at_most: whether the judge decides how many pairs there are: failures and a tournament's last game leave some
            out.
        steps_at_most: whether the steps follow from that: not where `training.steps_per_iteration` fixes them.
    """

    pairs: int
    steps: int
    total: int
    at_most: bool
    steps_at_most: bool

    def told(self) -> tuple[str, str, str]:
        """The numbers as texts, marked where they are the most there can be."""
        pairs, steps = ("≤" if at_most else "" for at_most in (self.at_most, self.steps_at_most))
        return f"{pairs}{self.pairs}", f"{steps}{self.steps}", f"{steps}{self.total}"


def effort(config: Config, trainer: Variant, algorithm: Algorithm) -> Effort:
    """What a cell of a language model trains with this algorithm and the trainer's own options.

    Raises:
        ConfigError: the trainer's own options are wrong.
    """
    prompts = config.prompts_per_iteration
    if algorithm.schedule is Schedule.STREAM:
        training = own_training(config, trainer, algorithm)
        steps = training.steps_per_iteration or math.ceil(prompts / training.batch_size)
        return Effort(steps * training.batch_size, steps, steps * config.iterations, at_most=False, steps_at_most=False)
    protocol = own_pairs(config, trainer).over(algorithm.pairing).protocol
    pairs = prompts * (config.sampling.k // 2 if protocol == "iid" else 1)
    of_phase = phase_trainings(config, trainer, algorithm)
    trainings = [of_phase[phase.writes] for phase in algorithm.phases]
    fits = [t.steps_per_iteration or t.epochs * math.ceil(pairs / t.batch_size) for t in trainings]
    unfixed = any(t.steps_per_iteration is None for t in trainings)
    return Effort(pairs, max(fits), sum(fits) * config.iterations, at_most=True, steps_at_most=unfixed)
