"""The JSON Lines files that users supply and receive: pairs, labels, verdicts."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from judges.judge import Prompt, messages_of
from judges.reading import clipped, parse_json, shortened
from judges.verdicts import OK

SomePair = TypeVar("SomePair", bound="Pair")
VOTES = {"first": 1.0, "second": 0.0, "tie": 0.5}
ORDERS = ("original", "swapped")
BOM = b"\xef\xbb\xbf"
WORDS: dict[type, str] = {int: "a whole number from 0", float: "a number from 0", bool: "true or false"}
MEASURED: dict[str, type] = {
    "repeat": int,
    "input_tokens": int,
    "output_tokens": int,
    "latency": float,
    "cost": float,
    "truncated": bool,
}


@dataclass(frozen=True)
class Pair:
    """A prompt and two responses to it, under an id."""

    id: str
    prompt: Prompt
    first: str
    second: str


@dataclass(frozen=True)
class LabelledPair(Pair):
    """A pair and its annotators' votes: "first", "second" or "tie"."""

    votes: tuple[str, ...]

    @property
    def share(self) -> float:
        """The share of votes for the first response, in 0..1; a tie counts one half."""
        return sum(VOTES[vote] for vote in self.votes) / len(self.votes)

    @property
    def label(self) -> str:
        """The vote that most annotators gave; "tie" where the first two have equally many."""
        ranked = Counter(self.votes).most_common(2)
        return "tie" if len(ranked) == 2 and ranked[0][1] == ranked[1][1] else ranked[0][0]


@dataclass(frozen=True)
class Verdict:
    """One line of a verdicts file: P(first beats second) in the pair's own naming, NaN where the question failed.

    `repeat` counts from 0 the times a question was put; the rest is as in `judges.verdicts.Answer`, and what a file
    leaves out is 0 or empty. `key` names the question and the judge, so that a resumed file stays one judge's.
    """

    id: str
    order: str
    preference: float
    status: str
    repeat: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    latency: float = 0.0
    cost: float = 0.0
    truncated: bool = False
    raw: str = ""
    key: str = ""


def placed(pair: Pair, order: str) -> tuple[Prompt, str, str]:
    """The prompt and the responses as the judge sees them in an order, "original" or "swapped"."""
    return (pair.prompt, pair.first, pair.second) if order == "original" else (pair.prompt, pair.second, pair.first)


def read_pairs(path: str | Path) -> list[Pair]:
    """Pairs of a `pairs.jsonl` {id, prompt, first, second}. Raises ValueError with the line for anything else."""
    return _distinct([Pair(**_texts(row, place)) for place, row in _rows(path)], path)


def read_labels(path: str | Path) -> list[LabelledPair]:
    """Labelled pairs of a `labels.jsonl`: a pair and `label`, "first", "second", "tie", or a list of these.

    Raises ValueError with the line for anything else.
    """
    rows = [LabelledPair(**_texts(row, place), votes=_votes(row.get("label"), place)) for place, row in _rows(path)]
    return _distinct(rows, path)


def iter_pairs(path: str | Path) -> Iterator[Pair]:
    """The pairs of a `pairs.jsonl` one by one, for files that need not fit into memory.

    Raises ValueError with the line for anything else; that ids are distinct is for the caller to check.
    """
    return (Pair(**_texts(row, place)) for place, row in _rows(path))


def read_verdicts(path: str | Path, *, size: int | None = None) -> list[Verdict]:
    """Verdicts of a `verdicts.jsonl` {id, order, preference, status}; a null preference is a failed question.

    Optional keys are those of `Verdict`; others are ignored. A `.parquet` with these columns is read too. Of
    a file that is still being written only the first `size` bytes, complete lines, are read.
    Raises ValueError with the line for anything else, a pair answered twice in one order and `repeat` included.
    """
    verdicts = [verdict_of(row, place) for place, row in _rows(path, size)]
    counts = Counter((verdict.id, verdict.order, verdict.repeat) for verdict in verdicts)
    if repeated := next((key for key, count in counts.items() if count > 1), None):
        raise ValueError(
            f"{path}: id {shortened(repeated[0])} has two verdicts in order {repeated[1]!r}; keep one, or number them "
            "by 'repeat'"
        )
    return verdicts


def write_verdicts(path: str | Path, verdicts: Iterable[Verdict]) -> None:
    """Write a `verdicts.jsonl`, a line a question; NaN becomes null."""
    with Path(path).open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(verdict_row(verdict)) + "\n" for verdict in verdicts)


def verdict_row(verdict: Verdict) -> dict[str, Any]:
    """A verdict as a line of a file has it: NaN is None; `repeat`, `truncated`, `raw` and `key` only where they are
    not empty.
    """
    row = vars(verdict) | {"preference": None if math.isnan(verdict.preference) else verdict.preference}
    return {name: value for name, value in row.items() if value or name not in ("repeat", "truncated", "raw", "key")}


