"""Paired comparisons between policies on the prompts they share."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.specs import ComponentSpec
from harness.stage import Facts, Stage
from harness.stages.context import Context
from harness.stages.rate import read_all

if TYPE_CHECKING:
    from leaderboards.statistics.means import Bounds


@dataclass(frozen=True)
class ComparedCell:
    """What a comparison knows of a cell: names that `PolicyValues` explains."""

    cell: str
    algorithm: str
    policy: str
    trainer: str
    judge: str
    seed: int | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Compare(Stage):
    """`comparisons.json`: one row a comparison of one metric.

    Attributes:
        board: as far as its values by prompt go.
        verdicts: by cell and part of the questions, the stages whose verdicts are compared.
    """

    kind = "compare"
    version = 3

    board: ComponentSpec
    cells: tuple[ComparedCell, ...]
    verdicts: Mapping[str, Mapping[str, Stage]]

    def run(self, context: Context) -> Facts:
        from harness.tables.comparisons import PolicyValues, aligned, compare_all

        board = context.board(self.board)
        by_metric: dict[str, dict[str, dict[str, float | None]]] = {}
        for known in self.cells:
            for metric, values in board.by_prompt(read_all(context, self.verdicts[known.cell])).items():
                by_metric.setdefault(metric, {})[known.cell] = values
        rows = []
        for metric, cells in by_metric.items():
            values = aligned(cells)
            graded = [PolicyValues(**vars(known), values=values[known.cell]) for known in self.cells]
            rows += [{"metric": metric, **row} for row in compare_all(graded, _bounds(board, metric))]
        (context.out / "comparisons.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
        return {}


def _bounds(board: Any, metric: str) -> Bounds | None:
    """The least and the greatest value that a prompt can have, where the board says."""
    known = board.metrics.get(metric)
    return known and known.bounds
