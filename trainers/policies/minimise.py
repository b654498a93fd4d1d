"""The expected loss of an algorithm over tabular policies, its gradient and its exact minimiser, from `loss` itself.

The gradient in log pi_y carries a factor, how often y occurs; everything here leaves that factor out, so that rows stay
accurate where probabilities underflow.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property

import torch
from torch import Tensor

from trainers.algorithm import Algorithm, PairBatch, PairValues
from trainers.errors import TrainingError
from trainers.policies.feedback import PairLaw

MAX_STEPS = 200
MAX_HALVINGS = 40
TOLERANCE = 1e-13
ONE_TOKEN = PairValues(torch.ones(()), torch.ones(()))
"""An action is a response of one token."""


@dataclass(frozen=True)
class Point:
    """A log-policy [games, n] and the gradient of the loss there.

    Attributes:
        residual: d loss / d logit_y divided by how often y occurs, [games, n].
        terms: the sum of the absolute terms the residual is made of, [games].
        pull: d loss / d (a common shift of log pi), [games, 1]; 0 everywhere where the loss only sees margins.
    """

    log_policy: Tensor
    residual: Tensor
    terms: Tensor
    pull: Tensor | None

    @property
    def size(self) -> Tensor:
        """The largest residual of each game, [games]."""
        return self.residual.abs().amax(-1)


@dataclass(frozen=True)
class Curvature:
    """Second derivatives of the loss of each ordered pair in log pi(chosen), log pi(rejected), each [games, n, n]."""

    chosen: Tensor
    cross: Tensor
    rejected: Tensor


@dataclass(frozen=True)
class ExpectedLoss:
    """An algorithm's expected loss of a labelled pair as a function of the log-policy [games, n].

    Args:
        frozen: log-probabilities of the frozen policies the loss is measured against, each [games, n].
        rewards: each action's mean reward against each opponent, each [games, n].
    """

    algorithm: Algorithm
    pairs: PairLaw
    frozen: Mapping[str, Tensor]
    rewards: Mapping[str, Tensor]

    def logit_gradient(self, log_policy: Tensor) -> Tensor:
        """d loss / d logits of a softmax policy, [games, n]; nothing flows through the sampling law."""
        return self.pairs.occurrence * self.at(log_policy).residual

    def at(self, log_policy: Tensor) -> Point:
        """The gradient of the loss at a log-policy, which is normalised first."""
        log_policy = torch.log_softmax(log_policy, -1)
        _, slopes = self._slopes(log_policy)
        rows = self._rows(slopes.chosen, slopes.rejected)
        residual, terms = rows.sum(-1), rows.abs().sum(-1).amax(-1)
        if not (slopes.chosen + slopes.rejected).any():
            return Point(log_policy, residual, terms, None)
        pull = (self.pairs.occurrence * residual).sum(-1, keepdim=True)
        return Point(log_policy, residual - self._density(log_policy) * pull, terms, pull)

    def curvature(self, log_policy: Tensor) -> Curvature:
        """The loss's second derivatives, pair by pair."""
        pair, slopes = self._slopes(log_policy, create_graph=True)
        chosen, cross = _derivatives(slopes.chosen, pair)
        _, rejected = _derivatives(slopes.rejected, pair)
        return Curvature(chosen, cross, rejected)

    def newton_matrix(self, point: Point, curvature: Curvature) -> tuple[Tensor, Tensor]:
        """The derivative of the residual [games, n, n], and the scale [games] of what rounding leaves of it."""
        own = self._rows(curvature.chosen, curvature.rejected).sum(-1)
        matrix = torch.diag_embed(own) + self._rows(curvature.cross, curvature.cross)
        diagonal = matrix.diagonal(dim1=-2, dim2=-1)
        scale = point.terms + diagonal.abs().amax(-1) * point.log_policy.abs().amax(-1)
        if point.pull is None:
            # A loss of margins does not see a common shift of log pi; the rank-one term fixes that shift at zero.
            return (matrix + self.pairs.occurrence.unsqueeze(-2) if self.pairs.complete else matrix), scale
        density = self._density(point.log_policy)
        shift = (1 + point.pull) * point.log_policy.exp() - (self.pairs.occurrence.unsqueeze(-2) @ matrix).squeeze(-2)
        return matrix + density.unsqueeze(-1) * shift.unsqueeze(-2) - torch.diag_embed(point.pull * density), scale

    def _density(self, log_policy: Tensor) -> Tensor:
        """The policy over how often each action occurs, [games, n]."""
        return (log_policy - self.pairs.log_occurrence).exp()

    def _loss(self, policy: PairValues) -> Tensor:
        return self.algorithm.loss(PairBatch(policy, self._frozen_pairs, self._reward_pairs, ONE_TOKEN))

    @cached_property
    def _frozen_pairs(self) -> Mapping[str, PairValues]:
        return {name: all_pairs(values) for name, values in self.frozen.items()}

    @cached_property
    def _reward_pairs(self) -> Mapping[str, PairValues]:
        return {name: all_pairs(values) for name, values in self.rewards.items()}

    def _slopes(self, log_policy: Tensor, create_graph: bool = False) -> tuple[PairValues, PairValues]:
        """Every ordered pair, and d loss / d log pi(chosen) and d log pi(rejected) of each, [games, n, n]."""
        pair = all_pairs(log_policy)
        inputs = (pair.chosen.requires_grad_(), pair.rejected.requires_grad_())
        slopes = torch.autograd.grad(self._loss(pair).sum(), inputs, create_graph=create_graph)
        return pair, PairValues(*slopes)

    def _rows(self, as_chosen: Tensor, as_rejected: Tensor) -> Tensor:
        """What each pair contributes to its first action, [games, y, y']."""
        return self.pairs.won * as_chosen + self.pairs.lost * as_rejected.transpose(-1, -2)


