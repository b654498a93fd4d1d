"""What is wrong is told at once, before anything starts, with the right way out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Ended, Workspace, check_refused

from harness.config import load_config
from harness.planning.plan import make_plan
from harness.store.artifacts import Store

Command = Callable[..., Ended]
PANEL_JUDGE = {"name": "panel", "panel": "panel.yaml"}
LABELS = [{"id": str(i), "prompt": f"p {i}", "first": "a b", "second": "c", "label": "first"} for i in range(6)]


def test_all_missing_keys_are_named_at_once_each_at_its_place(workspace: Workspace, nashbench: Command) -> None:
    workspace.write("little.yaml", "iterations: 2\nmatrix: {trainer: [{beta: 1}]}\n")
    check_refused(
        nashbench("sweep", str(workspace.folder / "little.yaml")),
        "little.yaml:1: the keys 'name', 'policy', 'leaderboards' are missing; ",
        "little.yaml:2: the keys 'matrix.trainer.0.name', 'matrix.judge' are missing\n",
    )


def test_a_misspelt_key_is_told_before_the_one_that_it_leaves_missing(workspace: Workspace, nashbench: Command) -> None:
    workspace.write("little.yaml", "name: n\npolcy: pocket\n")
    ended = nashbench("sweep", str(workspace.folder / "little.yaml"))
    check_refused(ended, "little.yaml:2: unknown key 'polcy'; did you mean 'policy'?")


def test_planning_writes_nothing_at_all(
    workspace: Workspace, nashbench: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, folder = workspace.config(), workspace.folder
    monkeypatch.chdir(folder)
    before = sorted(folder.rglob("*"))
    for arguments in ([], ["--json"], ["--store", "elsewhere/store"]):
        assert nashbench("plan", str(config), *arguments).code == 0
    assert sorted(folder.rglob("*")) == before


def game(workspace: Workspace, **training: Any) -> Path:
    return workspace.config(
        policy={"game": "cyc3"},
        matrix={"trainer": ["omd"], "judge": ["game"]},
        training={"lr": 0.2, **training},
        leaderboards=["duality-gap"],
        prompts=None,
    )


def test_a_game_is_not_played_in_several_processes(workspace: Workspace, nashbench: Command) -> None:
    ended = nashbench(*workspace.arguments(game(workspace, accelerate="ranks.yaml")))
    check_refused(ended, "training.accelerate is given", "the game 'cyc3'", "leave training.accelerate out")
    assert not workspace.out.exists()
    assert not workspace.store.exists()


@pytest.mark.usefixtures("inline")
def test_a_sweep_begins_by_clearing_away_unfinished_work_of_what_is_done(
    workspace: Workspace, nashbench: Command
) -> None:
    config, store = game(workspace), Store(workspace.store)
    assert nashbench(*workspace.arguments(config)).code == 0
    done, other = (make_plan(load_config(config, [f"iterations={n}"])).stages[-1] for n in (1, 9))
    for stage in (done, other):
        store.unfinished(stage).mkdir(parents=True)
        os.utime(store.unfinished(stage), (1e9, 1e9))
    assert nashbench(*workspace.arguments(config)).code == 0
    assert [folder.name for folder in (workspace.store / "unfinished").iterdir()] == [other.key]


@pytest.mark.parametrize("command", ["judge", "audit", "report", "judge-train"])
def test_a_place_that_cannot_be_written_is_one_message(workspace: Workspace, command: str) -> None:
    labels = workspace.write("labels.jsonl", "".join(json.dumps(each) + "\n" for each in LABELS))
    workspace.write("cells.json", "[]")
    beneath = str(workspace.write("file", "") / "out.jsonl")
    panel = ["panel", "--option", f"panel={workspace.folder / 'panel.yaml'}", "--out", beneath]
    arguments = {
        "judge": [*panel, "--pairs", str(labels)],
        "audit": [*panel, "--labels", str(labels)],
        "report": [str(workspace.folder), "--out", beneath],
        "judge-train": ["reward-model", "--data", str(labels), "--base", str(workspace.model), "--out", beneath],
    }
    ended = subprocess.run(
        [sys.executable, "-m", "harness", command, *arguments[command]], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2, ended.stderr
    assert "error: " in ended.stderr
    assert "Traceback" not in ended.stderr
    assert str(workspace.folder / "file") in ended.stderr


# --- lists that multiply -----------------------------------------------------------------------------------------


def llm(workspace: Workspace, labels: Any) -> dict[str, Any]:
    return {"name": "llm", "model": str(workspace.model), "labels": labels}


def test_a_list_that_was_meant_as_one_value_is_told_how_to_be_one(workspace: Workspace, nashbench: Command) -> None:
    hint = "a value that is itself a list is written as a list in a list, [[A, B]]"
    ended = nashbench("plan", str(workspace.config(graders=[llm(workspace, ["A", "B"])])))
    check_refused(ended, "sweep.yaml:2: graders: ", "got 'A'", "each value of the list 'labels' is a variant", hint)
    ended = nashbench("plan", str(workspace.config(include=[{"judge": llm(workspace, ["A", "B"])}])))
    check_refused(ended, "include: judge 'llm' has a list of options", hint)
    ended = nashbench("plan", str(workspace.config(graders=[llm(workspace, [["A", "A"]])])))
    check_refused(ended, "graders: labels must be two different texts")
    assert "variant" not in ended.err
    assert "in a list, {name: llm, labels: [[A, B]]}" in " ".join(nashbench("sweep", "--help").out.split())


def test_a_list_in_a_list_is_one_value_and_multiplies_with_others(workspace: Workspace) -> None:
    judge = llm(workspace, [["A", "B"], ["1", "2"]])
    cells = make_plan(load_config(workspace.config(matrix={"trainer": ["dpo"], "judge": [judge]}))).cells
    labels = [cell.cell.judge.options["labels"] for cell in cells if cell.cell.judge]
    assert labels == [["A", "B"], ["1", "2"]]


# --- prompts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "times"),
    [
        ({"prompts_per_iteration": 12}, None),  # a fifth of the 15 is held out
        ({"prompts_per_iteration": 6, "iterations": 5}, "draws 30 (iterations x prompts_per_iteration), 2.5 times"),
        ({"prompts_per_iteration": 13, "matrix": {"judge": [{"name": "panel", "panel": "panel.yaml"}]}}, None),
    ],
    ids=["just enough", "too few", "nothing trained"],
)
def test_a_plan_says_in_a_line_that_prompts_are_drawn_repeatedly(
    workspace: Workspace, nashbench: Command, changes: dict[str, Any], times: str | None
) -> None:
    planned = ["plan", str(workspace.config(**changes)), "--store", str(workspace.store)]
    said = [line for line in nashbench(*planned).out.splitlines() if "drawn repeatedly" in line]
    assert json.loads(nashbench(*planned, "--json").out)["notes"] == said
    assert len(said) == (times is not None)
    if times:
        assert f"{workspace.folder / 'prompts.jsonl'} has 12 for training" in said[0]
        assert times in said[0]


@pytest.mark.parametrize(
    ("trainer", "changes", "trains"),
    [
        ("dpo", {}, (10, 3, 6)),
        ("onpo", {}, (10, 3, 12)),
        ("slic-hf", {"training": {"batch_size": 4, "epochs": 2}}, (20, 10, 20)),
        ("ipo-md", {}, (12, 3, 6)),
        ("ipo-md", {"training": {"batch_size": 4, "steps_per_iteration": 7}}, (28, 7, 14)),
        ("onpo", {"training": {"batch_size": 4, "steps_per_iteration": 7}}, (10, 7, 28)),
    ],
)
def test_a_plan_says_how_much_each_cell_trains(
    workspace: Workspace, nashbench: Command, trainer: str, changes: dict[str, Any], trains: tuple[int, ...]
) -> None:
    """10 prompts an iteration, 2 iterations, 4 pairs a step; k = 4 makes 2 independent pairs a prompt."""
    options = {"iterations": 2, "prompts_per_iteration": 10, "sampling": {"k": 4}, "training": {"batch_size": 4}}
    config = workspace.config(matrix={"trainer": [trainer], "judge": [PANEL_JUDGE]}, **options | changes)
    planned = ["plan", str(config), "--store", str(workspace.store)]
    sft, cell = (each["training"] for each in json.loads(nashbench(*planned, "--json").out)["cells"][:2])
    assert sft is None
    assert (cell["pairs"], cell["steps"], cell["total"]) == trains
    assert cell["at_most"] == (trainer != "ipo-md")
    assert cell["steps_at_most"] == (cell["at_most"] and "steps_per_iteration" not in changes.get("training", {}))
    header, _, row = nashbench(*planned).out.splitlines()[:3]
    assert header.split()[-7:] == ["pairs", "steps", "a", "fit", "steps", "in", "all"]
    marks = [cell["at_most"], cell["steps_at_most"], cell["steps_at_most"]]
    assert row.split()[-3:] == [f"≤{n}" if mark else str(n) for n, mark in zip(trains, marks, strict=True)]


def test_a_plan_says_where_answers_have_another_length_than_in_training(
    workspace: Workspace, nashbench: Command
) -> None:
    (workspace.folder / "outputs").mkdir()
    rows = [{"instruction": t, "output": "a", "generator": "b", "dataset": "d"} for t in ("the cat", "a dog")]
    workspace.write("outputs/model_outputs.json", json.dumps(rows))

    def notes(**options: Any) -> list[str]:
        boards = ["head-to-head", {"name": "alpaca-eval", "data": "outputs", **options}]
        config = workspace.config(leaderboards=boards)
        planned = nashbench("plan", str(config), "--store", str(workspace.store), "--json")
        return [note for note in json.loads(planned.out)["notes"] if "max_tokens" in note]

    assert notes() == [
        "alpaca-eval: answers have up to 2048 tokens, responses in training 6 (sampling.max_tokens); the board's "
        "option max_tokens sets another number"
    ]
    assert notes(max_tokens=6) == []
