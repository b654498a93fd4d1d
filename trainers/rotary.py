"""Rotary positions whose frequencies depend on how long a sequence is (`longrope`, `dynamic`).

transformers takes them from the longest row of a batch, and for `dynamic` also from batches before. Here a row has the
law that it has alone: rows of other frequencies are computed apart, and a response that grows into others is computed
anew from its first token, as a pass without a cache would do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from transformers import PreTrainedModel

Regime = Callable[[int], tuple[int, ...]]
"""Equal for two lengths, in tokens, that have the same frequencies."""


def rotary_regime(model: PreTrainedModel) -> Regime | None:
    """Which frequencies a sequence has by its length; None where every length has the same."""
    rules = [rule for parameters in _parameters(model) if (rule := _rule(parameters, model))]
    return (lambda length: tuple(rule(length) for rule in rules)) if rules else None


def _parameters(model: PreTrainedModel) -> Iterator[Mapping[str, Any]]:
    """The rotary parameters of the model, or of each type of its layers."""
    found = getattr(model.config.get_text_config(), "rope_parameters", None) or {}
    yield from [found] if "rope_type" in found else [of for of in found.values() if isinstance(of, Mapping)]


def _rule(parameters: Mapping[str, Any], model: PreTrainedModel) -> Callable[[int], int] | None:
    kind = str(parameters.get("rope_type"))
    if kind == "longrope":
        switch = parameters["original_max_position_embeddings"]
        return lambda length: int(length > switch)
    if "dynamic" in kind:
        longest = model.config.get_text_config().max_position_embeddings
        return lambda length: length if length > longest else 0
    return None


def forget_lengths(model: PreTrainedModel) -> None:
    """Take back what `dynamic` frequencies keep of the longest sequence so far."""
    for module in model.modules():
        state: Any = module
        if "dynamic" in str(getattr(module, "rope_type", "")) and hasattr(module, "original_inv_freq"):
            state.register_buffer("inv_freq", state.original_inv_freq.to(state.inv_freq.device), persistent=False)
            state.max_seq_len_cached = state.original_max_seq_len
