"""Which stages of a planned sweep an edit, an option or another machine makes anew; nothing is computed here."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from edited_code import copy_rooms, edit_function, redocument, run

from harness.config import Config
from harness.planning.comparisons import comparison_stages
from harness.planning.plan import Plan, make_plan
from harness.run.devices import machine
from harness.stages.answer import Answer
from trainers.algorithm import Schedule
from trainers.algorithms.ipo_md import IPOMD

BOARDS = ("alpaca-eval", "arena-hard", "mt-bench", "head-to-head")
SERVED = {"name": "llm", "model": "m", "base_url": "http://localhost:1/v1"}
GRADERS = ["panel", "llm", SERVED | {"protocol": "mt-bench", "label": "rater"}]
ASK = "import json, test_harness_keys as test; print(json.dumps([test.keys(test.planned()), test.machine()]))"
SHARED = {
    f"{stage}: pocket~onpo~{judge}~s0: iteration 1, {title}"
    for judge in ("panel", "llm")
    for stage, title in (("sample", "sample"), ("pair", "compare"), ("score", "score auxiliary"))
}
"""What ONPO and DPO share in iteration 1, named after the first of them; the sample is shared by both judges too."""


def planned(**changes: Any) -> Plan:
    """The plan of a pocket sweep with these keys changed."""
    config = {
        "name": "keys",
        "policy": "pocket",
        "matrix": {"trainer": ["onpo", "dpo", "ipo-md"], "judge": ["panel", "llm"]},
        "iterations": 2,
        "graders": GRADERS,
        "leaderboards": BOARDS,
    }
    return make_plan(Config.model_validate(config | changes))


def with_boards(**options: dict[str, Any]) -> list[Any]:
    """The boards, some of them with options."""
    return [{"name": name} | options.get(name.replace("-", "_"), {}) for name in BOARDS]


def keys(plan: Plan) -> dict[str, str]:
    """Kind and title -> key of every stage, comparisons included; a title that came before gets a number."""
    stages, before = [*plan.stages, *comparison_stages(plan, lambda stage: True)], Counter[str]()
    named = {}
    for stage in stages:
        name = f"{stage.kind}: {stage.title}"
        before[name] += 1
        named[name if before[name] == 1 else f"{name} ({before[name]})"] = stage.key
    return named


def kind(name: str) -> str:
    return name.partition(":")[0]


def differing(before: dict[str, str], after: dict[str, str]) -> set[str]:
    """The stages with another key, of two plans with the same stages."""
    assert after.keys() == before.keys()
    return {name for name in before if after[name] != before[name]}


@pytest.fixture(scope="module")
def usual() -> dict[str, str]:
    return keys(planned())


def test_a_plan_of_the_sweep_has_every_kind_that_a_text_sweep_has(usual: dict[str, str]) -> None:
    assert {kind(name) for name in usual} == {
        *("pocket", "sets", "votes", "judge", "prompts"),
        *("sample", "pair", "score", "fit", "stream"),
        *("answer", "grade", "rate", "compare"),
    }
    assert len(set(usual.values())) == len(usual)
    assert SHARED & usual.keys() == SHARED - {"sample: pocket~onpo~llm~s0: iteration 1, sample"}


# --- edits of code -----------------------------------------------------------------------------------------------


@dataclass
class Copy:
    """A copy of the packages to edit, and the keys that a process which imports it plans."""

    folder: Path

    def keys(self, **variables: str) -> tuple[dict[str, str], dict[str, Any]]:
        named, device = json.loads(run(ASK, self.folder, Path(__file__).parent, variables=variables))
        return named, device

    @contextmanager
    def edited(self, *files: str, by: Callable[[Path], None]) -> Iterator[None]:
        """Files edited for a while."""
        texts = {self.folder / file: (self.folder / file).read_text() for file in files}
        for file in texts:
            by(file)
            assert file.read_text() != texts[file]
        yield
        for file, text in texts.items():
            file.write_text(text)


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copy]:
    folder = copy_rooms(tmp_path_factory.mktemp("rooms"))
    yield Copy(folder)
    shutil.rmtree(folder)


def follows(trainer: str) -> Callable[[str], bool]:
    """What a trainer's loss decides: all that only its cells have, and the comparisons with them."""
    return lambda name: (f"~{trainer}~" in name and name not in SHARED) or kind(name) == "compare"


