"""Files are read by what they hold, and damaged ones are told in one sentence."""

from __future__ import annotations

import gzip
import json

import pytest
from leaderboards_published import write

from leaderboards.sources import find_file, numbers, read_records, read_table

ROWS = [{"a": 1, "text": "line\u2028end\u0085and\nmore"}, {"a": None, "text": "é"}]


@pytest.mark.parametrize("lines", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_records_survive_every_format_whatever_the_name(tmp_path, lines, packed):
    assert read_records(write(tmp_path / "any.name", ROWS, lines=lines, packed=packed)) == ROWS


def test_line_ends_inside_strings_do_not_end_a_record(tmp_path):
    path = tmp_path / "raw.jsonl"
    path.write_text("\ufeff" + "".join(json.dumps(r, ensure_ascii=False) + "\r\n" for r in ROWS) + "\n")
    assert read_records(path) == ROWS


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path):
    write(tmp_path / "b.jsonl", [{"a": 2}], lines=True)
    write(tmp_path / "a.json.gz", [{"a": 1}], packed=True)
    assert read_records(tmp_path) == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "holds no record"),
        (b"[]", "holds no record"),
        (b"a,b\n1,2\n", r"file:1: not JSON"),
        (b'{"a": 1}\n{"a": ', r"file:2: not JSON"),
        (b"[1, 2]", "record 0 is int, not an object"),
        (b"\xff\xfe{}", "not UTF-8 text"),
        (gzip.compress(b'{"a": 1}' * 100, mtime=0)[:-12], "is damaged"),
        (b"\x1f\x8bnot gzip", "cannot be read|is damaged"),
    ],
    ids=["empty", "no-records", "table", "cut", "numbers", "no-utf-8", "cut-gzip", "no-gzip"],
)
def test_damaged_files_get_one_clear_message(tmp_path, content, told):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=told):
        read_records(path)


def test_a_missing_file_is_told_with_its_path(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere\.json cannot be read: No such file"):
        read_records(tmp_path / "nowhere.json")


def test_numbers_take_null_and_nan_alike_and_nothing_that_is_no_number():
    assert numbers([{"a": 1}, {"a": None}, {"a": float("nan")}], "a")[1:] == pytest.approx(
        [float("nan")] * 2, nan_ok=True
    )
    for bad in ("1", True, [1], float("-inf"), 10**400):
        with pytest.raises(ValueError, match=r"record 0 has a .*must be a number"):
            numbers([{"a": bad}], "a")


def test_the_exact_name_is_found_at_any_depth_before_its_likes(tmp_path):
    for name in ("x/y/data.csv", "data_copy.csv", "data_other.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("a,b\n1,2\n")
    found = find_file(tmp_path, "data.csv", "data*.csv")
    assert found == tmp_path / "x" / "y" / "data.csv"
    assert read_table(found) == [{"a": "1", "b": "2"}]
    assert find_file(tmp_path, "none.csv", "none*.csv") is None
    with pytest.raises(ValueError, match="holds 3 files"):
        find_file(tmp_path, "dat.csv", "data*.csv")
