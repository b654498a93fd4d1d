"""An append-only log of JSON records by key that any number of processes on any number of machines share without locks.

Each process writes only its own segments, a record a line, and a closed segment never changes: safe on a network file
system. A closed segment has an index file next to it, which can be rebuilt from it. Readers merge all segments.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import re
import socket
import threading
import time
import weakref
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

logger = logging.getLogger(__name__)
Record = dict[str, Any]
Entries = NDArray[np.void]

FLUSH_SECONDS = 0.5
"""How long a record may wait before it is written."""
REFRESH_SECONDS = 1.0
"""Maximum age, at a look-up, of the view of other writers' segments."""
SEGMENT_BYTES = 8 * 2**20
"""A segment is closed at this size."""
IDLE_SECONDS = 3600.0
"""A writer that has been idle for this long starts a new segment."""
ABANDONED_SECONDS = 86400.0
"""An unclosed segment unchanged for this long is closed by a reader: its writer was killed."""

NAME = re.compile(r"\d{19}-[\w.-]+-\d+-[0-9a-f]{8}")
PAYLOAD, INDEX = ".jsonl", ".index"
MAGIC = b"records1"
ENTRY = np.dtype(
    [("prefix", "<u8"), ("time", "<i8"), ("offset", "<u8"), ("length", "<u4"), ("crc", "<u4"), ("segment", "<u4")]
)
"""Where a record is: the first 8 bytes of its key, nanoseconds since 1970, and its line in a segment."""


