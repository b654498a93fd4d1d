"""Judges over files: nothing is asked twice, nothing is lost, and files that do not fit together are refused."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from judges import EnsembleJudge
from judges.files import Verdict, read_verdicts, write_verdicts
from judges.judge import Judge, Question
from judges.runs import judge_file, repetition, summary
from judges.verdicts import Answer


@dataclass(eq=False)
class Longer(Judge):
    """Prefers the longer text; fails where one says "fail"; stops the process's work after `calls` calls."""

    sharpness: float = 0.75
    repeat: int = 0
    calls: int = 10**9
    asked: list[Question] = field(default_factory=list, compare=False)
    chunk_size = 4

    def options(self) -> dict[str, Any]:
        return {"sharpness": self.sharpness, "repeat": self.repeat}

    def answer(self, questions: Sequence[Question], advance: Callable[[int], None]) -> list[Answer]:
        if self.calls == 0:
            raise KeyboardInterrupt
        self.calls -= 1
        self.asked += questions
        advance(len(questions))
        return [self.one(each) for each in questions]

    def one(self, question: Question) -> Answer:
        if "fail" in question.first + question.second:
            return Answer.failure("refusal", "no \ud800")
        longer = len(question.first) > len(question.second)
        return Answer(self.sharpness if longer else 1 - self.sharpness, "ok", 3, 1, 0.5, 0.25, "A <b>")


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.jsonl"
    rows = [{"id": i, "prompt": f"p{i}", "first": "long text", "second": "x" * i} for i in range(5)]
    path.write_text("\n".join(map(json.dumps, [*rows, {"id": "bad", "prompt": "p", "first": "fail", "second": "b"}])))
    return path


def test_every_pair_is_asked_in_both_orders_and_written_in_its_own_naming(pairs: Path, tmp_path: Path) -> None:
    judge = Longer()
    said = judge_file(judge, pairs, tmp_path / "v.jsonl")
    read = read_verdicts(tmp_path / "v.jsonl")
    assert [(v.id, v.order) for v in read] == [(i, o) for i in [*"01234", "bad"] for o in ("original", "swapped")]
    assert all(v.preference == 0.75 for v in read[:-2])
    assert [(v.status, math.isnan(v.preference)) for v in read[-2:]] == [("refusal", True)] * 2
    assert (read[0].input_tokens, read[0].output_tokens, read[0].latency, read[0].cost) == (3, 1, 0.5, 0.25)
    assert (read[0].raw, read[-1].raw) == ("A <b>", "no \ud800")
    assert [q.first for q in judge.asked[:2]] == ["long text", ""]
    assert [(v.id, v.order, v.status) for v in said] == [(v.id, v.order, v.status) for v in read]


def test_one_order_asks_each_pair_as_it_stands(pairs: Path, tmp_path: Path) -> None:
    judge = Longer()
    judge_file(judge, pairs, tmp_path / "v.jsonl", both_orders=False)
    assert len(judge.asked) == 6
    assert {v.order for v in read_verdicts(tmp_path / "v.jsonl")} == {"original"}


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_a_stopped_run_goes_on_without_asking_anything_again(pairs: Path, tmp_path: Path, suffix: str) -> None:
    out, whole = tmp_path / f"v.{suffix}", tmp_path / f"whole.{suffix}"
    first, second, third = Longer(calls=2), Longer(), Longer()
    with pytest.raises(KeyboardInterrupt):
        judge_file(first, pairs, out)
    assert out.exists() == (suffix == "jsonl")
    judge_file(second, pairs, out)
    assert (len(first.asked), len(second.asked)) == (8, 4)
    assert not {(q.prompt, q.first) for q in first.asked} & {(q.prompt, q.first) for q in second.asked}
    judge_file(third, pairs, out)
    assert third.asked == []
    judge_file(Longer(), pairs, whole)
    assert list(map(repr, read_verdicts(out))) == list(map(repr, read_verdicts(whole)))
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["pairs.jsonl", out.name, whole.name])


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_half_written_last_line_is_asked_again(pairs: Path, tmp_path: Path, cut: int) -> None:
    out = tmp_path / "v.jsonl"
    judge_file(Longer(), pairs, out)
    complete = out.read_bytes()
    out.write_bytes(complete[:-cut])
    again = Longer()
    judge_file(again, pairs, out)
    assert out.read_bytes() == complete
    assert len(again.asked) == (cut > 1)  # without its line break alone the last verdict is whole


