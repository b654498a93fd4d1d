"""Answers in, scores with intervals out. A board is imported when it is first asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from leaderboards.boards.alpaca_eval import AlpacaEval as AlpacaEval
    from leaderboards.boards.arena_hard import ArenaHard as ArenaHard
    from leaderboards.boards.duality_gap import DualityGap as DualityGap
    from leaderboards.boards.head_to_head import HeadToHead as HeadToHead
    from leaderboards.boards.lm_eval import LMEval as LMEval
    from leaderboards.boards.mt_bench import MTBench as MTBench
    from leaderboards.leaderboard import Leaderboard as Leaderboard
    from leaderboards.leaderboard import TextLeaderboard as TextLeaderboard
    from leaderboards.records import BoardQuestion as BoardQuestion
    from leaderboards.records import GradedItem as GradedItem
    from leaderboards.records import Metric as Metric
    from leaderboards.records import Score as Score

_HOMES = {
    "AlpacaEval": "leaderboards.boards.alpaca_eval",
    "ArenaHard": "leaderboards.boards.arena_hard",
    "BoardQuestion": "leaderboards.records",
    "DualityGap": "leaderboards.boards.duality_gap",
    "GradedItem": "leaderboards.records",
    "HeadToHead": "leaderboards.boards.head_to_head",
    "LMEval": "leaderboards.boards.lm_eval",
    "Leaderboard": "leaderboards.leaderboard",
    "MTBench": "leaderboards.boards.mt_bench",
    "Metric": "leaderboards.records",
    "Score": "leaderboards.records",
    "TextLeaderboard": "leaderboards.leaderboard",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'leaderboards' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
