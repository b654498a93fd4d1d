"""The shipped examples, run as a user runs them: the pocket quickstart, the games, the stories on a real model."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import Ended

from harness.matrix import RESPONSE_CONTROLS
from judges.kinds.panel import PanelJudge
from judges.tournament import cycle_rate

TRAINERS, JUDGES = ("onpo", "inpo", "ipo-md", "dpo", "slic"), ("reward-model", "pairrm", "llm")
PAIRWISE, ALL_BOARDS = {"alpaca-eval", "arena-hard"}, {"alpaca-eval", "arena-hard", "mt-bench", "lm-eval"}
ROOT = Path(__file__).resolve().parents[1]
STORIES = ROOT.parent / "shared" / "models" / "stories260k"
CYC3_GAP = 2 * (1 / 3 * (0.9 + 0.2 + 0.5) - 0.5)  # uniform play on the shipped cycle: row 1 gains most


def sweep(example: str, folder: Path, *more: str) -> tuple[str, float]:
    """Run a shipped example in a process of its own; what it says on stderr and how many seconds it took."""
    command = [sys.executable, "-m", "harness", "sweep", f"examples/{example}.yaml", *more]
    began = time.monotonic()
    ended = subprocess.run(
        [*command, "--out", str(folder / "out"), "--store", str(folder / "store")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    return ended.stderr, time.monotonic() - began


def final(folder: Path) -> pd.DataFrame:
    """The last win rates, by trainer's name without its options."""
    results = pd.read_parquet(folder / "out" / "results.parquet")
    rates = results[(results.metric == "win_rate") & (results.iteration.isin([0, results.iteration.max()]))]
    return rates.assign(trainer=rates.trainer.str.partition("(")[0]).set_index("trainer")


def test_the_quickstart_plans_five_trainers_under_three_judges_and_three_controls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nashbench: Callable[..., Ended]
) -> None:
    monkeypatch.chdir(ROOT)
    ended = nashbench("plan", "examples/quickstart.yaml", "--store", str(tmp_path), "--json")
    assert ended.code == 0, ended.err
    planned = json.loads(ended.out)
    assert len(planned["cells"]) == len(TRAINERS) * len(JUDGES) + len(("sft", *RESPONSE_CONTROLS))
    assert planned["totals"]["done"] == 0
    assert {"sample", "fit", "stream"} <= planned["kinds"].keys()


@pytest.mark.slow
def test_the_quickstart_rates_five_trainers_under_three_judges_on_four_boards_and_a_second_run_computes_nothing(
    tmp_path: Path,
) -> None:
    sweep("quickstart", tmp_path)
    cells = json.loads((tmp_path / "out" / "cells.json").read_text())
    assert {cell["state"] for cell in cells} == {"done"}
    trained = {(cell["trainer"].partition("(")[0], cell["judge"]) for cell in cells if cell["judge"]}
    assert trained == set(itertools.product(TRAINERS, JUDGES))
    assert [cell["trainer"] for cell in cells if not cell["judge"]] == ["sft", *RESPONSE_CONTROLS]
    assert len(cells) == len(trained) + 3 == 18
    check_boards(pd.read_parquet(tmp_path / "out" / "results.parquet"))
    check_movement(pd.read_parquet(tmp_path / "out" / "dynamics.parquet"))
    said, seconds = sweep("quickstart", tmp_path)
    assert "0 stages executed" in said
    assert seconds < 30


def check_movement(dynamics: pd.DataFrame) -> None:
    """No trainer stands still, in no iteration under no judge."""
    moved = dynamics[dynamics.metric == "movement"]
    cells = set(zip(moved.trainer.str.partition("(")[0], moved.judge, moved.iteration, strict=True))
    assert cells == set(itertools.product(TRAINERS, JUDGES, (1, 2, 3)))
    assert (moved.value > 0.01).all()
    assert (dynamics[dynamics.metric == "alarm:standstill"].value == 0).all()


