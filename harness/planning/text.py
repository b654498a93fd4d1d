"""Cells of a language model: train by either schedule, answer every leaderboard after every iteration, grade."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from functools import cached_property

from harness.components import algorithm_spec, base_policy, judge_spec, judge_specs
from harness.config import Config
from harness.matrix import CONTROL, Cell, response_controls, variants
from harness.planning.boards import (
    answer_tokens,
    board_reading,
    checked_algorithm,
    checked_boards,
    question_parts,
    question_range,
)
from harness.planning.effort import effort
from harness.planning.inputs import accelerate_contents, check_stream, prompts_contents, prompts_source
from harness.planning.own_options import own_pairs, own_training, phase_trainings
from harness.planning.records import CellPlan, Rated
from harness.planning.tuning import tuning
from harness.planning.win_rates import check_win_rates
from harness.registry import load
from harness.specs import Checkpoint, ComponentSpec
from harness.stage import Stage
from harness.stages.answer import Answer
from harness.stages.benchmark import Benchmark
from harness.stages.choose import Choose
from harness.stages.fit import Fit
from harness.stages.grade import Grade
from harness.stages.pair import Pair
from harness.stages.prompts import IterationPrompts, Prompts, TuningPrompts
from harness.stages.questions import Questions
from harness.stages.rate import Rate
from harness.stages.sample import Sample
from harness.stages.score import Score
from harness.stages.stream import Stream
from leaderboards.leaderboard import Part as QuestionPart
from trainers.algorithm import Algorithm, Pairing, Player, Schedule
from trainers.engines.selection import check_engine
from trainers.engines.vllm_options import VLLMOptions
from trainers.options import Endpoint, Sampling, Training

Roles = dict[str, Checkpoint]
"""The policies of a cell by the name that phases give them: policy, auxiliary, reference, previous, earlier."""


class TextPlanner:
    """Plans the cells of one language model.

    Args:
        cells: those to be planned, whose judges are checked.

    Raises:
        ValueError: anything in the config that cannot work.
    """

    def __init__(self, config: Config, policy: str | Endpoint, cells: Sequence[Cell]) -> None:
        self.config, self.policy = config, policy
        self.base = base_policy(policy, config.template_date)
        self.boards = checked_boards(config, policy)
        judges = [v for entry in config.matrix.judge for v in variants(entry)]
        self.tuning = tuning(config, policy, cells)
        ranking = [] if self.tuning is None else [self.tuning.grader]
        graders = judges if config.graders is None else [v for entry in config.graders for v in variants(entry)]
        trained_by = [cell.judge for cell in cells if cell.judge is not None]
        self.judges = judge_specs([*judges, *graders, *ranking, *trained_by], policy)
        self.graders = [self.judges[v.label] for v in graders]
        behind_endpoint = isinstance(policy, Endpoint)
        self.precision = None if behind_endpoint else config.training.precision
        # The engine makes no difference to a policy behind an endpoint, and names none of its artifacts.
        self.sampling = config.sampling.model_copy(
            update={"engine": "transformers", "vllm": VLLMOptions()} if behind_endpoint else {}
        )
        self.accelerate = accelerate_contents(config)
        self.prompts = self._prompts(trains=bool(trained_by))
        self.asked: Prompts | TuningPrompts = self.prompts

    def _prompts(self, trains: bool) -> Prompts:
        source = prompts_source(self.config, self.policy)
        cut = 0 if self.config.tune is None else self.config.tune.prompts
        return Prompts(
            policy=self.base,
            contents=prompts_contents(source, cut),
            max_tokens=self.sampling.max_tokens,
            precision=self.precision,
            source=source,
            training_length=self.config.training.max_length if trains else None,
            tuning=cut,
            title="prompts",
        )

    @property
    def controls(self) -> Sequence[Cell]:
        """The controls besides the untrained policy, where there is a pairwise leaderboard to grade them on."""
        return response_controls(self.policy) if any(_is_pairwise(board) for board in self.boards) else ()

    @property
    def questions(self) -> list[Questions]:
        """A look at the questions of each leaderboard that has them in the user's files, or answers of a length of its
        own.
        """
        kinds = [(board, load("leaderboards", board.name)) for board in self.boards]
        return [
            Questions(
                board=board,
                policy=self.base,
                prompts=self.prompts,
                max_tokens=answer_tokens(board, self.sampling.max_tokens),
                fixed="max_tokens" in board.options,
                temperature=self.sampling.temperature,
                precision=self.precision,
                title=f"{board.name}: questions",
            )
            for board, kind in kinds
            if (kind.paths or "max_tokens" in board.options) and board.source is None and not kind.opens_checkpoint
        ]

    def cell(self, cell: Cell) -> CellPlan:
        """The cell's stages.

        Raises:
            ValueError: a trainer that plays no language model, or what its sampling or pairing cannot do.
        """
        if cell.is_control:
            if not isinstance(self.policy, Endpoint):
                check_engine(self.config.sampling.engine, adapter=self.config.training.lora is not None)
            plan = CellPlan(cell, None)
            self._evaluate(plan, 0, self.base)
            return plan
        algorithm = checked_algorithm(cell, "text")
        choice = None if self.tuning is None else self.tuning.choice(cell, algorithm, self._trial)
        plan = CellPlan(cell, algorithm, choice=choice)
        for iteration, stages, policy in self._trained(cell, algorithm, choice):
            plan.training[iteration] = stages
            self._evaluate(plan, iteration, policy)
        return plan

    def _trained(
        self, cell: Cell, algorithm: Algorithm, choice: Choose | None
    ) -> Iterator[tuple[int, list[Stage], Checkpoint]]:
        """Every iteration with its stages and what they make of the policy."""
        adapter = own_training(self.config, cell.trainer, algorithm).lora is not None
        check_engine(self.config.sampling.engine, cell.trainer.name if _mixes(algorithm) else None, adapter=adapter)
        training = {Schedule.REFIT: _Refit, Schedule.STREAM: _Stream}[algorithm.schedule](self, cell, algorithm, choice)
        roles = dict.fromkeys(("policy", "auxiliary", "reference", "previous", "earlier"), self.base)
        for iteration in range(1, self.config.iterations + 1):
            roles["earlier"], roles["previous"] = roles["previous"], roles["policy"]
            yield iteration, training.stages(iteration, roles), roles["policy"]

    def _trial(self, cell: Cell, algorithm: Algorithm, number: int) -> Rate:
        """A trial's score: the trained policy against the untrained one, on the prompts cut off for that."""
        assert self.tuning is not None
        *_, (iteration, _, policy) = self._trained(cell, algorithm, None)
        asking, board, title = copy(self), self.tuning.board, f"{cell.id}: trial {number}"
        asking.asked = TuningPrompts(prompts=self.prompts, title="prompts of the trials")
        plan = CellPlan(cell, algorithm)
        answers = asking._answers(plan, iteration, policy, board, True, title)
        grader = self.judges[self.tuning.grader.label]
        grades: dict[str, Stage] = {part: asking._grade(board, grader, part, answers[part], title) for part in answers}
        return Rate(board=board_reading(board, "rate"), verdicts=grades, title=f"{title}, rate by {grader.label}")

    def judge(self, cell: Cell) -> ComponentSpec:
        """The judge that a cell is trained by."""
        assert cell.judge is not None
        return self.judges[cell.judge.label] if cell.judge.label in self.judges else judge_spec(cell.judge, self.policy)

    def _evaluate(self, plan: CellPlan, iteration: int, policy: Checkpoint) -> None:
        """Every leaderboard's scores; before the last iteration only of those that have a curve."""
        final = iteration in (0, self.config.iterations)
        for board in self.boards:
            kind, title = load("leaderboards", board.name), f"{plan.cell.id}: iteration {iteration}, {board.name}"
            if plan.cell.is_control and plan.cell.trainer.name != CONTROL and not _is_pairwise(board):
                continue
            if kind.opens_checkpoint:
                if final:
                    benchmark = Benchmark(board=board_reading(board, "evaluate"), policy=policy, title=title)
                    plan.rated.append(_rated(board, "", iteration, {"all": benchmark}, title))
                continue
            answers = self._answers(plan, iteration, policy, board, final, title)
            for grader in self.graders if answers else ():
                grades: dict[str, Grade | Benchmark] = {
                    part: self._grade(board, grader, part, answers[part], title) for part in answers
                }
                plan.rated.append(_rated(board, grader.label, iteration, grades, f"{title}, rate by {grader.label}"))

    def _answers(
        self, plan: CellPlan, iteration: int, policy: Checkpoint, board: ComponentSpec, final: bool, title: str
    ) -> dict[QuestionPart, Answer]:
        """The policy's or the control's answers by part of the board's questions."""
        draw = "control" if plan.algorithm is None else f"seed {plan.cell.seed}"
        control = plan.cell.trainer.name if plan.cell.is_control and plan.cell.trainer.name != CONTROL else None
        answers: dict[QuestionPart, Answer] = {}
        for part in question_parts(board, final=final):
            constant = answers.get("curve") if control == "constant" else None
            answer_title = f"{title}, answer{_NAMED[part]}"
            answers[part] = self._answer(board, policy, draw, part, answer_title, control, constant)
        plan.answers |= {(board.name, iteration, part): stage for part, stage in answers.items()}
        return answers

    def _grade(
        self, board: ComponentSpec, grader: ComponentSpec, part: QuestionPart, answers: Answer, title: str
    ) -> Grade:
        baseline = None
        if load("leaderboards", board.name).baseline == "untrained":
            of_start = f"{board.name}: the untrained policy's answers{_NAMED[part]}"
            baseline = self._answer(board, self.base, "baseline", part, of_start)
        return Grade(
            board=board_reading(board, "grade"),
            judge=grader,
            answers=answers,
            prompts=self.asked,
            temperature=self.sampling.temperature,
            part=part,
            baseline=baseline,
            title=f"{title}, grade{_NAMED[part]} by {grader.label}",
        )

    def _answer(
        self,
        board: ComponentSpec,
        policy: Checkpoint,
        draw: str,
        part: QuestionPart,
        title: str,
        control: str | None = None,
        constant: Answer | None = None,
    ) -> Answer:
        first, last = question_range(board, part)
        sampling = self.sampling if control == "longest" else _without_k(self.sampling)
        return Answer(
            board=board_reading(board, "requests"),
            policy=policy,
            reference=self.base,
            prompts=self.asked,
            sampling=sampling.model_copy(update={"max_tokens": answer_tokens(board, sampling.max_tokens)}),
            draw=draw,
            part=part,
            first=first,
            last=last,
            precision=self.precision,
            control=control,
            constant=constant,
            title=title,
        )


