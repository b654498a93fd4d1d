"""Questions that decision models answer without words: who is better on five levels, and how good one answer is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from judges.judge import Question, prompt_text
from judges.protocols.protocol import Protocol, Reading
from judges.transports.messages import LEVELS, ChatReply, ChatRequest

COMPARE = """\
Two responses answer one prompt. Compare how well each helps with what was asked; mistakes weigh most.

Prompt:
{prompt}

Response A:
{first}

Response B:
{second}

Which response is better, and by how much?
"""
RATE = """\
Rate how well a response answers its prompt; mistakes weigh most.
{references}
Prompt:
{prompt}

Response:
{first}

How good is the response, from 1 (useless) to 10 (excellent)?
"""
FIVE = (
    "Response B is much better",
    "Response B is a little better",
    "They are about equal",
    "Response A is a little better",
    "Response A is much better",
)
TEN = tuple(map(str, range(1, 11)))


@dataclass(frozen=True)
class DecisionProtocol(Protocol):
    """Five-way comparisons and ratings of 1 to 10 as scores of a decision model: the mean over the levels'
    probabilities.

    A comparison's levels are 0, .25, .5, .75 and 1; a rating's 1 to 10. No explanation is asked for. The words are our
    own: no board's official prompt asks so. For P(first beats second) from two labels use `custom`, which decision
    endpoints answer too.
    """

    gives = ("five-way", "rating")
    needs = LEVELS
    rates = False

    @property
    def rating(self) -> DecisionRating:
        return DecisionRating()

    def request(self, question: Question) -> ChatRequest:
        known = "\n".join(["", "Correct answers, for comparison:", *question.references, ""])
        text = (RATE if self.rates else COMPARE).format(
            prompt=prompt_text(question.prompt),
            first=question.first,
            second=question.second,
            references=known if question.references else "",
        )
        return ChatRequest([{"role": "user", "content": text}], 1, None, levels=TEN if self.rates else FIVE)

    def read(self, reply: ChatReply, question: Question) -> Reading:
        if reply.refused:
            return Reading.failure("refusal")
        if reply.top is None:
            return Reading.failure("no-logprobs")
        place = mean_place(reply.top, TEN if self.rates else FIVE)
        if math.isnan(place):
            return Reading.failure("no-label")
        return Reading(1 + place if self.rates else place / (len(FIVE) - 1))


class DecisionRating(DecisionProtocol):
    """A rating of a single answer."""

    rates = True


def mean_place(top: Sequence[tuple[str, float]], levels: Sequence[str]) -> float:
    """The mean place on a scale, from 0, by the levels' log-probabilities; NaN where none has any."""
    weights = [math.fsum(math.exp(value) for name, value in top if name == level) for level in levels]
    total = math.fsum(weights)
    if not 0 < total < math.inf:
        return math.nan
    return math.fsum(place * weight for place, weight in enumerate(weights)) / total
