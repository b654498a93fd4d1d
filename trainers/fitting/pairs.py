"""Labelled pairs of responses for the fitting loops, and their batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trainers.algorithm import PairLogProbs, PairValues
from trainers.errors import TrainingError
from trainers.policies.policy import Policy, Tokens

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Pairs:
    """Labelled pairs.

    Attributes:
        prompts, chosen, rejected: token lists.
        preference: P(chosen beats rejected) of each pair, [pairs]; 1 for a hard label.
        rewards: for each opponent of the phase, what chosen and rejected earned against it, [pairs, 2].
    """

    prompts: list[Tokens]
    chosen: list[Tokens]
    rejected: list[Tokens]
    preference: NDArray[np.float64]
    rewards: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.prompts)

    def select(self, rows: Sequence[int]) -> Pairs:
        """The pairs of these rows, in this order."""
        return Pairs(
            [self.prompts[i] for i in rows],
            [self.chosen[i] for i in rows],
            [self.rejected[i] for i in rows],
            self.preference[list(rows)],
            {name: values[list(rows)] for name, values in self.rewards.items()},
        )

    def truncated(self, max_length: int) -> tuple[Pairs, int]:
        """The pairs with responses cut so that prompt and response fit `max_length` tokens, and how many were cut.

        Raises:
            TrainingError: a prompt alone leaves no room for a response.
        """
        longest = max((len(p) for p in self.prompts), default=0)
        if longest >= max_length:
            raise TrainingError(
                f"a prompt has {longest} tokens and training.max_length is {max_length}; raise max_length"
            )
        rooms = [max_length - len(p) for p in self.prompts]
        cut = sum(len(r) > room for side in (self.chosen, self.rejected) for r, room in zip(side, rooms, strict=True))
        chosen = [r[:room] for r, room in zip(self.chosen, rooms, strict=True)]
        rejected = [r[:room] for r, room in zip(self.rejected, rooms, strict=True)]
        return replace(self, chosen=chosen, rejected=rejected), cut


FrozenLogProbs = Mapping[str, NDArray[np.float32]]
"""For each frozen policy its log-probabilities (nats) of chosen and rejected, [pairs, 2]."""


def pair_log_probs(policy: Policy, pairs: Pairs) -> PairLogProbs:
    """Both responses of every pair under a policy, in one forward pass, differentiable."""
    both = policy.log_probs([*pairs.prompts, *pairs.prompts], [*pairs.chosen, *pairs.rejected])
    return PairLogProbs(both[: len(pairs)], both[len(pairs) :])


def token_counts(pairs: Pairs) -> NDArray[np.float32]:
    """Tokens of chosen and rejected, [pairs, 2]."""
    return np.array([[len(c), len(r)] for c, r in zip(pairs.chosen, pairs.rejected, strict=True)], dtype=np.float32)


def pair_values(values: NDArray[Any], like: Tensor) -> PairValues:
    """Stored numbers [pairs, 2] as tensors of `like`'s device and dtype."""
    tensor = like.new_tensor(values)
    return PairValues(tensor[:, 0], tensor[:, 1])


def score(policy: Policy, pairs: Pairs, batch_size: int) -> NDArray[np.float32]:
    """A frozen policy's log-probabilities (nats) of chosen and rejected, [pairs, 2], in batches of similar length."""
    import torch

    out = np.empty((len(pairs), 2), dtype=np.float32)
    with torch.no_grad():
        for rows in length_batches(pairs, batch_size):
            scored = pair_log_probs(policy, pairs.select(rows))
            out[rows] = torch.stack([scored.chosen, scored.rejected], -1).cpu().numpy()
    return out


def length_batches(pairs: Pairs, batch_size: int) -> Iterator[list[int]]:
    """Row numbers in batches of similar length, to save padding."""
    lengths = [
        len(p) + max(len(c), len(r)) for p, c, r in zip(pairs.prompts, pairs.chosen, pairs.rejected, strict=True)
    ]
    order = sorted(range(len(pairs)), key=lengths.__getitem__)
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]