_NAMED = {"curve": "", "rest": " the rest"}
"""How a title tells the parts of a board's questions apart."""


def _rated(
    board: ComponentSpec, grader: str, iteration: int, verdicts: Mapping[str, Grade | Benchmark], title: str
) -> Rated:
    rate = Rate(board=board_reading(board, "rate"), verdicts=verdicts, title=title)
    return Rated(rate, verdicts, board.name, grader, iteration)


class _Training(ABC):
    """What both schedules share: the planner's options, and one cell's algorithm and judge."""

    def __init__(self, planner: TextPlanner, cell: Cell, algorithm: Algorithm, choice: Choose | None) -> None:
        self.planner, self.cell, self.algorithm, self.choice = planner, cell, algorithm, choice
        self.config = planner.config
        self.training = own_training(planner.config, cell.trainer, algorithm)
        self.phase_training = phase_trainings(planner.config, cell.trainer, algorithm)
        self.judge = planner.judge(cell)
        self.spec = algorithm_spec(algorithm, cell.trainer)

    def chosen(self, iteration: int) -> IterationPrompts:
        """Which prompts an iteration draws."""
        assert self.cell.seed is not None
        return IterationPrompts(iteration, self.config.prompts_per_iteration, self.cell.seed)

    @abstractmethod
    def stages(self, iteration: int, roles: Roles) -> list[Stage]:
        """An iteration's stages; `roles` moves on."""

    @cached_property
    def pairing(self) -> Pairing:
        """The algorithm's own way of pairing, with what the config overrides."""
        return own_pairs(self.config, self.cell.trainer).over(self.algorithm.pairing)


