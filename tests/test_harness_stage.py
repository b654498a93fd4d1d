"""Keys and seeds: everything that determines a result is in its key, everything that determines a draw in its seed."""

from __future__ import annotations

import dataclasses
import importlib
import json
import pickle
import pkgutil
from dataclasses import dataclass
from typing import Annotated, Any

import pytest
from fake_stages import FakeStage, fake
from pydantic import BaseModel, Field

import harness.stages
from harness.identity import Artifact, canonical, changed_options
from harness.specs import Checkpoint, ComponentSpec
from harness.stage import Facts, Stage, fact, in_order, not_in_seed
from harness.stages.context import Context
from trainers.options import Sampling, Training


def kinds() -> list[type[Stage]]:
    """Every kind of stage that the harness has."""
    for module in pkgutil.iter_modules(harness.stages.__path__):
        importlib.import_module(f"harness.stages.{module.name}")
    return [kind for kind in Stage.__subclasses__() if kind.__module__.startswith("harness.stages.")]


@dataclass(frozen=True, kw_only=True, eq=False)
class Cook(Stage):
    kind = "cook"
    version = 1

    dish: str
    salt: float = 0.0
    part: str = not_in_seed("whole")
    kitchen: str = fact("")
    policy: Checkpoint | None = None
    judge: ComponentSpec | None = None
    reads: Stage | None = None

    def run(self, context: Context) -> Facts:
        return {}


class CookAgain(Cook):
    version = 2


def judge(**changes: Any) -> ComponentSpec:
    spec = ComponentSpec("judges", "panel", {"panel": "/a/panel.yaml"}, "panel", {"contents": "1f"}, "code 1")
    return dataclasses.replace(spec, **changes)


# --- keys --------------------------------------------------------------------------------------------------------


def test_every_kind_has_a_name_of_its_own() -> None:
    names = [kind.kind for kind in kinds()]
    assert len(names) >= 18
    assert len(set(names)) == len(names)


def test_a_key_changes_with_every_single_option_and_a_change_reaches_all_that_follow() -> None:
    def chain(option: object) -> list[str]:
        stage, keys = fake("pocket", {"seed": option}), []
        for i in range(4):
            stage = fake("fit", {"i": i}, {"start": stage})
            keys.append(stage.key)
        return keys

    values = [0, 1, "0", True, [0], [[0]], {"a": 0}, 0.5]
    for keys in zip(*map(chain, values), strict=True):
        assert len(set(keys)) == len(values)


def test_a_key_tells_which_input_is_which() -> None:
    a, b = fake("pocket", {"seed": 0}), fake("pocket", {"seed": 1})
    assert fake("grade", {}, {"x": a, "y": b}).key != fake("grade", {}, {"x": b, "y": a}).key
    assert fake("grade", {}, {"x": a, "y": b}).key == fake("grade", {}, {"y": b, "x": a}).key


def test_kind_version_and_options_are_in_the_key_titles_and_facts_are_not() -> None:
    usual = Cook(dish="soup")
    assert Cook(dish="soup", title="lunch", kitchen="upstairs").key == usual.key
    others = [Cook(dish="stew"), Cook(dish="soup", salt=1.0), Cook(dish="soup", part="half"), CookAgain(dish="soup")]
    assert len({usual.key, *(other.key for other in others)}) == 5


def test_an_option_at_its_first_default_is_as_if_it_were_not_there() -> None:
    @dataclass(frozen=True, kw_only=True, eq=False)
    class Later(Stage):
        kind = "cook"
        dish: str
        salt: float = dataclasses.field(default=0.5, metadata={"first_default": 0.0})
        pepper: float = 0.0

        def run(self, context: Context) -> Facts:
            return {}

    assert Later(dish="soup", salt=0.0).key == Cook(dish="soup").key
    assert Later(dish="soup").key == Cook(dish="soup", salt=0.5).key
    assert Later(dish="soup", salt=0.0, pepper=0.1).key != Cook(dish="soup").key


def test_groups_of_options_name_what_differs_from_the_first_default_and_changes_a_result() -> None:
    class Group(BaseModel):
        lr: Annotated[float, Field(json_schema_extra={"first_default": 1.0})] = 2.0
        jobs: Annotated[int, Field(json_schema_extra={"in_key": False})] = 1
        name: str = "a"

    assert changed_options(Group(lr=1.0, jobs=7)) == {}
    assert changed_options(Group(name="b")) == {"lr": 2.0, "name": "b"}


