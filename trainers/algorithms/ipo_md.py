"""IPO-MD: online IPO whose samples come from a mixture with the reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainers.algorithm import Algorithm, PairBatch, Pairing, Phase, Player, Scalar, Schedule, number

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class IPOMD(Algorithm):
    """IPO-MD (arXiv 2403.08635): the IPO loss on pairs drawn from policy^(1-mixture) reference^mixture.

    At mixture 0 it is online IPO, whose expected gradient is -(4/tau) times the self-play gradient of the regularised
    game. Its fixed point is the policy whose mixture is the Nash policy at tau / (1 - mixture). The mixture is taken
    token by token, which is not the mixture of whole sequences.

    Args:
        tau: strength of the KL towards the reference.
        mixture: share of the reference in the sampling law.
    """

    tau: Scalar = number(1.0, above=0)
    mixture: Scalar = number(0.125, at_least=0, at_most=1)

    name = "ipo-md"
    schedule = Schedule.STREAM
    player = Player.MIXTURE
    phases = (Phase(start="policy", frozen=("reference",), writes="policy"),)
    pairing = Pairing(protocol="iid", label="soft")
    equation = "p·(h − 1/(2τ))² + (1−p)·(h + 1/(2τ))²,  h = log π/π_ref(y) − log π/π_ref(y′)"
    source = "arXiv 2403.08635, equation 11 and section 5; log-probabilities are summed"

    def loss(self, pair: PairBatch) -> Tensor:
        return (pair.log_ratio("reference") - 1 / (2 * self.tau)).square()

    def target_nats(self) -> float:
        return 1 / (2 * self.tau)
