"""What each kind of stage computes. A stage reads artifacts, writes files into its folder, and returns facts.

Facts go into the manifest; those under `work` (samples, queries, steps) are what a score cost.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable

from harness.stage import Stage
from harness.stages.context import Context, Facts, ModelCache, Report
from harness.stages.evaluating import answer, benchmark, compare, grade, questions
from harness.stages.games import gap, play
from harness.stages.training import fit, pair, sample, score, stream
from harness.stages.world import judge, pocket, prompts, sets, votes
from harness.store.artifacts import Store

__all__ = ["FUNCTIONS", "ModelCache", "run_stage"]

FUNCTIONS: dict[str, Callable[[Context], Facts]] = {
    f.__name__: f
    for f in (
        *(pocket, votes, judge, sets, prompts),
        *(sample, pair, score, fit, stream),
        *(questions, answer, grade, benchmark, compare),
        *(play, gap),
    )
}


def run_stage(stage: Stage, store: Store, models: ModelCache, report: Report) -> None:
    """Compute a stage and put its artifact into the store; nothing where it is there already.

    Raises:
        ValueError: among other faults of the input, memory that does not suffice, with the options that need less.
    """
    if store.has(stage):
        return
    with store.writing(stage) as (out, facts):
        started, context = time.perf_counter(), Context(stage, store, out, report, models)
        try:
            facts.update(FUNCTIONS[stage.kind](context))
        except (RuntimeError, MemoryError) as error:
            if not _is_out_of_memory(error):
                raise
            models.models.clear()
            fix = SPARING.get(stage.kind, "lower the batch_size of the judge or of what else it opens, or --jobs")
            raise ValueError(f"out of memory; {fix}") from error
        facts["seconds"] = round(time.perf_counter() - started, 3)
    shutil.rmtree(context.unfinished, ignore_errors=True)


UPDATE = "lower training.micro_batch_size or training.max_length"
SAMPLING = "lower sampling.batch_size or sampling.max_tokens"
SPARING = {
    "fit": f"{UPDATE}, or set training.gradient_checkpointing: true",
    "stream": f"{UPDATE}, set training.gradient_checkpointing: true, or {SAMPLING}",
    "score": UPDATE,
    "sample": SAMPLING,
    "answer": SAMPLING,
    "benchmark": "lower the leaderboard's batch_size",
}
"""What a user can do about a stage that needs more memory than there is."""


def _is_out_of_memory(error: Exception) -> bool:
    """torch has a type for a GPU's memory; what it raises on a CPU is told by its words."""
    import torch

    words = str(error)
    short = "allocate memory" in words or "not enough memory" in words
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or short
