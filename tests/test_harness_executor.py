"""Several stages at once: every stage ends once and after what it reads, whoever dies, and jobs change no byte."""

from __future__ import annotations

import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import Pipe
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import Ended, InlineExecutor, Workspace, install

from harness import registry
from harness.run import local
from harness.run.local import LocalExecutor, _Worker, default_jobs
from harness.stage import Stage, machine
from harness.store.artifacts import Store


@dataclass
class Heard:
    """A listener that writes down what it hears, in order."""

    events: list[tuple[str, str]] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)
    progress: dict[str, tuple[int, int]] = field(default_factory=dict)

    def started(self, stage: Stage) -> None:
        self.events.append(("started", stage.title))

    def progressed(self, stage: Stage, done: int, total: int) -> None:
        self.progress[stage.title] = (done, total)

    def finished(self, stage: Stage, computed: bool) -> None:
        self.events.append(("computed" if computed else "found", stage.title))

    def failed(self, stage: Stage, reason: str, details: str) -> None:
        self.events.append(("failed", stage.title))
        self.reasons[stage.title] = reason

    def of(self, *kinds: str) -> list[str]:
        return [title for kind, title in self.events if kind in kinds]

    def place(self, kind: str, title: str) -> int:
        return self.events.index((kind, title))


# --- the schedule, with threads in place of processes ------------------------------------------------------------


class ThreadExecutor(LocalExecutor):
    """Workers that are threads: they keep an empty artifact, fail where they are told to, or die."""

    def __init__(self, store: Store, jobs: int, fail: Sequence[str] = (), die: Sequence[str] = ()) -> None:
        super().__init__(store, jobs)
        self.fail, self.die = fail, die
        self.lock, self.at_work, self.most, self.hired = threading.Lock(), 0, 0, 0

    def _hire(self) -> _Worker:
        ours, theirs = Pipe()
        thread = threading.Thread(target=self._serve, args=(theirs,), daemon=True)
        thread.start()
        self.hired += 1
        process = SimpleNamespace(
            is_alive=thread.is_alive, join=lambda *_: thread.join(5), terminate=lambda: None, exitcode=-9
        )
        self._workers.append(_Worker(process, ours))
        return self._workers[-1]

    def _serve(self, pipe: Any) -> None:
        while True:
            try:
                stage = pipe.recv()
            except (EOFError, OSError):
                return
            with self.lock:
                self.at_work += 1
                self.most = max(self.most, self.at_work)
            time.sleep(random.random() / 500)
            pipe.send(("progress", 1, 2))
            with self.lock:
                self.at_work -= 1
            if stage.title in self.die:
                pipe.close()
                return
            if stage.title in self.fail:
                pipe.send(("failed", "told to", "Traceback"))
                continue
            with self.store.writing(stage):
                pass
            pipe.send(("done",))


def graph(seed: int, size: int = 20) -> list[Stage]:
    """Stages in an order where each comes after what it reads, some of them twice."""
    rng, stages = random.Random(seed), list[Stage]()
    for i in range(size):
        sources = rng.sample(stages, min(len(stages), rng.randrange(3)))
        stages.append(Stage("fit", {"i": i}, {f"in{n}": s for n, s in enumerate(sources)}, title=f"s{i}"))
    return [*stages, *rng.sample(stages, 5)]


@pytest.mark.parametrize("jobs", [1, 2, 4])
@pytest.mark.parametrize("seed", range(3))
def test_every_stage_ends_once_after_what_it_reads_and_never_too_many_are_at_work(
    tmp_path: Path, seed: int, jobs: int
) -> None:
    stages, heard = graph(seed), Heard()
    with ThreadExecutor(Store(tmp_path), jobs) as executor:
        executor.execute(stages, heard)
        assert executor.most <= jobs
        assert executor.hired <= jobs
    assert Counter(heard.of("computed")) == Counter(heard.of("started")) == Counter({s.title for s in stages})
    assert heard.of("failed", "found") == []
    assert all(
        heard.place("computed", source.title) < heard.place("started", stage.title)
        for stage in stages
        for source in stage.inputs.values()
    )
    assert heard.progress == {stage.title: (1, 2) for stage in stages}


