"""An algorithm on an exact game."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.specs import ComponentSpec
from harness.stage import Facts, Stage
from harness.stages.context import Context


@dataclass(frozen=True, kw_only=True, eq=False)
class Play(Stage):
    """`policies.npy`: float64 [iterations + 1, actions].

    Attributes:
        preference: P(row beats column).
        lr: the gradient step of streams.
    """

    kind = "play"
    version = 3

    algorithm: ComponentSpec
    preference: tuple[tuple[float, ...], ...]
    iterations: int
    lr: float

    def run(self, context: Context) -> Facts:
        from trainers.policies.tabular import play

        matrix = np.array(self.preference, dtype=np.float64)
        run = play(context.algorithm(self.algorithm), matrix, self.iterations, step_size=self.lr)
        np.save(context.out / "policies.npy", run.policies)
        return {"work": {"steps": self.iterations}}
