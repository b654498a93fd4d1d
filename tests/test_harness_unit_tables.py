"""The tables from a store filled by hand, so that every number in them is known beforehand."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from harness.config import Config
from harness.matrix import Cell, Variant
from harness.planning.comparisons import comparison_stages
from harness.planning.plan import Plan, make_plan
from harness.planning.records import CellPlan, Rated
from harness.registry import make
from harness.stage import Stage
from harness.stages.compare import ComparedCell
from harness.stages.judge import TrainJudge
from harness.store.artifacts import Store
from harness.tables.tables import trained_losses, write_tables
from leaderboards import HeadToHead
from leaderboards.outcomes import outcome_metrics
from leaderboards.records import GradedItem, write_items
from reports import schema

WORK = {
    1: {"sample": (100, 0, 0), "pair": (0, 60, 0), "score": (0, 0, 0), "fit": (0, 0, 7)},
    2: {"sample": (90, 0, 0), "pair": (0, 50, 0), "score": (0, 0, 0), "fit": (0, 0, 5)},
}
"""Samples, queries and steps of the stages of each iteration."""
PAIR_COUNTS = ("pairs", "failed", "dropped", "ties", "empty")
SECONDS = 1.25
"""Of every stage."""


def config(**changes: Any) -> Config:
    """A sweep of the pocket world; its plan computes nothing."""
    return Config.model_validate(
        {
            "name": "byhand",
            "policy": "pocket",
            "matrix": {"trainer": [{"name": "omd", "eta": 0.5}], "judge": ["panel"]},
            "leaderboards": ["head-to-head"],
            "iterations": 2,
        }
        | changes
    )


CONFIG = config()


def planned(seeds: tuple[int, ...] = (0,), graders: tuple[str, ...] = ("panel",), **changes: Any) -> Plan:
    """The untrained policy's cell, graded by the first grader alone, and one trained cell a seed."""
    matrix = CONFIG.matrix.model_dump() | {"seed": seeds}
    made = config(**{"matrix": matrix, "graders": graders} | changes)
    control, *trained = (cell for cell in make_plan(made).cells if cell.cell.trainer.name in ("sft", "omd"))
    control.rated = [rated for rated in control.rated if rated.grader == graders[0]]
    return Plan(made, [control, *trained])


def keep(store: Store, stage: Stage, **facts: Any) -> None:
    with store.writing(stage) as (_, known):
        known.update(facts)


def keep_rated(store: Store, rated: Rated, value: float) -> None:
    """The score, and in each part of the questions one verdict: the curve's has a preference, the other failed."""
    with store.writing(rated.stage) as (folder, _):
        score = {"metric": "win_rate", "category": "", "value": value, "n": 3, "coverage": 1.0}
        (folder / "scores.json").write_text(json.dumps([score]))
    items = {"curve": GradedItem(id="p", response="a", preference=value), "rest": GradedItem(id="q", response="b")}
    for part, grade in rated.verdicts.items():
        with store.writing(grade) as (folder, known):
            known["figures"] = {"style:plain": value} if part == "curve" else {"style:plain": 0.999}
            write_items([items[part]], folder / "verdicts.parquet")


def keep_cell(store: Store, plan: CellPlan, upto: int = 2, *, counted: bool = True) -> None:
    """`counted`: the samples' tokens are."""
    for t, stages in plan.training.items():
        if t > upto:
            return
        for stage in stages[:-1]:
            work = dict(zip(("samples", "queries", "steps"), WORK[t][stage.kind], strict=True))
            counts = {
                "sample": {"truncated": t},
                "pair": {"pairs": 30, "failed": t, "dropped": 0, "ties": 4, "empty": 1},
            }
            work |= {"tokens": 7 * t * work["samples"]} if counted else {}
            keep(store, stage, work=work, seconds=SECONDS, **counts.get(stage.kind, {}))
        with store.writing(stages[-1]) as (folder, known):
            known.update(work={"steps": WORK[t]["fit"][2]}, seconds=SECONDS)
            losses = pd.DataFrame({"loss": [1.0 / t, 0.5 / t], "margin": [0.0, float(t)]})
            losses.to_parquet(folder / "dynamics.parquet", index=False)
        for (_, iteration, part), answer in plan.answers.items():
            if iteration == t:
                keep(store, answer, figures={"words": 10.0 * t if part == "curve" else 0.125})
        for number, rated in enumerate(r for r in plan.rated if r.iteration == t):
            keep_rated(store, rated, 0.5 + t / 10 + number / 100)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


