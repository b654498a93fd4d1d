"""What each trial of a tuned trainer scored, and which was chosen."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from harness.matrix import variants
from harness.planning.plan import Plan
from harness.planning.tuning import BOARD
from harness.stages.choose import Choose
from harness.store.artifacts import Store


def trial_rows(plan: Plan, store: Store) -> Iterator[dict[str, Any]]:
    """One row a trial, as the choice saw it; without a choice every trial is `missing`."""
    tuned = {cell.choice.key: (cell, cell.choice) for cell in plan.cells if cell.choice is not None}
    for cell, choice in tuned.values():
        chosen, tried = _read(choice, store)
        named = cell.cell
        about = {"policy": named.policy_label, "trainer": named.trainer.label, "judge": named.judge_label}
        for trial in tried:
            yield {
                **about,
                "leaderboard": BOARD,
                "grader": _grader(plan),
                "metric": choice.metric,
                **trial,
                "options": json.dumps(trial["options"], sort_keys=True),
                "chosen": trial["trial"] == chosen,
            }


def _read(choice: Choose, store: Store) -> tuple[int | None, list[dict[str, Any]]]:
    if store.has(choice):
        found = json.loads(store.open(choice, "chosen.json").read_text(encoding="utf-8"))
        return found["chosen"], found["trials"]
    trials = [{"trial": n, "options": options, "status": "missing"} for n, options in enumerate(choice.options, 1)]
    return None, trials


def _grader(plan: Plan) -> str:
    tune = plan.config.tune
    return "" if tune is None else variants(tune.grader)[0].label
