"""From names in a config to things with a fingerprint: policies, prompts, judges. Checked before anything starts."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from harness.config import Config, Game
from harness.matrix import ONE_LIST, Variant
from harness.pocket.judges import OPTIONS, PANEL
from harness.registry import Kind, load, make
from harness.stage import Stage, canonical, machine
from harness.store.artifacts import content_hash
from judges.reading import clipped, shortened
from leaderboards.leaderboard import NoData
from trainers.fitting.distributed import check_accelerate
from trainers.games import load_game
from trainers.options import Endpoint, Training

HUB_ID = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}|[\w.-]{1,96}")


@dataclass(frozen=True)
class Checkpoint:
    """A policy: a stage's artifact, or from outside with its fingerprint (a path, a hub id, an endpoint's options)."""

    stage: Stage | None = None
    location: str | dict[str, Any] = ""
    fingerprint: str = ""

    def as_input(self, name: str) -> tuple[dict[str, Stage], dict[str, str], dict[str, Any]]:
        """What a stage that reads it under `name` puts into its inputs, options and where."""
        if self.stage is not None:
            return {name: self.stage}, {}, {}
        return {}, {f"{name}_fingerprint": self.fingerprint}, {name: self.location}


def base_policy(policy: str | Endpoint) -> Checkpoint:
    """The untrained policy: the pocket world's, a local folder, a hub id, or one behind an endpoint.

    Raises:
        ValueError: a local folder without config or without safetensors weights, a text that is neither, or an endpoint
            whose key is not in the environment.
    """
    if isinstance(policy, Endpoint):
        return _behind(policy)
    if policy == "pocket":
        return Checkpoint(stage=_pocket_stage())
    folder = Path(policy)
    if os.path.isdir(policy):
        return Checkpoint(location=str(folder), fingerprint=_checked_folder(folder))
    if folder.is_absolute() or not HUB_ID.fullmatch(policy):
        raise ValueError(
            f"policy {shortened(policy)}: there is no such folder, and it is no hub id; give --set policy=FOLDER"
        )
    return Checkpoint(location=policy, fingerprint=f"hub:{policy}")


def _behind(policy: Endpoint) -> Checkpoint:
    named = policy.api_key_env != Endpoint.model_fields["api_key_env"].default
    if not policy.api_key and (named or policy.official):
        raise ValueError(
            f"policy {shortened(policy.model)}: no API key; set the environment variable {policy.api_key_env}"
        )
    return Checkpoint(
        location=policy.model_dump(), fingerprint=f"endpoint:{policy.endpoint.rstrip('/')} {policy.model}"
    )


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


def prompts_fingerprint(source: str) -> str:
    """Changes with the prompts' content.

    Raises:
        ValueError: the file is missing or not a list of prompts.
    """
    from harness.prompts import read_prompts

    read_prompts(source, seed=0)
    return _world() if source == "pocket" else content_hash(Path(source))


def accelerate_file(config: Config) -> tuple[dict[str, str], dict[str, str]]:
    """What `training.accelerate` adds to a fit's options and where; its content, since shares change rounding.

    Raises:
        ValueError: the file cannot be read, or asks for what a fit does not do or this machine does not have.
    """
    if config.training.accelerate is None:
        return {}, {}
    path = Path(config.training.accelerate)
    if not check_accelerate(path, config.training).get("use_cpu") and machine()["device"] == "cpu":
        raise ValueError(f"training.accelerate: {path} asks for GPUs and there is none; write use_cpu: true")
    return {"accelerate": content_hash(path)}, {"accelerate": str(path)}


def check_stream(training: Training, name: str) -> None:
    """Raise ValueError where the training asks for several processes, which an algorithm's stream does not have."""
    if training.accelerate is not None:
        raise ValueError(
            f"training.accelerate is given, and {name} trains in a stream, which is one process; leave out the one or "
            "the other"
        )


def check_game(training: Training, game: Game) -> None:
    """Raise ValueError where the training asks for several processes, which a game is not played in."""
    if training.accelerate is not None:
        raise ValueError(
            f"training.accelerate is given, and the policy is the game {shortened(game.game)}, which is played in one "
            "process; leave training.accelerate out"
        )


@dataclass(frozen=True)
class Ref:
    """A judge or leaderboard to make inside a stage, and what determines its verdicts.

    Attributes:
        source: the stage whose artifact holds its model or its questions, where a world makes them.
    """

    kind: Kind
    name: str
    options: Mapping[str, Any]
    fingerprint: str
    label: str
    source: Stage | None = None

    @property
    def inputs(self) -> dict[str, Stage]:
        """The stage that makes it, as an input of those that use it."""
        return {} if self.source is None else {self.source.kind: self.source}

    @property
    def described(self) -> dict[str, Any]:
        """What it adds to a stage's options."""
        return {self.kind[:-1]: self.fingerprint}

    @property
    def where(self) -> dict[str, Any]:
        """What its maker is called with inside a stage; no part of the stage's key."""
        return {self.kind[:-1]: {"name": self.name, "options": dict(self.options)}}


