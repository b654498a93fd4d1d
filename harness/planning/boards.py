"""The leaderboards and the algorithm of a cell, checked against the kind of policy."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from harness.components import board_spec, built, in_place
from harness.config import Config, Game
from harness.matrix import Cell, variants
from harness.registry import load
from harness.specs import ComponentSpec
from judges.code_identity import code_identity
from leaderboards.leaderboard import Leaderboard
from leaderboards.leaderboard import Part as QuestionPart
from trainers.algorithm import Algorithm
from trainers.options import Endpoint

BoardEntry = Literal["requests", "grade", "evaluate", "rate", "by_prompt"]
LIMITS = ("limit", "curve_limit", "max_tokens")


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
        if kind.policy_kind != plays:
            wanted = "an exact game" if kind.policy_kind == "game" else "a language model"
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


def question_parts(board: ComponentSpec, *, final: bool) -> list[QuestionPart]:
    """The parts of a board's questions that are asked: those of the curve, and at the last iteration the rest."""
    asked: dict[QuestionPart, bool] = {"curve": _limits(board)[0] != 0, "rest": final}
    return [part for part, wanted in asked.items() if wanted]


def question_range(board: ComponentSpec, part: QuestionPart) -> tuple[int, int | None]:
    """The first and the end of the questions of a part; the end is None where all that follow are asked."""
    curve, limit = _limits(board)
    return (0, curve) if part == "curve" else (curve, limit)


def answer_tokens(board: ComponentSpec, in_training: int) -> int:
    """The longest answer to a board's questions, tokens: its option, else the authors' number for their own questions,
    else what training samples. Questions that the pocket world brings are not the authors'.
    """
    given = board.options.get("max_tokens")
    authors = None if board.source is not None else load("leaderboards", board.name).default_max_tokens
    return int(given or authors or in_training)


def _limits(board: ComponentSpec) -> tuple[int, int | None]:
    """How many questions the curve has, and how many there are at most."""
    kind = load("leaderboards", board.name)
    given = {name: board.options.get(name, getattr(kind, name)) for name in ("curve_limit", "limit")}
    limit = given["limit"]
    return (given["curve_limit"] if limit is None else min(given["curve_limit"], limit)), limit


def board_reading(board: ComponentSpec, entry: BoardEntry) -> ComponentSpec:
    """The board as one kind of stage reads it: with the code that a method reaches, and without options that it does
    not read. The limits are left out everywhere: which questions there are, and how long an answer may be, is the
    answers' to say.
    """
    kind = load("leaderboards", board.name)
    unread = LIMITS + (kind.grading_options if entry == "requests" else ())
    options = {k: v for k, v in board.determines["options"].items() if k not in unread}
    code = code_identity(kind, Leaderboard, (entry,))
    return replace(board, determines={**board.determines, "options": options}, code=code)
