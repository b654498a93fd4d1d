"""What every board of texts tells beside its own figures: silence, answers that were cut, and what is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from leaderboards.leaderboard import TextLeaderboard
from leaderboards.records import OK, GradedItem, Metric, Score
from leaderboards.statistics.intervals import mean_estimate

EMPTY, UNFINISHED, MISSING, WORST = "empty_share", "unfinished_share", "missing_share", "_worst"
SHARES = {
    EMPTY: Metric(
        unit="share",
        better="neither",
        bounds=(0.0, 1.0),
        estimates="answers without text, thinking aside where it is taken out; each loses to any text",
    ),
    UNFINISHED: Metric(
        unit="share",
        better="neither",
        bounds=(0.0, 1.0),
        estimates="answers that did not end within the board's max_tokens",
    ),
    MISSING: Metric(
        unit="share",
        better="neither",
        bounds=(0.0, 1.0),
        estimates="answers without a verdict, because the judge or an endpoint gave none",
    ),
}


def outcome_metrics(board: type[TextLeaderboard]) -> Mapping[str, Metric]:
    """What the scores of `outcome_scores` mean. A worst case has no better side: it is a bound, and ranks nothing."""
    bounds = {
        name + WORST: replace(
            metric,
            better="neither",
            official=False,
            estimates=f"{name} if every answer without a verdict were an empty one: its lower bound",
        )
        for name, metric in board.metrics.items()
        if metric.better == "higher"
    }
    return {**SHARES, **bounds}


def outcome_scores(board: TextLeaderboard, items: Sequence[GradedItem], scores: Sequence[Score]) -> list[Score]:
    """The shares of `SHARES`, and where verdicts are missing the lower bound of every overall figure.

    Args:
        scores: the board's own, of the same items.
    """
    answered = [item for item in items if item.status == OK]
    flags = {
        EMPTY: [float(item.empty) for item in answered],
        UNFINISHED: [float(not item.finished) for item in answered if item.finished is not None],
        MISSING: [float(item.status != OK) for item in items],
    }
    shares = [
        Score.of(name, mean_estimate(values, bounds=SHARES[name].bounds)) for name, values in flags.items() if values
    ]
    return [*shares, *_worst_cases(board, items, scores)]


def _worst_cases(board: TextLeaderboard, items: Sequence[GradedItem], scores: Sequence[Score]) -> list[Score]:
    """The board's rule on items whose missing verdicts are losses; none where its items have values of its own kind."""
    if all(item.status == OK for item in items) or any(item.value is not None for item in items):
        return []
    lost = [item if item.status == OK else board.lost(item) for item in items]
    wanted = {score.metric for score in scores if not score.category and score.coverage < 1}
    wanted &= {name for name, metric in board.metrics.items() if metric.better == "higher"}
    worst = [score for score in board.rate(lost, seed=0) if score.metric in wanted and not score.category]
    return [replace(score, metric=score.metric + WORST) for score in worst]
