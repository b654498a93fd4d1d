"""From names in a config to checked specifications: policies, judges, leaderboards, algorithms.

A specification is made when a sweep is planned, so that a wrong option is found before anything starts, and makes the
thing itself inside a stage.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from harness import hub
from harness.config import Game
from harness.identity import changed_options
from harness.matrix import ONE_LIST, Variant
from harness.pocket.judges import OPTIONS, PANEL
from harness.registry import Kind, load, make
from harness.specs import Checkpoint, ComponentSpec
from harness.stages.judge import TrainJudge
from harness.stages.pocket import pocket_policy
from harness.stages.sets import benchmark_sets
from harness.stages.votes import votes
from harness.store.artifacts import content_hash
from harness.template_date import date_for
from judges.code_identity import code_identity
from judges.reading import clipped, shortened
from leaderboards.leaderboard import NoData
from trainers.algorithm import Algorithm
from trainers.options import Endpoint

UNTRAINED = "trained-by-a-stage"
"""Stands for a model that is no file yet."""


def algorithm_spec(algorithm: Algorithm, variant: Variant) -> ComponentSpec:
    """What a training stage knows of its algorithm."""
    options, code = dataclasses.asdict(algorithm), code_identity(type(algorithm), Algorithm)
    return ComponentSpec("trainers", variant.name, options, variant.label, changed_options(algorithm), code)


def base_policy(policy: str | Endpoint, template_date: str | None = None) -> Checkpoint:
    """The untrained policy: the pocket world's, a local folder, a hub id, or one behind an endpoint.

    Args:
        template_date: for a chat template that writes what day it is; None is today.

    Raises:
        ValueError: a local folder without config or without safetensors weights, a text that is neither, or an endpoint
            whose key is not in the environment.
    """
    if isinstance(policy, Endpoint):
        return _behind_endpoint(policy)
    if policy == "pocket":
        return pocket_policy()
    folder = Path(policy)
    if os.path.isdir(policy):
        return Checkpoint(
            location=str(folder), fingerprint=_checked_folder(folder), template_date=date_for(policy, template_date)
        )
    if folder.is_absolute() or not hub.HUB_ID.fullmatch(policy):
        raise ValueError(
            f"policy {shortened(policy)}: there is no such folder, and it is no hub id; give --set policy=FOLDER"
        )
    location = hub.tied(policy)
    commit = location.rpartition("@")[0]
    return Checkpoint(location=location, fingerprint=f"hub:{commit}", template_date=date_for(policy, template_date))


def _behind_endpoint(policy: Endpoint) -> Checkpoint:
    named = policy.api_key_env != Endpoint.model_fields["api_key_env"].default
    if not policy.api_key and (named or policy.official):
        raise ValueError(
            f"policy {shortened(policy.model)}: no API key; set the environment variable {policy.api_key_env}"
        )
    return Checkpoint(
        location=policy.model_dump(), fingerprint=f"endpoint:{policy.endpoint.rstrip('/')} {policy.model}"
    )


def judge_specs(variants: Sequence[Variant], policy: str | Endpoint) -> dict[str, ComponentSpec]:
    """The judges by label.

    Raises:
        ValueError: as `judge_spec`, or two different ones have the same label.
    """
    judges: dict[str, ComponentSpec] = {}
    options: dict[str, Mapping[str, Any]] = {}
    for variant in variants:
        if options.setdefault(variant.label, variant.options) == variant.options and variant.label in judges:
            continue  # each cell names its judge, and to make one may mean to read a file
        judge = judge_spec(variant, policy)
        if judges.setdefault(variant.label, judge).determines != judge.determines:
            raise ValueError(
                f"two different judges are both called {shortened(variant.label)}: "
                f"{shortened(dict(judges[variant.label].options), 80)} and {shortened(dict(judge.options), 80)}; "
                "give their files different names"
            )
    return judges


def judge_spec(variant: Variant, policy: str | Endpoint) -> ComponentSpec:
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
    judge = built("judges", replace(variant, options=options))
    return ComponentSpec("judges", variant.name, options, variant.label, judge.described(), judge.fingerprint())


def _trained_judge(variant: Variant) -> ComponentSpec:
    if variant.options:
        raise ValueError(
            f"{variant.place}: the pocket world trains the judge {variant.name!r} itself and knows its options; "
            f"leave out {clipped(', '.join(variant.options), 60)}, or give a model of your own as well"
        )
    policy, options = pocket_policy(), OPTIONS[variant.name]
    judge = make("judges", variant.name, {**options, "model": UNTRAINED})
    stage = TrainJudge(
        name=variant.name,
        policy=policy,
        votes=votes(policy),
        code=judge.fingerprint(),
        title=f"the pocket world's judge {variant.name}",
    )
    return ComponentSpec(
        "judges", variant.name, options, variant.label, judge.described(), judge.fingerprint(), source=stage
    )


def board_spec(variant: Variant, policy: str | Game | Endpoint) -> ComponentSpec:
    """The leaderboard, made once here so that its options are checked; the pocket world brings its own sets.

    Raises:
        ValueError: unknown name or option, data that is missing or of another kind.
    """
    kind = in_place(variant, lambda: load("leaderboards", variant.name))
    options = {k: v for k, v in variant.options.items() if k not in kind.paths}
    determines = {"options": options, "package": kind.package and version(kind.package)}
    spec = ComponentSpec("leaderboards", variant.name, variant.options, variant.label, determines)
    if policy == "pocket" and kind.paths and not variant.options.keys() & {*kind.paths, "tasks"}:
        in_place(variant, lambda: _check_without_data(variant))
        return replace(spec, source=benchmark_sets(pocket_policy()))
    board = built("leaderboards", variant)
    in_place(variant, board.check)
    contents = {k: content_hash(Path(variant.options[k])) for k in kind.paths if k in variant.options}
    return replace(spec, determines=determines | {"contents": contents})


def _check_without_data(variant: Variant) -> None:
    """A leaderboard's options; boards look at their questions last, and these are not made yet."""
    with contextlib.suppress(NoData):
        make("leaderboards", variant.name, variant.options)


def built(kind: Kind, variant: Variant) -> Any:
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
        option = next((name for name in variant.taken if _may_want_list(variant, name, str(error))), None)
        message = f"{error} (each value of the list {option!r} is a variant, {ONE_LIST})" if option else str(error)
        raise ValueError(f"{variant.place}: {message}" if variant.place else message) from error


def _may_want_list(variant: Variant, option: str, error: str) -> bool:
    """Whether an error may come from a list that was meant as one value: lists as values hold names or judges."""
    names = re.search(rf"\b{re.escape(option)}\b", error) and "no option" not in error
    return bool(names) and isinstance(variant.options[option], str | Mapping)


def _checked_folder(folder: Path) -> str:
    if not (folder / "config.json").is_file():
        raise ValueError(f"policy {folder}: the folder has no config.json, so it is no Hugging Face checkpoint")
    if not any(folder.glob("*.safetensors")):
        other = next((f.name for f in sorted(folder.iterdir()) if f.suffix in (".bin", ".pt", ".pth", ".gguf")), None)
        fact = f"it has {other}, which is not read; convert it to safetensors" if other else "it has no weights"
        raise ValueError(f"policy {folder}: no *.safetensors in the folder; {fact}")
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")):
        raise ValueError(f"policy {folder}: the folder has no tokenizer")
    return content_hash(folder)
