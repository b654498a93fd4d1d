"""The best of several trials of one trainer, by their scores on prompts cut from the training prompts."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from harness.errors import UserError
from harness.specs import ComponentSpec
from harness.stage import Facts, Stage
from harness.stages.context import Context
from harness.stages.rate import Rate
from trainers.options import Training


@dataclass(frozen=True, kw_only=True, eq=False)
class Choose(Stage):
    """`chosen.json`: `chosen` (number of the best trial, from 1; of equal ones the first), its `options`, and `trials`:
    number, options, status (ok or failed), value and interval of each.

    A trial that failed when this ran is not chosen, and the choice stays when it succeeds later: policies were trained
    by it.

    Attributes:
        trials: the scores, by number of the trial.
        options: of each trial, in order: those of the `algorithm` and of `training`.
        metric: of the scores, higher is better.
    """

    kind = "choose"

    trials: Mapping[str, Rate]
    options: tuple[Mapping[str, Any], ...]
    metric: str

    @property
    def optional(self) -> frozenset[str]:
        return frozenset(trial.key for trial in self.trials.values())

    def run(self, context: Context) -> Facts:
        tried = [self._trial(context, number) for number in self.trials]
        scored = [trial for trial in tried if trial["status"] == "ok"]
        if not scored:
            raise UserError(
                f"all {len(tried)} trials failed, so that no options can be chosen; the reasons stand above"
            )
        best = max(scored, key=lambda trial: trial["value"])
        chosen = {"chosen": best["trial"], "options": best["options"], "trials": tried}
        (context.out / "chosen.json").write_text(json.dumps(chosen, indent=1), encoding="utf-8")
        return {"chosen": best["trial"], "failed": len(tried) - len(scored)}

    def _trial(self, context: Context, number: str) -> dict[str, Any]:
        rate = self.trials[number]
        trial = {"trial": int(number), "options": self.options[int(number) - 1]}
        if not context.store.has(rate):
            return trial | {"status": "failed"}
        scores = json.loads((context.read(rate) / "scores.json").read_text(encoding="utf-8"))
        (score,) = [s for s in scores if s["metric"] == self.metric and not s["category"]]
        if not math.isfinite(score["value"]):  # no answer had a verdict
            return trial | {"status": "failed"}
        return trial | {"status": "ok"} | {name: score[name] for name in ("value", "ci_low", "ci_high", "n")}


def with_choice(
    context: Context, choice: Choose | None, algorithm: ComponentSpec, training: Training
) -> tuple[ComponentSpec, Training]:
    """An algorithm and its training with the options that trials chose, where they did."""
    if choice is None:
        return algorithm, training
    chosen = json.loads((context.read(choice) / "chosen.json").read_text(encoding="utf-8"))["options"]
    options = {**algorithm.options, **chosen["algorithm"]}
    return replace(algorithm, options=options), training.model_copy(update=chosen["training"])
