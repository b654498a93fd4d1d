"""What an algorithm observes of a game in one iteration: labelled pairs and rewards, exact or sampled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from trainers.errors import TrainingError

Reward = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class PairLaw:
    """How often ordered pairs of actions are compared, and who wins.

    Attributes:
        won: how often y meets y' and wins, divided by how often y occurs, [games, y, y'].
        lost: how often y meets y' and loses, likewise.
        log_occurrence: log of how often each action occurs in a pair's first place, [games, n].
        complete: every pair of actions occurs, so that a strictly convex loss has one minimiser.
    """

    won: Tensor
    lost: Tensor
    log_occurrence: Tensor
    complete: bool

    @property
    def occurrence(self) -> Tensor:
        return self.log_occurrence.exp()


class Feedback(Protocol):
    """One iteration's view of a game."""

    def pairs(self, log_law: Tensor) -> PairLaw:
        """Labelled pairs, both responses iid from the law [games, n]."""

    def rewards(self, log_law: Tensor, log_opponent: Tensor, reward: Reward) -> Tensor:
        """Each action's mean reward against an opponent [games, n], for actions drawn from the law."""


@dataclass(frozen=True)
class Exact:
    """Expectations under the preference matrix [games, n, n]."""

    preference: Tensor

    def pairs(self, log_law: Tensor) -> PairLaw:
        meets = 2 * log_law.exp().unsqueeze(-2)
        return PairLaw(meets * self.preference, meets * self.preference.transpose(-1, -2), log_law, True)

    def rewards(self, log_law: Tensor, log_opponent: Tensor, reward: Reward) -> Tensor:
        return (finite_rewards(reward, self.preference) @ log_opponent.exp().unsqueeze(-1)).squeeze(-1)


@dataclass(frozen=True)
class Sampled:
    """`count` iid pairs with Bernoulli labels; rewards are each action's mean reward against `count` sampled
    opponents."""

    preference: Tensor
    count: int
    generator: torch.Generator

    def pairs(self, log_law: Tensor) -> PairLaw:
        first, second = self._draw(log_law), self._draw(log_law)
        wins = torch.rand(first.shape, generator=self.generator, dtype=log_law.dtype) < self._beats(first, second)
        chosen, rejected = torch.where(wins, first, second), torch.where(wins, second, first)
        actions = log_law.shape[-1]
        counts = torch.zeros(len(log_law), actions * actions, dtype=log_law.dtype)
        counts.scatter_add_(
            1, chosen * actions + rejected, torch.full_like(chosen, 1 / self.count, dtype=log_law.dtype)
        )
        wins_over = counts.reshape(self.preference.shape)
        occurrence = (wins_over.sum(-1) + wins_over.sum(-2)) / 2
        seen = torch.where(occurrence > 0, occurrence, 1.0).unsqueeze(-1)
        return PairLaw(wins_over / seen, wins_over.transpose(-1, -2) / seen, seen.squeeze(-1).log(), False)

    def rewards(self, log_law: Tensor, log_opponent: Tensor, reward: Reward) -> Tensor:
        frequencies = torch.zeros_like(log_opponent)
        opponents = self._draw(log_opponent)
        frequencies.scatter_add_(1, opponents, torch.full(opponents.shape, 1 / self.count, dtype=frequencies.dtype))
        return (finite_rewards(reward, self.preference) @ frequencies.unsqueeze(-1)).squeeze(-1)

    def _draw(self, log_law: Tensor) -> Tensor:
        return torch.multinomial(log_law.exp(), self.count, replacement=True, generator=self.generator)

    def _beats(self, first: Tensor, second: Tensor) -> Tensor:
        """P(first beats second) of each drawn pair, [games, count]."""
        games = torch.arange(len(first)).unsqueeze(-1)
        return self.preference[games, first, second]


def finite_rewards(reward: Reward, preference: Tensor) -> Tensor:
    """The rewards of comparisons.

    Raises:
        TrainingError: one is infinite, as the log-odds of a comparison that is always won.
    """
    rewards = reward(preference)
    if not torch.isfinite(rewards).all():
        raise TrainingError("a preference of exactly 0 or 1 has no finite reward here; move the entries inside (0, 1)")
    return rewards
