"""What self-play, Nash-MD and reinforcement learning share: REINFORCE on a reward, less the KL to the reference."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainers.algorithm import Algorithm, PairBatch, Pairing, Phase, Scalar, Schedule, number

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class PolicyGradient(Algorithm):
    """REINFORCE: each response weighs by reward - baseline - tau log pi/ref, a constant to the gradient.

    The log-ratio is that of the whole response, which makes the gradient that of the sequence KL; a sum over tokens
    of each token's log-ratio times its own log-probability is not. Both responses of a pair are used, each with its
    own reward, so no pair label is asked for.

    Args:
        tau: strength of the KL towards the reference.
    """

    tau: Scalar = number(0.01, at_least=0)

    schedule = Schedule.STREAM
    pairing = Pairing(protocol="iid", label="none")
    baseline = 0.5

    @property
    @abstractmethod
    def opponent(self) -> str:
        """The slot, or `mixture`, whose responses the rewards are earned against."""

    @property
    def phases(self) -> tuple[Phase, ...]:
        return (Phase(start="policy", frozen=("reference",), writes="policy", opponents=(self.opponent,)),)

    def loss(self, pair: PairBatch) -> Tensor:
        own, reference, reward = pair.policy, pair.frozen["reference"], pair.rewards[self.opponent]
        chosen = self._surrogate(own.chosen, reference.chosen, reward.chosen)
        return (chosen + self._surrogate(own.rejected, reference.rejected, reward.rejected)) / 2

    def _surrogate(self, log_prob: Tensor, reference: Tensor, reward: Tensor) -> Tensor:
        advantage = reward - self.baseline - self.tau * (log_prob.detach() - reference)
        return -advantage * log_prob