@dataclass(eq=False)
class Unreachable(Longer):
    """Is not reached by questions about p1 and p3."""

    def one(self, question: Question) -> Answer:
        return Answer.failure("connection") if question.prompt in ("p1", "p3") else super().one(question)


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_failures_that_may_have_passed_are_asked_again_and_refusals_are_not(
    pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    out = tmp_path / f"v.{suffix}"
    judge_file(Unreachable(), pairs, out)
    again = Unreachable()
    monkeypatch.setattr(Unreachable, "one", Longer.one)
    assert summary(judge_file(again, pairs, out))["failures"] == {"refusal": 2}
    assert sorted(q.prompt for q in again.asked) == ["p1", "p1", "p3", "p3"]
    assert len(read_verdicts(out)) == 12


def test_pairs_that_were_added_are_asked_and_the_others_are_not(pairs: Path, tmp_path: Path) -> None:
    judge_file(Longer(), pairs, tmp_path / "v.jsonl")
    with pairs.open("a") as file:
        file.write('\n{"id": "new", "prompt": "q", "first": "a", "second": "bb"}\n')
    again = Longer()
    said = judge_file(again, pairs, tmp_path / "v.jsonl")
    assert {q.prompt for q in again.asked} == {"q"}
    assert len(said) == 14


def test_verdicts_of_another_judge_or_on_other_texts_are_not_mixed_in(pairs: Path, tmp_path: Path) -> None:
    out = tmp_path / "v.jsonl"
    judge_file(Longer(), pairs, out)
    before = out.read_bytes()
    other = Longer(sharpness=0.5)
    with pytest.raises(ValueError, match="has a verdict on id '0' that is another judge's, or on other texts"):
        judge_file(other, pairs, out)
    pairs.write_text(pairs.read_text().replace('"p3"', '"changed"'))
    with pytest.raises(ValueError, match="on id '3' that is another"):
        judge_file(other := Longer(), pairs, out)
    pairs.write_text(pairs.read_text().splitlines()[0])
    with pytest.raises(ValueError, match="has a verdict on id '1', which"):
        judge_file(other, pairs, out)
    assert (other.asked, out.read_bytes()) == ([], before)


def test_a_file_that_holds_no_verdicts_is_left_as_it_is(pairs: Path, tmp_path: Path) -> None:
    before = pairs.read_bytes()
    with pytest.raises(ValueError, match=r"pairs.jsonl:1: a verdict needs an 'id' and the 'order'"):
        judge_file(Longer(), pairs, pairs)
    assert pairs.read_bytes() == before
    with pytest.raises(ValueError, match=r"verdicts go to a .jsonl or a .parquet"):
        judge_file(Longer(), pairs, tmp_path / "v.csv")


def test_wrong_pairs_are_refused_before_anything_is_asked(pairs: Path, tmp_path: Path) -> None:
    for line, message in (('{"id": 3, "prompt": "p", "first": "a", "second": "b"}', "'3' is there twice"), ("{", ":7")):
        text = pairs.read_text()
        pairs.write_text(f"{text}\n{line}")
        judge = Longer()
        with pytest.raises(ValueError, match=message):
            judge_file(judge, pairs, tmp_path / "new" / "v.jsonl")
        assert judge.asked == []
        assert not (tmp_path / "new").exists()
        pairs.write_text(text)


def test_repeats_are_asked_of_a_judge_that_knows_which_repeat_it_is(pairs: Path, tmp_path: Path) -> None:
    judge = Longer(repeat=5)
    judge_file(judge, pairs, tmp_path / "v.jsonl", repeats=3)
    read = read_verdicts(tmp_path / "v.jsonl")
    assert [v.repeat for v in read] == [0] * 12 + [1] * 12 + [2] * 12
    assert [repetition(judge, r).repeat for r in range(3)] == [5, 6, 7]  # type: ignore[attr-defined]
    assert len({v.key for v in read}) == 36


def test_repeats_reach_the_members_of_an_ensemble() -> None:
    twice = repetition(EnsembleJudge([Longer(), Longer(repeat=3)], weights=[1, 3]), 2)
    assert [member.repeat for member in twice.judges] == [2, 5]  # type: ignore[attr-defined]
    assert twice.compare(["p"], ["longer"], ["l"]) == Longer().compare(["p"], ["longer"], ["l"])


def test_progress_goes_to_the_end_and_starts_where_the_last_run_stopped(pairs: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        judge_file(Longer(calls=1), pairs, tmp_path / "v.jsonl")
    heard: list[tuple[int, int]] = []
    judge_file(Longer(), pairs, tmp_path / "v.jsonl", progress=lambda *at: heard.append(at))
    assert heard == [(8, 12), (12, 12)]


def test_the_summary_counts_failures_flips_and_work() -> None:
    rows = [(0.9, 0.2), (0.9, 0.8), (0.5, 0.9), (math.nan, 0.9)]
    verdicts = [
        Verdict(str(i), order, p, "timeout" if math.isnan(p) else "ok", input_tokens=2, cost=0.5)
        for i, pair in enumerate(rows)
        for order, p in zip(("original", "swapped"), pair, strict=True)
    ]
    figures = summary(verdicts)
    assert (figures["questions"], figures["pairs"], figures["coverage"]) == (8, 4, 7 / 8)
    assert (figures["both_orders"], figures["flips"], figures["failures"]) == (3, 1, {"timeout": 1})
    assert (figures["input_tokens"], figures["cost"]) == (16, 4.0)


def test_a_parquet_file_of_verdicts_is_read_like_lines(tmp_path: Path) -> None:
    import pandas as pd

    written = [Verdict("7", "original", 0.25, "ok"), Verdict("7", "swapped", math.nan, "timeout")]
    write_verdicts(tmp_path / "v.jsonl", written)
    frame = pd.DataFrame([{"id": 7, "order": v.order, "preference": v.preference, "status": v.status} for v in written])
    frame["preference"] = frame["preference"].astype(object).where(frame["preference"].notna(), None)
    frame.to_parquet(tmp_path / "v.parquet")
    assert list(map(repr, read_verdicts(tmp_path / "v.parquet"))) == list(map(repr, written))
    (tmp_path / "no.parquet").write_text("text")
    with pytest.raises(ValueError, match=r"no.parquet: not a Parquet file"):
        read_verdicts(tmp_path / "no.parquet")
