"""Options of training through whole sweeps: adapters over iterations, and memory that does not suffice."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Ended, Workspace
from ranks_world import DDP, rank_1, written
from safetensors.torch import load_file

from harness.config import load_config
from harness.planning.plan import make_plan
from harness.stages.fit import Fit

Nashbench = Callable[..., Ended]
LORA = {"lr": 0.01, "batch_size": 4, "precision": "fp32", "max_length": 40, "lora": {"r": 2, "alpha": 4}}
SMALL = {"name": "panel", "panel": "panel.yaml"}


def checkpoints(workspace: Workspace, kind: str) -> list[Path]:
    """The models that stages of a kind wrote, the first iteration's first."""
    found = [file.parent for file in workspace.store.rglob("manifest.json") if (file.parent / "model").is_dir()]
    kinds = {folder: json.loads((folder / "manifest.json").read_text())["kind"] for folder in found}
    return sorted((f / "model" for f in found if kinds[f] == kind), key=lambda folder: folder.stat().st_mtime)


@pytest.mark.usefixtures("inline")
@pytest.mark.parametrize(("trainer", "kind"), [("dpo", "fit"), ("ipo-md", "stream")])
def test_iterations_train_one_adapter_over_the_base_that_the_user_gave(
    workspace: Workspace, nashbench: Nashbench, trainer: str, kind: str
) -> None:
    matrix = {"trainer": [{"name": trainer}], "judge": [SMALL]}
    config = workspace.config(matrix=matrix, iterations=2, training=LORA)
    ended = nashbench(*workspace.arguments(config))
    assert ended.code == 0, ended.err
    written = checkpoints(workspace, kind)
    assert len(written) == 2
    configs = [json.loads((folder / "adapter_config.json").read_text()) for folder in written]
    assert {c["base_model_name_or_path"] for c in configs} == {str(workspace.model)}
    assert {c["r"] for c in configs} == {2}
    first, second = (load_file(folder / "adapter_model.safetensors") for folder in written)
    assert first.keys() == second.keys()
    assert any(not torch.equal(first[name], second[name]) for name in first)


@pytest.mark.usefixtures("inline")
@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried ..."),
        MemoryError(),
    ],
)
def test_a_cell_that_runs_out_of_memory_says_what_to_lower_and_the_others_go_on(
    workspace: Workspace, nashbench: Nashbench, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    import trainers.fitting.fit

    fit = trainers.fitting.fit.fit

    def hungry(policy: Any, pairs: Any, frozen: Any, algorithm: Any, *rest: Any, **options: Any) -> Any:
        if algorithm.name == "dpo":
            raise error
        return fit(policy, pairs, frozen, algorithm, *rest, **options)

    monkeypatch.setattr("trainers.fitting.fit.fit", hungry)
    matrix = {"trainer": [{"name": "dpo"}, {"name": "slic"}], "judge": [SMALL]}
    ended = nashbench(*workspace.arguments(workspace.config(matrix=matrix)))
    assert ended.code == 1
    cells = json.loads((workspace.out / "cells.json").read_text())
    text = json.dumps(cells)
    assert "out of memory; lower training.micro_batch_size or training.max_length" in text
    assert "training.gradient_checkpointing: true" in text
    assert "failed" in text
    assert "done" in text


@pytest.mark.usefixtures("inline")
def test_an_error_that_is_not_about_memory_is_not_called_so(
    workspace: Workspace, nashbench: Nashbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: Any, **options: Any) -> Any:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr("trainers.fitting.fit.fit", broken)
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        nashbench(*workspace.arguments(workspace.config()))


@pytest.mark.usefixtures("inline")
def test_layers_that_an_adapter_does_not_find_fail_the_cell_with_the_option(
    workspace: Workspace, nashbench: Nashbench
) -> None:
    training = LORA | {"lora": {"r": 2, "alpha": 4, "targets": ["no_such_layer"]}}
    assert nashbench(*workspace.arguments(workspace.config(training=training))).code == 1
    reasons = [cell["reason"] for cell in json.loads((workspace.out / "cells.json").read_text())]
    assert [reason for reason in reasons if "training.lora.targets is ['no_such_layer']" in reason]


TRAINING = {"lr": 0.001, "batch_size": 4, "precision": "fp32", "max_length": 40}


def planned_fit(config: Path) -> Fit:
    """The first fit that a config plans."""
    return next(stage for stage in make_plan(load_config(config)).stages if isinstance(stage, Fit))


def test_a_fit_is_known_by_what_its_accelerate_file_says_and_by_nothing_where_there_is_none(
    workspace: Workspace,
) -> None:
    plain = planned_fit(workspace.config())
    assert "accelerate" not in json.dumps(plain.identity)
    config = workspace.config(training=TRAINING | {"accelerate": "accelerate.yaml"})
    keys = {plain.key}
    for said in (DDP, DDP | {"num_processes": 3}):
        file = written(workspace.folder, said)
        fit = planned_fit(config)
        assert fit.accelerate_file == str(file)
        assert str(file) not in json.dumps(fit.identity)
        keys.add(fit.key)
    assert len(keys) == 3


@pytest.mark.parametrize(
    ("trainer", "said", "words"),
    [
        ("nash-md", DDP, "trains in a stream, which is one process"),
        ("dpo", DDP | {"distributed_type": "DEEPSPEED"}, "distributed_type is DEEPSPEED"),
        ("dpo", None, "cannot read the accelerate config"),
    ],
)
def test_what_several_processes_cannot_do_is_told_before_anything_runs(
    workspace: Workspace, nashbench: Nashbench, trainer: str, said: dict[str, Any] | None, words: str
) -> None:
    if said is not None:
        written(workspace.folder, said)
    matrix = {"trainer": [{"name": trainer}], "judge": [SMALL]}
    config = workspace.config(matrix=matrix, training=TRAINING | {"accelerate": "accelerate.yaml"})
    ended = nashbench(*workspace.arguments(config))
    assert ended.code == 2
    assert words in " ".join(ended.err.split())


@pytest.mark.slow
@pytest.mark.usefixtures("inline")
def test_a_sweep_whose_rank_was_killed_names_it_and_ends_well_when_it_is_run_again(
    workspace: Workspace, nashbench: Nashbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    import trainers.fitting.distributed

    launch = trainers.fitting.distributed.launch
    monkeypatch.setattr("tempfile.tempdir", str(workspace.folder))

    def killing(job: Any, path: Path, report: Any) -> Any:
        def kill(done: int, total: int) -> None:
            for pid in rank_1(workspace.folder):
                os.kill(pid, signal.SIGKILL)

        return launch(job, path, kill)

    written(workspace.folder, DDP)
    several = TRAINING | {"accelerate": "accelerate.yaml", "batch_size": 2, "epochs": 100}
    arguments = workspace.arguments(workspace.config(training=several))
    monkeypatch.setattr("trainers.fitting.distributed.launch", killing)
    assert nashbench(*arguments).code == 1
    assert "rank 1 of 2 was ended by SIGKILL" in (workspace.out / "cells.json").read_text()
    monkeypatch.setattr("trainers.fitting.distributed.launch", launch)
    ended = nashbench(*arguments)
    assert ended.code == 0, ended.err
    assert not list((workspace.store / "unfinished").glob("*"))
