"""Optimistic multiplicative weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainers.algorithm import Algorithm, PairBatch, Pairing, Phase, Scalar, Schedule, number

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class OMWU(Algorithm):
    """Optimistic multiplicative weights, for games: log pi += eta (2 P pi_t - P pi_(t-1)) (arXiv 2512.24818).

    From its second step on the recursion is that of ONPO's policies. At t = 1 the policy before the start counts as
    the start, which makes the first step a plain one; ONPO's first step is twice as long.

    Args:
        eta: step size, larger is bolder.
    """

    eta: Scalar = number(0.5, above=0)

    name = "omwu"
    schedule = Schedule.REFIT
    phases = (Phase(start="policy", frozen=("previous",), writes="policy", opponents=("previous", "earlier")),)
    pairing = Pairing(protocol="iid", label="none")
    needs = "game"
    equation = "(log π/πₜ(y) − log π/πₜ(y′) − η·(2Δrₜ − Δrₜ₋₁))²,  Δr = P(y ≻ ·) − P(y′ ≻ ·)"
    source = "arXiv 2512.24818"

    def loss(self, pair: PairBatch) -> Tensor:
        now, before = pair.rewards["previous"].margin, pair.rewards["earlier"].margin
        return (pair.log_ratio("previous") - self.eta * (2 * now - before)).square()
