"""A fit in several processes: accelerate's launcher, what its ranks run, and how their exit is reported.

The ranks read their standard input, which closes when the launching process ends for any reason: no rank is left
behind.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from trainers.cores import cores

if TYPE_CHECKING:
    from trainers.fitting.fit import Report
    from trainers.fitting.job import Fitted, Job
    from trainers.options import Training

STEP = "nashbench step"
"""Prefix of a rank's progress line: steps done, steps in all."""
END = r"^\s*rank\s*: (\d+).*\n\s*exitcode\s*: (-?\d+)"
"""How torch's launcher reports a rank's exit; other lines contain ranks and codes too."""
KINDS = ("MULTI_CPU", "MULTI_GPU", "FSDP")


def check_accelerate(path: Path, training: Training) -> dict[str, Any]:
    """The contents of an accelerate config file, checked against the training options.

    Raises:
        ValueError: it cannot be read, or asks for what a fit does not do.
    """
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"cannot read the accelerate config {path}: {' '.join(str(error).split())}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path} is no accelerate config; write one with `accelerate config --config_file {path}`")
    sharded, fsdp = config.get("distributed_type") == "FSDP", config.get("fsdp_config") or {}
    wrong = {
        f"distributed_type is {config.get('distributed_type')}; one of {', '.join(KINDS)} is needed": (
            config.get("distributed_type") not in KINDS
        ),
        "num_processes must be 2 or more; for one process leave out training.accelerate": (
            not isinstance(config.get("num_processes"), int) or config["num_processes"] < 2
        ),
        "num_machines is not 1; a fit runs on one machine": config.get("num_machines", 1) != 1,
        f"mixed_precision is {config.get('mixed_precision')}; write 'no', training.precision decides": (
            config.get("mixed_precision", "no") not in ("no", False)
        ),
        "fsdp_version is not 2; write fsdp_version: 2": sharded and str(fsdp.get("fsdp_version")) != "2",
        "fsdp_activation_checkpointing is on; leave it out and set training.gradient_checkpointing: true": (
            sharded and bool(fsdp.get("fsdp_activation_checkpointing"))
        ),
        "FSDP2 trains whole weights; leave out training.lora, or take MULTI_GPU for it": (
            sharded and training.lora is not None
        ),
        "FSDP2 does not hold adafactor's factors; take training.optimizer: adamw, or MULTI_GPU": (
            sharded and training.optimizer == "adafactor"
        ),
    }
    fault = next((fault for fault, applies in wrong.items() if applies), None)
    if fault:
        raise ValueError(f"training.accelerate: {path}: {fault}")
    return config


def launch(job: Job, path: Path, report: Report) -> Fitted:
    """Run a job in the processes that an accelerate config file asks for; the outcome as of `Job.run`.

    Raises:
        ValueError, FloatingPointError, MemoryError: as the job.
        ChildProcessError: a rank was killed, with its number and signal, or the launcher failed.
        RuntimeError: another error of a rank.
    """
    import torch

    from trainers.fitting.job import Fitted

    config = check_accelerate(path, job.training)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = {"cpu": bool(config.get("use_cpu")), "threads": torch.get_num_threads()}
        (folder / "job").write_bytes(pickle.dumps((job, settings)))
        with _launcher(folder, path, config) as launcher:
            assert launcher.stdout is not None
            for line in launcher.stdout:
                if line.startswith(STEP):
                    done, total = map(int, line.removeprefix(STEP).split())
                    report(done, total)
            code = launcher.wait()
        if code:
            raise _failure(folder, code, config["num_processes"])
        return Fitted(**json.loads((folder / "fitted.json").read_text()))


