"""The pocket world's benchmark sets, in the official files' formats."""

from __future__ import annotations

from dataclasses import dataclass

from harness.specs import Checkpoint
from harness.stage import Facts, Stage, not_in_seed
from harness.stages.context import Context
from harness.stages.pocket import panel_code, pocket_content


@dataclass(frozen=True, kw_only=True, eq=False)
class BenchmarkSets(Stage):
    """Questions, baseline answers and references for every leaderboard, drawn from the base policy and the grammar."""

    kind = "sets"
    version = 3

    policy: Checkpoint
    seed_option: int = 0
    code: str = not_in_seed()

    def run(self, context: Context) -> Facts:
        from harness.pocket.sets import write_sets

        return write_sets(context.policy(self.policy, "fp32"), context.out, seed=self.seed_option)


def benchmark_sets(policy: Checkpoint) -> BenchmarkSets:
    """The sets made with a base policy."""
    title = "the pocket world's benchmark sets"
    return BenchmarkSets(policy=policy, code=f"{pocket_content('sets.py')} {panel_code()}", title=title)
