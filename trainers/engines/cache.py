"""A key-value cache for decoding many rows: written in place, and shrunk by moving rows instead of copying all."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

ROOM = 16
"""Tokens a cache grows by. Attention reads a cache with gaps at the speed of one without, so much room is slow too."""


class RoomyLayer(DynamicLayer):
    """Full attention's keys and values, [rows, heads, tokens, size], in buffers with room for more tokens.

    `DynamicLayer` copies the whole cache for each token; here a token is written into its place, and the buffers are
    copied once in `ROOM` tokens.
    """

    keys: Any
    values: Any

    def __init__(self) -> None:
        super().__init__()
        self.rows = self.tokens = 0

    def get_seq_length(self) -> int:
        """Tokens in the cache."""
        return self.tokens

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Append these tokens; all keys and values so far, as views."""
        start, self.rows = self.tokens, len(key_states)
        self.tokens += key_states.shape[-2]
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = key_states, value_states
            return key_states, value_states
        if self.tokens > self.keys.shape[-2]:
            self.keys, self.values = (self._roomy(x[: self.rows, :, :start], 1) for x in (self.keys, self.values))
        self.keys[: self.rows, :, start : self.tokens] = key_states
        self.values[: self.rows, :, start : self.tokens] = value_states
        return self.keys[: self.rows, :, : self.tokens], self.values[: self.rows, :, : self.tokens]

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Each row `repeats` times, one after the other."""
        self.keys, self.values = self._roomy(self.keys, repeats), self._roomy(self.values, repeats)
        self.rows *= repeats

    def replace_rows(self, into: Tensor, rows: Tensor, left: int) -> None:
        """Copy `rows` over the rows `into`; from then on there are the first `left`."""
        for states in (self.keys, self.values):
            states[into, :, : self.tokens] = states[rows, :, : self.tokens]
        self.rows = left

    def _roomy(self, states: Tensor, repeats: int) -> Tensor:
        rows, heads, tokens, size = states.shape
        buffer = states.new_empty(rows, repeats, heads, tokens + ROOM, size)
        buffer[..., :tokens, :] = states.unsqueeze(1)
        return buffer.flatten(0, 1)


def decoding_cache(model: PreTrainedModel) -> DynamicCache:
    """The model's own cache with `RoomyLayer` for full attention; other layers (sliding windows, recurrent states)
    stay as transformers makes them."""
    cache = DynamicCache(config=model.config)
    cache.layers = [RoomyLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def repeat_rows(cache: DynamicCache, rows: int, repeats: int) -> None:
    """Each of `rows` rows `repeats` times, one after the other."""
    index = torch.arange(rows).repeat_interleave(repeats)
    layer: Any
    for layer in cache.layers:
        if isinstance(layer, RoomyLayer):
            layer.batch_repeat_interleave(repeats)
        else:
            layer.reorder_cache(index)


def select_rows(cache: DynamicCache, kept: Tensor) -> None:
    """Row i becomes row `kept[i]`; the others are dropped."""
    into = (kept != torch.arange(len(kept), device=kept.device)).nonzero().squeeze(-1)
    layer: Any
    for layer in cache.layers:
        if isinstance(layer, RoomyLayer):
            layer.replace_rows(into, kept[into], len(kept))
        else:
            layer.reorder_cache(kept)


def packed(keep: Tensor) -> Tensor:
    """Row numbers where `keep` [rows] is true, ordered so that as few rows as possible move: the last ones
    fill the gaps among the first."""
    left = int(keep.sum())
    order = torch.arange(left, device=keep.device)
    order[~keep[:left]] = keep[left:].nonzero().squeeze(-1) + left
    return order
