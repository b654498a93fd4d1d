"""What a protocol is: the request that puts a question to a language model, and the reading of its reply."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from judges.judge import Question
from judges.transports.messages import TEXT, ChatReply, ChatRequest, Message
from judges.verdicts import OK

NO_VERDICT = "no-verdict"
OWN = "own"
"""As temperature: the protocol's own, or its prompt file's."""
Figure = Literal["label", "five-way", "verdict", "rating"]


@dataclass(frozen=True)
class Reading:
    """What a reply says: P(first beats second) or a rating, NaN with the kind of failure as `status`."""

    value: float
    status: str = OK
    from_text: bool = False
    """Read from text because log-probabilities were missing."""
    one_sided: bool = False
    """Read as a certainty because only one of two labels was among the tokens shown, as the official rule has it."""

    @classmethod
    def failure(cls, status: str) -> Reading:
        """No verdict, for the reason `status`: its value is NaN."""
        return cls(math.nan, status)


class Protocol(ABC):
    """A prompt and its parser: a frozen dataclass of its options, registered in the group `nashbench.protocols`.

    Options are checked when it is made, by ValueError. Reading never raises, whatever the reply holds.
    """

    gives: ClassVar[tuple[Figure, ...]] = ("verdict",)
    """The figures it gives: P from two labels, one of five verdicts, one of three, a rating of a single answer."""

    paths: ClassVar[tuple[str, ...]] = ()
    """Options that name a file; a config resolves these against its own folder, and a key has their content."""

    needs: str = TEXT
    """What a transport must give: the reply's text, or the probabilities of labels or of levels."""

    @property
    def rating(self) -> Protocol | None:
        """The protocol that rates one answer (`Question.first`) by itself, where there is one."""
        return None

    def described(self) -> Any:
        """What decides the verdicts beside code and options, as JSON: a prompt that an installed package brings."""
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


def check_decoding(max_tokens: int | None, temperature: float | str | None) -> None:
    """Raise ValueError for a limit or a temperature that no request can have."""
    if max_tokens is not None and max_tokens < 1:
        raise ValueError(f"max_tokens must be at least 1, got {max_tokens}")
    if isinstance(temperature, str) and temperature != OWN:
        raise ValueError(f"temperature must be a number, {OWN!r} (the protocol's), or null (none is sent)")
    if not isinstance(temperature, str) and not (temperature or 0) >= 0:
        raise ValueError(f"temperature must be at least 0, got {temperature}")


def own_or(temperature: float | str | None, own: float) -> float | None:
    """The temperature of a request: the number that was given, None where none is to be sent, else the protocol's."""
    return own if isinstance(temperature, str) else temperature


def chat(system: str, user: str) -> list[Message]:
    """A system's turn, where there is one, and a user's."""
    turns = [{"role": "system", "content": system}] if system else []
    return [*turns, {"role": "user", "content": user}]


def fill(template: str, values: Mapping[str, str]) -> str:
    """The template with `{name}` replaced where a value has that name; placeholders inside values are left alone."""
    return re.sub(r"\{(\w+)\}", lambda match: values.get(match[1], match[0]), template)
