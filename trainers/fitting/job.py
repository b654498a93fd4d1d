"""One fit from checkpoint to checkpoint, in a single process or in one rank of several."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import trainers.fitting.fit
from trainers.algorithm import Algorithm
from trainers.fitting.fit import Report
from trainers.fitting.movement import Watch
from trainers.fitting.optimise import StepMetrics
from trainers.fitting.pairs import FrozenLogProbs, Pairs
from trainers.fitting.ranks import Ranks
from trainers.fitting.resume import FitCheckpointer, newest_checkpoint
from trainers.options import Training
from trainers.policies.causal_lm import CausalLM


@dataclass(frozen=True)
class Fitted:
    """The figures of every step (`trainers.fitting.fit.fit`), and of the whole fit (`trainers.fitting.movement`)."""

    dynamics: list[StepMetrics]
    movement: StepMetrics


@dataclass(frozen=True)
class Job:
    """A fit: its data, options and output folder.

    Attributes:
        start: a checkpoint's folder or hub id.
        out: the folder of the fitted checkpoint.
        checkpoints: the folder of intermediate states, see `FitCheckpointer`; the fit resumes from the newest one.
        every: minimum seconds between two of these states.
    """

    pairs: Pairs
    frozen: FrozenLogProbs
    algorithm: Algorithm
    training: Training
    seed: int
    start: str
    out: Path
    checkpoints: Path
    every: float = 60.0

    def run(self, report: Report | None = None, ranks: Ranks | None = None) -> Fitted:
        """Fit and write the checkpoint.

        Raises:
            ValueError: there are no pairs.
            FloatingPointError: the loss is not finite.
        """
        ranks, checkpoint = ranks or Ranks(), newest_checkpoint(self.checkpoints)
        start = self.start if checkpoint is None else str(checkpoint / "model")
        policy = CausalLM.to_train(start, self.training, self.seed)
        watch = self._watch(policy if checkpoint is None else CausalLM.to_train(self.start, self.training, self.seed))
        dynamics = trainers.fitting.fit.fit(
            policy,
            self.pairs,
            self.frozen,
            self.algorithm,
            self.training,
            seed=self.seed,
            report=report,
            ranks=ranks,
            checkpointer=FitCheckpointer(self.checkpoints, policy, ranks, self.every),
        )
        weights = ranks.weights(policy)
        if ranks.index == 0:
            policy.save(self.out, weights)
        return Fitted(dynamics, watch.figures(policy, self.algorithm))

    def _watch(self, start: CausalLM) -> Watch:
        return Watch.at(start, self.pairs, self.training.micro_batch_size or self.training.batch_size)
