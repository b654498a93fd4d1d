"""What every leaderboard is: questions out, answers in, then scores with intervals.

A leaderboard never loads a policy: the harness answers its questions with the policy's engine. The one exception,
lm-eval, opens the checkpoint itself.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal, TypeVar

from judges.judge import Judge, Prompt, messages_of
from judges.reading import shortened
from leaderboards.records import OK, Answers, BoardAnswer, BoardQuestion, GradedItem, Metric, Score

Item = TypeVar("Item")


Part = Literal["curve", "rest"]
"""The questions that every iteration is asked (the first `curve_limit`), or those that only the final one is asked."""


def conversation(
    question: BoardQuestion, questions_by_id: Mapping[str, BoardQuestion], answers: Answers
) -> list[dict[str, str]]:
    """The chat messages that a question asks to be answered.

    In a later turn these are the earlier prompt, the policy's own first answer to it as the assistant's message, and
    the new message. The earlier answer is taken as it is given.

    Raises:
        ValueError: for a question that follows one that is not there or has no answer yet.
    """
    if question.follows is None:
        return messages_of(question.prompt)
    earlier, earlier_answers = questions_by_id.get(question.follows), answers.get(question.follows)
    if earlier is None or not earlier_answers:
        missing = "not among the questions" if earlier is None else "not answered"
        raise ValueError(f"question {question.id!r} follows {question.follows!r}, which is {missing}; answer it first")
    turns = conversation(earlier, questions_by_id, answers)
    return [*turns, {"role": "assistant", "content": earlier_answers[0]}, *messages_of(question.prompt)]


class Leaderboard(ABC):
    """A leaderboard of language models; a dataclass of its own options."""

    name: ClassVar[str]
    metrics: ClassVar[Mapping[str, Metric]]

    policy_kind: ClassVar[Literal["text", "game"]] = "text"
    """Which policies the board rates: language models or those of exact games."""

    paths: ClassVar[tuple[str, ...]] = ()
    """Options that may name a file or folder; a config resolves these against its own folder."""

    package: ClassVar[str] = ""
    """The installed package whose version decides what is computed, where there is one."""

    grading_options: ClassVar[tuple[str, ...]] = ()
    """Options that decide how answers are graded and not which questions are asked: another value asks no policy
    again.
    """

    is_of_tasks: ClassVar[bool] = False
    """Whether scores are of single tasks (an item's category) without an overall one: policies are compared by task."""

    opens_checkpoint: ClassVar[bool] = False
    """Whether the board loads the policy itself (`evaluate`) in place of asking for answers."""

    def notes(self) -> list[str]:
        """What a user of these options may not expect of the scores, a sentence each; `nashbench plan` prints it."""
        return []

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
        curve_limit: at most this many, the first ones, before the final iteration, where a score is only a point on a
            curve; with 0 there is no curve.
        max_tokens: longest answer, tokens; None is the authors' own number on their questions, elsewhere the sweep's
            `sampling.max_tokens`. Where the policy's context holds less, the authors' number gives way.
    """

    limit: int | None = None
    curve_limit: int = 256
    max_tokens: int | None = None

    default_max_tokens: ClassVar[int | None] = None
    """The authors' `max_tokens`, where the board has questions of theirs."""

    pairwise: ClassVar[bool]
    """Whether an answer is compared with another one; controls are graded on such boards."""

    baseline: ClassVar[Literal["untrained", "board"]]
    """Whose answers the judge compares with: `untrained`, the untrained policy's, which `grade` is handed; `board`,
    those that the board brings along.
    """

    def __post_init__(self) -> None:
        for name in ("limit", "curve_limit"):
            value = getattr(self, name)
            if value is not None and value < 2 and (name, value) != ("curve_limit", 0):
                raise ValueError(f"{self.name}: {name} is {value}; an interval needs at least 2 prompts")

        if self.max_tokens is not None and (isinstance(self.max_tokens, bool) or self.max_tokens < 1):
            raise ValueError(f"{self.name}: max_tokens is {self.max_tokens}; an answer has at least 1 token")

    @abstractmethod
    def requests(self, heldout: Sequence[tuple[str, Prompt]], temperature: float, part: Part) -> list[BoardQuestion]:
        """What a policy is to answer, in one of two parts; a conversation's turns are in the same part.

        Args:
            heldout: id and prompt of every held-out prompt of the sweep, for boards without questions of their own.
            temperature: the sweep's sampling temperature, for boards that do not fix their own.
            part: `curve`, what every iteration is asked; `rest`, what the final iteration is asked besides. Most
                boards return `self.part_of(questions, part)`.
        """

    @abstractmethod
    def grade(
        self, questions: Sequence[BoardQuestion], answers: Answers, baseline: Answers | None, judge: Judge
    ) -> list[GradedItem]:
        """The answers to one part's questions as a judge grades them; `baseline` is None where the board brings its
        own.
        """

    @abstractmethod
    def rate(self, items: Sequence[GradedItem], seed: int) -> list[Score]:
        """Scores with intervals, the leading one first, of the curve's items or of both parts', the curve's first;
        `seed` is for boards that draw at random.
        """

    @abstractmethod
    def by_prompt(self, items: Sequence[GradedItem]) -> dict[str, dict[str, float | None]]:
        """Metric -> prompt id -> value (None where it failed), for paired comparisons between policies."""

    def lost(self, item: GradedItem) -> GradedItem:
        """An item without a verdict as an empty answer that lost: the worst that can be missing.

        A board that keeps in `extra` what `rate` reads says it there too.
        """
        worst = {"preference": 0.0} if self.pairwise else {"rating": 1.0}
        return replace(item, status=OK, response="", **worst)  # type: ignore[arg-type]

    def part_of(self, questions: Sequence[Item], part: Part) -> Sequence[Item]:
        """The part of the questions (or conversations) that the limits make: the first `curve_limit`, or the rest."""
        within = questions[: self.limit]
        return within[: self.curve_limit] if part == "curve" else within[self.curve_limit :]

    def answer_to(self, id: str, answers: Answers) -> BoardAnswer:
        """The answer to a question as it is graded; none at all is a failure, one without text is an answer."""
        texts = answers.get(id)
        if not texts:
            return BoardAnswer("", status="no-answer")
        return BoardAnswer(texts[0])


class BoardError(ValueError):
    """What a board finds in the user's data once it evaluates; the text says what to change.

    Any other ValueError of a board that evaluates, grades or rates is a bug in it.
    """


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
