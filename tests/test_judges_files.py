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
        (PAIR | {"id": 2, "first": 3}, ":2: 'first' must be a text, got '3'"),
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