def _derivatives(slope: Tensor, pair: PairValues) -> tuple[Tensor, ...]:
    """d slope / d log pi(chosen) and d log pi(rejected), pair by pair; zero where the loss is linear."""
    if not slope.requires_grad:
        return torch.zeros_like(slope), torch.zeros_like(slope)
    inputs = (pair.chosen, pair.rejected)
    return torch.autograd.grad(slope.sum(), inputs, retain_graph=True, materialize_grads=True)


class Newton:
    """Newton's method for exact refits; remembers the last algorithm whose curvature turned out to be a constant."""

    def __init__(self) -> None:
        self.algorithm: Algorithm | None = None
        self.constant: Curvature | None = None

    def minimise(self, loss: ExpectedLoss, start: Tensor) -> Tensor:
        """The normalised log-policy [games, n] of least expected loss.

        A squared loss of margins is one linear solve; any other smooth one stops when its gradient is 1e-13 of its own
        terms. Where sampled pairs leave several solutions, the one nearest to `start`.

        Raises:
            TrainingError: there is no finite minimiser (a logistic loss on a game with entries 0 or 1), or the step is
                too bold for double precision to find it.
        """
        if loss.algorithm != self.algorithm:
            self.algorithm, self.constant = loss.algorithm, _constant_curvature(loss, start)
        point = loss.at(start)
        if self.constant is not None and point.pull is None:
            matrix, _ = loss.newton_matrix(point, self.constant)
            return torch.log_softmax(point.log_policy + _solve(matrix, -point.residual, loss.pairs.complete), -1)
        for _ in range(MAX_STEPS):
            matrix, scale = loss.newton_matrix(point, loss.curvature(point.log_policy))
            point = _damped(loss, point, _solve(matrix, -point.residual, loss.pairs.complete), scale)
            if (point.size <= TOLERANCE * scale).all():
                return point.log_policy
        raise TrainingError(_why_unsolved(loss, start, point))


def _why_unsolved(loss: ExpectedLoss, start: Tensor, point: Point) -> str:
    name, pairs = loss.algorithm.name, loss.pairs
    of_margins = loss.at(start).pull is None
    if of_margins and (not pairs.complete or ((pairs.won == 0) != (pairs.lost == 0)).any()):
        return (
            f"{name} has no finite minimiser here: after {MAX_STEPS} Newton steps the policy still moves. A preference "
            "matrix with entries 0 or 1, or few sampled pairs, do this to a logistic loss; move the entries inside "
            "(0, 1) or draw more pairs"
        )
    spans = [float((policy.amax(-1) - policy.amin(-1)).max()) for policy in (start, point.log_policy)]
    span = max(filter(math.isfinite, spans))
    return (
        f"{name}: the minimiser was not found in {MAX_STEPS} Newton steps: actions' log-probabilities lie {span:.0f} "
        "nats apart, and double precision cannot weigh such actions against one another. The step is too bold for an "
        f"exact game; make it shorter ({_step_options(loss.algorithm)}) or play fewer iterations"
    )


def _step_options(algorithm: Algorithm) -> str:
    """The algorithm's hyperparameters that set the length of its step, with their values."""
    steps = {name: getattr(algorithm, name, None) for name in ("eta", "tau", "beta")}
    return ", ".join(f"{name} is {value:g}" for name, value in steps.items() if isinstance(value, int | float))


def _constant_curvature(loss: ExpectedLoss, start: Tensor) -> Curvature | None:
    """The loss's curvature where it depends neither on the policy nor on what the loss is measured against."""
    generator = torch.Generator().manual_seed(0)

    def wild(values: Tensor) -> Tensor:
        return values + 1e3 * torch.randn(values.shape, generator=generator, dtype=values.dtype)

    elsewhere = replace(
        loss,
        frozen={name: wild(values) for name, values in loss.frozen.items()},
        rewards={name: wild(values) for name, values in loss.rewards.items()},
    )
    here, there = loss.curvature(start), elsewhere.curvature(wild(start))
    same = (torch.equal(getattr(here, f.name), getattr(there, f.name)) for f in fields(Curvature))
    return here if all(same) else None


def _solve(matrix: Tensor, right: Tensor, complete: bool) -> Tensor:
    """The Newton step [games, n]; of several, the shortest."""
    if complete:
        return torch.linalg.solve_ex(matrix, right.unsqueeze(-1))[0].squeeze(-1)
    return torch.linalg.lstsq(matrix, right.unsqueeze(-1), driver="gelsd").solution.squeeze(-1)


def _damped(loss: ExpectedLoss, point: Point, step: Tensor, scale: Tensor) -> Point:
    """The point after the step, halved game by game until the gradient does not grow."""
    bound, share = point.size + TOLERANCE * scale, torch.ones_like(scale)
    for _ in range(MAX_HALVINGS):
        moved = loss.at(point.log_policy + share.unsqueeze(-1) * step)
        grown = ~(moved.size <= bound)
        if not grown.any():
            break
        share = torch.where(grown, share / 2, share)
    return moved


def all_pairs(values: Tensor) -> PairValues:
    """Every ordered pair of actions: [games, n] becomes two tensors of shape [games, n, n]."""
    shape = (*values.shape, values.shape[-1])
    return PairValues(values.unsqueeze(-1).expand(shape), values.unsqueeze(-2).expand(shape))
