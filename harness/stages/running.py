"""One stage, from its inputs to its artifact in the store."""

from __future__ import annotations

import shutil
import time

from harness.errors import UserError
from harness.run.devices import environment
from harness.stage import Stage
from harness.stages.context import Context, ModelCache, Report
from harness.store.artifacts import Store


def run_stage(stage: Stage, store: Store, models: ModelCache, report: Report) -> None:
    """Compute a stage and put its artifact into the store; nothing where it is there already.

    Raises:
        UserError: among other faults of the input, memory that does not suffice, with the options that need less.
    """
    if store.has(stage):
        return
    with store.writing(stage) as (out, facts):
        started, context = time.perf_counter(), Context(stage, store, out, report, models)
        try:
            facts.update(stage.run(context))
        except (RuntimeError, MemoryError) as error:
            if not _is_out_of_memory(error):
                raise
            models.models.clear()
            raise UserError(f"out of memory; {stage.memory_advice}") from error
        facts["environment"] = environment()
        facts["seconds"] = round(time.perf_counter() - started, 3)
    shutil.rmtree(context.unfinished, ignore_errors=True)


def _is_out_of_memory(error: Exception) -> bool:
    """torch has a type for a GPU's memory; what it raises on a CPU is told by its words."""
    import torch

    words = str(error)
    short = "allocate memory" in words or "not enough memory" in words
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or short
