"""Head-to-head: every policy against the untrained one, on held-out prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from judges.judge import Judge, Prompt
from leaderboards.grading import both_orders, lengths, play_games, preferences, verdict_row
from leaderboards.leaderboard import Answers, Metric, Request, Score, TextLeaderboard, Verdict
from leaderboards.statistics.intervals import mean_estimate


@dataclass(frozen=True, kw_only=True)
class HeadToHead(TextLeaderboard):
    """Win rate against the untrained policy's answers, each pair judged in both orders; the interval is over prompts.

    Args: those of every text leaderboard; thinking is taken out of the untrained policy's answers too.
    """

    name = "head-to-head"
    pairwise = True
    baseline = "start"
    metrics = {  # noqa: RUF012
        "win_rate": Metric(
            unit="probability",
            better="higher",
            estimates="P(an answer of the policy is preferred to one of the untrained policy), on held-out prompts",
            null_value=0.5,
            bounds=(0, 1),
        ),
        "average_length": Metric(unit="characters", better="neither", estimates="mean length of the answers"),
    }

    def requests(self, heldout: Sequence[tuple[str, Prompt]], temperature: float, *, last: bool) -> list[Request]:
        return [Request(id=id, prompt=prompt, temperature=temperature) for id, prompt in self.asked(heldout, last=last)]

    def grade(
        self, requests: Sequence[Request], answers: Answers, baseline: Answers | None, judge: Judge
    ) -> list[Verdict]:
        if baseline is None:
            raise ValueError("head-to-head compares with the untrained policy: hand over its answers as baseline")
        replies, before = ([self.reply(r.id, texts) for r in requests] for texts in (answers, baseline))
        replies = [
            a if b.status == "ok" or a.status != "ok" else replace(a, status=f"baseline-{b.status}")
            for a, b in zip(replies, before, strict=True)
        ]
        texts = [b.text for b in before]
        games = play_games(judge, [r.prompt for r in requests], replies, texts, both_orders(len(requests)))
        return [verdict_row(*each) for each in zip(requests, replies, texts, games.mean(), games.status, strict=True)]

    def by_prompt(self, verdicts: Sequence[Verdict]) -> dict[str, dict[str, float | None]]:
        return {"win_rate": {v["id"]: v["preference"] for v in verdicts}}

    def rate(self, verdicts: Sequence[Verdict], seed: int) -> list[Score]:
        figures = {"win_rate": preferences(verdicts), "average_length": lengths(verdicts)}
        return [
            Score.of(name, mean_estimate(values, bounds=self.metrics[name].bounds)) for name, values in figures.items()
        ]
