"""What each kind of stage computes. A stage reads artifacts, writes files into its folder, and returns facts.

Facts go into the manifest; those under `work` (samples, queries, steps) are what a score cost.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from harness.stage import Stage
from harness.stages.context import Context, Facts, ModelCache, Report
from harness.stages.evaluating import answer, benchmark, compare, grade
from harness.stages.games import gap, play
from harness.stages.training import fit, pair, sample, score, stream
from harness.stages.world import judge, pocket, prompts, sets, votes
from harness.store import Store

__all__ = ["FUNCTIONS", "ModelCache", "run_stage"]

FUNCTIONS: dict[str, Callable[[Context], Facts]] = {
    f.__name__: f
    for f in (
        *(pocket, votes, judge, sets, prompts),
        *(sample, pair, score, fit, stream),
        *(answer, grade, benchmark, compare),
        *(play, gap),
    )
}


def run_stage(stage: Stage, store: Store, models: ModelCache, report: Report) -> None:
    """Compute a stage and put its artifact into the store; nothing where it is there already."""
    if store.has(stage):
        return
    with store.writing(stage) as (out, facts):
        started = time.perf_counter()
        facts.update(FUNCTIONS[stage.kind](Context(stage, store, out, report, models)))
        facts["seconds"] = round(time.perf_counter() - started, 3)
