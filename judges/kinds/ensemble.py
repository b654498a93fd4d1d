"""Several judges as one."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from judges.judge import Judge, Question
from judges.verdicts import OK, Answer, Verdicts


@dataclass(eq=False)
class EnsembleJudge(Judge):
    """The weighted mean of several judges' preferences; each answer's `raw` keeps the members' own (JSON).

    A question that one member fails fails with that member's status: a mean over the others would be a
    different judge. Tokens, latency and cost are sums over the members.

    Args:
        judges: the members, at least two; in a config or on a command line each is {name: NAME, OPTION: VALUE}.
        weights: positive, by default equal; they are scaled to sum to 1.

    Raises:
        ValueError: fewer than two members, or weights that do not fit.
    """

    judges: Sequence[Judge]
    weights: Sequence[float] | None = None
    members: ClassVar[tuple[str, ...]] = ("judges",)

    def __post_init__(self) -> None:
        weights = [1.0] * len(self.judges) if self.weights is None else list(self.weights)
        if len(self.judges) < 2 or len(weights) != len(self.judges):
            raise ValueError(
                f"an ensemble needs at least 2 judges and a weight for each, got {len(self.judges)} judges"
            )
        if not all(0 < weight < math.inf for weight in weights):
            raise ValueError(f"an ensemble's weights must be positive numbers, got {weights}")
        self._shares = [weight / sum(weights) for weight in weights]

    def described(self) -> dict[str, Any]:
        """As `Judge.described`, with the weights as they are used."""
        described = super().described()
        return described | {"options": described["options"] | {"weights": self._shares}}

    @property
    def chunk_size(self) -> int:
        """The least of the members'."""
        return min(judge.chunk_size for judge in self.judges)

    def answer(self, questions: Sequence[Question], advance: Callable[[int], None]) -> list[Answer]:
        columns = [[getattr(each, name) for each in questions] for name in ("prompt", "first", "second")]
        references = [each.references for each in questions]
        categories = [each.category for each in questions]
        records = [judge.verdicts(*columns, references=references, categories=categories) for judge in self.judges]
        advance(len(questions))
        return [self._mix(i, records) for i in range(len(questions))]

    def _mix(self, i: int, records: Sequence[Verdicts]) -> Answer:
        preferences = [float(record.preference[i]) for record in records]
        mixed = sum(share * preference for share, preference in zip(self._shares, preferences, strict=True))
        return Answer(
            mixed if math.isnan(mixed) else min(1.0, mixed),  # rounding may pass 1, which would be no probability
            next((record.status[i] for record in records if record.status[i] != OK), OK),
            sum(int(record.input_tokens[i]) for record in records),
            sum(int(record.output_tokens[i]) for record in records),
            sum(float(record.latency[i]) for record in records),
            sum(float(record.cost[i]) for record in records),
            json.dumps([None if math.isnan(preference) else preference for preference in preferences]),
            any(bool(record.truncated[i]) for record in records),
        )
