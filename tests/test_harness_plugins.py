"""Third-party packages, and the worker process: real command lines in processes of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import packages_distributions
from importlib.util import find_spec
from pathlib import Path

import pytest
from conftest import Ended, Workspace, install

from harness import registry
from judges.plugins import entries

ROOT = Path(__file__).resolve().parents[1]
MODULE = '''
"""A third-party package of trainers and a judge."""

import os, signal, time
from dataclasses import dataclass
from pathlib import Path

from judges import Judge
from judges.verdicts import Answer
from trainers import OMD


@dataclass(frozen=True, kw_only=True)
class Gentle(OMD):
    """Half a mirror step."""

    name = "gentle"

    def loss(self, pair):
        return (pair.log_ratio("previous") - self.eta / 4).square()


@dataclass(frozen=True, kw_only=True)
class Deadly(OMD):
    """Kills its process, as the kernel does when memory is out."""

    name = "deadly"

    def loss(self, pair):
        os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True, kw_only=True)
class Slow(OMD):
    """Waits as long as a file called `wait` is there, and says that it does in `waiting`."""

    folder: str = "."
    name = "slow"

    def loss(self, pair):
        while (Path(self.folder) / "wait").exists():
            (Path(self.folder) / "waiting").touch()
            time.sleep(0.02)
        return super().loss(pair)


@dataclass(eq=False)
class LongestText(Judge):
    """Prefers the longer text."""

    margin: int = 0

    def answer(self, questions, advance):
        advance(len(questions))
        return [Answer(1.0 if len(q.first) > len(q.second) + self.margin else 0.0) for q in questions]


class NoJudge:
    pass
'''
ENTRIES = """\
[nashbench.trainers]
gentle = kind_plugin:Gentle
deadly = kind_plugin:Deadly
slow = kind_plugin:Slow

[nashbench.judges]
longest-text = kind_plugin:LongestText
absent = plugin_that_is_absent:Judge
no-judge = kind_plugin:NoJudge
"""


@pytest.fixture
def plugins(tmp_path: Path) -> Path:
    return install(tmp_path / "site", "kind-plugin", ENTRIES, MODULE)


@pytest.fixture
def installed(plugins: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The package on this process's own path."""
    monkeypatch.syspath_prepend(str(plugins))
    for cached in (entries, registry.names):
        cached.cache_clear()
    yield plugins
    for cached in (entries, registry.names):
        cached.cache_clear()
    sys.modules.pop("kind_plugin", None)


def hear_ctrl_c() -> None:
    """SIGINT is inherited as ignored where these tests themselves run in the background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(workspace: Workspace, plugins: Path, config: Path, store: Path | None = None) -> subprocess.Popen[str]:
    """The sweep in a process of its own, of this checkout's code with these plug-ins."""
    path = os.pathsep.join([str(plugins), str(Path(__file__).parents[1])])
    return subprocess.Popen(
        [sys.executable, "-m", "harness", *workspace.arguments(config, store=store)],
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        cwd=workspace.folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=hear_ctrl_c,
    )


def states(workspace: Workspace) -> dict[str, tuple[str, str]]:
    cells = json.loads((workspace.out / "cells.json").read_text())
    return {c["trainer"]: (c["state"], c["reason"]) for c in cells}


def game(workspace: Workspace, *trainers: object) -> Path:
    return workspace.config(
        policy={"game": "cyc3"},
        prompts=None,
        matrix={"trainer": list(trainers), "judge": ["game"]},
        leaderboards=["duality-gap"],
        iterations=8,
    )


# --- third-party packages ----------------------------------------------------------------------------------------


def test_a_third_party_trainer_and_judge_run_in_a_sweep_like_the_built_in_ones(
    workspace: Workspace, plugins: Path
) -> None:
    matrix = {"trainer": [{"name": "gentle", "eta": [0.5, 1.0]}, "dpo"], "judge": [{"name": "longest-text"}]}
    running = start(workspace, plugins, workspace.config(matrix=matrix))
    out, err = running.communicate(timeout=300)
    assert running.returncode == 0, err
    assert states(workspace) == dict.fromkeys(
        ("sft", "constant", "longest", "gentle(eta=0.5)", "gentle(eta=1.0)", "dpo"), ("done", "")
    )
    assert Path(out.strip()).is_file()


@pytest.mark.usefixtures("installed")
def test_list_shows_third_party_names_and_a_broken_one_with_its_fault(nashbench: Callable[..., Ended]) -> None:
    judges = {item["name"]: item for item in json.loads(nashbench("list", "judges", "--json").out)}
    assert judges["longest-text"]["options"] == {"margin": 0}
    assert "panel" in judges
    fault = judges["absent"]["summary"]
    for part in ("broken", "'absent'", "plugin_that_is_absent:Judge", "kind-plugin", "ModuleNotFoundError"):
        assert part in fault
    assert "not a dataclass derived from Judge" in judges["no-judge"]["summary"]
    trainers = {item["name"]: item for item in json.loads(nashbench("list", "trainers", "--json").out)}
    assert trainers["gentle"]["summary"] == "Half a mirror step."


