"""One phase of a refit: train from a start on labelled pairs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.specs import Checkpoint, ComponentSpec
from harness.stage import Facts, Stage, fact
from harness.stages.choose import Choose, with_choice
from harness.stages.context import Context
from harness.stages.pair import Pair, read_pairs
from harness.stages.score import UPDATE_ADVICE, Score
from trainers.options import Training


@dataclass(frozen=True, kw_only=True, eq=False)
class Fit(Stage):
    """`model` (a checkpoint) and `dynamics.parquet` (figures of every step).

    Attributes:
        training: without what only streams read.
        frozen: the scores of the policies that the loss is measured against, by slot.
        opponents: slots whose win rates are rewards.
        accelerate: changes with the contents of the accelerate config, whose shares change rounding.
        accelerate_file: where it is.
        choice: the trials whose best options are put over algorithm and training.
    """

    kind = "fit"
    version = 5
    memory_advice = f"{UPDATE_ADVICE}, or set training.gradient_checkpointing: true"

    algorithm: ComponentSpec
    start: Checkpoint
    pairs: Pair
    frozen: Mapping[str, Score]
    training: Training
    max_length: int
    cell_seed: int
    opponents: tuple[str, ...] = ()
    accelerate: str | None = None
    accelerate_file: str | None = fact(None)
    choice: Choose | None = None

    def run(self, context: Context) -> Facts:
        import pandas as pd

        from trainers.fitting.distributed import launch
        from trainers.fitting.job import Job

        pairs, truncated = read_pairs(context, self.pairs, self.max_length, self.opponents)
        frozen = {name: np.load(context.read(score) / "log_probs.npy") for name, score in self.frozen.items()}
        context.models.models.clear()
        spec, training = with_choice(context, self.choice, self.algorithm, self.training)
        algorithm, start = context.algorithm(spec), context.policy_path(self.start)
        job = Job(pairs, frozen, algorithm, training, self.seed, start, context.out / "model", context.unfinished)
        file = self.accelerate_file
        fitted = job.run(context.report) if file is None else launch(job, Path(file), context.report)
        pd.DataFrame(fitted.dynamics).to_parquet(context.out / "dynamics.parquet")
        return {"work": {"steps": len(fitted.dynamics)}, "truncated": truncated, "movement": fitted.movement}
