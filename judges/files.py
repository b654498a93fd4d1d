"""The JSON Lines files that people bring and take away: pairs, labels, verdicts."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from judges.judge import Prompt, messages_of

SomePair = TypeVar("SomePair", bound="Pair")
VOTES = {"first": 1.0, "second": 0.0, "tie": 0.5}


@dataclass(frozen=True)
class Pair:
    """A prompt and two responses to it, under an id."""

    id: str
    prompt: Prompt
    first: str
    second: str


@dataclass(frozen=True)
class LabelledPair(Pair):
    """A pair and what its annotators said: each "first", "second" or "tie"."""

    votes: tuple[str, ...]

    @property
    def share(self) -> float:
        """The share of votes for the first response, in 0..1; a tie counts one half."""
        return sum(VOTES[vote] for vote in self.votes) / len(self.votes)

    @property
    def label(self) -> str:
        """The vote that most annotators gave; "tie" where two lead alike."""
        ranked = Counter(self.votes).most_common(2)
        return "tie" if len(ranked) == 2 and ranked[0][1] == ranked[1][1] else ranked[0][0]


@dataclass(frozen=True)
class Verdict:
    """One line of a verdicts file: P(first beats second) in the pair's own naming, NaN where the question failed."""

    id: str
    order: str
    preference: float
    status: str


def read_pairs(path: str | Path) -> list[Pair]:
    """Pairs of a `pairs.jsonl` {id, prompt, first, second}. Raises ValueError with the line for anything else."""
    return _distinct([Pair(**_texts(row, place)) for place, row in _rows(path)], path)


def read_labels(path: str | Path) -> list[LabelledPair]:
    """Labelled pairs of a `labels.jsonl`: a pair and `label`, "first", "second", "tie", or a list of these.

    Raises ValueError with the line for anything else.
    """
    rows = [LabelledPair(**_texts(row, place), votes=_votes(row.get("label"), place)) for place, row in _rows(path)]
    return _distinct(rows, path)


def read_verdicts(path: str | Path) -> list[Verdict]:
    """Verdicts of a `verdicts.jsonl` {id, order, preference, status}; a null preference is a failed question.

    Raises ValueError with the line for anything else, a pair answered twice in one order included.
    """
    verdicts = [_verdict(row, place) for place, row in _rows(path)]
    twice = [key for key, count in Counter((each.id, each.order) for each in verdicts).items() if count > 1]
    if twice:
        raise ValueError(f"{path}: id {twice[0][0]!r} has two verdicts in order {twice[0][1]!r}; keep one")
    return verdicts


def write_verdicts(path: str | Path, verdicts: Iterable[Verdict]) -> None:
    """Write a `verdicts.jsonl`, a line a question; NaN becomes null."""
    with Path(path).open("w", encoding="utf-8") as file:
        for each in verdicts:
            preference = None if math.isnan(each.preference) else each.preference
            row = {"id": each.id, "order": each.order, "preference": preference, "status": each.status}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _rows(path: str | Path) -> Iterator[tuple[str, dict[str, Any]]]:
    if not Path(path).is_file():
        raise ValueError(f"file not found: {path}")
    empty = True
    with Path(path).open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            empty = False
            yield f"{path}:{number}", _object(line, f"{path}:{number}")
    if empty:
        raise ValueError(f"{path} is empty: it needs one JSON object a line")


def _object(line: str, place: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{place}: not JSON: {error}") from error
    if not isinstance(row, dict):
        raise ValueError(f"{place}: expected an object with keys and values, got {line.strip()[:60]}")
    return row


def _texts(row: dict[str, Any], place: str) -> dict[str, Any]:
    for name in ("id", "prompt", "first", "second"):
        if name not in row:
            raise ValueError(f"{place}: the key {name!r} is missing")
    for name in ("first", "second"):
        if not isinstance(row[name], str):
            raise ValueError(f"{place}: {name!r} must be a text, got {str(row[name])[:60]!r}")
    if not isinstance(row["prompt"], str | list):
        raise ValueError(f"{place}: 'prompt' must be a text or a list of chat messages")
    try:
        messages_of(row["prompt"])
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error
    return {"id": str(row["id"]), "prompt": row["prompt"], "first": row["first"], "second": row["second"]}


def _votes(label: Any, place: str) -> tuple[str, ...]:
    votes = tuple(label) if isinstance(label, list) else (label,)
    if not votes or any(not isinstance(vote, str) or vote not in VOTES for vote in votes):
        raise ValueError(f"{place}: 'label' must be 'first', 'second', 'tie' or a list of these, got {label!r:.60}")
    return votes


def _verdict(row: dict[str, Any], place: str) -> Verdict:
    preference = row.get("preference")
    if "id" not in row or row.get("order") not in ("original", "swapped"):
        raise ValueError(f"{place}: a verdict needs an 'id' and the 'order' 'original' or 'swapped'")
    number = isinstance(preference, int | float) and not isinstance(preference, bool) and 0 <= preference <= 1
    if preference is not None and not number:
        raise ValueError(f"{place}: 'preference' must be a number in 0..1 or null, got {preference!r}")
    status = str(row.get("status", "ok" if number else "failed"))
    if number != (status == "ok"):
        raise ValueError(f"{place}: status {status!r} does not go with preference {preference!r}")
    return Verdict(str(row["id"]), row["order"], float("nan") if preference is None else float(preference), status)


def _distinct(pairs: Sequence[SomePair], path: str | Path) -> list[SomePair]:
    twice = [name for name, count in Counter(pair.id for pair in pairs).items() if count > 1]
    if twice:
        raise ValueError(f"{path}: the id {twice[0]!r} is there twice; ids name pairs")
    return list(pairs)