class _Refit(_Training):
    """Sample, pair, then for each phase score its frozen policies and fit."""

    def stages(self, iteration: int, roles: Roles) -> list[Stage]:
        _check_pairing(self.config, self.algorithm, self.pairing)
        check_win_rates(self.algorithm)
        assert self.cell.seed is not None
        title = f"{self.cell.id}: iteration {iteration}"
        sample = self._sample(iteration, roles, title)
        pair = Pair(
            responses=sample,
            prompts=self.planner.prompts,
            judge=self.judge,
            pairing=self.pairing,
            cell_seed=self.cell.seed,
            training_length=self.training.max_length,
            title=f"{title}, compare",
        )
        stages: list[Stage] = [sample, pair]
        count = len(self.algorithm.phases)
        for number, phase in enumerate(self.algorithm.phases, 1):
            scores = {name: self._score(roles[name], pair, f"{title}, score {name}") for name in phase.frozen}
            fit = Fit(
                algorithm=self.spec,
                start=roles[phase.start],
                pairs=pair,
                frozen=scores,
                training=_of_refit(self.phase_training[phase.writes]),
                max_length=self.training.max_length,
                cell_seed=self.cell.seed,
                opponents=phase.opponents,
                choice=self.choice,
                **self.planner.accelerate,
                title=title + (f", fit {number} of {count}" if count > 1 else ", fit"),
            )
            roles[phase.writes] = self.planner.base.trained_by(fit)
            stages += [*scores.values(), fit]
        return stages

    def _sample(self, iteration: int, roles: Mapping[str, Checkpoint], title: str) -> Sample:
        """Responses of the algorithm's player; no trainer is named, so that trainers share what they can."""
        algorithm, planner = self.algorithm, self.planner
        player = roles["reference"] if algorithm.player is Player.REFERENCE else roles["policy"]
        share = algorithm.mixture if algorithm.player is Player.MIXTURE else 0.0  # type: ignore[attr-defined]
        assert planner.precision is not None
        return Sample(
            policy=player,
            prompts=planner.prompts,
            chosen=self.chosen(iteration),
            sampling=_at_temperature(planner.sampling, algorithm),
            precision=planner.precision,
            mixture=share,
            reference=roles["reference"] if share else None,
            training_length=self.training.max_length,
            title=f"{title}, sample",
        )

    def _score(self, frozen: Checkpoint, pair: Pair, title: str) -> Score:
        training = self.training
        return Score(
            policy=frozen,
            pairs=pair,
            max_length=training.max_length,
            precision=training.precision,
            batch_size=training.micro_batch_size or training.batch_size,
            title=title,
        )


