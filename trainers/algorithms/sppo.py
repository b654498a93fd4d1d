"""Self-play preference optimisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainers.algorithm import Algorithm, PairBatch, Pairing, Phase, Scalar, Schedule, number

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class SPPO(Algorithm):
    """SPPO (arXiv 2405.00675, equation 4.4): each response is fitted to its own win rate over the policy.

    The win rate is the mean over the prompt's other responses. The paper derives the loss from the step
    pi_t exp(eta P pi_t) with eta/2 for the log of its normaliser; since a policy is normalised and the constant is
    not exact, the minimiser is near that step, not on it.

    Args:
        eta: step size, larger is bolder; the official code's beta is 1/eta.
    """

    eta: Scalar = number(1000.0, above=0)

    name = "sppo"
    schedule = Schedule.REFIT
    phases = (Phase(start="policy", frozen=("previous",), writes="policy", opponents=("previous",)),)
    pairing = Pairing(protocol="best-worst", label="none")
    equation = "Σ over w, l of (log π/πₜ(y) − η·(P(y ≻ πₜ) − 1/2))²"
    source = "arXiv 2405.00675, equation 4.4"

    def loss(self, pair: PairBatch) -> Tensor:
        own, previous, reward = pair.policy, pair.frozen["previous"], pair.rewards["previous"]
        chosen = own.chosen - previous.chosen - self.eta * (reward.chosen - 0.5)
        rejected = own.rejected - previous.rejected - self.eta * (reward.rejected - 0.5)
        return chosen.square() + rejected.square()

    def target_nats(self) -> float:
        return self.eta / 2
