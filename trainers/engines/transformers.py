"""Sampling with plain transformers models: prompts prefilled once, expanded to k, finished rows dropped.

Several models with weights sample from their token-level geometric mixture: at every position the next token follows
softmax(sum_m weight_m log p_m) (arXiv 2312.00886, Nash-MD; arXiv 2403.08635). Each model keeps its own KV cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce
from itertools import groupby

import torch
from torch import Tensor
from transformers import PreTrainedModel

from trainers.engines.cache import decoding_cache, packed, repeat_rows, select_rows
from trainers.engines.engine import Decoding, Weighted
from trainers.engines.randomness import uniforms
from trainers.rotary import forget_lengths, rotary_regime

BLOCK = 256
"""Tokens whose uniform numbers are in memory at once."""


def sample_tokens(
    models: Weighted, prompts: Sequence[list[int]], k: int, decoding: Decoding, seeds: Sequence[int]
) -> list[list[list[int]]]:
    """As `Sampler`.

    Prompts are decoded in batches of similar length. Matrix products of other shapes round differently, so that in
    another batch a token may differ where a uniform number falls within rounding of the edge between two tokens.

    Raises:
        FloatingPointError: a model's next-token law is not a number.
    """
    out: list[list[list[int]]] = [[] for _ in prompts]
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    per_batch = max(1, decoding.batch_size // k)
    for chunk in _batches(order, [len(prompts[i]) for i in order], per_batch, alike=_changes_with_length(models)):
        rows = _decode([prompts[i] for i in chunk], models, k, decoding, [seeds[i] for i in chunk])
        for position, i in enumerate(chunk):
            out[i] = rows[position * k : (position + 1) * k]
    return out


def _batches(order: list[int], lengths: list[int], size: int, *, alike: bool) -> Iterator[list[int]]:
    """Runs of at most `size` prompts; of one length where `alike`, so that all rows change their law at one step."""
    runs = [[i for i, _ in run] for _, run in groupby(zip(order, lengths, strict=True), lambda pair: alike and pair[1])]
    return (run[start : start + size] for run in runs for start in range(0, len(run), size))


def _changes_with_length(models: Weighted) -> bool:
    return any(rotary_regime(model) is not None for model, _ in models)


def next_token_probs(models: Weighted, logits: Sequence[Tensor], temperature: float) -> Tensor:
    """Probabilities [rows, vocabulary], float32, of the normalised geometric mixture of the models' next-token laws."""
    return _mixed(models, logits, temperature).softmax(-1)


def _mixed(models: Weighted, logits: Sequence[Tensor], temperature: float) -> Tensor:
    """sum_m weight_m logits_m / temperature, float32: the mixture's logits. The models' normalisers, constants of a
    row, are left out: a softmax or a maximum over the row does not see them."""
    scales = [weight / temperature for _, weight in models]
    parts = [raw.float() if scale == 1 else raw.float() * scale for raw, scale in zip(logits, scales, strict=True)]
    return reduce(torch.add, parts)


@torch.no_grad()
def _decode(
    prompts: list[list[int]], models: Weighted, k: int, decoding: Decoding, seeds: list[int]
) -> list[list[int]]:
    """Rows of tokens, k a prompt in order."""
    states = [_ModelState(model, prompts, k) for model, _ in models]
    logits = [state.logits for state in states]
    device, rows = logits[0].device, len(prompts) * k
    ends = torch.tensor(sorted(decoding.end_tokens), device=device)
    alive = torch.arange(rows, device=device)
    out = torch.empty(rows, decoding.max_tokens, dtype=torch.long, device=device)
    lengths = torch.full_like(alive, decoding.max_tokens)
    for position in range(decoding.max_tokens):
        if position % BLOCK == 0:
            block = uniforms(seeds, k, min(BLOCK, decoding.max_tokens - position), position)
            uniform = torch.from_numpy(block.T).to(device)
        tokens = _draw(models, logits, decoding, uniform[position % BLOCK, alive])
        out[alive, position] = tokens
        going = ~torch.isin(tokens, ends)
        if not bool(going.all()):
            lengths[alive[~going]] = position + 1
            kept = packed(going)
            alive, tokens = alive[kept], tokens[kept]
            for state in states:
                state.select(kept)
        if position + 1 == decoding.max_tokens or not len(alive):
            break
        logits = [state.step(tokens) for state in states]
    return [row[:length] for row, length in zip(out.tolist(), lengths.tolist(), strict=True)]


