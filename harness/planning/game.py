"""Cells of an exact game: play, then the gap of every policy."""

from __future__ import annotations

from collections.abc import Sequence

from harness.components import algorithm_spec
from harness.config import Config, Game
from harness.matrix import CONTROL, Cell, Variant
from harness.planning.boards import checked_algorithm, checked_boards
from harness.planning.own_options import own_training, refuse_on_games
from harness.planning.records import CellPlan, Rated
from harness.stages.gap import Gap
from harness.stages.play import Play
from harness.stages.questions import Questions
from judges.reading import shortened
from trainers.algorithm import Algorithm, Schedule
from trainers.games import load_game
from trainers.options import Training


class GamePlanner:
    """Plans the cells of one game."""

    controls: Sequence[Cell] = ()
    questions: Sequence[Questions] = ()

    def __init__(self, config: Config, game: Game) -> None:
        self.config = config
        _check_one_process(config.training, game)
        self.preference = tuple(map(tuple, load_game(game.game).tolist()))
        self.boards = checked_boards(config, game)

    def cell(self, cell: Cell) -> CellPlan:
        """The cell's stages.

        Raises:
            ValueError: a trainer or judge that plays no game, or a stream without a step size.
        """
        plan, game, iterations = CellPlan(cell, None), None, self.config.iterations
        if cell.trainer.name != CONTROL:
            plan.algorithm = checked_algorithm(cell, "game")
            lr = self._step(plan.algorithm, cell.trainer)
            if cell.judge is None or cell.judge.name != "game":
                raise ValueError(f"a game judges itself: the judge of {cell.id!r} must be 'game'")
            game = Play(
                algorithm=algorithm_spec(plan.algorithm, cell.trainer),
                preference=self.preference,
                iterations=iterations,
                lr=lr,
                title=f"{cell.id}: play",
            )
            plan.training[iterations] = [game]
        tau = _regularisation(plan.algorithm)
        for board in self.boards:
            gap = Gap(board=board, preference=self.preference, tau=tau, game=game, title=f"{cell.id}: {board.name}")
            plan.rated.append(Rated(gap, {}, board.name, "", iterations))
        return plan

    def _step(self, algorithm: Algorithm, trainer: Variant) -> float:
        """The gradient step; the default, which names no artifact anew, where the algorithm is solved exactly.

        Raises:
            ValueError: none is given (a default made for language models would leave a game's logits where they are),
                or the trainer has options that a game does not read.
        """
        by_gradient = algorithm.schedule is Schedule.STREAM or not algorithm.unique_minimiser
        refuse_on_games(trainer, by_gradient=by_gradient)
        if not by_gradient:
            return float(Training.model_fields["lr"].default)
        training = own_training(self.config, trainer, algorithm)
        if "lr" not in training.model_fields_set:
            raise ValueError(f"{algorithm.name} takes gradient steps on a game: give training.lr, for example 0.2")
        return training.lr


def _regularisation(algorithm: Algorithm | None) -> float:
    """The tau of the game an algorithm plays; 0 where it does not regularise."""
    tau = getattr(algorithm, "tau", 0.0)
    return float(tau) if isinstance(tau, int | float) else 0.0


def _check_one_process(training: Training, game: Game) -> None:
    """Raise ValueError where the training asks for several processes, which a game is not played in."""
    if training.accelerate is not None:
        raise ValueError(
            f"training.accelerate is given, and the policy is the game {shortened(game.game)}, which is played in one "
            "process; leave training.accelerate out"
        )
