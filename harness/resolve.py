"""From names in a config to things with a fingerprint: policies, prompts, judges. Checked before anything starts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.config import Config, Game
from harness.matrix import Variant
from harness.registry import Kind, make
from harness.stage import Stage
from harness.store import content_hash
from trainers.games import load_game

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+|[\w.-]+")


@dataclass(frozen=True)
class Checkpoint:
    """A policy on disk: a stage's artifact, or a path or hub id from outside with its fingerprint."""

    stage: Stage | None = None
    location: str = ""
    fingerprint: str = ""

    def as_input(self, name: str) -> tuple[dict[str, Stage], dict[str, str], dict[str, str]]:
        """What a stage that reads it under `name` puts into its inputs, options and where."""
        if self.stage is not None:
            return {name: self.stage}, {}, {}
        return {}, {f"{name}_fingerprint": self.fingerprint}, {name: self.location}


def base_policy(policy: str) -> Checkpoint:
    """The untrained policy: the pocket world's, a local folder or a hub id.

    Raises:
        ValueError: a local folder without config or without safetensors weights, or a text that is neither.
    """
    if policy == "pocket":
        return Checkpoint(stage=Stage("pocket", {"seed": 0, "world": _world()}, title="the pocket world's base policy"))
    folder = Path(policy)
    if folder.is_dir():
        return Checkpoint(location=str(folder), fingerprint=_checked_folder(folder))
    if folder.is_absolute() or not HUB_ID.fullmatch(policy):
        raise ValueError(f"policy {policy!r}: there is no such folder")
    return Checkpoint(location=policy, fingerprint=f"hub:{policy}")


def prompts_source(config: Config, policy: str) -> str:
    """Path of the prompts, or the name of a world that brings its own.

    Raises:
        ValueError: none is given where the policy brings none, or what is given is no .jsonl.
    """
    if config.prompts is None and policy != "pocket":
        raise ValueError(f'prompts is missing: policy {policy!r} brings none; give a .jsonl with "prompt" on each line')
    source = config.prompts or "pocket"
    if source != "pocket" and not source.endswith(".jsonl"):
        raise ValueError(
            f"prompts {source!r}: only 'pocket' and .jsonl files are read; Hugging Face data sets are not built yet"
        )
    return source


def prompts_fingerprint(source: str) -> str:
    """Changes with the prompts' content.

    Raises:
        ValueError: the file is missing or not a list of prompts.
    """
    from harness.prompts import read_prompts

    read_prompts(source, seed=0)
    return _world() if source == "pocket" else content_hash(Path(source))


@dataclass(frozen=True)
class JudgeRef:
    """A judge to make inside a stage, and what determines its verdicts."""

    name: str
    options: Mapping[str, Any]
    fingerprint: str
    label: str


def judge_ref(variant: Variant, policy: str) -> JudgeRef:
    """The judge, made once here so that its options are checked; a world fills in options it knows better.

    Raises:
        ValueError: unknown name or option, or an option the judge refuses.
    """
    options = dict(variant.options)
    if policy == "pocket" and variant.name == "panel" and "panel" not in options:
        options["panel"] = str(Path(__file__).parent / "pocket" / "panel.yaml")
    judge = made("judges", Variant(variant.name, options, variant.place))
    return JudgeRef(variant.name, options, judge.fingerprint(), variant.label)


def game_matrix(game: Game) -> list[list[float]]:
    """The preference matrix of a game, as lists.

    Raises:
        ValueError: no such game or file, or not a preference matrix.
    """
    return load_game(game.game).tolist()


def made(kind: Kind, variant: Variant) -> Any:
    """What a variant names, made so that its options are checked.

    Raises:
        ValueError: unknown name or option, or an option out of range, with the place in the config.
    """
    try:
        return make(kind, variant.name, variant.options)
    except ValueError as error:
        raise ValueError(f"{variant.place}: {error}" if variant.place else str(error)) from error


def _world() -> str:
    """Changes with whatever makes the pocket world's prompts and base policy."""
    folder = Path(__file__).parent / "pocket"
    return " ".join(content_hash(folder / name)[:16] for name in ("grammar.py", "base_policy.py", "panel.yaml"))


def _checked_folder(folder: Path) -> str:
    if not (folder / "config.json").is_file():
        raise ValueError(f"policy {folder}: the folder has no config.json, so it is no Hugging Face checkpoint")
    if not any(folder.glob("*.safetensors")):
        other = next((f.name for f in sorted(folder.iterdir()) if f.suffix in (".bin", ".pt", ".pth", ".gguf")), None)
        found = f"it has {other}, which is not read; convert it to safetensors" if other else "it has no weights"
        raise ValueError(f"policy {folder}: no *.safetensors in the folder; {found}")
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")):
        raise ValueError(f"policy {folder}: the folder has no tokenizer")
    return content_hash(folder)
