"""Reading sweep directories: Parquet and CSV say the same, gaps are remembered, half-written files stop nothing."""

from pathlib import Path

import pandas as pd
import pytest
import reports_world as world

from reports.tables import POINTS_PER_LINE, arm_labels, grouped, is_control, read_sweep, read_sweeps, short


def test_parquet_and_csv_hold_the_same_rows(tmp_path: Path) -> None:
    parquet = read_sweep(world.language_sweep(tmp_path / "parquet"))
    csv = read_sweep(world.language_sweep(tmp_path / "csv", csv=True))
    assert parquet.results == csv.results
    assert parquet.comparisons == csv.comparisons
    assert parquet.dynamics == csv.dynamics
    assert csv.absent == ("samples",)


def test_missing_numbers_are_none_and_missing_texts_empty(tmp_path: Path) -> None:
    sweep = read_sweep(world.language_sweep(tmp_path))
    controls = [row for row in sweep.results if row["trainer"] == "sft"]
    assert {row["seed"] for row in controls} == {None}
    assert {row["judge"] for row in controls} == {""}
    assert all(is_control(row) for row in controls)
    assert any(row["value"] is None for row in sweep.results)
    assert {type(row["iteration"]) for row in sweep.results} == {int}


@pytest.mark.parametrize("name", ["null", "NA", "nan", "None", "1", "0.50"])
def test_a_name_that_looks_like_a_number_or_like_nothing_stays_a_name_in_csv(tmp_path: Path, name: str) -> None:
    cell = world.cells([name], ["panel"], [0])[0]
    rows = [world.result(cell, leaderboard="b", metric="m", grader="panel", value=0.5)]
    sweep = read_sweep(world.write(tmp_path, {"results": rows}, {}, csv=True))
    if name.replace(".", "").isdecimal():
        assert float(sweep.results[0]["trainer"]) == float(name)
    else:
        assert sweep.results[0]["trainer"] == name


def test_what_is_absent_is_named_and_what_is_broken_is_noted(tmp_path: Path) -> None:
    (tmp_path / "results.parquet").write_bytes(b"PAR1 half a file")
    (tmp_path / "cells.json").write_text("[{")
    (tmp_path / "metrics.json").write_text("[]")
    sweep = read_sweep(tmp_path)
    assert set(sweep.absent) == {"results", "comparisons", "dynamics", "samples", "config.yaml", "provenance.json"}
    assert [note.split()[0] for note in sweep.notes] == ["results.parquet", "metrics.json", "cells.json"]
    assert sweep.name == tmp_path.name


def test_a_broken_parquet_falls_back_to_its_csv(tmp_path: Path) -> None:
    directory = world.language_sweep(tmp_path, csv=True)
    (directory / "results.parquet").write_bytes(b"PAR1 half a file")
    assert len(read_sweep(directory).results) == len(pd.read_csv(directory / "results.csv"))


def test_a_table_without_some_columns_is_read_with_none_there(tmp_path: Path) -> None:
    sweep = read_sweep(world.write(tmp_path, {"results": [{"cell": "a", "metric": "m", "value": 0.25}]}, {}))
    assert sweep.results[0]["value"] == 0.25
    assert sweep.results[0]["coverage"] is None
    assert sweep.results[0]["grader"] == ""


def test_long_dynamics_are_thinned_to_rows_of_the_table_with_first_and_last_and_every_alarm(tmp_path: Path) -> None:
    base = {"sweep": "s", "cell": "c", "trainer": "dpo", "judge": "llm", "seed": 0, "iteration": 1, "phase": 1}
    rows = [{**base, "step": step, "metric": "loss", "value": 1 / (1 + step)} for step in range(5000)]
    rows += [{**base, "step": step, "metric": "alarm:collapse", "value": float(step % 37 == 5)} for step in range(5000)]
    kept = read_sweep(world.write(tmp_path, {"dynamics": rows}, {})).dynamics
    loss = [row for row in kept if row["metric"] == "loss"]
    assert len(loss) <= POINTS_PER_LINE + 1
    assert (loss[0]["step"], loss[-1]["step"]) == (0, 4999)
    assert all(row["value"] == 1 / (1 + row["step"]) for row in loss)
    assert sum(row["value"] == 1 for row in kept if row["metric"] == "alarm:collapse") == sum(
        s % 37 == 5 for s in range(5000)
    )


def test_short_dynamics_are_kept_whole(tmp_path: Path) -> None:
    rows = [{"cell": "c", "metric": "loss", "step": step, "value": 0.5} for step in range(POINTS_PER_LINE)]
    assert len(read_sweep(world.write(tmp_path, {"dynamics": rows}, {})).dynamics) == POINTS_PER_LINE


def test_arms_are_told_apart_by_the_options_in_which_they_differ() -> None:
    rows = [{"trainer": "ipo-md", "options": f'{{"mixture": {m}, "tau": 0.1}}'} for m in (0, 0.125)]
    rows += [{"trainer": "dpo", "options": '{"beta": 0.1}'}, {"trainer": "odd", "options": "not JSON"}]
    assert list(arm_labels(rows).values()) == ["ipo-md · mixture 0", "ipo-md · mixture 0.125", "dpo", "odd"]


def test_the_final_rows_are_those_of_each_cells_own_last_iteration(tmp_path: Path) -> None:
    first, second = world.cells(["onpo", "dpo"], ["panel"], [0])
    rows = [world.result(first, leaderboard="b", metric="m", grader="", value=0.1 * i, iteration=i) for i in (1, 2, 3)]
    rows += [world.result(second, leaderboard="b", metric="m", grader="", value=0.7, iteration=1)]
    final = read_sweep(world.write(tmp_path, {"results": rows}, {})).final
    assert [(row["cell"], row["iteration"]) for row in final] == [("onpo-panel-0", 3), ("dpo-panel-0", 1)]


def test_sweeps_of_one_name_are_told_apart(tmp_path: Path) -> None:
    paths = [
        world.language_sweep(tmp_path / str(number), trainers=["onpo"], judges=["llm"], broken=False)
        for number in range(3)
    ]
    assert [sweep.name for sweep in read_sweeps(paths)] == ["stories", "stories (2)", "stories (3)"]


def test_wrong_paths_are_refused_with_one_clear_message(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nowhere is no directory: give the directory"):
        read_sweep(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="at least one directory"):
        read_sweeps([])


def test_metrics_of_one_board_go_before_metrics_of_all(tmp_path: Path) -> None:
    sweep = read_sweep(world.language_sweep(tmp_path))
    assert sweep.meta("alpaca-eval", "win_rate")["unit"] == "percent"
    assert sweep.meta("head-to-head", "win_rate")["unit"] == "share"
    assert sweep.meta("head-to-head", "unheard_of") == {}


def test_small_helpers() -> None:
    assert short("models/stories260k/") == "stories260k"
    assert short("pocket") == "pocket"
    assert grouped([3, 1, 2, 5], lambda n: n % 2) == {1: [3, 1, 5], 0: [2]}
