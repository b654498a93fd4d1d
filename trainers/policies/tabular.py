"""Softmax tables over n actions, and `play`: exact games through the losses that train language models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from trainers.algorithm import Algorithm, Player, Schedule
from trainers.games import check_preference, duality_gap
from trainers.policies.minimise import PopulationLoss

Array = NDArray[np.float64]
StepSize = float | Callable[[int], float]


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
    step_size: StepSize | None = None,
) -> Run:
    """Run an algorithm on a game with exact expectations.

    A refit algorithm solves each phase exactly; a stream algorithm, and one whose loss has no unique minimiser, takes
    one gradient step on the softmax logits an iteration.

    Args:
        preference: P(row beats column), [n, n] or [games, n, n].
        iterations: how many iterations, at least 1; a hyperparameter that is a function is called with t = 1, 2, ...
        init: the start, a distribution [n] or [games, n]; default uniform.
        reference: the reference policy, likewise; default uniform.
        step_size: the gradient step of the stream schedule, a number or a function of t.

    Returns:
        A `Run`. State is kept in float64 log-probabilities, so policies may underflow to 0 without losing the run.

    Raises:
        ValueError: the matrix is not a preference, a start is not a positive distribution, `iterations` < 1, the
            stream schedule has no step size, or a loss has no finite minimiser.
    """
    matrix = check_preference(preference)
    if iterations < 1:
        raise ValueError(f"iterations is {iterations}; play needs at least 1")
    shape = matrix.shape[:-1]
    slots = {
        "policy": _log_distribution("init", init, shape),
        "reference": _log_distribution("reference", reference, shape),
    }
    slots |= {"auxiliary": slots["policy"], "previous": slots["policy"]}
    batched = torch.from_numpy(matrix.reshape(-1, *matrix.shape[-2:]))
    iterate = _refit(algorithm, batched, slots)
    if algorithm.schedule is Schedule.STREAM or not algorithm.unique_minimiser:
        iterate = _stream(algorithm, batched, slots, step_size)
    policies = torch.empty((iterations + 1, *slots["policy"].shape), dtype=torch.float64)
    policies[0] = slots["policy"]
    for t in range(1, iterations + 1):
        policies[t] = next(iterate)
    return Run(matrix, policies.exp().numpy().reshape(iterations + 1, *shape))


def _refit(algorithm: Algorithm, preference: Tensor, slots: dict[str, Tensor]) -> Iterator[Tensor]:
    """One exactly solved refit an iteration; yields the log-policy."""
    t = 0
    while t := t + 1:
        now = algorithm.at(t)
        slots["previous"] = slots["policy"]
        law = sampling_law(now, slots).exp()
        for phase in now.phases:
            frozen = {name: slots[name] for name in phase.frozen}
            slots[phase.writes] = PopulationLoss(now, preference, law, frozen).minimiser(slots[phase.start])
        yield slots["policy"]


def _stream(
    algorithm: Algorithm, preference: Tensor, slots: dict[str, Tensor], step_size: StepSize | None
) -> Iterator[Tensor]:
    """One gradient step on the logits an iteration; frozen policies stay as they were at the start."""
    if step_size is None:
        raise ValueError(f"{algorithm.name} plays games by gradient steps and needs step_size, for example 0.2")
    (phase,) = algorithm.phases
    frozen = {name: slots[name] for name in phase.frozen}
    t = 0
    while t := t + 1:
        now = algorithm.at(t)
        law = sampling_law(now, slots).exp()
        step = step_size(t) if callable(step_size) else step_size
        gradient = law * PopulationLoss(now, preference, law, frozen).gradient(slots["policy"])
        slots["policy"] = torch.log_softmax(slots["policy"] - step * gradient, -1)
        yield slots["policy"]


def sampling_law(algorithm: Algorithm, slots: dict[str, Tensor]) -> Tensor:
    """Log-probabilities [games, n] of the responses an algorithm compares (for one token, the mixture is exact)."""
    if algorithm.player is Player.POLICY:
        return slots["policy"]
    share = 1.0 if algorithm.player is Player.REFERENCE else algorithm.mixture  # type: ignore[attr-defined]
    return torch.log_softmax((1 - share) * slots["policy"] + share * slots["reference"], -1)


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
