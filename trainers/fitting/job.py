"""One fit from checkpoint to checkpoint, as a process does it that is alone or a rank of several."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import trainers.fitting.fit
from trainers.algorithm import Algorithm
from trainers.fitting.fit import Report
from trainers.fitting.movement import Watch
from trainers.fitting.optimise import Figures
from trainers.fitting.pairs import FrozenLogProbs, Pairs
from trainers.fitting.ranks import Ranks
from trainers.fitting.resume import Kept, newest
from trainers.options import Training
from trainers.policies.causal_lm import CausalLM


@dataclass(frozen=True)
class Fitted:
    """The figures of every step (`trainers.fitting.fit.fit`), and of the whole fit (`trainers.fitting.movement`)."""

    dynamics: list[Figures]
    movement: Figures


@dataclass(frozen=True)
class Job:
    """What to fit, to what, and where it goes.

    Attributes:
        start: a checkpoint's folder or hub id.
        out: the folder of the fitted checkpoint.
        kept: the folder of states under way, see `Kept`; one found there is gone on from.
        every: seconds between two of these states, at least.
    """

    pairs: Pairs
    frozen: FrozenLogProbs
    algorithm: Algorithm
    training: Training
    seed: int
    start: str
    out: Path
    kept: Path
    every: float = 60.0

    def run(self, report: Report | None = None, ranks: Ranks | None = None) -> Fitted:
        """Fit and write the checkpoint.

        Raises:
            ValueError: there are no pairs.
            FloatingPointError: the loss is not finite.
        """
        ranks, found = ranks or Ranks(), newest(self.kept)
        start = self.start if found is None else str(found / "model")
        policy = CausalLM.to_train(start, self.training, self.seed)
        watch = self._watch(policy if found is None else CausalLM.to_train(self.start, self.training, self.seed))
        dynamics = trainers.fitting.fit.fit(
            policy,
            self.pairs,
            self.frozen,
            self.algorithm,
            self.training,
            seed=self.seed,
            report=report,
            ranks=ranks,
            kept=Kept(self.kept, policy, ranks, self.every),
        )
        weights = ranks.weights(policy)
        if ranks.index == 0:
            policy.save(self.out, weights)
        return Fitted(dynamics, watch.figures(policy, self.algorithm))

    def _watch(self, start: CausalLM) -> Watch:
        return Watch.at(start, self.pairs, self.training.micro_batch_size or self.training.batch_size)
