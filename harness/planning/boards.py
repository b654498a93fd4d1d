"""The leaderboards and the algorithm of a cell, checked against the kind of policy."""

from __future__ import annotations

from harness.components import board_spec, built, in_place
from harness.config.schema import Config, Game
from harness.matrix import Cell, variants
from harness.registry import load
from harness.specs import ComponentSpec
from trainers.algorithm import Algorithm
from trainers.options import Endpoint


def checked_boards(config: Config, policy: str | Game | Endpoint) -> list[ComponentSpec]:
    """The leaderboards.

    Raises:
        ValueError: one is there twice, rates another kind of policy, or opens a checkpoint that nobody has.
    """
    boards = [v for entry in config.leaderboards for v in variants(entry)]
    plays = "game" if isinstance(policy, Game) else "text"
    twice = next((board for board in boards if [b.name for b in boards].count(board.name) > 1), None)
    if twice:
        raise ValueError(
            f"{twice.place}: the leaderboard {twice.name!r} is there twice; a sweep has each once (a list of tasks is "
            "written as a text with commas: 'arc_easy,hellaswag')"
        )
    for board in boards:
        kind = in_place(board, lambda name=board.name: load("leaderboards", name))  # type: ignore[misc]
        if kind.plays != plays:
            wanted = "an exact game" if kind.plays == "game" else "a language model"
            raise ValueError(f"leaderboard {board.name!r} rates {wanted}; this policy is none")
        if kind.opens_checkpoint and isinstance(policy, Endpoint):
            raise ValueError(
                f"{board.place}: {board.name!r} opens the checkpoint, and the policy {str(policy)!r} is behind an "
                "endpoint, which gives texts alone; take the leaderboard out"
            )
    return [board_spec(board, policy) for board in boards]


def checked_algorithm(cell: Cell, plays: str) -> Algorithm:
    """The cell's algorithm. Raises ValueError where it plays only another kind of policy."""
    algorithm: Algorithm = built("trainers", cell.trainer)
    if algorithm.needs not in (None, plays):
        wanted = "an exact game" if algorithm.needs == "game" else "a language model"
        raise ValueError(f"trainer {cell.trainer.name!r} plays only {wanted}; this policy is none")
    return algorithm
