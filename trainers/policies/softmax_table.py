"""A softmax over n actions that the two fitting loops can train by sampling, as they train a language model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from trainers.engines.randomness import uniforms
from trainers.options import Sampling
from trainers.policies.policy import Policy, Prompt, Response, Tokens


class SoftmaxTable(nn.Module):
    """A policy over n actions without prompts: a response is one token, the action's number.

    Args:
        logits: the starting logits, [n].
    """

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits.detach().clone().double())

    def copy(self) -> SoftmaxTable:
        return SoftmaxTable(self.logits)

    def encode(self, prompt: Prompt) -> Tokens:
        return []

    def sample(
        self,
        prompts: Sequence[Tokens],
        k: int,
        options: Sampling,
        seeds: Sequence[int],
        mix: tuple[Policy, float] | None = None,
    ) -> list[list[Response]]:
        law = self.logits.detach().log_softmax(-1)
        if mix is not None:
            other, share = mix
            assert isinstance(other, SoftmaxTable), "only two tables can be mixed"
            law = (1 - share) * law + share * other.logits.detach().log_softmax(-1)
        law = (law / options.temperature).softmax(-1)
        sums = law.cumsum(-1).numpy()
        # Rounded up to the total, a draw would leave the actions.
        thresholds = np.minimum(uniforms(seeds, k, 1)[:, 0] * sums[-1], np.nextafter(sums[-1], 0))
        actions = np.searchsorted(sums, thresholds, side="right").reshape(-1, k)
        return [[Response([action], str(action), True) for action in row] for row in actions.tolist()]

    def log_probs(self, prompts: Sequence[Tokens], responses: Sequence[Tokens]) -> Tensor:
        return self.logits.log_softmax(-1)[torch.tensor([response[0] for response in responses])]