def _draw(models: Weighted, logits: Sequence[Tensor], decoding: Decoding, uniform: Tensor) -> Tensor:
    """One token a row: the likeliest, or where the running sum of the probabilities passes the row's uniform number."""
    if decoding.temperature == 0:
        best, tokens = _mixed(models, logits, 1.0).max(-1)
        _require_numbers(best)
        return tokens
    probs = next_token_probs(models, logits, decoding.temperature)
    if decoding.top_p < 1:
        probs = _nucleus(probs, decoding.top_p)
    sums = probs.cumsum(-1)
    total = sums[:, -1:]
    _require_numbers(total)
    # Rounded up to the total, a draw would leave the vocabulary.
    threshold = torch.minimum(uniform.unsqueeze(-1).to(total.dtype) * total, total.nextafter(torch.zeros_like(total)))
    return torch.searchsorted(sums, threshold, right=True).squeeze(-1)


def _require_numbers(values: Tensor) -> None:
    if bool(values.isnan().any()):
        raise FloatingPointError("the policy's next-token law is not a number: its weights diverged; lower training.lr")


def _nucleus(probs: Tensor, top_p: float) -> Tensor:
    """Zero outside the smallest set of likeliest tokens whose probability reaches top_p."""
    ordered, index = probs.sort(-1, descending=True)
    before = ordered.cumsum(-1) - ordered
    return torch.zeros_like(probs).scatter(-1, index, ordered.masked_fill(before >= top_p, 0))


class _ModelState:
    """One model's KV cache over the rows still being decoded."""

    def __init__(self, model: PreTrainedModel, prompts: list[list[int]], k: int) -> None:
        longest = max(map(len, prompts))
        ids = torch.zeros(len(prompts), longest, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, longest - len(prompt) :] = torch.tensor(prompt)
            mask[row, longest - len(prompt) :] = 1
        self.model, self.regime = model, rotary_regime(model)
        self.ids = ids.repeat_interleave(k, 0).to(model.device)  # for a pass over all, where the law changes
        self.cache = decoding_cache(model)
        self.padded = bool((mask == 0).any())
        self.mask, self.length = mask.to(model.device), mask.sum(-1).to(model.device)
        positions = (self.mask.cumsum(-1) - 1).clamp_min(0)
        self.logits = self._forward(ids.to(model.device), positions).repeat_interleave(k, 0)
        repeat_rows(self.cache, len(prompts), k)
        self.mask, self.length = self.mask.repeat_interleave(k, 0), self.length.repeat_interleave(k, 0)

    def step(self, tokens: Tensor) -> Tensor:
        """Feed one token a row; the next logits, [rows, vocabulary]."""
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), 1)], -1)
        self.length = self.length + 1
        if self.regime is not None:
            self.ids = torch.cat([self.ids, tokens.unsqueeze(-1)], -1)
            length = self.ids.shape[-1]
            if self.regime(length) != self.regime(length - 1):
                self.cache = decoding_cache(self.model)
                return self._forward(self.ids, torch.arange(length, device=tokens.device).expand_as(self.ids))
        return self._forward(tokens.unsqueeze(-1), self.length.unsqueeze(-1) - 1)

    def select(self, rows: Tensor) -> None:
        """Keep only these rows, in this order (`packed`)."""
        select_rows(self.cache, rows)
        self.mask, self.length = self.mask[rows], self.length[rows]
        self.ids = self.ids[rows] if self.regime is not None else self.ids

    def _forward(self, ids: Tensor, positions: Tensor) -> Tensor:
        # Without padding no mask is needed, and the attention kernel takes its quick path.
        mask = self.mask if self.padded else None
        if self.regime is not None:
            forget_lengths(self.model)
        out = self.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return out.logits[:, -1]
