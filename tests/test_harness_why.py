"""Why a stage runs again: which stage is meant, and what in its key differs from the nearest artifact."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Ended, Workspace, check_refused
from fake_stages import fake

from harness.planning.why import answer_why, explain, matching
from harness.store.artifacts import Store

Command = Callable[..., Ended]
FIT = fake("fit", {"beta": 0.1}, title="m~dpo~panel~s0: iteration 1, fit")
ANSWER = fake("answer", {"part": "curve"}, title="m~dpo~panel~s0: iteration 1, head-to-head, answer")
REST = fake("answer", {"part": "rest"}, title="m~dpo~panel~s0: iteration 1, head-to-head, answer the rest")
OTHER = fake("fit", {"beta": 0.2}, title="m~ipo~panel~s0: iteration 1, fit")
STAGES = [FIT, ANSWER, REST, OTHER]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def put(store: Store, *stages: object) -> None:
    for stage in stages:
        with store.writing(stage):  # type: ignore[arg-type]
            pass


# --- which stage -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        (REST.key, [REST]),
        (OTHER.key[:10], [OTHER]),
        ("DPO fit", [FIT]),
        ("fit iteration 1", [FIT, OTHER]),
        ("rest", [REST]),
        ("answer curve", []),
        (ANSWER.title.upper(), [ANSWER]),  # and not the other one, whose title begins so
        (" ", []),
    ],
)
def test_a_stage_is_named_by_the_beginning_of_its_key_its_title_or_words_of_it(name: str, meant: list[object]) -> None:
    if meant:
        assert matching(STAGES, name) == meant
    else:
        with pytest.raises(ValueError, match="no stage of the sweep"):
            matching(STAGES, name)


def test_a_name_of_no_stage_is_refused_with_the_nearest_title() -> None:
    with pytest.raises(ValueError, match=f"no stage of the sweep is .*; the nearest title is {OTHER.title!r}"):
        matching(STAGES, "m~ipo~panel~s0: iteration 3, fti")


def test_several_stages_of_a_name_are_listed_with_their_keys_and_a_long_list_is_cut(store: Store) -> None:
    listed = answer_why(STAGES, "fit", store).splitlines()
    assert listed[0] == "2 stages match 'fit'; name one by its key:"
    assert [line.split()[0] for line in listed[1:]] == [FIT.key[:12], OTHER.key[:12]]
    assert OTHER.title in listed[2]
    many = [fake("fit", {"number": n}, title=f"fit {n}") for n in range(23)]
    assert answer_why(many, "fit", store).splitlines()[21:] == ["  and 3 more"]


# --- what differs ------------------------------------------------------------------------------------------------


def test_what_differs_is_told_against_the_artifact_of_the_kind_with_the_fewest_differences(store: Store) -> None:
    sample, fresh = fake("sample", {"k": 2}), fake("sample", {"k": 4})
    near = fake("fit", {"beta": 0.1, "training": {"lr": 1, "epochs": 2}}, {"pairs": sample})
    far = fake("fit", {"beta": 0.3, "training": {"lr": 3}}, {"pairs": sample})
    wanted = fake("fit", {"beta": 0.1, "training": {"lr": 2}}, {"pairs": fresh}, title="the fit")
    put(store, near, far, fake("pair", dict(wanted.options)))
    assert explain(wanted, store).splitlines() == [
        f"fit {wanted.key} (the fit) is missing; the nearest artifact of its kind is {near.key}, with",
        f"  inputs.pairs: {sample.key} there, {fresh.key} here",
        "  options.options.training.epochs: 2 there, (absent) here",
        "  options.options.training.lr: 1 there, 2 here",
    ]


def test_a_stage_that_is_there_and_one_whose_kind_was_never_computed_are_told_so(store: Store) -> None:
    put(store, FIT)
    assert answer_why(STAGES, "dpo fit", store) == f"fit {FIT.key} ({FIT.title}) is there"
    assert answer_why(STAGES, "rest", store).endswith("is missing, and the store has no artifact of its kind")


# --- the command -------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("inline")
def test_plan_says_which_option_makes_a_finished_stage_run_again(workspace: Workspace, nashbench: Command) -> None:
    game = {"policy": {"game": "cyc3"}, "prompts": None, "leaderboards": ["duality-gap"], "iterations": 3}

    def config(eta: float) -> Path:
        return workspace.config(
            f"{eta}.yaml", **game, matrix={"trainer": [{"name": "omd", "eta": eta}], "judge": ["game"]}
        )

    first = config(0.5)
    assert nashbench(*workspace.arguments(first)).code == 0
    why = ("--store", str(workspace.store), "--why")
    assert "is there\n" in nashbench("plan", str(first), *why, "omd play").out
    told = nashbench("plan", str(config(0.25)), *why, "omd play")
    assert (told.code, told.err) == (0, "")
    (difference,) = told.out.splitlines()[1:]
    assert difference == "  options.algorithm.is.eta: 0.5 there, 0.25 here"
    assert nashbench("plan", str(first), *why, "cyc3").out.startswith("3 stages match 'cyc3'")
    check_refused(nashbench("plan", str(first), *why, "dpo fit"), "no stage of the sweep is 'dpo fit'", "the nearest")
    check_refused(nashbench("plan", str(first), *why, "omd play", "--json"), "leave --json out")
