"""What a stage is given when it runs: the store, its folder, and the things its fields name."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import hub
from harness.errors import UserError, users_input
from harness.identity import Identified
from harness.registry import make
from harness.specs import Checkpoint, ComponentSpec
from harness.store.artifacts import Store
from harness.store.cached_judge import CachedJudge
from judges.reading import clipped

if TYPE_CHECKING:
    from trainers.policies.causal_lm import CausalLM

Report = Callable[[int, int], None]


@dataclass
class ModelCache:
    """Frozen policies kept in memory between stages; fitting empties it, so that only the trained policy is held."""

    models: dict[str, CausalLM] = field(default_factory=dict)

    def get(self, path: str, precision: str) -> CausalLM:
        """A policy, loaded unless it is in memory; evicts the least recently used of two.

        Raises:
            UserError: it cannot be loaded.
        """
        key = f"{path} {precision}"
        model = self.models.pop(key, None)
        if model is None and len(self.models) >= 2:
            self.models.pop(next(iter(self.models)))
        self.models[key] = model or _loaded(path, precision)  # last in, so that the least used is dropped
        return self.models[key]


def _loaded(path: str, precision: str) -> CausalLM:
    from safetensors import SafetensorError

    from trainers.policies.causal_lm import CausalLM

    try:
        return CausalLM.load(path, precision)
    except (OSError, ValueError, SafetensorError) as error:
        reason = clipped(" ".join(str(error).split()), 200)
        raise UserError(
            f"policy {path} cannot be loaded: {reason}; give a Hugging Face checkpoint or hub id"
        ) from error


@dataclass(frozen=True)
class Context:
    """What a stage is given besides its fields.

    Attributes:
        out: the folder to fill.
        report: called with (done, in all) while it goes on.
    """

    stage: Identified
    store: Store
    out: Path
    report: Report
    models: ModelCache

    @property
    def unfinished(self) -> Path:
        """A folder for what a later run of the stage goes on from; it goes once the artifact is in the store."""
        return self.store.unfinished(self.stage)

    def read(self, source: Identified) -> Path:
        """The folder of an input's artifact, checked to be as it was written."""
        return self.store.open(source)

    def policy_path(self, policy: Checkpoint) -> str:
        """A checkpoint's folder; of one from the hub the cache's, fetched where it is not there yet."""
        if policy.stage is not None:
            return str(self.read(policy.stage) / "model")
        location = str(policy.location)
        with users_input():
            return location if os.path.isdir(location) else str(hub.folder(location))

    def policy(self, policy: Checkpoint, precision: str) -> CausalLM:
        """A frozen policy, ready to sample and score."""
        model = self.models.get(self.policy_path(policy), precision)
        model.template_date = policy.template_date
        return model

    def judge(self, spec: ComponentSpec) -> CachedJudge:
        """The judge, with the verdicts that the store holds; one that a world trains has its model in an artifact."""
        options = dict(spec.options)
        if spec.source is not None:
            options["model"] = str(self.read(spec.source) / "model")
        with users_input():
            judge = make("judges", spec.name, options)
        judge.keep_replies(self.store.replies)
        return CachedJudge(judge, self.store.verdicts)

    def board(self, spec: ComponentSpec) -> Any:
        """The leaderboard; one that a world brings questions for has them in an artifact."""
        options = dict(spec.options)
        if spec.source is not None:
            options["data"] = str(self.read(spec.source) / spec.name)
        with users_input():
            return make("leaderboards", spec.name, options)

    def algorithm(self, spec: ComponentSpec) -> Any:
        """The algorithm with its options."""
        with users_input():
            return make("trainers", spec.name, spec.options)
