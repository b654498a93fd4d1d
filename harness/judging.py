"""The table of judges: how those that a sweep trained agree with held-out votes, and with which difference."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.plan import Plan
from harness.stage import Stage
from harness.store import Store

JUDGES = ["judge", "against", "metric", "value", "ci_low", "ci_high", "n", "coverage", "p_value"]
METRICS = {
    "log_loss": "nats a pair; the mean cross-entropy of held-out votes under the judge's preference",
    "accuracy": "share of the held-out pairs on which judge and majority of votes have the same winner",
}


def judge_rows(plan: Plan, store: Store) -> Iterator[dict[str, Any]]:
    """One row a trained judge and metric, and one a pair of judges: the difference on the same held-out pairs.

    A failed verdict is left out and lowers the coverage.
    """
    from leaderboards.statistics import compare_checkpoints, prompt_bootstrap

    trained = [stage for stage in plan.stages if stage.kind == "judge" and store.has(stage)]
    for metric in METRICS:
        values = {str(stage.options["name"]): _values(stage, store, metric) for stage in trained}
        for name, of_pairs in values.items():
            yield {"judge": name, "against": "", "metric": metric, **_interval(prompt_bootstrap(of_pairs))}
        for a, b in itertools.permutations(values, 2):
            made = compare_checkpoints(values[a], values[b])
            row = {"judge": a, "against": b, "metric": metric, "p_value": made.p_value}
            yield row | _interval(made.difference)


def _values(stage: Stage, store: Store, metric: str) -> NDArray[np.float64]:
    """The metric on each held-out pair, NaN where the judge failed or, for the accuracy, the votes are even."""
    rows = _read(store.path(stage) / "model" / "heldout.jsonl")
    p = np.array([np.nan if r["preference"] is None else r["preference"] for r in rows])
    share = np.array([r["share"] for r in rows])
    if metric == "accuracy":
        agrees = np.sign(p - 0.5) == np.sign(share - 0.5)
        return np.where(np.isnan(p) | (share == 0.5), np.nan, agrees.astype(np.float64))
    q = p.clip(1e-12, 1 - 1e-12)
    return -(share * np.log(q) + (1 - share) * np.log1p(-q))


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _interval(estimate: Any) -> dict[str, Any]:
    return {name: getattr(estimate, name) for name in ("value", "ci_low", "ci_high", "n", "coverage")}
