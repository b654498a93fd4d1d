"""What a plan knows of a cell."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from harness.matrix import Cell
from harness.stage import Stage, in_order
from harness.stages.answer import Answer
from harness.stages.benchmark import Benchmark
from harness.stages.choose import Choose
from harness.stages.gap import Gap
from harness.stages.grade import Grade
from harness.stages.rate import Rate
from trainers.algorithm import Algorithm


@dataclass(frozen=True)
class Rated:
    """One rated result of a cell.

    Attributes:
        stage: whose `scores.json` it is.
        verdicts: by part of the questions, the stages whose verdicts are rated; none for a game.
    """

    stage: Rate | Gap
    verdicts: Mapping[str, Grade | Benchmark]
    leaderboard: str
    grader: str
    iteration: int


@dataclass
class CellPlan:
    """A cell's stages in order. `training[t]` are those that iteration t adds; a score's cost is their work.

    `answers` are by leaderboard, iteration and part of the questions; `choice` is of a tuned trainer.
    """

    cell: Cell
    algorithm: Algorithm | None
    training: dict[int, list[Stage]] = field(default_factory=dict)
    answers: dict[tuple[str, int, str], Answer] = field(default_factory=dict)
    rated: list[Rated] = field(default_factory=list)
    choice: Choose | None = None

    @property
    def options(self) -> dict[str, Any]:
        """The algorithm's options; `tuned` for those that trials choose, under each judge for itself."""
        own = dataclasses.asdict(self.algorithm) if self.algorithm else {}
        return own | dict.fromkeys((path for path in self.cell.trainer.tune if path in own), "tuned")

    @property
    def wanted(self) -> list[Stage]:
        """The stages that it names itself; what these read is not among them."""
        training = [stage for stages in self.training.values() for stage in stages]
        return [*training, *self.answers.values(), *(rated.stage for rated in self.rated)]

    @cached_property
    def stages(self) -> list[Stage]:
        """All stages that it cannot do without, each after what it reads; those of trials, of which some may fail, are
        not among them.
        """
        return in_order(self.wanted, needed_alone=True)
