"""Responses to the prompts of an iteration."""

from __future__ import annotations

from dataclasses import dataclass

from harness.specs import Checkpoint
from harness.stage import Facts, Stage, fact
from harness.stages.context import Context
from harness.stages.policies import beside
from harness.stages.prompts import IterationPrompts, Prompts, training_prompts
from trainers.engines.randomness import response_seeds
from trainers.options import Sampling

SAMPLING_ADVICE = "lower sampling.batch_size or sampling.max_tokens"


@dataclass(frozen=True, kw_only=True, eq=False)
class Sample(Stage):
    """`responses.parquet`: k responses a prompt, from the policy or its mixture with the reference.

    No trainer is named: trainers that sample from one policy share its samples.

    Attributes:
        mixture: the reference's share; 0 where the policy plays alone, and then there is no reference.
        training_length: the longest sequence that is trained on, tokens.
    """

    kind = "sample"
    version = 5
    memory_advice = SAMPLING_ADVICE

    policy: Checkpoint
    prompts: Prompts
    chosen: IterationPrompts
    sampling: Sampling
    precision: str
    mixture: float = 0.0
    reference: Checkpoint | None = None
    training_length: int | None = fact(None)

    def run(self, context: Context) -> Facts:
        import pandas as pd

        frame = training_prompts(context, self.prompts, self.chosen, self.training_length)
        policy = context.policy(self.policy, self.precision)
        mix = (
            None if self.reference is None else (beside(policy, context, self.reference, self.precision), self.mixture)
        )
        seeds = response_seeds(self.seed, frame["id"])
        drawn = policy.sample(frame["tokens"].tolist(), self.sampling.k, self.sampling, seeds, mix)
        rows = [
            {"draw": draw, "prompt": int(row), "tokens": r.tokens, "text": r.text, "finished": r.finished}
            for draw, (row, responses) in enumerate(zip(frame.index, drawn, strict=True))
            for r in responses
        ]
        pd.DataFrame(rows).to_parquet(context.out / "responses.parquet")
        return {"work": {"samples": len(rows), "tokens": sum(len(r.tokens) for responses in drawn for r in responses)}}
