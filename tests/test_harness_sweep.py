"""Whole sweeps on a tiny language model and on games, in this process: what they leave, share, resume and repeat."""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
from conftest import PANEL, Ended, Workspace
from safetensors.torch import load_file

from harness import registry
from harness.config import load_config
from harness.errors import UserError
from harness.planning.plan import CellPlan, Plan, make_plan
from harness.stage import Facts, Stage
from harness.stages.context import Context
from harness.stages.fit import Fit
from harness.store.artifacts import Store
from judges.judge import Judge, Question
from judges.verdicts import Answer

Command = Callable[..., Ended]
PANEL_ENTRY = {"name": "panel", "panel": "panel.yaml"}
GAME: dict[str, Any] = {
    "policy": {"game": "cyc3"},
    "prompts": None,
    "matrix": {"trainer": ["omd", "onpo"], "judge": ["game"]},
    "leaderboards": ["duality-gap"],
    "iterations": 20,
}


def plan_of(workspace: Workspace, *settings: str, **changes: Any) -> Plan:
    return make_plan(load_config(workspace.config(**changes), settings))


def cell(plan: Plan, start: str) -> CellPlan:
    (found,) = (c for c in plan.cells if f"~{start}" in c.cell.id)
    return found


def keys(found: Sequence[Stage], kind: str) -> list[str]:
    return [stage.key for stage in found if stage.kind == kind]


@dataclass(eq=False)
class CountingJudge(Judge):
    """Prefers the longer text; remembers every question of this process; fails on prompts that hold `fails`.

    While `down` is text, questions on prompts that hold it run into a timeout.
    """

    fails: str = "\0"
    asked: ClassVar[list[Question]] = []
    down: ClassVar[str] = ""

    def answer(self, questions: Sequence[Question], advance: Callable[[int], None]) -> list[Answer]:
        self.asked.extend(questions)
        advance(len(questions))
        return [self._one(question) for question in questions]

    def _one(self, question: Question) -> Answer:
        if self.fails in str(question.prompt):
            return Answer(math.nan)
        if self.down and self.down in str(question.prompt):
            return Answer.failure("timeout")
        return Answer(1 / (1 + math.exp(len(question.second) - len(question.first))))


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> type[CountingJudge]:
    """Registers `counting` as a judge."""
    original = registry.load
    monkeypatch.setattr(
        registry, "load", lambda kind, name: CountingJudge if name == "counting" else original(kind, name)
    )
    CountingJudge.asked.clear()
    return CountingJudge


# --- what is shared ----------------------------------------------------------------------------------------------


def test_refit_trainers_under_one_judge_share_the_first_sample_and_its_pairs_and_nothing_trained(
    workspace: Workspace,
) -> None:
    plan = plan_of(workspace, matrix={"trainer": ["dpo", "inpo", "onpo"], "judge": [PANEL_ENTRY]}, iterations=2)
    trained = [cell(plan, name) for name in ("dpo", "inpo", "onpo")]
    for kind in ("sample", "pair"):
        firsts = {keys(c.training[1], kind)[0] for c in trained}
        seconds = {keys(c.training[2], kind)[0] for c in trained}
        assert (len(firsts), len(seconds)) == (1, 3)
    assert len({key for c in trained for key in keys(c.training[1], "fit")}) == 4  # onpo fits twice
    scores = {key for c in trained for key in keys(c.training[1], "score")}
    assert len(scores) == 2  # the untrained policy's, once for all; and onpo's auxiliary's


def test_judges_share_samples_but_not_pairs_and_seeds_share_neither(workspace: Workspace) -> None:
    workspace.write("other.yaml", PANEL.replace("scale: 4", "scale: 5"))
    judges = [PANEL_ENTRY, {"name": "panel", "panel": "other.yaml"}]
    plan = plan_of(workspace, matrix={"trainer": ["dpo"], "judge": judges, "seed": [0, 1]})
    cells = [c for c in plan.cells if c.algorithm]
    assert len(cells) == 4
    assert len({keys(c.stages, "sample")[0] for c in cells}) == 2
    assert len({keys(c.stages, "pair")[0] for c in cells}) == 4


