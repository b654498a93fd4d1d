"""Several stages at once: every stage ends once and after what it reads, whoever dies, and jobs change no byte."""

from __future__ import annotations

import contextlib
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
from fake_stages import fake

from harness import registry
from harness.run import devices, local
from harness.run.devices import default_jobs, machine
from harness.run.executor import Schedule
from harness.run.local import LocalExecutor, _Worker
from harness.specs import ComponentSpec
from harness.stage import Stage
from harness.stages.gap import Gap
from harness.stages.play import Play
from harness.store.artifacts import Store
from judges.plugins import entries


@dataclass
class Heard:
    """A listener that writes down what it hears, in order."""

    events: list[tuple[str, str]] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)
    details: dict[str, str] = field(default_factory=dict)
    progress: dict[str, tuple[int, int]] = field(default_factory=dict)

    def started(self, stage: Stage) -> None:
        self.events.append(("started", stage.title))

    def progressed(self, stage: Stage, done: int, total: int) -> None:
        self.progress[stage.title] = (done, total)

    def retried(self, stage: Stage, reason: str) -> None:
        self.events.append(("retried", stage.title))

    def tick(self) -> None: ...

    def finished(self, stage: Stage, computed: bool) -> None:
        self.events.append(("computed" if computed else "found", stage.title))

    def failed(self, stage: Stage, reason: str, details: str) -> None:
        self.events.append(("failed", stage.title))
        self.reasons[stage.title], self.details[stage.title] = reason, details

    def of(self, *kinds: str) -> list[str]:
        return [title for kind, title in self.events if kind in kinds]

    def place(self, kind: str, title: str) -> int:
        return self.events.index((kind, title))


# --- the schedule, with threads in place of processes ------------------------------------------------------------


class ThreadExecutor(LocalExecutor):
    """Workers that are threads: they keep an empty artifact, fail where they are told to, or die (so many times)."""

    def __init__(
        self, store: Store, jobs: int, fail: Sequence[str] = (), die: Sequence[str] = (), deaths: int = 2
    ) -> None:
        super().__init__(store, jobs)
        self.text = "told to"
        self.fail, self.dies = fail, dict.fromkeys(die, deaths)
        self.lock, self.at_work, self.most, self.hired = threading.Lock(), 0, 0, 0

    def _spawn_worker(self) -> _Worker:
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
        with contextlib.suppress(EOFError, OSError):
            self._work(pipe)

    def _work(self, pipe: Any) -> None:
        while True:
            stage = pipe.recv()
            with self.lock:
                self.at_work += 1
                self.most = max(self.most, self.at_work)
            time.sleep(random.random() / 500)
            pipe.send(("progress", 1, 2))
            with self.lock:
                self.at_work -= 1
            if self.dies.get(stage.title, 0):
                self.dies[stage.title] -= 1
                pipe.close()
                return
            if stage.title in self.fail:
                pipe.send(("bug", f"KeyError: {self.text}", f"Traceback {self.text}"))
                continue
            with self.store.writing(stage):
                pass
            pipe.send(("done",))


def graph(seed: int, size: int = 20) -> list[Stage]:
    """Stages in an order where each comes after what it reads, some of them twice."""
    rng, stages = random.Random(seed), list[Stage]()
    for i in range(size):
        sources = rng.sample(stages, min(len(stages), rng.randrange(3)))
        stages.append(fake("fit", {"i": i}, {f"in{n}": s for n, s in enumerate(sources)}, title=f"s{i}"))
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
        assert ("told to" if title in fail else "the worker process was killed by signal 9") in heard.reasons[title]
    assert Counter(heard.of("retried")) == Counter({*die} & set(heard.of("started")))


def test_a_stage_whose_worker_dies_once_is_computed_by_a_fresh_one(tmp_path: Path) -> None:
    stages, heard = graph(0), Heard()
    with ThreadExecutor(Store(tmp_path), 2, die=["s2", "s5"], deaths=1) as executor:
        executor.execute(stages, heard)
    assert Counter(heard.of("computed")) == Counter({s.title for s in stages})
    assert Counter(heard.of("retried")) == Counter(["s2", "s5"])
    assert heard.of("failed") == []


