"""How many of a grader's games are ties."""

from __future__ import annotations

from collections.abc import Sequence

from reports.numbers import show
from reports.sections.common import Prose
from reports.tables import Row, Sweep, game_verdicts

TIE = "A=B"  # a game's verdict


def ties(sweep: Sweep, board: str, grader: str) -> Prose:
    """What to know of a grader on a board where most of its games are ties; nothing elsewhere.

    Counted over the samples of all cells, where games are recorded. Elsewhere nothing is said: a preference of one half
    may be the mean of two orders that contradict each other.
    """
    rows = [row for row in sweep.samples if (row["leaderboard"], row["grader"]) == (board, grader)]
    games = _are_ties(rows)
    if 2 * sum(games) <= len(games):
        return []
    untrained = {cell for cell, info in sweep.info.items() if info["trainer"] == "sft"}
    of_start = _are_ties([row for row in rows if row["cell"] in untrained])
    start = f"; {_share(of_start)} on the untrained policy’s answers" if of_start else ""
    counts = f"{show(sum(games))} of {show(len(games))} games that {grader} judged on {board} are ties"
    meaning = "this grader does not tell most of these answers from the baseline’s."
    return [f"{counts} ({_share(games)}{start}): {meaning}"]


def _are_ties(rows: Sequence[Row]) -> list[bool]:
    """Whether each game is a tie."""
    return [game == TIE for row in rows for game in game_verdicts(row)]


def _share(games: Sequence[bool]) -> str:
    """Per cent, rounded to a whole one; 100% are all of them."""
    text = f"{100 * sum(games) / len(games):.0f}%"
    return "more than 99%" if text == "100%" and not all(games) else text