def test_judges_that_differ_in_a_file_only_have_names_of_their_own(workspace: Workspace) -> None:
    workspace.write("other.yaml", PANEL.replace("scale: 4", "scale: 5"))
    judges = [{"name": "panel", "panel": ["panel.yaml", "other.yaml"]}]
    plan = plan_of(workspace, matrix={"trainer": ["dpo"], "judge": judges})
    assert {c.cell.judge_label for c in plan.cells} == {"", "panel", "panel(panel=other)"}


def test_a_grader_never_takes_the_place_of_a_training_judge_of_the_same_name(workspace: Workspace) -> None:
    (workspace.folder / "more").mkdir()
    workspace.write("more/panel.yaml", PANEL.replace("scale: 4", "scale: 5"))
    with pytest.raises(ValueError, match="two different judges are both called 'panel'"):
        plan_of(workspace, graders=[{"name": "panel", "panel": "more/panel.yaml"}])


@pytest.mark.parametrize(
    ("setting", "kinds"),
    [
        ("training.lr=0.5", {"fit"}),
        ("training.epochs=2", {"fit"}),
        ("sampling.temperature=0.5", {"sample", "answer"}),
        ("sampling.max_tokens=5", {"prompts", "sample", "answer"}),
        ("prompts_per_iteration=3", {"sample"}),
        ("pairs.label=sampled", {"pair"}),
        ("pairs.orders=both", {"pair"}),
        ("matrix.seed=[1]", {"sample", "fit"}),
        ("matrix.trainer=[{name: dpo, beta: 0.5}]", {"fit"}),
    ],
)
def test_a_changed_option_changes_the_keys_of_the_stages_it_concerns_and_of_all_that_follow(
    workspace: Workspace, setting: str, kinds: set[str]
) -> None:
    def at(*settings: str) -> dict[str, str]:
        plan = plan_of(workspace, *settings)
        trained = cell(plan, "dpo")
        return {stage.kind: stage.key for stage in (*trained.training[1], *plan.checks, *trained.answers.values())}

    before, after = at(), at(setting)
    changed = {kind for kind in before if before[kind] != after[kind]}
    follows = {"prompts": {"sample"}, "sample": {"pair"}, "pair": {"score"}, "score": {"fit"}, "fit": {"answer"}}
    expected = set(kinds)
    for kind in ("prompts", "sample", "pair", "score", "fit"):
        expected |= follows[kind] if kind in expected else set()
    assert changed == expected


def test_keys_follow_the_content_of_files_not_their_place(workspace: Workspace) -> None:
    def all_keys(**changes: Any) -> list[str]:
        return [stage.key for stage in plan_of(workspace, **changes).stages]

    before = all_keys()
    workspace.write("same.yaml", PANEL)
    moved = {"trainer": ["dpo"], "judge": [{"name": "panel", "panel": "same.yaml"}]}
    assert all_keys(matrix=moved) == before
    workspace.write("panel.yaml", PANEL.replace("scale: 4", "scale: 5"))
    assert all_keys() != before
    workspace.write("panel.yaml", PANEL)
    assert all_keys() == before
    with (workspace.folder / "prompts.jsonl").open("a") as file:
        file.write('{"prompt": "it sleeps"}\n')
    assert not set(all_keys()) & set(before)


def test_a_stage_of_hundreds_of_iterations_can_be_sent_to_a_worker(workspace: Workspace) -> None:
    plan = plan_of(workspace, matrix={"trainer": ["onpo"], "judge": [PANEL_ENTRY]}, iterations=300)
    last = cell(plan, "onpo").stages[-1]
    sent = pickle.dumps(last)
    assert len(sent) < 10_000
    arrived = pickle.loads(sent)
    assert arrived.key == last.key
    assert {n: (s.kind, s.key) for n, s in arrived.inputs.items()} == {
        n: (s.kind, s.key) for n, s in last.inputs.items()
    }