@pytest.mark.parametrize("text", ["\ud800 lone", "a\0b", "x" * 1_000_000], ids=["surrogate", "nul", "long"])
def test_an_error_of_any_text_is_a_reason_that_can_be_written_and_leaves_the_rest_to_go_on(
    tmp_path: Path, text: str
) -> None:
    stages, heard = graph(0), Heard()
    with ThreadExecutor(Store(tmp_path), 2, fail=["s1"]) as executor:
        executor.text = text
        executor.execute(stages, heard)
    reason = heard.reasons["s1"]
    assert f"failures/fit-{stages[1].key[:12]}.txt" in reason
    assert "bug" in reason
    assert len(reason.encode()) <= 3000
    assert heard.details["s1"].encode()
    assert heard.of("computed")


class CountingStore(Store):
    """Counts how often it is asked for each stage."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.asked: Counter[str] = Counter()

    def has(self, stage: Stage) -> bool:
        self.asked[stage.key] += 1
        return super().has(stage)


def test_the_store_is_asked_once_a_stage_however_many_there_are(tmp_path: Path) -> None:
    stages = graph(0, 300)
    for turn in ("computed", "found"):
        store, heard = CountingStore(tmp_path), Heard()
        with ThreadExecutor(store, 2) as executor:
            executor.execute(stages, heard)
        assert set(store.asked.values()) == {1}
        assert len(heard.of(turn)) == 300


def test_a_chain_of_thousands_of_stages_is_no_deeper_than_a_short_one(tmp_path: Path) -> None:
    stage, stages = fake("fit", {"i": 0}), list[Stage]()
    for i in range(3000):
        stage = fake("fit", {"i": i}, {"start": stage})
        assert stage.key  # it is made of the last one's, and so never a chain of calls
        stages.append(stage)
    schedule = Schedule(stages[::-1])
    assert schedule.next_ready() is stages[0]
    assert schedule.next_ready() is None
    assert schedule.fail(stages[0]) == stages[:0:-1]
    assert schedule.unfinished == 0


def test_an_error_of_a_disk_that_is_full_ends_the_execution(tmp_path: Path) -> None:
    class FullExecutor(ThreadExecutor):
        def _receive(self, worker: _Worker) -> tuple[Any, ...]:
            message = super()._receive(worker)
            return ("unwritable", 28, "No space left on device", None) if message == ("done",) else message

    store = Store(tmp_path)
    with FullExecutor(store, 2) as executor, pytest.raises(OSError, match="No space left") as error:
        executor.execute(graph(0), Heard())
    assert error.value.filename == str(store.root)


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
CYCLE = ((0.5, 0.9, 0.2), (0.1, 0.5, 0.7), (0.8, 0.3, 0.5))


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """On this process's path, which its workers inherit."""
    monkeypatch.syspath_prepend(str(install(tmp_path / "site", "meeting-plugin", ENTRIES, MODULE)))
    for cached in (entries, registry.names):
        cached.cache_clear()
    yield tmp_path
    for cached in (entries, registry.names):
        cached.cache_clear()
    sys.modules.pop("meeting_plugin", None)


