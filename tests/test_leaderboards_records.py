"""Graded items: what a board must give, what it may leave out, and that the disk changes nothing."""

from __future__ import annotations

import math
import re
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from boards_world import HOSTILE, PARTS, Rule, mt_bench, reread

from leaderboards import GradedItem, HeadToHead, Metric, MTBench
from leaderboards.records import check_items
from reports import schema

GUIDE = Path(__file__).parent.parent / "CONTRIBUTING.md"
CHAT = [{"role": "user", "content": HOSTILE}]


# --- items -------------------------------------------------------------------------------------------------------


def test_an_item_needs_an_id_and_one_number() -> None:
    for name in ("preference", "rating", "value"):
        item = GradedItem(id="a", **{name: 1})
        assert (getattr(item, name), item.status) == (1.0, "ok")


def test_nan_is_none_and_an_item_without_a_number_never_counts_as_ok() -> None:
    for missing in (None, math.nan, np.float32("nan")):
        assert GradedItem(id="a", preference=missing) == GradedItem(id="a")
    assert GradedItem(id="a").status == "no-verdict"
    assert GradedItem(id="a", status="timeout").status == "timeout"
    assert GradedItem(id="a", preference=0.5, status="timeout").status == "ok"  # one of several kinds of failure


@pytest.mark.parametrize("preference", [-0.01, 1.01, 7, math.inf])
def test_a_preference_outside_the_unit_interval_is_refused(preference: float) -> None:
    with pytest.raises(ValueError, match=r"item 'a' is .* in 0\.\.1"):
        GradedItem(id="a", preference=preference)


def test_items_come_back_from_disk_as_they_were(tmp_path: Path) -> None:
    items = [
        GradedItem(id="a"),
        GradedItem(id="", preference=np.float64(1 / 3), prompt=CHAT, response=HOSTILE, baseline_response="\r\n"),
        GradedItem(id="c", rating=10, turn=2, stripped=True, finished=False, category="math", extra={"q": [1, None]}),
        GradedItem(id="c", value=-2.5e300, metric="acc", finished=True, extra={HOSTILE: 0.1}),
    ]
    assert reread(items, tmp_path) == items
    assert reread([], tmp_path) == []


def test_columns_on_disk_have_one_type_whatever_is_missing(tmp_path: Path) -> None:
    reread([GradedItem(id="a")], tmp_path)
    kinds = pd.read_parquet(tmp_path / "verdicts.parquet", dtype_backend="pyarrow").dtypes.astype(str).to_dict()
    assert {name for name, kind in kinds.items() if kind.startswith("double")} == {"preference", "rating", "value"}
    assert {name for name, kind in kinds.items() if kind.startswith("bool")} == {"stripped", "finished"}


def test_what_json_cannot_hold_is_refused_with_the_items_id(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="extra of the graded item 'a' is no JSON"):
        reread([GradedItem(id="a", extra={"when": object()})], tmp_path)


def test_a_board_that_returns_something_else_or_one_item_twice_is_named() -> None:
    with pytest.raises(ValueError, match=r"the leaderboard mine graded an answer as a dict; .*GradedItem"):
        check_items("mine", [{"id": "a"}])
    with pytest.raises(ValueError, match="the leaderboard mine graded 'a' twice"):
        check_items("mine", [GradedItem(id="a"), GradedItem(id="a", preference=1.0)])
    several = [GradedItem(id="a", value=1.0, metric=metric) for metric in ("acc", "f1")]
    assert check_items("lm-eval", several) == several


# --- the schema --------------------------------------------------------------------------------------------------


def test_the_table_of_samples_has_every_attribute_of_an_item_and_metrics_json_every_one_of_a_metric() -> None:
    named = {"prompt_id" if field.name == "id" else field.name for field in fields(GradedItem)}
    assert named == set(schema.names("samples")) - {"cell", "iteration", "leaderboard", "grader"}
    assert {field.name for field in fields(Metric)} == set(schema.METRIC_FIELDS)


def test_no_column_is_declared_twice_in_a_table() -> None:
    for table in schema.TABLES:
        names = schema.names(table)
        assert len(set(names)) == len(names)
        assert sorted(names) == sorted(schema.of_kind(table, "text", "number", "count", "flag"))


# --- parts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [None, 2, 5, 9])
@pytest.mark.parametrize("curve_limit", [0, 2, 4, 7, 20])
def test_the_parts_are_disjoint_and_together_the_limit_in_order(limit: int | None, curve_limit: int) -> None:
    heldout = [(f"q{i}", "x") for i in range(7)]
    board = HeadToHead(limit=limit, curve_limit=curve_limit)
    curve, rest = ([question.id for question in board.requests(heldout, 1.0, part)] for part in PARTS)
    assert curve + rest == [id for id, _ in heldout][:limit]
    assert len(curve) == min(curve_limit, len(curve + rest))


def test_a_conversation_is_in_one_part_whole_and_the_parts_graded_apart_rate_as_one(tmp_path: Path) -> None:
    references = {81 + i: [f"ref 0.{i}", f"ref 0.{i + 1}"] for i in range(5)}
    data = mt_bench(tmp_path, references, ["math", "writing", "math", "stem", "writing"])
    board, whole = MTBench(data=data, curve_limit=2), MTBench(data=data, curve_limit=0)
    graded = {}
    for name, of, parts in (("apart", board, PARTS), ("whole", whole, PARTS)):
        graded[name] = []
        for part in parts:
            questions = of.requests([], 0.7, part)
            assert {q.follows for q in questions} - {None} <= {q.id for q in questions}
            answers = {q.id: [f"{q.id} 0.{sum(map(ord, q.id)) % 10}"] for q in questions}
            graded[name] += of.grade(questions, answers, None, Rule(lambda a, b: float(a[-1]) / 10))
    assert {item.id: item for item in graded["apart"]} == {item.id: item for item in graded["whole"]}
    assert board.rate(graded["apart"], 3) == whole.rate(graded["whole"], 3)
    assert board.by_prompt(graded["apart"]) == whole.by_prompt(graded["whole"])


# --- a third party's board ---------------------------------------------------------------------------------------


@pytest.fixture
def riddles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The board in CONTRIBUTING.md, as it stands there, in a module of its own."""
    (section,) = re.findall(r"## Add a leaderboard\n(.*?)\n## ", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    (tmp_path / "riddles_of_the_guide.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return import_module("riddles_of_the_guide").Riddles


def test_the_board_of_the_contributing_guide_asks_grades_and_rates(riddles: Any, tmp_path: Path) -> None:
    board = riddles(curve_limit=0)
    assert board.requests([], 1.0, "curve") == []
    questions = board.requests([], 1.0, "rest")
    assert [question.id for question in questions] == [
        "What gets wetter as it dries?",
        "What has keys and opens no door?",
    ]
    judge = Rule(lambda a, b: 0.75 if b.startswith("Answer: A ") else float("nan"))
    items = check_items(board.name, board.grade(questions, {questions[0].id: ["rain"]}, None, judge))
    assert [(item.preference, item.status) for item in items] == [(0.75, "ok"), (None, "no-answer")]
    assert reread(items, tmp_path) == items
    (score,) = board.rate(reread(items, tmp_path), seed=0)
    assert (score.metric, score.value, score.n, score.coverage) == ("win_rate", 0.75, 1, 0.5)
    assert set(board.by_prompt(items)) == {score.metric} <= set(board.metrics)
    assert board.by_prompt(items)["win_rate"] == {questions[0].id: 0.75, questions[1].id: None}
