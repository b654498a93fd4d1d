"""Online mirror descent on the unregularised preference game."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainers.algorithm import Algorithm, PairBatch, Phase, Scalar, Schedule, number

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class OMD(Algorithm):
    """Mirror descent: log pi += eta P pi (arXiv 2502.16852, equation 1; INPO at tau = 0 with eta inverted).

    The baseline of ONPO's analysis: its average converges at 1/sqrt(T) when eta = sqrt(log n / T); its last iterate
    cycles on an intransitive game.

    Args:
        eta: step size, larger is bolder.
    """

    eta: Scalar = number(0.1, above=0)

    name = "omd"
    schedule = Schedule.REFIT
    phases = (Phase(start="policy", frozen=("previous",), writes="policy"),)
    equation = "(log π/πₜ(w) − log π/πₜ(l) − η/2)²"
    source = "arXiv 2502.16852, equation 1"

    def loss(self, pair: PairBatch) -> Tensor:
        return (pair.log_ratio("previous") - self.eta / 2).square()

    def target_nats(self) -> float:
        return self.eta / 2
