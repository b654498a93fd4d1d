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
    from leaderboards.leaderboard import Metric as Metric
    from leaderboards.leaderboard import Score as Score

_HOMES = {
    "AlpacaEval": "leaderboards.boards.alpaca_eval",
    "ArenaHard": "leaderboards.boards.arena_hard",
    "DualityGap": "leaderboards.boards.duality_gap",
    "HeadToHead": "leaderboards.boards.head_to_head",
    "LMEval": "leaderboards.boards.lm_eval",
    "Leaderboard": "leaderboards.leaderboard",
    "MTBench": "leaderboards.boards.mt_bench",
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
