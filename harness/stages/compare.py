"""Paired comparisons between policies on the prompts they share."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.specs import ComponentSpec
from harness.stage import Facts, Stage
from harness.stages.context import Context
from harness.stages.rate import read_all

if TYPE_CHECKING:
    from leaderboards.records import GradedItem
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
    version = 6

    board: ComponentSpec
    cells: tuple[ComparedCell, ...]
    verdicts: Mapping[str, Mapping[str, Stage]]
    named: tuple[tuple[str, str], ...] | None = ()

    def run(self, context: Context) -> Facts:
        from harness.tables.comparisons import PolicyValues, algorithm_rows, aligned, compare_all

        board = context.board(self.board)
        compared: dict[tuple[str, str], dict[str, dict[str, float | None]]] = {}
        for known in self.cells:
            items = read_all(context, self.verdicts[known.cell])
            for of, values in _by_task(board.by_prompt(items), items if board.is_of_tasks else []).items():
                compared.setdefault(of, {})[known.cell] = values
        named = None if self.named is None else {frozenset(pair) for pair in self.named}
        comparisons, algorithms = [], []
        for (metric, category), cells in compared.items():
            by_cell = aligned(cells)
            graded = [PolicyValues(**vars(known), values=by_cell[known.cell]) for known in self.cells]
            rows = compare_all(graded, _bounds(board, metric), named)
            named_by = {"metric": metric, "category": category}
            comparisons += [named_by | row for row in rows]
            algorithms += [named_by | row for row in algorithm_rows(graded, _sign(board, metric))]
        for name, rows in (("comparisons", comparisons), ("algorithms", algorithms)):
            (context.out / f"{name}.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
        return {}


def _by_task(
    by_prompt: Mapping[str, Mapping[str, float | None]], items: Sequence[GradedItem]
) -> dict[tuple[str, str], dict[str, float | None]]:
    """(metric, "") -> the values of all prompts; where several tasks have the metric also (metric, task) -> its own."""
    tasks = {(item.metric, item.id): item.category for item in reversed(items)}  # the first filter of a task counts
    values: dict[tuple[str, str], dict[str, float | None]] = {}
    for metric, of_metric in by_prompt.items():
        values[metric, ""] = dict(of_metric)
        of_tasks = {id: tasks[metric, id] for id in of_metric if (metric, id) in tasks}
        for task in dict.fromkeys(of_tasks.values()) if len(set(of_tasks.values())) > 1 else ():
            values[metric, task] = {id: of_metric[id] for id in of_metric if of_tasks.get(id) == task}
    return values


def _bounds(board: Any, metric: str) -> Bounds | None:
    """The least and the greatest value that a prompt can have, where the board says."""
    known = board.metrics.get(metric)
    return known and known.bounds


def _sign(board: Any, metric: str) -> int:
    """+1 where more is better, -1 where less is, 0 where neither or nobody says."""
    known = board.metrics.get(metric)
    return {"higher": 1, "lower": -1}.get(known.better, 0) if known else 0
