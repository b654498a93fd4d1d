"""What training took and did, beside every trainer: movement and cost, scores against cost, and at equal cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from reports.boards import Board, best_first, boards
from reports.numbers import MetricDisplay
from reports.sections.common import figure, is_game, listed, spread, tags
from reports.sections.curves import facets_of
from reports.sections.leaderboard import ends
from reports.sections.training import MOVED
from reports.tables import Row, Sweep, grouped, is_control, unique

COSTS = {
    "samples": "samples",
    "queries": "judge queries",
    "steps": "optimiser steps",
    "tokens": "sampled tokens",
    "seconds": "seconds",
}
MATCHED = ("queries", "steps")
"""What policies are read at an equal amount of."""
SHARES = ("empty_share", "unfinished_share")


def cost(sweeps: Sequence[Sweep]) -> dict[str, Any]:
    """The page: `charts`, `budgets` and `matched`; exact games, which cost nothing, have none of it."""
    sweeps = [sweep for sweep in sweeps if not is_game(sweep)]
    return {
        "charts": charts(sweeps),
        "budgets": [budget for sweep in sweeps for budget in budgets(sweep)],
        "matched": matched(sweeps),
    }


def is_scored_on_the_way(sweeps: Sequence[Sweep]) -> bool:
    """Whether some policy of a language model was scored before its last iteration: without that no cost is an axis."""
    rows = [row for sweep in sweeps if not is_game(sweep) for row in sweep.results if row["judge"]]
    scored = {(row["sweep"], row["cell"], row["iteration"]) for row in rows}
    return len(scored) > len({(sweep, cell) for sweep, cell, _ in scored})


def trained(sweeps: Sequence[Sweep]) -> list[dict[str, Any]]:
    """A row a trained cell: its costs, how far its last fit moved, its shares of empty and cut answers over boards."""
    return [row for sweep in sweeps if not is_game(sweep) for row in _trained(sweep)]


# --- beside every trainer ----------------------------------------------------------------------------------------


def _trained(sweep: Sweep) -> Iterator[dict[str, Any]]:
    moved = grouped((r for r in sweep.dynamics if r["metric"] in MOVED), lambda row: (row["cell"], row["metric"]))
    for cell, rows in grouped(_of_trained(sweep), lambda row: row["cell"]).items():
        last = {name: max(moved.get((cell, name), []), key=_place, default={"value": None}) for name in MOVED}
        shares = {name: [r["value"] for r in rows if r["metric"] == name and r["value"] is not None] for name in SHARES}
        yield {
            "row": rows[0],
            "tags": tags(sweep, {**rows[0], "grader": ""}),
            "arm": sweep.info[cell]["label"],
            "costs": {name: figure(rows[0][name]) for name in COSTS},
            **{name: figure(row["value"]) for name, row in last.items()},
            "shares": [spread(values) if values else [figure(None)] for values in shares.values()],
        }


def _place(row: Row) -> tuple[int, int]:
    return row["iteration"] or 0, row["phase"] or 0


def _of_trained(sweep: Sweep) -> list[Row]:
    return [row for row in sweep.final if not is_control(row) and row["judge"]]


# --- against cost ------------------------------------------------------------------------------------------------


def charts(sweeps: Sequence[Sweep]) -> list[dict[str, Any]]:
    """A board's first metric that is scored over iterations, along each cost that grows."""
    return [
        {"board": board, "cost": name, "called": called, "facets": facets}
        for board in _over_iterations(sweeps)
        for name, called in COSTS.items()
        if any(row[name] for sweep in sweeps for row in _of_trained(sweep))
        and (facets := facets_of(sweeps, board, name))
    ]


def _over_iterations(sweeps: Sequence[Sweep]) -> list[Board]:
    """Each board led by its first metric with a direction that some cell has at two iterations, where it has one."""
    views = [view for board in boards(sweeps) for view in board.views if view.lead.sign and facets_of(sweeps, view)]
    return list({view.name: view for view in reversed(views)}.values())[::-1]


