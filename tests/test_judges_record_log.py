"""A log that many processes write: merged by time, torn and damaged files survived, only the last second lost."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from judges import record_log
from judges.record_log import INDEX, NAME, PAYLOAD, RecordLog

ROOT = Path(__file__).parents[1]


def key(name: object) -> str:
    return hashlib.sha256(str(name).encode()).hexdigest()


def segments(folder: Path, suffix: str = PAYLOAD) -> list[Path]:
    return sorted(folder.glob(f"*{suffix}"))


def write_segment(folder: Path, rows: list[tuple[str, int, Any]], writer: str = "a", tail: str = "") -> Path:
    """A segment as another host's process leaves it that was killed."""
    folder.mkdir(exist_ok=True)
    number = len(segments(folder))
    path = folder / f"{number:019d}-{writer}-1-{number:08x}{PAYLOAD}"
    lines = [json.dumps({"key": key, "time": when, "record": record}) for key, when, record in rows]
    path.write_text("".join(line + "\n" for line in lines) + tail)
    return path


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_records_come_back_in_the_order_of_their_time_whatever_the_order_of_the_files(tmp_path: Path) -> None:
    write_segment(tmp_path, [(key("x"), 30, "third"), (key("y"), 5, "only")])
    write_segment(tmp_path, [(key("x"), 10, "first")])
    write_segment(tmp_path, [(key("x"), 20, "second")])
    assert RecordLog(tmp_path).find([key("x"), key("y"), key("z")]) == {
        key("x"): ["first", "second", "third"],
        key("y"): ["only"],
    }


def test_of_two_records_of_one_time_the_writers_name_decides(tmp_path: Path) -> None:
    write_segment(tmp_path, [(key("x"), 10, "of the first writer")], "z")
    write_segment(tmp_path, [(key("x"), 10, "of the second")], "a")
    assert RecordLog(tmp_path).find([key("x")])[key("x")][0] == "of the first writer"


def test_keys_that_begin_alike_are_told_apart(tmp_path: Path) -> None:
    alike = [key("x")[:16] + key(i)[16:] for i in range(3)]
    log = RecordLog(tmp_path)
    log.add({each: i for i, each in enumerate(alike[:2])})
    assert log.find(alike) == {alike[0]: [0], alike[1]: [1]}
    log.flush()
    assert log.find(alike) == {alike[0]: [0], alike[1]: [1]}


def test_a_log_is_the_same_waiting_written_closed_and_read_by_another(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    log, expected = RecordLog(tmp_path / "new" / "log"), dict[str, list[Any]]()
    for _ in range(40):
        batch = {key(i): {"value": float(rng.random()), "text": "\ud83d\n\u2028 é"} for i in rng.integers(0, 60, 9)}
        log.add(batch)
        for name, record in batch.items():
            expected.setdefault(name, []).append(record)
        if rng.random() < 0.5:
            rng.choice([log.flush, log.close])()
        assert log.find(expected) == expected
    log.flush()
    assert RecordLog(log.folder).find(expected) == expected
    log.close()
    assert len(segments(log.folder)) == len(segments(log.folder, INDEX)) > 1
    assert RecordLog(log.folder).find(expected) == expected
    for index in segments(log.folder, INDEX):
        index.unlink()  # an index can be made again from its segment
    assert RecordLog(log.folder).find(expected) == expected


def test_nothing_is_written_where_nothing_was_added(tmp_path: Path) -> None:
    log = RecordLog(tmp_path / "log")
    assert log.find([key("x")]) == {}
    log.add({})
    log.close()
    assert not log.folder.exists()


def test_a_torn_end_is_ignored_and_the_rest_is_there(tmp_path: Path) -> None:
    torn = json.dumps({"key": key("y"), "time": 2, "record": "torn"})
    for cut in range(len(torn)):
        folder = tmp_path / str(cut)
        write_segment(folder, [(key("x"), 1, "whole")], tail=torn[: cut + 1])
        assert RecordLog(folder).find([key("x"), key("y")]) == {key("x"): ["whole"]}


def test_what_another_process_goes_on_writing_is_seen_line_by_line(tmp_path: Path) -> None:
    log = RecordLog(tmp_path)
    line = json.dumps({"key": key("y"), "time": 2, "record": "later"}) + "\n"
    path = write_segment(tmp_path, [(key("x"), 1, "first")], tail=line[:20])
    assert log.find([key("x"), key("y")]) == {key("x"): ["first"]}
    with path.open("a") as file:
        file.write(line[20:])
    log.refresh()
    assert log.find([key("x"), key("y")]) == {key("x"): ["first"], key("y"): ["later"]}


def test_a_segment_read_while_it_was_open_is_not_read_twice_once_it_is_closed(tmp_path: Path) -> None:
    writer, reader = RecordLog(tmp_path), RecordLog(tmp_path)
    writer.add({key("x"): 1})
    writer.flush()
    assert reader.find([key("x")]) == {key("x"): [1]}
    writer.add({key("y"): 2})
    writer.close()
    reader.refresh()
    assert reader.find([key("x"), key("y")]) == {key("x"): [1], key("y"): [2]}


@pytest.mark.parametrize("closed", [True, False])
def test_damage_costs_its_own_record_and_names_the_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, closed: bool
) -> None:
    log = RecordLog(tmp_path)
    log.add({key(i): f"record {i}" for i in range(3)})
    log.close()
    (path,) = segments(tmp_path)
    path.write_bytes(path.read_bytes().replace(b'"record 1"', b'"recor' + b"\0" * 3 + b'"'))
    if not closed:
        path.with_suffix(INDEX).unlink()
    caplog.set_level(logging.WARNING)
    assert RecordLog(tmp_path).find(map(key, range(3))) == {key(0): ["record 0"], key(2): ["record 2"]}
    (message,) = caplog.messages
    assert str(path) in message
    assert "damaged" in message


