"""A sweep as cells and stages: what every cell needs, in order, with what cells share appearing once."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from harness.config import Config, Game, naming_the_file
from harness.matrix import Cell, expand
from harness.planning.game import GamePlanner
from harness.planning.named_pairs import named_pairs
from harness.planning.records import CellPlan
from harness.planning.text import TextPlanner
from harness.stage import Stage, in_order
from harness.stages.prompts import Prompts
from harness.stages.questions import Questions
from trainers.options import Endpoint


@dataclass(frozen=True)
class Plan:
    """Every cell with its stages; and the stages that look at the leaderboards' questions, which no other reads."""

    config: Config
    cells: list[CellPlan]
    questions: list[Questions] = field(default_factory=list)

    @cached_property
    def stages(self) -> list[Stage]:
        """The distinct stages of all cells and those of the questions, each after what it reads."""
        return in_order([*self.questions, *(stage for cell in self.cells for stage in cell.wanted)])

    @property
    def checks(self) -> list[Stage]:
        """Stages that look at the user's input; they run before any other, and a failure there is an input error."""
        return in_order([stage for stage in self.stages if isinstance(stage, Prompts | Questions)])


@naming_the_file
def make_plan(config: Config) -> Plan:
    """Resolve, check and plan a sweep; computes nothing.

    Raises:
        ValueError: anything in the config that cannot work, before anything starts.
    """
    cells = expand(config)
    if config.tune is not None and any(isinstance(policy, Game) for policy in config.policy):
        raise ValueError(
            "tune is given and a policy is a game, which has no prompts to choose options on; leave out one"
        )
    planners = {policy: _planner(config, policy, cells) for policy in dict.fromkeys(cell.policy for cell in cells)}
    controls = [cell for planner in planners.values() for cell in planner.controls]
    named_pairs([*cells, *controls], config.compare)  # a wrong name is told before anything starts
    questions = [stage for planner in planners.values() for stage in planner.questions]
    return Plan(config, [planners[cell.policy].cell(cell) for cell in [*cells, *controls]], questions)


def _planner(config: Config, policy: str | Game | Endpoint, cells: list[Cell]) -> GamePlanner | TextPlanner:
    if isinstance(policy, Game):
        return GamePlanner(config, policy)
    return TextPlanner(config, policy, [cell for cell in cells if cell.policy == policy])
