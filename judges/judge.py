"""The interface of a judge: P(first beats second | prompt), with a record of each answer and a fingerprint of all that
determines it.
"""

from __future__ import annotations

import hashlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from judges.code_identity import class_name, code_identity
from judges.code_syntax import bytes_digest
from judges.verdicts import OK, Answer, Order, Verdicts, empty_outcome

if TYPE_CHECKING:
    from judges.transports.cache import ReplyCache
    from judges.transports.http import EndpointTransport

Prompt = str | Sequence[Mapping[str, str]]
"""A text, or chat messages `{"role", "content"}` that end with the user's turn."""

References = Sequence[str] | None
"""Reference answers to the turns of a conversation so far, the last one to the turn that is rated; None without any."""

Progress = Callable[[int, int], None]
"""Called with (questions answered so far, questions in all)."""

NO_REFERENCE = "no-reference"


@dataclass(frozen=True)
class Question:
    """A prompt and two responses as they are placed before the judge.

    Attributes:
        references: reference answers, where there are some.
        category: of the prompt in its board's set, for judges that ask about each kind in other words; "" for none.
    """

    prompt: Prompt
    first: str
    second: str
    references: tuple[str, ...] = ()
    category: str = ""


@dataclass(frozen=True)
class Ratings:
    """A judge's ratings of single answers.

    Attributes:
        rating: float64 [n], in 1..10; NaN where it failed.
        status: [n], "ok" or the kinds of failure.
        raw: [n], the judge's own words about each answer by itself; empty where it has none.
    """

    rating: NDArray[np.float64]
    status: list[str]
    raw: Sequence[str] = ()