@pytest.mark.parametrize("content", [b"", b"records1", b"no index at all, but long enough for a head"])
def test_a_damaged_index_is_named_and_costs_no_record(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    log = RecordLog(tmp_path)
    log.add({key(i): i for i in range(3)})
    log.close()
    (path,) = segments(tmp_path, INDEX)
    path.write_bytes(content)
    assert RecordLog(tmp_path).find(map(key, range(3))) == {key(i): [i] for i in range(3)}
    assert str(path) in caplog.text


def test_other_files_in_the_folder_are_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "pairs.jsonl").write_text("no record\n")
    log = RecordLog(tmp_path)
    log.add({key("x"): 1})
    log.close()
    assert RecordLog(tmp_path).find([key("x")]) == {key("x"): [1]}
    assert (tmp_path / "pairs.jsonl").read_text() == "no record\n"
    assert caplog.messages == []


def test_a_long_segment_is_closed_and_another_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_log, "SEGMENT_BYTES", 1000)
    log = RecordLog(tmp_path)
    for i in range(30):
        log.add({key(i): i})
        log.flush()
    assert len(segments(tmp_path)) > 3
    assert len(segments(tmp_path)) - len(segments(tmp_path, INDEX)) <= 1
    assert RecordLog(tmp_path).find(map(key, range(30))) == {key(i): [i] for i in range(30)}


def test_a_killed_writers_segment_gets_its_index_a_day_later_and_not_before(tmp_path: Path) -> None:
    path = write_segment(tmp_path, [(key("x"), 1, "kept")], tail='{"torn')
    assert RecordLog(tmp_path).find([key("x")]) == {key("x"): ["kept"]}
    assert segments(tmp_path, INDEX) == []
    yesterday = time.time() - record_log.ABANDONED_SECONDS - 1
    os.utime(path, (yesterday, yesterday))
    for _ in range(2):
        assert RecordLog(tmp_path).find([key("x")]) == {key("x"): ["kept"]}
        assert [path.with_suffix(INDEX)] == segments(tmp_path, INDEX)


def test_a_segment_of_a_torn_line_alone_is_an_empty_one(tmp_path: Path) -> None:
    path = write_segment(tmp_path, [], tail='{"torn')
    os.utime(path, (1, 1))
    for _ in range(2):
        assert RecordLog(tmp_path).find([key("x")]) == {}
    assert path.with_suffix(INDEX).is_file()


def test_a_writer_that_slept_goes_on_in_another_segment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, now = RecordLog(tmp_path), time.time()
    log.add({key("x"): 1})
    log.flush()
    monkeypatch.setattr(record_log.time, "time", lambda: now + record_log.IDLE_SECONDS + 60)
    log.add({key("y"): 2})
    log.flush()
    assert (len(segments(tmp_path)), len(segments(tmp_path, INDEX))) == (2, 1)


