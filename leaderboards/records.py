"""What passes between the harness, a board and a judge, each a record with its units; and graded items as Parquet.

A number that is not there is None in every record, in memory and on disk: NaN becomes None as an item is made.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from judges.judge import Prompt
from leaderboards.statistics.intervals import Estimate
from leaderboards.statistics.means import Bounds

if TYPE_CHECKING:
    import pyarrow

OK = "ok"


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
        scale: its lowest and highest value, where there are such and the unit does not imply them.
        bounds: the least and the greatest value that one prompt can have, which intervals and tests on few prompts
            need; None where there is none.
    """

    unit: str
    better: Literal["higher", "lower", "neither"]
    estimates: str
    official: bool = False
    null_value: float | None = None
    axis: Literal["linear", "log"] = "linear"
    scale: tuple[float, float] | None = None
    bounds: Bounds | None = None


@dataclass(frozen=True, kw_only=True)
class BoardQuestion:
    """One prompt that a policy is to answer.

    Attributes:
        id: unique among the board's questions.
        prompt: text or chat messages; in a later turn the new user's message alone.
        temperature: of the sampling, 0 where the likeliest answer is wanted.
        answers: how many are wanted.
        turn: from 1.
        follows: id of the question that this one goes on from; `leaderboards.leaderboard.conversation` puts them
            together.
    """

    id: str
    prompt: Prompt
    temperature: float
    answers: int = 1
    turn: int = 1
    follows: str | None = None


Answers = Mapping[str, Sequence[str]]
"""Question id -> the answers' texts."""


@dataclass(frozen=True)
class BoardAnswer:
    """An answer as it is graded: its text, and "ok" or why there is none.

    A policy that says nothing has answered: the text is empty and the status "ok".
    """

    text: str
    status: str = OK


@dataclass(frozen=True, kw_only=True)
class GradedItem:
    """One graded answer. A board need give no more than `id` and one of `preference`, `rating`, `value`.

    Attributes:
        id: of the question; in a benchmark of several metrics, one item a metric has it.
        preference: P(the answer beats the baseline's), in 0..1; None where it failed or nothing is compared.
        rating: of the answer by itself, 1..10; None where it failed or nothing is rated.
        value: of a benchmark, in the unit of `metric`; None where it failed or nothing is measured.
        metric: what `value` is of; "" for a preference or a rating.
        status: "ok" where there is a number, else the kinds of failure, joined by "+" ("no-verdict" by default).
        prompt: what was answered, the turns before it included: text or chat messages.
        response: the answer as it was graded.
        baseline_response: the answer or reference it was compared with; "" where there is none.
        category: "" where the board has none.
        turn: from 1.
        stripped: whether thinking was taken out of the answer (`sampling.strip_thinking`). The harness fills it in.
        finished: whether the policy ended the answer within its tokens; None where that is not known. The harness
            fills it in.
        extra: what else the board keeps, as JSON has it; `rate` and `by_prompt` get it back.

    Raises:
        ValueError: for a preference outside 0..1.
    """

    id: str
    preference: float | None = None
    rating: float | None = None
    value: float | None = None
    metric: str = ""
    status: str = OK
    prompt: Prompt = ""
    response: str = ""
    baseline_response: str = ""
    category: str = ""
    turn: int = 1
    stripped: bool = False
    finished: bool | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("preference", "rating", "value"):
            object.__setattr__(self, name, _number(getattr(self, name)))
        if self.preference is not None and not 0 <= self.preference <= 1:
            raise ValueError(
                f"the preference of item {self.id!r} is {self.preference}; it is P(the answer beats the baseline's), "
                "in 0..1: give a rating or a value where it is something else"
            )
        failed = self.preference is None and self.rating is None and self.value is None
        failure = "no-verdict" if self.status == OK else self.status
        object.__setattr__(self, "status", failure if failed else OK)

    @property
    def empty(self) -> bool:
        """Whether the policy said nothing: an outcome, not a missing verdict."""
        return self.status == OK and not self.response.strip()

    @property
    def judged(self) -> bool:
        """Whether its number is a judge's or was to be one: what an empty text decides is nobody's."""
        wins_unasked = self.preference is not None and not self.baseline_response.strip()
        return self.status != OK or not (self.empty or wins_unasked)


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


def check_items(board: str, items: Sequence[Any]) -> Sequence[GradedItem]:
    """The items as they are.

    Raises:
        ValueError: where one is no GradedItem, or has the id and metric of another.
    """
    keys = set()
    for item in items:
        if not isinstance(item, GradedItem):
            raise ValueError(
                f"the leaderboard {board} graded an answer as a {type(item).__name__}; its `grade` must return "
                "leaderboards.GradedItem records"
            )
        if (item.id, item.metric, item.category) in keys:
            raise ValueError(f"the leaderboard {board} graded {item.id!r} twice; an id names one question")
        keys.add((item.id, item.metric, item.category))
    return items


def write_items(items: Sequence[GradedItem], path: Path) -> None:
    """Write graded items as Parquet, a typed column an attribute; `prompt` and `extra` are JSON texts.

    Raises:
        ValueError: where `extra` holds what JSON has no form for.
    """
    import pyarrow
    import pyarrow.parquet

    rows = [asdict(item) | {"prompt": json.dumps(item.prompt), "extra": _extra_json(item)} for item in items]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema=_arrow_schema()), path)


def read_items(path: Path) -> list[GradedItem]:
    """The graded items in a file, as they were when `write_items` wrote them."""
    import pyarrow.parquet

    rows = pyarrow.parquet.read_table(path, schema=_arrow_schema()).to_pylist()
    return [
        GradedItem(**row | {"prompt": json.loads(row["prompt"]), "extra": json.loads(row["extra"])}) for row in rows
    ]


def _arrow_schema() -> pyarrow.Schema:
    import pyarrow

    kinds = {"preference": "float64", "rating": "float64", "value": "float64", "turn": "int64"}
    kinds |= {"stripped": "bool", "finished": "bool"}
    names = GradedItem.__dataclass_fields__
    return pyarrow.schema([(name, pyarrow.type_for_alias(kinds.get(name, "string"))) for name in names])


def _extra_json(item: GradedItem) -> str:
    try:
        return json.dumps(dict(item.extra))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"extra of the graded item {item.id!r} is no JSON ({error}); keep texts, numbers, lists of them"
        ) from error


def _number(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else float(value)