# --- what a sweep leaves -----------------------------------------------------------------------------------------


@pytest.fixture
def two_trainers(workspace: Workspace) -> Path:
    """A refit and a stream trainer, two iterations."""
    return workspace.config(
        matrix={"trainer": ["dpo", "ipo-md"], "judge": [PANEL_ENTRY]},
        iterations=2,
        training={"lr": 0.001, "batch_size": 4, "precision": "fp32", "max_length": 40, "steps_per_iteration": 2},
    )


def refuse(*arguments: Any) -> Any:
    raise AssertionError("no stage may be computed")


@pytest.mark.usefixtures("inline")
def test_two_sweeps_in_two_empty_stores_give_the_same_bytes_and_a_third_computes_nothing(
    workspace: Workspace, nashbench: Command, two_trainers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outs = [workspace.folder / name for name in ("a", "b", "c")]
    for out, store in zip(outs[:2], ("store-a", "store-b"), strict=True):
        ended = nashbench(*workspace.arguments(two_trainers, out=out, store=workspace.folder / store))
        assert ended.code == 0, ended.err
    monkeypatch.setattr(Store, "writing", refuse)
    again = nashbench(*workspace.arguments(two_trainers, out=outs[2], store=workspace.folder / "store-a"))
    assert (again.code, "0 stages executed" in again.err) == (0, True)
    for table in ("results.csv", "dynamics.csv"):
        contents = {(out / table).read_bytes() for out in outs}
        assert len(contents) == 1
    results = pd.read_csv(outs[0] / "results.csv")
    assert set(results["trainer"]) == {"sft", "constant", "longest", "dpo", "ipo-md"}
    rates = results[results["metric"] == "win_rate"]
    assert rates["value"].between(0, 1).all()
    rates = rates[rates["n"] > 1]  # one verdict has no interval
    assert (rates["ci_low"] <= rates["value"]).all()
    assert (rates["value"] <= rates["ci_high"]).all()
    check_costs(results)
    check_folder(outs[0])
    check_stream_states(workspace.folder / "store-a")


def check_costs(results: pd.DataFrame) -> None:
    """Samples: prompts x k (refit), steps x batch x 2 (stream), added up over iterations; a control costs nothing."""
    costs = results.drop_duplicates(["trainer", "iteration"]).set_index(["trainer", "iteration"])
    assert costs.loc[("sft", 0), ["samples", "queries", "steps"]].tolist() == [0, 0, 0]
    for iteration in (1, 2):
        assert costs.loc[("dpo", iteration), "samples"] == iteration * 4 * 2
        assert costs.loc[("ipo-md", iteration), "samples"] == iteration * 2 * 4 * 2
        assert costs.loc[("ipo-md", iteration), "steps"] == iteration * 2
        assert costs.loc[("ipo-md", iteration), "queries"] <= costs.loc[("ipo-md", iteration), "samples"] / 2


def check_stream_states(store: Path) -> None:
    """Two steps an iteration: the second iteration goes on with the first one's moments and schedule."""
    states = [load_file(path) for path in store.rglob("state.safetensors")]
    assert sorted(int(state["schedule_step"]) for state in states) == [2, 4]
    assert sorted(int(state["0.step"]) for state in states) == [2, 4]


def check_folder(out: Path) -> None:
    cells = json.loads((out / "cells.json").read_text())
    assert {c["state"] for c in cells} == {"done"}
    assert {stage["state"] for c in cells for stage in c["stages"]} == {"done"}
    metrics = json.loads((out / "metrics.json").read_text())
    outcomes = {"empty_share", "unfinished_share", "missing_share", "win_rate_worst"}
    assert set(metrics) == {f"head-to-head/{name}" for name in {"win_rate", "average_length", *outcomes}}
    assert sorted(p.stem for p in (out / "samples").iterdir()) == sorted(c["cell"] for c in cells)
    assert (out / "report" / "index.html").is_file()
    assert "no chat template" in (out / "provenance.json").read_text()
    assert load_config(out / "config.yaml").name == "small"


@pytest.mark.usefixtures("inline")
def test_one_more_trainer_computes_only_what_is_its_own(workspace: Workspace, nashbench: Command) -> None:
    def sweep(trainers: list[str]) -> int:
        matrix = {"trainer": trainers, "judge": [PANEL_ENTRY]}
        ended = nashbench(*workspace.arguments(workspace.config(matrix=matrix)))
        assert ended.code == 0, ended.err
        return int(ended.err.rsplit(" stages executed", 1)[0].split()[-1])

    assert sweep(["dpo"]) > 5
    assert sweep(["dpo", "inpo"]) == 7  # inpo's fit, answers and grades in two parts, scores, comparison of all cells


@pytest.mark.usefixtures("inline")
def test_no_verdict_is_ever_asked_twice(
    workspace: Workspace, nashbench: Command, counting: type[CountingJudge]
) -> None:
    def sweep(name: str, **changes: Any) -> None:
        config = workspace.config(name=name, matrix={"trainer": ["dpo", "inpo"], "judge": ["counting"]}, **changes)
        assert nashbench(*workspace.arguments(config, out=workspace.folder / name)).code == 0

    sweep("first")
    first = len(counting.asked)
    assert first > 0
    sweep("second", training={"lr": 0.002, "batch_size": 4, "precision": "fp32", "max_length": 40})
    assert len(counting.asked) > first
    assert len(set(counting.asked)) == len(counting.asked)


@pytest.mark.usefixtures("inline")
def test_prompts_that_come_twice_in_an_iteration_stay_two_tournaments(workspace: Workspace, nashbench: Command) -> None:
    """12 training prompts, 20 draws an iteration: some come twice, and each draw has K responses of its own."""
    config = workspace.config(prompts_per_iteration=20, sampling={"k": 4, "max_tokens": 6})
    assert nashbench(*workspace.arguments(config)).code == 0
    stage = next(s for s in make_plan(load_config(config)).stages if s.kind == "sample")
    responses = pd.read_parquet(Store(workspace.store).path(stage) / "responses.parquet")
    assert len(responses) == 80
    assert responses["prompt"].nunique() == 12
    assert (responses.groupby("draw").size() == 4).all()


# --- failures ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("inline", "counting")
def test_failed_verdicts_lower_the_coverage_and_are_counted_and_never_become_a_tie(
    workspace: Workspace, nashbench: Command
) -> None:
    fails = {"name": "counting", "fails": "green"}
    config = workspace.config(
        matrix={"trainer": ["dpo"], "judge": [fails]}, prompts_per_iteration=12, sampling={"k": 2, "max_tokens": 6}
    )
    ended = nashbench(*workspace.arguments(config))
    assert ended.code == 0, ended.err
    results = pd.read_csv(workspace.out / "results.csv")
    rates = results[results["metric"] == "win_rate"]
    assert (rates["coverage"] < 1).any()
    for row in rates.itertuples():
        samples = pd.read_parquet(workspace.out / "samples" / f"{row.cell}.parquet")
        empty = (samples["response"].str.strip() == "") | (samples["baseline_response"].str.strip() == "")
        failed = ~empty & samples["prompt"].str.contains("green")
        assert samples["preference"].isna().tolist() == failed.tolist()
        assert samples.loc[empty, "preference"].isin([0.0, 0.5, 1.0]).all()
        assert set(samples.loc[failed, "status"]) <= {"not-a-number"}
        assert row.coverage == pytest.approx(1 - failed.mean())
        assert row.value == pytest.approx(samples["preference"].mean())
    dynamics = pd.read_csv(workspace.out / "dynamics.csv").set_index("metric")["value"]
    assert dynamics["pair/failed"] > 0
    assert dynamics["pair/failed"] + dynamics["pair/pairs"] + dynamics["pair/dropped"] == 12


@pytest.mark.usefixtures("inline")
@pytest.mark.parametrize("trainer", ["dpo", "ipo-md"])
def test_calls_lost_to_a_timeout_fail_the_stage_and_the_next_run_asks_only_these(
    workspace: Workspace,
    nashbench: Command,
    counting: type[CountingJudge],
    monkeypatch: pytest.MonkeyPatch,
    trainer: str,
) -> None:
    config = workspace.config(
        matrix={"trainer": [trainer], "judge": [{"name": "counting"}]}, graders=[PANEL_ENTRY], iterations=1
    )
    monkeypatch.setattr(counting, "down", "blue")
    assert nashbench(*workspace.arguments(config)).code == 1
    reasons = [c["reason"] for c in json.loads((workspace.out / "cells.json").read_text())]
    assert any("timeout" in reason and "run again" in reason for reason in reasons), reasons
    answered = {question for question in counting.asked if "blue" not in str(question.prompt)}
    monkeypatch.setattr(counting, "down", "")
    counting.asked.clear()
    ended = nashbench(*workspace.arguments(config))
    assert ended.code == 0, ended.err
    assert any("blue" in str(question.prompt) for question in counting.asked)
    assert answered
    assert not answered & set(counting.asked)


@pytest.mark.usefixtures("inline", "counting")
def test_cells_whose_judge_always_fails_fail_with_the_reason_and_the_others_go_on(
    workspace: Workspace, nashbench: Command
) -> None:
    hopeless = {"name": "counting", "fails": ""}
    config = workspace.config(
        matrix={"trainer": ["dpo", "ipo-md"], "judge": [hopeless, PANEL_ENTRY]},
        graders=[PANEL_ENTRY],
        sampling={"k": 4, "max_tokens": 6, "temperature": 50.0},  # no two texts alike, which would be a tie unasked
    )
    ended = nashbench(*workspace.arguments(config))
    assert ended.code == 1
    cells = {c["cell"]: c for c in json.loads((workspace.out / "cells.json").read_text())}
    for name, found in cells.items():
        expected = "failed" if "counting" in name else "done"
        assert found["state"] == expected, name
    reasons = {name: c["reason"] for name, c in cells.items() if c["state"] == "failed"}
    assert len(reasons) == 2
    assert all("comparison" in reason and "failed" in reason for reason in reasons.values()), reasons
    status = nashbench("status", str(workspace.out), "--json")
    assert {c["cell"]: c["state"] for c in json.loads(status.out)} == {n: c["state"] for n, c in cells.items()}


@pytest.mark.usefixtures("inline", "counting")
def test_a_grader_that_always_fails_gives_no_score_and_says_why(workspace: Workspace, nashbench: Command) -> None:
    config = workspace.config(graders=[PANEL_ENTRY, {"name": "counting", "fails": ""}])
    ended = nashbench(*workspace.arguments(config))
    assert ended.code == 1
    cells = json.loads((workspace.out / "cells.json").read_text())
    assert all(c["state"] == "failed" and "not-a-number" in c["reason"] for c in cells)
    results = pd.read_csv(workspace.out / "results.csv")
    assert set(results["grader"]) == {"panel"}
    assert results["value"].notna().all()
    assert (workspace.out / "report" / "index.html").is_file()


@pytest.mark.usefixtures("inline")
def test_a_cell_that_fails_in_its_second_iteration_keeps_the_results_of_its_first(
    workspace: Workspace, nashbench: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails_later(stage: Fit, context: Context) -> Facts:
        if stage.title.startswith("tiny~dpo~panel~s0: iteration 2"):
            raise UserError("told to fail")
        return original(stage, context)

    original = Fit.run
    monkeypatch.setattr(Fit, "run", fails_later)
    ended = nashbench(*workspace.arguments(workspace.config(iterations=2)))
    assert ended.code == 1
    results = pd.read_csv(workspace.out / "results.csv")
    trained = results[results["trainer"] == "dpo"]
    assert set(trained["iteration"]) == {1}
    assert (trained["samples"] == 8).all()
    status = nashbench("status", str(workspace.out))
    assert (status.code, "told to fail" in " ".join(status.out.split())) == (0, True)


# --- looking without running -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("inline")
def test_plan_counts_cells_and_stages_runs_nothing_and_sees_what_is_there(
    workspace: Workspace, nashbench: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = workspace.config(**GAME)
    planned = nashbench("plan", str(config), "--store", str(workspace.store), "--json")
    document = json.loads(planned.out)
    assert document["totals"] == {"stages": 5, "done": 0, "missing": 5}
    assert document["kinds"] == {"gap": 3, "play": 2}
    assert [c["cell"] for c in document["cells"]] == ["cyc3~sft", "cyc3~omd~game~s0", "cyc3~onpo~game~s0"]
    assert nashbench(*workspace.arguments(config)).code == 0
    monkeypatch.setattr(Store, "writing", refuse)
    after = json.loads(nashbench("plan", str(config), "--store", str(workspace.store), "--json").out)
    assert after["totals"] == {"stages": 5, "done": 5, "missing": 0}
    assert "5 there already" in nashbench("plan", str(config), "--store", str(workspace.store)).out


@pytest.mark.usefixtures("inline")
def test_a_game_sweep_rates_every_cell_and_its_report_renders_again_beside_another(
    workspace: Workspace, nashbench: Command
) -> None:
    outs = [workspace.folder / "one", workspace.folder / "two"]
    for out, iterations in zip(outs, (20, 30), strict=True):
        config = workspace.config(**(GAME | {"iterations": iterations, "name": out.name}))
        assert nashbench(*workspace.arguments(config, out=out)).code == 0
    results = pd.read_csv(outs[0] / "results.csv")
    start = results[(results["iteration"] == 0) & (results["metric"] == "duality_gap")]
    uniform_gap = 2 * np.array([[0.5, 0.9, 0.2], [0.1, 0.5, 0.7], [0.8, 0.3, 0.5]]).mean(1).max() - 1
    assert start["value"].tolist() == pytest.approx([uniform_gap] * 3)
    last = results[results["iteration"] == 20]
    assert (last.set_index("trainer")["steps"] == 20).all()
    ended = nashbench("report", *map(str, outs), "--out", str(workspace.folder / "both"))
    assert (ended.code, Path(ended.out.strip()).is_file()) == (0, True)


def test_list_names_every_trainer_with_its_options_as_json_and_as_text(nashbench: Command) -> None:
    listed = {item["name"]: item for item in json.loads(nashbench("list", "trainers", "--json").out)}
    assert {"dpo", "inpo", "ipo-md", "onpo", "slic", "omd"} <= set(listed)
    assert listed["dpo"]["options"]["beta"] == 0.1
    assert (listed["dpo"]["schedule"], listed["ipo-md"]["schedule"]) == ("refit", "stream")
    text = nashbench("list", "trainers", "--verbose").out
    assert listed["dpo"]["equation"] in text
    assert {item["name"] for item in json.loads(nashbench("list", "judges", "--json").out)} >= {"panel"}
    ended = nashbench("list", "trainer")
    assert (ended.code, "choose one of trainers, judges, leaderboards, protocols" in ended.err) == (2, True)


@pytest.fixture(autouse=True)
def fresh_registry() -> Iterator[None]:
    yield
    CountingJudge.asked.clear()
