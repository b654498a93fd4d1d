"""What a protocol is: the request that puts a question to a language model, and the reading of its reply."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from judges.judge import Question
from judges.verdicts import OK

Message = dict[str, str]
NO_VERDICT = "no-verdict"


@dataclass(frozen=True)
class ChatRequest:
    """What a model is asked.

    Attributes:
        messages: the chat, `{"role", "content"}` each.
        max_tokens, temperature: of the reply; temperature 0 is greedy.
        labels: the two tokens, for the first and the second response, whose probabilities as first token of the reply
            are the verdict; None where the verdict is in the text.
        top_logprobs: how many likely first tokens are asked of an endpoint; 0 without labels.
    """

    messages: Sequence[Message]
    max_tokens: int
    temperature: float = 0.0
    labels: tuple[str, str] | None = None
    top_logprobs: int = 0


@dataclass(frozen=True)
class ChatReply:
    """A model's reply.

    Attributes:
        text: the model's words.
        top: (token, log-probability) of the likely first tokens; None where the backend gave none.
        finish: why the reply ended: "stop", "length" or "content_filter".
        refused: the endpoint says that the model refused.
        input_tokens, output_tokens, latency (seconds), cost (US$): as in `Answer`.
        calls: how often the endpoint was called for it, retries included; 0 for a reply from the cache.
        status: "ok", or why there is no reply.
    """

    text: str = ""
    top: Sequence[tuple[str, float]] | None = None
    finish: str = "stop"
    refused: bool = False
    input_tokens: int = 0
    output_tokens: int = 0
    latency: float = 0.0
    cost: float = 0.0
    calls: int = 0
    status: str = OK

    def followed_by(self, later: ChatReply) -> ChatReply:
        """Both as one reply: texts on lines of their own, tokens, seconds and cost added; it ended as the later one."""
        return replace(
            later,
            text=f"{self.text}\n{later.text}",
            input_tokens=self.input_tokens + later.input_tokens,
            output_tokens=self.output_tokens + later.output_tokens,
            latency=self.latency + later.latency,
            cost=self.cost + later.cost,
            calls=self.calls + later.calls,
        )


@dataclass(frozen=True)
class Reading:
    """What a reply says: P(first beats second) or a rating, NaN with the kind of failure as `status`."""

    value: float
    status: str = OK
    from_text: bool = False
    """Read from text because log-probabilities were missing."""

    @classmethod
    def failure(cls, status: str) -> Reading:
        """No verdict, for the reason `status`: its value is NaN."""
        return cls(math.nan, status)


class Protocol(ABC):
    """A prompt and its parser. Reading never raises, whatever the reply holds."""

    @property
    def rating(self) -> Protocol | None:
        """The protocol that rates one answer (`Question.first`) by itself, where there is one."""
        return None

    @abstractmethod
    def request(self, question: Question) -> ChatRequest:
        """What to ask about the responses as placed."""

    @abstractmethod
    def read(self, reply: ChatReply, question: Question) -> Reading:
        """The verdict in a successful reply."""

    def again(self, request: ChatRequest, reply: ChatReply) -> ChatRequest | None:
        """The follow-up request where a reply has no verdict; None where there is none."""
        return None


def chat(system: str, user: str) -> list[Message]:
    """A system's turn, where there is one, and a user's."""
    turns = [{"role": "system", "content": system}] if system else []
    return [*turns, {"role": "user", "content": user}]


def fill(template: str, values: Mapping[str, str]) -> str:
    """The template with `{name}` replaced where a value has that name; placeholders inside values are left alone."""
    return re.sub(r"\{(\w+)\}", lambda match: values.get(match[1], match[0]), template)
