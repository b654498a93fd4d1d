"""SLiC as a hinge on the log-ratio."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainers.algorithm import Algorithm, PairBatch, Phase, Scalar, Schedule, number

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class SLiC(Algorithm):
    """The hinge that preference-optimisation papers compare against under the name SLiC.

    It is measured against the policy at the iteration's start. The exact formula of the IPO-MD paper's comparison was
    not seen; this is the reference-ratio form. It is not SLiC-HF (arXiv 2305.10425), which has a margin on the
    policy's own log-probabilities and a regulariser.

    Args:
        beta: the margin is 1 / beta nats.
    """

    beta: Scalar = number(0.1, above=0)

    name = "slic"
    schedule = Schedule.REFIT
    phases = (Phase(start="policy", frozen=("previous",), writes="policy"),)
    unique_minimiser = False
    equation = "max(0, 1 − β·(log π/πₜ(w) − log π/πₜ(l)))"
    source = "arXiv 2403.08635, section 6 (comparison); the form is unsure"

    def loss(self, pair: PairBatch) -> Tensor:
        return (1 - self.beta * pair.log_ratio("previous")).relu()

    def target_nats(self) -> float:
        return 1 / self.beta
