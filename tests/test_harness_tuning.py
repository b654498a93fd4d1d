"""Tuning: as many trials for each trainer, on prompts of their own, and a choice that later stages read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import Ended, Workspace, check_refused

from harness.config import load_config
from harness.planning.plan import Plan, make_plan
from harness.run.executor import Schedule
from harness.stages.choose import Choose
from harness.stages.fit import Fit
from harness.stages.prompts import Prompts
from harness.stages.stream import Stream

Command = Callable[..., Ended]
PANEL = {"name": "panel", "panel": "panel.yaml"}
DPO = {"name": "dpo", "tune": {"beta": [0.1, 1], "training": {"lr": [0.001, 0.003]}}}
ONLINE = {"name": "ipo-md", "tune": {"tau": [0.1, 1, 10]}}
TUNE = {"trials": 2, "prompts": 3, "grader": PANEL}


def config(workspace: Workspace, *trainers: Any, seeds: tuple[int, ...] = (0,), **changes: Any) -> Path:
    matrix = {"trainer": list(trainers), "judge": [PANEL], "seed": list(seeds)}
    return workspace.config(**{"matrix": matrix, "tune": TUNE, **changes})


def planned(workspace: Workspace, *trainers: Any, **changes: Any) -> Plan:
    return make_plan(load_config(config(workspace, *trainers, **changes)))


def choices(plan: Plan) -> list[Choose]:
    return [stage for stage in plan.stages if isinstance(stage, Choose)]


def trials(workspace: Workspace) -> pd.DataFrame:
    return pd.read_parquet(workspace.out / "trials.parquet")


# --- the plan ----------------------------------------------------------------------------------------------------


def test_every_trainer_has_as_many_trials_once_for_all_seeds(workspace: Workspace) -> None:
    found = choices(planned(workspace, DPO, ONLINE, seeds=(0, 1)))
    assert [len(choice.trials) for choice in found] == [2, 2]
    for choice in found:
        assert len({json.dumps(options, sort_keys=True) for options in choice.options}) == 2
        assert len({rate.key for rate in choice.trials.values()}) == 2


def test_final_cells_read_the_choice_and_trials_do_not(workspace: Workspace) -> None:
    plan = planned(workspace, DPO, ONLINE)
    (dpo, online) = choices(plan)
    for choice, cell in zip((dpo, online), [c for c in plan.cells if c.algorithm is not None], strict=True):
        assert cell.choice is choice
        trained = [stage for stage in cell.stages if isinstance(stage, Fit | Stream)]
        assert [stage.choice for stage in trained] == [choice]
        assert not choice.optional & {stage.key for stage in cell.stages}
    free = [s for s in plan.stages if isinstance(s, Fit | Stream) and s.choice is None]
    assert len(free) == 4  # two trials of each, whose stages the plan counts


def test_without_tuning_no_key_changes(workspace: Workspace) -> None:
    plan = planned(workspace, "dpo", tune=None)
    for stage in plan.stages:
        assert not {"choice", "tuning"} & stage.identity["options"].keys()
        assert "choice" not in stage.inputs


@pytest.mark.parametrize(
    ("trainers", "changes", "parts"),
    [
        ([{"name": "dpo", "tune": {"beta": [1]}}], {}, ("have 1 combinations", "2 trials", "lower tune.trials")),
        ([DPO, "slic"], {}, ("slic has nothing to tune", "each trainer gets 2 trials")),
        ([DPO], {"tune": None}, ("dpo has lists to tune", "tune: {trials: 4")),
        ([{"name": "dpo", "tune": {"training": {"epochs": [1, 2]}}}], {}, ("tune.'training.epochs'", "can be tuned")),
        ([{"name": "dpo", "tune": {"beta": 1}}], {}, ("tune.'beta' is 1", "a list")),
        ([{"name": "dpo", "tune": {"beta": [1, 1]}}], {}, ("tune.beta has a value twice",)),
        ([{"name": "dpo", "beta": 1, "tune": {"beta": [1, 2]}}], {}, ("tune.'beta'", "a value as well")),
        ([{"name": "nash-md", "tune": {"mixture": [0.1, 0.2]}}], {}, ("changes the mixture of nash-md",)),
        ([DPO], {"tune": {**TUNE, "prompts": 12}}, ("tune.prompts is 12", "12 training prompts")),
        ([DPO], {"tune": {**TUNE, "seed": 0}}, ("tune.seed is 0", "another")),
        ([{"name": "dpo", "tune": {"beta": [-1, 2]}}], {}, ("beta",)),
        ([DPO], {"policy": [{"game": "rps"}]}, ("tune is given and a policy is a game",)),
    ],
)
def test_what_cannot_be_tuned_is_refused_when_planned(
    workspace: Workspace, nashbench: Command, trainers: list[Any], changes: dict[str, Any], parts: tuple[str, ...]
) -> None:
    check_refused(nashbench("plan", str(config(workspace, *trainers, **changes))), *parts)


def test_a_stage_that_may_fail_takes_no_reader_along_that_can_do_without(workspace: Workspace) -> None:
    (choice,) = choices(planned(workspace, DPO))
    one, other = choice.trials.values()
    schedule = Schedule([one, other, choice])
    assert {schedule.next_ready(), schedule.next_ready()} == {one, other}
    assert schedule.fail(one) == []
    assert schedule.next_ready() is None
    schedule.finish(other)
    assert schedule.next_ready() is choice


# --- a sweep -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("inline")
def test_a_tuned_sweep_end_to_end(workspace: Workspace, nashbench: Command) -> None:
    path = config(workspace, DPO, ONLINE)
    before = [stage.key for stage in make_plan(load_config(path)).stages]
    ended = nashbench(*workspace.arguments(path))
    assert ended.code == 0, ended.err
    plan = make_plan(load_config(path))
    assert [stage.key for stage in plan.stages] == before
    table = trials(workspace)
    assert table.groupby("trainer").trial.count().to_dict() == {"dpo(tuned)": 2, "ipo-md(tuned)": 2}
    assert (table.status == "ok").all()
    for _, of in table.groupby("trainer"):
        assert of.chosen.sum() == 1
        assert of[of.chosen].value.item() == of.value.max()
    assert set(table.n) == {TUNE["prompts"]}
    _check_disjoint(workspace, plan)
    _check_final_options(workspace)
    page = (workspace.out / "report" / "index.html").read_text()
    assert 'id="tuning"' in page
    assert page.count("<tr data-trial") == 4
    again = nashbench(*workspace.arguments(path))
    assert again.code == 0
    assert "0 stages executed" in again.err


def _check_disjoint(workspace: Workspace, plan: Plan) -> None:
    """Prompts that trials are ranked on are in nothing that is trained on, and in no final score."""
    (prompts,) = [stage for stage in plan.stages if isinstance(stage, Prompts)]
    listed = pd.read_parquet(next(workspace.store.glob(f"prompts/*/*{prompts.key[2:]}*/prompts.parquet")))
    split = dict(zip(listed.id, listed.split, strict=True))
    assert sorted(listed.split.value_counts().items()) == [("heldout", 3), ("train", 9), ("tune", 3)]
    sampled = [pd.read_parquet(file) for file in workspace.store.glob("sample/*/*/responses.parquet")]
    assert {split[listed.id.iloc[row]] for frame in sampled for row in frame.prompt} == {"train"}
    final = pd.concat(pd.read_parquet(file) for file in (workspace.out / "samples").glob("*.parquet"))
    assert {split[id] for id in final.prompt_id} == {"heldout"}
    graded = {k for k, s in split.items() if s == "tune"}
    verdicts = [pd.read_parquet(file) for file in workspace.store.glob("grade/*/*/verdicts.parquet")]
    assert sum(set(frame.id) == graded for frame in verdicts) == 4


def _check_final_options(workspace: Workspace) -> None:
    results = pd.read_parquet(workspace.out / "results.parquet")
    for trainer, option in (("dpo(tuned)", "beta"), ("ipo-md(tuned)", "tau")):
        assert json.loads(results[results.trainer == trainer].options.iloc[0])[option] == "tuned"


@pytest.mark.usefixtures("inline")
def test_the_final_fit_trains_with_the_chosen_options(
    workspace: Workspace, nashbench: Command, monkeypatch: Any
) -> None:
    from trainers.fitting import job

    seen: list[tuple[float, float]] = []
    run = job.Job.run

    def noting(self: Any, *given: Any) -> Any:
        seen.append((self.algorithm.beta, self.training.lr))
        return run(self, *given)

    monkeypatch.setattr(job.Job, "run", noting)
    assert nashbench(*workspace.arguments(config(workspace, DPO))).code == 0
    table = trials(workspace)
    tried = [json.loads(text) for text in table.options]
    told = [(options["algorithm"]["beta"], options["training"]["lr"]) for options in tried]
    assert sorted(seen[:2]) == sorted(told)
    assert seen[2:] == [told[int(table.chosen.to_numpy().nonzero()[0][0])]]


@pytest.mark.usefixtures("inline")
@pytest.mark.parametrize("failing", [1, 2])
def test_failed_trials_are_recorded_and_not_chosen(
    workspace: Workspace, nashbench: Command, monkeypatch: Any, failing: int
) -> None:
    from harness.errors import UserError

    run, path = Fit.run, config(workspace, DPO)
    (choice,) = choices(make_plan(load_config(path)))
    bad = [options["algorithm"]["beta"] for options in choice.options][:failing]
    lr = [options["training"]["lr"] for options in choice.options][:failing]

    def diverging(self: Fit, context: Any) -> Any:
        if self.choice is None and (self.algorithm.options["beta"], self.training.lr) in zip(bad, lr, strict=True):
            raise UserError("the weights diverged")
        return run(self, context)

    monkeypatch.setattr(Fit, "run", diverging)
    ended = nashbench(*workspace.arguments(path))
    assert ended.code == 1
    table = trials(workspace)
    cells = {cell["cell"]: cell for cell in json.loads((workspace.out / "cells.json").read_text())}
    tuned = cells["tiny~dpo(tuned)~panel~s0"]
    if failing == 1:
        assert list(table.status) == ["failed", "ok"]
        assert list(table.chosen) == [False, True]
        assert tuned["state"] == "done"
    else:
        assert list(table.status) == ["missing", "missing"]
        assert not table.chosen.any()
        assert tuned["state"] == "failed"
        assert "all 2 trials failed" in tuned["reason"]
