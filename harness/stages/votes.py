"""The panel's votes on pairs of the pocket world's base policy: what its judges are trained on."""

from __future__ import annotations

from dataclasses import dataclass

from harness.specs import Checkpoint
from harness.stage import Facts, Stage, not_in_seed
from harness.stages.context import Context
from harness.stages.pocket import panel_code, pocket_content


@dataclass(frozen=True, kw_only=True, eq=False)
class Votes(Stage):
    """`labels.jsonl` of pairs and the simulated annotators' votes on them."""

    kind = "votes"
    version = 4

    policy: Checkpoint
    seed_option: int = 0
    code: str = not_in_seed()

    def run(self, context: Context) -> Facts:
        from harness.pocket.judges import write_votes

        return write_votes(context.policy(self.policy, "fp32"), context.out, seed=self.seed_option)


def votes(policy: Checkpoint) -> Votes:
    """The votes on a base policy's samples."""
    title = "the panel's votes on the base policy's samples"
    return Votes(policy=policy, code=f"{pocket_content('judges.py')} {panel_code()}", title=title)
