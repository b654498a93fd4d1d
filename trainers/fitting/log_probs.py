"""Log-probabilities of responses: only their positions reach the head, and [tokens, vocabulary] is never held whole.

Logits are computed a chunk of tokens at a time, and recomputed in the backward pass; where one chunk holds them
all, they are kept instead. Matrix products have the precision of the model or of autocast; the log-probabilities and
their sums are float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from trainers.fitting.packing import Row, RowChooser, lay_out
from trainers.policies.policy import Tokens
from trainers.rotary import forget_lengths, rotary_regime

CHUNK = {"cpu": 2**21, "cuda": 2**26}
"""Maximum number of logits at once: 8 and 256 MiB in float32."""


class ResponseLogProbs(nn.Module):
    """Sums of a causal language model's log-probabilities over the tokens of responses.

    A module, so that what wraps modules (DDP, FSDP2) sees this computation and not the model's own logits.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        self.rows = RowChooser(model)
        self.regime = rotary_regime(model)
        self._is_plain = _has_plain_head(model)
        self._no_split_modules = getattr(model, "_no_split_modules", None)  # what accelerate shards by

    @property
    def plain(self) -> Tensor | None:
        """The head's weight [vocabulary, width], or None where the model's logits are not hidden states times it.

        Read in every pass: FSDP2 materialises the full weight only during the pass.
        """
        head: Any = self.model.get_output_embeddings()
        return head.weight if self._is_plain else None

    def forward(self, prompts: Sequence[Tokens], responses: Sequence[Tokens]) -> Tensor:
        """Summed log-probability of each response given its prompt, nats, float32, [n], differentiable."""
        if self.regime is None:
            return self._of_rows(self.rows.rows(prompts, responses), prompts, responses)
        groups: dict[tuple[int, ...], list[Row]] = {}
        for number, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
            groups.setdefault(self.regime(len(prompt) + len(response)), []).append((number,))
        parts = []
        for rows in groups.values():
            forget_lengths(self.model)
            parts.append(self._of_rows(rows, prompts, responses))
        return torch.stack(parts).sum(0)  # each is 0 where another has the response

    def _of_rows(self, rows: Sequence[Row], prompts: Sequence[Tokens], responses: Sequence[Tokens]) -> Tensor:
        """The log-probabilities of the responses in these rows, 0 for the others, [n]."""
        layout = lay_out(rows, prompts, responses, self.model.device)
        weight = self.plain
        if weight is None:
            logits = self.model(**layout.inputs, use_cache=False).logits.flatten(0, 1)[layout.places].float()
            tokens = -nn.functional.cross_entropy(logits, layout.targets, reduction="none")
        else:
            hidden = self.model.base_model(**layout.inputs, use_cache=False).last_hidden_state.flatten(0, 1)
            tokens = token_log_probs(hidden.index_select(0, layout.places), weight, layout.targets)
        return tokens.new_zeros(len(prompts)).index_add(0, layout.owners, tokens)


def token_log_probs(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """log softmax(hidden @ weight.T)[target] of each token, nats, float32, [tokens], differentiable.

    Args:
        hidden: [tokens, width].
        weight: [vocabulary, width].
        targets: [tokens], integers.
    """
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
    size = max(1, CHUNK.get(device, CHUNK["cuda"]) // len(weight))
    with torch.autocast(device, enabled=False):
        return _TokenLogProbs.apply(hidden.to(dtype), weight, targets, size)


class _TokenLogProbs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, all_hidden: Tensor, weight: Tensor, all_targets: Tensor, size: int) -> Tensor:
        matrix = weight.to(all_hidden.dtype)
        values, logsumexps, kept_logits = [], [], None
        for hidden, targets in zip(all_hidden.split(size), all_targets.split(size), strict=True):
            logits = (hidden @ matrix.T).float()
            logsumexp = logits.logsumexp(-1)
            values.append(logits.gather(-1, targets.unsqueeze(-1)).squeeze(-1) - logsumexp)
            logsumexps.append(logsumexp)
            kept_logits = logits if len(all_hidden) <= size else None
            del logits  # before the next chunk is computed
        ctx.save_for_backward(all_hidden, weight, all_targets, torch.cat(logsumexps), kept_logits)
        ctx.size = size
        return torch.cat(values)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, all_grad_out: Tensor) -> tuple[Tensor | None, ...]:
        all_hidden, weight, all_targets, logsumexps, kept_logits = ctx.saved_tensors
        matrix = weight.to(all_hidden.dtype)
        grad_hidden = torch.empty_like(all_hidden) if ctx.needs_input_grad[0] else None
        grad_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        parts = zip(*(t.split(ctx.size) for t in (all_hidden, all_targets, logsumexps, all_grad_out)), strict=True)
        for number, (hidden, targets, logsumexp, grad_out) in enumerate(parts):
            logits = (hidden @ matrix.T).float() if kept_logits is None else kept_logits
            grad_logits = logits.sub_(logsumexp.unsqueeze(-1)).exp_().mul_(-grad_out.unsqueeze(-1))
            grad_logits.scatter_add_(-1, targets.unsqueeze(-1), grad_out.unsqueeze(-1))
            grad_logits = grad_logits.to(all_hidden.dtype)
            if grad_hidden is not None:
                torch.mm(grad_logits, matrix, out=grad_hidden.split(ctx.size)[number])
            if grad_weight is not None:
                _accumulate(grad_weight, grad_logits, hidden)
            del logits, grad_logits
        return grad_hidden, grad_weight, None, None


def _accumulate(grad_weight: Tensor, grad_logits: Tensor, hidden: Tensor) -> None:
    """Add grad_logits.T @ hidden in place; `grad_weight` may have a wider dtype."""
    if grad_weight.dtype == hidden.dtype:
        grad_weight.addmm_(grad_logits.T, hidden)
    else:
        grad_weight += grad_logits.T @ hidden


@torch.no_grad()
def _has_plain_head(model: PreTrainedModel) -> bool:
    """Whether the model's logits are hidden states times its head's weight.

    Determined by replacing the head's output with known numbers: some models scale, cap or mask logits afterwards.
    """
    head: Any = model.get_output_embeddings()
    if type(head) is not nn.Linear or head.bias is not None:
        return False
    fed: list[Tensor] = []

    def replaced(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        fed.append(inputs[0])
        return torch.linspace(-99, 99, output.numel(), device=output.device).view_as(output).to(output.dtype)

    ids = torch.arange(2, device=model.device).unsqueeze(0)
    handle = head.register_forward_hook(replaced)
    try:
        logits = model(input_ids=ids, use_cache=False).logits
    finally:
        handle.remove()
    hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    return torch.equal(logits, replaced(head, (hidden,), logits)) and torch.equal(fed[0], hidden)
