"""A look at a leaderboard's questions before anything starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.errors import UserError, users_input
from harness.identity import Artifact
from harness.specs import Checkpoint, ComponentSpec
from harness.stage import Facts, Stage
from harness.stages.context import Context
from harness.stages.prompts import Prompts, heldout_prompts

if TYPE_CHECKING:
    from leaderboards.leaderboard import Part as QuestionPart
    from leaderboards.records import BoardQuestion

PARTS: tuple[QuestionPart, ...] = ("curve", "rest")
"""A board's questions: those of every iteration, and those of the last one alone."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Questions(Stage):
    """A leaderboard's questions, checked against the context length; an earlier turn's answer is not known yet and
    counts as empty. The context length of a policy behind an endpoint is not known.
    """

    kind = "questions"
    version = 2

    board: ComponentSpec
    policy: Checkpoint
    prompts: Prompts
    max_tokens: int
    temperature: float
    precision: str | None

    def run(self, context: Context) -> Facts:
        from leaderboards.leaderboard import conversation

        requests = [
            request
            for part in PARTS
            for request in board_requests(context, self.board, self.prompts, self.temperature, part)
        ]
        if self.policy.endpoint:
            return {"questions": len(requests)}
        policy = context.policy(self.policy, str(self.precision))
        by_id, silent = {r.id: r for r in requests}, {r.id: [""] for r in requests}
        prompts = [r.prompt if r.follows is None else conversation(r, by_id, silent) for r in requests]
        tokens, room = [len(policy.encode(prompt)) for prompt in prompts], policy.context_length
        longest = max(range(len(tokens)), key=tokens.__getitem__)
        if room is not None and tokens[longest] + self.max_tokens > room:
            raise UserError(
                f"question {requests[longest].id!r} has {tokens[longest]} tokens and sampling.max_tokens is "
                f"{self.max_tokens}; the policy's context holds {room}. Take the question out of the board's data or "
                "lower sampling.max_tokens"
            )
        return {"questions": len(requests), "longest": tokens[longest]}


def board_requests(
    context: Context, board: ComponentSpec, prompts: Stage | Artifact, temperature: float, part: QuestionPart
) -> list[BoardQuestion]:
    """What a board asks of a policy in one part of its questions."""
    heldout = list(heldout_prompts(context, prompts))
    with users_input():
        return list(context.board(board).requests(heldout, temperature, part))
