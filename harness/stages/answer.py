"""A policy's answers to one part of a leaderboard's questions, or a control's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import users_input
from harness.identity import Artifact
from harness.specs import Checkpoint, ComponentSpec
from harness.stage import Facts, Stage, not_in_seed
from harness.stages.context import Context
from harness.stages.prompts import Prompts, TuningPrompts
from harness.stages.questions import PARTS, answer_rooms, board_requests, within_room
from harness.stages.sample import SAMPLING_ADVICE
from harness.stages.text_metrics import text_figures
from judges.judge import Prompt, messages_of
from trainers.engines.randomness import response_seeds
from trainers.options import Sampling

if TYPE_CHECKING:
    from leaderboards.leaderboard import Part as QuestionPart
    from leaderboards.records import BoardQuestion
    from trainers.policies.policy import Response

GREEDY = 1e-6  # a nucleus so small that only the likeliest token is left

Answered = list[tuple["BoardQuestion", list[int], list["Response"]]]
"""Each request, the tokens of the conversation it was asked in, and the answers."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Answer(Stage):
    """`answers.parquet`: id of the request, number, text, tokens, whether it ended by itself and whether thinking was
    taken out of the text.

    Attributes:
        reference: the untrained policy, under which the answers' likelihood is measured.
        draw: tells the draws of one policy apart: a cell's seed, a control, the baseline.
        part, first, last: which of the board's questions: from `first` on, up to `last` where there is one. An answer
            is drawn by its question, so that it is the same in whichever part that stands.
        control: None for the policy's own answers; else a key of `CONTROLS`.
        constant: the stage of an earlier part whose one answer the constant control gives again.
        precision: in which policies are opened; None behind an endpoint.
    """

    kind = "answer"
    version = 8
    memory_advice = SAMPLING_ADVICE

    board: ComponentSpec
    policy: Checkpoint
    reference: Checkpoint
    prompts: Prompts | TuningPrompts
    sampling: Sampling
    draw: str
    part: QuestionPart = not_in_seed()
    first: int = not_in_seed()
    last: int | None = not_in_seed(None)
    precision: str | None
    control: str | None = None
    constant: Stage | Artifact | None = None

    def run(self, context: Context) -> Facts:
        import pandas as pd

        answered = CONTROLS[self.control](self, context, self.requests(context, self.part))
        rows = [
            {"id": request.id, "number": number, "text": r.text, "tokens": r.tokens}
            | {"finished": r.finished, "stripped": r.stripped}
            for request, _, responses in answered
            for number, r in enumerate(responses)
        ]
        columns = ["id", "number", "text", "tokens", "finished", "stripped"]
        pd.DataFrame(rows, columns=columns).to_parquet(context.out / "answers.parquet")
        return {"figures": self._figures(context, answered) if answered else {}}

    def requests(self, context: Context, part: QuestionPart) -> list[BoardQuestion]:
        """What the board asks in a part."""
        return board_requests(context, self.board, self.prompts, self.sampling.temperature, part)

    def limits(self, context: Context, requests: Sequence[BoardQuestion]) -> dict[str, int]:
        """Question id -> tokens of its answer: `sampling.max_tokens`, or what the policy's context leaves for it.

        The context of a policy behind an endpoint is not known.
        """
        rooms: dict[str, int] = {}
        if not self.policy.endpoint:
            policy = self._opened(context)
            rooms = answer_rooms(requests, lambda prompt: len(policy.encode(prompt)), policy.context_length)
        most = self.sampling.max_tokens
        return {request.id: within_room(most, rooms.get(request.id, most)) for request in requests}

    def _opened(self, context: Context) -> Any:
        return context.policy(self.policy, str(self.precision))

    def _figures(self, context: Context, answered: Answered) -> dict[str, float]:
        """Signs of collapse; those of the curve's questions, which every iteration has, compare over iterations.

        `entropy` is of sampled answers alone, and is missing where all are greedy: these say nothing of it. Behind an
        endpoint there are no log-probabilities, so it and `start_nll` are missing.
        """
        figures = text_figures([r.text for _, _, responses in answered for r in responses])
        if self.control is not None or self.policy.endpoint:
            return figures
        sampled = [row for row in answered if row[0].temperature > 0]
        if sampled:
            figures["entropy"] = self._nll(context, self.policy, sampled)
        return figures | {"start_nll": self._nll(context, self.reference, answered)}

    def _nll(self, context: Context, policy: Checkpoint, answered: Answered) -> float:
        """Mean negative log-likelihood of the answers under a policy, nats a token.

        Under the policy that drew them at temperature 1 (and top_p 1) it estimates its entropy; colder, it lies below.
        """
        import torch

        scorer, size = context.policy(policy, str(self.precision)), 64
        rows = [(tokens, r.tokens) for _, tokens, responses in answered for r in responses]
        total = 0.0
        with torch.no_grad():
            for i in range(0, len(rows), size):
                prompts, tokens = zip(*rows[i : i + size], strict=True)
                total -= float(scorer.log_probs(prompts, tokens).double().sum())
        return total / max(1, sum(len(tokens) for _, tokens in rows))

    def draw_answers(
        self,
        context: Context,
        ids: Sequence[str],
        prompts: Sequence[Prompt],
        k: int,
        temperature: float,
        limit: int,
    ) -> list[tuple[list[int], list[Response]]]:
        """k answers to each prompt and the prompt's tokens, of which there are none behind an endpoint.

        Args:
            ids: of the questions, by which the answers are drawn.
            limit: tokens of an answer.
        """
        seeds = response_seeds(self.seed, ids)
        if endpoint := self.policy.endpoint:
            from harness.endpoint_policy import sample_texts
            from trainers.engines.engine import Decoding

            decoding = Decoding(max_tokens=limit, temperature=temperature, top_p=self.sampling.top_p)
            conversations = [messages_of(prompt) for prompt in prompts]
            with users_input():
                texts = sample_texts(endpoint, conversations, k, decoding, seeds, context.unfinished, context.report)
            strip = self.sampling.strip_thinking
            return [([], [r.without_thinking() if strip else r for r in responses]) for responses in texts]
        policy = self._opened(context)
        encoded = [policy.encode(prompt) for prompt in prompts]
        sampling = _at_temperature(self.sampling, temperature).model_copy(update={"max_tokens": limit})
        return list(zip(encoded, policy.sample(encoded, k, sampling, seeds), strict=True))


