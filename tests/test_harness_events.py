"""What a sweep's events add up to: cells' states, a file of them written seldom and whole, messages of any text."""

from __future__ import annotations

import errno
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_stages import fake

from harness.errors import REASON_LIMIT, UserError, os_error_message, printable
from harness.matrix import Cell, Variant
from harness.planning.records import CellPlan, Rated
from harness.run import events, files
from harness.run.events import Broadcast, CellStates, SweepRecord
from harness.run.executor import failure_file
from harness.run.files import clear_parts, write_atomically
from harness.run.worker import failure_message
from harness.stage import Stage


def cell(seed: int = 0, shared: Sequence[Stage] = ()) -> CellPlan:
    """A cell of a shared stage or a sample of its own, a fit, answers and a grade."""
    plan = CellPlan(Cell("pocket", Variant("dpo", {"beta": 0.5}), Variant("panel", {}), seed), None)
    sample = shared[0] if shared else fake("sample", {"seed": seed})
    fit = fake("fit", {"seed": seed}, {"pairs": sample}, title=f"fit {seed}")
    answer = fake("answer", {"seed": seed}, {"policy": fit})
    plan.training[1] = [sample, fit]
    plan.answers["board", 1, "curve"] = answer
    grade = fake("grade", {"seed": seed}, {"answers": answer})
    plan.rated = [Rated(grade, {}, "board", "panel", 1)]
    return plan


def read(states: CellStates) -> list[dict[str, Any]]:
    return list(json.loads(states.json()))


# --- states ------------------------------------------------------------------------------------------------------


def test_a_cell_is_missing_then_running_then_done() -> None:
    plan = cell()
    states = CellStates([plan])
    assert states.counts == {"missing": 1}
    sample, fit, *rest = plan.stages
    states.update(sample.key, "running")
    assert states.counts == {"running": 1}
    states.update(sample.key, "done")
    states.update(fit.key, "running")
    (state,) = read(states)
    assert [stage["state"] for stage in state["stages"]] == ["done", "running", "missing", "missing"]
    for stage in (fit, *rest):
        states.update(stage.key, "done")
    (state,) = read(states)
    assert (state["state"], state["reason"], states.counts) == ("done", "", {"done": 1})
    assert states.done == {stage.key for stage in plan.stages}


def test_a_failure_outweighs_what_runs_and_gives_the_first_reason_and_what_is_there_stays_done() -> None:
    plan = cell()
    sample, fit, answer, grade = plan.stages
    states = CellStates([plan], {grade.key})
    states.update(sample.key, "running")
    states.update(answer.key, "failed", "no fit")
    states.update(fit.key, "failed", "no judge")
    states.update(grade.key, "failed", "no fit")
    (state,) = read(states)
    assert (state["state"], state["reason"]) == ("failed", "no judge")
    assert [stage["state"] for stage in state["stages"]] == ["running", "failed", "failed", "done"]


def test_a_shared_stage_reaches_every_cell_that_needs_it_and_anothers_failure_no_other() -> None:
    sample = fake("sample", {})
    plans = [cell(seed, [sample]) for seed in range(3)]
    states = CellStates(plans)
    states.update(sample.key, "running")
    assert states.counts == {"running": 3}
    states.update(sample.key, "done")
    states.update(plans[0].training[1][1].key, "failed", "gone")
    states.update(fake("compare", {}).key, "failed", "no cell's")
    assert [(s["state"], s["reason"], s["seed"]) for s in read(states)] == [
        ("failed", "gone", 0),
        ("missing", "", 1),
        ("missing", "", 2),
    ]


def test_a_state_names_the_cell_and_its_stages_by_title_or_kind() -> None:
    (state,) = read(CellStates([cell()]))
    names = ("cell", "label", "algorithm", "policy", "trainer", "options", "judge", "seed", "state", "reason", "stages")
    assert tuple(state) == names
    assert [state[k] for k in ("policy", "trainer", "judge")] == ["pocket", "dpo(beta=0.5)", "panel"]
    assert [stage["name"] for stage in state["stages"]] == ["sample", "fit 0", "answer", "grade"]


