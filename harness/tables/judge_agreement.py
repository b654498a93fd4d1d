"""The table of judges: how those that a sweep trained agree with held-out votes, and with which difference."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.planning.plan import Plan
from harness.stages.judge import TrainJudge
from harness.store.artifacts import Store
from leaderboards.records import Metric
from leaderboards.statistics.corrections import holm
from leaderboards.statistics.intervals import Estimate, mean_estimate
from leaderboards.statistics.means import Bounds
from leaderboards.statistics.paired import compare_checkpoints

METRICS = {
    "log_loss": Metric(
        unit="nats a pair",
        better="lower",
        estimates="mean cross-entropy of the held-out votes under the judge's preference, prompts weighing alike",
    ),
    "accuracy": Metric(
        unit="share",
        better="higher",
        estimates="share of the held-out pairs on which the judge prefers what most votes prefer, prompts weighing "
        "alike",
        bounds=(0.0, 1.0),
    ),
}
Values = NDArray[np.float64]


def judge_rows(plan: Plan, store: Store) -> Iterator[dict[str, Any]]:
    """One row a trained judge and metric, and two a pair of judges: the difference on the same held-out pairs, either
    way round.

    A prompt's number is the mean over its pairs; prompts are what is resampled and counted (`n`). The p-values are
    adjusted (Holm) over the pairs of judges within a metric. A failed verdict is left out and lowers the coverage,
    which is of pairs.
    """
    trained = [stage for stage in plan.stages if isinstance(stage, TrainJudge) and store.has(stage)]
    held = {stage.name: _read(store.open(stage, "model/heldout.jsonl")) for stage in trained}
    prompts = _prompts(held)
    for metric in METRICS:
        values = {name: _values(rows, metric) for name, rows in held.items()}
        for name, of_pairs in values.items():
            estimate = mean_estimate(_by_prompt(of_pairs, prompts), bounds=METRICS[metric].bounds)
            yield {"judge": name, "against": "", "metric": metric, **_figures(estimate, of_pairs)}
        yield from ({"metric": metric, **row} for row in _differences(values, prompts, METRICS[metric].bounds))


def _prompts(held: dict[str, list[dict[str, Any]]]) -> list[int]:
    """The number of each held-out pair's prompt. Raises ValueError for judges with different held-out pairs."""
    known = {name: [(row["id"], row["prompt"]) for row in rows] for name, rows in held.items()}
    first = next(iter(known.values()), [])
    if other := next((name for name, rows in known.items() if rows != first), None):
        raise ValueError(f"the judges {next(iter(known))} and {other} have different held-out pairs and do not compare")
    return [prompt for _, prompt in first]


def _differences(values: dict[str, Values], prompts: Sequence[int], bounds: Bounds | None) -> Iterator[dict[str, Any]]:
    """Every two judges, compared once and told both ways round."""
    of_differences = bounds and (bounds[0] - bounds[1], bounds[1] - bounds[0])
    differences = {(a, b): values[a] - values[b] for a, b in itertools.combinations(values, 2)}
    by_prompt = [_by_prompt(of_pairs, prompts) for of_pairs in differences.values()]
    comparisons = [
        compare_checkpoints(of_prompts, np.zeros_like(of_prompts), bounds=of_differences) for of_prompts in by_prompt
    ]
    adjusted = holm([comparison.p_value for comparison in comparisons]).tolist()
    for ((a, b), of_pairs), comparison, p_adjusted in zip(differences.items(), comparisons, adjusted, strict=True):
        row = _figures(comparison.difference, of_pairs) | {"p_value": comparison.p_value, "p_adjusted": p_adjusted}
        yield {"judge": a, "against": b, **row}
        turned = {"value": -row["value"], "ci_low": -row["ci_high"], "ci_high": -row["ci_low"]}
        yield {"judge": b, "against": a, **row, **turned}


def _values(rows: Sequence[dict[str, Any]], metric: str) -> Values:
    """The metric on each held-out pair, NaN where the judge failed or, for the accuracy, the votes are even."""
    p = np.array([np.nan if r["preference"] is None else r["preference"] for r in rows])
    share = np.array([r["share"] for r in rows])
    if metric == "accuracy":
        agrees = np.sign(p - 0.5) == np.sign(share - 0.5)
        return np.where(np.isnan(p) | (share == 0.5), np.nan, agrees.astype(np.float64))
    q = p.clip(1e-12, 1 - 1e-12)
    return -(share * np.log(q) + (1 - share) * np.log1p(-q))


def _by_prompt(of_pairs: Values, prompts: Sequence[int]) -> Values:
    """The mean over each prompt's pairs, NaN where all of them are."""
    known = ~np.isnan(of_pairs)
    count = np.bincount(prompts, known)
    total = np.bincount(prompts, np.where(known, of_pairs, 0.0))
    return np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _figures(made: Estimate, of_pairs: Values) -> dict[str, Any]:
    figures = {name: getattr(made, name) for name in ("value", "ci_low", "ci_high", "n")}
    return figures | {"coverage": float(np.mean(~np.isnan(of_pairs)))}
