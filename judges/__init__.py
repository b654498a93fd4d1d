"""Judges: who prefers what.

`from judges import PairRMJudge` loads neither torch nor transformers; weights are loaded at the first question.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from judges.judge import Judge as Judge
    from judges.judge import Prompt as Prompt
    from judges.judge import Question as Question
    from judges.kinds.ensemble import EnsembleJudge as EnsembleJudge
    from judges.kinds.llm import LLMJudge as LLMJudge
    from judges.kinds.pair_preference import PairPreferenceJudge as PairPreferenceJudge
    from judges.kinds.pairrm import PairRMJudge as PairRMJudge
    from judges.kinds.panel import PanelJudge as PanelJudge
    from judges.kinds.recorded import HumanJudge as HumanJudge
    from judges.kinds.recorded import RecordedJudge as RecordedJudge
    from judges.kinds.reward_model import RewardModelJudge as RewardModelJudge
    from judges.verdicts import Answer as Answer
    from judges.verdicts import Verdicts as Verdicts

_HOMES = {
    "Answer": "judges.verdicts",
    "EnsembleJudge": "judges.kinds.ensemble",
    "HumanJudge": "judges.kinds.recorded",
    "Judge": "judges.judge",
    "LLMJudge": "judges.kinds.llm",
    "PairPreferenceJudge": "judges.kinds.pair_preference",
    "PairRMJudge": "judges.kinds.pairrm",
    "PanelJudge": "judges.kinds.panel",
    "Prompt": "judges.judge",
    "Question": "judges.judge",
    "RecordedJudge": "judges.kinds.recorded",
    "RewardModelJudge": "judges.kinds.reward_model",
    "Verdicts": "judges.verdicts",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'judges' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
