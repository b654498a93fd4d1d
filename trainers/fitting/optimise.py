"""One optimiser step on a batch of pairs, the learning-rate schedules, and the optimiser's state as plain tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from trainers.algorithm import Algorithm, PairBatch, labelled_loss
from trainers.fitting.pairs import FrozenLogProbs, Pairs, pair_log_probs, pair_values, token_counts
from trainers.fitting.ranks import Ranks, shard_like, to_full_tensor
from trainers.options import Training

if TYPE_CHECKING:
    from trainers.policies.policy import Policy

StepMetrics = dict[str, float]

OptimizerFactory = Callable[[list[torch.nn.Parameter], float], torch.optim.Optimizer]
OPTIMIZERS: dict[str, OptimizerFactory] = {
    "adamw": lambda weights, lr: torch.optim.AdamW(weights, lr=lr, weight_decay=0.0, fused=True),
    "rmsprop": lambda weights, lr: torch.optim.RMSprop(weights, lr=lr),
    "adafactor": lambda weights, lr: torch.optim.Adafactor(weights, lr=lr, beta2_decay=-0.8),
}
"""Without weight decay. AdamW is the usual choice; SPPO's code uses RMSprop, IPO-MD's paper Adafactor."""


class Optimiser:
    """The optimiser that `training.optimizer` names, gradient clipping, and a learning-rate schedule over a known
    number of steps.

    Args:
        steps: optimiser steps in all, for the schedule.
        state: a `state()` to resume from.
        ranks: the processes that share each step.
    """

    def __init__(
        self,
        policy: Policy,
        training: Training,
        steps: int,
        state: Mapping[str, Tensor] | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        self.training, self.ranks = training, ranks or Ranks()
        self.optimizer = OPTIMIZERS[training.optimizer](
            [p for p in policy.parameters() if p.requires_grad], training.lr
        )
        self.ranks.prepare(policy, self.optimizer)
        self.parameters: list[torch.nn.Parameter] = self.optimizer.param_groups[0]["params"]
        self.optimizer.param_groups[0]["initial_lr"] = training.lr  # needed by a resumed schedule
        done = 0
        if state is not None:
            self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": _slots(state, self.parameters)})
            done = int(state["schedule_step"])
        self.schedule = _schedule(self.optimizer, training, steps, done)

    @property
    def steps_done(self) -> int:
        """Steps taken, including those before `state`."""
        return self.schedule.last_epoch

    def step(self, policy: Policy, algorithm: Algorithm, pairs: Pairs, frozen: FrozenLogProbs) -> StepMetrics:
        """One step on the mean loss of a batch, accumulated over micro-batches and processes; metrics before the step.

        Raises:
            FloatingPointError: the loss is not finite (nothing is written to the weights).
        """
        parts = self._accumulate(policy, algorithm, pairs, frozen)
        watched = {name: torch.stack([part[name] for part in parts]).sum() for name in parts[0]}
        clipped = torch.nn.utils.clip_grad_norm_(self.parameters, self.training.max_grad_norm)
        totals = self.ranks.sum(torch.stack([value.double() for value in watched.values()]))
        # Read together: on a GPU each read synchronises with all work in flight.
        values = torch.cat([totals, to_full_tensor(clipped).double().reshape(1)]).tolist()
        figures = dict(zip([*watched, "grad_norm"], values, strict=True))
        norm = figures["grad_norm"]
        if not (math.isfinite(norm) and math.isfinite(figures["loss"])):
            raise FloatingPointError(
                f"{algorithm.name}: loss {figures['loss']} with gradient norm {norm}; lower training.lr (now "
                f"{self.training.lr}) or the step the loss asks for"
            )
        figures["lr"] = float(self.schedule.get_last_lr()[0])
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)
        return figures

    def _accumulate(
        self, policy: Policy, algorithm: Algorithm, pairs: Pairs, frozen: FrozenLogProbs
    ) -> list[dict[str, Tensor]]:
        """The gradient of a batch; for each micro-batch of this process its share of the mean figures."""
        parts, figures = self.ranks.parts(pairs, self.training.micro_batch_size), []
        for number, (rows, weight) in enumerate(parts, start=1):
            part = {name: values[rows] for name, values in frozen.items()}
            with self.ranks.no_sync_until_last(last=number == len(parts)):
                figures.append(_backward(policy, algorithm, pairs.select(rows), part, len(pairs), weight))
        return figures

    def state(self) -> dict[str, Tensor]:
        """Moments and step counts as named, unsharded copies, for safetensors or a copy of the policy."""
        state = self.optimizer.state_dict()["state"]
        named = {f"{i}.{name}": to_full_tensor(value) for i, slots in state.items() for name, value in slots.items()}
        return named | {"schedule_step": torch.tensor(self.steps_done)}


def _slots(state: Mapping[str, Tensor], parameters: Sequence[Tensor]) -> dict[int, dict[str, Tensor]]:
    """The contents of `Optimiser.state()` in the form of a torch optimizer's state dict."""
    slots: dict[int, dict[str, Tensor]] = {}
    for name, value in state.items():
        if name != "schedule_step":
            index, _, slot = name.partition(".")
            slots.setdefault(int(index), {})[slot] = shard_like(value, parameters[int(index)])
    return slots


def _schedule(
    optimizer: torch.optim.Optimizer, training: Training, steps: int, done: int
) -> torch.optim.lr_scheduler.LambdaLR:
    """Warm-up, then the named decay towards zero at `steps`.

    The first learning rate is above zero: in a fit of few steps, a wasted first step would matter.
    """
    warmup = round(training.warmup * steps)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        left = 1 - (step - warmup) / max(1, steps - warmup)
        shapes = {"constant": 1.0, "linear": left, "cosine": (1 - math.cos(math.pi * left)) / 2}
        return shapes[training.schedule]

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor, last_epoch=done - 1)


def _backward(
    policy: Policy, algorithm: Algorithm, pairs: Pairs, frozen: FrozenLogProbs, total: int, weight: float = 1.0
) -> dict[str, Tensor]:
    """Add a micro-batch's share of the gradient, weighted; its share of the batch's mean figures, as scalars."""
    own = pair_log_probs(policy, pairs)
    batch = PairBatch(
        own,
        {name: pair_values(values, own.chosen) for name, values in frozen.items()},
        {name: pair_values(values, own.chosen) for name, values in pairs.rewards.items()},
        pair_values(token_counts(pairs), own.chosen),
    )
    preference = own.chosen.new_tensor(pairs.preference)
    loss = labelled_loss(algorithm, batch, preference).sum() / total
    (loss * weight).backward()
    with torch.no_grad():
        figures = {"loss": loss.detach()} | {name: value.sum() / total for name, value in _watch(batch).items()}
        return figures if weight else {name: torch.zeros_like(value) for name, value in figures.items()}


def _watch(batch: PairBatch) -> dict[str, Tensor]:
    """Metrics to monitor, one value a pair."""
    figures = {"margin": batch.margin, "chosen_log_prob": batch.policy.chosen}
    for name in batch.frozen:
        figures[f"log_ratio/{name}"] = batch.log_ratio(name)
        figures[f"accuracy/{name}"] = (batch.log_ratio(name) > 0).float()
    return figures
