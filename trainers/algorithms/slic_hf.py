"""SLiC-HF: sequence likelihood calibration with human feedback."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainers.algorithm import Algorithm, PairBatch, Pairing, Phase, Player, Scalar, Schedule, number

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class SLiCHF(Algorithm):
    """SLiC-HF (arXiv 2305.10425): a hinge on the policy's own log-probabilities, and a pull to the SFT responses.

    Both responses of a pair are the reference's own, so their likelihood is the cross-entropy that keeps the policy
    near it. Human-written targets, which the paper also regularises towards, are not covered.

    Args:
        delta: the margin, nats.
        sft_weight: weight of the cross-entropy; the paper's value was not seen.
    """

    delta: Scalar = number(1.0, above=0)
    sft_weight: Scalar = number(0.5, at_least=0)

    name = "slic-hf"
    schedule = Schedule.REFIT
    player = Player.REFERENCE
    phases = (Phase(start="policy", frozen=(), writes="policy"),)
    pairing = Pairing(protocol="iid")
    unique_minimiser = False
    equation = "max(0, δ − log π(w) + log π(l)) − λ·(log π(w) + log π(l))/2"
    source = "arXiv 2305.10425, as printed in arXiv 2509.23102, table 9"

    def loss(self, pair: PairBatch) -> Tensor:
        likelihood = (pair.policy.chosen + pair.policy.rejected) / 2
        return (self.delta - pair.margin).relu() - self.sft_weight * likelihood

    def target_nats(self) -> float:
        return self.delta