def judge_refs(variants: Sequence[Variant], policy: str | Endpoint) -> dict[str, Ref]:
    """The judges by label.

    Raises:
        ValueError: as `judge_ref`, or two different ones have the same label.
    """
    judges: dict[str, Ref] = {}
    for variant in variants:
        judge = judge_ref(variant, policy)
        if judges.setdefault(variant.label, judge).fingerprint != judge.fingerprint:
            raise ValueError(
                f"two different judges are both called {shortened(variant.label)}: "
                f"{shortened(dict(judges[variant.label].options), 80)} and {shortened(dict(judge.options), 80)}; "
                "give their files different names"
            )
    return judges


def judge_ref(variant: Variant, policy: str | Endpoint) -> Ref:
    """The judge, made once here so that its options are checked; the pocket world fills in its panel and models.

    Raises:
        ValueError: unknown name or option, or an option the judge refuses.
    """
    options = dict(variant.options)
    budget = next((name for name in options if name.startswith("budget_")), None)
    if budget:
        raise ValueError(
            f"{variant.place}: {budget} holds for one run of a judge, and a sweep runs it in every stage anew; budgets "
            f"of sweeps are not built yet: leave it out and limit the sweep's prompts"
        )
    if policy == "pocket" and variant.name in OPTIONS and "model" not in options:
        return _trained_judge(variant)
    if policy == "pocket" and variant.name == "panel" and "panel" not in options:
        options["panel"] = str(PANEL)
    judge = made("judges", replace(variant, options=options))
    return Ref("judges", variant.name, options, judge.fingerprint(), variant.label)


def _trained_judge(variant: Variant) -> Ref:
    if variant.options:
        raise ValueError(
            f"{variant.place}: the pocket world trains the judge {variant.name!r} itself and knows its options; "
            f"leave out {clipped(', '.join(variant.options), 60)}, or give a model of your own as well"
        )
    base, votes = _pocket_stage(), _votes_stage()
    options = {"name": variant.name, "seed": 0, "code": _content("judges.py")}
    title = f"the pocket world's judge {variant.name}"
    stage = Stage("judge", options, {"policy": base, "votes": votes}, title=title)
    return Ref("judges", variant.name, OPTIONS[variant.name], stage.key, variant.label, stage)


def board_ref(variant: Variant, policy: str | Game | Endpoint) -> Ref:
    """The leaderboard, made once here so that its options are checked; the pocket world brings its own sets.

    Raises:
        ValueError: unknown name or option, data that is missing or of another kind.
    """
    kind = in_place(variant, lambda: load("leaderboards", variant.name))
    options = {k: v for k, v in variant.options.items() if k not in kind.paths}
    stated = canonical([variant.name, kind.package and version(kind.package), options])
    if policy == "pocket" and kind.paths and not variant.options.keys() & {*kind.paths, "tasks"}:
        in_place(variant, lambda: _check_without_data(variant))
        return Ref("leaderboards", variant.name, variant.options, stated, variant.label, _sets_stage())
    board = made("leaderboards", variant)
    in_place(variant, board.check)
    contents = [content_hash(Path(variant.options[k])) for k in kind.paths if k in variant.options]
    fingerprint = " ".join([stated, *contents])
    return Ref("leaderboards", variant.name, variant.options, fingerprint, variant.label)


def _check_without_data(variant: Variant) -> None:
    """A leaderboard's options; boards look at their questions last, and these are not made yet."""
    with contextlib.suppress(NoData):
        make("leaderboards", variant.name, variant.options)


def _pocket_stage() -> Stage:
    return Stage("pocket", {"seed": 0, "world": _world()}, title="the pocket world's base policy")


def _votes_stage() -> Stage:
    options = {"seed": 0, "code": _content("judges.py"), "precision": "fp32"}
    return Stage("votes", options, {"policy": _pocket_stage()}, title="the panel's votes on the base policy's samples")


def _sets_stage() -> Stage:
    options = {"seed": 0, "code": _content("sets.py"), "precision": "fp32"}
    return Stage("sets", options, {"policy": _pocket_stage()}, title="the pocket world's benchmark sets")


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
    return in_place(variant, lambda: make(kind, variant.name, variant.options))


def in_place(variant: Variant, check: Callable[[], Any]) -> Any:
    """What `check` returns; its ValueError with the place in the config."""
    try:
        return check()
    except ValueError as error:
        told = next((name for name in variant.taken if _may_want_list(variant, name, str(error))), None)
        message = f"{error} (each value of the list {told!r} is a variant, {ONE_LIST})" if told else str(error)
        raise ValueError(f"{variant.place}: {message}" if variant.place else message) from error


def _may_want_list(variant: Variant, option: str, error: str) -> bool:
    """Whether an error may come from a list that was meant as one value: lists as values hold names or judges."""
    names = re.search(rf"\b{re.escape(option)}\b", error) and "no option" not in error
    return bool(names) and isinstance(variant.options[option], str | Mapping)


def _world() -> str:
    """Changes with whatever makes the pocket world's prompts and base policy."""
    return " ".join(map(_content, ("grammar.py", "base_policy.py", "panel.yaml")))


def _content(name: str) -> str:
    return content_hash(PANEL.with_name(name))[:16]


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