def _at_temperature(sampling: Sampling, temperature: float) -> Sampling:
    """The sweep's sampling at a request's temperature; 0 takes the likeliest token."""
    changes = {"temperature": temperature} if temperature > 0 else {"temperature": 1.0, "top_p": GREEDY}
    return sampling.model_copy(update=changes)


def _by_policy(stage: Answer, context: Context, requests: Sequence[BoardQuestion]) -> Answered:
    """The policy's own answers; a later turn is asked after the policy's answer to the earlier one."""
    from leaderboards.leaderboard import conversation

    by_id = {request.id: request for request in requests}
    texts = dict[str, list[str]]()
    answered: dict[str, tuple[BoardQuestion, list[int], list[Response]]] = {}
    limits = stage.limits(context, requests)

    def together(request: BoardQuestion) -> tuple[int, float, int, int]:
        """What requests have in common that are answered in one batch; turns in order."""
        return request.turn, request.temperature, request.answers, limits[request.id]

    for (_, temperature, k, limit), group in groupby(sorted(requests, key=together), key=together):
        batch = list(group)
        prompts = [r.prompt if r.follows is None else conversation(r, by_id, texts) for r in batch]
        drawn = stage.draw_answers(context, [r.id for r in batch], prompts, k, temperature, limit)
        for request, (tokens, responses) in zip(batch, drawn, strict=True):
            answered[request.id] = (request, tokens, responses)
            texts[request.id] = [r.text for r in responses]
    return [answered[request.id] for request in requests]


def _constant(stage: Answer, context: Context, requests: Sequence[BoardQuestion]) -> Answered:
    """One fixed answer to everything: the untrained policy's to the first request that it does not leave empty.

    It is drawn once for all parts: an endpoint need not give it a second time.
    """
    if stage.constant is not None and (earlier := _first_response(context.read(stage.constant))):
        return [(request, [], [earlier]) for request in requests]
    for request in [each for part in PARTS for each in stage.requests(context, part)]:
        _, tokens, responses = _by_policy(stage, context, [request])[0]
        if responses[0].text.strip():
            break
    return [(request, tokens, responses[:1]) for request in requests]


def _longest(stage: Answer, context: Context, requests: Sequence[BoardQuestion]) -> Answered:
    """The longest of k answers of the untrained policy, in characters."""
    sampling = stage.sampling
    several = [replace(request, temperature=sampling.temperature, answers=sampling.k) for request in requests]
    answered = _by_policy(stage, context, several)
    return [(request, tokens, [max(drawn, key=lambda r: len(r.text))]) for request, tokens, drawn in answered]


CONTROLS = {None: _by_policy, "constant": _constant, "longest": _longest}


def _first_response(folder: Path) -> Response | None:
    """The first answer of an `Answer`; None where it has none."""
    import pandas as pd

    from trainers.policies.policy import Response

    for row in pd.read_parquet(folder / "answers.parquet").head(1).to_dict("records"):
        return Response([int(token) for token in row["tokens"]], row["text"], bool(row["finished"]))
    return None


def read_flags(folder: Path) -> dict[str, dict[str, bool]]:
    """Question id -> whether its first answer ended within its tokens (`finished`), and whether it was `stripped`."""
    import pandas as pd

    frame = pd.read_parquet(folder / "answers.parquet")
    first = frame[frame["number"] == 0]
    flags = zip(first["id"], first["finished"], first["stripped"], strict=True)
    return {str(id): {"finished": bool(finished), "stripped": bool(stripped)} for id, finished, stripped in flags}


def read_answers(folder: Path) -> dict[str, list[str]]:
    """The texts of an `Answer` by request."""
    import pandas as pd

    frame = pd.read_parquet(folder / "answers.parquet").sort_values("number", kind="stable")
    return {str(id): list(texts) for id, texts in frame.groupby("id", sort=False)["text"]}
