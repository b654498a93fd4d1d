"""Softmax tables over n actions, and `play`: exact games through the losses that train language models."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import count, islice

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from trainers.algorithm import Algorithm, Phase, Player, Schedule
from trainers.errors import TrainingError
from trainers.games import check_preference, duality_gap
from trainers.policies.feedback import Exact, Feedback, PairLaw, Sampled
from trainers.policies.minimise import ExpectedLoss, Newton

Array = NDArray[np.float64]
StepSize = float | Callable[[int], float]
Move = Callable[[ExpectedLoss, Tensor, int], Tensor]
"""(loss, start, iteration) -> the log-policy a phase ends at."""


@dataclass(frozen=True)
class Run:
    """The policies of a game, in order.

    Attributes:
        preference: [n, n] or [games, n, n].
        policies: float64 [iterations + 1, n] or [iterations + 1, games, n]; policies[0] is the start.
    """

    preference: Array
    policies: Array

    def duality_gap(self) -> Array:
        """The unregularised duality gap of each policy, [iterations + 1] or [iterations + 1, games]."""
        return duality_gap(self.preference, self.policies)

    def average_duality_gap(self) -> Array:
        """At t, the gap of the mean of policies[0..t], [iterations + 1] or [iterations + 1, games]."""
        count = np.arange(1, len(self.policies) + 1, dtype=np.float64)
        means = self.policies.cumsum(0) / count.reshape(-1, *(1,) * (self.policies.ndim - 1))
        return duality_gap(self.preference, means)


def play(
    algorithm: Algorithm,
    preference: ArrayLike,
    iterations: int,
    *,
    init: ArrayLike | None = None,
    reference: ArrayLike | None = None,
    data: ArrayLike | None = None,
    step_size: StepSize | None = None,
    exact: bool = True,
    pairs_per_iteration: int | None = None,
    seed: int = 0,
) -> Run:
    """Run an algorithm on a game, through the loss that trains language models.

    A refit algorithm solves each phase exactly; a stream algorithm, and one whose loss has no unique minimiser, takes
    one gradient step on the softmax logits a phase. Pairs are always independent draws from the player's law.

    Args:
        preference: P(row beats column), [n, n] or [games, n, n].
        iterations: how many iterations, at least 1; a hyperparameter that is a function is called with t = 1, 2, ...
        init: the start, a distribution [n] or [games, n]; default uniform.
        reference: the reference policy, likewise; default uniform.
        data: the sampling law of an offline algorithm, likewise; default the reference.
        step_size: the gradient step of the stream schedule, a number or a function of t; a refit needs none.
        exact: expectations over pairs and labels; False: `pairs_per_iteration` sampled pairs with Bernoulli labels,
            where a refit takes the minimiser nearest to where it starts (the least-norm one).
        seed: of the samples.

    Returns:
        A `Run`. State is kept in float64 log-probabilities, so policies may underflow to 0 without losing the run.

    Raises:
        ValueError: the matrix is not a preference, a start or `data` is not a positive distribution, `iterations` < 1,
            the algorithm needs text, options that do not go together, a loss without finite minimiser, or gradient
            steps so long that the policy stands still far from its fixed point (see `_refuse_standstill`).
    """
    matrix = check_preference(preference)
    _check_options(algorithm, iterations, data, exact, pairs_per_iteration)
    shape = matrix.shape[:-1]
    log_policies = {
        "policy": _log_distribution("init", init, shape),
        "reference": _log_distribution("reference", reference, shape),
        "data": _log_distribution("data", reference if data is None else data, shape),
    }
    log_policies |= dict.fromkeys(("auxiliary", "previous", "earlier"), log_policies["policy"])
    batched = torch.tensor(matrix.reshape(-1, *matrix.shape[-2:]))
    feedback: Feedback = Exact(batched)
    if pairs_per_iteration is not None:
        feedback = Sampled(batched, pairs_per_iteration, torch.Generator().manual_seed(seed))
    policies = torch.empty((iterations + 1, *log_policies["policy"].shape), dtype=torch.float64)
    policies[0] = log_policies["policy"]
    if callable(step_size):
        step_size = cache(step_size)  # it may count its calls: one for each iteration
    with _one_thread():
        for t, policy in enumerate(islice(_iterate(algorithm, feedback, log_policies, step_size), iterations), 1):
            policies[t] = policy
        if _by_gradient(algorithm):
            _refuse_standstill(algorithm.at(iterations), Exact(batched), log_policies, policies, step_size)
    return Run(matrix, policies.exp().numpy().reshape(iterations + 1, *shape))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Games are many small operations, which threads only slow down."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _iterate(
    algorithm: Algorithm, feedback: Feedback, log_policies: dict[str, Tensor], step_size: StepSize | None
) -> Iterator[Tensor]:
    """Plays on and on; yields the log-policy [games, n] after each iteration."""
    refits = not _by_gradient(algorithm)
    move = _refit() if refits else _gradient_step(algorithm, step_size)
    for t in count(1):
        now = algorithm.at(t)
        if refits:
            log_policies["earlier"], log_policies["previous"] = log_policies["previous"], log_policies["policy"]
        law = sampling_law(now, log_policies)
        pairs = feedback.pairs(law)
        for phase in now.phases:
            loss = _expected_loss(now, phase, feedback, law, pairs, log_policies)
            log_policies[phase.writes] = move(loss, log_policies[phase.start], t)
        yield log_policies["policy"]


def _expected_loss(
    algorithm: Algorithm,
    phase: Phase,
    feedback: Feedback,
    law: Tensor,
    pairs: PairLaw,
    log_policies: Mapping[str, Tensor],
) -> ExpectedLoss:
    """A phase's loss of pairs drawn from the law, against the frozen policies and opponents as they are now."""
    rewards = {
        name: feedback.rewards(law, law_of(name, algorithm, log_policies), algorithm.reward) for name in phase.opponents
    }
    return ExpectedLoss(algorithm, pairs, {name: log_policies[name] for name in phase.frozen}, rewards)


