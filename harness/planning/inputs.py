"""The user's files and options that stages read, checked when a sweep is planned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.config import Config
from harness.prompts import cut_tuning, read_prompts
from harness.run.devices import machine
from harness.stages.pocket import world_hash
from harness.store.artifacts import content_hash
from judges.reading import shortened
from trainers.fitting.distributed import check_accelerate
from trainers.options import Endpoint, Training


def prompts_source(config: Config, policy: str | Endpoint) -> str:
    """Path of the prompts, or the name of a world that brings its own.

    Raises:
        ValueError: none is given where the policy brings none, or what is given is no .jsonl.
    """
    if config.prompts is None and policy != "pocket":
        raise ValueError(
            f'prompts is missing: policy {shortened(str(policy))} brings none; give a .jsonl with "prompt" on each line'
        )
    source = config.prompts or "pocket"
    if source != "pocket" and not source.endswith(".jsonl"):
        raise ValueError(
            f"prompts {shortened(source)}: only 'pocket' and .jsonl files are read; Hugging Face data sets are not "
            "built yet"
        )
    return source


def prompts_contents(source: str, tuning: int = 0) -> str:
    """Changes with the prompts.

    Args:
        tuning: how many are cut from the training prompts to choose options on.

    Raises:
        ValueError: the file is missing or not a list of prompts, or no training prompt is left.
    """
    cut_tuning(read_prompts(source, seed=0), tuning)
    return world_hash() if source == "pocket" else content_hash(Path(source))


def accelerate_contents(config: Config) -> dict[str, Any]:
    """What `training.accelerate` adds to a fit's fields; its content, since shares change rounding.

    Raises:
        ValueError: the file cannot be read, or asks for what a fit does not do or this machine does not have.
    """
    if config.training.accelerate is None:
        return {}
    path = Path(config.training.accelerate)
    if not check_accelerate(path, config.training).get("use_cpu") and machine()["device"] == "cpu":
        raise ValueError(f"training.accelerate: {path} asks for GPUs and there is none; write use_cpu: true")
    return {"accelerate": content_hash(path), "accelerate_file": str(path)}


def check_stream(training: Training, name: str) -> None:
    """Raise ValueError where the training asks for several processes, which an algorithm's stream does not have."""
    if training.accelerate is not None:
        raise ValueError(
            f"training.accelerate is given, and {name} trains in a stream, which is one process; leave out the one or "
            "the other"
        )
