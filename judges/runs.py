"""A judge run over a file of pairs: in chunks, written after each, resumable."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import islice
from pathlib import Path
from typing import Any

from judges.files import (
    ORDERS,
    Pair,
    Verdict,
    iter_pairs,
    placed,
    read_verdicts,
    verdict_row,
    write_verdicts,
)
from judges.judge import Judge, Progress, messages_of
from judges.reading import shortened
from judges.transports.cache import ReplyCache
from judges.verdicts import OK, is_transient


@dataclass(frozen=True)
class PairQuery:
    """A pair to be judged in one order, in its `repeat`-th repetition (from 0)."""

    pair: Pair
    order: str
    repeat: int = 0

    @property
    def place(self) -> tuple[str, str, int]:
        """Identifies this query within a file."""
        return self.pair.id, self.order, self.repeat

    def key(self, fingerprint: str) -> str:
        """Hex digest of the judge and of the question as placed."""
        prompt, first, second = placed(self.pair, self.order)
        described = json.dumps([fingerprint, messages_of(prompt), first, second])
        return hashlib.blake2b(described.encode(), digest_size=8).hexdigest()


def pair_queries(pairs: Iterable[Pair], repeat: int = 0, *, both_orders: bool = True) -> Iterator[PairQuery]:
    """The queries about pairs; those of one pair are adjacent."""
    orders = ORDERS if both_orders else ORDERS[:1]
    return (PairQuery(pair, order, repeat) for pair in pairs for order in orders)


def repetition(judge: Judge, repeat: int) -> Judge:
    """The judge for the `repeat`-th repetition, from 0.

    A judge with an option `repeat` is copied with it raised, so that its cached replies are not reused; its budget
    applies to each copy. A judge with member judges is copied with their copies. Any other judge is returned as it is.
    """
    changes: dict[str, Any] = {
        name: [repetition(member, repeat) for member in getattr(judge, name)] for name in judge.members
    }
    if "repeat" in {field.name for field in fields(judge)}:
        changes["repeat"] = judge.repeat + repeat  # type: ignore[attr-defined]
    return replace(judge, **changes) if changes and repeat else judge


def answer_queries(judge: Judge, queries: Sequence[PairQuery], *, progress: Progress | None = None) -> list[Verdict]:
    """A judge's verdicts on queries, in their order, in the pairs' own naming."""
    columns = [list(column) for column in zip(*(placed(query.pair, query.order) for query in queries), strict=True)]
    record = judge.verdicts(*columns, progress=progress)
    fingerprint = judge.fingerprint()
    return [
        Verdict(
            query.pair.id,
            query.order,
            answer.preference if query.order == "original" else 1 - answer.preference,
            answer.status,
            query.repeat,
            answer.input_tokens,
            answer.output_tokens,
            answer.latency,
            answer.cost,
            answer.truncated,
            answer.raw,
            query.key(fingerprint),
        )
        for query, answer in zip(queries, record.answers(), strict=True)
    ]


def judge_file(
    judge: Judge,
    pairs: str | Path,
    out: str | Path,
    *,
    both_orders: bool = True,
    repeats: int = 1,
    progress: Progress | None = None,
) -> list[Verdict]:
    """Judge the pairs of a file and append the verdicts to another, chunk by chunk.

    Verdicts already in `out` are not asked again, except a truncated last line and transient failures
    (`judges.verdicts.is_transient`). Neither file need fit into memory; the return value, all verdicts of `out` without
    `raw`, must. A Parquet file is written at the end, from `OUT.part.jsonl` next to it, which an interrupted run
    leaves. An endpoint's replies are cached in `OUT.replies/`, which is deleted at the end.

    Args:
        pairs: a `pairs.jsonl` or `labels.jsonl`.
        out: a `.jsonl` or `.parquet` of verdicts, see `judges.files.Verdict`.
        both_orders: ask each pair in both orders, else in the file's order only.
        repeats: how often each question is put.

    Raises:
        ValueError: a file is wrong, or `out` has verdicts of another judge or about other texts; nothing is asked then.
    """
    out = Path(out)
    if out.suffix not in (".jsonl", ".parquet"):
        raise ValueError(f"verdicts go to a .jsonl or a .parquet, not to {shortened(str(out), 200)}")
    work = out if out.suffix == ".jsonl" else out.with_name(f"{out.name}.part.jsonl")
    done = _read_done(work if work.exists() else out)
    fingerprints = [repetition(judge, repeat).fingerprint() for repeat in range(repeats)]
    offset_progress = ProgressOffset(progress, _check(fingerprints, pairs, out, done, both_orders=both_orders))
    out.parent.mkdir(parents=True, exist_ok=True)
    if (source := work if work.exists() else out).exists():
        temporary = out.with_name(f".{out.name}.{os.getpid()}")
        write_verdicts(temporary, _completed(source))
        temporary.replace(work)
    replies = ReplyCache(out.with_name(f"{out.name}.replies"))
    for repeat in range(repeats):
        repeated_judge = repetition(judge, repeat)
        repeated_judge.keep_replies(replies)
        missing = (
            query
            for query in pair_queries(iter_pairs(pairs), repeat, both_orders=both_orders)
            if query.place not in done
        )
        while chunk := list(islice(missing, judge.chunk_size)):
            offset_progress.start = len(done)
            verdicts = answer_queries(repeated_judge, chunk, progress=offset_progress)
            with work.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(verdict_row(verdict)) + "\n" for verdict in verdicts)
            done |= {(verdict.id, verdict.order, verdict.repeat): replace(verdict, raw="") for verdict in verdicts}
    if work != out:
        _write_parquet(out, work)
    replies.close()
    shutil.rmtree(replies.folder, ignore_errors=True)
    return list(done.values())


def summary(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """The totals of a run.

    Returns:
        `questions`, `pairs`, `coverage` (share of the questions that did not fail), `failures` (by kind), `both_orders`
        (pairs answered in both), `flips` (of these, pairs whose winner depends on the order), `input_tokens`,
        `output_tokens`, `cost` (US$), `latency` (seconds, summed over the questions).
    """
    sides: dict[tuple[str, int], dict[str, float]] = {}
    for verdict in verdicts:
        if verdict.status == OK:
            sides.setdefault((verdict.id, verdict.repeat), {})[verdict.order] = verdict.preference - 0.5
    both = [side for side in sides.values() if len(side) == 2]
    failures = Counter(verdict.status for verdict in verdicts if verdict.status != OK)
    return {
        "questions": len(verdicts),
        "pairs": len({verdict.id for verdict in verdicts}),
        "coverage": 1 - failures.total() / len(verdicts) if verdicts else None,
        "failures": dict(sorted(failures.items())),
        "both_orders": len(both),
        "flips": sum(side["original"] * side["swapped"] < 0 for side in both),
        "input_tokens": sum(verdict.input_tokens for verdict in verdicts),
        "output_tokens": sum(verdict.output_tokens for verdict in verdicts),
        "cost": sum(verdict.cost for verdict in verdicts),
        "latency": sum(verdict.latency for verdict in verdicts),
    }


class ProgressOffset:
    """Reports the progress of a part as progress of the total, offset by `start` questions."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self.progress, self.total, self.start = progress, total, 0

    def __call__(self, done: int, _: int) -> None:
        if self.progress is not None:
            self.progress(self.start + done, self.total)


