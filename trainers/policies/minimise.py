"""The exact population minimiser of a pair loss over tabular policies, derived from the loss itself.

The population loss is sum_yy' law_y law_y' P(y beats y') loss(y, y'). Its gradient in log pi_y carries a factor law_y;
everything here leaves that factor out, so that rows stay accurate where probabilities underflow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from trainers.algorithm import Algorithm, PairBatch, PairLogProbs

MAX_STEPS = 200
MAX_HALVINGS = 40
TOLERANCE = 1e-13


@dataclass(frozen=True)
class PopulationLoss:
    """An algorithm's expected loss over pairs drawn from a law, as a function of the log-policy [games, n].

    Args:
        preference: P(row beats column), [games, n, n].
        law: the sampling law of both responses of a pair, [games, n].
        frozen: log-probabilities of the frozen policies the loss is measured against, each [games, n].
    """

    algorithm: Algorithm
    preference: Tensor
    law: Tensor
    frozen: Mapping[str, Tensor]

    def gradient(self, log_policy: Tensor) -> Tensor:
        """d loss / d log pi_y divided by law_y, [games, n]."""
        return self._rows(*self._slopes(self._batch(log_policy), create_graph=False)).sum(-1)

    def minimiser(self, start: Tensor) -> Tensor:
        """The normalised log-policy [games, n] of least loss, by Newton's method from `start`.

        A squared loss takes one step, a linear solve; a smooth convex one stops when its gradient is 1e-13 of its
        own terms.

        Raises:
            ValueError: there is no finite minimiser (a logistic loss on a game with entries 0 or 1).
        """
        log_policy = start
        for _ in range(MAX_STEPS):
            residual, hessian, scale = self._newton_system(log_policy)
            step = torch.linalg.solve(hessian, -residual.unsqueeze(-1)).squeeze(-1)
            log_policy, left = self._damped(log_policy, step, residual, scale)
            if (left <= TOLERANCE * scale).all():
                return torch.log_softmax(log_policy, -1)
        raise ValueError(
            f"{self.algorithm.name} has no finite minimiser here: after {MAX_STEPS} Newton steps the policy still "
            "moves. A preference matrix with entries 0 or 1 does this to a logistic loss; move them inside (0, 1)"
        )

    def _newton_system(self, log_policy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gradient [games, n], Hessian [games, n, n], both divided by law_y, and the gradient's scale [games]."""
        batch = self._batch(log_policy)
        chosen, rejected = self._slopes(batch, create_graph=True)
        curve, cross = torch.autograd.grad(
            chosen.sum(), (batch.policy.chosen, batch.policy.rejected), create_graph=True
        )
        (curve_rejected,) = torch.autograd.grad(rejected.sum(), (batch.policy.rejected,))
        rows = self._rows(chosen, rejected).detach()
        diagonal = self._rows(curve, curve_rejected).sum(-1)
        # A loss of margins does not see a common shift of log pi; the rank-one term fixes that shift at zero.
        hessian = torch.diag_embed(diagonal) + self._rows(cross, cross) + self.law.unsqueeze(-2)
        # What rounding can leave of the gradient: its terms, and the log-probabilities they are differences of.
        scale = (rows.abs().sum(-1) + diagonal.detach() * log_policy.abs().amax(-1, keepdim=True)).amax(-1)
        return rows.sum(-1), hessian.detach(), scale

    def _damped(self, log_policy: Tensor, step: Tensor, residual: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """The point after the Newton step, halved game by game until the gradient does not grow, and |gradient|."""
        bound = residual.abs().amax(-1) + TOLERANCE * scale
        size = torch.ones_like(bound)
        for _ in range(MAX_HALVINGS):
            moved = log_policy + size.unsqueeze(-1) * step
            left = self.gradient(moved).abs().amax(-1)
            grown = left > bound
            if not grown.any():
                break
            size = torch.where(grown, size / 2, size)
        return moved, left

    def _batch(self, log_policy: Tensor) -> PairBatch:
        return PairBatch(_all_pairs(log_policy), {name: _all_pairs(value) for name, value in self.frozen.items()})

    def _slopes(self, batch: PairBatch, *, create_graph: bool) -> tuple[Tensor, Tensor]:
        """d loss / d log pi(chosen) and d loss / d log pi(rejected) of each ordered pair, [games, n, n]."""
        inputs = (batch.policy.chosen.requires_grad_(), batch.policy.rejected.requires_grad_())
        loss = self.algorithm.loss(batch).sum()
        chosen, rejected = torch.autograd.grad(loss, inputs, create_graph=create_graph)
        return chosen, rejected

    def _rows(self, as_chosen: Tensor, as_rejected: Tensor) -> Tensor:
        """law_y' (P(y beats y') as_chosen(y, y') + P(y' beats y) as_rejected(y', y)), [games, y, y']."""
        reverse = (self.preference * as_rejected).transpose(-1, -2)
        return self.law.unsqueeze(-2) * (self.preference * as_chosen + reverse)


def _all_pairs(log_policy: Tensor) -> PairLogProbs:
    """Every ordered pair of actions: [games, n] becomes two tensors of shape [games, n, n]."""
    shape = (*log_policy.shape, log_policy.shape[-1])
    return PairLogProbs(log_policy.unsqueeze(-1).expand(shape), log_policy.unsqueeze(-2).expand(shape))