class RecordLog:
    """Records in a folder, which is created with the first record. Nothing is ever changed or deleted.

    Records are written at most half a second after they are added, so that a killed process loses no older one. A
    truncated line at the end of a segment is ignored; damage elsewhere is skipped, with a warning that names the file.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.RLock()
        self._segments: list[_Segment] = []
        self._by_name: dict[str, _Segment] = {}
        self._closed: set[str] = set()
        self._runs: list[_Run] = []
        self._refreshed = -np.inf
        self._latest = 0
        self._warned: set[Path] = set()
        self._start_writing()
        atexit.register(_close, weakref.ref(self))

    def _start_writing(self) -> None:
        self._pid = os.getpid()
        self._writer: _Writer | None = None
        self._pending: dict[str, list[tuple[int, bytes]]] = {}
        self._timer: threading.Timer | None = None
        self._write_failed = False

    def find(self, keys: Iterable[str]) -> dict[str, list[Record]]:
        """The records under each key that has some, the earliest first, by time and then by the writer's name.

        Records of other processes become visible within a second of being written.
        """
        with self._lock:
            if time.monotonic() - self._refreshed > REFRESH_SECONDS:
                self.refresh()
            wanted = list(dict.fromkeys(keys))
            rows = [*self._written(wanted), *self._waiting(wanted)]
        contents = json.loads(b"[" + b",".join(line for *_, line in rows) + b"]")  # at once: half the time
        dated: dict[str, list[tuple[int, str, Record]]] = {}
        for (key, when, writer, _), content in zip(rows, contents, strict=True):
            if content["key"] == key:  # else another key that begins alike
                dated.setdefault(key, []).append((when, writer, content["record"]))
        return {key: _in_order(same) for key, same in dated.items()}

    def add(self, records: Mapping[str, Record]) -> None:
        """Add a record under each key (SHA-256, hex); existing ones stay.

        Raises:
            OSError: these or earlier pending records cannot be written; they stay pending and are retried.
        """
        with self._lock:
            if self._pid != os.getpid():  # a fork: the segment and what waits are the parent's
                self._start_writing()
            for key, record in records.items():
                self._latest = max(self._latest + 1, time.time_ns())
                line = json.dumps({"key": key, "time": self._latest, "record": record}).encode() + b"\n"
                self._pending.setdefault(key, []).append((self._latest, line))
            if self._write_failed:
                self.flush()
            elif self._pending and self._timer is None:
                self._timer = threading.Timer(FLUSH_SECONDS, self._flush_in_background)
                self._timer.daemon = True
                self._timer.start()

    def flush(self) -> None:
        """Write pending records. Raises OSError where that fails; they stay pending."""
        with self._lock:
            if not self._pending or self._pid != os.getpid():
                return
            rows = sorted((when, key, line) for key, lines in self._pending.items() for when, line in lines)
            try:
                self._write(rows)
            except OSError as error:
                self._writer, self._write_failed = None, True  # its last line may be cut off: another segment is next
                reason = f"{error.strerror}: {len(rows)} records wait to be written; make room there, and run again"
                raise OSError(error.errno, reason, str(self.folder)) from error
            self._pending, self._write_failed = {}, False

    def close(self) -> None:
        """Write pending records and close the segment; the log stays usable."""
        with self._lock:
            self.flush()
            if self._pid == os.getpid():
                self._close_segment()

    def refresh(self) -> None:
        """Read what other processes have written since the last refresh."""
        with self._lock:
            try:
                names = set(os.listdir(self.folder))
            except FileNotFoundError:
                names = set()
            payloads = sorted(name for name in names - self._closed if name.endswith(PAYLOAD))
            names_of_segments = [
                name.removesuffix(PAYLOAD) for name in payloads if NAME.fullmatch(name.removesuffix(PAYLOAD))
            ]
            segments = [self._segment(name) for name in names_of_segments]
            self._extend(
                segments, [self._load(segment, f"{segment.path.stem}{INDEX}" in names) for segment in segments]
            )
            self._refreshed = time.monotonic()

    # Writing

    def _flush_in_background(self) -> None:
        with self._lock:
            self._timer = None
            with contextlib.suppress(OSError):  # `add` raises it, in a thread that somebody hears
                self.flush()

    def _write(self, rows: Sequence[tuple[int, str, bytes]]) -> None:
        if self._writer and time.time() - self._writer.last_write > IDLE_SECONDS:
            self._close_segment()
        if self._writer is None:
            self._writer = _Writer(self.folder)
        segment = self._segment(self._writer.name)
        entries = self._writer.write(rows)
        segment.parsed = self._writer.size
        self._extend([segment], [entries])
        if self._writer.size >= SEGMENT_BYTES:
            self._close_segment()

    def _close_segment(self) -> None:
        if self._writer:
            self._writer.close()
            self._closed.add(self._writer.name + PAYLOAD)
            self._writer = None

    # Reading

    def _segment(self, name: str) -> _Segment:
        if name not in self._by_name:
            self._by_name[name] = _Segment(self.folder / (name + PAYLOAD), len(self._segments))
            self._segments.append(self._by_name[name])
        return self._by_name[name]

    def _load(self, segment: _Segment, indexed: bool) -> Entries:
        """New entries of a segment: from its index, or else parsed line by line."""
        entries = None
        if indexed:
            self._closed.add(segment.path.name)
            entries = _read_index(segment.path)
            if entries is None:
                self._warn(segment.path.with_suffix(INDEX), "is damaged; the records are read without it")
        if entries is None:
            entries = self._parse(segment)
        if segment.parsed:
            entries = entries[entries["offset"] >= segment.parsed]
        if len(entries):
            last = entries[entries["offset"].argmax()]
            segment.parsed = int(last["offset"]) + int(last["length"])
        return entries

    def _parse(self, segment: _Segment) -> Entries:
        """Entries of a segment's complete lines that were not read yet."""
        try:
            status = segment.path.stat()
            if status.st_size <= segment.parsed and segment.parsed:
                return np.empty(0, ENTRY)
            with segment.path.open("rb") as file:
                file.seek(segment.parsed)
                content = file.read()
        except OSError as error:
            self._warn(segment.path, f"cannot be read: {error.strerror}")
            return np.empty(0, ENTRY)
        whole = content[: content.rfind(b"\n") + 1]
        entries, damaged = _parse_lines(whole, segment.parsed)
        if damaged:
            self._warn(segment.path, f"is damaged in {damaged} lines, from byte {segment.parsed}; they are left out")
        if segment.parsed == 0 and time.time() - status.st_mtime > ABANDONED_SECONDS:
            with contextlib.suppress(OSError):
                _write_index(segment.path, entries)
        return entries

    def _extend(self, segments: Sequence[_Segment], parts: Sequence[Entries]) -> None:
        """Merge segments' new entries. A run is at least twice as long as the next, so that there are few."""
        entries = np.concatenate([np.empty(0, ENTRY), *parts])
        if not len(entries):
            return
        entries["segment"] = np.repeat([segment.number for segment in segments], [len(part) for part in parts])
        self._runs.append(_Run.of(entries))
        while len(self._runs) > 1 and len(self._runs[-2].entries) < 2 * len(self._runs[-1].entries):
            *self._runs, longer, shorter = self._runs
            self._runs.append(_Run.of(np.concatenate([longer.entries, shorter.entries])))

    def _written(self, keys: Sequence[str]) -> Iterator[tuple[str, int, str, bytes]]:
        """(key, time, writer, line) of all candidate records under these keys."""
        prefixes = np.array([_prefix(key) for key in keys], np.uint64)
        places: dict[int, list[tuple[int, str, int, int, int]]] = {}
        for run in self._runs:
            for i, (_, when, offset, length, crc, number) in run.find(prefixes):
                places.setdefault(number, []).append((when, keys[i], offset, length, crc))
        for number, rows in places.items():
            segment = self._segments[number]
            writer = segment.path.stem
            lines = segment.lines([(offset, length) for *_, offset, length, _ in rows])
            for (when, key, _, _, crc), line in zip(rows, lines, strict=True):
                if line and zlib.crc32(line) == crc:
                    yield key, when, writer, line
                else:
                    self._warn(segment.path, "is damaged or gone; what cannot be read of it is left out")

    def _waiting(self, keys: Sequence[str]) -> Iterator[tuple[str, int, str, bytes]]:
        return ((key, when, "", line) for key in keys for when, line in self._pending.get(key, ()))

    def _warn(self, path: Path, problem: str) -> None:
        if path not in self._warned:
            self._warned.add(path)
            logger.warning("%s %s", path, problem)


