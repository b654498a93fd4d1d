"""The pocket world's trained judges."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.specs import Checkpoint
from harness.stage import Facts, Stage, not_in_seed
from harness.stages.context import Context
from harness.stages.votes import Votes


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainJudge(Stage):
    """A judge trained on the votes, and its verdicts on the held-out ones.

    Attributes:
        name: of a judge that the pocket world has a recipe for.
        code: changes with the code of the judge and of what it asks and reads with, which its verdicts rest on.
    """

    kind = "judge"
    version = 5

    name: str
    policy: Checkpoint
    votes: Votes
    seed_option: int = 0
    code: str = not_in_seed()

    def run(self, context: Context) -> Facts:
        from harness.pocket.judges import train

        labels, base = context.read(self.votes) / "labels.jsonl", Path(context.policy_path(self.policy))
        model = context.out / "model"
        return {"judge": train(self.name, labels, base, model, seed=self.seed_option, progress=context.report)}
