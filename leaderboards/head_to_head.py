"""Head-to-head: every policy against the untrained one, on held-out prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from judges.judge import Judge, Prompt
from leaderboards.leaderboard import Answers, Metric, Request, Score, TextLeaderboard, Verdict
from leaderboards.statistics import prompt_bootstrap


@dataclass(frozen=True, kw_only=True)
class HeadToHead(TextLeaderboard):
    """Win rate against the untrained policy's answers, each pair judged in both orders; the interval is by prompt.

    Args:
        limit: at most this many held-out prompts, the first ones; None takes all.
        curve_limit: at most this many before the last iteration, where a score is only a point on a curve.
    """

    limit: int | None = None
    curve_limit: int = 256

    name = "head-to-head"
    metrics = {  # noqa: RUF012
        "win_rate": Metric(
            unit="probability",
            better="higher",
            estimates="P(an answer of the policy is preferred to one of the untrained policy), on held-out prompts",
            null_value=0.5,
        ),
        "average_length": Metric(unit="characters", better="neither", estimates="mean length of the answers"),
    }

    def __post_init__(self) -> None:
        for name in ("limit", "curve_limit"):
            value = getattr(self, name)
            if value is not None and value < 2:
                raise ValueError(f"head-to-head: {name} is {value}; an interval needs at least 2 prompts")

    def requests(self, heldout: Sequence[tuple[str, Prompt]], temperature: float, *, last: bool) -> list[Request]:
        asked = heldout[: self.limit] if last else heldout[: self.limit][: self.curve_limit]
        return [Request(id=id, prompt=prompt, temperature=temperature) for id, prompt in asked]

    def grade(self, requests: Sequence[Request], answers: Answers, baseline: Answers, judge: Judge) -> list[Verdict]:
        first, second = ([texts[r.id][0] for r in requests] for texts in (answers, baseline))
        record = judge.verdicts([r.prompt for r in requests], first, second, both_orders=True)
        statuses: list[set[str]] = [set() for _ in requests]
        for question, status in zip(record.question, record.status, strict=True):
            statuses[question].add(status)
        return [
            {
                "id": request.id,
                "prompt": request.prompt,
                "response": a,
                "before": b,
                "preference": None if np.isnan(p) else float(p),
                "status": "ok" if not np.isnan(p) else "+".join(sorted(status - {"ok"})),
            }
            for request, a, b, p, status in zip(requests, first, second, record.mean(), statuses, strict=True)
        ]

    def by_prompt(self, verdicts: Sequence[Verdict]) -> dict[str, dict[str, float | None]]:
        return {"win_rate": {v["id"]: v["preference"] for v in verdicts}}

    def rate(self, verdicts: Sequence[Verdict], seed: int) -> list[Score]:
        preferences = np.array([np.nan if v["preference"] is None else v["preference"] for v in verdicts])
        lengths = np.array([float(len(v["response"])) for v in verdicts])
        figures = {"win_rate": preferences, "average_length": lengths}
        estimates = {name: prompt_bootstrap(values, seed=seed) for name, values in figures.items()}
        return [
            Score(
                metric=name,
                value=e.value,
                ci_low=e.ci_low,
                ci_high=e.ci_high,
                ci_level=e.ci_level,
                n=e.n,
                coverage=e.coverage,
            )
            for name, e in estimates.items()
        ]
