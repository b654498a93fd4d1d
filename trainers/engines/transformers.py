"""Sampling with plain transformers models: prompts prefilled once, expanded to k, finished rows dropped.

Several models with weights sample from their token-level geometric mixture: at every position the next token follows
softmax(sum_m weight_m log p_m) (arXiv 2312.00886, Nash-MD; arXiv 2403.08635). Each model keeps its own KV cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

Weighted = Sequence[tuple[PreTrainedModel, float]]


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How tokens are drawn; temperature 0 takes the likeliest. Temperature applies to each model before mixing."""

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    batch_size: int = 1024
    end_tokens: frozenset[int] = field(default_factory=frozenset)


def sample_tokens(
    models: Weighted, prompts: Sequence[list[int]], k: int, decoding: Decoding, generator: torch.Generator
) -> list[list[list[int]]]:
    """k token lists for each prompt, ending with the end token where one was drawn.

    Prompts are decoded in batches of similar length, so what is drawn depends on the generator, on the prompts given
    together and on `batch_size`; its distribution does not.

    Raises:
        FloatingPointError: a model's next-token law is not a number.
    """
    out: list[list[list[int]]] = [[] for _ in prompts]
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    per_batch = max(1, decoding.batch_size // k)
    for start in range(0, len(order), per_batch):
        chunk = order[start : start + per_batch]
        rows = _decode([prompts[i] for i in chunk], models, k, decoding, generator)
        for position, i in enumerate(chunk):
            out[i] = rows[position * k : (position + 1) * k]
    return out


def next_token_log_probs(models: Weighted, logits: Sequence[Tensor], temperature: float) -> Tensor:
    """Log-probabilities [rows, vocabulary] of the normalised geometric mixture of the models' next-token laws."""
    scaled = [
        weight * torch.log_softmax(raw.float() / temperature, -1)
        for (_, weight), raw in zip(models, logits, strict=True)
    ]
    return torch.log_softmax(torch.stack(scaled).sum(0), -1)


@torch.no_grad()
def _decode(
    prompts: list[list[int]], models: Weighted, k: int, decoding: Decoding, generator: torch.Generator
) -> list[list[int]]:
    """Rows of tokens, k a prompt in order."""
    states = [_ModelState(model, prompts, k) for model, _ in models]
    logits = [state.logits for state in states]
    if any(bool(raw.isnan().any()) for raw in logits):
        raise FloatingPointError("the policy's next-token law is not a number: its weights diverged; lower training.lr")
    out: list[list[int]] = [[] for _ in range(len(prompts) * k)]
    alive = torch.arange(len(out), device=logits[0].device)
    ends = torch.tensor(sorted(decoding.end_tokens), device=alive.device)
    for position in range(decoding.max_tokens):
        tokens = _draw(models, logits, decoding, generator)
        for row, token in zip(alive.tolist(), tokens.tolist(), strict=True):
            out[row].append(token)
        going = ~torch.isin(tokens, ends)
        if position + 1 == decoding.max_tokens or not going.any():
            break
        if not going.all():
            keep = going.nonzero().squeeze(-1)
            alive, tokens = alive[keep], tokens[keep]
            for state in states:
                state.select(keep)
        logits = [state.step(tokens) for state in states]
    return out


def _draw(models: Weighted, logits: Sequence[Tensor], decoding: Decoding, generator: torch.Generator) -> Tensor:
    """One token a row."""
    if decoding.temperature == 0:
        return next_token_log_probs(models, logits, 1.0).argmax(-1)
    log_probs = next_token_log_probs(models, logits, decoding.temperature)
    if decoding.top_p < 1:
        log_probs = _nucleus(log_probs, decoding.top_p)
    noise = torch.empty_like(log_probs).exponential_(generator=generator)
    return (log_probs - noise.log()).argmax(-1)  # Gumbel-max: an exact draw without a normalising pass


def _nucleus(log_probs: Tensor, top_p: float) -> Tensor:
    """-inf outside the smallest set of likeliest tokens whose probability reaches top_p."""
    ordered, index = log_probs.sort(-1, descending=True)
    before = ordered.exp().cumsum(-1) - ordered.exp()
    return torch.full_like(log_probs, -torch.inf).scatter(-1, index, ordered.masked_fill(before >= top_p, -torch.inf))


class _ModelState:
    """One model's KV cache over the rows still being decoded."""

    def __init__(self, model: PreTrainedModel, prompts: list[list[int]], k: int) -> None:
        longest = max(map(len, prompts))
        ids = torch.zeros(len(prompts), longest, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, longest - len(prompt) :] = torch.tensor(prompt)
            mask[row, longest - len(prompt) :] = 1
        self.model = model
        self.cache = DynamicCache(config=model.config)
        self.padded = bool((mask == 0).any())
        self.mask, self.length = mask.to(model.device), mask.sum(-1).to(model.device)
        positions = (self.mask.cumsum(-1) - 1).clamp_min(0)
        self.logits = self._forward(ids.to(model.device), positions).repeat_interleave(k, 0)
        self.cache.batch_repeat_interleave(k)
        self.mask, self.length = self.mask.repeat_interleave(k, 0), self.length.repeat_interleave(k, 0)

    def step(self, tokens: Tensor) -> Tensor:
        """Feed one token a row; the next logits, [rows, vocabulary]."""
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), 1)], -1)
        self.length = self.length + 1
        return self._forward(tokens.unsqueeze(-1), self.length.unsqueeze(-1) - 1)

    def select(self, rows: Tensor) -> None:
        """Keep only these rows."""
        self.cache.batch_select_indices(rows)
        self.mask, self.length = self.mask[rows], self.length[rows]

    def _forward(self, ids: Tensor, positions: Tensor) -> Tensor:
        # Without padding no mask is needed, and the attention kernel takes its quick path.
        mask = self.mask if self.padded else None
        out = self.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return out.logits[:, -1]
