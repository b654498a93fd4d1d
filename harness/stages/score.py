"""A frozen policy's log-probabilities of both responses of every pair."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.specs import Checkpoint
from harness.stage import Facts, Stage, fact
from harness.stages.context import Context
from harness.stages.pair import Pair, read_pairs

UPDATE_ADVICE = "lower training.micro_batch_size or training.max_length"


@dataclass(frozen=True, kw_only=True, eq=False)
class Score(Stage):
    """`log_probs.npy`: float64 [pairs, 2], chosen and rejected.

    Attributes:
        batch_size: pairs in memory at once; changes no law, and nothing but the last bits.
    """

    kind = "score"
    version = 3
    memory_advice = UPDATE_ADVICE

    policy: Checkpoint
    pairs: Pair
    max_length: int
    precision: str
    batch_size: int = fact()

    def run(self, context: Context) -> Facts:
        from trainers.fitting.pairs import score

        pairs, _ = read_pairs(context, self.pairs, self.max_length)
        scores = score(context.policy(self.policy, self.precision), pairs, self.batch_size)
        np.save(context.out / "log_probs.npy", scores)
        return {}
