"""An OpenAI-compatible chat completions endpoint, hosted or served by vLLM, SGLang, llama.cpp and others."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from judges.reading import shortened
from judges.transports.http import EndpointTransport
from judges.transports.messages import LABELS, TEXT, ChatReply, ChatRequest
from judges.transports.replies import UPSTREAM, content_text, count_of, number_of, text_of

ROOM = {"none": 0, "minimal": 1024, "low": 4096, "medium": 16384}
MOST_ROOM = 32768
"""Tokens that a model may think by its effort, on top of a protocol's own limit, which is for what it then writes."""


@dataclass(frozen=True, repr=False)
class ChatCompletions(EndpointTransport):
    """A chat completions endpoint, OpenAI's or a compatible one.

    The limit of a reply is sent as `max_completion_tokens` to OpenAI's own host and as `max_tokens` to others, and the
    other way where the first is refused. A refused `temperature`, `top_p` or `seed` is left out from then on; the
    probabilities of labels are never given up.

    Args:
        base_url, api_key_env, extra_headers, extra_body: as of any endpoint.
        reasoning: {effort: none | minimal | low | medium | high | ...}, what the model is told about thinking; where it
            may think, its reply has that many more tokens: 1024, 4096, 16384, beyond medium 32768.
    """

    reasoning: Mapping[str, Any] | None = None

    gives = frozenset({TEXT, LABELS})
    path = "/chat/completions"

    def __post_init__(self) -> None:
        super().__post_init__()
        wrong = self.reasoning is not None and (
            not isinstance(self.reasoning, Mapping)
            or not isinstance(self.reasoning.get("effort"), str)
            or (len(self.reasoning) > 1 and not self._is_router)
        )
        if wrong:
            raise ValueError(
                f"reasoning must be {{effort: TEXT}}, such as {{effort: low}}, got {shortened(self.reasoning)}; put "
                "what else an endpoint knows into extra_body"
            )

    @property
    def _is_router(self) -> bool:
        return urlsplit(self.url).hostname == "openrouter.ai"

    def sent(self, request: ChatRequest) -> Mapping[str, Any]:
        further = {name: value for name, value in super().sent(request).items() if name != "path"}
        return further | ({"reasoning": dict(self.reasoning)} if self.reasoning else {})

    def paid_tokens(self, request: ChatRequest) -> int:
        if not self.reasoning:
            return request.max_tokens
        return request.max_tokens + ROOM.get(self.reasoning["effort"], MOST_ROOM)

    def body(self, model: str, request: ChatRequest, refused: frozenset[str]) -> dict[str, Any]:
        decoding = {"temperature": request.temperature, "top_p": request.top_p, "seed": request.seed}
        body: dict[str, Any] = {"model": model, "messages": list(request.messages)}
        body |= {name: value for name, value in decoding.items() if value is not None}
        body[self.limit_name(refused)] = self.paid_tokens(request)
        if request.top_logprobs:
            body |= {"logprobs": True, "top_logprobs": request.top_logprobs}
        if self.reasoning:
            effort = {"reasoning_effort": self.reasoning["effort"]}
            body |= {"reasoning": dict(self.reasoning)} if self._is_router else effort
        return body

    def limit_name(self, refused: frozenset[str]) -> str:
        """The name of a reply's limit: the host's, or the other one where a model refuses that."""
        names = ["max_completion_tokens", "max_tokens"]
        first, other = names if self.is_official else reversed(names)
        return other if first in refused else first

    def read(self, content: Any, request: ChatRequest) -> ChatReply:
        return read_completion(content)


def read_completion(content: Any) -> ChatReply:
    """The JSON of a chat completion as a reply: its first choice. Raises on anything else.

    Tokens of thinking are counted among those written, also where an endpoint counts them beside.
    """
    choice = content["choices"][0]
    message, usage = choice["message"], content.get("usage") or {}
    if choice.get("finish_reason") == "error":
        return ChatReply(status=UPSTREAM)
    reply = ChatReply(
        text=content_text(message.get("content")),
        top=_top(choice.get("logprobs")),
        finish=text_of(choice.get("finish_reason")) or "stop",
        refused=bool(message.get("refusal")),
    )
    return replace(reply, input_tokens=count_of(usage.get("prompt_tokens")), output_tokens=_written(usage))


def _written(usage: Mapping[str, Any]) -> int:
    """Tokens written and thought."""
    written = count_of(usage.get("completion_tokens"))
    details = usage.get("completion_tokens_details") or {}
    if not count_of(details.get("reasoning_tokens")):
        return written
    return max(written, count_of(usage.get("total_tokens")) - count_of(usage.get("prompt_tokens")))


def _top(logprobs: Any) -> list[tuple[str, float]] | None:
    """(token, log-probability) of the first token's alternatives; None where there are none. Null is -inf, as some
    servers spell it.
    """
    if not logprobs or not logprobs.get("content"):
        return None
    top = [
        (text_of(each["token"]), -math.inf if each["logprob"] is None else number_of(each["logprob"]))
        for each in logprobs["content"][0].get("top_logprobs") or ()
    ]
    if not all(value <= 1e-3 or math.isnan(value) for _, value in top):
        raise ValueError("a log-probability above 0")
    return top or None
