"""Optimistic Nash policy optimisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainers.algorithm import Algorithm, PairBatch, Phase, Scalar, Schedule, choice, number

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class ONPO(Algorithm):
    """Optimistic Nash policy optimisation (arXiv 2502.16852, Algorithm 1).

    Both phases fit the same pairs, drawn from the current policy: the first corrects the auxiliary policy, the second
    takes the optimistic step from it. On exact games the iterates are those of optimistic multiplicative weights.
    Multi-turn ONPO (appendix B) is not covered.

    Args:
        eta: step size, larger is bolder; the paper's grid {.1, .05, .02, .01, .005} is for 1/eta.
        start: where the weights of both phases start, which the paper does not say: the `auxiliary` policy, whose
            closed form they step from, or the current `policy`. Exact solutions do not depend on it.
    """

    eta: Scalar = number(100.0, above=0)
    start: str = choice("auxiliary", "policy")

    name = "onpo"
    schedule = Schedule.REFIT
    equation = "(log π/π′(w) − log π/π′(l) − η/2)²"
    source = "arXiv 2502.16852, Algorithm 1"

    @property
    def phases(self) -> tuple[Phase, ...]:
        return (
            Phase(start=self.start, frozen=("auxiliary",), writes="auxiliary"),
            Phase(start=self.start, frozen=("auxiliary",), writes="policy"),
        )

    def loss(self, pair: PairBatch) -> Tensor:
        return (pair.log_ratio("auxiliary") - self.eta / 2).square()

    def target_nats(self) -> float:
        return self.eta / 2
