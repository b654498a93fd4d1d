"""Decision endpoints: typed questions about an input, answered by a probability for each option, without any text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from judges.transports.http import EndpointTransport
from judges.transports.messages import LABELS, LEVELS, ChatReply, ChatRequest
from judges.transports.replies import count_of, log_of, probability_of, text_of

ASKED = "Which one does the input ask for?"
NAME = "verdict"
MASS = 0.02
"""How far the probabilities of all options may be from 1."""


@dataclass(frozen=True, repr=False)
class Decisions(EndpointTransport):
    """OpenAI's `POST /v1/decisions` and compatible ones: a list of typed questions about a text or a chat.

    The wire is that of the openai package's `client.decisions` (3.52). A protocol's labels are put as a choice, its
    levels as a score; a question that the model declines is a "refusal". Options: as of any endpoint.
    """

    gives = frozenset({LABELS, LEVELS})
    path = "/decisions"

    @property
    def greeting(self) -> ChatRequest:
        return ChatRequest([{"role": "user", "content": "Hello"}], 1, None, labels=("A", "B"))

    def sent(self, request: ChatRequest) -> Mapping[str, Any]:
        return {**super().sent(request), "options": list(options_of(request))}

    def body(self, model: str, request: ChatRequest, refused: frozenset[str]) -> dict[str, Any]:
        question: dict[str, Any] = {"name": NAME, "instructions": ASKED}
        if request.levels:
            question |= {"type": "score", "levels": [{"label": level} for level in request.levels]}
        else:
            question |= {"type": "choice", "choices": [{"value": label} for label in options_of(request)]}
        return {"model": model, "input": list(request.messages), "questions": [question]}

    def read(self, content: Any, request: ChatRequest) -> ChatReply:
        (answer,) = content["answers"]
        usage = content.get("usage") or {}
        tokens = count_of(usage.get("input_tokens")), count_of(usage.get("output_tokens"))
        if answer["type"] == "refusal":
            return ChatReply(refused=True, input_tokens=tokens[0], output_tokens=tokens[1])
        name = "label" if answer["type"] == "score" else "value"
        shares = {text_of(each[name]): probability_of(each["probability"]) for each in answer["probabilities"]}
        return distribution(shares, options_of(request), tokens)


@dataclass(frozen=True, repr=False)
class SystemOne(EndpointTransport):
    """The open wire `POST /v1/systemone`: named questions about a state, served by vLLM 0.32, transformers 5.23 and
    later, SGLang, llama.cpp and others.

    A protocol's labels are put as a `choice`, its levels as a `score`; a question that is missing from the answers was
    declined: a "refusal". The state is the chat in one text. Options: as of any endpoint.
    """

    gives = frozenset({LABELS, LEVELS})
    path = "/systemone"

    @property
    def greeting(self) -> ChatRequest:
        return ChatRequest([{"role": "user", "content": "Hello"}], 1, None, labels=("A", "B"))

    def sent(self, request: ChatRequest) -> Mapping[str, Any]:
        return {**super().sent(request), "options": list(options_of(request))}

    def body(self, model: str, request: ChatRequest, refused: frozenset[str]) -> dict[str, Any]:
        question: dict[str, Any] = {"instructions": ASKED}
        if request.levels:
            question |= {"type": "score", "criteria": list(request.levels)}
        else:
            question |= {"type": "choice", "criteria": dict.fromkeys(options_of(request))}
        state = "\n\n".join(turn["content"] for turn in request.messages)
        return {"model": model, "state": state, "questions": {NAME: question}}

    def read(self, content: Any, request: ChatRequest) -> ChatReply:
        usage = content.get("usage") or {}
        tokens = count_of(usage.get("input_tokens")), count_of(usage.get("output_tokens"))
        answer = content["answers"].get(NAME)
        if answer is None or answer["type"] == "refusal":
            return ChatReply(refused=True, input_tokens=tokens[0], output_tokens=tokens[1])
        shares = {text_of(option): probability_of(share) for option, share in answer["probabilities"].items()}
        if request.levels:  # named by their place
            shares = {level: shares[str(place)] for place, level in enumerate(request.levels)}
        return distribution(shares, options_of(request), tokens)


def options_of(request: ChatRequest) -> tuple[str, ...]:
    """What may be answered: the levels, or the two labels."""
    return request.levels or request.labels or ()


def distribution(shares: Mapping[str, float], options: Sequence[str], tokens: tuple[int, int]) -> ChatReply:
    """A reply with the options' log-probabilities. Raises ValueError where they are not a distribution over these."""
    if shares.keys() != set(options) or abs(sum(shares.values()) - 1) > MASS:
        raise ValueError("no distribution over the options")
    top = [(option, log_of(shares[option])) for option in options]
    best = max(options, key=lambda option: shares[option])
    return ChatReply(best, top, input_tokens=tokens[0], output_tokens=tokens[1])
