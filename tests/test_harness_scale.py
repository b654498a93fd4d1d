"""What a large sweep costs when nothing is to be done: measured, so it runs alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from conftest import Ended
from filled_store import fill

from harness.config import load_config
from harness.planning.plan import make_plan
from harness.store.artifacts import Store


def write_config(folder: Path, seeds: int) -> Path:
    config = {
        "name": "large",
        "policy": "pocket",
        "matrix": {
            "trainer": [{"name": "dpo", "beta": [0.1, 0.2, 0.5]}, {"name": "inpo"}, {"name": "ipo-md"}],
            "judge": ["panel", "reward-model"],
            "seed": list(range(seeds)),
        },
        "graders": ["panel", "reward-model"],
        "leaderboards": ["alpaca-eval", "head-to-head"],
    }
    path = folder / "large.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.mark.slow
def test_ten_thousand_cached_stages_are_planned_and_passed_over_in_seconds(
    tmp_path: Path, nashbench: Callable[..., Ended]
) -> None:
    config, store = write_config(tmp_path, seeds=23), tmp_path / "store"
    plan = make_plan(load_config(config))
    stages = fill(plan, Store(store))
    assert len(stages) > 10_000
    arguments = [str(config), "--out", str(tmp_path / "out"), "--store", str(store)]
    assert nashbench("sweep", *arguments).code == 0
    started = time.perf_counter()
    again = nashbench("sweep", *arguments)
    swept = time.perf_counter() - started
    assert again.code == 0
    assert "0 stages executed" in again.err
    started = time.perf_counter()
    assert nashbench("plan", str(config), "--store", str(store)).code == 0
    planned = time.perf_counter() - started
    print(f"{len(plan.cells)} cells, {len(stages)} stages: sweep {swept:.1f} s, plan {planned:.1f} s")
    assert swept < 20
    assert planned < 5