def _rows(path: str | Path, size: int | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    if not os.path.isfile(path):
        raise ValueError(f"file not found: {clipped(str(path), 250)}")
    empty = True
    for place, row in _table(path) if Path(path).suffix == ".parquet" else _lines(path, size):
        empty = False
        yield place, row
    if empty:
        raise ValueError(f"{path} is empty: it needs one JSON object a line")


def _lines(path: str | Path, size: int | None) -> Iterator[tuple[str, dict[str, Any]]]:
    with Path(path).open("rb") as file:
        read = 0
        for number, raw in enumerate(file, 1):
            read += len(raw)
            if size is not None and read > size:
                return
            try:
                line = raw.removeprefix(BOM if number == 1 else b"").decode("utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(f"{path}:{number}: not UTF-8 ({error.reason}); save the file as UTF-8") from error
            if line.strip():
                yield f"{path}:{number}", _object(line, f"{path}:{number}")


def _table(path: str | Path) -> Iterator[tuple[str, dict[str, Any]]]:
    import pyarrow
    from pyarrow import parquet

    try:
        rows = parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{path}: not a Parquet file: {clipped(str(error))}") from error
    return ((f"{path} row {number}", row) for number, row in enumerate(rows, 1))


def _object(line: str, place: str) -> dict[str, Any]:
    row = parse_json(line, place)
    if not isinstance(row, dict):
        raise ValueError(f"{place}: expected an object with keys and values, got {shortened(row)}")
    return row


def _texts(row: dict[str, Any], place: str) -> dict[str, Any]:
    for name in ("id", "prompt", "first", "second"):
        if name not in row:
            raise ValueError(f"{place}: the key {name!r} is missing")
    for name in ("first", "second"):
        if not isinstance(row[name], str):
            raise ValueError(f"{place}: {name!r} must be a text, got {shortened(row[name])}")
    if not isinstance(row["prompt"], str | list):
        raise ValueError(f"{place}: 'prompt' must be a text or a list of chat messages")
    try:
        messages_of(row["prompt"])
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error
    return {"id": _id(row, place), "prompt": row["prompt"], "first": row["first"], "second": row["second"]}


def _id(row: dict[str, Any], place: str) -> str:
    """An id as text: 7, 7.0 and "7" are one."""
    value = row["id"]
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{place}: 'id' must be a text or a number, got {shortened(value)}")
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _votes(label: Any, place: str) -> tuple[str, ...]:
    votes = tuple(label) if isinstance(label, list) else (label,)
    if not votes or any(not isinstance(vote, str) or vote not in VOTES for vote in votes):
        raise ValueError(
            f"{place}: 'label' must be 'first', 'second', 'tie' or a list of these, got {shortened(label)}"
        )
    return votes


def verdict_of(row: dict[str, Any], place: str) -> Verdict:
    """A line of a verdicts file, checked. Raises ValueError with the place and what is wrong there."""
    preference = row.get("preference")
    if "id" not in row or row.get("order") not in ORDERS:
        raise ValueError(f"{place}: a verdict needs an 'id' and the 'order' 'original' or 'swapped'")
    if "preference" not in row and row.get("status") in (None, OK):
        raise ValueError(f"{place}: the key 'preference' is missing; it is null for a question that failed")
    number = isinstance(preference, int | float) and not isinstance(preference, bool) and 0 <= preference <= 1
    if preference is not None and not number:
        raise ValueError(f"{place}: 'preference' must be a number in 0..1 or null, got {shortened(preference)}")
    status = row.get("status") or (OK if number else "failed")
    if not isinstance(status, str) or number != (status == OK):
        raise ValueError(f"{place}: status {shortened(status)} does not go with preference {shortened(preference)}")
    measured = {name: _measured(row[name], name, kind, place) for name, kind in MEASURED.items() if name in row}
    # A `raw` or `key` that is no text is some other tool's.
    measured |= {name: row[name] for name in ("raw", "key") if isinstance(row.get(name), str)}
    value = float("nan") if preference is None else float(preference)
    return Verdict(_id(row, place), row["order"], value, status, **measured)


def _measured(value: Any, name: str, kind: type, place: str) -> Any:
    """An optional key's value; null is none."""
    if value is None:
        return kind()
    fits = isinstance(value, (int, float) if kind is float else kind) and isinstance(value, bool) == (kind is bool)
    if not fits or not 0 <= value < math.inf:
        raise ValueError(f"{place}: {name!r} must be {WORDS[kind]}, got {shortened(value)}")
    return kind(value)


def _distinct(pairs: Sequence[SomePair], path: str | Path) -> list[SomePair]:
    repeated = [name for name, count in Counter(pair.id for pair in pairs).items() if count > 1]
    if repeated:
        raise ValueError(f"{path}: the id {shortened(repeated[0])} is there twice; ids name pairs")
    return list(pairs)