@pytest.mark.parametrize("jobs", [1, 3])
@pytest.mark.parametrize("seed", range(3))
def test_what_fails_or_dies_takes_along_only_what_needs_it(tmp_path: Path, seed: int, jobs: int) -> None:
    stages, heard = graph(seed), Heard()
    fail, die = ["s1", "s4"], ["s2", "s5"]
    lost = set[str]()
    for stage in stages:
        if stage.title in (*fail, *die) or any(source.title in lost for source in stage.inputs.values()):
            lost.add(stage.title)
    with ThreadExecutor(Store(tmp_path), jobs, fail, die) as executor:
        executor.execute(stages, heard)
    titles = {stage.title for stage in stages}
    assert Counter(heard.of("failed")) == Counter(lost)
    assert Counter(heard.of("computed")) == Counter(titles - lost)
    for title in lost - {*fail, *die}:
        assert title not in heard.of("started")
        assert heard.reasons[title].startswith(tuple(f"{cause}: " for cause in (*fail, *die)))
    for title in {*fail, *die} & set(heard.of("started")):
        assert ("told to" if title in fail else "the worker process died (signal 9)") in heard.reasons[title]


def test_what_is_there_is_found_and_nobody_is_hired_for_it(tmp_path: Path) -> None:
    stages, heard, store = graph(0), Heard(), Store(tmp_path)
    with ThreadExecutor(store, 2) as executor:
        executor.execute(stages, Heard())
    with ThreadExecutor(store, 2) as executor:
        executor.execute(stages, heard)
        assert executor.hired == 0
    assert Counter(heard.of("found")) == Counter({stage.title for stage in stages})
    assert heard.of("started", "computed", "failed") == []


# --- worker processes --------------------------------------------------------------------------------------------

MODULE = '''
import os, signal, time
from dataclasses import dataclass
from pathlib import Path

from trainers import OMD


@dataclass(frozen=True, kw_only=True)
class Meets(OMD):
    """Waits until another one is at work too."""

    folder: str
    own: str
    other: str
    name = "meets"

    def __post_init__(self):
        super().__post_init__()
        with (Path(self.folder) / "log").open("a") as log:
            log.write(self.own + "\\n")

    def loss(self, pair):
        (Path(self.folder) / self.own).touch()
        deadline = time.monotonic() + 60
        while not (Path(self.folder) / self.other).exists():
            if time.monotonic() > deadline:
                raise ValueError("nobody came")
            time.sleep(0.01)
        return super().loss(pair)


@dataclass(frozen=True, kw_only=True)
class Deadly(OMD):
    """Kills its process, as the kernel does when memory is out."""

    name = "deadly"

    def loss(self, pair):
        os.kill(os.getpid(), signal.SIGKILL)
'''
ENTRIES = "[nashbench.trainers]\nmeets = meeting_plugin:Meets\ndeadly = meeting_plugin:Deadly\n"
CYCLE = [[0.5, 0.9, 0.2], [0.1, 0.5, 0.7], [0.8, 0.3, 0.5]]


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """On this process's path, which its workers inherit."""
    monkeypatch.syspath_prepend(str(install(tmp_path / "site", "meeting-plugin", ENTRIES, MODULE)))
    for cached in (registry._entries, registry.names):
        cached.cache_clear()
    yield tmp_path
    for cached in (registry._entries, registry.names):
        cached.cache_clear()
    sys.modules.pop("meeting_plugin", None)


def play(title: str, name: str, **options: str) -> tuple[Stage, Stage]:
    """A game and its gap."""
    chosen = {"name": name, "options": options}
    run = Stage("play", {"algorithm": chosen, "preference": CYCLE, "iterations": 2, "lr": 0.2}, title=title)
    where = {"leaderboard": {"name": "duality-gap", "options": {}}}
    return run, Stage("gap", {"preference": CYCLE, "tau": 0.0, "of": title}, {"run": run}, where, f"{title} gap")


def test_two_processes_work_at_once_a_dependent_stage_waits_and_a_death_fails_only_its_own(plugin: Path) -> None:
    one, two = (play(own, "meets", folder=str(plugin), own=own, other=other) for own, other in (("a", "b"), ("b", "a")))
    stages, heard, store = [*one, *play("killed", "deadly"), *two, *one], Heard(), Store(plugin / "store")
    # The two that wait for each other come first, so that neither waits for the one that dies.
    stages.sort(key=lambda stage: stage.title == "killed")
    with LocalExecutor(store, jobs=2) as executor:
        executor.execute(stages, heard)
    assert heard.events[:2] == [("started", "a"), ("started", "b")]
    assert set(heard.of("computed")) == {"a", "b", "a gap", "b gap"}
    assert set(heard.of("failed")) == {"killed", "killed gap"}
    assert set(Counter(heard.of("computed", "found", "failed")).values()) == {1}
    assert Counter(heard.of("started")) == Counter(["a", "b", "a gap", "b gap", "killed"])
    for name in ("a", "b"):
        assert heard.place("computed", name) < heard.place("started", f"{name} gap")
    for title in ("killed", "killed gap"):
        assert heard.reasons[title].startswith("killed: the worker process died (signal 9); out of memory?")
    assert sorted((plugin / "log").read_text().split()) == ["a", "b"]  # once each: no artifact is made twice
    assert list((plugin / "store" / "tmp").glob("gap-*")) == []


