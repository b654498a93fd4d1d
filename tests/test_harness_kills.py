"""Whatever is killed, whenever: the same bytes, nothing computed twice, no process and no half artifact left."""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from socket import gethostname
from typing import Any

import pytest
from chat_server import Act, ChatServer, completion
from conftest import Ended, Workspace, check_refused
from kills_world import CALLS, STUCK, Killer, artifacts, finished, graph

from harness.run.lock import LOCK, locked

PATIENCE = 20.0
"""Seconds in which orphans must end; a loaded machine takes some to start a process that then sees it is one."""
GAME: dict[str, Any] = {
    "policy": {"game": "cyc3"},
    "prompts": None,
    "matrix": {"trainer": ["omd"], "judge": ["game"]},
    "leaderboards": ["duality-gap"],
    "training": {"lr": 0.2},
}
KEEPS_EVERY_SECOND = importlib.util.find_spec("harness.store.verdicts") is not None

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are found in /proc")


@pytest.fixture
def judge() -> Iterator[ChatServer]:
    def script(words: str, tries: int, body: object) -> Act:
        number = sum(words.encode())
        return Act(completion("AB"[number % 2], 0.2 + number % 7 / 10), delay=0.02)

    with ChatServer(script) as server:
        yield server


def killer(folder: Path, judge: ChatServer, seed: int = 0) -> Killer:
    program = Path(__file__).with_name("kills_world.py")
    command = [sys.executable, str(program), str(folder / "store"), str(folder / "out")]
    return Killer(command, folder / "store", judge.url, seed)


def begun(world: Killer) -> list[str]:
    """Titles of the stages that workers began, in order."""
    log = world.store / "log"
    return log.read_text().splitlines() if log.exists() else []


def run_to_the_end(world: Killer, kills: int, errors: Path) -> None:
    """Start it until it has ended well, with at most so many kills; no finished stage begins again."""
    titles = {stage.key: stage.title for stage in graph()}
    code: int | None = None
    while code != 0:
        there, before = {titles[key] for key in finished(world.store)}, len(begun(world))
        code = world.run(errors, min(5, kills - sum(world.victims.values())))
        assert code in (None, 0, 1)  # killed, done, or a stage whose worker was killed twice
        assert not there & set(begun(world)[before:])
        assert "Traceback" not in errors.read_text()
        assert world.left_over(PATIENCE) == []


@pytest.mark.parametrize("kills", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_stages_that_are_killed_at_random_end_with_the_same_bytes_and_none_is_computed_twice(
    tmp_path: Path, judge: ChatServer, kills: int
) -> None:
    whole = killer(tmp_path / "whole", judge)
    started = time.monotonic()
    assert whole.run(tmp_path / "errors", 0) == 0
    longest = time.monotonic() - started
    expected = artifacts(whole.store)
    assert len(expected) == len(graph())
    assert judge.total == CALLS * len(graph())
    for attempt in itertools.count():  # a run may end before its first kill
        if not kills:
            break
        world = killer(tmp_path / f"{attempt}", judge, seed=attempt)
        world.longest = longest
        run_to_the_end(world, kills, tmp_path / "errors")
        kills -= sum(world.victims.values())
        assert artifacts(world.store) == expected
        if list((world.store / "tmp").iterdir()):  # of workers that were killed in the last run
            assert world.run(tmp_path / "errors", 0) == 0
        assert list((world.store / "tmp").iterdir()) == []


def test_a_worker_in_a_call_without_end_ends_with_its_driver(tmp_path: Path, judge: ChatServer) -> None:
    world = killer(tmp_path, judge)
    world.command.append(STUCK)
    driver = world.start(tmp_path / "errors")
    while not begun(world):
        assert driver.poll() is None
        time.sleep(0.05)
    driver.kill()
    driver.wait()
    assert world.left_over(PATIENCE) == []


def test_a_second_sweep_into_a_folder_is_refused_with_the_firsts_process_until_that_is_dead(
    tmp_path: Path, judge: ChatServer, nashbench: Callable[..., Ended]
) -> None:
    workspace = Workspace(tmp_path, tmp_path / "no model")
    world = killer(tmp_path, judge)
    world.command.append(STUCK)
    driver = world.start(tmp_path / "errors")
    while not begun(world):
        assert driver.poll() is None
        time.sleep(0.05)
    arguments = workspace.arguments(workspace.config(**GAME), out=tmp_path / "out")
    check_refused(nashbench(*arguments), f"{tmp_path / 'out'} is in use by process {driver.pid} on {gethostname()}; ")
    driver.kill()
    driver.wait()
    with locked(tmp_path / "out"):
        assert f'"pid": {os.getpid()}' in (tmp_path / "out" / LOCK).read_text()
    assert world.left_over(PATIENCE) == []


# --- the command line --------------------------------------------------------------------------------------------

LINE = re.compile(r"^\[\d+/\d+\] (.+): [\d.]+ s", re.MULTILINE)
"""What is printed of a stage that was computed."""


def titles_there(out: Path, store: Path) -> set[str]:
    """Titles of the cells' stages whose artifacts are in the store."""
    there = finished(store)
    cells = json.loads((out / "cells.json").read_text()) if (out / "cells.json").exists() else []
    return {stage["name"] for cell in cells for stage in cell["stages"] if stage["key"] in there}


@pytest.mark.slow
def test_a_sweep_with_a_paid_judge_that_is_killed_at_random_ends_with_the_same_results(
    workspace: Workspace, judge: ChatServer
) -> None:
    llm = {"name": "llm", "model": "m", "base_url": judge.url}
    config = workspace.config(matrix={"trainer": ["dpo", "ipo-md"], "judge": [llm]}, iterations=2)
    worlds, longest = {}, 0.0
    for name, kills in (("whole", 0), ("broken", 20)):
        folder, errors = workspace.folder / name, workspace.folder / "errors"
        arguments = workspace.arguments(config, "--jobs", "2", out=folder / "out", store=folder / "store")
        world = Killer([sys.executable, "-m", "harness", *arguments], folder / "store", judge.url, 0, longest)
        calls, code, started = judge.total, None, time.monotonic()
        while code != 0:
            there = titles_there(folder / "out", world.store)
            code = world.run(errors, min(2, kills - sum(world.victims.values())))
            assert code in (None, 0, 1), errors.read_text()
            assert not there & set(LINE.findall(errors.read_text()))
            assert "Traceback" not in errors.read_text()
            assert world.left_over(PATIENCE) == []
        worlds[name], longest = (folder, judge.total - calls), time.monotonic() - started
        assert world.run(errors, 0) == 0
        assert list((world.store / "tmp").iterdir()) == []
    (whole, needed), (broken, paid) = worlds.values()
    for table in ("results.csv", "comparisons.csv", "dynamics.csv"):
        assert (broken / "out" / table).read_bytes() == (whole / "out" / table).read_bytes()
    if KEEPS_EVERY_SECOND:  # else a killed stage asks again all that it had asked
        second = 2 * 16 / 0.02  # of two workers with so many calls in flight
        assert paid <= needed + 20 * second
