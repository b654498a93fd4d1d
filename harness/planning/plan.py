"""From cells to stages: what every cell needs, in order, with what cells share appearing once."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.components import (
    Checkpoint,
    Ref,
    accelerate_file,
    base_policy,
    board_ref,
    check_game,
    check_stream,
    game_matrix,
    in_place,
    judge_ref,
    judge_refs,
    made,
    prompts_fingerprint,
    prompts_source,
)
from harness.config import Config, Game, naming_the_file
from harness.matrix import CONTROL, Cell, expand, replies, variants
from harness.registry import load
from harness.stage import Stage
from trainers.algorithm import Algorithm, Pairing, Player, Schedule
from trainers.engines.selection import check_engine
from trainers.options import Endpoint


@dataclass(frozen=True)
class Grade:
    """One graded result of a cell: the stage whose `scores.json` it is."""

    stage: Stage
    leaderboard: str
    grader: str
    iteration: int


@dataclass
class CellPlan:
    """A cell's stages in order. `training[t]` are those that iteration t adds; a score's cost is their work.

    `answers` are by leaderboard and iteration.
    """

    cell: Cell
    algorithm: Algorithm | None
    training: dict[int, list[Stage]] = field(default_factory=dict)
    answers: dict[tuple[str, int], Stage] = field(default_factory=dict)
    grades: list[Grade] = field(default_factory=list)

    @property
    def stages(self) -> list[Stage]:
        """All stages, each after what it reads."""
        wanted = [stage for stages in self.training.values() for stage in stages]
        wanted += [*self.answers.values(), *(grade.stage for grade in self.grades)]
        return in_order(wanted)


@dataclass(frozen=True)
class Plan:
    """Every cell with its stages; and the stages that look at the leaderboards' questions, which no other reads."""

    config: Config
    cells: list[CellPlan]
    questions: list[Stage] = field(default_factory=list)

    @property
    def stages(self) -> list[Stage]:
        """The distinct stages of all cells and those of the questions, each after what it reads."""
        return in_order([*self.questions, *(stage for cell in self.cells for stage in cell.stages)])

    @property
    def checks(self) -> list[Stage]:
        """Stages that look at the user's input; they run before any other, and a failure there is an input error."""
        return in_order([stage for stage in self.stages if stage.kind in ("prompts", "questions")])


@naming_the_file
def make_plan(config: Config) -> Plan:
    """Resolve, check and plan a sweep; computes nothing.

    Raises:
        ValueError: anything in the config that cannot work, before anything starts.
    """
    cells = expand(config)
    planners = {policy: _planner(config, policy) for policy in dict.fromkeys(cell.policy for cell in cells)}
    controls = [cell for planner in planners.values() for cell in planner.controls]
    questions = [stage for planner in planners.values() for stage in planner.questions]
    return Plan(config, [planners[cell.policy].cell(cell) for cell in [*cells, *controls]], questions)


def _planner(config: Config, policy: str | Game | Endpoint) -> GamePlanner | TextPlanner:
    return GamePlanner(config, policy) if isinstance(policy, Game) else TextPlanner(config, policy)


def _boards(config: Config, policy: str | Game | Endpoint) -> list[Ref]:
    """The leaderboards, checked against the kind of policy."""
    boards = [v for entry in config.leaderboards for v in variants(entry)]
    plays = "game" if isinstance(policy, Game) else "text"
    twice = next((board for board in boards if [b.name for b in boards].count(board.name) > 1), None)
    if twice:
        raise ValueError(
            f"{twice.place}: the leaderboard {twice.name!r} is there twice; a sweep has each once (a list of tasks is "
            "written as a text with commas: 'arc_easy,hellaswag')"
        )
    for board in boards:
        kind = in_place(board, lambda name=board.name: load("leaderboards", name))  # type: ignore[misc]
        if kind.plays != plays:
            wanted = "an exact game" if kind.plays == "game" else "a language model"
            raise ValueError(f"leaderboard {board.name!r} rates {wanted}; this policy is none")
        if kind.opens_checkpoint and isinstance(policy, Endpoint):
            raise ValueError(
                f"{board.place}: {board.name!r} opens the checkpoint, and the policy {str(policy)!r} is behind an "
                "endpoint, which gives texts alone; take the leaderboard out"
            )
    return [board_ref(board, policy) for board in boards]