def test_a_change_renders_only_the_cells_that_need_the_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    plans = [cell(seed) for seed in range(50)]
    states, rendered = CellStates(plans), list[int]()
    states.json()

    def dumps(value: dict[str, Any]) -> str:
        rendered.append(value["seed"])
        return json.dumps(value)

    monkeypatch.setattr(events, "json", SimpleNamespace(dumps=dumps))
    states.update(plans[7].training[1][1].key, "running")
    states.json()
    states.json()
    assert rendered == [7]


# --- the record of a sweep ---------------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(events, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were written, in order."""
    names: list[str] = []

    def write(path: Path, text: str) -> None:
        names.append(path.name)
        write_atomically(path, text)

    monkeypatch.setattr(events, "write_atomically", write)
    return names


def test_cells_are_written_at_most_once_a_second_and_at_both_ends(
    tmp_path: Path, clock: SimpleNamespace, written: list[str]
) -> None:
    plans = [cell(seed) for seed in range(100)]
    record = SweepRecord(CellStates(plans), tmp_path)
    with record:
        for plan in plans:
            for stage in plan.stages:
                record.started(stage)
                record.finished(stage, computed=True)
                clock.now += 0.01
        assert len(written) == 1 + 3  # at the start, and in a little less than 4 s
        record.tick()
        clock.now += 1.0
        for _ in range(5):
            record.tick()
        assert len(written) == 1 + 4  # what the last events changed, without another event
    assert len(written) == 1 + 4 + 1
    assert {c["state"] for c in json.loads((tmp_path / "cells.json").read_text())} == {"done"}
    assert len(record.executed) == 400


def test_what_runs_when_a_sweep_is_interrupted_is_missing_afterwards(tmp_path: Path) -> None:
    plan = cell()
    record = SweepRecord(CellStates([plan]), tmp_path)
    with record:  # an interruption leaves it as any other end
        record.started(plan.stages[0])
        record.finished(plan.stages[0], computed=True)
        record.started(plan.stages[1])
    (state,) = json.loads((tmp_path / "cells.json").read_text())
    assert [stage["state"] for stage in state["stages"]] == ["done", "missing", "missing", "missing"]