@dataclass(eq=False)
class Judge(ABC):
    """Prefers one of two responses to a prompt.

    A judge is a dataclass whose fields are its options. `__post_init__` checks them cheaply (a missing file or a bad
    value is a ValueError before anything runs); weights are loaded at the first question. A new kind of judge writes
    one method, `answer`.
    """

    paths: ClassVar[tuple[str, ...]] = ()
    """Options that may name a file or folder; a config resolves these against its own folder."""

    members: ClassVar[tuple[str, ...]] = ()
    """Options that are lists of judges; a config or a command line gives each by name, with its options."""

    tuning: ClassVar[tuple[str, ...]] = ()
    """Options that change speed only, not verdicts: they are in no key of a result."""

    @classmethod
    def nested(cls, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """Options as a config writes them, by the names of the class's fields: here as they are."""
        return options

    @abstractmethod
    def answer(self, questions: Sequence[Question], advance: Callable[[int], None]) -> Sequence[Answer]:
        """Answer every question about its responses as placed, in the order given.

        Call `advance(n)` when n more are done. A question that fails is answered by `Answer.failure`; raise only where
        no question can be answered.
        """

    def compare(self, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str]) -> NDArray[np.float64]:
        """P(first beats second | prompt) with `first` placed first: float64 [n], NaN where it failed.

        `compare(prompts, second, first)` asks the other order; it is not one minus this. Raises ValueError where the
        lengths differ.
        """
        return self.verdicts(prompts, first, second).preference

    def verdicts(
        self,
        prompts: Sequence[Prompt],
        first: Sequence[str],
        second: Sequence[str],
        *,
        both_orders: bool = False,
        progress: Progress | None = None,
        references: Sequence[References] | None = None,
        categories: Sequence[str] | None = None,
    ) -> Verdicts:
        """The full record of a comparison: n rows, or 2n with `both_orders` (all original ones, then all swapped).

        `references` are correct answers, one a prompt, for judges whose protocol shows them; `categories` are the
        prompts' own, for those whose words depend on them. The others ignore them.
        Raises ValueError where the sequences differ in length or an answer is missing.
        """
        n = len(prompts)
        if not n == len(first) == len(second):
            raise ValueError(
                f"one first and one second response a prompt: got {n} prompts, {len(first)} first, {len(second)} second"
            )
        reference_turns = reference_texts(references, n)
        kinds = [""] * n if categories is None else categories
        questions = [Question(*row) for row in zip(prompts, first, second, reference_turns, kinds, strict=True)]
        order: list[Order] = ["original"] * n
        if both_orders:
            questions += [replace(question, first=question.second, second=question.first) for question in questions]
            order += ["swapped"] * n
        answers = self.answer(questions, _counter(len(questions), progress)) if questions else []
        if len(answers) != len(questions):
            raise ValueError(
                f"{type(self).__name__} answered {len(answers)} of {len(questions)} questions: a judge answers each one"
            )
        return Verdicts.of(n, [*range(n)] * (2 if both_orders else 1), order, answers)

    @property
    def chunk_size(self) -> int:
        """Questions per call where answers are saved after each call: as many as a kill may lose.

        For a judge that pays for each answer, its concurrent calls; for one that answers in batches, a multiple of
        the batch size. The grouping of questions may change the last bits of an answer, nothing else.
        """
        return 64

    def keep_replies(self, replies: ReplyCache) -> None:
        """Cache an endpoint's replies there and reuse them; does nothing for a judge that calls no endpoint."""
        for name in self.members:
            for member in getattr(self, name):
                member.keep_replies(replies)

    def endpoints(self) -> list[tuple[str, EndpointTransport]]:
        """(model, transport) of every endpoint that it asks, its members' included."""
        return [each for name in self.members for member in getattr(self, name) for each in member.endpoints()]

    def notes(self) -> list[str]:
        """What a user of these options may not expect, a sentence each: told by `nashbench plan` and before a sweep."""
        return [each for name in self.members for member in getattr(self, name) for each in member.notes()]

    @property
    def supports_single_rating(self) -> bool:
        """Whether `rate` rates an answer on its own; otherwise it compares the answer with the reference."""
        return False

    def rate(self, prompts: Sequence[Prompt], answers: Sequence[str], references: Sequence[References]) -> Ratings:
        """Ratings of single answers in 1..10: here 1 + 9 P(answer beats the reference answer), both orders averaged.

        A judge with a protocol of its own for single answers overrides this. An order that fails is a failure; an
        answer without a reference fails as "no-reference". Raises ValueError where the lengths differ.
        """
        if not len(prompts) == len(answers) == len(references):
            raise ValueError(
                f"one answer and one reference (or None) a prompt: got {len(prompts)} prompts, {len(answers)} answers, "
                f"{len(references)} references"
            )
        with_reference = [(i, reference[-1]) for i, reference in enumerate(references) if reference]
        rows = [i for i, _ in with_reference]
        record = self.verdicts(
            [prompts[i] for i in rows],
            [answers[i] for i in rows],
            [text for _, text in with_reference],
            both_orders=True,
        )
        outcomes = [set[str]() for _ in rows]
        for question, outcome in zip(record.question, record.status, strict=True):
            outcomes[question].add(outcome)
        rating, status = np.full(len(prompts), np.nan), [NO_REFERENCE] * len(prompts)
        for i, preference, outcome_set in zip(rows, record.mean(), outcomes, strict=True):
            rating[i] = 1 + 9 * preference
            status[i] = "+".join(sorted(outcome_set - {OK})) if np.isnan(preference) else OK
        return Ratings(rating, status)

    def options(self) -> dict[str, Any]:
        """The options this judge was built with. Raises TypeError for a judge with a constructor of its own."""
        for kind in type(self).__mro__[: type(self).__mro__.index(Judge)]:
            if "__init__" in vars(kind) and "__dataclass_fields__" not in vars(kind):
                raise TypeError(
                    f"{kind.__name__} has its own __init__: make it a dataclass, so that its options have names"
                )
        return {field.name: getattr(self, field.name) for field in fields(self) if field.init}

    @property
    def code_parts(self) -> tuple[type, ...]:
        """Further classes whose code decides the verdicts, chosen by the options: a protocol among several."""
        return ()

    def described(self) -> dict[str, Any]:
        """What determines the verdicts but code: the class's name and options as JSON, local files by their content.

        Options that are tuning or at their default are left out. Loads no weights. A hub id is taken as it is: without
        a revision it does not pin the weights.
        """
        options = {name: value for name, value in self._changed_options().items() if name not in self.tuning}
        options |= {name: content_of(options[name]) for name in self.paths if name in options}
        options |= {name: [judge.described() for judge in options[name]] for name in self.members if name in options}
        described = {"class": class_name(type(self)), "options": options}
        return dict(json.loads(json.dumps(described, default=str)))

    def fingerprint(self) -> str:
        """SHA-256 (hex) of what determines the verdicts: `described` and code, the members' included.

        Two copies of one file have one fingerprint.
        """
        code = [code_identity(type(self), Judge), *(code_identity(part, object) for part in self.code_parts)]
        members = [judge.fingerprint() for name in self.members for judge in getattr(self, name)]
        text = json.dumps([self.described(), code, members], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def _changed_options(self) -> dict[str, Any]:
        """The options that are not at their default, and all file paths, for their content."""
        defaults = {field.name: _default(field) for field in fields(self)}
        options = self.options()
        in_files = {name for name in self.paths if options.get(name) is not None}
        return {
            name: value
            for name, value in options.items()
            if name in in_files or type(value) is not type(defaults[name]) or value != defaults[name]
        }


def _default(field: Field[Any]) -> Any:
    """The default of an option; `MISSING` where it has none."""
    return field.default if field.default_factory is MISSING else field.default_factory()


def deciding_empty(
    questions: Sequence[Question],
    advance: Callable[[int], None],
    answer: Callable[[Sequence[Question], Callable[[int], None]], Sequence[Answer]],
) -> list[Answer]:
    """What `answer` says where both responses have text; `judges.verdicts.empty_outcome` without asking elsewhere."""
    outcomes = [empty_outcome(question.first, question.second) for question in questions]
    asked = [question for question, outcome in zip(questions, outcomes, strict=True) if outcome is None]
    advance(len(questions) - len(asked))
    answers = iter(answer(asked, advance) if asked else [])
    return [next(answers) if outcome is None else Answer(outcome) for outcome in outcomes]


def reference_texts(references: Sequence[References] | None, n: int) -> list[tuple[str, ...]]:
    """The references of n prompts as tuples, empty where there is none. Raises ValueError where there are not n."""
    if references is None:
        return [()] * n
    if len(references) != n:
        raise ValueError(f"one reference a prompt, None where there is none: got {len(references)} for {n} prompts")
    return [tuple(turns or ()) for turns in references]


def prompt_text(prompt: Prompt) -> str:
    """A prompt as plain text: as it is, or a single message's content, or "role: content" paragraphs.

    Raises ValueError for messages without role and content.
    """
    if isinstance(prompt, str):
        return prompt
    turns = [(_field(message, "role"), _field(message, "content")) for message in prompt]
    if len(turns) == 1:
        return turns[0][1]
    return "\n\n".join(f"{role}: {content}" for role, content in turns)


def messages_of(prompt: Prompt) -> list[dict[str, str]]:
    """A prompt as chat messages; a text is one turn of the user. Raises ValueError for messages without role and
    content.
    """
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}]
    return [{"role": _field(message, "role"), "content": _field(message, "content")} for message in prompt]


def last_turn(prompt: Prompt) -> str:
    """The last user's turn of a prompt: what the response answers. Raises ValueError where no turn is a user's."""
    for message in reversed(messages_of(prompt)):
        if message["role"] == "user":
            return message["content"]
    raise ValueError(f"a prompt has no user's turn: {str(prompt)[:80]!r}")


def _field(message: Mapping[str, str], name: str) -> str:
    value = message.get(name) if isinstance(message, Mapping) else None
    if not isinstance(value, str):
        raise ValueError(f"a chat message needs the texts 'role' and 'content', got {str(message)[:80]!r}")
    return value


def _counter(total: int, progress: Progress | None) -> Callable[[int], None]:
    done = 0

    def advance(n: int) -> None:
        nonlocal done
        done += n
        if progress is not None:
            progress(done, total)

    return advance


def content_of(value: Any) -> Any:
    """A path by its content, anything else as it is."""
    path = Path(value) if isinstance(value, str | Path) else None
    if path is None or not os.path.exists(path):  # a name too long for a file is none
        return value
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    root = path.parent if path.is_file() else path
    return [(file.relative_to(root).as_posix() if root is path else "", bytes_digest(file)) for file in files]
