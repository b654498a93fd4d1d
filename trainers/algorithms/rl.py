"""Reinforcement learning from a scalar reward, regularised towards the reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainers.algorithm import Scalar, number
from trainers.algorithms.policy_gradient import PolicyGradient

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class RL(PolicyGradient):
    """REINFORCE with KL on a scalar reward: the log-odds of beating a response of the reference.

    Under a Bradley-Terry judge, as a reward model is, the log-odds are the reward less that of the reference's
    response, which is a baseline; the optimum is ref exp(reward / tau). PPO's clipping and value network are not
    covered.

    Args:
        tau: strength of the KL towards the reference.
        reward_limit: log-odds are cut to this size; None cuts nothing and refuses a preference of exactly 0 or 1.
    """

    tau: Scalar = number(0.05, at_least=0)
    reward_limit: Scalar | None = number(None, above=0)

    name = "rl"
    opponent = "reference"
    baseline = 0.0
    equation = "−log π(y)·sg[logit P(y ≻ y″) − τ·log π/π_ref(y)],  y″ ~ π_ref"
    source = "arXiv 2403.08635, section 6 (RL baseline); Williams 1992"

    def reward(self, preference: Tensor) -> Tensor:
        odds = preference.logit()
        return odds if self.reward_limit is None else odds.clamp(-self.reward_limit, self.reward_limit)