def play(title: str, name: str, **options: str) -> tuple[Stage, Stage]:
    """A game and its gap."""
    algorithm = ComponentSpec("trainers", name, options, name, options)
    board = ComponentSpec("leaderboards", "duality-gap", {}, "duality-gap", {"of": title})
    game = Play(algorithm=algorithm, preference=CYCLE, iterations=2, lr=0.2, title=title)
    return game, Gap(board=board, preference=CYCLE, game=game, title=f"{title} gap")


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
    assert Counter(heard.of("started")) == Counter(["a", "b", "a gap", "b gap", "killed", "killed"])
    assert heard.of("retried") == ["killed"]
    for name in ("a", "b"):
        assert heard.place("computed", name) < heard.place("started", f"{name} gap")
    for title in ("killed", "killed gap"):
        assert heard.reasons[title] == "killed: the worker process was killed by signal 9 (Killed)"
    assert sorted((plugin / "log").read_text().split()) == ["a", "b"]  # once each: no artifact is made twice
    assert all(folder.name.startswith("play~") for folder in (plugin / "store" / "tmp").iterdir())
    store.prepare()
    assert list((plugin / "store" / "tmp").iterdir()) == []  # the killed ones' are cleared away


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
    monkeypatch.setattr("harness.run.devices.machine", lambda: {"device": device, "threads": threads})
    monkeypatch.setattr("harness.run.devices.cores", lambda: cores)
    assert default_jobs() == jobs


@pytest.mark.parametrize(
    ("given", "device", "threads"),
    [
        *[
            (None, "cpu", 1),
            ("", "cpu", 1),
            ("3", "cpu", 3),
            ("many", "cpu", 1),
            (None, "A GPU", 12),
            ("3", "A GPU", 3),
        ],
        *[
            ("0", "cpu", 1),
            ("0", "A GPU", 12),
            ("-2", "cpu", 1),
            ("1e3", "cpu", 1),
            ("9" * 30, "cpu", 1),
            ("²", "cpu", 1),
        ],
    ],
)
def test_a_stage_on_a_cpu_has_one_thread_or_what_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, given: str | None, device: str, threads: int
) -> None:
    monkeypatch.setattr("harness.run.devices._device", lambda: device)
    monkeypatch.setattr("harness.run.devices.cores", lambda: 12)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if given is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    assert machine.__wrapped__() == {"device": device, "threads": threads}


def test_cores_are_counted_where_the_system_knows_no_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 5, 7}, raising=False)
    assert devices.cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert devices.cores() == 6


@pytest.mark.parametrize(
    ("files", "count"),
    [
        ({"proc/self/cgroup": "0::/a", "sys/fs/cgroup/a/memory.events": "low 0\noom 3\noom_kill 2\n"}, 2),
        ({"proc/self/cgroup": "4:memory:/b\n0::/", "sys/fs/cgroup/memory/b/memory.oom_control": "oom_kill 4\n"}, 4),
        ({"proc/self/cgroup": "4:cpu:/b", "proc/vmstat": "pgfault 9\noom_kill 7\n"}, 7),
        ({"proc/vmstat": "pgfault 9\n"}, None),
        ({}, None),
    ],
)
def test_the_kernels_count_of_processes_killed_for_memory_is_read_where_it_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, files: dict[str, str], count: int | None
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(devices, "Path", lambda name: tmp_path / name.lstrip("/"))
    assert devices.oom_kills() == count


@pytest.mark.parametrize(("before", "after", "told"), [(1, 2, True), (1, 1, False), (None, None, False)])
def test_a_killed_worker_is_told_as_out_of_memory_only_where_the_kernel_counted_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, before: int | None, after: int | None, told: bool
) -> None:
    monkeypatch.setattr(local, "oom_kills", lambda: after)
    process = SimpleNamespace(join=lambda *_: None, terminate=lambda: None, is_alive=lambda: False, exitcode=-9)
    executor, (ours, _) = LocalExecutor(Store(tmp_path)), Pipe()
    executor._workers.append(_Worker(process, ours, fake("fit", {}), before))
    reason = executor._exit_reason(executor._workers[0])
    assert reason.startswith("the worker process was killed by signal 9 (Killed)")
    assert ("out of memory" in reason) is told


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
    monkeypatch.setattr(local, "_start_ignoring_sigint", lambda process: seen.append(os.environ.get("OMP_WAIT_POLICY")))
    LocalExecutor(Store(tmp_path), jobs)._spawn_worker().pipe.close()
    assert seen == [policy]
