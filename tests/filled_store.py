"""A store with an artifact for every stage of a plan, made by hand: what a finished sweep looks like, in no time."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from harness.planning.comparisons import comparison_stages
from harness.planning.plan import Plan
from harness.stage import Stage
from harness.stages.benchmark import Benchmark
from harness.stages.compare import Compare
from harness.stages.fit import Fit
from harness.stages.grade import Grade
from harness.stages.judge import TrainJudge
from harness.stages.rate import Rate
from harness.stages.stream import Stream
from harness.store.artifacts import Store
from leaderboards.records import GradedItem, write_items

PROMPTS = 4


def fill(plan: Plan, store: Store) -> list[Stage]:
    """Write an artifact for every stage that has none; the stages."""
    stages = [*plan.stages, *comparison_stages(plan, lambda stage: True)]
    for stage in stages:
        if not store.has(stage):
            with store.writing(stage) as (folder, facts):
                facts.update(FACTS.get(stage.kind, {}))
                writer = next((w for kind, w in WRITERS.items() if isinstance(stage, kind)), None)
                if writer:
                    writer(folder, int(stage.key[:6], 16) / 16**6)
    return stages


FACTS: dict[str, dict[str, Any]] = {
    "prompts": {"first": {"text": "p"}, "warnings": []},
    "sample": {"work": {"samples": 8, "tokens": 40}},
    "pair": {"work": {"queries": 11}, "pairs": 4, "failed": 0, "dropped": 0, "ties": 0, "empty": 0},
    "fit": {"work": {"steps": 2}, "truncated": 0},
    "stream": {"work": {"steps": 2, "samples": 8, "tokens": 40, "queries": 4}, "truncated": 0, "failed": 0},
    "answer": {"figures": {"distinct_2": 0.5, "repeated": 0.0, "words": 3.0, "entropy": 1.0, "start_nll": 1.0}},
    "grade": {"figures": {}, "failures": {}},
}


def _dynamics(folder: Path, value: float) -> None:
    pd.DataFrame([{"loss": value, "lr": 1e-3}] * 2).to_parquet(folder / "dynamics.parquet")


def _verdicts(folder: Path, value: float) -> None:
    items = [GradedItem(id=str(i), preference=value, prompt="p", response="a b c") for i in range(PROMPTS)]
    write_items(items, folder / "verdicts.parquet")


def _scores(folder: Path, value: float) -> None:
    score = {"metric": "win_rate", "value": value, "ci_low": value, "ci_high": value, "ci_level": 0.95, "n": PROMPTS}
    (folder / "scores.json").write_text(json.dumps([score | {"coverage": 1.0, "category": ""}]))


def _heldout(folder: Path, value: float) -> None:
    (folder / "model").mkdir()
    row = {"id": "0", "prompt": 0, "preference": value, "share": 0.75}
    (folder / "model" / "heldout.jsonl").write_text(json.dumps(row) + "\n")


def _comparisons(folder: Path, value: float) -> None:
    for name in ("comparisons", "algorithms"):
        (folder / f"{name}.json").write_text("[]")


WRITERS: dict[type[Stage] | tuple[type[Stage], ...], Callable[[Path, float], None]] = {
    (Fit, Stream): _dynamics,
    (Grade, Benchmark): _verdicts,
    Rate: _scores,
    TrainJudge: _heldout,
    Compare: _comparisons,
}
