"""Answers in, scores with intervals out. A board is imported when it is first asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from leaderboards.alpaca_eval import AlpacaEval as AlpacaEval
    from leaderboards.arena_hard import ArenaHard as ArenaHard
    from leaderboards.duality_gap import DualityGap as DualityGap
    from leaderboards.head_to_head import HeadToHead as HeadToHead
    from leaderboards.leaderboard import Leaderboard as Leaderboard
    from leaderboards.leaderboard import Metric as Metric
    from leaderboards.leaderboard import Score as Score
    from leaderboards.lm_eval import LMEval as LMEval
    from leaderboards.mt_bench import MTBench as MTBench

_HOMES = {
    "AlpacaEval": "leaderboards.alpaca_eval",
    "ArenaHard": "leaderboards.arena_hard",
    "DualityGap": "leaderboards.duality_gap",
    "HeadToHead": "leaderboards.head_to_head",
    "LMEval": "leaderboards.lm_eval",
    "Leaderboard": "leaderboards.leaderboard",
    "MTBench": "leaderboards.mt_bench",
    "Metric": "leaderboards.leaderboard",
    "Score": "leaderboards.leaderboard",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'leaderboards' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
