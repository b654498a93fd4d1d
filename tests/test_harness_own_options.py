"""A trainer's own training options: merged over the config's, multiplied, named, refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
from conftest import Ended, Workspace

from harness.config import Config, load_config
from harness.matrix import expand
from harness.planning.plan import Plan, make_plan
from harness.stage import Stage
from harness.stages.fit import Fit

Command = Callable[..., Ended]
PANEL = {"name": "panel", "panel": "panel.yaml"}


def planned(workspace: Workspace, *trainers: Any, **changes: Any) -> Plan:
    return make_plan(load_config(workspace.config(matrix={"trainer": list(trainers), "judge": [PANEL]}, **changes)))


def stages(plan: Plan, trainer: str, kind: str) -> list[Any]:
    (cell,) = [cell for cell in plan.cells if cell.cell.trainer.label == trainer]
    return [stage for stage in cell.stages if stage.kind == kind]


def labels(*trainers: Any) -> list[str]:
    raw = {"name": "x", "policy": ["pocket"], "leaderboards": ["head-to-head"]}
    config = Config.model_validate(raw | {"matrix": {"trainer": list(trainers), "judge": ["panel"]}})
    return [cell.trainer.label for cell in expand(config)][1:]


def keys(found: list[Stage]) -> list[str]:
    return [stage.key for stage in found]


# --- names -------------------------------------------------------------------------------------------------------


def test_own_options_are_named_by_their_last_key_and_a_phase_by_what_it_writes() -> None:
    given = {"training": {"lr": 3e-5}, "pairs": {"protocol": "iid"}, "phases": {"auxiliary": {"epochs": 2}}}
    assert labels({"name": "onpo", "eta": 5, **given}) == ["onpo(eta=5,lr=3e-05,protocol=iid,auxiliary.epochs=2)"]


def test_lists_in_own_options_multiply_as_other_lists_do() -> None:
    entry = {"name": "onpo", "eta": [1, 2], "training": {"lr": [0.1, 0.2]}, "phases": {"policy": {"epochs": [1, 3]}}}
    one = [f"onpo(eta={e},lr={lr},policy.epochs={n})" for e in (1, 2) for lr in (0.1, 0.2) for n in (1, 3)]
    assert labels(entry) == one
    assert labels({**entry, "label": "mine"}) == [name.replace("onpo", "mine") for name in one]
    assert labels({"name": "dpo", "label": "mine", "training": {"lr": 0.1}}) == ["mine"]


def test_a_label_that_stands_for_two_sets_of_own_options_is_refused() -> None:
    two = [{"name": "dpo", "label": "mine", "training": {"lr": lr}} for lr in (0.1, 0.2)]
    with pytest.raises(ValueError, match="the label 'mine' is that of 'dpo'"):
        labels(*two)


# --- what reads them ---------------------------------------------------------------------------------------------


def test_own_options_change_the_fits_alone_and_only_their_own_trainers(workspace: Workspace) -> None:
    plan = planned(workspace, "dpo", {"name": "dpo", "training": {"lr": 0.03}})
    plain, own = "dpo", "dpo(lr=0.03)"
    for kind in ("sample", "pair", "score"):
        assert keys(stages(plan, plain, kind)) == keys(stages(plan, own, kind))
    (fit,), (own_fit,) = stages(plan, plain, "fit"), stages(plan, own, "fit")
    assert fit.key != own_fit.key
    assert own_fit.training == fit.training.model_copy(update={"lr": 0.03})
    assert fit.key == stages(planned(workspace, "dpo"), "dpo", "fit")[0].key


def test_the_configs_value_given_as_an_own_option_is_the_same_work(workspace: Workspace) -> None:
    config = load_config(workspace.config())
    plan = planned(workspace, "dpo", {"name": "dpo", "training": {"lr": config.training.lr}})
    (one,), (other,) = (stages(plan, label, "fit") for label in ("dpo", f"dpo(lr={config.training.lr})"))
    assert one.key == other.key


def test_phases_train_by_what_they_write(workspace: Workspace) -> None:
    phases = {"auxiliary": {"epochs": 2, "optimizer": "rmsprop"}, "policy": {"lr": 0.5}}
    entry = {"name": "onpo", "training": {"lr": 0.25}, "phases": phases}
    (cell,) = [c for c in planned(workspace, entry).cells if c.algorithm is not None]
    fits = [stage for stage in cell.stages if isinstance(stage, Fit)]
    told = [(fit.training.lr, fit.training.epochs, fit.training.optimizer) for fit in fits]
    assert told == [(0.25, 2, "rmsprop"), (0.5, 1, "adamw")]


def test_own_pairs_are_over_the_configs(workspace: Workspace) -> None:
    plan = planned(
        workspace, "dpo", {"name": "dpo", "pairs": {"label": "soft"}}, pairs={"protocol": "iid", "orders": "both"}
    )
    (pair,) = stages(plan, "dpo(label=soft)", "pair")
    assert (pair.pairing.protocol, pair.pairing.label, pair.pairing.orders) == ("iid", "soft", "both")
    assert stages(plan, "dpo", "pair")[0].pairing.label == "argmax"


def test_a_stream_has_its_own_steps_and_a_low_rank_adapter_of_its_own(workspace: Workspace) -> None:
    entry = {"name": "ipo-md", "training": {"steps_per_iteration": 7, "lora": {"r": 4}}}
    (stream,) = stages(planned(workspace, entry), "ipo-md(lora.r=4,steps_per_iteration=7)", "stream")
    assert (stream.steps, stream.training.lora.r) == (7, 4)


def test_a_refit_and_its_phases_may_have_a_number_of_steps_of_their_own(workspace: Workspace) -> None:
    phases = {"auxiliary": {"steps_per_iteration": None, "epochs": 2}}
    onpo = {"name": "onpo", "label": "own", "phases": phases}
    plan = planned(workspace, "dpo", onpo, training={"steps_per_iteration": 9, "batch_size": 4})
    (fit,) = stages(plan, "dpo", "fit")
    assert (fit.training.steps_per_iteration, fit.training.epochs) == (9, 1)
    fits = stages(plan, "own", "fit")
    assert [(fit.training.steps_per_iteration, fit.training.epochs) for fit in fits] == [(None, 2), (9, 1)]


def test_a_games_gradient_step_may_be_a_trainers_own(workspace: Workspace) -> None:
    def steps(*trainers: Any, **changes: Any) -> list[float]:
        game = {"policy": {"game": "cyc3"}, "leaderboards": ["duality-gap"], "prompts": None, "graders": None}
        matrix = {"trainer": list(trainers), "judge": ["game"]}
        plan = make_plan(load_config(workspace.config(matrix=matrix, **game, **changes)))
        return [stage.lr for cell in plan.cells for stage in cell.stages if stage.kind == "play"]

    own = {"name": "ipo-md", "training": {"lr": [0.1, 0.3]}}
    assert steps(own) == [0.1, 0.3]
    assert steps("ipo-md", own, training={"lr": 0.2}) == [0.2, 0.1, 0.3]
    for entry, fact in (
        ({"name": "omd", "training": {"lr": 0.1}}, "solved exactly"),
        ({"name": "ipo-md", "training": {"lr": 0.1, "epochs": 2}}, "take 'training.epochs' out"),
        ({"name": "ipo-md", "training": {"lr": 0.1}, "pairs": {"label": "soft"}}, "take 'pairs.label' out"),
    ):
        with pytest.raises(ValueError, match=fact):
            steps(entry)


# --- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "fact"),
    [
        ("{name: dpo, training: {lrr: 1}}", "unknown key 'training.lrr'; did you mean 'lr'?"),
        ("{name: dpo, training: {lr: fast}}", "training.lr: "),
        ("{name: dpo, training: {lr: -1}}", "it is -1"),
        ("{name: dpo, training: {lora: {rank: 8}}}", "training.lora.rank: "),
        ("{name: dpo, training: {precision: fp32}}", "training.precision: it is one for the whole sweep"),
        ("{name: dpo, training: {steps_per_iteration: 3, epochs: 2}}", "steps_per_iteration is 3 and sets the number"),
        ("{name: onpo, training: {steps_per_iteration: 3}, phases: {policy: {epochs: 2}}}", "phases.policy.epochs: "),
        ("{name: ipo-md, training: {epochs: 3}}", "schedule stream, which does not read it"),
        ("{name: dpo, pairs: {protocl: iid}}", "unknown key 'pairs.protocl'; did you mean 'protocol'?"),
        ("{name: onpo, phases: {auxilary: {epochs: 2}}}", "unknown key 'phases.auxilary'; did you mean 'auxiliary'?"),
        ("{name: onpo, phases: {policy: {epoch: 2}}}", "unknown key 'phases.policy.epoch'; did you mean 'epochs'?"),
        ("{name: onpo, phases: {policy: {max_length: 9}}}", "unknown key 'phases.policy.max_length'"),
        ("{name: egpo, phases: {policy: {lr: 1}}}", "phases has no training options there; give them in training"),
        ("{name: dpo, training: {lr: []}}", "the list of 'training.lr' is empty"),
        ("{name: dpo, training: 3}", "trainer"),
    ],
)
def test_a_wrong_own_option_is_refused_with_its_place(workspace: Workspace, entry: str, fact: str) -> None:
    text = workspace.config().read_text().splitlines()
    path = workspace.write("own.yaml", "\n".join(text) + "\n")
    with pytest.raises(ValueError, match=r"matrix\.trainer|own\.yaml") as refused:
        make_plan(load_config(path, [f"matrix.trainer=[{entry}]"]))
    assert fact in str(refused.value)
    assert "--set matrix.trainer" in str(refused.value)


def test_an_unknown_key_in_a_file_is_told_with_its_line(workspace: Workspace) -> None:
    text = (
        "name: x\npolicy: pocket\nmatrix:\n  judge: [panel]\n  trainer:\n    - dpo\n    - {name: dpo, training: "
        "{lrr: 1}}\nleaderboards: [head-to-head]\n"
    )
    path = workspace.write("own.yaml", text)
    with pytest.raises(ValueError, match=r"own\.yaml:7: matrix\.trainer: unknown key 'training\.lrr'"):
        make_plan(load_config(path))


# --- a run -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("inline")
def test_a_sweep_trains_each_phase_as_it_is_told(workspace: Workspace, nashbench: Command) -> None:
    trainers = "[onpo, {name: onpo, phases: {auxiliary: {epochs: 3}}}]"
    settings = ("--set", f"matrix.trainer={trainers}", "--set", "pairs.label=soft")
    ended = nashbench(*workspace.arguments(workspace.config(), *settings))
    assert ended.code == 0, ended.err
    results = pd.read_csv(workspace.out / "results.csv")
    steps = results[results.metric == "win_rate"].groupby("trainer").steps.max()
    assert steps["onpo(auxiliary.epochs=3)"] == 2 * steps["onpo"]


@pytest.mark.usefixtures("inline")
def test_a_sweep_takes_the_steps_it_is_told_whatever_pairs_are_left_and_tells_what_it_cost(
    workspace: Workspace, nashbench: Command
) -> None:
    config = workspace.config(matrix={"trainer": ["onpo", "dpo"], "judge": [PANEL]}, iterations=2)
    ended = nashbench(*workspace.arguments(config, "--set", "training.steps_per_iteration=3"))
    assert ended.code == 0, ended.err
    results = pd.read_csv(workspace.out / "results.csv")
    rows = results[results.metric == "win_rate"]
    steps = rows.groupby([rows.trainer.str.partition("(")[0], "iteration"]).steps.max()
    assert steps[["dpo", "onpo"]].to_dict() == {
        ("dpo", 1): 3,
        ("dpo", 2): 6,
        ("onpo", 1): 6,  # two fits an iteration
        ("onpo", 2): 12,
    }
    manifests = [json.loads(file.read_text()) for file in workspace.store.glob("*/*/*/manifest.json")]
    drawn = [
        len(tokens)
        for file in workspace.store.glob("sample/*/*/responses.parquet")
        for tokens in pd.read_parquet(file).tokens
    ]
    assert sum(m["work"]["tokens"] for m in manifests if m["kind"] == "sample") == sum(drawn)
    last = rows[rows.iteration == 2].set_index("trainer")
    timings = pd.read_csv(workspace.out / "timings.csv").set_index(["cell", "iteration"]).seconds
    assert (timings[timings.index.get_level_values("iteration") == 0] == 0).all()
    assert all(timings[cell, 2] > timings[cell, 1] > 0 for cell in last.cell if "~s0" in cell)
    assert (last.tokens > 0).all()