def test_a_disk_that_is_full_for_a_while_loses_no_state_and_one_full_at_the_end_is_named(
    tmp_path: Path, clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = [False]

    def write(path: Path, text: str) -> None:
        if full[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        path.write_text(text)

    monkeypatch.setattr(events, "write_atomically", write)
    plan = cell()
    record = SweepRecord(CellStates([plan]), tmp_path)
    record.__enter__()
    full[0], clock.now = True, clock.now + 2
    record.started(plan.stages[0])
    full[0], clock.now = False, clock.now + 2
    record.tick()
    (state,) = json.loads((tmp_path / "cells.json").read_text())
    assert state["state"] == "running"
    full[0] = True
    with pytest.raises(OSError, match="No space left"):
        record.__exit__()


def test_a_bugs_traceback_is_a_file_and_a_users_error_has_none(tmp_path: Path) -> None:
    first, second = (plan := cell()).stages[:2]
    record = SweepRecord(CellStates([plan]), tmp_path)
    record.failed(first, "KeyError: x", "Traceback ... KeyError")
    record.failed(second, "the file is empty", "")
    assert record.reasons == {first.key: "KeyError: x", second.key: "the file is empty"}
    (file,) = (tmp_path / "failures").iterdir()
    assert file == tmp_path / failure_file(first)
    assert file.read_text() == "KeyError: x\n\nTraceback ... KeyError"
    assert len(file.name) < 40


def test_every_listener_hears_every_event() -> None:
    heard: list[tuple[str, str]] = []

    class Listener:
        def __init__(self, name: str) -> None:
            self.name = name

        def __getattr__(self, event: str) -> Any:
            return lambda *facts: heard.append((self.name, event))

    both, stage = Broadcast(Listener("a"), Listener("b")), fake("fit", {})
    both.started(stage)
    both.progressed(stage, 1, 2)
    both.retried(stage, "")
    both.finished(stage, True)
    both.failed(stage, "", "")
    both.tick()
    kinds = ("started", "progressed", "retried", "finished", "failed", "tick")
    assert heard == [(name, kind) for kind in kinds for name in "ab"]


# --- files -------------------------------------------------------------------------------------------------------


def test_a_file_that_cannot_be_written_is_named_stays_as_it_was_and_leaves_no_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    write_atomically(tmp_path / "cells.json", "old")
    monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(OSError, match="No space left") as error:
        write_atomically(tmp_path / "cells.json", "new")
    assert error.value.filename == str(tmp_path / "cells.json")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("cells.json", "old")]


def test_two_writers_of_a_file_use_two_names_and_what_killed_ones_left_is_cleared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "replace", lambda source, target: sources.append(source.name))
        for _ in range(2):
            write_atomically(tmp_path / "cells.json", "text")
    assert len(set(sources)) == 2
    assert {file.name for file in tmp_path.iterdir()} == set(sources)
    (tmp_path / "cells.json").touch()
    clear_parts(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["cells.json"]


# --- errors ------------------------------------------------------------------------------------------------------

NASTY = ["\ud800 lone", "a\0b", "\x1b[31mred", "\u202etxet", "x" * 1_000_000, "\ud800" * 1_000_000]


@pytest.mark.parametrize("text", NASTY, ids=range(len(NASTY)))
def test_any_text_becomes_one_that_can_be_printed_and_written(text: str) -> None:
    shown = printable(text)
    shown.encode("utf-8")
    assert len(shown) < 6 * REASON_LIMIT + 100
    assert not any(character in shown for character in "\0\x1b\u202e\ud800")
    assert printable(shown, len(shown)) == shown


def test_ordinary_text_stays_as_it_is_and_a_long_one_keeps_both_ends() -> None:
    text = "Über π\tand 漢字\u3000🙂\nsecond line"
    assert printable(text) == text
    assert printable("a" * 60 + "b" * 60, 20) == "a" * 10 + " [... 100 characters ...] " + "b" * 10


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (UserError("x.yaml: no key"), ("failed", "x.yaml: no key")),
        (FloatingPointError("lower training.lr"), ("failed", "lower training.lr")),
        (ChildProcessError("rank 1 was ended"), ("failed", "rank 1 was ended")),
        (FileNotFoundError(2, "No such file", "/a/b"), ("failed", "/a/b: No such file")),
        (OSError(28, "No space left on device", "/a"), ("unwritable", 28, "No space left on device", "/a")),
        (OSError(errno.EROFS, "Read-only"), ("unwritable", errno.EROFS, "Read-only", None)),
        (
            RuntimeError("io: No space left on device (28)"),
            ("unwritable", 28, "io: No space left on device (28)", None),
        ),
        (ValueError("5 rows, 4 columns"), ("bug", "ValueError: 5 rows, 4 columns")),
        (OSError("no such model"), ("bug", "OSError: no such model")),
        (KeyError("a"), ("bug", "KeyError: 'a'")),
        (Unspeakable(), ("bug", "Unspeakable: (its text cannot be read)")),
    ],
)
def test_an_error_is_the_users_the_environments_or_a_bug_with_its_type_and_traceback(
    error: Exception, message: tuple[Any, ...]
) -> None:
    told = failure_message(error)
    assert told[: len(message)] == message
    assert (len(told) > len(message)) is (told[0] == "bug")
    assert told[0] != "bug" or type(error).__name__ in told[-1]


def test_a_full_disk_and_a_forbidden_place_have_a_fix_each() -> None:
    assert os_error_message(OSError(28, "No space left on device", "/x")) == (
        "/x: No space left on device; free some and run again; what was computed is kept"
    )
    assert "can be read or written" in os_error_message(PermissionError(13, "Permission denied", "/x"))
