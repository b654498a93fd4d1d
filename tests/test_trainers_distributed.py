"""Several processes for one update: their shares of a batch, the config file, kept states, and two real processes."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ranks_world import DDP, FSDP, rank_1, written
from safetensors.torch import load_file

from trainers import DPO
from trainers.fitting.distributed import _environment, _failure, check_accelerate, launch
from trainers.fitting.fit import fit
from trainers.fitting.job import Job
from trainers.fitting.optimise import Optimiser
from trainers.fitting.pairs import Pairs, score
from trainers.fitting.ranks import Ranks
from trainers.fitting.resume import FitCheckpointer, newest_checkpoint
from trainers.options import LoRA, Training
from trainers.policies.causal_lm import CausalLM

TRAINING = Training(lr=1e-2, batch_size=5, epochs=2, max_length=40, precision="fp32", micro_batch_size=2)
STEPS = 6
"""Two passes over 11 pairs, 5 a step: the last of a pass is one pair, which two processes cannot share."""


def some_pairs(count: int = 11) -> Pairs:
    generator = np.random.default_rng(0)
    prompts, chosen, rejected = (generator.integers(3, 20, (count, size)).tolist() for size in (5, 6, 4))
    return Pairs(prompts, chosen, rejected, np.ones(count))


def job(model: Path, folder: Path, **changes: Any) -> Job:
    pairs = some_pairs()
    frozen = {"previous": score(CausalLM.load(model), pairs, 4)}
    training = TRAINING.model_copy(update=changes)
    return Job(pairs, frozen, DPO(), training, 3, str(model), folder / "model", folder / "kept")


# --- shares of a batch -------------------------------------------------------------------------------------------


class OneOf(Ranks):
    """A process that others are only told to stand beside."""

    def __init__(self, index: int, count: int) -> None:
        self.index, self.count = index, count


@pytest.mark.parametrize("size", [None, 1, 2, 3])
@pytest.mark.parametrize("batch", [1, 2, 5, 8])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_processes_share_a_batch_in_as_many_passes_each_and_every_pair_counts_once(
    count: int, batch: int, size: int | None
) -> None:
    shares = [OneOf(index, count).parts(some_pairs(batch), size) for index in range(count)]
    assert len({len(parts) for parts in shares}) == 1
    assert all(len(rows) <= (size or batch) for parts in shares for rows, _ in parts)
    counted = [(row, weight) for parts in shares for rows, weight in parts for row in rows if weight]
    assert sorted(counted) == [(row, float(count)) for row in range(batch)]


def test_the_mean_of_the_processes_gradients_is_that_of_one_process(tiny_model: Path) -> None:
    pairs = some_pairs(5)
    frozen = {"previous": score(CausalLM.load(tiny_model), pairs, 5)}

    def gradient(ranks: Ranks) -> tuple[torch.Tensor, float]:
        policy = CausalLM.load(tiny_model)
        optimiser = Optimiser(policy, TRAINING, 1, None, ranks)
        figures = optimiser._accumulate(policy, DPO(), pairs, frozen)
        return torch.cat([p.grad.flatten() for p in optimiser.parameters]), sum(float(f["loss"]) for f in figures)

    alone, loss = gradient(Ranks())
    shares = [gradient(OneOf(index, 3)) for index in range(3)]
    torch.testing.assert_close(torch.stack([g for g, _ in shares]).mean(0), alone, rtol=1e-4, atol=1e-6)
    assert sum(part for _, part in shares) == pytest.approx(loss, rel=1e-6)


# --- the accelerate file -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "changes", "words"),
    [
        ({**DDP, "distributed_type": "DEEPSPEED"}, {}, "distributed_type is DEEPSPEED"),
        ({**DDP, "num_processes": 1}, {}, "leave out training.accelerate"),
        ({**DDP, "num_machines": 2}, {}, "one machine"),
        ({**DDP, "mixed_precision": "bf16"}, {}, "training.precision decides"),
        ({**FSDP, "fsdp_config": {"fsdp_version": 1}}, {}, "fsdp_version: 2"),
        (FSDP, {"lora": LoRA()}, "training.lora"),
        (FSDP, {"optimizer": "adafactor"}, "training.optimizer: adamw"),
        (["a"], {}, "no accelerate config"),
    ],
)
def test_a_file_that_asks_for_what_is_not_done_is_refused_with_the_fix(
    tmp_path: Path, said: Any, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        check_accelerate(written(tmp_path, said), TRAINING.model_copy(update=changes))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot read the accelerate config"):
        check_accelerate(tmp_path / "none.yaml", TRAINING)


# --- states that are kept ----------------------------------------------------------------------------------------


class Killed(Exception):
    pass


def stopping(after: int) -> Callable[[int, int], None]:
    def report(done: int, total: int) -> None:
        if done == after:
            raise Killed

    return report


@pytest.mark.parametrize("lora", [None, LoRA(r=2, alpha=4)])
@pytest.mark.parametrize("optimizer", ["adamw", "rmsprop", "adafactor"])
def test_a_fit_that_was_killed_inside_an_epoch_ends_with_the_same_bytes(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str, lora: LoRA | None
) -> None:
    monkeypatch.setattr("trainers.fitting.resume.WRITE_TIME_FACTOR", 0)
    whole, broken = (job(tiny_model, tmp_path / name, optimizer=optimizer, lora=lora) for name in ("a", "b"))
    expected = whole.run()
    with pytest.raises(Killed):
        dataclasses.replace(broken, every=0.0).run(stopping(5))
    state = newest_checkpoint(broken.checkpoints)
    assert state is not None
    assert state.name == "step-4"
    assert len(list(broken.checkpoints.iterdir())) == 1
    steps: list[int] = []
    assert broken.run(lambda done, total: steps.append(done)) == expected
    assert steps == [5, 6]
    for file in whole.out.glob("*.safetensors"):
        assert file.read_bytes() == (broken.out / file.name).read_bytes()


def test_states_are_written_seldom(policy: CausalLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("trainers.fitting.resume.time.monotonic", lambda: now[0])
    checkpointer = FitCheckpointer(tmp_path / "kept", policy, Ranks(), 60.0)
    monkeypatch.setattr(checkpointer, "_write", lambda *rest: now.__setitem__(0, now[0] + 10.0))
    optimiser, at = Optimiser(policy, TRAINING, 1), []
    while now[0] < 1000:
        before = now[0]
        checkpointer.maybe_save(optimiser, [])
        if now[0] != before:
            at.append(before)
        now[0] += 1.0
    assert at == [60.0, 270.0, 480.0, 690.0, 900.0]  # the first after a minute, then 20 times as long as one takes


def test_without_a_folder_nothing_is_kept(policy: CausalLM) -> None:
    pairs = some_pairs()
    assert len(fit(policy, pairs, {"previous": score(policy, pairs, 4)}, DPO(), TRAINING, seed=0)) == STEPS


# --- two real processes ------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("said", [DDP, FSDP], ids=["ddp", "fsdp2"])
def test_two_processes_have_the_losses_of_one_and_write_its_checkpoint(
    tiny_model: Path, tmp_path: Path, said: dict[str, Any]
) -> None:
    alone, shared = job(tiny_model, tmp_path / "alone"), job(tiny_model, tmp_path / "shared")
    expected, seen = alone.run(), []
    found = launch(shared, written(tmp_path / "file", said), lambda done, total: seen.append((done, total)))
    assert seen == [(done, STEPS) for done in range(1, STEPS + 1)]
    assert found.movement == pytest.approx(expected.movement, rel=1e-3)
    for ours, theirs in zip(found.dynamics, expected.dynamics, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-6)
    assert {f.name for f in shared.out.iterdir()} == {f.name for f in alone.out.iterdir()}
    one, two = (load_file(folder / "model.safetensors") for folder in (alone.out, shared.out))
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-3, atol=1e-4)
    pairs = some_pairs()
    laws = [score(CausalLM.load(folder), pairs, 4) for folder in (alone.out, shared.out)]
    np.testing.assert_allclose(laws[1], laws[0], atol=1e-3)


@pytest.mark.parametrize("noticed", [0, 1])
def test_the_killed_rank_is_named_whichever_end_was_noticed_first(tmp_path: Path, noticed: int) -> None:
    codes = {0: 1, 1: -9}  # the killed one's partner then fails by itself
    form = "[0]:\n  rank      : {0} (local_rank: {0})\n  exitcode  : {1} (pid: 7)\n"
    ends = [form.format(rank, codes[rank]) for rank in (1 - noticed, noticed)]
    first = f"failed (exitcode: {codes[noticed]}) local_rank: {noticed} (pid: 7) of binary: python\n"
    (tmp_path / "log").write_text(f"{first}Failures:\n{ends[0]}Root Cause (first observed failure):\n{ends[1]}")
    assert "rank 1 of 2 was ended by SIGKILL" in str(_failure(tmp_path, 1, 2))


@pytest.mark.slow
@pytest.mark.parametrize("said", [DDP, FSDP], ids=["ddp", "fsdp2"])
def test_a_killed_rank_is_named_and_one_process_goes_on_from_what_two_kept(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: dict[str, Any]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    broken, whole = (job(tiny_model, tmp_path / name, epochs=60, lr=1e-4) for name in ("broken", "whole"))
    killed: list[int] = []

    def report(done: int, total: int) -> None:
        if not killed and newest_checkpoint(broken.checkpoints) is not None:
            killed.extend(rank_1(tmp_path))
            os.kill(killed[0], signal.SIGKILL)

    started = time.monotonic()
    with pytest.raises(ChildProcessError, match=r"rank 1 of 2 was ended by SIGKILL .*run the sweep again"):
        launch(dataclasses.replace(broken, every=0.0), written(tmp_path / "file", said), report)
    assert time.monotonic() - started < 90
    assert not rank_1(tmp_path)
    steps: list[int] = []
    resumed = broken.run(lambda done, total: steps.append(done))
    assert steps[0] > 1
    losses = [[step["loss"] for step in fitted.dynamics] for fitted in (resumed, whole.run())]
    np.testing.assert_allclose(*losses, rtol=1e-4)


@pytest.mark.slow
def test_ranks_end_with_the_process_that_launched_them(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    long = job(tiny_model, tmp_path, epochs=10000)

    def interrupted(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        launch(long, written(tmp_path / "file", DDP), interrupted)
    assert not rank_1(tmp_path)


@pytest.mark.slow
def test_what_all_ranks_raise_is_the_fits_own_error(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError, match=r"lower training\.lr"):
        launch(job(tiny_model, tmp_path, lr=1e30), written(tmp_path / "file", DDP), lambda done, total: None)


@pytest.mark.parametrize(
    ("said", "cores", "given", "policy"),
    [
        ({"use_cpu": True, "num_processes": 2}, 5, None, "PASSIVE"),
        ({"use_cpu": True, "num_processes": 2}, 6, None, None),
        ({"use_cpu": True, "num_processes": 2}, 5, "ACTIVE", "ACTIVE"),
        ({"num_processes": 2}, 5, None, None),  # on GPUs
    ],
)
def test_threads_of_ranks_sleep_while_they_wait_where_there_are_more_of_them_than_cores(
    monkeypatch: pytest.MonkeyPatch, said: dict[str, Any], cores: int, given: str | None, policy: str | None
) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if given:
        monkeypatch.setenv("OMP_WAIT_POLICY", given)
    monkeypatch.setattr("torch.get_num_threads", lambda: 3)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(cores)))
    made = _environment(said)
    assert made.get("OMP_WAIT_POLICY") == policy
    assert made["PATH"] == os.environ["PATH"]


def test_a_rank_finds_what_this_process_imports_and_nothing_else_of_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "trainers").mkdir()
    (tmp_path / "trainers" / "__init__.py").write_text("raise RuntimeError('of another project')")
    monkeypatch.chdir(tmp_path)
    ask = [sys.executable, "-m", "trainers"]
    ended = subprocess.run(ask, env=_environment({"num_processes": 2}), capture_output=True, text=True, check=False)
    assert "'trainers' is a package and cannot be directly executed" in ended.stderr
