"""A look at a leaderboard's questions before anything starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.errors import UserError, users_input
from harness.identity import Artifact
from harness.specs import Checkpoint, ComponentSpec
from harness.stage import Facts, Stage
from harness.stages.context import Context
from harness.stages.prompts import Prompts, heldout_prompts
from judges.judge import Prompt

if TYPE_CHECKING:
    from leaderboards.leaderboard import Part as QuestionPart
    from leaderboards.records import BoardQuestion

PARTS: tuple[QuestionPart, ...] = ("curve", "rest")
"""A board's questions: those of every iteration, and those of the last one alone."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Questions(Stage):
    """A leaderboard's questions, checked against the context length, which is not known of a policy behind an endpoint.

    Attributes:
        max_tokens: of an answer.
        fixed: whether the user says so; else answers for which the context has less room are shorter, and told.
    """

    kind = "questions"
    version = 3

    board: ComponentSpec
    policy: Checkpoint
    prompts: Prompts
    max_tokens: int
    fixed: bool
    temperature: float
    precision: str | None

    def run(self, context: Context) -> Facts:
        requests = [
            request
            for part in PARTS
            for request in board_requests(context, self.board, self.prompts, self.temperature, part)
        ]
        if self.policy.endpoint:
            return {"questions": len(requests)}
        policy = context.policy(self.policy, str(self.precision))
        rooms = answer_rooms(requests, lambda prompt: len(policy.encode(prompt)), policy.context_length)
        tightest = min(rooms, key=rooms.__getitem__, default=None)
        if tightest is not None and rooms[tightest] < (self.max_tokens if self.fixed else 1):
            raise UserError(
                f"the policy's context of {policy.context_length} tokens leaves {max(0, rooms[tightest])} for the "
                f"answer to question {tightest!r}, and the board's max_tokens is {self.max_tokens}. Take the question "
                "out of the board's data or lower its max_tokens"
            )
        return {"questions": len(requests), "warnings": self._shorter(rooms)}

    def _shorter(self, rooms: Mapping[str, int]) -> list[str]:
        """What to tell of answers that are shorter than asked for."""
        limits = [limit for room in rooms.values() if (limit := within_room(self.max_tokens, room)) < self.max_tokens]
        told = f"{self.board.name}: max_tokens is {self.max_tokens}, and the policy's context leaves"
        return [f"{told} {len(limits)} of {len(rooms)} answers less, {min(limits)} the least"] if limits else []


STEP = 64
"""Answers that the context makes shorter have a multiple of this many tokens, so that few lengths need a batch each."""


def answer_rooms(
    requests: Sequence[BoardQuestion], count: Callable[[Prompt], int], context: int | None
) -> dict[str, int]:
    """Question id -> tokens that the context leaves for its answer, where that is known.

    The turns of a conversation share what is left beside the prompts of all of them, since the later ones hold the
    answers to the earlier.

    Args:
        count: tokens of a prompt.
        context: tokens in all; None where it is not known, and then nothing is returned.
    """
    from leaderboards.leaderboard import conversation

    if context is None:
        return {}
    by_id, silent = {r.id: r for r in requests}, {r.id: [""] for r in requests}
    rooms: dict[str, int] = {}
    for request in sorted(requests, key=lambda r: -r.turn):
        if request.id not in rooms:  # the last turn of its conversation
            prompt = request.prompt if request.follows is None else conversation(request, by_id, silent)
            room, turn = (context - count(prompt)) // request.turn, request
            rooms[turn.id] = room
            while turn.follows is not None:
                turn = by_id[turn.follows]
                rooms[turn.id] = room
    return rooms


def within_room(max_tokens: int, room: int) -> int:
    """The longest answer where the context leaves this much room, tokens."""
    return max_tokens if room >= max_tokens else room // STEP * STEP or room


def board_requests(
    context: Context, board: ComponentSpec, prompts: Stage | Artifact, temperature: float, part: QuestionPart
) -> list[BoardQuestion]:
    """What a board asks of a policy in one part of its questions."""
    heldout = list(heldout_prompts(context, prompts))
    with users_input():
        return list(context.board(board).requests(heldout, temperature, part))
