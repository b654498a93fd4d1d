"""A leaderboard that opens the checkpoint itself, and its scores."""

from __future__ import annotations

import json
from dataclasses import dataclass

from harness.specs import Checkpoint, ComponentSpec
from harness.stage import Facts, Stage
from harness.stages.context import Context
from harness.stages.grade import write_scores


@dataclass(frozen=True, kw_only=True, eq=False)
class Benchmark(Stage):
    """`verdicts.parquet` and `scores.json`."""

    kind = "benchmark"
    version = 2
    memory_advice = "lower the leaderboard's batch_size"

    board: ComponentSpec
    policy: Checkpoint

    def run(self, context: Context) -> Facts:
        import pandas as pd

        board = context.board(self.board)
        verdicts = board.evaluate(context.policy_path(self.policy))
        write_scores(context.out, board.rate(verdicts, self.seed))
        frame = pd.DataFrame([v | {"prompt": json.dumps(v["prompt"])} for v in verdicts])
        frame.astype({"value": "float64", "response": "str"}).to_parquet(context.out / "verdicts.parquet")
        return {}
