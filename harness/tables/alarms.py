"""Alarms: signs that a policy's texts collapse or swing, read off the figures of its answers at each iteration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

Figures = Mapping[str, float]

HALF, MOST, SWING, REPEATS = 0.5, 0.9, 0.25, 0.25


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
