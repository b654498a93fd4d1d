"""One optimiser step on a batch of pairs, the learning-rate schedules, and the optimiser's state as plain tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from trainers.algorithm import Algorithm, PairBatch, labelled_loss
from trainers.options import Training
from trainers.pairs import FrozenLogProbs, Pairs, pair_log_probs, pair_values, token_counts

if TYPE_CHECKING:
    from trainers.policies.policy import Policy

Figures = dict[str, float]


class Optimiser:
    """AdamW with gradient clipping and a learning-rate schedule over a known number of steps.

    Args:
        steps: optimiser steps in all, for the schedule.
        state: what `state()` gave, to go on from there.
    """

    def __init__(
        self, policy: Policy, training: Training, steps: int, state: Mapping[str, Tensor] | None = None
    ) -> None:
        self.parameters = [p for p in policy.parameters() if p.requires_grad]
        self.training = training
        self.adamw = torch.optim.AdamW(self.parameters, lr=training.lr, weight_decay=0.0)
        self.adamw.param_groups[0]["initial_lr"] = training.lr  # what a schedule that goes on asks for
        done = 0
        if state is not None:
            self.adamw.load_state_dict(self.adamw.state_dict() | {"state": _slots(state)})
            done = int(state["schedule_step"])
        self.schedule = _schedule(self.adamw, training, steps, done)

    def step(self, policy: Policy, algorithm: Algorithm, pairs: Pairs, frozen: FrozenLogProbs) -> Figures:
        """One step on the mean loss of a batch, accumulated over micro-batches; figures before the step.

        Raises:
            FloatingPointError: the loss is not finite (nothing is written to the weights).
        """
        size = self.training.micro_batch_size or len(pairs)
        figures: dict[str, float] = {}
        for start in range(0, len(pairs), size):
            rows = list(range(start, min(start + size, len(pairs))))
            part = {name: values[rows] for name, values in frozen.items()}
            for name, value in _backward(policy, algorithm, pairs.select(rows), part, len(pairs)).items():
                figures[name] = figures.get(name, 0.0) + value
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, self.training.max_grad_norm))
        if not torch.isfinite(torch.tensor([norm, figures["loss"]])).all():
            raise FloatingPointError(
                f"{algorithm.name}: loss {figures['loss']} with gradient norm {norm}; lower training.lr (now "
                f"{self.training.lr}) or the step the loss asks for"
            )
        figures |= {"grad_norm": norm, "lr": float(self.schedule.get_last_lr()[0])}
        self.adamw.step()
        self.schedule.step()
        self.adamw.zero_grad(set_to_none=True)
        return figures

    def state(self) -> dict[str, Tensor]:
        """Moments and step counts as named tensors of their own, for safetensors or for a copy of the policy."""
        state = self.adamw.state_dict()["state"]
        named = {f"{i}.{name}": value.clone() for i, slots in state.items() for name, value in slots.items()}
        return named | {"schedule_step": torch.tensor(self.schedule.last_epoch)}


def _slots(state: Mapping[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    """AdamW's own form of the moments in `Optimiser.state()`."""
    slots: dict[int, dict[str, Tensor]] = {}
    for name, value in state.items():
        if name != "schedule_step":
            index, _, slot = name.partition(".")
            slots.setdefault(int(index), {})[slot] = value
    return slots


def _schedule(adamw: torch.optim.AdamW, training: Training, steps: int, done: int) -> torch.optim.lr_scheduler.LambdaLR:
    """Warm-up, then the named decay towards zero at `steps`.

    The first step already moves: on schedules of a few steps, a first rate of zero would waste a good part of the work.
    """
    warmup = round(training.warmup * steps)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        left = 1 - (step - warmup) / max(1, steps - warmup)
        shapes = {"constant": 1.0, "linear": left, "cosine": (1 - math.cos(math.pi * left)) / 2}
        return shapes[training.schedule]

    return torch.optim.lr_scheduler.LambdaLR(adamw, factor, last_epoch=done - 1)


def _backward(policy: Policy, algorithm: Algorithm, pairs: Pairs, frozen: FrozenLogProbs, total: int) -> Figures:
    """Add a micro-batch's share of the gradient; its share of the batch's mean figures."""
    own = pair_log_probs(policy, pairs)
    batch = PairBatch(
        own,
        {name: pair_values(values, own.chosen) for name, values in frozen.items()},
        {name: pair_values(values, own.chosen) for name, values in pairs.rewards.items()},
        pair_values(token_counts(pairs), own.chosen),
    )
    preference = own.chosen.new_tensor(pairs.preference)
    loss = labelled_loss(algorithm, batch, preference).sum() / total
    loss.backward()
    with torch.no_grad():
        return {"loss": loss.item()} | {name: value.sum().item() / total for name, value in _watch(batch).items()}


def _watch(batch: PairBatch) -> dict[str, Tensor]:
    """Figures a person watches, one value a pair."""
    figures = {"margin": batch.margin, "chosen_log_prob": batch.policy.chosen}
    for name in batch.frozen:
        figures[f"log_ratio/{name}"] = batch.log_ratio(name)
        figures[f"accuracy/{name}"] = (batch.log_ratio(name) > 0).float()
    return figures