def _trainer(cell: Cell, plays: str) -> Algorithm:
    """The cell's algorithm, checked against the kind of policy."""
    algorithm: Algorithm = made("trainers", cell.trainer)
    if algorithm.needs not in (None, plays):
        wanted = "an exact game" if algorithm.needs == "game" else "a language model"
        raise ValueError(f"trainer {cell.trainer.name!r} plays only {wanted}; this policy is none")
    return algorithm


class GamePlanner:
    """Cells of an exact game: play, then the gap of every policy."""

    controls: Sequence[Cell] = ()
    questions: Sequence[Stage] = ()

    def __init__(self, config: Config, game: Game) -> None:
        self.config = config
        check_game(config.training, game)
        self.matrix = game_matrix(game)
        self.boards = _boards(config, game)

    def cell(self, cell: Cell) -> CellPlan:
        plan = CellPlan(cell, None)
        inputs: dict[str, Stage] = {}
        if cell.trainer.name != CONTROL:
            plan.algorithm = _trainer(cell, "game")
            self._check_step(plan.algorithm)
            if cell.judge is None or cell.judge.name != "game":
                raise ValueError(f"a game judges itself: the judge of {cell.id!r} must be 'game'")
            options = {
                "algorithm": {"name": cell.trainer.name, "options": dataclasses.asdict(plan.algorithm)},
                "preference": self.matrix,
                "iterations": self.config.iterations,
                "lr": self.config.training.lr,
            }
            inputs["run"] = Stage("play", options, title=f"{cell.id}: play")
            plan.training[self.config.iterations] = [inputs["run"]]
        for board in self.boards:
            options = {"preference": self.matrix, "tau": _regularisation(plan.algorithm), **board.described}
            stage = Stage("gap", options, inputs, board.where, f"{cell.id}: {board.name}")
            plan.grades.append(Grade(stage, board.name, "", self.config.iterations))
        return plan

    def _check_step(self, algorithm: Algorithm) -> None:
        """A default made for language models would leave a game's logits where they are."""
        streams = algorithm.schedule is Schedule.STREAM or not algorithm.unique_minimiser
        if streams and "lr" not in self.config.training.model_fields_set:
            raise ValueError(f"{algorithm.name} takes gradient steps on a game: give training.lr, for example 0.2")


def _regularisation(algorithm: Algorithm | None) -> float:
    """The tau of the game an algorithm plays; 0 where it does not regularise."""
    tau = getattr(algorithm, "tau", 0.0)
    return float(tau) if isinstance(tau, int | float) else 0.0


