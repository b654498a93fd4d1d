"""Every verdict and rating that a judge ever gave, failures with their kind and words included."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from harness.identity import canonical
from judges.judge import Question
from judges.record_log import Record, RecordLog
from judges.verdicts import Answer, is_transient


class VerdictStore:
    """Answers of judges by key, in a folder that any number of sweeps on any number of machines share.

    Answers are written within half a second; see `judges.record_log`.
    """

    def __init__(self, folder: Path) -> None:
        self._log = RecordLog(folder)

    def find(self, keys: Iterable[str]) -> dict[str, Answer]:
        """The answers that stand, by key: for each the earliest that is no transient failure.

        They say what they took then, and that nothing was called now. A key whose calls all failed has none.
        """
        final = {key: _final(records) for key, records in self._log.find(keys).items()}
        return {key: answer for key, answer in final.items() if answer}

    def add(self, answers: Mapping[str, Answer]) -> None:
        """Keep answers, those that failed too. Raises OSError where they cannot be written."""
        self._log.add({key: _record(answer) for key, answer in answers.items()})

    def refresh(self) -> None:
        """See what other processes have written; `find` does so once a second."""
        self._log.refresh()

    def flush(self) -> None:
        """Write what waits. Raises OSError where that fails."""
        self._log.flush()

    def close(self) -> None:
        """Write what waits and close this process's segment; done at its end, too."""
        self._log.close()


@cache
def verdict_store(folder: Path) -> VerdictStore:
    """The verdicts in a folder, opened once in a process."""
    return VerdictStore(folder)


def verdict_key(judge: str, question: Question) -> str:
    """The key of one verdict: the judge's fingerprint and the question as placed, with its references and category."""
    category = [question.category] if question.category else []
    return _sha256([judge, question.prompt, question.first, question.second, question.references, *category])


def rating_key(judge: str, question: Question) -> str:
    """The key of one rating of a single answer, which is the question's first text."""
    return _sha256(["rating", judge, question.prompt, question.first, question.references])


def _sha256(described: Sequence[Any]) -> str:
    return hashlib.sha256(canonical(described).encode("utf-8", "surrogatepass")).hexdigest()


def _final(records: Sequence[Record]) -> Answer | None:
    for record in records:
        if not is_transient(record["status"]):
            preference = math.nan if record["preference"] is None else record["preference"]
            return Answer(**record | {"preference": preference, "calls": 0})
    return None


def _record(answer: Answer) -> Record:
    """JSON has no NaN."""
    return vars(answer) | {"preference": None if math.isnan(answer.preference) else answer.preference}
