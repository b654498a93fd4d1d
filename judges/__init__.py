"""Judges: who prefers what.

`from judges import PairRMJudge` loads neither torch nor transformers; weights come at the first question.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from judges.ensemble import EnsembleJudge as EnsembleJudge
    from judges.judge import Judge as Judge
    from judges.judge import Prompt as Prompt
    from judges.judge import Question as Question
    from judges.llm import LLMJudge as LLMJudge
    from judges.pair_preference import PairPreferenceJudge as PairPreferenceJudge
    from judges.pairrm import PairRMJudge as PairRMJudge
    from judges.panel import PanelJudge as PanelJudge
    from judges.recorded import HumanJudge as HumanJudge
    from judges.recorded import RecordedJudge as RecordedJudge
    from judges.reward_model import RewardModelJudge as RewardModelJudge
    from judges.verdicts import Answer as Answer
    from judges.verdicts import Verdicts as Verdicts

_HOMES = {
    "Answer": "judges.verdicts",
    "EnsembleJudge": "judges.ensemble",
    "HumanJudge": "judges.recorded",
    "Judge": "judges.judge",
    "LLMJudge": "judges.llm",
    "PairPreferenceJudge": "judges.pair_preference",
    "PairRMJudge": "judges.pairrm",
    "PanelJudge": "judges.panel",
    "Prompt": "judges.judge",
    "Question": "judges.judge",
    "RecordedJudge": "judges.recorded",
    "RewardModelJudge": "judges.reward_model",
    "Verdicts": "judges.verdicts",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'judges' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
