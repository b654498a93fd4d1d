"""What a protocol is: the request that puts a question to a language model, and the reading of its reply."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

from judges.judge import Question
from judges.transports.messages import ChatReply, ChatRequest, Message
from judges.verdicts import OK

NO_VERDICT = "no-verdict"


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