def _by_gradient(algorithm: Algorithm) -> bool:
    """Whether it plays games by gradient steps: a stream, or a loss without a single minimiser to refit to."""
    return algorithm.schedule is Schedule.STREAM or not algorithm.unique_minimiser


def _refuse_standstill(
    algorithm: Algorithm,
    feedback: Exact,
    log_policies: Mapping[str, Tensor],
    policies: Tensor,
    step_size: StepSize | None,
) -> None:
    """Raise TrainingError where gradient steps drove an action's probability so low that it is never played again.

    A step that is too long overshoots until the player's law is all but a single action. No gradient is left there, so
    the policies read as converged, although the loss would raise the actions that are gone. That is so where the last
    change, made as often again as there were iterations, moves no probability by a tenth; an action is pushed up by
    more than a hundredth of the terms that its gradient is made of; and as many iterations again would not carry it
    there, since it is played less than once in the steps' sum, while at the start it was played more.
    """
    assert step_size is not None
    iterations, law = len(policies) - 1, sampling_law(algorithm, log_policies)
    reach = iterations * (step_size(iterations) if callable(step_size) else step_size)
    start = sampling_law(algorithm, {**log_policies, "policy": policies[0]}).exp()
    phase = algorithm.phases[-1]
    loss = _expected_loss(algorithm, phase, feedback, law, feedback.pairs(law), log_policies)
    point = loss.at(log_policies[phase.start])
    still = (iterations * (policies[-1].exp() - policies[-2].exp())).abs().amax(-1, keepdim=True) < 0.1
    pushed_up = -point.residual > 0.01 * point.terms.unsqueeze(-1)
    frozen = still & pushed_up & (reach * law.exp() < 1) & (reach * start > 1)
    if frozen.any():
        game, action = frozen.nonzero()[0].tolist()
        raise TrainingError(
            f"{algorithm.name}: the gradient steps of {reach / iterations:g} are too long for this game: they drove "
            f"action {action} from probability {start[game, action]:.2g} to {law[game, action].exp():.2g}, where it is "
            "never played again although the loss would raise it, so the policy stands still far from its fixed point. "
            "Lower step_size (training.lr of a sweep)"
        )


def _refit() -> Move:
    newton = Newton()
    return lambda loss, start, t: newton.minimise(loss, start)


def _gradient_step(algorithm: Algorithm, step_size: StepSize | None) -> Move:
    if step_size is None:
        raise ValueError(f"{algorithm.name} plays games by gradient steps and needs step_size, for example 0.2")
    size = step_size if callable(step_size) else lambda t: step_size
    return lambda loss, start, t: torch.log_softmax(start - size(t) * loss.logit_gradient(start), -1)


def sampling_law(algorithm: Algorithm, log_policies: Mapping[str, Tensor]) -> Tensor:
    """Log-probabilities [games, n] of the responses an algorithm compares."""
    law = (
        log_policies["data"]
        if algorithm.player is Player.REFERENCE
        else law_of(algorithm.player, algorithm, log_policies)
    )
    return law if algorithm.temperature is None else torch.log_softmax(law / algorithm.temperature, -1)


def law_of(name: str, algorithm: Algorithm, log_policies: Mapping[str, Tensor]) -> Tensor:
    """Log-probabilities [games, n] of a policy by role, or of the algorithm's mixture (exact: one token a response)."""
    if name != Player.MIXTURE:
        return log_policies[name]
    share = algorithm.mixture  # type: ignore[attr-defined]
    return torch.log_softmax((1 - share) * log_policies["policy"] + share * log_policies["reference"], -1)


def _check_options(
    algorithm: Algorithm, iterations: int, data: ArrayLike | None, exact: bool, pairs_per_iteration: int | None
) -> None:
    if iterations < 1:
        raise ValueError(f"iterations is {iterations}; play needs at least 1")
    if algorithm.needs == "text":
        raise ValueError(f"{algorithm.name} needs text; it cannot play a game")
    if data is not None and algorithm.player is not Player.REFERENCE:
        raise ValueError(f"data is the law of offline algorithms; {algorithm.name} samples from the {algorithm.player}")
    if exact and pairs_per_iteration is not None:
        raise ValueError("pairs_per_iteration is for sampled play; add exact=False, or leave it out")
    if not exact and (pairs_per_iteration is None or pairs_per_iteration < 1):
        raise ValueError(f"sampled play needs pairs_per_iteration of at least 1; it is {pairs_per_iteration}")


def _log_distribution(name: str, values: ArrayLike | None, shape: tuple[int, ...]) -> Tensor:
    """A start as log-probabilities [games, n]; uniform where none is given."""
    if values is None:
        values = np.full(shape[-1], 1 / shape[-1])
    policy = np.asarray(values, np.float64)
    if policy.shape not in (shape, shape[-1:]):
        raise ValueError(f"{name} has shape {policy.shape}; the game needs {shape[-1:]} or {shape}")
    if not (policy > 0).all() or np.abs(policy.sum(-1) - 1).max() > 1e-9:
        raise ValueError(f"{name} must be positive and sum to 1; it sums to {policy.sum(-1)} with least {policy.min()}")
    return torch.from_numpy(np.log(np.broadcast_to(policy, shape).reshape(-1, shape[-1])))
