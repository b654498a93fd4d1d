"""What every leaderboard is: requests out, answers in, then scores that each carry their doubt.

A leaderboard never loads a policy: the harness answers its requests with the policy's engine. The one exception,
lm-eval, opens the checkpoint itself.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from judges.judge import Judge, Prompt, messages_of
from judges.reading import shortened
from leaderboards.statistics.estimates import Estimate
from leaderboards.thinking import strip_thinking

Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True)
class Metric:
    """What a number means (`metrics.json`).

    Attributes:
        unit: `probability`, `percent`, `share`, `characters`, `nats`, ...
        better: `higher`, `lower` or `neither`.
        estimates: the quantity in words.
        official: whether the number is the authors' own figure: with their questions and their judge it is
            comparable with the published board.
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
    """One prompt to answer.

    Attributes:
        id: unique among the board's requests.
        prompt: text or chat messages; in a later turn the new user's message alone.
        temperature: of the sampling, 0 where the likeliest answer is wanted.
        answers: how many are wanted.
        turn: from 1.
        follows: id of the request that this one goes on from; `conversation` puts them together.
    """

    id: str
    prompt: Prompt
    temperature: float
    answers: int = 1
    turn: int = 1
    follows: str | None = None


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

    @classmethod
    def of(cls, metric: str, estimate: Estimate, category: str = "") -> Score:
        """An estimate under the name of a metric."""
        return cls(metric=metric, category=category, **vars(estimate))


Answers = Mapping[str, Sequence[str]]
"""Request id -> the answers' texts."""

Verdict = dict[str, Any]
"""One graded item, JSON-able: id, prompt, response, before (the baseline's answer), preference (None where it failed
or nothing is compared), status ("ok" or the kinds of failure), category, turn, stripped, and what else a board keeps.
"""


@dataclass(frozen=True)
class Reply:
    """An answer as it is graded: its text, whether thinking was taken out of it, and "ok" or why there is none."""

    text: str
    stripped: bool = False
    status: str = "ok"


def conversation(request: Request, requests_by_id: Mapping[str, Request], answers: Answers) -> list[dict[str, str]]:
    """The chat messages that a request asks to be answered.

    In a later turn these are the earlier prompt, the policy's own first answer to it as the assistant's message, and
    the new message. The earlier answer is taken as it is given.

    Raises:
        ValueError: for a request that follows one that is not there or has no answer yet.
    """
    if request.follows is None:
        return messages_of(request.prompt)
    earlier, said = requests_by_id.get(request.follows), answers.get(request.follows)
    if earlier is None or not said:
        missing = "not among the requests" if earlier is None else "not answered"
        raise ValueError(f"request {request.id!r} follows {request.follows!r}, which is {missing}; answer it first")
    before = conversation(earlier, requests_by_id, answers)
    return [*before, {"role": "assistant", "content": said[0]}, *messages_of(request.prompt)]


class Leaderboard(ABC):
    """A leaderboard of language models; a dataclass of its own options."""

    name: ClassVar[str]
    plays: ClassVar[Literal["text", "game"]] = "text"
    metrics: ClassVar[Mapping[str, Metric]]

    paths: ClassVar[tuple[str, ...]] = ()
    """Options that may name a file or folder; a config resolves these against its own folder."""

    package: ClassVar[str] = ""
    """The installed package whose version decides what is computed, where there is one."""

    opens_checkpoint: ClassVar[bool] = False
    """Whether the board loads the policy itself (`evaluate`) in place of asking for answers."""

    def check(self) -> None:  # noqa: B027
        """Checks that are too slow for `__post_init__`; called when a sweep is planned.

        Raises:
            ValueError: something that the options name is not there.
        """


@dataclass(frozen=True, kw_only=True)
class TextLeaderboard(Leaderboard):
    """A leaderboard that asks for answers and has a judge grade them.

    Args:
        limit: at most this many questions, the first ones; None takes all.
        curve_limit: at most this many before the last iteration, where a score is only a point on a curve; with 0
            there is no curve.
        strip_thinking: take thinking blocks (`leaderboards.thinking`) out of the policy's answers before grading.
    """

    limit: int | None = None
    curve_limit: int = 256
    strip_thinking: bool = False

    pairwise: ClassVar[bool]
    """Whether an answer is compared with another one; controls are graded on such boards."""

    baseline: ClassVar[Literal["start", "own"]]
    """Whose answers the judge compares with: `start`, the untrained policy's, which `grade` is handed; `own`, those
    that the board brings along.
    """

    def __post_init__(self) -> None:
        for name in ("limit", "curve_limit"):
            value = getattr(self, name)
            if value is not None and value < 2 and (name, value) != ("curve_limit", 0):
                raise ValueError(f"{self.name}: {name} is {value}; an interval needs at least 2 prompts")

    @abstractmethod
    def requests(self, heldout: Sequence[tuple[str, Prompt]], temperature: float, *, last: bool) -> list[Request]:
        """What a policy is to answer.

        Args:
            heldout: id and prompt of every held-out prompt of the sweep, for boards without questions of their own.
            temperature: the sweep's sampling temperature, for boards that do not fix their own.
            last: whether this is the policy's last iteration; earlier ones may be asked less.
        """

    @abstractmethod
    def grade(
        self, requests: Sequence[Request], answers: Answers, baseline: Answers | None, judge: Judge
    ) -> list[Verdict]:
        """A judge's verdict on each answer; `baseline` is None where the board brings its own."""

    @abstractmethod
    def rate(self, verdicts: Sequence[Verdict], seed: int) -> list[Score]:
        """Scores with intervals from the verdicts, the leading one first."""

    @abstractmethod
    def by_prompt(self, verdicts: Sequence[Verdict]) -> dict[str, dict[str, float | None]]:
        """Metric -> prompt id -> value (None where it failed), for paired comparisons between policies."""

    def asked(self, questions: Sequence[Item], *, last: bool) -> Sequence[Item]:
        """The questions that the limits leave."""
        within = questions[: self.limit]
        return within if last else within[: self.curve_limit]

    def reply(self, id: str, answers: Answers) -> Reply:
        """The answer to a request as it is graded. None at all, or one without text, is a failure."""
        said = answers.get(id)
        if not said:
            return Reply("", status="no-answer")
        text = strip_thinking(said[0]) if self.strip_thinking else said[0]
        return Reply(text, text != said[0], "ok" if text.strip() else "empty-answer")


class NoData(ValueError):
    """A board is asked for its questions and was given none; its other options are as they should be."""


def data_path(board: str, data: str | Path | None, what: str) -> Path:
    """The path that the option `data` of a board names.

    Raises:
        NoData: it is not given.
        ValueError: it is not there.
    """
    if data is None:
        raise NoData(f"{board} needs the option data: {what}")
    if not os.path.exists(data):
        raise ValueError(f"{board}: data {shortened(str(data), 200)} is not there; give {what}")
    return Path(data)