class _Stream(_Training):
    """One stage that samples, compares and steps."""

    def stages(self, iteration: int, roles: Roles) -> list[Stage]:
        config, training = self.config, self.training
        check_stream(training, self.algorithm.name)
        steps = effort(config, self.cell.trainer, self.algorithm).steps
        stage = Stream(
            algorithm=self.spec,
            judge=self.judge,
            start=roles["policy"],
            prompts=self.planner.prompts,
            frozen={name: roles[name] for name in _held(self.algorithm)},
            training=_without(training, "epochs", "steps_per_iteration"),
            pairing=self.pairing,
            sampling=_without_k(self.planner.sampling),
            chosen=self.chosen(iteration),
            steps=steps,
            total_steps=steps * config.iterations if self._looks_ahead() else 0,
            choice=self.choice,
            title=f"{self.cell.id}: iteration {iteration}, stream",
        )
        roles["policy"] = self.planner.base.trained_by(stage)
        return [stage]

    def _looks_ahead(self) -> bool:
        """Whether a step's learning rate depends on how many steps there are in all; under one of the trials too."""
        tried = () if self.choice is None else (options["training"] for options in self.choice.options)
        return any(_looks_ahead(self.training.model_copy(update=options)) for options in ({}, *tried))


def _check_pairing(config: Config, algorithm: Algorithm, pairing: Pairing) -> None:
    k = config.sampling.k
    if pairing.protocol == "tournament" and k & (k - 1):
        raise ValueError(f"sampling.k is {k}; a tournament needs a power of two (2, 4, 8, 16), or pairs.protocol: iid")
    if any(phase.opponents for phase in algorithm.phases) and pairing.protocol != "best-worst":
        raise ValueError(f"pairs.protocol is {pairing.protocol}; {algorithm.name} needs best-worst, for its win rates")


def _without(training: Training, *names: str) -> Training:
    """The training with these options, which a schedule does not read, at their defaults."""
    return training.model_copy(update={name: Training.model_fields[name].default for name in names})


def _of_refit(training: Training) -> Training:
    """What a fit reads: the number of its steps, or else its epochs."""
    return training if training.steps_per_iteration is None else _without(training, "epochs")


def _without_k(sampling: Sampling) -> Sampling:
    """The sampling of stages that draw another number of responses than `k`."""
    return sampling.model_copy(update={"k": Sampling.model_fields["k"].default})


def _looks_ahead(training: Training) -> bool:
    """Whether a step's learning rate depends on how many steps there are in all."""
    return training.schedule != "constant" or training.warmup > 0


def _at_temperature(sampling: Sampling, algorithm: Algorithm) -> Sampling:
    """The sampling of a refit's responses, at the algorithm's own temperature where it has one."""
    own = algorithm.temperature
    return sampling if own is None else sampling.model_copy(update={"temperature": own})


def _is_pairwise(board: ComponentSpec) -> bool:
    return bool(getattr(load("leaderboards", board.name), "pairwise", False))


def _held(algorithm: Algorithm) -> list[str]:
    """The frozen policies a stream must hold: those that losses, players and opponents name and no phase writes."""
    named = {name for phase in algorithm.phases for name in (*phase.frozen, *phase.opponents)} | {
        algorithm.player.value
    }
    if Player.MIXTURE in named:
        named.add(Player.REFERENCE.value)
    return sorted(named - {Player.MIXTURE, Player.POLICY, *(phase.writes for phase in algorithm.phases)})


def _mixes(algorithm: Algorithm) -> bool:
    """Whether its player or an opponent is a mixture of the policy and the reference."""
    sampled = {algorithm.player.value, *(name for phase in algorithm.phases for name in phase.opponents)}
    return Player.MIXTURE in sampled and algorithm.mixture != 0  # type: ignore[attr-defined]
