"""The table of judges from held-out verdicts written by hand."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
from fake_stages import fake

from harness.config import Config
from harness.matrix import Cell, Variant
from harness.planning.plan import Plan
from harness.planning.records import CellPlan
from harness.stage import Stage
from harness.stages.judge import TrainJudge
from harness.stages.pocket import pocket_policy
from harness.stages.votes import votes
from harness.store.artifacts import Store
from harness.tables.judge_agreement import METRICS, judge_rows
from reports import schema

CONFIG = Config.model_validate(
    {
        "name": "x",
        "policy": "pocket",
        "matrix": {"trainer": ["dpo"], "judge": ["pairrm", "llm"]},
        "leaderboards": ["head-to-head"],
    }
)
PROMPTS = [0, 1, 2, 3]
SHARES = [0.75, 0.25, 1.0, 0.5]
PAIRRM = [0.8, 0.6, 1.0, None]
LLM = [0.6, 0.5, None, 0.5]


def entropy(share: float, p: float) -> float:
    return -(share * math.log(p) + (1 - share) * math.log(1 - p))


def trained(name: str) -> TrainJudge:
    return TrainJudge(name=name, policy=pocket_policy(), votes=votes(pocket_policy()), code="")


def keep(
    store: Store,
    name: str,
    preferences: list[float | None],
    prompts: Sequence[int] = PROMPTS,
    shares: Sequence[float] = SHARES,
) -> Stage:
    stage = trained(name)
    with store.writing(stage) as (out, _):
        (out / "model").mkdir()
        rows = [
            {"id": str(i), "prompt": prompt, "preference": p, "share": s}
            for i, (prompt, p, s) in enumerate(zip(prompts, preferences, shares, strict=True))
        ]
        (out / "model" / "heldout.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return stage


def plan_of(*stages: Stage) -> Plan:
    plan = CellPlan(Cell("pocket", Variant("dpo", {}), Variant("pairrm", {}), 0), None)
    plan.training[1] = [*stages, fake("pair")]
    return Plan(CONFIG, [plan])


@pytest.fixture
def rows(tmp_path: Path) -> dict[tuple[str, str, str], dict[str, Any]]:
    store = Store(tmp_path)
    plan = plan_of(keep(store, "pairrm", PAIRRM), keep(store, "llm", LLM))
    return {(row["metric"], row["judge"], row["against"]): row for row in judge_rows(plan, store)}


def test_every_judge_has_a_row_a_metric_and_every_two_their_difference_both_ways(rows: dict[Any, Any]) -> None:
    pairs = [("pairrm", ""), ("llm", ""), ("pairrm", "llm"), ("llm", "pairrm")]
    assert set(rows) == {(metric, *pair) for metric in METRICS for pair in pairs}
    assert all(set(row) <= set(schema.names("judges")) for row in rows.values())


def test_log_loss_is_the_mean_cross_entropy_of_the_answered_pairs(rows: dict[Any, Any]) -> None:
    row = rows["log_loss", "pairrm", ""]
    sure = -math.log1p(-1e-12)  # a certain judge is kept 1e-12 away from 1
    assert row["value"] == pytest.approx((entropy(0.75, 0.8) + entropy(0.25, 0.6) + sure) / 3, abs=1e-12)
    assert (row["n"], row["coverage"]) == (3, 0.75)
    assert row["ci_low"] <= row["value"] <= row["ci_high"]
    other = rows["log_loss", "llm", ""]
    assert other["value"] == pytest.approx((entropy(0.75, 0.6) + 2 * math.log(2)) / 3)


def test_accuracy_counts_decided_pairs_and_a_judges_tie_as_wrong(rows: dict[Any, Any]) -> None:
    pairrm, llm = rows["accuracy", "pairrm", ""], rows["accuracy", "llm", ""]
    assert (pairrm["value"], pairrm["n"]) == (pytest.approx(2 / 3), 3)
    assert (llm["value"], llm["n"], llm["coverage"]) == (0.5, 2, 0.5)  # right, undecided; failed; even votes


def test_the_difference_is_over_the_pairs_that_both_answered(rows: dict[Any, Any]) -> None:
    row, turned = rows["log_loss", "pairrm", "llm"], rows["log_loss", "llm", "pairrm"]
    by_pair = [entropy(0.75, 0.8) - entropy(0.75, 0.6), entropy(0.25, 0.6) - math.log(2)]
    assert row["value"] == pytest.approx(sum(by_pair) / 2)
    assert (row["n"], row["coverage"]) == (2, 0.5)
    assert turned["value"] == pytest.approx(-row["value"])
    assert turned["p_value"] == row["p_value"]
    assert row["p_value"] == pytest.approx(scipy.stats.ttest_1samp(by_pair, 0).pvalue)
    assert rows["accuracy", "pairrm", "llm"]["value"] == 0  # both right, then both wrong


def test_a_judge_that_is_not_trained_yet_is_left_out(tmp_path: Path) -> None:
    store = Store(tmp_path)
    found = list(judge_rows(plan_of(keep(store, "pairrm", PAIRRM), trained("llm")), store))
    assert [(row["judge"], row["against"]) for row in found] == [("pairrm", "")] * 2
    assert list(judge_rows(plan_of(), store)) == []


def test_prompts_are_resampled_not_pairs_and_a_repeated_pair_adds_no_certainty(tmp_path: Path) -> None:
    told = [0.9, 0.2, 0.6, 0.7, 0.35]
    shares = [1.0, 0.0, 0.0, 1.0, 1.0]
    once, twice = Store(tmp_path / "once"), Store(tmp_path / "twice")
    plan = plan_of(keep(once, "pairrm", told, range(5), shares))
    (single, _) = judge_rows(plan, once)
    plan = plan_of(keep(twice, "pairrm", [*told, *told], [*range(5), *range(5)], [*shares, *shares]))
    (doubled, _) = judge_rows(plan, twice)
    assert doubled["n"] == 5
    assert {k: doubled[k] for k in doubled} == pytest.approx(single)


def test_a_prompts_number_is_the_mean_of_its_answered_pairs_and_the_coverage_is_of_pairs(tmp_path: Path) -> None:
    store = Store(tmp_path)
    stage = keep(store, "llm", [0.8, 0.6, 0.6, None], [0, 0, 1, 1], [1.0] * 4)
    row = next(iter(judge_rows(plan_of(stage), store)))
    by_prompt = [-(math.log(0.8) + math.log(0.6)) / 2, -math.log(0.6)]
    assert row["value"] == pytest.approx(sum(by_prompt) / 2)
    assert (row["n"], row["coverage"]) == (2, 0.75)


def test_p_values_are_adjusted_over_the_pairs_of_judges_within_a_metric(tmp_path: Path) -> None:
    store, count = Store(tmp_path), 6
    told = {"pairrm": 0.8, "llm": 0.6, "reward-model": 0.7}
    preferences = {name: [p**power for power in range(1, count + 1)] for name, p in told.items()}
    stages = [keep(store, name, p, range(count), [1.0] * count) for name, p in preferences.items()]
    rows = [row for row in judge_rows(plan_of(*stages), store) if row["against"] and row["metric"] == "log_loss"]
    assert {(row["judge"], row["against"]) for row in rows} == set(itertools.permutations(told, 2))
    losses = {name: -np.log(p) for name, p in preferences.items()}
    p_values = {
        (row["judge"], row["against"]): scipy.stats.ttest_1samp(losses[row["judge"]] - losses[row["against"]], 0).pvalue
        for row in rows
    }
    assert {(row["judge"], row["against"]): row["p_value"] for row in rows} == pytest.approx(p_values)
    smallest = min(p_values.values())
    assert min(row["p_adjusted"] for row in rows) == pytest.approx(3 * smallest)  # three tests, not the six rows