@pytest.mark.usefixtures("installed")
def test_a_broken_plug_in_stops_only_the_sweep_that_asks_for_it(
    workspace: Workspace, nashbench: Callable[..., Ended]
) -> None:
    asked = workspace.config(matrix={"trainer": ["dpo"], "judge": ["absent"]})
    ended = nashbench("sweep", str(asked))
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "'absent' (plugin_that_is_absent:Judge of kind-plugin) fails to import" in ended.err
    assert nashbench("plan", str(workspace.config()), "--store", str(workspace.store)).code == 0


def test_a_name_that_two_packages_claim_is_refused_with_both(
    workspace: Workspace, nashbench: Callable[..., Ended], installed: Path
) -> None:
    install(installed, "rival-plugin", "[nashbench.trainers]\ndpo = kind_plugin:Gentle\n")
    for cached in (entries, registry.names):
        cached.cache_clear()
    ended = nashbench("sweep", str(workspace.config()))
    assert ended.code == 2
    for part in (
        "'dpo' is claimed by",
        "trainers.algorithms.dpo:DPO of nashbench",
        "kind_plugin:Gentle of rival-plugin",
    ):
        assert part in ended.err


def test_an_edited_loss_of_a_plug_in_gives_a_new_result_and_a_comment_runs_nothing(
    workspace: Workspace, plugins: Path
) -> None:
    """The file is edited in place, as a researcher does: same command, same package version."""
    config, module = game(workspace, "gentle"), plugins / "kind_plugin.py"

    def run_with(source: str) -> tuple[str, str]:
        """What was executed, and the scores."""
        module.write_text(source)
        running = start(workspace, plugins, config)
        _, err = running.communicate(timeout=300)
        assert running.returncode == 0, err
        return err.splitlines()[-1], (workspace.out / "results.csv").read_text()

    _, scores = run_with(MODULE)
    commented = run_with(MODULE.replace('"""Half a mirror step."""', '"""A quarter."""  # of eta'))
    assert commented == ("0 stages executed; cells: 2 done", scores)
    executed, other_scores = run_with(MODULE.replace("self.eta / 4", "self.eta * 4"))
    assert executed == "2 stages executed; cells: 2 done"  # play and gap of the plug-in; the control's gap stays
    assert other_scores != scores


@pytest.mark.parametrize("room", ["harness", "trainers", "judges", "leaderboards", "reports"])
def test_the_rooms_are_this_distributions_own_and_no_other_package_shadows_them(room: str) -> None:
    spec = find_spec(room)
    assert spec is not None
    assert spec.origin is not None
    assert Path(spec.origin).resolve().is_relative_to(ROOT / room)
    assert set(packages_distributions().get(room, ["nashbench"])) == {"nashbench"}


# --- the worker --------------------------------------------------------------------------------------------------


def test_a_worker_that_is_killed_fails_its_cell_with_the_signal_and_the_others_go_on(
    workspace: Workspace, plugins: Path
) -> None:
    running = start(workspace, plugins, game(workspace, "deadly", "omd"))
    _, err = running.communicate(timeout=300)
    assert running.returncode == 1, err
    found = states(workspace)
    state, reason = found.pop("deadly")
    assert state == "failed"
    assert "the worker process was killed by signal 9 (Killed)" in reason
    assert found == dict.fromkeys(("sft", "omd"), ("done", ""))
    assert (workspace.out / "results.csv").is_file()


@pytest.mark.timeout(600)  # or a worker that never comes would be waited for without an end
@pytest.mark.parametrize(
    "ask_to_end", [lambda pid: os.killpg(pid, signal.SIGINT), lambda pid: os.kill(pid, signal.SIGTERM)]
)
def test_ctrl_c_and_sigterm_end_with_130_and_the_same_command_goes_on_from_there(
    workspace: Workspace, plugins: Path, ask_to_end: Callable[[int], None]
) -> None:
    (workspace.folder / "wait").touch()
    config = game(workspace, "omd", {"name": "slow", "folder": str(workspace.folder)})
    running = start(workspace, plugins, config)
    alone = ["done", "done", "running"]
    while not (workspace.folder / "waiting").exists() or [s for s, _ in states(workspace).values()] != alone:
        assert running.poll() is None, running.communicate()
        time.sleep(0.05)
    ask_to_end(running.pid)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130, err
    assert "the same command goes on from here" in err
    assert "Traceback" not in err
    assert list((workspace.store / "tmp").iterdir()) == []
    assert [state for state, _ in states(workspace).values()] == ["done", "done", "missing"]
    (workspace.folder / "wait").unlink()
    again = start(workspace, plugins, config)
    _, err = again.communicate(timeout=300)
    assert again.returncode == 0, err
    assert "2 stages executed; cells: 3 done" in err


@pytest.mark.slow
def test_ctrl_c_while_the_worker_starts_is_as_quiet(workspace: Workspace, plugins: Path) -> None:
    for seconds in (0.0, 0.03, 0.1, 0.3):
        running = start(workspace, plugins, game(workspace, "omd"))
        while not (workspace.out / "cells.json").exists():
            assert running.poll() is None, running.communicate()
            time.sleep(0.005)
        time.sleep(seconds)
        os.killpg(running.pid, signal.SIGINT)
        _, err = running.communicate(timeout=60)
        assert running.returncode == 130, err
        assert "Traceback" not in err
        (workspace.out / "cells.json").unlink()
