"""Which policies are compared on which leaderboard by which grader."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.matrix import Cell
from harness.planning.boards import board_reading
from harness.planning.named_pairs import named_pairs
from harness.planning.plan import Plan
from harness.planning.records import CellPlan, Rated
from harness.registry import load
from harness.specs import ComponentSpec
from harness.stage import Stage
from harness.stages.compare import Compare, ComparedCell
from harness.stages.rate import Rate


@dataclass(frozen=True)
class Comparison:
    """The stage that compares the policies on one leaderboard by one grader."""

    stage: Compare
    leaderboard: str
    grader: str


def comparison_stages(plan: Plan, has: Callable[[Stage], bool]) -> list[Compare]:
    """The stages of `planned_comparisons`."""
    return [comparison.stage for comparison in planned_comparisons(plan, has)]


def planned_comparisons(plan: Plan, has: Callable[[Stage], bool]) -> list[Comparison]:
    """One for each leaderboard and grader over the last scores of the cells that have one."""
    last_scores: dict[tuple[str, str], list[tuple[CellPlan, Rated]]] = defaultdict(list)
    for cell in plan.cells:
        last = max((rated.iteration for rated in cell.rated), default=0)
        for rated in cell.rated:
            if rated.iteration == last and rated.verdicts and has(rated.stage):
                last_scores[rated.leaderboard, rated.grader].append((cell, rated))
    named = named_pairs([cell.cell for cell in plan.cells], plan.config.compare)
    return [Comparison(_stage(*names, rows, named), *names) for names, rows in last_scores.items() if len(rows) > 1]


def _stage(
    leaderboard: str,
    grader: str,
    scores: Sequence[tuple[CellPlan, Rated]],
    named: Sequence[tuple[str, str]] | None,
) -> Compare:
    cells = [cell.cell for cell, _ in scores]
    rate = scores[0][1].stage
    assert isinstance(rate, Rate)
    return Compare(
        board=board_reading(rate.board, "by_prompt"),
        cells=tuple(_compared(c, rate.board) for c in cells),
        named=None if named is None else tuple(named),
        verdicts={c.id: rated.verdicts for c, (_, rated) in zip(cells, scores, strict=True)},
        title=f"{leaderboard}: comparisons" + (f" graded by {grader}" if grader else ""),
    )


def _compared(cell: Cell, board: ComponentSpec) -> ComparedCell:
    own = getattr(load("leaderboards", board.name), "baseline", "board") == "untrained"
    return ComparedCell(
        cell=cell.id,
        algorithm=cell.algorithm,
        policy=cell.policy_label,
        trainer=cell.trainer.name,
        judge=cell.judge_label,
        seed=cell.seed,
        baseline=cell.policy_label if own else "",
    )
