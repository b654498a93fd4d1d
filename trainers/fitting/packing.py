"""How prompts and responses are packed into a model's input rows: one response a row, or two after a shared prompt.

Rows are padded on the right: a causal model's positions do not see what is right of them, so padding needs no mask.
Two responses in a row need one, [rows, 1, length, length], in which they do not see each other, and positions that
restart after the prompt: every response then has the same distribution as alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from trainers.errors import TrainingError
from trainers.policies.policy import Tokens

Row = tuple[int, ...]
"""Indices of the responses in a row, after one prompt."""


@dataclass(frozen=True)
class Layout:
    """Rows of tokens as model inputs.

    Attributes:
        inputs: `input_ids` [rows, length], and where responses share a row `attention_mask` and `position_ids`.
        places: for each response token, row by row, where in the flattened ids its prediction is made, [tokens].
        targets: these tokens, [tokens].
        owners: the number of the response each belongs to, [tokens].
    """

    inputs: dict[str, Tensor]
    places: Tensor
    targets: Tensor
    owners: Tensor


def lay_out(rows: Sequence[Row], prompts: Sequence[Tokens], responses: Sequence[Tokens], device: Any) -> Layout:
    """The layout of these rows; every response index occurs in exactly one of them."""
    if not all(prompts):
        raise TrainingError("a prompt has no tokens to predict its response from; give the tokenizer a BOS token")
    longest = max(_length(row, prompts, responses) for row in rows)
    ids, positions, segments = ([[0] * longest for _ in rows] for _ in range(3))
    places: list[int] = []
    for at, row in enumerate(rows):
        prompt = prompts[row[0]]
        end = len(prompt)
        ids[at][:end], positions[at][:end] = prompt, range(end)
        for segment, number in enumerate(row, start=1):
            start, end = end, end + len(responses[number])
            ids[at][start:end], segments[at][start:end] = responses[number], [segment] * (end - start)
            positions[at][start:end] = range(len(prompt), len(prompt) + end - start)
            places += [at * longest + place for place in (len(prompt) - 1, *range(start, end - 1)) if end > start]
    order = list(chain.from_iterable(rows))
    owners = torch.tensor(order).repeat_interleave(torch.tensor([len(responses[i]) for i in order]))
    inputs = {"input_ids": torch.tensor(ids).to(device)}
    if len(order) > len(rows):
        inputs |= {"position_ids": torch.tensor(positions).to(device)}
        inputs |= {"attention_mask": _mask(torch.tensor(segments).to(device))}
    targets = torch.tensor([token for i in order for token in responses[i]], dtype=torch.long)
    return Layout(inputs, torch.tensor(places, dtype=torch.long).to(device), targets.to(device), owners.to(device))


def _mask(segments: Tensor) -> Tensor:
    """Visible positions: earlier ones in the prompt (segment 0) or the same response, [rows, 1, length, length]."""
    queries, keys = segments.unsqueeze(-1), segments.unsqueeze(-2)
    return ((keys == 0) | (keys == queries)).tril().unsqueeze(1)


def _length(row: Row, prompts: Sequence[Tokens], responses: Sequence[Tokens]) -> int:
    return len(prompts[row[0]]) + sum(len(responses[number]) for number in row)


class RowChooser:
    """Decides for a model whether two responses share a row: where the model allows it and it saves work."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model

    def rows(self, prompts: Sequence[Tokens], responses: Sequence[Tokens]) -> list[Row]:
        """The rows for these responses."""
        alone: list[Row] = [(number,) for number in range(len(responses))]
        if self.model.device.type != "cpu":  # elsewhere a mask costs the quick attention kernels; not measured there
            return alone
        shared = _pairs_of_equal_prompts(prompts)
        if len(shared) == len(alone) or not self._spares_work(alone, shared, prompts, responses) or not self._allowed:
            return alone
        return shared

    def decide(self) -> None:
        """Inspect the model now, while it holds all of its weights, and not when the first rows are chosen."""
        if self.model.device.type == "cpu":
            _ = self._layer, self._allowed

    def _spares_work(
        self, alone: list[Row], shared: list[Row], prompts: Sequence[Tokens], responses: Sequence[Tokens]
    ) -> bool:
        """Compares a layer's multiplications: its weights, and attention, half of which a plain causal mask saves."""
        weights, width = self._layer

        def work(rows: list[Row], half: int) -> int:
            longest = max(_length(row, prompts, responses) for row in rows)
            return len(rows) * longest * (weights + 2 * width * longest // half)

        return work(shared, 1) < work(alone, 2)

    @cached_property
    def _layer(self) -> tuple[int, int]:
        """Weights and width of a layer."""
        embedded = {id(self.model.get_input_embeddings().weight), id(self.model.get_output_embeddings().weight)}
        weights = sum(p.numel() for p in self.model.parameters() if id(p) not in embedded)
        config = self.model.config.get_text_config()
        return weights // config.num_hidden_layers, config.hidden_size

    @cached_property
    def _allowed(self) -> bool:
        """Rotary positions, full attention in every layer, and responses that do not see each other when tested."""
        config: Any = self.model.config.get_text_config()
        windows = [getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size")]
        layers = set(getattr(config, "layer_types", None) or ["full_attention"])
        rotary = getattr(config, "rope_parameters", None) is not None
        sdpa = config._attn_implementation == "sdpa"
        return rotary and sdpa and not any(windows) and layers == {"full_attention"} and self._separate()

    @torch.no_grad()
    def _separate(self) -> bool:
        """Whether a response has the same hidden states after another response as after the prompt alone."""
        prompts, other = [[1, 2, 3]] * 2, [3, 2]
        with torch.autocast(self.model.device.type, enabled=False):  # bf16 would blur the comparison
            behind = [self._hidden([(0, 1)], prompts, [first, other])[0, -2:] for first in ([1, 2], [2, 0])]
            alone = self._hidden([(0,)], prompts, [other])[0, -2:]
        return torch.equal(*behind) and torch.allclose(behind[0], alone, rtol=1e-4, atol=1e-5)

    def _hidden(self, rows: list[Row], prompts: Sequence[Tokens], responses: Sequence[Tokens]) -> Tensor:
        layout = lay_out(rows, prompts, responses, self.model.device)
        return self.model.base_model(**layout.inputs, use_cache=False).last_hidden_state


def _pairs_of_equal_prompts(prompts: Sequence[Tokens]) -> list[Row]:
    """Indices paired by equal prompts; leftover ones alone."""
    waiting: dict[tuple[int, ...], int] = {}
    rows: list[Row] = []
    for number, prompt in enumerate(prompts):
        key = tuple(prompt)
        if key in waiting:
            rows.append((waiting.pop(key), number))
        else:
            waiting[key] = number
    return [*rows, *((number,) for number in waiting.values())]