# --- results and dynamics ----------------------------------------------------------------------------------------


def test_a_score_costs_the_work_of_all_iterations_up_to_its_own(store: Store, out: Path) -> None:
    plan = planned()
    keep_cell(store, plan.cells[1])
    tables = write_tables(plan, store, out)
    results, timings = (tables[name].set_index("iteration") for name in ("results", "timings"))
    for t in WORK:
        sums = [sum(w[i] for s in range(1, t + 1) for w in WORK[s].values()) for i in range(3)]
        assert results.loc[t, ["samples", "queries", "steps"]].tolist() == sums
        assert results.loc[t, "tokens"] == {1: 7 * 100, 2: 7 * 100 + 14 * 90}[t]
        assert timings.loc[t, "seconds"] == SECONDS * len(WORK[t]) * t
    assert results["value"].to_dict() == pytest.approx({1: 0.6, 2: 0.7})
    assert set(results["options"].map(json.loads).map(lambda o: o["eta"])) == {0.5}
    assert results["trainer"].unique().tolist() == ["omd(eta=0.5)"]


def test_tokens_that_nobody_counted_are_missing_and_not_zero(store: Store, out: Path) -> None:
    plan = planned()
    keep_cell(store, plan.cells[1], counted=False)
    keep_rated(store, plan.cells[0].rated[0], 0.5)
    results = write_tables(plan, store, out)["results"].set_index(["cell", "iteration"])
    assert results["tokens"].isna().tolist() == [cell != "pocket~sft" for cell, _ in results.index]
    assert results["samples"].notna().all()


def test_a_control_costs_nothing_and_has_neither_judge_nor_seed(store: Store, out: Path) -> None:
    plan = planned()
    keep_rated(store, plan.cells[0].rated[0], 0.5)
    (row,) = write_tables(plan, store, out)["results"].to_dict("records")
    assert (row["cell"], row["judge"], row["options"]) == ("pocket~sft", "", "{}")
    assert pd.isna(row["seed"])
    assert [row[name] for name in ("samples", "queries", "steps", "iteration")] == [0, 0, 0, 0]


def test_a_game_costs_as_many_steps_as_iterations_so_far(store: Store, out: Path) -> None:
    game = Config.model_validate(
        {
            "name": "g",
            "policy": {"game": "cyc3"},
            "matrix": {"trainer": ["omd"], "judge": ["game"]},
            "leaderboards": ["duality-gap"],
            "iterations": 10,
        }
    )
    plan = make_plan(game)
    (omd,) = [cell for cell in plan.cells if cell.algorithm]
    shown = [0, 1, 4, 10]
    with store.writing(omd.rated[0].stage) as (folder, _):
        scores = [{"metric": "duality_gap", "value": 1 / (t + 1), "n": 1, "iteration": t} for t in shown]
        (folder / "scores.json").write_text(json.dumps(scores))
    tables = write_tables(plan, store, out)
    results = tables["results"]
    assert results["iteration"].tolist() == results["steps"].tolist() == shown
    assert set(results["samples"]) == set(results["queries"]) == set(results["tokens"]) == {0}
    assert tables["timings"].empty  # all iterations are one stage


def test_dynamics_number_every_step_from_one_and_count_what_was_lost(store: Store, out: Path) -> None:
    plan = planned()
    keep_cell(store, plan.cells[1])
    dynamics = write_tables(plan, store, out)["dynamics"]
    value = dynamics.set_index(["iteration", "phase", "step", "metric"])["value"]
    for t in (1, 2):
        assert [value[t, 1, step, "loss"] for step in (1, 2)] == [1.0 / t, 0.5 / t]
        assert [value[t, 1, step, "margin"] for step in (1, 2)] == [0.0, t]
        assert [value[t, 0, 0, f"pair/{m}"] for m in PAIR_COUNTS] == [30, t, 0, 4, 1]
        assert value[t, 0, 0, "sample/truncated"] == t
        assert value[t, 0, 0, "answers/words"] == 10.0 * t  # of the curve's questions, which every iteration has
        assert value[t, 0, 0, "style:plain"] == pytest.approx(0.5 + t / 10)
    assert (~dynamics["metric"].str.startswith("alarm:")).sum() == 2 * (2 * 2 + 5 + 1 + 1 + 1)


