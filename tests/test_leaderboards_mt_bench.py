"""MT-Bench scores equal the published means; failed judgments lower the coverage; questions are resampled."""

from __future__ import annotations

import json

import numpy as np
import pytest
from leaderboards_published import SHARED, judgments, needs_shared, write

from leaderboards.boards.mt_bench import CATEGORIES, Rating, mt_bench_scores, rate_mt_bench

OFFICIAL = [(q, t) for q in range(81, 161) for t in (1, 2)]


def official(seed=0):
    scores = np.random.default_rng(seed).integers(1, 11, len(OFFICIAL))
    return dict(zip(OFFICIAL, scores.tolist(), strict=True))


@needs_shared
def test_published_judgments_give_the_published_scores_exactly():
    rated = rate_mt_bench(SHARED / "mt_bench" / "model_judgment" / "gpt-4_single.phi-3-dpo.jsonl.gz")["phi-3-dpo"]
    assert (rated["turn_1"], rated["turn_2"], rated["score"]) == (8.3625, 8.0375, 8.2)
    assert (rated["n"], rated["coverage"]) == (80, 1.0)
    assert rated["ci"][0] < 8.2 < rated["ci"][1]


@needs_shared
def test_official_categories_are_those_of_the_question_file():
    path = SHARED / "mt_bench" / "model_judgment" / "gpt-4_single.phi-3-dpo.jsonl.gz"
    told = rate_mt_bench(path, SHARED / "mt_bench" / "question.jsonl")["phi-3-dpo"]
    assert told == rate_mt_bench(path)["phi-3-dpo"]
    assert list(told["categories"]) == list(CATEGORIES)


def test_means_are_over_all_ratings_that_could_be_read(tmp_path):
    scores = official() | {(81, 1): -1, (81, 2): None, (95, 2): -1}
    rated = rate_mt_bench(write(tmp_path / "j", judgments(scores), lines=True))["m"]
    read = {key: s for key, s in scores.items() if s not in (-1, None)}
    assert rated["score"] == pytest.approx(np.mean(list(read.values())), abs=1e-12)
    assert rated["turn_1"] == pytest.approx(np.mean([s for (_, t), s in read.items() if t == 1]), abs=1e-12)
    writing = [s for (q, _), s in read.items() if q <= 90]
    assert rated["categories"]["writing"] == pytest.approx(np.mean(writing), abs=1e-12)
    assert (rated["n"], rated["coverage"]) == (79, 157 / 160)


def test_several_models_are_told_apart_and_what_one_was_not_asked_lowers_its_coverage(tmp_path):
    whole, half = official(1), {key: s for key, s in official(2).items() if key[0] < 121}
    rows = judgments(whole, model="b/whole") + judgments(half, model="a/half")
    told = rate_mt_bench(write(tmp_path / "j", rows, packed=True))
    assert list(told) == ["a/half", "b/whole"]
    assert (told["a/half"]["coverage"], told["b/whole"]["coverage"]) == (0.5, 1.0)
    assert told["a/half"]["score"] == pytest.approx(np.mean(list(half.values())), abs=1e-12)
    assert "stem" not in told["a/half"]["categories"]


def test_first_turn_only_has_no_second_turn(tmp_path):
    first = {key: s for key, s in official().items() if key[1] == 1}
    rated = rate_mt_bench(write(tmp_path / "j", judgments(first)))["m"]
    assert rated["turn_2"] is None
    assert rated["turn_1"] == rated["score"]


def test_every_judgment_failed_is_null_and_never_minus_one(tmp_path):
    rated = rate_mt_bench(write(tmp_path / "j", judgments(dict.fromkeys(OFFICIAL, -1))))["m"]
    assert rated["score"] is rated["turn_1"] is None
    assert (rated["n"], rated["coverage"], rated["ci"]) == (0, 0.0, [None, None])
    json.dumps(rated, allow_nan=False)


def test_the_interval_knows_that_both_turns_are_of_one_question():
    """Turn 2 repeats turn 1: no more information, so the interval of the score is that of turn 1."""
    scores = np.random.default_rng(3).normal(7, 2, 80)
    ratings = [Rating(str(q), t, float(s)) for q, s in enumerate(scores) for t in (1, 2)]
    told = mt_bench_scores(ratings, {})
    assert told["score"].ci_low == pytest.approx(told["turn_1"].ci_low, abs=1e-9)
    assert told["score"].n == 80


def test_a_judgment_written_twice_counts_twice_as_upstream_averages_it(tmp_path):
    rows = judgments({(81, 1): 4, (82, 1): 10}) + judgments({(81, 1): 7})
    rated = rate_mt_bench(write(tmp_path / "j", rows))["m"]
    assert rated["score"] == pytest.approx(7.0)
    assert (rated["n"], rated["coverage"]) == (2, 1.0)


def test_own_questions_bring_their_own_categories_and_ids_of_any_kind(tmp_path):
    rows = judgments({("q-a", 1): 2, ("q-b", 1): 4, (3, 1): 9})
    questions = [{"question_id": q, "category": c} for q, c in (("q-a", "tales"), ("q-b", "tales"), ("3", "sums"))]
    rated = rate_mt_bench(write(tmp_path / "j", rows), write(tmp_path / "q", questions, lines=True))["m"]
    assert rated["categories"] == {"tales": 3.0, "sums": 9.0}


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([{"question_id": 81, "model_1": "a", "model_2": "b", "g1_winner": "tie", "g2_winner": "tie"}], "pairwise"),
        ([{"question_id": 81, "text": "x"}], "no 'model'"),
        (judgments({(81, 1): "8"}), "score '8'; it must be a number"),
        (judgments({(81, 3): 8}), "neither turn 1 nor turn 2"),
        (judgments({(81, 1): float("inf")}), "score inf"),
        (judgments({(81.5, 1): 8}), "question_id 81.5"),
        (judgments({(81, 1): 8}) + judgments({(81, 2): 8}, judge=("claude", "single-v1")), "2 judges: claude, gpt-4"),
    ],
)
def test_files_of_another_kind_get_one_clear_message(tmp_path, rows, told):
    with pytest.raises(ValueError, match=told):
        rate_mt_bench(write(tmp_path / "j", rows))


def test_judgments_of_one_judge_with_several_prompts_belong_together(tmp_path):
    rows = judgments({(81, 1): 8}) + judgments({(111, 1): 6}, judge=("gpt-4", "single-math-v1"))
    assert rate_mt_bench(write(tmp_path / "j", rows))["m"]["score"] == 7.0


def test_questions_that_the_question_file_lacks_are_told(tmp_path):
    questions = write(tmp_path / "q", [{"question_id": 81, "category": "writing"}])
    with pytest.raises(ValueError, match="lacks 1 judged questions, such as '82'"):
        rate_mt_bench(write(tmp_path / "j", judgments({(81, 1): 5, (82, 1): 5})), questions)
