"""Alarms: signs that a policy's texts collapse or swing, that its figures compare badly, or that it never moved.

They are read off the figures of its answers at each iteration, its scores, and its fits.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from leaderboards.outcomes import EMPTY, MISSING, UNFINISHED

Figures = Mapping[str, float]

HALF, MOST, SWING, REPEATS = 0.5, 0.9, 0.25, 0.25
STANDSTILL = 0.01
"""Root mean square log-ratio, nats: below it every response is as likely as before to within a hundredth."""
SHARE_LIMITS = {"empty": (EMPTY, 0.02), "unfinished": (UNFINISHED, 0.2)}
"""Alarm -> the share that it watches and the largest that passes."""
MISSING_GAP = 0.02
"""A larger difference of missing shares could move a difference of win rates by more than its standard error over 805
prompts, which is .018 at one half."""


def alarms(start: Figures, iterations: Sequence[Figures]) -> list[dict[str, float]]:
    """For each iteration the alarms as 1 (triggered) or 0, of those whose figures are known.

    Args:
        start: the untrained policy's figures.
        iterations: the trained policy's, in order; keys as in `harness.stages.text_metrics` and the answer stage.
    """
    return [
        {
            f"alarm:{name}": float(found)
            for name, rule in ALARMS.items()
            if (found := _ask(rule, start, iterations[: t + 1])) is not None
        }
        for t in range(len(iterations))
    ]


def score_alarms(rows: Iterable[Mapping[str, Any]]) -> dict[tuple[str, int], dict[str, float]]:
    """(cell, iteration) -> the alarms that its scores watch, as 1 (rang on some board) or 0.

    `empty` and `unfinished` hold the shares of such answers against `SHARE_LIMITS`. `missing` rings where a policy
    lacks verdicts that another one of the same iteration, board and grader has: figures over different prompts.

    Args:
        rows: of the results table.
    """
    rang: dict[tuple[str, int], dict[str, float]] = defaultdict(dict)
    missing: dict[tuple[str, str], dict[tuple[str, int], float]] = defaultdict(dict)
    for row in rows:
        at = (row["cell"], row["iteration"])
        for name, (share, limit) in SHARE_LIMITS.items():
            if row["metric"] == share:
                rang[at][f"alarm:{name}"] = max(rang[at].get(f"alarm:{name}", 0.0), float(row["value"] > limit))
        if row["metric"] == MISSING:
            missing[row["leaderboard"], row["grader"]][row["cell"], row["iteration"]] = row["value"]
    for shares in missing.values():
        for at, lacking in shares.items():
            fewest = min(other for (_, iteration), other in shares.items() if iteration in (at[1], 0))
            rings = float(lacking - fewest > MISSING_GAP)
            rang[at]["alarm:missing"] = max(rang[at].get("alarm:missing", 0.0), rings)
    return dict(rang)


def _ask(rule: Rule, start: Figures, so_far: Sequence[Figures]) -> bool | None:
    try:
        return rule(start, so_far)
    except KeyError:  # the figure was not measured
        return None


Rule = Callable[[Figures, Sequence[Figures]], bool]


def low_entropy(start: Figures, so_far: Sequence[Figures]) -> bool:
    """Less than half of the start's entropy is left."""
    return so_far[-1]["entropy"] < HALF * start["entropy"]


def few_bigrams(start: Figures, so_far: Sequence[Figures]) -> bool:
    """Less than half of the start's share of distinct word pairs is left."""
    return so_far[-1]["distinct_2"] < HALF * start["distinct_2"]


def repeated_texts(start: Figures, so_far: Sequence[Figures]) -> bool:
    """A quarter of the answers more than at the start have been given before, word by word."""
    return so_far[-1]["repeated"] > start["repeated"] + REPEATS


def one_style(start: Figures, so_far: Sequence[Figures]) -> bool:
    """Nine answers in ten are in one style, which was not so at the start."""
    return _largest_share(so_far[-1]) > MOST >= _largest_share(start)


def oscillation(start: Figures, so_far: Sequence[Figures]) -> bool:
    """A style's share swung by a quarter or more and back within two iterations."""
    path = [start, *so_far][-3:]
    styles = [name for name in so_far[-1] if name.startswith("style:")]
    if not styles:
        raise KeyError("style")
    if len(path) < 3:
        return False
    swings = [(path[1][s] - path[0][s], path[2][s] - path[1][s]) for s in styles]
    return any(min(abs(a), abs(b)) >= SWING and a * b < 0 for a, b in swings)


def _largest_share(figures: Figures) -> float:
    shares = [value for name, value in figures.items() if name.startswith("style:")]
    if not shares:
        raise KeyError("style")
    return max(shares)


ALARMS: dict[str, Rule] = {
    "entropy": low_entropy,
    "distinct-2": few_bigrams,
    "repeats": repeated_texts,
    "one-style": one_style,
    "oscillation": oscillation,
}
