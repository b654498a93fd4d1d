"""The scores that a board makes of verdicts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from harness.errors import UserError
from harness.specs import ComponentSpec
from harness.stage import Facts, Stage
from harness.stages.context import Context

if TYPE_CHECKING:
    from leaderboards.records import GradedItem


@dataclass(frozen=True, kw_only=True, eq=False)
class Rate(Stage):
    """`scores.json`: every score with its interval, the board's own first, then those of `leaderboards.outcomes`.

    Attributes:
        board: as far as its rule goes.
        verdicts: the stages whose verdicts are rated together, by part of the questions.
    """

    kind = "rate"
    version = 2

    board: ComponentSpec
    verdicts: Mapping[str, Stage]

    def run(self, context: Context) -> Facts:
        from leaderboards.leaderboard import TextLeaderboard
        from leaderboards.outcomes import outcome_scores

        items = read_all(context, self.verdicts)
        judged = [item for item in items if item.judged]
        if judged and all(item.status != "ok" for item in judged):
            kinds = ", ".join(sorted({item.status for item in judged}))
            raise UserError(f"the grader failed on all {len(judged)} answers ({kinds}); no score can be given")
        board = context.board(self.board)
        scores = list(board.rate(items, self.seed))
        if isinstance(board, TextLeaderboard):
            scores += outcome_scores(board, items, scores)
        rows = [asdict(score) for score in scores]
        (context.out / "scores.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
        return {}


def read_all(context: Context, parts: Mapping[str, Stage]) -> list[GradedItem]:
    """The graded items of all parts of a board's questions, in their order."""
    from leaderboards.records import read_items

    return [item for stage in parts.values() for item in read_items(context.read(stage) / "verdicts.parquet")]