class TextPlanner:
    """Cells of a language model: train by either schedule, answer every leaderboard after every iteration, grade."""

    def __init__(self, config: Config, policy: str | Endpoint) -> None:
        self.config, self.policy = config, policy
        self.base = base_policy(policy)
        self.boards = _boards(config, policy)
        judges = [v for entry in config.matrix.judge for v in variants(entry)]
        graders = judges if config.graders is None else [v for entry in config.graders for v in variants(entry)]
        included = [cell.judge for cell in expand(config) if cell.policy == policy and cell.judge is not None]
        self.judges = judge_refs([*judges, *graders, *included], policy)
        self.graders = [self.judges[v.label] for v in graders]
        # What makes no difference to a policy behind an endpoint names none of its artifacts.
        behind = isinstance(policy, Endpoint)
        self.precision = {} if behind else {"precision": config.training.precision}
        self.sampling = config.sampling.model_dump(exclude={"engine", "batch_size"} if behind else None)
        self.accelerate, self.accelerate_where = accelerate_file(config)
        source = prompts_source(config, policy)
        options = {"prompts": prompts_fingerprint(source), "seed": 0, "max_tokens": config.sampling.max_tokens}
        self.prompts = self._stage(
            "prompts", options, {"policy": self.base}, where={"prompts": source}, title="prompts"
        )

    @property
    def controls(self) -> Sequence[Cell]:
        """The controls besides the untrained policy, where there is a pairwise leaderboard to grade them on."""
        return replies(self.policy) if any(_is_pairwise(board) for board in self.boards) else ()

    @property
    def questions(self) -> list[Stage]:
        """A look at the questions of each leaderboard that has them in the user's files."""
        kinds = [(board, load("leaderboards", board.name)) for board in self.boards]
        looks = [b for b, kind in kinds if kind.paths and b.source is None and not kind.opens_checkpoint]
        inputs: dict[str, Stage | Checkpoint] = {"policy": self.base, "prompts": self.prompts}
        return [
            self._stage(
                "questions",
                self._board(board, True) | {"max_tokens": self.config.sampling.max_tokens},
                inputs,
                board.where,
                f"{board.name}: questions",
            )
            for board in looks
        ]

    def cell(self, cell: Cell) -> CellPlan:
        if cell.is_control:
            if not isinstance(self.policy, Endpoint):
                check_engine(self.config.sampling.engine, adapter=self.config.training.lora is not None)
            plan = CellPlan(cell, None)
            self._evaluate(plan, 0, self.base)
            return plan
        plan = CellPlan(cell, _trainer(cell, "text"))
        assert plan.algorithm is not None
        mixes = cell.trainer.name if _mixes(plan.algorithm) else None
        check_engine(self.config.sampling.engine, mixes, adapter=self.config.training.lora is not None)
        step = {Schedule.REFIT: self._refit, Schedule.STREAM: self._stream}[plan.algorithm.schedule]
        slots = dict.fromkeys(("policy", "auxiliary", "reference", "previous"), self.base)
        for iteration in range(1, self.config.iterations + 1):
            slots["previous"] = slots["policy"]
            plan.training[iteration] = step(plan, iteration, slots)
            self._evaluate(plan, iteration, slots["policy"])
        return plan

    def _refit(self, plan: CellPlan, iteration: int, slots: dict[str, Checkpoint]) -> list[Stage]:
        """Sample, pair, then for each phase score its frozen policies and fit; `slots` moves on."""
        algorithm = _algorithm(plan)
        title = f"{plan.cell.id}: iteration {iteration}"
        sample = self._sample(plan, iteration, slots, title)
        judge, pairing = self._judge(plan.cell), self._pairing(algorithm)
        options = {"pairing": dataclasses.asdict(pairing), "seed": plan.cell.seed, **judge.described}
        inputs: dict[str, Any] = {"responses": sample, "prompts": self.prompts, **judge.inputs}
        pair = Stage("pair", options, inputs, judge.where, f"{title}, compare")
        stages = [sample, pair]
        for number, phase in enumerate(algorithm.phases, 1):
            of = f", fit {number} of {len(algorithm.phases)}" if len(algorithm.phases) > 1 else ", fit"
            scores = {name: self._score(slots[name], pair, f"{title}, score {name}") for name in phase.frozen}
            options = self._training(plan) | {
                "frozen": list(phase.frozen),
                "opponents": list(phase.opponents),
                "max_length": self._max_length,
            }
            inputs = {f"score:{name}": stage for name, stage in scores.items()}
            inputs |= {"start": slots[phase.start], "pairs": pair}
            fit = self._stage("fit", options, inputs, self.accelerate_where, title + of)
            slots[phase.writes] = Checkpoint(stage=fit)
            stages += [*scores.values(), fit]
        return stages

    def _stream(self, plan: CellPlan, iteration: int, slots: dict[str, Checkpoint]) -> list[Stage]:
        """One stage that samples, compares and steps; `slots` moves on."""
        algorithm = _algorithm(plan)
        judge, training = self._judge(plan.cell), self.config.training
        check_stream(training, algorithm.name)
        steps = training.steps_per_iteration or math.ceil(self.config.prompts_per_iteration / training.batch_size)
        frozen = _needed(algorithm)
        options = self._training(plan) | {
            "frozen": frozen,
            **judge.described,
            "pairing": dataclasses.asdict(self._pairing(algorithm)),
            "sampling": self.sampling,
            "steps": steps,
            "total_steps": steps * self.config.iterations,
            **self._slice(plan.cell, iteration),
        }
        inputs: dict[str, Stage | Checkpoint] = {name: slots[name] for name in frozen}
        inputs |= {"start": slots["policy"], "prompts": self.prompts, **judge.inputs}
        stage = self._stage("stream", options, inputs, judge.where, f"{plan.cell.id}: iteration {iteration}, stream")
        slots["policy"] = Checkpoint(stage=stage)
        return [stage]

    def _sample(self, plan: CellPlan, iteration: int, slots: Mapping[str, Checkpoint], title: str) -> Stage:
        """Responses of the algorithm's player; the key holds no trainer, so that trainers share what they can."""
        algorithm = _algorithm(plan)
        player = slots["reference"] if algorithm.player is Player.REFERENCE else slots["policy"]
        share = algorithm.mixture if algorithm.player is Player.MIXTURE else 0.0  # type: ignore[attr-defined]
        options = {"sampling": self.sampling, "mixture": share, **self._slice(plan.cell, iteration)}
        inputs: dict[str, Stage | Checkpoint] = {"policy": player, "prompts": self.prompts}
        if share:
            inputs["reference"] = slots["reference"]
        return self._stage("sample", options, inputs, title=f"{title}, sample")

    def _score(self, frozen: Checkpoint, pair: Stage, title: str) -> Stage:
        training = self.config.training
        size = training.micro_batch_size or training.batch_size
        options = {"batch_size": size, "max_length": self._max_length, "opponents": []}
        return self._stage("score", options, {"policy": frozen, "pairs": pair}, title=title)

    def _evaluate(self, plan: CellPlan, iteration: int, policy: Checkpoint) -> None:
        """Every leaderboard's grades; before the last iteration only of those that have a curve."""
        last = iteration in (0, self.config.iterations)
        for board in self.boards:
            title = f"{plan.cell.id}: iteration {iteration}, {board.name}"
            kind = load("leaderboards", board.name)
            if plan.cell.is_control and plan.cell.trainer.name != CONTROL and not _is_pairwise(board):
                continue
            if not last and (kind.opens_checkpoint or board.options.get("curve_limit") == 0):
                continue
            if kind.opens_checkpoint:
                stage = self._stage(
                    "benchmark", board.described, {"policy": policy, **board.inputs}, board.where, title
                )
                plan.grades.append(Grade(stage, board.name, "", iteration))
            else:
                self._grade(plan, iteration, policy, board, last, title)

    def _grade(self, plan: CellPlan, iteration: int, policy: Checkpoint, board: Ref, last: bool, title: str) -> None:
        """Answers to a leaderboard, and the grades of every grader."""
        draw = "control" if plan.algorithm is None else f"seed {plan.cell.seed}"
        control = plan.cell.trainer.name if plan.cell.is_control and plan.cell.trainer.name != CONTROL else None
        answers = self._answers(board, policy, draw, last, f"{title}, answer", control)
        plan.answers[board.label, iteration] = answers
        inputs: dict[str, Stage] = {"answers": answers, "prompts": self.prompts, **board.inputs}
        if load("leaderboards", board.name).baseline == "start":
            of_start = f"{board.name}: the untrained policy's answers"
            inputs["baseline"] = self._answers(board, self.base, "baseline", True, of_start)
        for grader in self.graders:
            options = self._board(board, last) | grader.described
            known = {**board.where, **grader.where}
            stage = Stage("grade", options, {**inputs, **grader.inputs}, known, f"{title}, grade by {grader.label}")
            plan.grades.append(Grade(stage, board.name, grader.label, iteration))

    def _answers(
        self, board: Ref, policy: Checkpoint, draw: str, last: bool, title: str, control: str | None = None
    ) -> Stage:
        options = self._board(board, last) | {"sampling": self.sampling, "draw": draw, "control": control}
        inputs: dict[str, Stage | Checkpoint] = {"policy": policy, "reference": self.base, "prompts": self.prompts}
        return self._stage("answer", options, {**inputs, **board.inputs}, board.where, title)

    def _stage(
        self,
        kind: str,
        options: Mapping[str, Any],
        inputs: Mapping[str, Stage | Checkpoint],
        where: Mapping[str, Any] | None = None,
        title: str = "",
    ) -> Stage:
        """A stage that reads policies; those from outside enter by fingerprint and location."""
        stages: dict[str, Stage] = {}
        found, known = dict(options) | self.precision, dict(where or {})
        for name, source in inputs.items():
            if isinstance(source, Stage):
                stages[name] = source
                continue
            more_inputs, more_options, more_where = source.as_input(name)
            stages |= more_inputs
            found |= more_options
            known |= more_where
        return Stage(kind, found, stages, known, title)

    def _judge(self, cell: Cell) -> Ref:
        assert cell.judge is not None
        return self.judges[cell.judge.label] if cell.judge.label in self.judges else judge_ref(cell.judge, self.policy)

    def _pairing(self, algorithm: Algorithm) -> Pairing:
        """The algorithm's own way of pairing, with what the config overrides."""
        pairing = self.config.pairs.over(algorithm.pairing)
        k = self.config.sampling.k
        if algorithm.schedule is Schedule.REFIT and pairing.protocol == "tournament" and k & (k - 1):
            raise ValueError(
                f"sampling.k is {k}; a tournament needs a power of two (2, 4, 8, 16), or pairs.protocol: iid"
            )
        refits = algorithm.schedule is Schedule.REFIT
        if refits and any(phase.opponents for phase in algorithm.phases) and pairing.protocol != "best-worst":
            raise ValueError(
                f"pairs.protocol is {pairing.protocol}; {algorithm.name} needs best-worst, for its win rates"
            )
        return pairing

    @property
    def _max_length(self) -> int:
        return self.config.training.max_length

    def _training(self, plan: CellPlan) -> dict[str, Any]:
        chosen = {"name": plan.cell.trainer.name, "options": dataclasses.asdict(_algorithm(plan))}
        training = self.config.training.model_dump(exclude={"accelerate"})
        return {"algorithm": chosen, "training": training, "seed": plan.cell.seed, **self.accelerate}

    def _board(self, board: Ref, last: bool) -> dict[str, Any]:
        return {**board.described, "temperature": self.config.sampling.temperature, "last": last}

    def _slice(self, cell: Cell, iteration: int) -> dict[str, Any]:
        return {"iteration": iteration, "count": self.config.prompts_per_iteration, "seed": cell.seed}


