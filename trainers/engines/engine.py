"""What an engine is: one call that draws responses from a language model, or from a mixture of several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

Weighted = Sequence[tuple["PreTrainedModel", float]]
EngineName = Literal["transformers", "vllm"]


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How tokens are drawn; temperature 0 takes the likeliest. Temperature applies to each model before mixing.

    Attributes:
        batch_size: sequences decoded at once; vLLM schedules its own.
        end_tokens: a response ends with the first of these.
    """

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    batch_size: int = 1024
    end_tokens: frozenset[int] = field(default_factory=frozenset)


class Sampler(Protocol):
    """An engine."""

    def __call__(
        self,
        models: Weighted,
        prompts: Sequence[list[int]],
        k: int,
        decoding: Decoding,
        generator: torch.Generator,
    ) -> list[list[list[int]]]:
        """k token lists for each prompt, ending with the end token where one was drawn."""


def sampler(engine: EngineName) -> Sampler:
    """The engine of this name."""
    if engine == "vllm":
        from trainers.engines.vllm import sample_tokens as sample_with_vllm

        return sample_with_vllm
    from trainers.engines.transformers import sample_tokens

    return sample_tokens


def check_engine(engine: EngineName, trainer: str | None = None, *, adapter: bool = False) -> None:
    """Refuses an engine that cannot be used.

    Args:
        trainer: the name of an algorithm that samples from a mixture of policies, if there is one.
        adapter: whether policies are trained as low-rank adapters.

    Raises:
        ValueError: vLLM is not installed, or a mixture or an adapter is asked of it.
    """
    if engine != "vllm":
        return
    if trainer is not None:
        raise ValueError(
            f"sampling.engine is 'vllm', and {trainer} samples from a mixture, token by token from two models, which "
            "vLLM does not do; set sampling.engine to 'transformers', or the trainer's mixture to 0"
        )
    if adapter:
        raise ValueError(
            "sampling.engine is 'vllm', which takes whole weights, and training.lora trains an adapter; set "
            "sampling.engine to 'transformers', or leave training.lora out"
        )
    if find_spec("vllm") is None:
        raise ValueError(
            "sampling.engine is 'vllm', which is not installed: pip install -e '.[vllm]' where nashbench lies, on a "
            "machine with CUDA, or set sampling.engine to 'transformers'"
        )
