"""What a language model is asked, and what it replies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from judges.verdicts import OK

Message = dict[str, str]
TEXT, LABELS, LEVELS = "text", "labels", "levels"
"""What a transport may give of a reply: words, the probabilities of labels, or those of a scale's levels."""


@dataclass(frozen=True)
class ChatRequest:
    """What a model is asked.

    Attributes:
        messages: the chat, `{"role", "content"}` each.
        max_tokens, temperature: of the reply; temperature 0 is greedy, None is the model's own.
        labels: the two tokens, for the first and the second response, whose probabilities as first token of the reply
            are the verdict; None where the verdict is in the text.
        top_logprobs: how many likely first tokens are asked of an endpoint; 0 without labels.
        top_p, seed: of the reply; None sends none.
        levels: a scale from its lowest level to its highest, whose probabilities are the verdict.
    """

    messages: Sequence[Message]
    max_tokens: int
    temperature: float | None = 0.0
    labels: tuple[str, str] | None = None
    top_logprobs: int = 0
    top_p: float | None = None
    seed: int | None = None
    levels: tuple[str, ...] = ()


@dataclass(frozen=True)
class ChatReply:
    """A model's reply.

    Attributes:
        text: the model's words.
        top: (token, log-probability) of the likely first tokens, or of the labels or levels that were asked about; None
            where the backend gave none.
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
