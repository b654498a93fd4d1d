"""Intermediate states of a fit, so that a killed one resumes within its epoch."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from trainers.fitting.ranks import Ranks

if TYPE_CHECKING:
    from trainers.fitting.optimise import Optimiser, StepMetrics
    from trainers.policies.causal_lm import CausalLM

WRITE_TIME_FACTOR = 20
"""The time between two states is at least this many times the time that writing one takes."""


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest complete state in a folder: `model` (an ordinary checkpoint), `state.safetensors`, `dynamics.json`."""
    steps = sorted(folder.glob("step-*"), key=lambda path: int(path.name.removeprefix("step-")))
    return steps[-1] if steps else None


class FitCheckpointer:
    """Saves the newest state of a fit in a folder, and loads an earlier one from it.

    Args:
        folder: of this fit only; created when the first state is written.
        policy: the one being fitted; loaded from the `model` of `newest_checkpoint` where there is one.
        every: minimum seconds between two states.
    """

    def __init__(self, folder: Path, policy: CausalLM, ranks: Ranks, every: float) -> None:
        self.folder, self.policy, self.ranks, self.every = folder, policy, ranks, every
        self.due = time.monotonic() + every

    def read(self) -> tuple[list[StepMetrics], Mapping[str, Tensor] | None]:
        """The metrics of the steps done, and the optimiser's state."""
        from safetensors.torch import load_file

        checkpoint = newest_checkpoint(self.folder)
        if checkpoint is None:
            return [], None
        return json.loads((checkpoint / "dynamics.json").read_text()), load_file(checkpoint / "state.safetensors")

    def maybe_save(self, optimiser: Optimiser, dynamics: list[StepMetrics]) -> None:
        """Save the state after a step if the last one is old enough. Every process must call it."""
        if not self.ranks.agree(time.monotonic() >= self.due):
            return
        started = time.monotonic()
        weights, state = self.ranks.weights(self.policy), optimiser.state()
        if self.ranks.index == 0:
            self._write(weights, state, dynamics)
        ended = time.monotonic()
        self.due = ended + max(self.every, WRITE_TIME_FACTOR * (ended - started))

    def _write(self, weights: dict[str, Tensor] | None, state: dict[str, Tensor], dynamics: list[StepMetrics]) -> None:
        from safetensors.torch import save_file

        self.folder.mkdir(parents=True, exist_ok=True)
        checkpoint = Path(tempfile.mkdtemp(prefix="writing-", dir=self.folder))
        self.policy.save(checkpoint / "model", weights)
        save_file({name: value.contiguous() for name, value in state.items()}, checkpoint / "state.safetensors")
        (checkpoint / "dynamics.json").write_text(json.dumps(dynamics))
        checkpoint = checkpoint.rename(self.folder / f"step-{len(dynamics)}")
        for older in self.folder.iterdir():
            if older != checkpoint:
                shutil.rmtree(older, ignore_errors=True)
