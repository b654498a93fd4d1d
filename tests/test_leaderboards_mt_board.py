"""MT-Bench as a board: two turns with the policy's own first answer between them, ratings and their means by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from boards_world import HOSTILE, Rule, all_questions, by_worth, mt_bench, reread
from conftest import PANEL
from leaderboards_published import SHARED, needs_shared, write

from judges import PanelJudge
from judges.judge import Prompt, Ratings, References
from leaderboards import MTBench
from leaderboards.leaderboard import conversation
from leaderboards.sources import read_records


@dataclass(eq=False)
class Rater(Rule):
    """Rates an answer with the number it ends with; 0 and an answer without text are failures."""

    seen: list[tuple[Prompt, str, References]] = field(default_factory=list)

    def rate(self, prompts: Sequence[Prompt], answers: Sequence[str], references: Sequence[References]) -> Ratings:
        self.seen += zip(prompts, answers, references, strict=True)
        ratings = np.array([float(text.rsplit(" ", 1)[-1]) if text.strip() else 0 for text in answers])
        return Ratings(np.where(ratings == 0, np.nan, ratings), ["unreadable" if r == 0 else "ok" for r in ratings])


def board_of(tmp_path, **options):
    return MTBench(data=mt_bench(tmp_path, {81: ["ref 0.2", "ref 0.4"]}), **options)


def scored(board, verdicts):
    return {(score.metric, score.category): score for score in board.rate(verdicts, seed=0)}


def test_the_second_turn_follows_the_first_and_categories_have_the_official_temperatures(tmp_path):
    board = MTBench(data=mt_bench(tmp_path, {}, ("math", "writing", "stem", "own")))
    asked = {r.id: r for r in all_questions(board, [], 0.9)}
    assert {id: (r.prompt, r.turn, r.follows, r.temperature) for id, r in asked.items()} == {
        "81/1": ("first 0", 1, None, 0.0),
        "82/1": ("first 1", 1, None, 0.7),
        "83/1": ("first 2", 1, None, 0.1),
        "84/1": ("first 3", 1, None, 0.9),
        "81/2": ("second 0", 2, "81/1", 0.0),
        "82/2": ("second 1", 2, "82/1", 0.7),
        "83/2": ("second 2", 2, "83/1", 0.1),
        "84/2": ("second 3", 2, "84/1", 0.9),
    }
    assert [r.turn for r in asked.values()] == [1] * 4 + [2] * 4


def test_limits_count_questions_and_a_curve_has_both_turns(tmp_path):
    board = MTBench(data=mt_bench(tmp_path, {}, ["math"] * 5), limit=4, curve_limit=2)
    assert len(all_questions(board, [], 0.9)) == 8
    assert [r.id for r in board.requests([], 0.9, "curve")] == ["81/1", "82/1", "81/2", "82/2"]


def test_scores_by_hand(tmp_path):
    """Ratings 8 and 4 on math, 6 and a failure on writing."""
    board, judge = board_of(tmp_path), Rater(by_worth)
    answers = {"81/1": ["a 8"], "82/1": ["b 6"], "81/2": ["c 4"], "82/2": ["d 0"]}
    verdicts = board.grade(all_questions(board, [], 0.7), answers, None, judge)
    assert {v.id: (v.rating, v.status) for v in verdicts} == {
        "81/1": (8, "ok"),
        "82/1": (6, "ok"),
        "81/2": (4, "ok"),
        "82/2": (None, "unreadable"),
    }
    assert {v.preference for v in verdicts} == {None}
    scores = scored(board, verdicts)
    assert {key: score.value for key, score in scores.items()} == {
        ("score", ""): 6,
        ("turn_1", ""): 7,
        ("turn_2", ""): 4,
        ("score", "math"): 6,
        ("score", "writing"): 6,
    }
    assert {key: score.coverage for key, score in scores.items()} == {
        ("score", ""): 0.75,
        ("turn_1", ""): 1,
        ("turn_2", ""): 0.5,
        ("score", "math"): 1,
        ("score", "writing"): 0.5,
    }
    assert scores["score", ""].n == 2
    assert board.by_prompt(verdicts) == {"score": {"81": 6, "82": 6}}
    assert {v.turn for v in verdicts} == {1, 2}
    assert reread(verdicts, tmp_path) == verdicts


def test_the_judge_sees_the_conversation_and_the_references_up_to_the_turn(tmp_path):
    board, judge = board_of(tmp_path), Rater(by_worth)
    answers = {"81/1": ["a 8"], "82/1": ["b 6"], "81/2": ["c 4"], "82/2": ["d 2"]}
    verdicts = board.grade(all_questions(board, [], 0.7), answers, None, judge)
    prompt, answer, references = judge.seen[2]
    assert prompt == [
        {"role": "user", "content": "first 0"},
        {"role": "assistant", "content": "a 8"},
        {"role": "user", "content": "second 0"},
    ]
    assert (answer, references) == ("c 4", ("ref 0.2", "ref 0.4"))
    assert judge.seen[0] == ([{"role": "user", "content": "first 0"}], "a 8", ("ref 0.2",))
    assert judge.seen[1][2] is None
    assert [v.baseline_response for v in verdicts] == ["ref 0.2", "", "ref 0.4", ""]


def test_a_judge_that_only_compares_rates_against_the_reference_and_fails_without_one(tmp_path):
    """P(answer beats reference) = 1/2 + (.6 - .2)/2 = .7, and 1/2 + (.4 - .4)/2: ratings 7.3 and 5.5."""
    board = board_of(tmp_path)
    answers = {"81/1": ["a 0.6"], "82/1": ["b 0.6"], "81/2": ["c 0.4"], "82/2": ["d 1"]}
    verdicts = board.grade(all_questions(board, [], 0.7), answers, None, Rule(by_worth))
    assert [v.rating for v in verdicts] == [pytest.approx(7.3), None, pytest.approx(5.5), None]
    assert [v.status for v in verdicts] == ["ok", "no-reference", "ok", "no-reference"]
    scores = scored(board, verdicts)
    assert scores["score", ""].value == pytest.approx(6.4)
    assert (scores["score", ""].coverage, scores["score", "writing"].coverage) == (0.5, 0)
    assert np.isnan(scores["score", "writing"].value)
    assert board.by_prompt(verdicts)["score"] == {"81": pytest.approx(6.4), "82": None}


def test_missing_empty_and_hostile_answers(tmp_path):
    board, judge = board_of(tmp_path), Rater(by_worth)
    answers = {"81/1": [HOSTILE + " 3"], "81/2": [" "], "82/2": ["never asked 9"]}
    verdicts = board.grade(all_questions(board, [], 0.7), answers, None, judge)
    assert [(v.id, v.rating, v.status) for v in verdicts] == [
        ("81/1", 3, "ok"),
        ("82/1", None, "no-answer"),
        ("81/2", 1, "ok"),
        ("82/2", None, "no-answer"),
    ]
    assert [answer for _, answer, _ in judge.seen] == [HOSTILE + " 3", " "]
    assert (scored(board, verdicts)["score", ""].value, scored(board, verdicts)["score", ""].coverage) == (2, 0.5)


def test_an_empty_first_answer_does_not_stop_the_second_turn(tmp_path):
    board, judge = board_of(tmp_path), Rater(by_worth)
    answers = {"81/1": [""], "82/1": ["b 6"], "81/2": ["c 4"], "82/2": ["d 2"]}
    verdicts = board.grade(all_questions(board, [], 0.7), answers, None, judge)
    assert [v.rating for v in verdicts] == [1, 6, 4, 2]


def test_bad_folders_are_one_clear_message(tmp_path):
    with pytest.raises(ValueError, match="mt-bench needs the option data"):
        MTBench()
    with pytest.raises(ValueError, match=r"holds no question\.jsonl"):
        MTBench(data=tmp_path)
    good = {"question_id": 1, "category": "math", "turns": ["a", "b"]}
    for rows, told in [
        ([good | {"turns": ["a"]}], "two texts a question"),
        ([good | {"category": None}], "category None; it must be a text"),
        ([good, good], "the id '1' is there 2 times"),
        ([{"question_id": 1, "category": "math"}], "record 0 has no 'turns'"),
    ]:
        write(tmp_path / "question.jsonl", rows, lines=True)
        with pytest.raises(ValueError, match=told):
            MTBench(data=tmp_path)
    write(tmp_path / "question.jsonl", [good], lines=True)
    write(tmp_path / "reference_answer" / "a.jsonl", [{"question_id": 1, "choices": []}], lines=True)
    with pytest.raises(ValueError, match="no 'choices' with 'turns'"):
        MTBench(data=tmp_path)
    write(tmp_path / "reference_answer" / "b.jsonl", [{"question_id": 1}], lines=True)
    with pytest.raises(ValueError, match=r"2 \.jsonl files"):
        MTBench(data=tmp_path)


@needs_shared
def test_the_official_questions_are_read_with_their_references_and_graded_by_a_panel(tmp_path):
    """The published answers of a model: 30 of 80 questions have a reference, so 60 of 160 ratings are there."""
    (tmp_path / "panel.yaml").write_text(PANEL)
    board = MTBench(data=SHARED / "mt_bench")
    requests = all_questions(board, [], 0.7)
    published = read_records(SHARED / "mt_bench" / "model_answer" / "phi-3-dpo.jsonl.gz")
    said = {str(r["question_id"]): r["choices"][0]["turns"] for r in published}
    answers = {r.id: [said[r.id.partition("/")[0]][r.turn - 1]] for r in requests}
    by_id = {r.id: r for r in requests}
    assert [m["role"] for m in conversation(by_id["81/2"], by_id, answers)] == ["user", "assistant", "user"]
    verdicts = board.grade(requests, answers, None, PanelJudge(tmp_path / "panel.yaml"))
    score = scored(board, verdicts)["score", ""]
    assert len(requests) == 160
    assert (score.n, score.coverage) == (30, 60 / 160)
    assert 1 <= score.ci_low < score.value < score.ci_high <= 10
    assert {v.status for v in verdicts} == {"ok", "no-reference"}
