"""What every leaderboard is: requests out, answers in, then scores that each carry their doubt.

A leaderboard never loads a policy: the harness answers its requests with the policy's engine.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from judges.judge import Judge, Prompt


@dataclass(frozen=True, kw_only=True)
class Metric:
    """What a number means (`metrics.json`).

    Attributes:
        unit: `probability`, `percent`, `characters`, `nats`, ...
        better: `higher`, `lower` or `neither`.
        estimates: the quantity in words.
        official: whether the number is comparable with the authors' published board.
        null_value: what a policy as good as the baseline scores, where that is a number.
        axis: `linear` or `log`, how it is best drawn.
    """

    unit: str
    better: Literal["higher", "lower", "neither"]
    estimates: str
    official: bool = False
    null_value: float | None = None
    axis: Literal["linear", "log"] = "linear"


@dataclass(frozen=True, kw_only=True)
class Request:
    """One prompt to answer: text or chat messages, a temperature, a number of answers, and its turn (from 1)."""

    id: str
    prompt: Prompt
    temperature: float
    answers: int = 1
    turn: int = 1


@dataclass(frozen=True, kw_only=True)
class Score:
    """One number with its interval (NaN where there is none), the items it rests on and the share that did not fail."""

    metric: str
    value: float
    ci_low: float = float("nan")
    ci_high: float = float("nan")
    ci_level: float = 0.95
    n: int = 0
    coverage: float = 1.0
    category: str = ""


Answers = Mapping[str, Sequence[str]]
"""Request id -> the answers' texts."""

Verdict = dict[str, Any]
"""One graded item: id, prompt, response, before (the baseline's), preference (None where it failed), status."""


class Leaderboard(ABC):
    """A leaderboard of language models; a dataclass of its own options."""

    name: ClassVar[str]
    plays: ClassVar[Literal["text", "game"]] = "text"
    metrics: ClassVar[Mapping[str, Metric]]


class TextLeaderboard(Leaderboard):
    """A leaderboard that asks for answers and has a judge compare them with a baseline's."""

    @abstractmethod
    def requests(self, heldout: Sequence[tuple[str, Prompt]], temperature: float, *, last: bool) -> list[Request]:
        """What a policy is to answer.

        Args:
            heldout: id and prompt of every held-out prompt of the sweep.
            temperature: the sweep's sampling temperature, for boards that do not fix their own.
            last: whether this is the policy's last iteration; earlier ones may be asked less.
        """

    @abstractmethod
    def grade(self, requests: Sequence[Request], answers: Answers, baseline: Answers, judge: Judge) -> list[Verdict]:
        """A judge's verdict on each answer."""

    @abstractmethod
    def rate(self, verdicts: Sequence[Verdict], seed: int) -> list[Score]:
        """Scores with intervals from the verdicts."""

    @abstractmethod
    def by_prompt(self, verdicts: Sequence[Verdict]) -> dict[str, dict[str, float | None]]:
        """Metric -> prompt id -> value (None where it failed), for paired comparisons between policies."""
