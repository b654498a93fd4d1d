"""What an engine is: one call that draws responses from a language model, or from a mixture of several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from trainers.engines.vllm_options import VLLMOptions

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Weighted = Sequence[tuple["PreTrainedModel", float]]
EngineName = Literal["transformers", "vllm"]


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How tokens are drawn; temperature 0 is greedy. Temperature applies to each model before mixing.

    Attributes:
        batch_size: sequences decoded at once; vLLM schedules its own. What is drawn does not depend on it.
        end_tokens: a response ends with the first of these.
        precision: in which the policy computes.
        vllm: how vLLM's engine is started.
    """

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    batch_size: int = 1024
    end_tokens: frozenset[int] = field(default_factory=frozenset)
    precision: str = "fp32"
    vllm: VLLMOptions = field(default_factory=VLLMOptions)


class Sampler(Protocol):
    """An engine."""

    def __call__(
        self,
        models: Weighted,
        prompts: Sequence[list[int]],
        k: int,
        decoding: Decoding,
        seeds: Sequence[int],
    ) -> list[list[list[int]]]:
        """k token lists for each prompt, ending with the end token where one was drawn.

        Args:
            seeds: one a prompt, in [0, 2**63), see `response_seeds`. Response j to a prompt is a function of the
                models, the prompt, its seed and j, whatever else is in the batch.
        """
