"""A sweep of small stages that ask a paid judge, as a program; and the processes and artifacts that it leaves.

`python tests/kills_world.py STORE OUT [stuck]` runs what is missing, or a stage that nothing but SIGKILL ends; the
judge's address is in the environment. Its workers are the real ones.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from harness.stage import Facts, Stage
from harness.stages.context import Context
from harness.store.artifacts import MANIFEST, Store

MARK = "NASHBENCH_KILLS"
CALLS = 3
"""Questions of a stage to the judge."""
STUCK = "stuck"


@dataclass(frozen=True, kw_only=True, eq=False)
class PaidStage(Stage):
    """The judge's replies and a hash of all that was read; half of a file is written before each question."""

    kind = "paid"

    name: str
    before: Mapping[str, Stage] = field(default_factory=dict)

    def run(self, context: Context) -> Facts:
        with (context.store.root / "log").open("a") as log:
            log.write(f"{self.name}\n")
        if self.name == STUCK:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
            time.sleep(600)
        digest = hashlib.sha256()
        for source in self.inputs.values():
            digest.update((context.read(source) / "replies.json").read_bytes())
        replies = []
        for number in range(CALLS):
            replies.append(_ask(f"{self.name}: question {number}"))
            (context.out / "replies.json").write_text(json.dumps([digest.hexdigest(), replies]))
            context.report(number + 1, CALLS)
        return {"calls": CALLS}


def paid(name: str, before: Mapping[str, Stage] | None = None) -> PaidStage:
    """A stage of this name and title."""
    return PaidStage(name=name, before=before or {}, title=name)


def graph() -> list[PaidStage]:
    """Four chains of three stages, and one that reads all."""
    chains: list[list[PaidStage]] = [[] for _ in range(4)]
    for step in range(3):
        for number, chain in enumerate(chains):
            chain.append(paid(f"stage {number}.{step}", {"before": chain[-1]} if chain else {}))
    last = paid("last", {f"chain {number}": chain[-1] for number, chain in enumerate(chains)})
    return [*(stage for chain in chains for stage in chain), last]


def _ask(words: str) -> str:
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": words}]}).encode()
    request = urllib.request.Request(f"{os.environ['JUDGE_URL']}/chat/completions", body, method="POST")
    with urllib.request.urlopen(request, timeout=30) as reply:
        return str(json.load(reply)["choices"][0]["message"]["content"])


if Path(sys.argv[0]).name == Path(__file__).name or __name__ == "__mp_main__":
    # These stages compute nothing: no worker waits for the import of torch.
    sys.modules["torch"] = SimpleNamespace(  # type: ignore[assignment]
        set_num_threads=lambda threads: None, cuda=SimpleNamespace(is_initialized=lambda: False)
    )


def main(store: Store, out: Path, *titles: str) -> int:
    """Run what is missing; 1 where a stage failed."""
    from rich.console import Console

    from harness.run.events import Broadcast, CellStates, SweepRecord
    from harness.run.local import LocalExecutor
    from harness.run.lock import locked
    from harness.run.progress import ProgressListener

    stages: Any = [paid(title) for title in titles] or graph()
    store.prepare()
    out.mkdir(parents=True, exist_ok=True)
    with locked(out):
        record, progress = SweepRecord(CellStates([]), out), ProgressListener(stages, Console(stderr=True))
        with record, progress, LocalExecutor(store, jobs=2) as executor:
            executor.execute(stages, Broadcast(record, progress))
    return 1 if record.reasons else 0


# --- processes and artifacts, as a test sees them ----------------------------------------------------------------


@dataclass
class Killer:
    """Starts a program again and again, and kills its driver, a worker or all of it at random moments.

    Attributes:
        command: what starts the driver.
        store: where its artifacts appear.
        url: of the judge.
        longest: seconds within which the next kill comes; about what a run takes.
    """

    command: list[str]
    store: Path
    url: str
    seed: int
    longest: float = 0.0
    victims: dict[str, int] = field(default_factory=lambda: {"driver": 0, "worker": 0, "group": 0})

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    def start(self, errors: Path) -> subprocess.Popen[bytes]:
        marks = {MARK: str(self.store), "JUDGE_URL": self.url, "OMP_NUM_THREADS": "1"}
        with errors.open("wb") as stderr:
            return subprocess.Popen(
                self.command, env=os.environ | marks, stderr=stderr, stdout=subprocess.DEVNULL, start_new_session=True
            )

    def run(self, errors: Path, kills: int) -> int | None:
        """One run of the program with at most so many kills; its exit code, None where its driver was killed."""
        driver = self.start(errors)
        while kills:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return driver.wait(self.random.uniform(0.05, self.longest))
            victim = self.random.choice(list(self.victims))
            workers = [pid for pid in self.processes() if pid != driver.pid and _is_worker(pid)]
            if victim == "worker" and not workers:
                continue
            with contextlib.suppress(ProcessLookupError):
                if victim == "worker":
                    os.kill(self.random.choice(workers), signal.SIGKILL)
                elif victim == "driver":
                    driver.kill()
                else:
                    os.killpg(driver.pid, signal.SIGKILL)
            kills -= 1
            self.victims[victim] += 1
            if victim != "worker":
                driver.wait()
                return None
        return driver.wait()

    def processes(self) -> list[int]:
        """The living processes of the program."""
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                mark = f"{MARK}={self.store}".encode()
                alive = entry.name.isdecimal() and "\nState:\tZ" not in (entry / "status").read_text()
                if alive and mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
        return found

    def left_over(self, seconds: float) -> list[int]:
        """The processes that live on after so many seconds."""
        deadline = time.monotonic() + seconds
        while (living := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.05)
        return living


def _is_worker(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def finished(store: Path) -> set[str]:
    """Keys of the stages whose artifacts are there."""
    return {path.parent.name for path in store.glob(f"*/*/*/{MANIFEST}")}


def artifacts(store: Path) -> dict[str, bytes]:
    """Every file of every artifact but the manifests, which tell how long it took."""
    files = [path for path in store.glob("paid/*/*/*") if path.is_file() and path.name != MANIFEST]
    return {str(path.relative_to(store)): path.read_bytes() for path in files}


if __name__ == "__main__":
    sys.exit(main(Store(Path(sys.argv[1])), Path(sys.argv[2]), *sys.argv[3:]))