def of_board(board: str, *kinds: str) -> Callable[[str], bool]:
    return lambda name: board in name and kind(name) in kinds


EDITS: dict[str, tuple[str, str, Callable[[str], bool]]] = {
    "ONPO's loss": ("trainers/algorithms/onpo.py", "loss", follows("onpo")),
    "what DPO rests on": ("trainers/algorithms/contrastive.py", "log_ratio", follows("dpo")),
    "IPO-MD's loss": ("trainers/algorithms/ipo_md.py", "loss", follows("ipo-md")),
    "a protocol's parser": ("judges/protocols/mt_bench.py", "read", lambda name: "by rater" in name),
    "the trained judge's parser": (
        "judges/protocols/custom.py",
        "read",
        lambda name: "by llm" in name or "judge llm" in name or "~llm~" in name or kind(name) == "compare",
    ),
    "a board's rule": ("leaderboards/boards/arena_hard.py", "rate", of_board("arena-hard", "rate")),
    "a board's values": ("leaderboards/boards/arena_hard.py", "by_prompt", of_board("arena-hard", "compare")),
    "a board's grading": (
        "leaderboards/boards/arena_hard.py",
        "grade",
        of_board("arena-hard", "grade", "rate", "compare"),
    ),
    "a board's questions": (
        "leaderboards/boards/arena_hard.py",
        "requests",
        of_board("arena-hard", "answer", "grade", "rate", "compare"),
    ),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_of_code_changes_what_depends_on_it_and_nothing_else(
    rooms: Copy, usual: dict[str, str], edit: str
) -> None:
    file, function, depends = EDITS[edit]
    with rooms.edited(file, by=lambda path: edit_function(path, function)):
        after, _ = rooms.keys()
    expected = {name for name in usual if depends(name)}
    assert expected
    assert differing(usual, after) == expected


def test_comments_docstrings_layout_another_machine_and_other_threads_change_nothing(
    rooms: Copy, usual: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = tmp_path / "nvidia-smi"
    gpu.write_text("#!/bin/sh\necho 'NVIDIA Stand-in'\n")
    gpu.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    files = {file for file, _, _ in EDITS.values()} | {"trainers/algorithms/dpo.py", "judges/kinds/panel.py"}
    with rooms.edited(*files, by=redocument):
        after, device = rooms.keys(OMP_NUM_THREADS="7")
    assert device == {"device": "NVIDIA Stand-in", "threads": 7} != machine()
    assert differing(usual, after) == set()


# --- options -----------------------------------------------------------------------------------------------------


def test_options_of_speed_and_memory_change_nothing(usual: dict[str, str]) -> None:
    training = {"micro_batch_size": 3, "gradient_checkpointing": True}
    assert differing(usual, keys(planned(sampling={"batch_size": 7}, training=training))) == set()


def test_a_template_changes_what_its_judge_grades_and_nothing_else(usual: dict[str, str]) -> None:
    def asked(template: str) -> dict[str, str]:
        return keys(planned(graders=[*GRADERS, SERVED | {"template": template, "label": "asker"}]))

    before = asked("{{ prompt }} {{ first }} {{ second }} {{ labels }}")
    after = asked("{{ prompt }}: {{ first }} {{ second }} {{ labels }}")
    assert before.items() >= usual.items()  # and another grader leaves all else as it is
    assert differing(before, after) == before.keys() - usual.keys()
    assert {kind(name) for name in before.keys() - usual.keys()} == {"grade", "rate", "compare"}


@pytest.mark.parametrize(
    ("trainers", "training"),
    [(["onpo", "dpo"], {}), (["ipo-md", "dpo"], {"schedule": "constant", "warmup": 0.0})],
    ids=["refits", "a stream whose learning rate does not look to the end"],
)
def test_a_third_iteration_makes_nothing_of_the_first_two_anew(trainers: list[str], training: dict[str, Any]) -> None:
    changes = {"matrix": {"trainer": trainers, "judge": ["panel", "llm"]}, "training": training}
    two, three = (keys(planned(**changes, iterations=count)) for count in (2, 3))
    gone = {name for name, key in two.items() if key not in set(three.values())}
    last = {name for name in two if "iteration 2" in name}
    rest = {name for name in last if kind(name) in ("answer", "grade") and "the rest" in name}
    rated = {name for name in last if kind(name) == "rate"}
    assert len(rest) == 2 * 2 * len(BOARDS) * (1 + len(GRADERS))
    assert gone == rest | rated | {name for name in two if kind(name) == "compare"}
    assert rest & three.keys() == set()  # these are not asked; the scores are of the curve's questions now
    assert rated < three.keys()


def test_epochs_are_of_refits_without_a_number_of_steps_which_is_of_all(usual: dict[str, str]) -> None:
    refits = {name for name in usual if follows("onpo")(name) or follows("dpo")(name)}
    assert differing(usual, keys(planned(training={"epochs": 2}))) == refits
    streams = {name for name in usual if follows("ipo-md")(name)}
    steps = keys(planned(training={"steps_per_iteration": 5}))
    assert differing(usual, steps) == refits | streams
    assert differing(steps, keys(planned(training={"steps_per_iteration": 5, "epochs": 2}))) == set()
    assert differing(usual, keys(planned(training={"steps_per_iteration": None}))) == set()


def test_the_number_of_samples_reaches_no_answers_but_of_what_was_trained_on_them_and_the_longest_of_k(
    usual: dict[str, str],
) -> None:
    found = differing(usual, keys(planned(sampling={"k": 4})))
    asked = {name for name in found if kind(name) == "answer"}
    assert asked == {
        name for name in usual if kind(name) == "answer" and any(f"~{t}" in name for t in ("onpo", "dpo", "longest"))
    }
    assert not any("~ipo-md~" in name and kind(name) != "compare" for name in found)


def test_a_stream_whose_learning_rate_falls_towards_the_end_is_another_one_with_more_iterations() -> None:
    matrix = {"trainer": ["ipo-md"], "judge": ["panel"]}
    stream = "stream: pocket~ipo-md~panel~s0: iteration 1, stream"
    two, three = (keys(planned(matrix=matrix, iterations=count)) for count in (2, 3))
    assert two[stream] != three[stream]


def test_limits_make_other_parts_of_one_board_and_leave_every_answers_seed() -> None:
    def seeds(**options: dict[str, Any]) -> dict[str, int]:
        plan = planned(leaderboards=with_boards(**options))
        return {stage.title: stage.seed for stage in plan.stages if isinstance(stage, Answer)}

    usual, limited = seeds(), seeds(alpaca_eval={"curve_limit": 16}, head_to_head={"limit": 64})
    assert limited == usual


def test_a_boards_limits_change_no_other_boards_stages(usual: dict[str, str]) -> None:
    found = differing(usual, keys(planned(leaderboards=with_boards(alpaca_eval={"curve_limit": 16}))))
    assert found == {name for name in usual if of_board("alpaca-eval", "answer", "grade", "rate", "compare")(name)}


# --- draws -------------------------------------------------------------------------------------------------------


def test_no_two_policies_controls_baselines_or_boards_share_their_draws() -> None:
    """Else the untrained policy is compared with its own answers, and ties with itself on every prompt."""
    answers = [stage for stage in planned().stages if isinstance(stage, Answer) and stage.constant is None]
    seeds: dict[str, set[int]] = {}
    for stage in answers:
        seeds.setdefault(stage.title.removesuffix(" the rest"), set()).add(stage.seed)
    assert all(len(of_both_parts) == 1 for of_both_parts in seeds.values())  # drawn by the question alone
    assert len(set.union(*seeds.values())) == len(seeds)
    untrained = [title for title in seeds if "iteration 0, head-to-head" in title or "untrained" in title]
    assert len(untrained) == 4  # the policy itself, its two controls, and what they are compared with


def test_what_is_sampled_from_a_mixture_depends_on_the_mixture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(IPOMD, "schedule", Schedule.REFIT)
    trainers = ["dpo", {"name": "ipo-md", "mixture": [0, 0.25, 0.5]}]
    plan = planned(matrix={"trainer": trainers, "judge": ["panel"]}, iterations=1, pairs={"protocol": "tournament"})
    samples = [stages[0] for cell in plan.cells for stages in cell.training.values()]
    assert len(samples) == 4
    dpo, alone, quarter, half = samples
    assert alone.key == dpo.key  # without a share of the reference it is the policy's own sample
    assert len({sample.key for sample in (alone, quarter, half)}) == 3
    assert len({sample.seed for sample in (alone, quarter, half)}) == 3
    assert set(quarter.inputs) == {"policy", "reference", "prompts"}
    assert "reference" not in alone.inputs
