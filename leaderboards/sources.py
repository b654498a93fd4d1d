"""Published files as records: JSON or JSON lines, plain or gzip, and numbers out of them that fail with one message."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from judges.reading import clipped, parse_json, read_text, shortened
from leaderboards.statistics.intervals import Estimate

Record = dict[str, Any]
LARGEST = 1e15  # infinity is no score
ENDINGS = (".json", ".jsonl", ".json.gz", ".jsonl.gz")


def read_records(path: Path) -> list[Record]:
    """The records of a file, or of all JSON files directly in a folder, by name.

    A file holds one JSON array of objects or an object a line; gzip is told by its content, not by the name.

    Raises:
        ValueError: where there is no such file, it is no such JSON, or it holds no record.
    """
    files = sorted(p for p in path.iterdir() if p.name.endswith(ENDINGS)) if path.is_dir() else [path]
    records = [record for file in files for record in _parsed(read_text(file), file)]
    if not records:
        raise ValueError(f"{path} holds no record; give a JSON or JSON-lines file (plain or .gz) that has some")
    return records


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file with a header, plain or gzip."""
    return list(csv.DictReader(read_text(path).splitlines()))


def find_file(folder: Path, name: str, pattern: str) -> Path | None:
    """The file called `name` in `folder` or below, else the only one that matches `pattern`, else None.

    Raises:
        ValueError: where `folder` is none, or several files would do.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder; give one that holds {name}")
    found = sorted(folder.rglob(name)) or sorted(folder.rglob(pattern))
    if len(found) > 1:
        raise ValueError(
            f"{folder} holds {len(found)} files for {name}, such as {found[0].name} and {found[1].name}; leave one"
        )
    return found[0] if found else None


def question_file(folder: Path, what: str) -> Path:
    """The `question.jsonl`, plain or gzipped, of a folder in the layout that FastChat and arena-hard-auto share.

    Raises:
        ValueError: there is none, or several; `what` says what to give.
    """
    path = find_file(folder, "question.jsonl", "question.jsonl.gz")
    if path is None:
        raise ValueError(f"{folder} holds no question.jsonl; give {what}")
    return path


def one_file(folder: Path, stem: str = "") -> Path:
    """The JSON-lines file `stem` (plain or .gz) directly in `folder`, or the only one there.

    Raises:
        ValueError: where there is none, or several without a `stem` to choose by.
    """
    there = {path.name.removesuffix(".gz").removesuffix(".jsonl"): path for path in sorted(folder.glob("*.jsonl*"))}
    if stem and stem in there:
        return there[stem]
    if stem or len(there) != 1:
        named = f"no {stem}.jsonl" if stem else f"{len(there)} .jsonl files where one is wanted"
        raise ValueError(f"{folder} holds {named}; there is {clipped(', '.join(there), 120) or 'none'}")
    return next(iter(there.values()))


def distinct(ids: list[str], path: Path) -> list[str]:
    """The ids as they are. Raises ValueError where one is there twice."""
    twice = [id for id, count in Counter(ids).items() if count > 1]
    if twice:
        raise ValueError(
            f"{path}: the id {shortened(twice[0])} is there {ids.count(twice[0])} times; ids name questions"
        )
    return ids


def field(records: Sequence[Record], name: str) -> list[Any]:
    """What every record holds under `name`. Raises ValueError that names the first record without it."""
    for row, record in enumerate(records):
        if name not in record:
            raise ValueError(
                f"record {row} has no {name!r}, only {clipped(', '.join(sorted(record)), 120)}; is this the right file?"
            )
    return [record[name] for record in records]


def texts(records: Sequence[Record], name: str) -> list[str]:
    """The strings under `name`. Raises ValueError where one is something else."""
    values = field(records, name)
    for row, value in enumerate(values):
        if not isinstance(value, str):
            raise ValueError(f"record {row} has {name} {shortened(value)}; it must be a text")
    return values


def identifiers(records: Sequence[Record], name: str) -> list[str]:
    """The ids under `name`, integers as text: files differ. Raises ValueError where one is neither."""
    values = field(records, name)
    for row, value in enumerate(values):
        if not isinstance(value, int | str):
            raise ValueError(f"record {row} has {name} {shortened(value)}; it must be a text or an integer")
    return [str(value) for value in values]


def numbers(records: Sequence[Record], name: str) -> NDArray[np.float64]:
    """The numbers under `name`, float64 [records]; null is NaN. Raises ValueError where one is something else."""
    values = [math.nan if value is None else value for value in field(records, name)]
    for row, value in enumerate(values):
        if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > LARGEST:
            raise ValueError(f"record {row} has {name} {shortened(value)}; it must be a number or null")
    return np.array(values, np.float64)


def json_number(value: float) -> float | None:
    """The number as JSON has it: NaN is null."""
    return None if math.isnan(value) else float(value)


def json_interval(estimate: Estimate) -> list[float | None]:
    """[low, high] as JSON has it."""
    return [json_number(estimate.ci_low), json_number(estimate.ci_high)]


def _parsed(text: str, path: Path) -> list[Record]:
    if text.lstrip().startswith("["):
        records = parse_json(text, str(path))
    else:  # split by "\n" alone: JSON strings may hold other line ends
        lines = enumerate(text.split("\n"), 1)
        records = [parse_json(line, f"{path}:{number}") for number, line in lines if line.strip()]
    for row, record in enumerate(records):
        if not isinstance(record, dict):
            raise ValueError(f"{path}: record {row} is {type(record).__name__}, not an object")
    return records
