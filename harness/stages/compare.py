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
    baseline: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Compare(Stage):
    """`comparisons.json`: one row a comparison of one metric. `algorithms.json`: one a metric and algorithm over seeds.

    Attributes:
        board: as far as its values by prompt go.
        verdicts: by cell and part of the questions, the stages whose verdicts are compared.
        named: pairs of cells that are compared besides those that always are; None compares all.
    """

    kind = "compare"
    version = 4

    board: ComponentSpec
    cells: tuple[ComparedCell, ...]
    verdicts: Mapping[str, Mapping[str, Stage]]
    named: tuple[tuple[str, str], ...] | None = ()

    def run(self, context: Context) -> Facts:
        from harness.tables.comparisons import PolicyValues, algorithm_rows, aligned, compare_all

        board = context.board(self.board)
        by_metric: dict[str, dict[str, dict[str, float | None]]] = {}
        for known in self.cells:
            for metric, values in board.by_prompt(read_all(context, self.verdicts[known.cell])).items():
                by_metric.setdefault(metric, {})[known.cell] = values
        named = None if self.named is None else {frozenset(pair) for pair in self.named}
        comparisons, algorithms = [], []
        for metric, cells in by_metric.items():
            values = aligned(cells)
            graded = [PolicyValues(**vars(known), values=values[known.cell]) for known in self.cells]
            rows = compare_all(graded, _bounds(board, metric), named)
            comparisons += [{"metric": metric, **row} for row in rows]
            algorithms += [{"metric": metric, **row} for row in algorithm_rows(graded, _sign(board, metric))]
        for name, rows in (("comparisons", comparisons), ("algorithms", algorithms)):
            (context.out / f"{name}.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
        return {}


def _bounds(board: Any, metric: str) -> Bounds | None:
    """The least and the greatest value that a prompt can have, where the board says."""
    known = board.metrics.get(metric)
    return known and known.bounds


def _sign(board: Any, metric: str) -> int:
    """+1 where more is better, -1 where less is, 0 where neither or nobody says."""
    known = board.metrics.get(metric)
    return {"higher": 1, "lower": -1}.get(known.better, 0) if known else 0