def _read_done(path: Path) -> dict[tuple[str, str, int], Verdict]:
    completed = _completed(path) if path.exists() else iter(())
    return {(verdict.id, verdict.order, verdict.repeat): replace(verdict, raw="") for verdict in completed}


def _completed(path: Path) -> Iterator[Verdict]:
    """A file's verdicts, without a truncated last line and transient failures."""
    size = _complete_size(path) if path.suffix == ".jsonl" else None
    verdicts = () if size == 0 else read_verdicts(path, size=size)
    return (verdict for verdict in verdicts if not is_transient(verdict.status))


def _complete_size(path: Path) -> int:
    """The size in bytes of a file's complete lines, without a truncated last one."""
    with path.open("rb") as file:
        return sum(len(line) for line in file if line.endswith(b"\n") or _is_json(line))


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _check(
    fingerprints: Sequence[str],
    pairs: str | Path,
    out: Path,
    done: dict[tuple[str, str, int], Verdict],
    *,
    both_orders: bool,
) -> int:
    """The total number of questions. Raises ValueError where the files do not match."""
    ids: set[str] = set()
    expected = 0
    for pair in iter_pairs(pairs):
        if pair.id in ids:
            raise ValueError(f"{pairs}: the id {shortened(pair.id)} is there twice; ids name pairs")
        ids.add(pair.id)
        for query in (
            query
            for repeat in range(len(fingerprints))
            for query in pair_queries([pair], repeat, both_orders=both_orders)
        ):
            expected += query.place not in done
            if query.place in done and done[query.place].key != query.key(fingerprints[query.repeat]):
                raise ValueError(
                    f"{out} has a verdict on id {shortened(pair.id)} that is another judge's, or on other texts; "
                    "give a new --out, or delete it"
                )
    if unknown := next((verdict.id for verdict in done.values() if verdict.id not in ids), None):
        raise ValueError(
            f"{out} has a verdict on id {shortened(unknown)}, which {pairs} does not have; give a new --out"
        )
    return expected + len(done)


def _write_parquet(out: Path, work: Path) -> None:
    """The verdicts of a JSON Lines file as Parquet, atomically; the JSON Lines file is deleted."""
    import pyarrow
    from pyarrow import parquet

    rows = [asdict(verdict) | {"preference": verdict_row(verdict)["preference"]} for verdict in read_verdicts(work)]
    for row in rows:  # JSON can hold a lone surrogate, UTF-8 cannot
        row |= {name: row[name].encode("utf-8", "replace").decode() for name in ("id", "status", "raw")}
    kinds = {"int": pyarrow.int64(), "float": pyarrow.float64(), "bool": pyarrow.bool_(), "str": pyarrow.string()}
    schema = pyarrow.schema([(name, kinds[str(kind)]) for name, kind in Verdict.__annotations__.items()])
    temporary = out.with_name(f".{out.name}.{os.getpid()}")
    parquet.write_table(pyarrow.Table.from_pylist(rows, schema=schema), temporary)
    temporary.replace(out)
    work.unlink()