@contextmanager
def _launcher(folder: Path, path: Path, config: Mapping[str, Any]) -> Iterator[subprocess.Popen[str]]:
    """The running launcher; it and its ranks have exited when the block ends."""
    # accelerate starts several processes on a CPU only by MPI, unless it is told that they are for GPUs.
    flags = ["--multi_gpu"] if config["distributed_type"] == "MULTI_CPU" else []
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(path), *flags]
    command += ["--main_process_port", "0", "--module", "trainers.fitting.distributed", str(folder)]
    with (folder / "log").open("w") as log:
        launcher = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=_environment(config),
            start_new_session=True,
        )
    assert launcher.stdin is not None
    assert launcher.stdout is not None
    try:
        yield launcher
    finally:
        launcher.stdin.close()
        for stop in (launcher.poll, launcher.terminate, launcher.kill):
            stop()
            with suppress(subprocess.TimeoutExpired):
                launcher.wait(40)
                break
        launcher.stdout.close()


def _environment(config: Mapping[str, Any]) -> dict[str, str]:
    """The ranks' environment, with OMP_WAIT_POLICY=PASSIVE where they have more threads than there are cores."""
    import torch

    # The import path of this process: without PYTHONSAFEPATH `python -m` would put the working directory before it.
    imports = {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path)), "PYTHONSAFEPATH": "1"}
    crowded = config.get("use_cpu") and config["num_processes"] * torch.get_num_threads() > cores()
    return {**({"OMP_WAIT_POLICY": "PASSIVE"} if crowded else {}), **os.environ, **imports}


def _failure(folder: Path, code: int, count: int) -> Exception:
    """The error that reports how the ranks ended: an external signal, or else what a rank raised."""
    import torch

    log = (folder / "log").read_text(errors="replace")
    ends = [(int(r), -int(c)) for r, c in re.findall(END, log, re.MULTILINE)]
    killed = next((end for end in ends if end[1] > 0 and end[1] != signal.SIGTERM), None)
    if killed is not None:
        name = signal.Signals(killed[1]).name
        hint = " (out of memory? lower training.micro_batch_size)" if killed[1] == signal.SIGKILL else ""
        return ChildProcessError(
            f"rank {killed[0]} of {count} was ended by {name}{hint}; the others were stopped; run the sweep again, it "
            "goes on from the last state that was kept"
        )
    raised = [
        (rank, *json.loads(file.read_text())) for rank in range(count) if (file := folder / f"error-{rank}").exists()
    ]
    kinds = {e.__name__: e for e in (ValueError, FloatingPointError, MemoryError, torch.OutOfMemoryError)}
    for _, kind, message in raised:
        if kind in kinds:
            return kinds[kind](message)
    if raised:
        return RuntimeError("rank {} of {}: {}: {}".format(raised[0][0], count, *raised[0][1:]))
    last = next((line for line in reversed(log.splitlines()) if line.strip()), "it said nothing")
    return ChildProcessError(
        f"accelerate launch ended with code {code}: {last.strip()}; try the config file with `accelerate test`"
    )


def main() -> None:
    """A rank: fit its share; the first one prints progress and writes metrics and checkpoint."""
    threading.Thread(target=_exit_with_launcher, daemon=True).start()
    folder, code = Path(sys.argv[1]), 0
    try:
        _rank(folder)
    except Exception as error:
        failure = [type(error).__name__, str(error)]
        (folder / f"error-{os.environ.get('RANK', 0)}").write_text(json.dumps(failure))
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # all is written; an orderly shutdown of gloo's threads can hang


def _rank(folder: Path) -> None:
    import torch

    from trainers.fitting.ranks import AccelerateRanks

    job, settings = pickle.loads((folder / "job").read_bytes())
    torch.set_num_threads(settings["threads"])
    ranks = AccelerateRanks(settings["cpu"])
    fitted = job.run(_print_progress if ranks.index == 0 else None, ranks)
    if ranks.index == 0:
        (folder / "fitted.json").write_text(json.dumps(vars(fitted)))


def _print_progress(done: int, total: int) -> None:
    sys.stdout.write(f"{STEP} {done} {total}\n")
    sys.stdout.flush()


def _exit_with_launcher() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
