"""How many of a grader's verdicts are ties."""

from __future__ import annotations

from collections.abc import Sequence

from reports.numbers import show
from reports.sections.common import Prose
from reports.tables import Row, Sweep

MANY = 0.5  # share of ties from which on a board's scores say little
TIE = "A=B"  # a game's verdict


def ties(sweep: Sweep, board: str, grader: str) -> Prose:
    """What to know of a grader on a board where at least half of its verdicts are ties; nothing elsewhere.

    Counted over the samples of all cells: each game where games are recorded, else each preference, a tie at one half.
    Failed verdicts and ratings are not counted.
    """
    rows = [row for row in sweep.samples if (row["leaderboard"], row["grader"]) == (board, grader)]
    found = _verdicts(rows)
    if not found or sum(found) < MANY * len(found):
        return []
    untrained = {cell for cell, info in sweep.info.items() if info["trainer"] == "sft"}
    of_start = _verdicts([row for row in rows if row["cell"] in untrained])
    start = f"; {_share(of_start)} on the untrained policy’s answers" if of_start else ""
    counts = (
        f"{show(sum(found))} of {show(len(found))} verdicts by {grader} on {board} are ties ({_share(found)}{start})"
    )
    return [f"{counts}: this grader does not tell most of these answers from the baseline’s."]


def _verdicts(rows: Sequence[Row]) -> list[bool]:
    """Whether each verdict is a tie."""
    found: list[bool] = []
    for row in rows:
        games = [game for game in (row["first_game"], row["second_game"]) if game]
        if games:
            found += [game == TIE for game in games]
        elif row["preference"] is not None:
            found.append(row["preference"] == 0.5)
    return found


def _share(found: Sequence[bool]) -> str:
    """Whole per cent, rounded down: all of them alone are 100%."""
    return f"{100 * sum(found) // len(found)}%"
