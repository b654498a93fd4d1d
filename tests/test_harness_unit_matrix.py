"""Cells and their names, what names resolve to, what is listed, and how prompts are dealt out."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.cli.listing import describe
from harness.components import base_policy, built, judge_spec
from harness.config import Config, ConfigError, Entry, Game
from harness.identity import canonical
from harness.matrix import Cell, Variant, expand, variants
from harness.planning.inputs import prompts_contents, prompts_source
from harness.planning.plan import make_plan
from harness.prompts import iteration_rows, read_prompts
from harness.registry import load, names
from harness.specs import Checkpoint
from harness.stages.play import Play
from harness.stages.pocket import PocketPolicy


def config(**changes: Any) -> Config:
    matrix = {"trainer": ["onpo", "dpo"], "judge": ["panel", "llm"], "seed": [0, 1, 2]} | changes.pop("matrix", {})
    usual: dict[str, Any] = {"name": "x", "policy": ["pocket"], "leaderboards": ["head-to-head"], "matrix": matrix}
    return Config.model_validate(usual | changes)


def ids(**changes: Any) -> list[str]:
    return [cell.id for cell in expand(config(**changes))]


# --- labels and ids ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "label"),
    [
        ("dpo", {}, "dpo"),
        ("dpo", {"beta": 0.5}, "dpo(beta=0.5)"),
        ("dpo", {"beta": 0.5, "regime": "online"}, "dpo(beta=0.5,regime=online)"),
        ("panel", {"panel": "/far/away/panel.yaml"}, "panel"),
        ("panel", {"panel": "/far/away/strict.yaml"}, "panel(panel=strict)"),
        ("recorded", {"pairs_file": "a/b/pairs.jsonl"}, "recorded(pairs_file=pairs)"),
        ("reward-model", {"model": "org/model-v1.5"}, "reward-model(model=model-v1.5)"),
    ],
)
def test_a_label_has_the_options_and_of_a_path_only_its_last_name(
    name: str, options: dict[str, Any], label: str
) -> None:
    assert Variant(name, options).label == label


def test_variants_multiply_lists_out_with_the_last_option_fastest() -> None:
    entry = Entry.model_validate({"name": "x", "a": [1, 2], "b": "one", "c": ["u", "v", "w"]})
    found = [tuple(v.options.values()) for v in variants(entry)]
    assert found == [(a, "one", c) for a in (1, 2) for c in ("u", "v", "w")]
    assert len({v.label for v in variants(entry)}) == 6
    assert variants(Entry.model_validate("x")) == [Variant("x", {})]


def test_where_a_variant_was_written_does_not_make_it_another() -> None:
    assert Variant("x", {"a": 1}, "sweep.yaml:3") == Variant("x", {"a": 1}, "--set matrix.trainer")


def test_an_empty_list_of_an_option_is_refused_by_the_options_name() -> None:
    with pytest.raises(ConfigError, match="dpo: the list of 'beta' is empty"):
        ids(matrix={"trainer": [{"name": "dpo", "beta": []}]})


@pytest.mark.parametrize(
    ("policy", "label"),
    [("pocket", "pocket"), ("/models/tiny/", "tiny"), ("org/name", "name"), (Game(game="cyc3"), "cyc3")],
)
def test_a_policy_goes_by_the_last_part_of_its_name(policy: str | Game, label: str) -> None:
    assert Cell(policy, Variant("sft", {}), None, None).policy_label == label


def test_an_id_joins_what_there_is_and_is_a_safe_file_name() -> None:
    control = Cell("pocket", Variant("sft", {}), None, None)
    assert (control.id, control.judge_label) == ("pocket~sft", "")
    assert Cell("pocket", Variant("dpo", {"beta": 0.5}), Variant("panel", {}), 0).id == "pocket~dpo(beta=0.5)~panel~s0"
    hostile = Cell("a b", Variant("x", {"o": "u v|w:../*"}), Variant("j", {"t": "é~\n"}), 1).id
    assert hostile.isascii()
    assert not set(hostile) & set("/\\:*?|<>\"' \n")


def cell(policy: str = "p", trainer: str = "t", judge: str = "j", seed: int = 0) -> Cell:
    return Cell(policy, Variant(trainer, {}), Variant(judge, {}), seed)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (cell("m~x"), cell("m_x")),
        (cell("m", "x~t"), cell("m~x", "t")),
        (cell(judge="a" * 300 + "b"), cell(judge="a" * 300 + "c")),
        (cell("é"), cell("è")),
        (cell("long" * 30, seed=1), cell("long" * 30, seed=2)),
    ],
)
def test_ids_differ_where_labels_do_and_are_short_enough_for_every_file_system(one: Cell, other: Cell) -> None:
    assert one.id != other.id
    for name in (one.id, other.id, one.algorithm, other.algorithm):
        assert len(name.encode()) < 120
        assert name.isascii()
    assert (one.algorithm == other.algorithm) == (one.seed != other.seed)


def test_the_longest_id_there_can_be_is_below_120_bytes() -> None:
    assert len(cell("p" * 500, "t" * 500, "j" * 500, 2**63 - 1).id) < 120


def test_a_label_is_the_cell_in_full() -> None:
    judge = Variant("llm", {"template": "x" * 300})
    assert Cell("org/m", Variant("dpo", {}), judge, 3).label == f"m · dpo · llm(template={'x' * 300}) · seed 3"


def test_a_label_of_the_config_stands_for_name_and_options_and_lists_still_tell_apart() -> None:
    judge = {"name": "llm", "template": "x" * 300, "label": "strict"}
    trainer = {"name": "dpo", "beta": [0.1, 1], "regime": "online", "label": "dpo paper"}
    endpoint = {"endpoint": "http://h/v1", "model": "served", "label": "mine"}
    found = config(policy=[{"game": "cyc3", "label": "cycle"}], matrix={"trainer": [trainer], "judge": [judge]})
    assert {c.label for c in expand(found)} == {
        "cycle · sft",
        *(f"cycle · dpo paper(beta={b}) · strict · seed {s}" for b in (0.1, 1) for s in (0, 1, 2)),
    }
    assert ids(policy=[endpoint], matrix={"trainer": []}) == ["mine~sft"]
    options = [v.options for entry in found.matrix.judge for v in variants(entry)]
    assert options == [{"template": "x" * 300}]


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"matrix": {"trainer": [{"name": "dpo", "label": "a"}, {"name": "onpo", "label": "a"}]}}, ["'a'", "'dpo'"]),
        ({"matrix": {"trainer": ["onpo", {"name": "dpo", "label": "onpo"}]}}, ["'onpo'"]),
        ({"graders": [{"name": "llm", "repeat": 2, "label": "panel"}]}, ["'panel'"]),
    ],
)
def test_two_different_entries_with_one_label_are_refused(changes: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"the label .* is that of .* too, with other options") as refused:
        expand(config(**changes))
    assert all(part in str(refused.value) for part in parts)


def test_a_grader_that_is_the_judge_may_have_its_label() -> None:
    judge = {"name": "llm", "repeat": 2, "label": "twice"}
    assert len(expand(config(matrix={"judge": [judge]}, graders=[judge]))) == 7


def test_cells_that_differ_in_capitals_alone_are_refused() -> None:
    with pytest.raises(ConfigError, match="differ in capitals alone"):
        expand(config(policy=["org/Model", "org/model"]))


@pytest.mark.parametrize("label", ["", " a", "a\nb", "x" * 81, 3])
def test_a_label_is_one_short_line(label: Any) -> None:
    with pytest.raises(ValueError, match="label"):
        config(matrix={"trainer": [{"name": "dpo", "label": label}]})


@pytest.mark.parametrize(
    "changes",
    [
        {"iterations": 10**9},
        {"matrix": {"seed": list(range(60_000))}},
        {"matrix": {"trainer": [{"name": "dpo", "beta": list(range(1000)), "log_prob": ["sum"] * 1000}]}},
        {"iterations": 5_000, "leaderboards": [{"name": "head-to-head"}]},
    ],
)
def test_a_plan_of_too_many_stages_is_refused_before_it_is_built(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"at least [\d,]+ stages .* may have 200,000"):
        expand(config(**changes))


def test_curves_that_are_switched_off_do_not_count_as_stages() -> None:
    quiet = [{"name": "head-to-head", "curve_limit": 0}]
    assert len(expand(config(iterations=4_000, leaderboards=quiet))) == 13


# --- expansion ---------------------------------------------------------------------------------------------------


def test_the_cells_are_the_controls_and_then_the_whole_product_in_order() -> None:
    policies = ["pocket", "org/other"]
    product = itertools.product(("pocket", "other"), ("onpo", "dpo"), ("panel", "llm"), (0, 1, 2))
    expected = [f"{p}~{t}~{j}~s{s}" for p, t, j, s in product]
    assert ids(policy=policies) == ["pocket~sft", "other~sft", *expected]


def test_naming_the_control_among_the_trainers_adds_nothing() -> None:
    assert ids(matrix={"trainer": ["onpo", "sft"]}) == ids(matrix={"trainer": ["onpo"]})


@pytest.mark.parametrize("trainers", [[], ["sft"]])
def test_without_a_trainer_every_policy_is_its_control_alone(trainers: list[str]) -> None:
    assert ids(policy=["pocket", "org/other"], matrix={"trainer": trainers}) == ["pocket~sft", "other~sft"]


def test_a_policy_behind_an_endpoint_has_its_control_and_is_never_trained() -> None:
    policy = ["pocket", {"endpoint": "http://h/v1", "model": "org/served"}]
    assert ids(policy=policy, matrix={"trainer": []}) == ["pocket~sft", "served~sft"]
    with pytest.raises(ConfigError, match=r"'onpo' cannot train the policy 'served'.*never trained"):
        ids(policy=policy)
    assert ids(policy=policy, exclude=[{"policy": "served"}])[:2] == ["pocket~sft", "served~sft"]


@pytest.mark.parametrize(
    ("pattern", "left"),
    [
        ({"seed": 1}, 8),
        ({"trainer": "dpo"}, 6),
        ({"judge": "llm", "trainer": "dpo"}, 9),
        ({"judge": "llm", "trainer": "dpo", "seed": 2}, 11),
    ],
)
def test_a_pattern_takes_out_exactly_the_cells_that_match_all_of_it(pattern: dict[str, Any], left: int) -> None:
    trained = [c for c in expand(config(exclude=[pattern])) if c.judge is not None]
    assert len(trained) == left
    for cell in trained:
        assert any(
            value != {"seed": cell.seed, "trainer": cell.trainer.name, "judge": cell.judge_label}[axis]
            for axis, value in pattern.items()
        )


def test_a_trainer_is_excluded_by_its_name_with_all_options_or_by_its_label_alone() -> None:
    matrix = {"trainer": ["onpo", {"name": "dpo", "beta": [0.1, 0.5]}], "judge": ["panel"], "seed": [0]}
    assert ids(matrix=matrix, exclude=[{"trainer": "dpo"}]) == ["pocket~sft", "pocket~onpo~panel~s0"]
    by_label = ids(matrix=matrix, exclude=[{"trainer": "dpo(beta=0.5)"}])
    assert by_label == ["pocket~sft", "pocket~onpo~panel~s0", "pocket~dpo(beta=0.1)~panel~s0"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"exclude": [{"seed": 9}]}, "matches no cell"),
        ({"exclude": [{"seed": 1}, {"seed": 1}]}, "matches no cell"),
        ({"exclude": [{"sed": 1}]}, "did you mean 'seed'"),
        ({"exclude": [{}]}, "the matrix has no cell"),
        ({"matrix": {"seed": [1, 1]}}, "the cell 'pocket~onpo~panel~s1' twice"),
        ({"include": [{"trainer": "dpo"}]}, "the cell 'pocket~dpo~panel~s0' twice"),
        ({"include": [{"trainr": "dpo"}]}, "did you mean 'trainer'"),
        ({"include": [{"policy": "poket"}]}, "did you mean 'pocket'"),
        ({"include": [{"seed": -1}]}, "a whole number from 0"),
        ({"include": [{"seed": "7"}]}, "a whole number from 0"),
        ({"include": [{"trainer": {"name": "dpo", "beta": [1, 2]}}]}, "an entry is one cell"),
        ({"include": [{"judge": {"panel": "x"}}]}, "include: judge: "),
    ],
)
def test_a_matrix_that_cannot_be_meant_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        expand(config(**changes))
    assert message in str(refused.value)


def test_an_included_cell_takes_the_configs_first_for_what_it_leaves_out_and_comes_last() -> None:
    added = [{"trainer": "inpo"}, {"seed": 7}, {"judge": {"name": "llm", "model": "m"}, "policy": "other"}]
    policies = ["pocket", "org/other"]
    assert ids(policy=policies, include=added) == [
        *ids(policy=policies),
        "pocket~inpo~panel~s0",
        "pocket~onpo~panel~s7",
        "other~onpo~llm(model=m)~s0",
    ]


def test_what_is_excluded_may_be_included_again() -> None:
    kept = ids(exclude=[{"trainer": "dpo"}], include=[{"trainer": "dpo", "seed": 2}])
    assert [i for i in kept if "dpo" in i] == ["pocket~dpo~panel~s2"]


# --- resolving ---------------------------------------------------------------------------------------------------


def test_a_policy_of_a_stage_is_read_as_an_input_and_one_from_outside_by_its_fingerprint() -> None:
    stage = PocketPolicy(world="w")
    trained, outside = Checkpoint(stage=stage), Checkpoint(location="/m", fingerprint="abc")
    assert (trained.sources(), trained.described(code=True)) == ({"": stage}, None)
    assert (outside.sources(), outside.described(code=True), outside.described(code=False)) == ({}, "abc", "abc")


def checkpoint(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (folder / name).write_text(name)
    return folder


def test_a_folder_is_known_by_its_content_and_a_hub_id_by_its_name(tmp_path: Path) -> None:
    one, copy, other = (checkpoint(tmp_path / name) for name in ("one", "sub/copy", "other"))
    (other / "model.safetensors").write_text("other weights")
    prints = [base_policy(str(folder)).fingerprint for folder in (one, copy, other)]
    assert prints[0] == prints[1] != prints[2]
    assert base_policy(str(copy)).location == str(copy)
    pocket = base_policy("pocket").stage
    assert pocket is not None
    assert (pocket.kind, pocket.inputs) == ("pocket", {})


@pytest.mark.parametrize("policy", ["/no/such/folder", "a/b/c", "has space", "org/name?x"])
def test_what_is_neither_a_folder_nor_a_hub_id_is_refused(policy: str) -> None:
    with pytest.raises(ValueError, match="there is no such folder"):
        base_policy(policy)


@pytest.mark.parametrize(
    ("gone", "message"),
    [("config.json", "no config.json"), ("model.safetensors", "no weights"), ("tokenizer.json", "no tokenizer")],
)
def test_a_folder_lacks_a_part_by_name(tmp_path: Path, gone: str, message: str) -> None:
    folder = checkpoint(tmp_path / "m")
    (folder / gone).unlink()
    with pytest.raises(ValueError, match=message):
        base_policy(str(folder))


def test_prompts_come_from_the_config_or_from_the_world() -> None:
    assert prompts_source(config(), "pocket") == "pocket"
    assert prompts_source(config(prompts="a.jsonl"), "pocket") == "a.jsonl"
    with pytest.raises(ValueError, match="prompts is missing"):
        prompts_source(config(), "org/name")
    with pytest.raises(ValueError, match="are not built yet"):
        prompts_source(config(prompts="org/dataset"), "pocket")


def test_prompts_are_known_by_their_content(tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}.jsonl" for name in "abc"]
    for path, texts in zip(paths, ("xy", "xy", "xz"), strict=True):
        path.write_text("".join(json.dumps({"prompt": t}) + "\n" for t in texts))
    a, same, other = map(prompts_contents, map(str, paths))
    assert a == same != other
    with pytest.raises(ValueError, match="no prompts file"):
        prompts_contents(str(tmp_path / "none.jsonl"))


def test_the_pocket_world_brings_its_panel_and_a_given_one_stands(tmp_path: Path) -> None:
    own = judge_spec(Variant("panel", {}), "pocket")
    assert Path(own.options["panel"]).parts[-2:] == ("pocket", "panel.yaml")
    assert own.label == "panel"
    copy = tmp_path / "mine.yaml"
    copy.write_bytes(Path(own.options["panel"]).read_bytes())
    given = judge_spec(Variant("panel", {"panel": str(copy)}), "pocket")
    assert (given.described(code=True), given.label) == (own.described(code=True), "panel(panel=mine)")
    with pytest.raises(ValueError, match="needs the option 'panel'"):
        judge_spec(Variant("panel", {}), "org/name")


def test_a_refused_option_is_reported_with_its_place() -> None:
    for place, start in (
        ("sweep.yaml:3: matrix.trainer.0", "sweep.yaml:3: matrix.trainer.0: trainer"),
        ("", "trainer"),
    ):
        with pytest.raises(ValueError, match="did you mean 'beta'") as refused:
            built("trainers", Variant("dpo", {"bta": 1}, place))
        assert str(refused.value).startswith(start)


def test_the_matrix_of_a_game_is_plain_numbers_in_the_key_and_probabilities_that_add_up() -> None:
    training = {"lr": 0.1, "precision": "fp32"}
    matrix = {"trainer": ["onpo"], "judge": ["game"], "seed": [0]}
    planned = make_plan(
        config(policy=[{"game": "cyc3"}], matrix=matrix, leaderboards=["duality-gap"], training=training)
    )
    (play,) = (stage for stage in planned.stages if isinstance(stage, Play))
    stated = json.loads(canonical(play.identity))["options"]["preference"]
    assert tuple(map(tuple, stated)) == play.preference
    np.testing.assert_allclose(np.array(stated) + np.array(stated).T, 1.0, atol=1e-12)


# --- listing -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["trainers", "judges", "leaderboards"])
def test_everything_registered_is_listed_with_the_defaults_its_class_has(kind: Any) -> None:
    items = describe(kind)
    assert [item["name"] for item in items] == list(names(kind))
    for item in items:
        cls = load(kind, item["name"])
        required = {name for name, default in item["options"].items() if default == "required"}
        assert item["class"] == f"{cls.__module__}.{cls.__name__}"
        assert item["summary"]
        assert "\n" not in item["summary"]
        if not required and "data" not in item["options"]:  # boards with questions of their own need to be given them
            assert {f.name: getattr(cls(), f.name) for f in dataclasses.fields(cls)} == item["options"]


def test_the_listed_targets_are_the_closed_forms_of_the_listed_options() -> None:
    listed = {item["name"]: item for item in describe("trainers")}
    half = {"onpo": "eta", "omd": "eta", "sppo": "eta"}
    for name, option in half.items():
        assert listed[name]["target_nats"] == pytest.approx(listed[name]["options"][option] / 2)
    assert listed["inpo"]["target_nats"] == pytest.approx(1 / (2 * listed["inpo"]["options"]["eta"]))
    assert listed["ipo"]["target_nats"] == pytest.approx(1 / (2 * listed["ipo"]["options"]["tau"]))
    assert listed["dpo"]["target_nats"] is None


def test_only_trainers_are_listed_with_an_equation() -> None:
    extra = {"equation", "source", "schedule", "player", "pairing", "target_nats"}
    assert all(extra <= set(item) for item in describe("trainers"))
    assert not any(extra & set(item) for kind in ("judges", "leaderboards") for item in describe(kind))  # type: ignore[arg-type]


# --- prompts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("available", "count"), [(1, 1), (1, 5), (7, 7), (7, 3), (3, 7), (10, 25), (12, 5)])
def test_every_prompt_comes_once_in_every_pass_whatever_the_run(available: int, count: int) -> None:
    dealt = [row for t in range(1, 13) for row in iteration_rows(available, count, t, seed=5)]
    assert len(dealt) == 12 * count
    whole = len(dealt) // available
    for p in range(whole):
        assert sorted(dealt[p * available : (p + 1) * available]) == list(range(available))
    tail = dealt[whole * available :]
    assert len(set(tail)) == len(tail)


@pytest.mark.parametrize(("available", "count"), [(7, 3), (3, 7), (8, 4)])
def test_after_any_iteration_no_prompt_was_seen_more_than_once_more_than_another(available: int, count: int) -> None:
    seen = Counter(dict.fromkeys(range(available), 0))
    for t in range(1, 20):
        seen.update(iteration_rows(available, count, t, seed=1))
        assert max(seen.values()) - min(seen.values()) <= 1
        assert sum(seen.values()) == t * count


def test_an_iteration_is_the_same_asked_alone_or_again_and_is_plain_numbers() -> None:
    forwards = [iteration_rows(9, 4, t, seed=2) for t in range(1, 8)]
    backwards = [iteration_rows(9, 4, t, seed=2) for t in range(7, 0, -1)]
    assert forwards == backwards[::-1]
    assert all(type(row) is int for rows in forwards for row in rows)


def test_the_order_does_not_depend_on_how_it_is_cut() -> None:
    by_four = [row for t in range(1, 7) for row in iteration_rows(10, 4, t, seed=0)]
    by_six = [row for t in range(1, 5) for row in iteration_rows(10, 6, t, seed=0)]
    assert by_four == by_six


def test_seeds_and_passes_are_shuffled_differently() -> None:
    orders = [tuple(iteration_rows(30, 30, p, seed)) for seed in range(4) for p in range(1, 5)]
    assert len(set(orders)) == 16


@pytest.mark.parametrize(("size", "held"), [(2, 1), (5, 1), (8, 2), (25, 5), (100, 20)])
def test_a_fifth_and_at_least_one_is_held_out_and_ids_do_not_matter(tmp_path: Path, size: int, held: int) -> None:
    splits = []
    for prefix in ("a", "b"):
        path = tmp_path / f"{prefix}.jsonl"
        lines = [json.dumps({"prompt": f"say {i}", "id": f"{prefix}{i}"}) for i in range(size)]
        path.write_text("\n\n".join(lines))
        splits.append({r.prompt: r.split for r in read_prompts(str(path), seed=0)})
    assert Counter(splits[0].values()) == {"heldout": held, "train": size - held}
    assert splits[0] == splits[1]


def test_a_judge_of_judges_is_labelled_by_its_members() -> None:
    members = [{"name": "panel", "panel": "/far/away/one.yaml"}, "human"]
    judge = Variant("ensemble", {"judges": members, "weights": [3, 1]})
    assert judge.label == "ensemble(judges=panel(panel=one)+human,weights=3+1)"
