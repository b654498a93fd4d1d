"""Files of pairs, labels and verdicts: what is read, what is refused and where, and the round trip."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from judges.files import Verdict, read_labels, read_pairs, read_verdicts, write_verdicts

PAIR = {"id": 1, "prompt": "p", "first": "a", "second": "b"}


def lines(path: Path, *rows: Any) -> Path:
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return path


def test_pairs_have_texts_or_chats_as_prompts_and_blank_lines_are_skipped(tmp_path: Path):
    chat = [{"role": "user", "content": "p"}]
    pairs = read_pairs(lines(tmp_path / "f", PAIR, "", PAIR | {"id": "two", "prompt": chat, "extra": 3}))
    assert [(pair.id, pair.prompt) for pair in pairs] == [("1", "p"), ("two", chat)]


@pytest.mark.parametrize(
    ("label", "majority", "share"),
    [
        ("first", "first", 1.0),
        ("second", "second", 0.0),
        ("tie", "tie", 0.5),
        (["first", "second"], "tie", 0.5),
        (["first", "first", "second"], "first", 2 / 3),
        (["tie", "tie", "first"], "tie", 2 / 3),
        (["second", "second", "first", "first", "tie"], "tie", 0.5),
        (["second", "tie"], "tie", 0.25),
    ],
)
def test_the_majority_of_votes_counts_and_an_even_split_is_a_tie(
    tmp_path: Path, label: Any, majority: str, share: float
):
    (pair,) = read_labels(lines(tmp_path / "f", PAIR | {"label": label}))
    assert pair.label == majority
    assert pair.share == pytest.approx(share)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", ":2: not JSON"),
        ([1], ":2: expected an object with keys and values"),
        ({"id": 2, "prompt": "p", "first": "a"}, ":2: the key 'second' is missing"),
        (PAIR | {"id": 2, "first": 3}, ":2: 'first' must be a text, got 3"),
        (PAIR | {"id": 2, "prompt": 3}, ":2: 'prompt' must be a text or a list of chat messages"),
        (PAIR | {"id": 2, "prompt": [{"role": "user"}]}, ":2: a chat message needs the texts 'role' and 'content'"),
        (PAIR, "the id '1' is there twice"),
        (PAIR | {"id": 2}, ":2: 'label' must be 'first', 'second', 'tie' or a list of these, got None"),
        (PAIR | {"id": 2, "label": []}, r":2: 'label' must be .* got \[\]"),
        (PAIR | {"id": 2, "label": ["A"]}, ":2: 'label' must be"),
        (PAIR | {"id": 2, "label": {"first": 1}}, ":2: 'label' must be"),
    ],
)
def test_a_wrong_line_is_refused_with_its_place(tmp_path: Path, row: Any, message: str):
    label = {"label": "tie"}
    with pytest.raises(ValueError, match=message):
        read_labels(lines(tmp_path / "f", PAIR | label, row if row is not PAIR else PAIR | label))


def test_missing_and_empty_files_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="file not found"):
        read_pairs(tmp_path / "none")
    with pytest.raises(ValueError, match="is empty: it needs one JSON object a line"):
        read_pairs(lines(tmp_path / "f", ""))


def test_verdicts_survive_a_round_trip_with_failures_as_null(tmp_path: Path):
    written = [Verdict("1", "original", 0.25, "ok"), Verdict("1", "swapped", math.nan, "timeout")]
    write_verdicts(tmp_path / "f", written)
    row = json.loads((tmp_path / "f").read_text().splitlines()[1])
    assert row.items() >= {"id": "1", "order": "swapped", "preference": None, "status": "timeout"}.items()
    read = read_verdicts(tmp_path / "f")
    assert read[0] == written[0]
    assert math.isnan(read[1].preference)
    assert (read[1].id, read[1].order, read[1].status) == ("1", "swapped", "timeout")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"order": "both"}, "the 'order' 'original' or 'swapped'"),
        ({"preference": 1.5}, r"'preference' must be a number in 0..1 or null, got 1.5"),
        ({"preference": True}, "'preference' must be a number"),
        ({"preference": None}, "status 'ok' does not go with preference None"),
        ({"status": "timeout"}, "status 'timeout' does not go with preference 0.5"),
    ],
)
def test_wrong_verdicts_are_refused(tmp_path: Path, change: dict[str, Any], message: str):
    row = {"id": 1, "order": "original", "preference": 0.5, "status": "ok"}
    with pytest.raises(ValueError, match=message):
        read_verdicts(lines(tmp_path / "f", row | change))


def test_two_verdicts_for_one_question_are_refused(tmp_path: Path):
    row = {"id": 1, "order": "original", "preference": 0.5, "status": "ok"}
    with pytest.raises(ValueError, match="id '1' has two verdicts in order 'original'"):
        read_verdicts(lines(tmp_path / "f", row, row))


def test_windows_files_and_marks_of_byte_order_are_read(tmp_path: Path):
    text = "\ufeff" + "\r\n".join(
        [json.dumps(PAIR | {"label": "first"}), "", json.dumps(PAIR | {"id": 2, "label": ["tie"]})]
    )
    (tmp_path / "f").write_bytes(f"{text}\r\n".encode())
    assert [(pair.id, pair.label) for pair in read_labels(tmp_path / "f")] == [("1", "first"), ("2", "tie")]


@pytest.mark.parametrize("raw", ['{"id": "caf\xe9"}'.encode("latin-1"), "{}".encode("utf-16")])
@pytest.mark.parametrize("read", [read_pairs, read_labels, read_verdicts])
def test_a_file_that_is_not_utf_8_is_named_with_its_line(tmp_path: Path, raw: bytes, read: Any):
    (tmp_path / "f").write_bytes(b"\n" + raw)
    with pytest.raises(ValueError, match=r"^\S*f:2: not UTF-8 \(.*\); save the file as UTF-8$"):
        read(tmp_path / "f")


@pytest.mark.parametrize("bad", [None, True, ["1"], {"a": 1}])
def test_an_id_is_a_text_or_a_number(tmp_path: Path, bad: Any):
    with pytest.raises(ValueError, match="f:1: 'id' must be a text or a number"):
        read_pairs(lines(tmp_path / "f", PAIR | {"id": bad}))
    (pair,) = read_pairs(lines(tmp_path / "f", PAIR | {"id": 7.0}))
    assert pair.id == "7"


def test_nonsense_nested_too_deep_is_not_json(tmp_path: Path):
    with pytest.raises(ValueError, match="f:1: not JSON"):
        read_pairs(lines(tmp_path / "f", "[" * 200_000))


def test_keys_of_a_verdict_that_other_tools_add_are_passed_over_and_ours_are_checked(tmp_path: Path):
    row = {"id": 1, "order": "original", "preference": 1, "model": "x", "raw": {"a": 1}, "key": 5, "cost": None}
    (verdict,) = read_verdicts(lines(tmp_path / "f", row | {"status": None, "latency": 2, "truncated": True}))
    assert verdict == Verdict("1", "original", 1.0, "ok", latency=2.0, truncated=True)
    for change in ({"cost": "free"}, {"cost": -1}, {"input_tokens": 1.5}, {"repeat": True}, {"truncated": 1}):
        with pytest.raises(ValueError, match=f"f:1: '{next(iter(change))}' must be"):
            read_verdicts(lines(tmp_path / "f", row | change))


def test_a_misspelt_preference_is_no_failed_question(tmp_path: Path):
    with pytest.raises(ValueError, match="f:1: the key 'preference' is missing"):
        read_verdicts(lines(tmp_path / "f", {"id": 1, "order": "original", "prefrence": 0.5}))
    (failed,) = read_verdicts(lines(tmp_path / "f", {"id": 1, "order": "original", "status": "timeout"}))
    assert (failed.status, math.isnan(failed.preference)) == ("timeout", True)


def test_repeats_of_one_question_are_numbered(tmp_path: Path):
    row = {"id": 1, "order": "original", "preference": 0.5}
    read = read_verdicts(lines(tmp_path / "f", row, row | {"repeat": 1}))
    assert [verdict.repeat for verdict in read] == [0, 1]
    with pytest.raises(ValueError, match="keep one, or number them by 'repeat'"):
        read_verdicts(lines(tmp_path / "f", row | {"repeat": 1}, row | {"repeat": 1}))
