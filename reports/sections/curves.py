"""Curves: scores over iterations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reports.boards import Board, boards
from reports.charts import Point, extent, near, panel
from reports.numbers import MetricDisplay
from reports.sections.common import cell_lines
from reports.tables import Row, Sweep, grouped, short

SIZES = {1: (640, 280), 2: (480, 240)}  # of a panel alone in its row, and of two
MARKS = 16  # with more points than this on a line only its end is marked
MOST_PANELS = 24  # beyond this many panels only the lead metric of each board is drawn


def scores(sweeps: Sequence[Sweep]) -> list[dict[str, Any]]:
    """One row of panels a board, metric and grader, a panel a training judge, a line an arm and seed.

    Only where some cell was scored at two iterations or more; with many panels only the first such metric of a board.
    """
    views = [view for board in boards(sweeps) for view in board.views if view.lead.sign]
    facets = [facet for view in views for facet in facets_of(sweeps, view)]
    if sum(len(facet["panels"]) for facet in facets) > MOST_PANELS:
        first = {facet["board"].name: facet["metric"] for facet in reversed(facets)}
        facets = [facet for facet in facets if facet["metric"] == first[facet["board"].name]]
    return facets


def facets_of(sweeps: Sequence[Sweep], board: Board, along: str = "iteration") -> list[dict[str, Any]]:
    """The board's lead metric along a column of results: a row of panels a sweep and grader that has two iterations."""
    facets, metric = [], board.lead
    for sweep in sweeps:
        rows = [
            row
            for row in sweep.results
            if (row["leaderboard"], row["metric"], row["category"]) == (board.name, metric.name, metric.category)
            and row["value"] is not None
            and row["iteration"] is not None
            and row[along] is not None
            and row["judge"]
        ]
        for grader, graded in grouped(rows, lambda row: row["grader"]).items():
            if any(len(line) > 1 for line in grouped(graded, lambda row: row["cell"]).values()):
                facets.append(
                    {
                        "sweep": sweep.name,
                        "board": board,
                        "metric": metric,
                        "grader": grader,
                        "panels": _score_panels(sweep, metric, graded, along),
                    }
                )
    return facets


def _score_panels(sweep: Sweep, metric: MetricDisplay, rows: Sequence[Row], along: str) -> list[dict[str, Any]]:
    """A panel a start policy and training judge, all with the same axes."""
    values = [row[key] for row in rows for key in ("value", "ci_low", "ci_high")]
    null = None if metric.log else near(metric.null, values)
    scale = None if metric.low is None or metric.high is None else (metric.low, metric.high)
    y = extent([*values, null], log=metric.log, limits=scale)
    x = extent((row[along] for row in rows), log=metric.log, margin=0)

    def point(row: Row) -> Point:
        return (row[along], row["value"], row["ci_low"], row["ci_high"])

    panels = grouped(rows, lambda row: (row["policy"], row["judge"]))
    longest = max(len({row["iteration"] for row in members}) for members in panels.values())
    return [
        {
            "tags": {"judge": judge},
            "marks": longest <= MARKS,
            **panel(
                cell_lines(sweep, members, "arm", point),
                title=_title(sweep, policy, f"trained by {judge}"),
                size=SIZES.get(len(panels), (300, 190)),
                log=metric.log,
                x=x,
                y=y,
                null=null,
                whole=along != "seconds",
            ),
        }
        for (policy, judge), members in panels.items()
    ]


def _title(sweep: Sweep, policy: str, rest: str) -> str:
    return rest if sweep.one_policy else f"{short(policy)}, {rest}"