def test_style_shares_are_there_whatever_the_boards_options(store: Store, out: Path) -> None:
    plan = planned(leaderboards=[{"name": "head-to-head", "limit": 300}])
    keep_cell(store, plan.cells[1])
    dynamics = write_tables(plan, store, out)["dynamics"]
    shares = dynamics[dynamics["metric"] == "style:plain"].set_index("iteration")["value"]
    assert shares.to_dict() == pytest.approx({1: 0.6, 2: 0.7})


def test_of_a_half_finished_cell_the_tables_have_what_is_there(store: Store, out: Path) -> None:
    plan = planned()
    keep_cell(store, plan.cells[1], upto=1)
    tables = write_tables(plan, store, out)
    assert tables["results"]["iteration"].tolist() == [1]
    assert set(tables["dynamics"]["iteration"]) == {1}
    assert pd.read_parquet(out / "samples" / "pocket~omd(eta=0.5)~panel~s0.parquet")["iteration"].unique() == [1]
    assert [f.name for f in (out / "samples").iterdir()] == ["pocket~omd(eta=0.5)~panel~s0.parquet"]


def test_tables_of_an_empty_store_have_all_their_columns_and_no_row(store: Store, out: Path) -> None:
    tables = write_tables(planned(), store, out)
    expected = {name: schema.names(name) for name in schema.TABLES if name != "samples"}
    assert set(tables) == set(expected)
    for name, columns in expected.items():
        assert tables[name].empty
        assert list(tables[name].columns) == columns
        assert pd.read_csv(out / f"{name}.csv").columns.tolist() == columns
        assert list(pd.read_parquet(out / f"{name}.parquet").columns) == columns


def test_csv_and_parquet_say_the_same(store: Store, out: Path) -> None:
    plan = planned()
    keep_rated(store, plan.cells[0].rated[0], 0.5)
    keep_cell(store, plan.cells[1])
    write_tables(plan, store, out)
    for name in ("results", "dynamics"):
        one, other = pd.read_parquet(out / f"{name}.parquet"), pd.read_csv(out / f"{name}.csv")
        assert len(one) == len(other) > 0
        assert one["value"].tolist() == pytest.approx(other["value"].tolist())
        assert one["seed"].isna().tolist() == other["seed"].isna().tolist()


# --- samples, metrics --------------------------------------------------------------------------------------------


def test_samples_are_the_last_iterations_with_every_graders_verdict(store: Store, out: Path) -> None:
    plan = planned(graders=("panel", "llm"))
    keep_cell(store, plan.cells[1])
    write_tables(plan, store, out)
    samples = pd.read_parquet(out / "samples" / f"{plan.cells[1].cell.id}.parquet")
    assert samples["prompt_id"].tolist() == ["p", "q", "p", "q"]
    assert samples["grader"].tolist() == ["panel", "panel", "llm", "llm"]
    assert set(samples["iteration"]) == {2}
    assert samples["preference"].tolist()[::2] == pytest.approx([0.7, 0.71])
    assert all(math.isnan(p) for p in samples["preference"].tolist()[1::2])


def test_metrics_are_keyed_by_leaderboard_and_metric_and_listed_once_whatever_the_options(
    store: Store, out: Path
) -> None:
    boards = [{"name": "head-to-head", "limit": [8, 16]}, "duality-gap"]
    write_tables(Plan(config(leaderboards=boards), []), store, out)
    metrics = json.loads((out / "metrics.json").read_text())
    expected = {f"{n}/{m}" for n in ("head-to-head", "duality-gap") for m in make("leaderboards", n, {}).metrics}
    expected |= {f"head-to-head/{name}" for name in outcome_metrics(HeadToHead)}
    assert set(metrics) == expected
    assert metrics["head-to-head/win_rate"]["null_value"] == 0.5
    assert metrics["duality-gap/duality_gap"]["better"] == "lower"