@pytest.fixture
def one_thread() -> Iterator[None]:
    """This process computes as a worker does."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(machine()["threads"])
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_a_sweep_leaves_the_same_bytes_one_stage_after_the_other_and_two_at_once(
    workspace: Workspace, nashbench: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = [{"name": "panel", "panel": "panel.yaml"}]
    config = workspace.config(matrix={"trainer": ["dpo", "ipo-md"], "judge": judge})
    outs = [workspace.folder / f"jobs-{jobs}" for jobs in (1, 2)]
    for jobs, out in enumerate(outs, 1):
        with monkeypatch.context() as patched:
            if jobs == 1:
                patched.setattr("harness.run.sweep.LocalExecutor", InlineExecutor)
            folders = {"out": out, "store": workspace.folder / f"store-{jobs}"}
            ended = nashbench(*workspace.arguments(config, "--jobs", str(jobs), **folders))
        assert ended.code == 0, ended.err
    for table in ("results", "comparisons", "dynamics"):
        one, other = ((out / f"{table}.csv").read_bytes() for out in outs)
        assert one == other
        assert one.count(b"\n") > 1
    weights = [
        sorted((file.name, file.read_bytes()) for file in (workspace.folder / store).rglob("*.safetensors"))
        for store in ("store-1", "store-2")
    ]
    assert len(weights[0]) == 3  # two policies, and the state of the stream
    assert weights[0] == weights[1]


# --- how many at once --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device", "threads", "cores", "jobs"),
    [("cpu", 1, 2, 2), ("cpu", 1, 64, 8), ("cpu", 4, 16, 4), ("cpu", 4, 2, 1), ("A GPU", 16, 16, 1)],
)
def test_as_many_stages_as_cores_hold_and_one_on_a_gpu(
    monkeypatch: pytest.MonkeyPatch, device: str, threads: int, cores: int, jobs: int
) -> None:
    monkeypatch.setattr("harness.run.local.machine", lambda: {"device": device, "threads": threads})
    monkeypatch.setattr("harness.run.local.cores", lambda: cores)
    assert default_jobs() == jobs


@pytest.mark.parametrize(
    ("given", "device", "threads"),
    [(None, "cpu", 1), ("", "cpu", 1), ("3", "cpu", 3), ("many", "cpu", 1), (None, "A GPU", 12), ("3", "A GPU", 3)],
)
def test_a_stage_on_a_cpu_has_one_thread_or_what_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, given: str | None, device: str, threads: int
) -> None:
    monkeypatch.setattr("harness.stage._device", lambda: device)
    monkeypatch.setattr("harness.stage.cores", lambda: 12)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if given is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    assert machine.__wrapped__() == {"device": device, "threads": threads}


@pytest.mark.parametrize(
    ("jobs", "threads", "cores", "given", "policy"),
    [
        (3, 2, 5, None, "PASSIVE"),
        (3, 2, 6, None, None),  # as many threads as cores: to sleep would make a stage slower
        (1, 6, 5, None, "PASSIVE"),
        (3, 2, 5, "ACTIVE", "ACTIVE"),
    ],
)
def test_threads_sleep_while_they_wait_only_where_there_are_more_of_them_than_cores(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    jobs: int,
    threads: int,
    cores: int,
    given: str | None,
    policy: str | None,
) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", given or "")
    if given is None:
        monkeypatch.delenv("OMP_WAIT_POLICY")
    monkeypatch.setattr(local, "machine", lambda: {"device": "cpu", "threads": threads})
    monkeypatch.setattr(local, "cores", lambda: cores)
    seen: list[str | None] = []
    monkeypatch.setattr(local, "_start_deaf_to_ctrl_c", lambda process: seen.append(os.environ.get("OMP_WAIT_POLICY")))
    LocalExecutor(Store(tmp_path), jobs)._hire().pipe.close()
    assert seen == [policy]
