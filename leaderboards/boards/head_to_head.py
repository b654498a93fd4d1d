"""Head-to-head: every policy against the untrained one, on held-out prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from judges.judge import Judge, Prompt
from leaderboards.grading import both_orders, graded_item, lengths, play_games, preferences
from leaderboards.leaderboard import Part, TextLeaderboard
from leaderboards.records import Answers, BoardQuestion, GradedItem, Metric, Score
from leaderboards.statistics.intervals import mean_estimate


@dataclass(frozen=True, kw_only=True)
class HeadToHead(TextLeaderboard):
    """Win rate against the untrained policy's answers, each pair judged in both orders; the interval is over prompts.

    Args: those of every text leaderboard.
    """

    name = "head-to-head"
    pairwise = True
    baseline = "untrained"
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

    def requests(self, heldout: Sequence[tuple[str, Prompt]], temperature: float, part: Part) -> list[BoardQuestion]:
        prompts = self.part_of(heldout, part)
        return [BoardQuestion(id=id, prompt=prompt, temperature=temperature) for id, prompt in prompts]

    def grade(
        self, questions: Sequence[BoardQuestion], answers: Answers, baseline: Answers | None, judge: Judge
    ) -> list[GradedItem]:
        if baseline is None:
            raise ValueError("head-to-head compares with the untrained policy: hand over its answers as baseline")
        ours, theirs = ([self.answer_to(q.id, texts) for q in questions] for texts in (answers, baseline))
        ours = [
            a if b.status == "ok" or a.status != "ok" else replace(a, status=f"baseline-{b.status}")
            for a, b in zip(ours, theirs, strict=True)
        ]
        texts = [b.text for b in theirs]
        games = play_games(judge, [q.prompt for q in questions], ours, texts, both_orders(len(questions)))
        columns = zip(questions, ours, texts, games.mean(), games.status, strict=True)
        return [graded_item(*row) for row in columns]

    def by_prompt(self, items: Sequence[GradedItem]) -> dict[str, dict[str, float | None]]:
        return {"win_rate": {item.id: item.preference for item in items}}

    def rate(self, items: Sequence[GradedItem], seed: int) -> list[Score]:
        figures = {"win_rate": preferences(items), "average_length": lengths(items)}
        return [
            Score.of(name, mean_estimate(values, bounds=self.metrics[name].bounds)) for name, values in figures.items()
        ]