def test_metrics_of_judges_are_described_where_the_sweep_trains_some(store: Store, out: Path) -> None:
    write_tables(planned(), store, out)
    assert not any(name.startswith("judges/") for name in json.loads((out / "metrics.json").read_text()))
    plan = planned(graders=("panel", "llm"))
    assert any(isinstance(stage, TrainJudge) for stage in plan.stages)
    write_tables(plan, store, out)
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["judges/log_loss"]["better"] == "lower"
    assert metrics["judges/accuracy"]["better"] == "higher"


# --- losses of the provenance ------------------------------------------------------------------------------------


def losses_of(*variants: Variant) -> dict[str, Any]:
    cells = [CellPlan(Cell("p", v, Variant("panel", {}), 0), make("trainers", v.name, v.options)) for v in variants]
    control = CellPlan(Cell("p", Variant("sft", {}), None, None), None)
    return trained_losses(Plan(CONFIG, [control, *cells]))


@pytest.mark.parametrize(
    ("name", "options", "target"),
    [
        ("omd", {"eta": 0.5}, 0.25),
        ("onpo", {"eta": 30.0}, 15.0),
        ("sppo", {"eta": 8.0}, 4.0),
        ("ipo", {"tau": 0.25}, 2.0),
        ("inpo", {"eta": 0.01}, 50.0),
        ("dpo", {}, None),
    ],
)
def test_a_loss_is_recorded_with_the_target_of_its_options(
    name: str, options: dict[str, Any], target: float | None
) -> None:
    variant = Variant(name, options)
    found = losses_of(variant)
    assert list(found) == [variant.label]  # and not the control
    assert found[variant.label]["target_nats"] == (target if target is None else pytest.approx(target))
    assert options.items() <= found[variant.label]["conventions"]["options"].items()
    assert json.loads(json.dumps(found)) == found


def test_every_variant_has_its_own_entry_and_seeds_share_one() -> None:
    found = losses_of(*(Variant("omd", {"eta": e}) for e in (0.2, 0.4, 0.4)))
    assert {label: loss["target_nats"] for label, loss in found.items()} == pytest.approx(
        {"omd(eta=0.2)": 0.1, "omd(eta=0.4)": 0.2}
    )


# --- which grades are compared -----------------------------------------------------------------------------------


def test_the_last_grades_of_all_cells_are_compared_board_by_board_and_grader_by_grader() -> None:
    plan = planned((0, 1), ("panel", "llm"))
    cells = plan.cells[1:]
    by_panel, by_llm = comparison_stages(plan, lambda stage: True)
    assert list(by_panel.verdicts) == ["pocket~sft", *(c.cell.id for c in cells)]
    assert list(by_llm.verdicts) == [c.cell.id for c in cells]
    last = {
        f"verdicts.{c.cell.id}.{part}": grade
        for c in cells
        for rated in c.rated
        if (rated.iteration, rated.grader) == (2, "llm")
        for part, grade in rated.verdicts.items()
    }
    assert {name: source for name, source in by_llm.inputs.items() if name != "board.source"} == last
    assert {name.rpartition(".")[2] for name in last} == {"curve", "rest"}
    assert by_panel.cells == (
        ComparedCell("pocket~sft", "pocket~sft", "pocket", "sft", "", None, "pocket"),
        ComparedCell(cells[0].cell.id, "pocket~omd(eta=0.5)~panel", "pocket", "omd", "panel", 0, "pocket"),
        ComparedCell(cells[1].cell.id, "pocket~omd(eta=0.5)~panel", "pocket", "omd", "panel", 1, "pocket"),
    )


def test_a_grade_that_is_not_there_is_left_out_and_one_alone_is_compared_with_nothing() -> None:
    plan = planned((0, 1, 2))
    cells = plan.cells[1:]
    plan = Plan(plan.config, cells)
    gone = cells[1].rated[-1].stage.key
    (stage,) = comparison_stages(plan, lambda s: s.key != gone)
    assert list(stage.verdicts) == [cells[0].cell.id, cells[2].cell.id]
    assert comparison_stages(plan, lambda s: s.key == gone) == []
    (whole,) = comparison_stages(plan, lambda s: True)
    assert whole.key != stage.key
