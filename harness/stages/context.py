"""What a stage function is given: its stage, the store, and the things its config names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.registry import make
from harness.stage import Stage
from harness.store.artifacts import Store
from harness.store.cached_judge import CachedJudge

if TYPE_CHECKING:
    from trainers.algorithm import Algorithm
    from trainers.options import Endpoint
    from trainers.policies.causal_lm import CausalLM

Facts = dict[str, Any]
Report = Callable[[int, int], None]


@dataclass
class ModelCache:
    """Frozen policies kept in memory between stages; fitting empties it, so that only the trained policy is held."""

    models: dict[str, CausalLM] = field(default_factory=dict)

    def get(self, path: str, precision: str) -> CausalLM:
        """A policy, loaded unless it is in memory; of three the one not used for longest is dropped."""
        from trainers.policies.causal_lm import CausalLM

        key = f"{path} {precision}"
        model = self.models.pop(key, None)
        if model is None and len(self.models) >= 2:
            self.models.pop(next(iter(self.models)))
        self.models[key] = model or CausalLM.load(path, precision)  # last in, so that the least used is dropped
        return self.models[key]


@dataclass(frozen=True)
class Context:
    """What a stage function is given."""

    stage: Stage
    store: Store
    out: Path
    report: Report
    models: ModelCache

    @property
    def options(self) -> Mapping[str, Any]:
        """What the stage computes from besides its inputs; part of its key."""
        return self.stage.options

    @property
    def unfinished(self) -> Path:
        """A folder for what a later run of the stage goes on from; it goes once the artifact is in the store."""
        return self.store.unfinished(self.stage)

    def input(self, name: str) -> Path:
        """The folder of an input artifact."""
        return self.store.path(self.stage.inputs[name])

    def policy_path(self, name: str) -> str:
        """A checkpoint: an input artifact's, or a path or hub id given from outside."""
        return str(self.input(name) / "model") if name in self.stage.inputs else str(self.stage.where[name])

    def policy(self, name: str) -> CausalLM:
        """A frozen policy in the precision of the stage; see `policy_path`."""
        return self.models.get(self.policy_path(name), self.options["precision"])

    def endpoint(self, name: str) -> Endpoint | None:
        """The policy where it is one behind an endpoint."""
        from trainers.options import Endpoint

        given = self.stage.where.get(name)
        return Endpoint.model_validate(given) if isinstance(given, dict) else None

    def judge(self) -> CachedJudge:
        """The stage's judge, whose answers and an endpoint's replies the store keeps.

        One that a world trains has its model in an input artifact.
        """
        chosen = self.stage.where["judge"]
        options = dict(chosen["options"])
        if "judge" in self.stage.inputs:
            options["model"] = str(self.input("judge") / "model")
        judge = make("judges", chosen["name"], options)
        judge.keep_replies(self.store.replies)
        return CachedJudge(judge, self.store.verdicts)

    def board(self) -> Any:
        """The stage's leaderboard; one that a world brings questions for has them in an input artifact."""
        chosen = self.stage.where["leaderboard"]
        options = dict(chosen["options"])
        if "sets" in self.stage.inputs:
            options["data"] = str(self.input("sets") / chosen["name"])
        return make("leaderboards", chosen["name"], options)

    def algorithm(self) -> Algorithm:
        """The stage's algorithm with its options."""
        chosen = self.options["algorithm"]
        return make("trainers", chosen["name"], chosen["options"])
