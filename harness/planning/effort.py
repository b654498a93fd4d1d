"""How much a cell trains: pairs and optimiser steps, before anything runs."""

from __future__ import annotations

import math
from dataclasses import dataclass

from harness.config import Config
from trainers.algorithm import Algorithm, Schedule


@dataclass(frozen=True)
class Effort:
    """What a cell's training takes.

    Attributes:
        pairs: of an iteration.
        steps: optimiser steps of a fit, or of a stream's iteration.
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


def effort(config: Config, algorithm: Algorithm) -> Effort:
    """What a cell of a language model trains with this algorithm."""
    training, prompts = config.training, config.prompts_per_iteration
    if algorithm.schedule is Schedule.STREAM:
        steps = training.steps_per_iteration or math.ceil(prompts / training.batch_size)
        return Effort(steps * training.batch_size, steps, steps * config.iterations, at_most=False)
    protocol = config.pairs.over(algorithm.pairing).protocol
    pairs = prompts * (config.sampling.k // 2 if protocol == "iid" else 1)
    steps = training.epochs * math.ceil(pairs / training.batch_size)
    total = steps * len(algorithm.phases) * config.iterations
    return Effort(pairs, steps, total, at_most=True)