@pytest.mark.parametrize(
    ("group", "free", "bound"),
    [
        (Sampling(), {"batch_size": 3}, {"temperature": 0.5, "top_p": 0.9, "max_tokens": 5, "k": 4, "engine": "vllm"}),
        (
            Training(),
            {"micro_batch_size": 2, "gradient_checkpointing": True, "accelerate": "a.yaml"},
            {"lr": 1e-3, "epochs": 2, "batch_size": 8, "max_length": 99, "precision": "fp32", "optimizer": "rmsprop"},
        ),
    ],
)
def test_what_changes_speed_and_memory_alone_is_in_no_key(group: Any, free: dict, bound: dict) -> None:
    assert changed_options(group.model_copy(update=free)) == {}
    for name, value in bound.items():
        assert changed_options(group.model_copy(update={name: value})) == {name: value}


def test_a_component_enters_by_name_contents_and_code_and_not_by_where_its_files_are() -> None:
    usual = Cook(dish="soup", judge=judge())
    assert Cook(dish="soup", judge=judge(options={"panel": "/b/panel.yaml"}, label="mine")).key == usual.key
    changes: list[dict[str, Any]] = [{"name": "other"}, {"determines": {"contents": "2f"}}, {"code": "code 2"}]
    changes.append({"source": fake("judge", {"seed": 1})})
    assert len({usual.key, *(Cook(dish="soup", judge=judge(**c)).key for c in changes)}) == 5


def test_a_policy_of_a_stage_is_an_input_and_one_from_outside_enters_by_its_fingerprint() -> None:
    trained = fake("fit", {"lr": 1})
    stage = Cook(dish="soup", policy=Checkpoint(stage=trained))
    assert stage.inputs == {"policy": trained}
    outside = Cook(dish="soup", policy=Checkpoint(location="/m", fingerprint="abc"))
    assert outside.inputs == {}
    assert outside.key == Cook(dish="soup", policy=Checkpoint(location="/moved", fingerprint="abc")).key
    assert outside.key != Cook(dish="soup", policy=Checkpoint(location="/m", fingerprint="abd")).key


# --- seeds -------------------------------------------------------------------------------------------------------


def test_a_mended_loss_draws_what_the_old_one_drew() -> None:
    usual = Cook(dish="soup", judge=judge())
    assert Cook(dish="soup", judge=judge(code="code 2")).seed == usual.seed
    assert CookAgain(dish="soup", judge=judge()).seed == usual.seed
    assert Cook(dish="soup", judge=judge(), part="half").seed == usual.seed


def test_options_files_and_the_inputs_seeds_are_in_the_seed() -> None:
    usual = Cook(dish="soup", judge=judge(), reads=fake("fit", {"lr": 1}))
    others = [
        Cook(dish="stew", judge=judge(), reads=fake("fit", {"lr": 1})),
        Cook(dish="soup", judge=judge(determines={"contents": "2f"}), reads=fake("fit", {"lr": 1})),
        Cook(dish="soup", judge=judge(), reads=fake("fit", {"lr": 2})),
    ]
    assert len({usual.seed, *(other.seed for other in others)}) == 4
    assert 0 <= usual.seed < 2**60  # numpy and torch both take it


# --- pickles and order -------------------------------------------------------------------------------------------


def test_a_stage_travels_with_its_key_and_what_it_reads_by_name_alone() -> None:
    stage: Stage = fake("pocket")
    for i in range(500):  # deeper than anything could be pickled
        stage = Cook(dish=str(i), reads=stage, policy=Checkpoint(stage=stage), judge=judge(source=stage))
    sent = pickle.loads(pickle.dumps(stage))
    assert (sent.key, sent.seed, sent.identity) == (stage.key, stage.seed, stage.identity)
    assert sent.reads == stage.reads.alone()  # type: ignore[attr-defined]
    assert {name: source.key for name, source in sent.inputs.items()} == {
        name: source.key for name, source in stage.inputs.items()
    }
    assert all(isinstance(source, Artifact) for source in sent.inputs.values())
    assert len(pickle.dumps(stage)) < 5000


def test_a_chain_deeper_than_the_interpreters_stack_is_put_in_order() -> None:
    stage: FakeStage = fake("pocket")
    for i in range(3000):
        stage = fake("fit", {"i": i}, {"start": stage})
    assert [s.options.get("i") for s in in_order([stage])] == [None, *range(3000)]


def test_canonical_text_is_compact_sorted_at_every_depth_and_reads_back() -> None:
    value = {"b": [1, {"z": None, "a": "π"}], "a": {"d": True, "c": 0.1}}
    turned = {"a": {"c": 0.1, "d": True}, "b": [1, {"a": "π", "z": None}]}
    assert canonical(value) == canonical(turned) == '{"a":{"c":0.1,"d":true},"b":[1,{"a":"π","z":null}]}'
    assert json.loads(canonical(value)) == value
    assert canonical((1, 2)) == canonical([1, 2])
