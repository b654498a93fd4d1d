"""A policy is anything that can sample responses and score them: a causal language model, a softmax table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, Self

from trainers.thinking import strip_thinking

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from trainers.options import Sampling

Prompt = str | Sequence[Mapping[str, str]]
"""Text, or chat messages {role, content}."""
Tokens = list[int]


@dataclass(frozen=True)
class Response:
    """One sampled response: its tokens (with the end-of-sequence token where it ended by itself) and its text.

    `stripped` where thinking was taken out of the text.
    """

    tokens: Tokens
    text: str
    finished: bool
    stripped: bool = False

    def without_thinking(self) -> Response:
        """The same with its thinking taken out of the text."""
        text = strip_thinking(self.text)
        return replace(self, text=text, stripped=text != self.text)


class Policy(Protocol):
    """What the two fitting loops need of a policy."""

    def encode(self, prompt: Prompt) -> Tokens:
        """The prompt's tokens, up to where a response begins."""

    def sample(
        self,
        prompts: Sequence[Tokens],
        k: int,
        options: Sampling,
        seeds: Sequence[int],
        mix: tuple[Policy, float] | None = None,
    ) -> list[list[Response]]:
        """k responses to each prompt, from the policy or from its token-level geometric mixture with `mix`.

        Args:
            seeds: one a prompt, see `trainers.engines.randomness.response_seeds`. Response j to a prompt is a function
                of the policy, the prompt, its seed and j alone, up to rounding.
        """

    def log_probs(self, prompts: Sequence[Tokens], responses: Sequence[Tokens]) -> Tensor:
        """Summed log-probability of each response given its prompt, nats, float32 or wider, [n], differentiable."""

    def copy(self) -> Self:
        """An independent copy, to train."""

    def parameters(self) -> Iterable[torch.nn.Parameter]:
        """The trainable weights."""