def check_boards(results: pd.DataFrame) -> None:
    """Every policy has been on every board at the end, those that only reply on the pairwise ones."""
    last = results[results.iteration.isin([0, 3])]
    for (trainer, _), boards in last.groupby(["trainer", "judge"])["leaderboard"].agg(set).items():
        assert boards == (PAIRWISE if trainer in RESPONSE_CONTROLS else ALL_BOARDS), trainer
    assert set(results.loc[results.leaderboard != "lm-eval", "grader"]) == {"panel", "llm"}
    assert (last[last.metric != "length_controlled_winrate"].coverage > 0.9).all()
    win_rates = last[(last.leaderboard == "alpaca-eval") & (last.metric == "win_rate")]
    assert (win_rates.n >= 1500).all()
    assert (win_rates.ci_low <= win_rates.value).all()
    assert (win_rates.value <= win_rates.ci_high).all()
    own = win_rates[(win_rates.trainer == "sft") & (win_rates.grader == "panel")].iloc[0]
    assert own.ci_low < 50 < own.ci_high or abs(own.value - 50) < 2  # against other samples of itself


def test_the_games_example_starts_at_the_gap_of_uniform_play_and_onpo_closes_it(tmp_path: Path) -> None:
    sweep("duality-gap", tmp_path, "--set", "iterations=512")
    results = pd.read_parquet(tmp_path / "out" / "results.parquet")
    gaps = results[results.metric == "average_duality_gap"]
    start = gaps[gaps.iteration == 0].value
    np.testing.assert_allclose(start, CYC3_GAP, atol=1e-12)
    last = gaps[gaps.iteration == 512].set_index("trainer").value
    assert last["onpo(eta=0.5)"] < 0.01 < last["dpo(beta=1.0)"]


@pytest.fixture(scope="module")
def stories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not STORIES.is_dir():
        pytest.skip(f"no trained story model at {STORIES}")
    folder = tmp_path_factory.mktemp("stories")
    sweep("stories", folder, "--set", f"policy={STORIES}")
    return folder


@pytest.mark.slow
def test_stories_are_learnt_without_breaking_the_text(stories: Path) -> None:
    rates = final(stories).drop(index=["sft", *RESPONSE_CONTROLS])
    clearly = rates[rates.ci_low > 0.5]
    assert len(clearly) >= 2
    assert (rates.n >= 200).all()
    dynamics = pd.read_parquet(stories / "out" / "dynamics.parquet")
    dynamics = dynamics.assign(trainer=dynamics.trainer.str.partition("(")[0])
    answers = dynamics[dynamics.iteration.isin([0, 3])].set_index(["trainer", "metric"]).value
    for trainer in clearly.index:
        assert answers[trainer, "answers/start_nll"] <= answers["sft", "answers/start_nll"] + 0.4
        assert answers[trainer, "answers/distinct_2"] >= 0.75 * answers["sft", "answers/distinct_2"]


@pytest.mark.slow
def test_the_stories_panel_is_intransitive_on_the_samples_of_the_start(stories: Path) -> None:
    (prompts_file,) = (stories / "store").glob("prompts/*/*/prompts.parquet")
    manifests = [(f, json.loads(f.read_text())) for f in (stories / "store").glob("sample/*/*/manifest.json")]
    (start,) = (
        f.parent for f, manifest in manifests if "policy" not in manifest["identity"]["inputs"]
    )  # the untrained policy's
    responses = pd.read_parquet(start / "responses.parquet")
    prompts = pd.read_parquet(prompts_file).prompt
    judge = PanelJudge(ROOT / "examples" / "stories" / "panel.yaml")
    groups = [(prompts.iloc[row], frame.text.tolist()) for row, frame in responses.groupby("prompt")]

    def compare(index, a, b):
        return judge.compare([groups[int(i)][0] for i in index], a, b)

    rate = cycle_rate(compare, [texts for _, texts in groups], np.random.default_rng(0), triples=4000)
    assert rate >= 0.03