def test_a_full_disk_is_told_with_the_folder_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = RecordLog(tmp_path)
    log.add({key("x"): 1})
    log.flush()

    def full(file: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(record_log.os, "fsync", full)
        log.add({key("y"): 2})
        with pytest.raises(OSError, match="No space left on device: 1 records wait") as caught:
            log.flush()
        assert caught.value.filename == str(tmp_path)
        with pytest.raises(OSError, match="2 records wait"):
            log.add({key("z"): 3})  # who goes on adding hears of it
    expected = {key(name): [i + 1] for i, name in enumerate("xyz")}
    assert log.find(expected) == expected
    log.close()
    again = RecordLog(tmp_path).find(expected)
    assert {name: records[0] for name, records in again.items()} == {key("x"): 1, key("y"): 2, key("z"): 3}


WRITER = """\
import sys, time
from pathlib import Path
from judges.record_log import RecordLog
from test_judges_record_log import key
log, name, n = RecordLog(Path(sys.argv[1])), sys.argv[2], int(sys.argv[3])
for i in range(n):
    log.add({key(i): name, key(f"{name} {i}"): i})
    time.sleep(0.001)
print(dict.fromkeys(r[0] for r in log.find([key("0")]).values()), flush=True)
"""


def test_two_processes_write_at_once_and_agree_on_what_stands(tmp_path: Path) -> None:
    n, path = 300, f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
    writers = [python(path + WRITER, tmp_path, name, n) for name in ("one", "two")]
    assert [writer.wait() for writer in writers] == [0, 0]
    log = RecordLog(tmp_path)
    mine = {key(f"{name} {i}"): [i] for name in ("one", "two") for i in range(n)}
    assert log.find(mine) == mine
    both = log.find(map(key, range(n)))
    assert all(sorted(records) == ["one", "two"] for records in both.values())
    assert len(both) == n
    assert RecordLog(tmp_path).find(map(key, range(n))) == both
    assert len(segments(tmp_path)) == len(segments(tmp_path, INDEX)) == 2


KILLED = """\
import sys, time
from pathlib import Path
from judges.record_log import RecordLog
from test_judges_record_log import key
log, i = RecordLog(Path(sys.argv[1])), 0
while True:
    log.add({key(i): i})
    print(i, time.time(), flush=True)
    i += 1
    time.sleep(0.002)
"""


@pytest.mark.parametrize("seconds", [0.3, 1.3, 2.1])
def test_a_killed_process_loses_nothing_that_is_older_than_a_second(tmp_path: Path, seconds: float) -> None:
    path = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
    process = python(path + KILLED, tmp_path)
    assert process.stdout
    process.stdout.readline()
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    killed = time.time()
    rows = [line.split() for line in process.stdout.read().splitlines() if line.endswith(tuple("0123456789"))]
    process.wait()
    old = [int(row[0]) for row in rows if len(row) == 2 and float(row[1]) < killed - 1.5]  # the machine may be busy
    found = RecordLog(tmp_path).find(map(key, range(len(rows) + 1)))
    assert all(found[key(i)] == [i] for i in old)
    assert old or seconds < 2
    assert [records[0] for records in found.values()] == list(range(len(found)))  # and no gap


def test_a_forked_child_writes_a_segment_of_its_own(tmp_path: Path) -> None:
    code = """\
import os, sys
from pathlib import Path
from judges.record_log import RecordLog
from test_judges_record_log import key
log = RecordLog(Path(sys.argv[1]))
log.add({key("x"): 1})
log.flush()
log.add({key("waits"): 2})
child = os.fork()
log.add({key("parent" if child else "child"): 3})
log.close()
if child:
    os.waitpid(child, 0)
else:
    os._exit(0)
"""
    path = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
    assert python(path + code, tmp_path).wait() == 0
    assert len(segments(tmp_path)) == 2
    expected = {key("x"): [1], key("waits"): [2], key("parent"): [3], key("child"): [3]}
    assert RecordLog(tmp_path).find(expected) == expected


def test_segments_are_named_by_time_host_process_and_chance(tmp_path: Path) -> None:
    log = RecordLog(tmp_path)
    log.add({key("x"): 1})
    log.close()
    (path,) = segments(tmp_path)
    assert NAME.fullmatch(path.stem)
    when, *_, process, _ = path.stem.split("-")
    assert abs(int(when) / 1e9 - time.time()) < 600
    assert int(process) == os.getpid()


FIGURES = """\
import sys, time
from pathlib import Path
from harness.store.verdicts import VerdictStore
from judges.verdicts import Answer
import test_judges_record_log as tests
wanted = [tests.key(i) for i in range(0, 1_000_000, 100)]
new = {tests.key(f"new {i}"): tests.answer(i) for i in range(10_000)}
started = time.perf_counter(), time.process_time()
store = VerdictStore(Path(sys.argv[1]))
store.refresh()
opened = time.perf_counter(), time.process_time()
found = store.find(wanted)
looked_up = time.perf_counter(), time.process_time()
store.add(new)
store.flush()
added = time.perf_counter(), time.process_time()
assert all(found[k].preference == tests.answer(i * 100).preference for i, k in enumerate(wanted))
times = [started, opened, looked_up, added]
print(*(b[i] - a[i] for i in (0, 1) for a, b in zip(times, times[1:])))
"""


def answer(i: int) -> Any:
    from judges.verdicts import Answer

    return Answer(i % 997 / 997, "ok", 512, 1, 0.25, 0.001, "A " * 20)


@pytest.mark.slow
def test_a_million_verdicts_in_two_thousand_segments_of_eight_writers(tmp_path: Path) -> None:
    from harness.store.verdicts import VerdictStore

    order = np.random.default_rng(0).permutation(1_000_000)
    writers = [VerdictStore(tmp_path) for _ in range(8)]
    for segment, part in enumerate(np.split(order, 2000)):
        writers[segment % 8].add({key(i): answer(int(i)) for i in part})
        writers[segment % 8].close()
    assert len(segments(tmp_path)) == 2000
    path = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
    runs = [list(map(float, python(path + FIGURES, tmp_path).communicate()[0].split())) for _ in range(3)]
    wall, processor = np.min(runs, axis=0).reshape(2, 3).round(3).tolist()
    print(f"seconds to open, to find 10,000 keys, to add 10,000: {wall}, of the processor {processor}")
    assert np.all(np.less(processor, [3, 0.3, 0.5]))  # others may use the machine as well