def _algorithm(plan: CellPlan) -> Algorithm:
    assert plan.algorithm is not None
    return plan.algorithm


def _is_pairwise(board: Ref) -> bool:
    return bool(getattr(load("leaderboards", board.name), "pairwise", False))


def _needed(algorithm: Algorithm) -> list[str]:
    """The frozen policies a stream must hold: those that losses, players and opponents name and no phase writes."""
    named = {name for phase in algorithm.phases for name in (*phase.frozen, *phase.opponents)} | {
        algorithm.player.value
    }
    if Player.MIXTURE in named:
        named.add(Player.REFERENCE.value)
    return sorted(named - {Player.MIXTURE, Player.POLICY, *(phase.writes for phase in algorithm.phases)})


def _mixes(algorithm: Algorithm) -> bool:
    """Whether it samples from a mixture of the policy and the reference."""
    return algorithm.player is Player.MIXTURE and algorithm.mixture != 0  # type: ignore[attr-defined]


def in_order(stages: Sequence[Stage]) -> list[Stage]:
    """These stages and all they read, once each, every stage after what it reads."""
    found: dict[str, Stage] = {}

    def visit(stage: Stage) -> None:
        if stage.key not in found:
            for source in stage.inputs.values():
                visit(source)
            found[stage.key] = stage

    for stage in stages:
        visit(stage)
    return list(found.values())
