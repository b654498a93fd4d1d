"""The scores that a board makes of verdicts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from harness.specs import ComponentSpec
from harness.stage import Facts, Stage
from harness.stages.context import Context

if TYPE_CHECKING:
    from leaderboards.records import Verdict


@dataclass(frozen=True, kw_only=True, eq=False)
class Rate(Stage):
    """`scores.json`: every score with its interval.

    Attributes:
        board: as far as its rule goes.
        verdicts: the stages whose verdicts are rated together, by part of the questions.
    """

    kind = "rate"

    board: ComponentSpec
    verdicts: Mapping[str, Stage]

    def run(self, context: Context) -> Facts:
        verdicts = read_all(context, self.verdicts)
        if verdicts and all(verdict.status != "ok" for verdict in verdicts):
            kinds = ", ".join(sorted({verdict.status for verdict in verdicts}))
            raise ValueError(f"the grader failed on all {len(verdicts)} answers ({kinds}); no score can be given")
        scores = [asdict(score) for score in context.board(self.board).rate(verdicts, self.seed)]
        (context.out / "scores.json").write_text(json.dumps(scores, indent=1), encoding="utf-8")
        return {}


def read_all(context: Context, parts: Mapping[str, Stage]) -> list[Verdict]:
    """The verdicts of all parts of a board's questions, in their order."""
    from leaderboards.records import read_verdicts

    return [row for stage in parts.values() for row in read_verdicts(context.read(stage) / "verdicts.parquet")]
