"""One iteration of a stream: fresh samples and comparisons for every gradient step."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.specs import Checkpoint, ComponentSpec
from harness.stage import Facts, Stage
from harness.stages.choose import Choose, with_choice
from harness.stages.context import Context
from harness.stages.policies import beside
from harness.stages.prompts import IterationPrompts, Prompts, training_prompts
from harness.stages.sample import SAMPLING_ADVICE
from harness.stages.score import UPDATE_ADVICE
from harness.store.cached_judge import compare_with
from trainers.algorithm import Pairing
from trainers.options import Sampling, Training

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Stream(Stage):
    """`model`, `dynamics.parquet`, and `state.safetensors` for the iteration to come.

    Attributes:
        training: without what only refits read.
        frozen: the policies that losses, players and opponents name and no phase writes, by slot.
        total_steps: of all iterations, for the learning-rate schedule; 0 where that does not depend on it.
        choice: the trials whose best options are put over algorithm and training.
    """

    kind = "stream"
    version = 8
    memory_advice = f"{UPDATE_ADVICE}, set training.gradient_checkpointing: true, or {SAMPLING_ADVICE}"

    algorithm: ComponentSpec
    judge: ComponentSpec
    start: Checkpoint
    prompts: Prompts
    frozen: Mapping[str, Checkpoint]
    training: Training
    pairing: Pairing
    sampling: Sampling
    chosen: IterationPrompts
    steps: int
    total_steps: int
    choice: Choose | None = None

    def run(self, context: Context) -> Facts:
        import pandas as pd
        from safetensors.torch import save_file

        from trainers.fitting.stream import stream
        from trainers.policies.causal_lm import CausalLM

        frame = training_prompts(context, self.prompts, self.chosen, self.training.max_length)
        compare = _StreamCompare(self, context, [json.loads(p) for p in frame["prompt"]])
        spec, training = with_choice(context, self.choice, self.algorithm, self.training)
        policy = CausalLM.to_train(context.policy_path(self.start), training, self.seed)
        frozen = {name: beside(policy, context, p, self.training.precision) for name, p in self.frozen.items()}
        result = stream(
            policy,
            frozen,
            frame["tokens"].tolist(),
            compare,
            context.algorithm(spec),
            training,
            self.sampling,
            label=self.pairing.label,
            steps=self.steps,
            total_steps=self.total_steps,
            seed=self.seed,
            state=self._state(context),
            report=context.report,
        )
        policy.save(context.out / "model")
        pd.DataFrame(result.dynamics).to_parquet(context.out / "dynamics.parquet")
        save_file(result.state, context.out / "state.safetensors")
        sampled = {"samples": result.samples, "tokens": result.tokens}
        work = {**sampled, "steps": self.steps, "queries": compare.queries}
        lost = {"failed": result.failed, "failures": dict(compare.judge.failures)}
        return {"work": work, **lost, "truncated": result.truncated, "movement": result.movement}

    def _state(self, context: Context) -> dict[str, Tensor] | None:
        """The optimiser's state as the iteration before left it; None for the first."""
        from safetensors.torch import load_file

        if self.chosen.iteration == 1:
            return None
        assert self.start.stage is not None
        return load_file(context.read(self.start.stage) / "state.safetensors")


class _StreamCompare:
    """The stream's comparisons: one pair a prompt, in the order drawn (or both), equal texts without a query."""

    def __init__(self, stage: Stream, context: Context, prompts: Sequence[Any]) -> None:
        self.judge = context.judge(stage.judge)
        self.compare = compare_with(self.judge, prompts)
        self.orders = stage.pairing.orders
        self.planned = stage.steps * stage.training.batch_size * (1 + (self.orders == "both"))
        self.generator = np.random.default_rng(stage.seed)
        self.queries = 0

    def __call__(self, rows: Sequence[int], first: Sequence[str], second: Sequence[str]) -> np.ndarray:
        from judges.tournament import iid

        def compare(positions: Any, a: Sequence[str], b: Sequence[str]) -> np.ndarray:
            return self.compare([rows[int(i)] for i in positions], a, b)

        responses = [list(two) for two in zip(first, second, strict=True)]
        compared = iid(compare, responses, self.generator, label="soft", orders=self.orders)  # type: ignore[arg-type]
        self.queries += compared.queries
        self.judge.check_losses(self.planned)  # at once: what comes after a lost pair is not what a rerun asks
        preference = np.full(len(rows), np.nan)
        preference[compared.prompt] = compared.preference
        return preference
