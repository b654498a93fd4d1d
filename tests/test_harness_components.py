"""Judges and leaderboards that a config names: what a world brings, what must be given, and how a mistake is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from boards_world import alpaca, arena, lm_eval, mt_bench

from harness.components import board_spec, judge_spec
from harness.identity import canonical
from harness.matrix import Variant
from harness.pocket.judges import OPTIONS

PLACE = "sweep.yaml:3: matrix.judge.0"
BOARDS = ("alpaca-eval", "arena-hard", "mt-bench", "lm-eval")


def refused(spec: Any, name: str, options: dict[str, Any], policy: str) -> str:
    with pytest.raises(ValueError, match=r"^sweep\.yaml:3") as error:
        spec(Variant(name, options, PLACE), policy)
    assert "\n" not in str(error.value)
    return str(error.value)


# --- judges ------------------------------------------------------------------------------------------------------


def test_the_pocket_worlds_judges_are_stages_that_share_one_base_policy_and_one_set_of_votes() -> None:
    specs = [judge_spec(Variant(name, {}), "pocket") for name in OPTIONS]
    sources = [spec.source for spec in specs]
    assert [source.kind for source in sources if source] == ["judge"] * 3
    assert len({source.key for source in sources if source}) == 3
    for spec, source in zip(specs, sources, strict=True):
        assert source is not None
        assert dict(spec.options) == OPTIONS[spec.name]
        assert spec.sources() == {"source": source}
        assert source.inputs["votes"].inputs["policy"].key == source.inputs["policy"].key
    assert len({source.inputs["votes"].key for source in sources if source}) == 1


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_options_of_a_judge_that_the_world_trains_are_refused_unless_a_model_is_given(name: str) -> None:
    said = refused(judge_spec, name, {"batch_size": 4}, "pocket")
    assert said.startswith(f"{PLACE}: ")
    for part in (f"trains the judge {name!r} itself", "leave out batch_size", "give a model of your own"):
        assert part in said


def test_a_judge_with_a_model_of_its_own_is_no_stage_of_the_world(tiny_model: Path) -> None:
    given = judge_spec(Variant("llm", {"model": str(tiny_model), "batch_size": 4}), "pocket")
    assert (given.sources(), given.options["batch_size"]) == ({}, 4)
    assert given == judge_spec(Variant("llm", {"model": str(tiny_model), "batch_size": 4}), "")


def test_outside_the_world_a_judge_needs_its_model() -> None:
    assert "needs the option 'model'" in refused(judge_spec, "reward-model", {}, "org/name")
    assert "did you mean 'model'" in refused(judge_spec, "reward-model", {"modle": "x"}, "org/name")


# --- leaderboards ------------------------------------------------------------------------------------------------


def test_the_pocket_worlds_boards_read_one_stage_of_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leaderboards.boards.lm_eval._own_tasks", lambda: ("arc_easy",))
    specs = [board_spec(Variant(name, {}), "pocket") for name in BOARDS]
    assert {spec.source.kind for spec in specs if spec.source} == {"sets"}
    assert len({spec.source.key for spec in specs if spec.source}) == 1
    own = board_spec(Variant("head-to-head", {}), "pocket")
    assert (own.source, own.sources()) == (None, {})
    assert board_spec(Variant("lm-eval", {"tasks": "arc_easy"}), "pocket").source is None  # lm-eval's own tasks


@pytest.mark.parametrize("policy", ["pocket", "org/name"])
def test_every_task_that_lm_eval_does_not_have_is_told_at_its_place_with_those_near_it(
    monkeypatch: pytest.MonkeyPatch, policy: str
) -> None:
    monkeypatch.setattr("leaderboards.boards.lm_eval._own_tasks", lambda: ("arc_easy", "arc_challenge", "hellaswag"))
    board_spec(Variant("lm-eval", {"tasks": ["arc_easy", "hellaswag"]}), policy)
    said = refused(board_spec, "lm-eval", {"tasks": "arc_eazy, hellaswag, zzz"}, policy)
    assert said == (
        f"{PLACE}: lm-eval: there is no task, group or tag 'arc_eazy' (did you mean 'arc_easy'?), 'zzz'; "
        "`lm-eval ls tasks` lists all"
    )


def test_lm_eval_is_asked_for_its_tasks_only_where_some_of_its_own_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("leaderboards.boards.lm_eval._own_tasks", lambda: pytest.fail("asked"))
    data = str(lm_eval(tmp_path, ["the cat", "a dog"]))
    assert board_spec(Variant("lm-eval", {}), "pocket").source is not None
    for options in ({"data": data}, {"data": data, "tasks": "tiny_choice"}):
        assert board_spec(Variant("lm-eval", options), "org/name").options == options


@pytest.mark.parametrize("name", BOARDS)
def test_another_policy_must_be_given_the_questions(name: str) -> None:
    said = refused(board_spec, name, {}, "org/name")
    assert said.startswith(f"{PLACE}: {name} needs the option data: ")
    assert "is not there" in refused(board_spec, name, {"data": "/no/such/place"}, "org/name")


@pytest.mark.parametrize("policy", ["pocket", "org/name"])
@pytest.mark.parametrize("name", BOARDS)
def test_a_wrong_option_is_refused_at_its_place_before_there_are_questions(name: str, policy: str) -> None:
    said = refused(board_spec, name, {"limt": 8}, policy)
    assert said.startswith(f"{PLACE}: leaderboard {name!r} has no option 'limt'")
    assert "did you mean 'limit'?" in said
    assert "limit is 1" in refused(board_spec, name, {"limit": 1}, policy)


def test_a_board_is_known_by_the_content_of_its_files_and_its_options(tmp_path: Path) -> None:
    texts = ["the cat", "a dog"]
    made = {
        "alpaca-eval": lambda folder: alpaca(folder, texts).parent,
        "arena-hard": lambda folder: arena(folder, texts),
        "mt-bench": lambda folder: mt_bench(folder, {}),
        "lm-eval": lambda folder: lm_eval(folder, ["the cat", "a dog"]),
    }
    for name, write_files in made.items():
        one, same = (str(write_files(tmp_path / name / copy)) for copy in ("one", "same"))
        prints = [board_spec(Variant(name, {"data": data}), "org/name").determines for data in (one, same)]
        assert prints[0] == prints[1]
        fewer = board_spec(Variant(name, {"data": one, "limit": 2}), "org/name")
        assert fewer.determines != prints[0]
        assert fewer.options == {"data": one, "limit": 2}
        assert one not in json.dumps(fewer.determines)
        (Path(same) / "more.txt").write_text("more")
        assert board_spec(Variant(name, {"data": same}), "org/name").determines != prints[0]


def test_two_boards_of_the_world_with_equal_options_are_two_boards() -> None:
    names = ("alpaca-eval", "arena-hard", "mt-bench", "lm-eval")
    assert len({canonical(board_spec(Variant(name, {}), "pocket").described(code=True)) for name in names}) == len(
        names
    )
