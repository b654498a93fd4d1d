"""Costs beside the trainers, scores against cost and at equal cost: on tables small enough to check by hand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import reports_world as world

import reports
from reports.sections.cost import COSTS, charts, cost, trained
from reports.sections.training import pairs
from reports.tables import Sweep, read_sweep

PER_ITERATION = {"dpo": (100, 10), "onpo": (100, 20), "ipo-md": (30, 12)}
"""Queries and steps of an iteration."""
BOARD = {"leaderboard": "head-to-head", "metric": "win_rate", "grader": "panel"}


def row(cell: dict[str, Any], iteration: int, value: float, **more: Any) -> dict[str, Any]:
    queries, steps = (iteration * amount for amount in PER_ITERATION.get(cell["trainer"], (0, 0)))
    work = {"samples": 8 * queries, "queries": queries, "steps": steps, "tokens": 90 * queries, "seconds": 1.5 * steps}
    ends = {"ci_low": value - 0.1, "ci_high": value + 0.1, "n": 40 if iteration < 3 else 200}
    return world.result(cell, iteration=iteration, value=value, **BOARD, **ends, **{**work, **more})


def swept(folder: Path, rows: list[dict[str, Any]] | None = None, dynamics: Any = (), **more: Any) -> Sweep:
    matrix = world.cells(PER_ITERATION, ["panel"], [0])
    made = [row(cell, t, round(0.5 + t / 10 + n / 100, 2)) for n, cell in enumerate(matrix) for t in (1, 2, 3)]
    tables = {"results": made if rows is None else rows, **({"dynamics": list(dynamics)} if dynamics else {})}
    return read_sweep(world.write(folder, tables, {**world.documents(matrix), **more}))


def readings(sweep: Sweep) -> dict[str, dict[str, tuple[float | None, float | None]]]:
    (table,) = cost([sweep])["matched"]["tables"]
    return {
        line["row"]["trainer"]: {
            name: (read["iteration"].value, read["value"].value) for name, read in line["read"].items()
        }
        for line in table["lines"]
    }


def test_at_equal_cost_each_policy_is_read_at_its_last_iteration_within_the_smallest_total(tmp_path: Path) -> None:
    """90 queries are ipo-md's: not one iteration of the others; 30 steps are dpo's, 1.5 of onpo's, 2.5 of ipo-md's."""
    sweep = swept(tmp_path)
    assert {(b["cost"], b["total"].value, b["who"]) for b in cost([sweep])["budgets"]} == {
        ("queries", 90, "ipo-md · panel"),
        ("steps", 30, "dpo · panel"),
    }
    read = readings(sweep)
    assert {name: of[""] for name, of in read.items()} == {"dpo": (3, 0.8), "onpo": (3, 0.81), "ipo-md": (3, 0.82)}
    assert {name: of["queries"] for name, of in read.items()} == {
        "dpo": (None, None),
        "onpo": (None, None),
        "ipo-md": (3, 0.82),
    }
    assert {name: of["steps"][0] for name, of in read.items()} == {"dpo": 3, "onpo": 1, "ipo-md": 2}
    assert {name: of["steps"][1] for name, of in read.items()} == {"dpo": 0.8, "onpo": 0.61, "ipo-md": 0.72}


def test_random_sweeps_are_read_at_equal_cost_as_pandas_reads_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    for number in range(25):
        matrix = world.cells(PER_ITERATION, ["panel", "llm"], [0, 1])
        rows = []
        for cell in matrix:
            spent = rng.integers(5, 60, size=(3, 2)).cumsum(axis=0)
            for t in sorted({3, *rng.choice([1, 2, 3], size=2).tolist()}):
                queries, steps = map(int, spent[t - 1])
                value = float("nan") if t < 3 and rng.random() < 0.2 else float(rng.random())
                rows.append(row(cell, t, value, queries=queries, steps=steps))
        folder = tmp_path / str(number)
        sweep = swept(folder, rows, **{"cells.json": matrix})
        frame = pd.read_parquet(folder / "results.parquet")
        matched = cost([sweep])["matched"]
        for name in ("queries", "steps"):
            smallest = frame[frame.iteration == 3][name].min()
            within = frame[(frame[name] <= smallest) & frame.value.notna()].sort_values("iteration")
            expected = within.groupby("cell").last()[["iteration", "value"]].T.to_dict("list")
            found = {
                line["row"]["cell"]: [line["read"][name][key].value for key in ("iteration", "value")]
                for table in matched["tables"]
                for line in table["lines"]
                if line["read"][name]["value"].value is not None
            }
            assert found == expected


def test_a_policy_that_stopped_early_sets_no_total(tmp_path: Path) -> None:
    matrix = world.cells(PER_ITERATION, ["panel"], [0])
    rows = [row(cell, t, 0.5) for cell in matrix for t in (1, 2, 3) if cell["trainer"] != "dpo" or t == 1]
    budgets = {b["cost"]: b["total"].value for b in cost([swept(tmp_path, rows)])["budgets"]}
    assert budgets == {"queries": 90, "steps": 36}


def test_equal_totals_are_told_and_not_tabled(tmp_path: Path) -> None:
    matrix = world.cells(["dpo", "inpo"], ["panel"], [0])
    rows = [row(cell, t, 0.5 + t / 10, queries=7 * t, steps=4 * t) for cell in matrix for t in (1, 2)]
    found = cost([swept(tmp_path, rows, **{"cells.json": matrix})])
    assert found["matched"]["tables"] == []
    assert [(b["differ"], b["total"].value) for b in found["budgets"]] == [(False, 14), (False, 8)]
    text = reports.build([tmp_path], tmp_path / "out").with_name("cost.html").read_text()
    assert re.search(r"All\s+had <span[^>]*>14</span> judge queries\. All\s+had <span[^>]*>8</span> optimiser", text)


def test_charts_have_each_cost_as_their_axis_and_leave_out_what_nobody_counted(tmp_path: Path) -> None:
    sweep = swept(tmp_path / "all")
    made = {of["cost"]: of["facets"][0]["panels"][0] for of in charts([sweep])}
    assert list(made) == list(COSTS)
    for name, panel in made.items():
        along = {line["name"]: [point[0] for point in line["points"]] for line in panel["lines"]}
        of_table = {t: [r[name] for r in sweep.results if r["trainer"] == t] for t in PER_ITERATION}
        assert along == of_table
    older = [{**r, "tokens": None, "seconds": None} for r in sweep.results]
    assert [of["cost"] for of in charts([swept(tmp_path / "older", older)])] == ["samples", "queries", "steps"]


def test_boards_scored_at_the_end_alone_are_named(tmp_path: Path) -> None:
    matrix = world.cells(PER_ITERATION, ["panel"], [0])
    rows = [row(cell, t, 0.5 + t / 10) for cell in matrix for t in (1, 2, 3)]
    rows += [{**r, "leaderboard": "mt-bench", "metric": "score"} for r in rows if r["iteration"] == 3]
    assert cost([swept(tmp_path, rows)])["matched"]["without"] == ["mt-bench"]


def test_beside_every_trainer_stand_its_last_movement_slope_shares_and_costs(tmp_path: Path) -> None:
    matrix = world.cells(PER_ITERATION, ["panel"], [0])
    rows = [row(cell, 3, 0.6) for cell in matrix]
    shares = {
        ("head-to-head", "empty_share"): 0.02,
        ("mt-bench", "empty_share"): 0.0,
        ("mt-bench", "unfinished_share"): 0.25,
    }
    for (board, metric), value in shares.items():
        rows += [{**row(cell, 3, value), "leaderboard": board, "metric": metric} for cell in matrix]
    dynamics = [
        {"cell": "onpo-panel-0", "trainer": "onpo", "judge": "panel", "seed": 0, "step": 0, "metric": metric}
        | {"iteration": t, "phase": phase, "value": t + phase / 10 + (metric == "movement")}
        for metric in ("movement", "target_slope")
        for t in (3, 1, 2)
        for phase in (2, 1)
    ]
    found = {line["row"]["trainer"]: line for line in trained([swept(tmp_path, rows, dynamics)])}
    onpo = found["onpo"]
    assert (onpo["movement"].value, onpo["target_slope"].value) == (4.2, 3.2)  # of the last phase of the last iteration
    assert found["dpo"]["movement"].value is None
    assert [[f.value for f in share] for share in onpo["shares"]] == [[0, 0.02], [0.25]]
    assert {name: f.value for name, f in onpo["costs"].items()} == {
        "samples": 2400,
        "queries": 300,
        "steps": 60,
        "tokens": 27000,
        "seconds": 90,
    }
    page = reports.build([tmp_path], tmp_path / "out").read_text()
    assert 'id="trained-table"' in page
    assert page.count('title="onpo-panel-0"') >= 2


def test_an_exact_game_has_no_cost(tmp_path: Path) -> None:
    sweep = read_sweep(world.game_sweep(tmp_path / "game"))
    assert cost([sweep]) == {"charts": [], "budgets": [], "matched": {"costs": {}, "tables": [], "without": []}}
    assert trained([sweep]) == []
    assert "cost.html" not in reports.build([tmp_path / "game"], tmp_path / "out").read_text()


def test_the_pairs_that_were_left_out_stand_with_their_reason_and_uneven_steps_are_told(tmp_path: Path) -> None:
    """13 and 24 steps of one trainer under two judges, as a tournament's rule leaves them."""
    matrix = world.cells(["dpo"], ["panel", "llm"], [0])
    steps = {"panel": 24, "llm": 13}
    rows = [row(cell, 3, 0.6, steps=steps[cell["judge"]]) for cell in matrix]
    counts = {"panel": (256, 0, 0, 3, 1), "llm": (140, 2, 114, 0, 0)}
    names = ("pairs", "failed", "dropped", "ties", "empty")
    dynamics = [
        {"cell": cell["cell"], "trainer": "dpo", "judge": cell["judge"], "seed": 0, "phase": 0, "step": 0}
        | {"iteration": t, "metric": f"pair/{name}", "value": value + (name == "pairs") * t}
        for cell in matrix
        for t in (1, 2, 3)
        for name, value in zip(names, counts[cell["judge"]], strict=True)
    ]
    found = pairs([swept(tmp_path, rows, dynamics, **{"cells.json": matrix})])
    shown = {r["row"]["judge"]: [[f.value for f in count] for count in r["counts"]] for r in found["rows"]}
    assert shown == {"panel": [[257, 259], [0], [0], [3], [1]], "llm": [[141, 143], [2], [114], [0], [0]]}
    (uneven,) = found["uneven"]
    assert [(f.value, under) for f, under in uneven["ends"]] == [(13, "llm"), (24, "panel")]
    text = reports.build([tmp_path], tmp_path / "out").with_name("training.html").read_text()
    assert "training.steps_per_iteration" in text
    assert "winner lost at last" in text