# --- at equal cost -----------------------------------------------------------------------------------------------


def budgets(sweep: Sweep) -> list[dict[str, Any]]:
    """For each start policy and cost the smallest total of what was trained to the end, who had it, and whether totals
    differ.
    """
    last = max((row["iteration"] or 0 for row in _of_trained(sweep)), default=0)
    finished = [row for row in _of_trained(sweep) if row["iteration"] == last]
    found = []
    for policy, rows in grouped(finished, lambda row: row["policy"]).items():
        for name in MATCHED:
            totals = [(row[name], sweep.display_name(row["cell"])) for row in rows if row[name]]
            if totals:
                least = min(total for total, _ in totals)
                who = listed(unique(cell for total, cell in totals if total == least))
                differ = len({total for total, _ in totals}) > 1
                budget = {"policy": policy, "cost": name, "called": COSTS[name], "total": figure(least), "who": who}
                found.append({"sweep": sweep.name, "differ": differ, **budget})
    return found


def matched(sweeps: Sequence[Sweep]) -> dict[str, Any]:
    """Each trained cell as it ended and at the last iteration within the smallest total of each cost, board by board.

    `costs` are those whose totals differ somewhere; `without` are the boards that no cell was scored on before its end.
    """
    smallest = {(b["sweep"], b["policy"], b["cost"]): b for sweep in sweeps for b in budgets(sweep)}
    costs = [name for name in MATCHED if any(b["differ"] for at, b in smallest.items() if at[2] == name)]
    views = _over_iterations(sweeps) if costs else []
    without = [b.name for b in boards(sweeps) if b.lead.sign and b.name not in {view.name for view in views}]
    tables = [
        {"board": view, "lines": [line for sweep in sweeps for line in _lines(sweep, view.lead, view, smallest, costs)]}
        for view in views
    ]
    return {"costs": {name: COSTS[name] for name in costs}, "tables": tables, "without": without if costs else []}


def _lines(
    sweep: Sweep, lead: MetricDisplay, board: Board, smallest: dict[Any, dict[str, Any]], costs: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """A row a grader and trained cell, graders in order and the best at its end first."""
    wanted = (board.name, lead.name, lead.category)
    rows = [
        row
        for row in sweep.results
        if (row["leaderboard"], row["metric"], row["category"]) == wanted and row["judge"] and not is_control(row)
    ]
    for number, graded in enumerate(grouped(rows, lambda row: row["grader"]).values()):
        by_cell = grouped(graded, lambda row: row["cell"])
        raw = {cell: max(members, key=lambda row: row["iteration"] or 0) for cell, members in by_cell.items()}
        for row in sorted(raw.values(), key=best_first(lead)):
            budget = {name: smallest.get((sweep.name, row["policy"], name)) for name in costs}
            within = {name: _within(by_cell[row["cell"]], name, of) for name, of in budget.items()}
            yield {
                "row": row,
                "tags": tags(sweep, row),
                "arm": sweep.info[row["cell"]]["label"],
                "group": f"{sweep.name} {number}",
                "read": {"": _read(row, lead), **{name: _read(found, lead) for name, found in within.items()}},
            }


def _within(rows: Sequence[Row], cost: str, budget: dict[str, Any] | None) -> Row | None:
    """The row of the last iteration that cost no more; nothing is interpolated."""
    if budget is None:
        return None
    limit = budget["total"].value
    affordable = [r for r in rows if r["value"] is not None and r[cost] is not None and r[cost] <= limit]
    return max(affordable, key=lambda row: row["iteration"] or 0, default=None)


def _read(row: Row | None, lead: MetricDisplay) -> dict[str, Any]:
    """What a table shows of a row: iteration, value, interval and n; dashes where no iteration is cheap enough."""
    if row is None:
        return {"iteration": figure(None), "value": figure(None), "interval": [], "n": None}
    return {
        "iteration": figure(row["iteration"]),
        "value": figure(row["value"], lead),
        "interval": ends(row, lead),
        "n": figure(row["n"]),
    }
