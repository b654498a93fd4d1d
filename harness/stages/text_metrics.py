"""Figures of a policy's texts: signs of collapse, and shares of styles."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from judges.judge import Judge
from judges.kinds.panel import PanelJudge
from leaderboards.records import GradedItem

COUNTED = 128  # texts at most


def text_figures(texts: Sequence[str]) -> dict[str, float]:
    """Signs of collapse in the first 128 texts, or all where there are fewer.

    Shares of distinct things depend on how many there are: compare figures of equally many texts.

    distinct_2: share of distinct word pairs; repeated: share of texts seen before; words: mean length; empty: share of
    all texts that have no word.
    """
    empty = float(np.mean([not text.strip() for text in texts]))
    texts = texts[:COUNTED]
    words = [text.split() for text in texts]
    bigrams = [pair for w in words for pair in itertools.pairwise(w)]
    return {
        "distinct_2": len(set(bigrams)) / max(1, len(bigrams)),
        "repeated": 1 - len(set(texts)) / max(1, len(texts)),
        "words": float(np.mean([len(w) for w in words])),
        "empty": empty,
    }


def style_figures(grader: Judge, items: Sequence[GradedItem]) -> dict[str, float]:
    """Share of the answers in each style that a panel knows, `style:other` the rest; nothing for another judge."""
    if not isinstance(grader, PanelJudge) or not grader.style_names:
        return {}
    styles = grader.styles([item.prompt for item in items], [item.response for item in items])
    return {f"style:{name}": styles.count(name) / len(styles) for name in (*grader.style_names, "other")}
