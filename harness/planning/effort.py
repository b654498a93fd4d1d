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
        at_most: whether the judge decides how many of these there are: failures and a tournament's last game leave
            pairs out.
    """

    pairs: int
    steps: int
    total: int
    at_most: bool

    def told(self) -> tuple[str, str, str]:
        """The numbers as texts, marked where they are the most there can be."""
        mark = "≤" if self.at_most else ""
        return f"{mark}{self.pairs}", f"{mark}{self.steps}", f"{mark}{self.total}"


def effort(config: Config, trainer: Variant, algorithm: Algorithm) -> Effort:
    """What a cell of a language model trains with this algorithm and the trainer's own options.

    Raises:
        ConfigError: the trainer's own options are wrong.
    """
    prompts = config.prompts_per_iteration
    if algorithm.schedule is Schedule.STREAM:
        training = own_training(config, trainer, algorithm)
        steps = training.steps_per_iteration or math.ceil(prompts / training.batch_size)
        return Effort(steps * training.batch_size, steps, steps * config.iterations, at_most=False)
    protocol = own_pairs(config, trainer).over(algorithm.pairing).protocol
    pairs = prompts * (config.sampling.k // 2 if protocol == "iid" else 1)
    of_phase = phase_trainings(config, trainer, algorithm)
    fits = [
        of_phase[phase.writes].epochs * math.ceil(pairs / of_phase[phase.writes].batch_size)
        for phase in algorithm.phases
    ]
    return Effort(pairs, max(fits), sum(fits) * config.iterations, at_most=True)
