"""A leaderboard that opens the checkpoint itself."""

from __future__ import annotations

from dataclasses import dataclass

from harness.specs import Checkpoint, ComponentSpec
from harness.stage import Facts, Stage
from harness.stages.context import Context


@dataclass(frozen=True, kw_only=True, eq=False)
class Benchmark(Stage):
    """`verdicts.parquet`.

    Attributes:
        board: as far as its evaluation goes.
    """

    kind = "benchmark"
    version = 2
    memory_advice = "lower the leaderboard's batch_size"

    board: ComponentSpec
    policy: Checkpoint

    def run(self, context: Context) -> Facts:
        from leaderboards.records import check_items, write_items

        board = context.board(self.board)
        items = check_items(board.name, board.evaluate(context.policy_path(self.policy)))
        write_items(items, context.out / "verdicts.parquet")
        return {}
