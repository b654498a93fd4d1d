"""Simple preference optimisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainers.algorithm import PairBatch, Phase, Scalar, choice, number
from trainers.algorithms.contrastive import Contrastive

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class SimPO(Contrastive):
    """SimPO (arXiv 2405.14734, equation 6): no reference, mean log-probabilities, a target margin.

    In a game a response is one action, so mean and sum are the same.

    Args:
        beta: scale of the mean log-probabilities.
        gamma: margin of the logit.
    """

    regime: str = choice("offline", "iterative", "on-policy", "online")
    log_prob: str = choice("mean", "sum")
    beta: Scalar = number(2.0, above=0)
    gamma: Scalar = number(1.0, at_least=0)

    name = "simpo"
    equation = "−log σ(β·(log π(w)/|w| − log π(l)/|l|) − γ)"
    source = "arXiv 2405.14734, equation 6"

    @property
    def phases(self) -> tuple[Phase, ...]:
        return (Phase(start="policy", frozen=(), writes="policy"),)

    def loss(self, pair: PairBatch) -> Tensor:
        from torch.nn.functional import logsigmoid

        return -logsigmoid(self.beta * self.scored(pair).margin - self.gamma)
