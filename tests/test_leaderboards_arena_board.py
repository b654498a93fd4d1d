"""Arena-Hard as a board: both official layouts in, two games a prompt, five-way verdicts, win rates by hand."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from boards_world import HOSTILE, Rule, all_questions, answered, arena, by_worth, reread
from conftest import PANEL
from leaderboards_published import SHARED, needs_shared, write

from judges import PanelJudge
from leaderboards import ArenaHard
from leaderboards.boards.arena_hard import scores_of_games, verdict_label
from leaderboards.statistics.intervals import mean_estimate

BEFORE = ["old 0"] * 6


def graded(board, judge, texts):
    requests = all_questions(board, [], 0.7)
    return board.grade(requests, answered(requests, texts), None, judge)


def scored(board, verdicts):
    return {(score.metric, score.category): score for score in board.rate(verdicts, seed=0)}


@pytest.mark.parametrize(
    ("preference", "label"),
    [
        (1.0, "A>>B"),
        (0.875, "A>>B"),
        (0.8749, "A>B"),
        (0.75, "A>B"),
        (0.625, "A>B"),
        (0.6249, "A=B"),
        (0.5, "A=B"),
        (0.3751, "A=B"),
        (0.375, "B>A"),
        (0.25, "B>A"),
        (0.1251, "B>A"),
        (0.125, "B>>A"),
        (0.0, "B>>A"),
        (float("nan"), None),
    ],
)
def test_a_preference_is_the_nearest_of_five_verdicts_and_native_ones_come_back(preference, label):
    assert verdict_label(preference) == label


def test_both_official_layouts_say_the_same(tmp_path):
    new = ArenaHard(data=arena(tmp_path / "new", BEFORE))
    old = ArenaHard(data=arena(tmp_path / "old", BEFORE, old=True))
    asked = [[(r.id, r.prompt, r.temperature) for r in all_questions(board, [], 0.7)] for board in (new, old)]
    assert asked[0] == asked[1] == [(f"q{i}", f"question {i}", 0.0) for i in range(6)]
    told = [[v.baseline_response for v in graded(board, Rule(by_worth), ["new 0"] * 6)] for board in (new, old)]
    assert told[0] == told[1] == BEFORE


def test_two_games_with_the_baseline_first_and_then_second(tmp_path):
    board, judge = ArenaHard(data=arena(tmp_path, BEFORE[:2])), Rule(lambda a, b: 0.75 if a.startswith("old") else 0.0)
    verdict = graded(board, judge, ["new 0"] * 2)[0]
    assert {(q.first, q.second) for q in judge.asked} == {("old 0", "new 0"), ("new 0", "old 0")}
    assert (verdict.extra["first_game"], verdict.extra["second_game"]) == ("A>B", "B>>A")


def test_scores_by_hand(tmp_path):
    """Decisive (6 of 6 points), slight (2 of 2), a tie (1 of 2), a decisive loss (0 of 6), and two that failed."""
    board = ArenaHard(data=arena(tmp_path, BEFORE))
    verdicts = graded(board, Rule(by_worth), ["new 1", "new 0.5", "new 0", "new -1", "new nan", "new nan"])
    assert [v.preference for v in verdicts] == [1.0, 1.0, 0.5, 0.0, None, None]
    assert [v.status for v in verdicts] == ["ok"] * 4 + ["timeout"] * 2
    scores = scored(board, verdicts)
    assert scores["win_rate", ""].value == pytest.approx(100 * (6 + 2 + 1) / (6 + 2 + 2 + 6))
    assert scores["prompt_win_rate", ""].value == pytest.approx(100 * 2.5 / 4)
    assert scores["win_rate", "hard_prompt"].value == pytest.approx(100 * 7 / 8)
    assert scores["win_rate", "creative_writing"].value == pytest.approx(100 * 2 / 8)
    assert all((score.n, score.coverage) == (4, 4 / 6) for key, score in scores.items() if key[1] == "")
    compared = board.by_prompt(verdicts)
    assert compared["prompt_win_rate"] == {"q0": 100, "q1": 100, "q2": 50, "q3": 0, "q4": None, "q5": None}
    influence = compared["win_rate"]
    assert [influence[id] for id in ("q4", "q5")] == [None, None]
    values = [value for value in influence.values() if value is not None]
    assert np.mean(values) == pytest.approx(scores["win_rate", ""].value)
    # Their mean has the interval of the ratio: its error is the linearised one.
    games = [scores_of_games(v.extra["first_game"], v.extra["second_game"]) for v in verdicts]
    means, weights = zip(*[(100 * np.mean(of), len(of)) for of in games if of], strict=True)
    ratio, mean = mean_estimate(means, weights), mean_estimate(values)
    assert (mean.ci_low, mean.ci_high) == pytest.approx((ratio.ci_low, ratio.ci_high))
    assert reread(verdicts, tmp_path) == verdicts


def test_one_failed_game_leaves_the_prompt_out(tmp_path):
    board = ArenaHard(data=arena(tmp_path, BEFORE))
    failing = Rule(lambda a, b: float("nan") if a == "new 3" else 1.0)
    verdicts = graded(board, failing, [f"new {i}" for i in range(6)])
    assert (verdicts[3].preference, verdicts[3].extra["first_game"], verdicts[3].extra["second_game"]) == (
        None,
        "A>>B",
        None,
    )
    assert verdicts[3].status == "timeout"
    score = scored(board, verdicts)["win_rate", ""]
    assert (score.value, score.n, score.coverage) == (50, 5, 5 / 6)


def test_missing_empty_and_hostile_answers(tmp_path):
    board, judge = ArenaHard(data=arena(tmp_path, BEFORE)), Rule(lambda a, b: 0.5)
    verdicts = graded(board, judge, ["", "  ", "\n", HOSTILE, "y", "z"])
    assert [v.status for v in verdicts] == ["ok"] * 6
    assert [(v.preference, v.extra["first_game"]) for v in verdicts] == [(0.0, "A>>B")] * 3 + [(0.5, "A=B")] * 3
    assert len(judge.asked) == 6
    assert [v.response for v in verdicts[3:]] == [HOSTILE, "y", "z"]
    assert scored(board, verdicts)["win_rate", ""].value == pytest.approx(100 * 3 / (3 * 6 + 3 * 2))
    assert board.grade(all_questions(board, [], 1.0), {}, None, judge)[0].status == "no-answer"


def test_when_every_game_fails_the_win_rate_is_nan(tmp_path):
    board = ArenaHard(data=arena(tmp_path, BEFORE))
    scores = scored(board, graded(board, Rule(lambda a, b: float("nan")), ["new"] * 6))
    assert all(np.isnan(score.value) and score.coverage == 0 for score in scores.values())


def test_a_set_of_one_category_has_no_categories_of_its_own(tmp_path):
    board = ArenaHard(data=arena(tmp_path, BEFORE, old=True))
    assert {category for _, category in scored(board, graded(board, Rule(by_worth), ["new 0"] * 6))} == {""}


def test_the_baseline_is_named_where_there_are_several_one_for_all_or_one_a_category(tmp_path):
    arena(tmp_path, BEFORE)
    arena(tmp_path, ["other 0"] * 6, model="other")
    with pytest.raises(ValueError, match=r"2 \.jsonl files where one is wanted; there is base, other"):
        ArenaHard(data=tmp_path)
    with pytest.raises(ValueError, match=r"no nobody\.jsonl; there is base, other"):
        ArenaHard(data=tmp_path, baseline_model="nobody")
    with pytest.raises(ValueError, match="no baseline for the category 'creative_writing'"):
        ArenaHard(data=tmp_path, baseline_model={"hard_prompt": "base"})
    one = ArenaHard(data=tmp_path, baseline_model="other")
    each = ArenaHard(data=tmp_path, baseline_model={"hard_prompt": "base", "creative_writing": "other"})
    assert [v.baseline_response for v in graded(one, Rule(by_worth), ["new 0"] * 6)] == ["other 0"] * 6
    assert [v.baseline_response for v in graded(each, Rule(by_worth), ["new 0"] * 6)] == ["old 0", "other 0"] * 3


def test_a_rate_over_different_baselines_is_not_called_official_and_each_categorys_own_is(tmp_path):
    arena(tmp_path, BEFORE)
    arena(tmp_path, ["other 0"] * 6, model="other")
    baselines = {"hard_prompt": "base", "creative_writing": "other"}
    one, each = ArenaHard(data=tmp_path, baseline_model="other"), ArenaHard(data=tmp_path, baseline_model=baselines)
    for board, pooled in ((one, "win_rate"), (each, "pooled_win_rate")):
        scores = scored(board, graded(board, Rule(by_worth), ["new 0"] * 6))
        kinds = {("win_rate", "hard_prompt"), ("win_rate", "creative_writing"), ("prompt_win_rate", "")}
        assert set(scores) == {(pooled, ""), *kinds}
        assert board.metrics[pooled].official == (board is one)
    assert each.metrics["win_rate"].official


def test_the_judge_is_told_the_category_of_every_question(tmp_path):
    class Noting(Rule):
        def answer(self, questions, advance):
            told.extend((question.prompt, question.category) for question in questions)
            return super().answer(questions, advance)

    told = []
    board = ArenaHard(data=arena(tmp_path, BEFORE))
    graded(board, Noting(by_worth), ["new 0"] * 6)
    assert set(told) == {(question.prompt, question.category) for question in board._questions}
    assert {category for _, category in told} == {"hard_prompt", "creative_writing"}


def test_bad_folders_are_one_clear_message(tmp_path):
    with pytest.raises(ValueError, match="arena-hard needs the option data"):
        ArenaHard()
    with pytest.raises(ValueError, match="is not there"):
        ArenaHard(data=tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"holds no question\.jsonl"):
        ArenaHard(data=tmp_path)
    arena(tmp_path, BEFORE)
    questions = [{"uid": "q0", "prompt": "a", "category": ""}] * 2
    write(tmp_path / "question.jsonl", questions, lines=True)
    with pytest.raises(ValueError, match="the id 'q0' is there 2 times"):
        ArenaHard(data=tmp_path)
    write(tmp_path / "question.jsonl", [{"uid": "new", "prompt": "a"}], lines=True)
    with pytest.raises(ValueError, match="no answer to question 'new'"):
        ArenaHard(data=tmp_path)
    write(tmp_path / "question.jsonl", [{"uid": "q0", "turns": ["a"]}], lines=True)
    with pytest.raises(ValueError, match="neither 'prompt' nor 'turns'"):
        ArenaHard(data=tmp_path)
    write(tmp_path / "model_answer" / "base.jsonl", [{"uid": "q0", "choices": []}], lines=True)
    with pytest.raises(ValueError, match="answer to 'q0' has neither"):
        ArenaHard(data=tmp_path)


@needs_shared
@pytest.mark.parametrize(
    ("version", "model", "n", "categories"),
    [
        ("v0.1", "gpt-4-0314", 500, set()),
        ("v2.0", "o3-mini-2025-01-31", 750, {"hard_prompt", "creative_writing"}),
    ],
)
def test_the_official_sets_are_read_and_the_baseline_against_itself_is_at_fifty(
    tmp_path, version, model, n, categories
):
    (tmp_path / "panel.yaml").write_text(PANEL)
    board = ArenaHard(data=SHARED / "arena_hard" / version, baseline_model=model)
    requests = all_questions(board, [], 0.7)
    assert len(requests) == n
    assert len(board.requests([], 0.7, "curve")) == 256
    same = answered(requests, [question.answer for question in board._questions])
    verdicts = board.grade(requests, same, None, PanelJudge(tmp_path / "panel.yaml"))
    scores = scored(board, verdicts)
    assert {category for _, category in scores} - {""} == categories
    assert {score.value for score in scores.values()} == {50}
    assert sum(score.n for (metric, category), score in scores.items() if metric == "win_rate" and not category) == n


@needs_shared
def test_another_published_model_plays_the_published_baseline(tmp_path):
    """Against the panel's exact preferences, weights and all, computed here anew."""
    (tmp_path / "panel.yaml").write_text(PANEL)
    judge, folder = PanelJudge(tmp_path / "panel.yaml"), tmp_path / "set"
    shutil.copytree(SHARED / "arena_hard" / "v0.1", folder)
    board = ArenaHard(data=folder, baseline_model="gpt-4-0314", limit=40)
    other = ArenaHard(data=folder, baseline_model="gpt-3.5-turbo-0125", limit=40)
    requests = all_questions(board, [], 0.7)
    texts = [question.answer for question in other._questions[:40]]
    verdicts = board.grade(requests, answered(requests, texts), None, judge)
    points, weights = 0.0, 0
    for p in judge.compare([r.prompt for r in requests], texts, [q.answer for q in board._questions[:40]]):
        distance = abs(p - 0.5)
        weight = 3 if distance >= 0.375 else 1
        points += 2 * weight * (0.5 if distance < 0.125 else float(p > 0.5))
        weights += 2 * weight
    assert scored(board, verdicts)["win_rate", ""].value == pytest.approx(100 * points / weights)