@dataclass(eq=False)
class _Segment:
    """A segment's file, its number in this process, and how many of its bytes are parsed."""

    path: Path
    number: int
    parsed: int = 0

    def lines(self, places: Sequence[tuple[int, int]]) -> list[bytes]:
        """The bytes at (offset, length); b"" for all where the file cannot be read."""
        try:
            file = os.open(self.path, os.O_RDONLY)
        except OSError:
            return [b""] * len(places)
        try:
            return [os.pread(file, length, offset) for offset, length in places]
        except OSError:
            return [b""] * len(places)
        finally:
            os.close(file)


@dataclass(frozen=True, eq=False)
class _Run:
    """Entries as they came, their sorted prefixes, and the entry of each of these."""

    entries: Entries
    prefixes: NDArray[np.uint64]
    order: NDArray[np.int64]

    @classmethod
    def of(cls, entries: Entries) -> _Run:
        """The entries, with the order of their prefixes."""
        prefixes = np.ascontiguousarray(entries["prefix"])
        order = np.argsort(prefixes)
        return cls(entries, prefixes[order], order)

    def find(self, prefixes: NDArray[np.uint64]) -> Iterator[tuple[int, tuple[int, ...]]]:
        """(number of the prefix, entry) of every entry under one of these prefixes."""
        low = np.searchsorted(self.prefixes, prefixes, "left")
        counts = np.searchsorted(self.prefixes, prefixes, "right") - low
        rows = np.repeat(low - (counts.cumsum() - counts), counts) + np.arange(counts.sum())
        return zip(
            np.repeat(np.arange(len(prefixes)), counts).tolist(), self.entries[self.order[rows]].tolist(), strict=True
        )


@dataclass(eq=False)
class _Writer:
    """The segment that this process is writing. Its name holds time, host, process and a random part."""

    folder: Path
    size: int = 0
    last_write: float = 0.0
    entries: list[Entries] = field(default_factory=list)

    def __post_init__(self) -> None:
        host = re.sub(r"[^\w.-]", "_", socket.gethostname(), flags=re.ASCII)[:64] or "host"
        self.name = f"{time.time_ns():019d}-{host}-{os.getpid()}-{os.urandom(4).hex()}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.file = (self.folder / (self.name + PAYLOAD)).open("xb", buffering=0)

    def write(self, rows: Sequence[tuple[int, str, bytes]]) -> Entries:
        """Append lines and fsync: on a network file system others see them only then."""
        offsets = np.cumsum([self.size, *(len(line) for *_, line in rows)])
        entries = np.array(
            [
                (_prefix(key), when, offset, len(line), zlib.crc32(line), 0)
                for (when, key, line), offset in zip(rows, offsets, strict=False)
            ],
            ENTRY,
        )
        rest = memoryview(b"".join(line for *_, line in rows))
        while rest:
            rest = rest[self.file.write(rest) :]
        os.fsync(self.file.fileno())
        self.size, self.last_write = int(offsets[-1]), time.time()
        self.entries.append(entries)
        return entries

    def close(self) -> None:
        """Close the segment and write its index."""
        self.file.close()
        with contextlib.suppress(OSError):  # the segment can be read without
            _write_index(self.folder / (self.name + PAYLOAD), np.concatenate(self.entries))


def _in_order(rows: list[tuple[int, str, Record]]) -> list[Record]:
    """Records by time and writer; a record rewritten after a failed write counts once."""
    rows.sort(key=lambda row: row[:2])
    return [row[2] for i, row in enumerate(rows) if not i or (row[0], row[2]) != (rows[i - 1][0], rows[i - 1][2])]


def _prefix(key: str) -> int:
    return int(key[:16], 16)


def _parse_lines(content: bytes, start: int) -> tuple[Entries, int]:
    """Entries of the lines of a segment from byte `start` on, and how many lines are damaged."""
    rows, offset, damaged = [], start, 0
    for line in content.splitlines(keepends=True):
        try:
            head = json.loads(line)
            rows.append((_prefix(head["key"]), int(head["time"]), offset, len(line), zlib.crc32(line), 0))
            _ = head["record"]
        except (ValueError, KeyError, TypeError):
            damaged += 1
        offset += len(line)
    return np.array(rows, ENTRY), damaged


def _write_index(payload: Path, entries: Entries) -> None:
    """Write the index of a closed segment atomically."""
    body = entries.tobytes()
    part = payload.with_suffix(f".{os.getpid()}.part")
    part.write_bytes(MAGIC + zlib.crc32(body).to_bytes(8, "little") + body)
    part.replace(payload.with_suffix(INDEX))


def _read_index(payload: Path) -> Entries | None:
    """The entries of a closed segment; None where the index is damaged."""
    try:
        content = payload.with_suffix(INDEX).read_bytes()
    except OSError:
        return None
    head, body = content[:16], content[16:]
    if head != MAGIC + zlib.crc32(body).to_bytes(8, "little") or len(body) % ENTRY.itemsize:
        return None
    return np.frombuffer(body, ENTRY)


def _close(log: weakref.ref[RecordLog]) -> None:
    if (open_log := log()) is not None:
        try:
            open_log.close()
        except OSError as error:
            logger.error("%s", error)
