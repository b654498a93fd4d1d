"""The processes that share an update: a single one, or the ranks of `accelerate launch`, with DDP or FSDP2.

Every process runs the same steps on its share of each batch; all communication between them is here.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from trainers.fitting.pairs import Pairs, length_batches

if TYPE_CHECKING:
    from accelerate import Accelerator

    from trainers.policies.policy import Policy

Part = tuple[list[int], float]
"""Rows of a micro-batch, and the weight of its mean loss in the gradient."""


class Ranks:
    """A single process."""

    index, count = 0, 1

    def parts(self, pairs: Pairs, size: int | None) -> list[Part]:
        """This process's micro-batches of a batch, at most `size` pairs each.

        All processes have the same number, as every pass synchronises them: one whose share is used up
        repeats a pair at weight 0. Gradients are averaged over processes, so a weight is their number.
        """
        own = list(range(self.index, len(pairs), self.count))
        most = -(-len(pairs) // self.count)
        cut = length_batches(pairs.select(own), size or most)
        parts: list[Part] = [([own[i] for i in rows], float(self.count)) for rows in cut]
        return parts + [([0], 0.0)] * (-(-most // (size or most)) - len(parts))

    def prepare(self, policy: Policy, optimizer: torch.optim.Optimizer) -> None:
        """Shard the weights or synchronise the gradients; the optimizer then steps what this process holds."""

    def no_sync_until_last(self, last: bool) -> AbstractContextManager[Any]:
        """Context of a micro-batch: gradients are exchanged only after the last."""
        return nullcontext()

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes."""
        return values

    def agree(self, due: bool) -> bool:
        """The first process's value of `due`, in every process."""
        return due

    def weights(self, policy: Policy) -> dict[str, Tensor] | None:
        """All unsharded weights, in the first process; None where they are not sharded. Every process must call it."""
        return None


class AccelerateRanks(Ranks):
    """A rank of `accelerate launch`.

    Args:
        cpu: whether the accelerate file says `use_cpu`. accelerate itself supports FSDP2 on accelerators only; here it
            also runs on a CPU, over gloo.
    """

    def __init__(self, cpu: bool) -> None:
        from datetime import timedelta

        from accelerate import Accelerator, PartialState
        from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin, InitProcessGroupKwargs

        # Every rank reads the checkpoint itself: its head is tested on the real weights.
        os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"
        limit = InitProcessGroupKwargs(timeout=timedelta(minutes=10))
        self.accelerator: Accelerator = Accelerator(cpu=cpu, kwargs_handlers=[limit])
        if cpu and os.environ.get("ACCELERATE_USE_FSDP") == "true":
            self.accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin()
            PartialState().distributed_type = self.accelerator.state.distributed_type = DistributedType.FSDP
        self.index, self.count = self.accelerator.process_index, self.accelerator.num_processes
        self.module: torch.nn.Module | None = None

    def prepare(self, policy: Any, optimizer: torch.optim.Optimizer) -> None:
        policy.scorer.rows.decide()  # now: a test in a later pass would hang, as other processes may not take part
        policy.scorer, _ = self.accelerator.prepare(policy.scorer, optimizer)
        self.module = policy.scorer

    def no_sync_until_last(self, last: bool) -> AbstractContextManager[Any]:
        # FSDP2 would keep unsharded gradients.
        return nullcontext() if last or self.accelerator.is_fsdp2 else self.accelerator.no_sync(self.module)

    def sum(self, values: Tensor) -> Tensor:
        return self.accelerator.reduce(values, "sum")

    def agree(self, due: bool) -> bool:
        first_is_due = torch.tensor(float(due and self.index == 0), device=self.accelerator.device)
        return bool(self.sum(first_is_due) > 0)

    def weights(self, policy: Any) -> dict[str, Tensor] | None:
        if not self.accelerator.is_fsdp2:
            return None
        state, full_weights = dict(policy.state()), dict[int, Tensor]()
        for name, weight in policy.model.named_parameters(remove_duplicate=False):
            if id(weight) not in full_weights:  # a tied weight stays one tensor, as it is in the file
                full = to_full_tensor(weight.detach())
                full_weights[id(weight)] = full.cpu() if self.index == 0 else full.new_empty(0)
            state[name] = full_weights[id(weight)]
        return state


def to_full_tensor(value: Tensor) -> Tensor:
    """An unsharded copy of a tensor, which FSDP2 may have sharded. Every process must call it."""
    full = getattr(value, "full_tensor", None)
    return (value if full is None else full()).clone()


def shard_like(value: Tensor, like: Tensor) -> Tensor:
    """This process's shard of a full tensor, sharded like the weight `like`."""
    mesh = getattr(like, "device_mesh", None)
    if mesh is None or value.shape != like.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.to(like.device), mesh, like.placements)  # type: ignore[attr-defined]
