"""SLiC as a hinge on the log-ratio."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainers.algorithm import PairBatch, Scalar, number
from trainers.algorithms.contrastive import Contrastive

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class SLiC(Contrastive):
    """The hinge that preference-optimisation papers compare against under the name SLiC.

    The exact formula of the IPO-MD paper's comparison was not seen; this is the reference-ratio form. `slic-hf` is
    the original. A hinge has no unique minimiser, so games play it by gradient steps in every regime.

    A hinge has no unique minimiser, so games play it by gradient steps, in every regime against the starting policy.

    Args:
        beta: the margin is 1 / beta nats.
    """

    beta: Scalar = number(0.1, above=0)

    name = "slic"
    unique_minimiser = False
    equation = "max(0, 1 − β·(log π/π_anchor(w) − log π/π_anchor(l))),  anchor πₜ (iterative) or π_ref"
    source = "arXiv 2403.08635, section 6 (comparison); the form is unsure"

    def loss(self, pair: PairBatch) -> Tensor:
        return (1 - self.beta * self.log_ratio(pair)).relu()

    def target_nats(self) -> float:
        return 1 / self.beta
