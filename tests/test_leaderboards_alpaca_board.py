"""AlpacaEval as a board: official files in, one verdict an instruction in upstream's own order, scores by hand."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from boards_world import HOSTILE, Rule, all_questions, alpaca, answered, by_worth, reread
from conftest import PANEL
from leaderboards_published import SHARED, length_files, needs_shared, write

from judges import PanelJudge
from leaderboards import AlpacaEval
from leaderboards.boards.alpaca_eval import model_first, rate_alpaca_eval

BEFORE = [f"old {p}" for p in (0.5, 0.5, 0.5, 0.5)]
AFTER = ["new 0.9", "new 0.5", "new 0.1", "new nan"]


def graded(board, judge, texts):
    requests = all_questions(board, [], 0.7)
    return board.grade(requests, answered(requests, texts), None, judge)


def scored(board, verdicts):
    return {score.metric: score for score in board.rate(verdicts, seed=0)}


def test_requests_are_the_instructions_in_the_files_order_under_their_row_numbers(tmp_path):
    board = AlpacaEval(data=alpaca(tmp_path, BEFORE), limit=3, curve_limit=2)
    assert [(r.id, r.prompt, r.temperature, r.turn) for r in all_questions(board, [("x", "held out")], 0.7)] == [
        (str(i), f"question {i}", 0.7, 1) for i in range(3)
    ]
    assert [r.id for r in board.requests([], 0.7, "curve")] == ["0", "1"]


@pytest.mark.parametrize("orders", ["one", "both"])
def test_scores_by_hand(tmp_path, orders):
    """P(new beats old) is .7, .5, .3 and a failure: mean 50, one win, one tie, one loss."""
    board, judge = AlpacaEval(data=alpaca(tmp_path, BEFORE), orders=orders), Rule(by_worth)
    verdicts = graded(board, judge, AFTER)
    assert [v.preference for v in verdicts[:3]] == pytest.approx([0.7, 0.5, 0.3])
    assert (verdicts[3].preference, verdicts[3].status) == (None, "timeout")
    assert [v.category for v in verdicts] == ["even", "odd", "even", "odd"]
    assert [v.baseline_response for v in verdicts] == BEFORE
    scores = scored(board, verdicts)
    assert list(scores) == ["win_rate", "discrete_win_rate", "average_length", "n_wins", "n_draws"]
    assert [(scores[name].value, scores[name].n, scores[name].coverage) for name in ("n_wins", "n_draws")] == [
        (1.0, 3, 0.75),
        (1.0, 3, 0.75),
    ]
    assert scores["win_rate"].value == pytest.approx(50)
    assert scores["discrete_win_rate"].value == pytest.approx(50)
    assert (scores["win_rate"].n, scores["win_rate"].coverage) == (3, 0.75)
    assert scores["average_length"].value == 7
    assert board.by_prompt(verdicts)["win_rate"] == pytest.approx({"0": 70, "1": 50, "2": 30, "3": None})
    assert len(judge.asked) == (4 if orders == "one" else 8)


def test_a_judge_that_always_likes_the_first_is_even_in_both_orders_and_follows_the_draw_in_one(tmp_path):
    outputs = [f"old {i}" for i in range(40)]
    texts, first = [f"new {i}" for i in range(40)], Rule(lambda a, b: 1.0)
    data = alpaca(tmp_path, outputs)
    both = graded(AlpacaEval(data=data, orders="both"), first, texts)
    assert [v.preference for v in both] == [0.5] * 40
    one = graded(AlpacaEval(data=data), first, texts)
    assert [v.preference for v in one] == [float(model_first(f"question {i}")) for i in range(40)]
    assert 0 < sum(v.preference for v in one) < 40


def test_the_order_is_the_one_that_alpaca_eval_draws():
    import pandas as pd
    from alpaca_eval import processors

    asked = [f"say {i} things" for i in range(50)]
    drawn = processors.RandomSwitchTwoColumnsProcessor(
        ["output_1", "output_2"], random_seed_columns=("instruction",), _switch_column="is_switched_outputs", seed=0
    ).preprocess(pd.DataFrame({"instruction": asked, "output_1": "baseline", "output_2": "model"}))
    assert [model_first(text) for text in asked] == [text == "model" for text in drawn["output_1"]]


def test_a_missing_answer_is_a_failure_and_an_empty_one_a_loss_and_no_judge_is_asked_about_either(tmp_path):
    board, judge = AlpacaEval(data=alpaca(tmp_path, BEFORE)), Rule(by_worth)
    verdicts = board.grade(all_questions(board, [], 1.0), {"0": ["new 0.9"], "1": [" \n"], "2": []}, None, judge)
    assert [v.status for v in verdicts] == ["ok", "ok", "no-answer", "no-answer"]
    assert [v.preference for v in verdicts] == [pytest.approx(0.7), 0, None, None]
    assert len(judge.asked) == 1
    scores = scored(board, verdicts)
    assert (scores["win_rate"].n, scores["win_rate"].coverage) == (2, 0.5)
    assert (scores["average_length"].value, scores["average_length"].n) == (3.5, 2)


def test_hostile_answers_stay_as_they_are_and_items_survive_the_disk(tmp_path):
    board = AlpacaEval(data=alpaca(tmp_path, BEFORE))
    verdicts = graded(board, Rule(lambda a, b: 0.25), [HOSTILE] * 4)
    assert {v.response for v in verdicts} == {HOSTILE}
    assert reread(verdicts, tmp_path) == verdicts


def test_the_length_controlled_rate_is_that_of_the_annotation_file_and_leads(tmp_path):
    generator = np.random.default_rng(5)
    length_files(tmp_path / "set" / "lc", 60)
    board = AlpacaEval(data=alpaca(tmp_path / "set", ["b" * int(n) for n in generator.integers(20, 90, 60)]).parents[1])
    liked = Rule(lambda a, b: 0.5 + (len(a) - len(b)) / 200)
    verdicts = graded(board, liked, ["m" * int(n) for n in generator.integers(20, 90, 60)])
    rows = [
        {"output_1": v.baseline_response, "output_2": v.response, "generator_1": "b", "generator_2": "m"}
        | {"preference": 1 + v.preference}
        for v in verdicts
    ]
    told = rate_alpaca_eval(write(tmp_path / "annotations.json", rows), tmp_path / "set")
    scores = board.rate(verdicts, seed=0)
    assert scores[0].metric == "length_controlled_winrate"
    assert scores[0].value == pytest.approx(told["length_controlled_winrate"], abs=1e-9)
    assert [scores[0].ci_low, scores[0].ci_high] == pytest.approx(told["intervals"]["length_controlled_winrate"])
    assert "length_controlled_winrate" not in scored(board, verdicts[:50])
    values = board.by_prompt(verdicts)["length_controlled_winrate"]
    assert values.keys() == {v.id for v in verdicts}
    assert np.mean(list(values.values())) == pytest.approx(scores[0].value)
    assert "length_controlled_winrate" not in board.by_prompt(verdicts[:50])


def test_without_enough_verdicts_there_is_no_length_controlled_number(tmp_path):
    length_files(tmp_path / "set" / "lc", 6)
    board = AlpacaEval(data=alpaca(tmp_path / "set", ["b"] * 6).parents[1])
    verdicts = graded(board, Rule(lambda a, b: float("nan")), ["m"] * 6)
    score = board.rate(verdicts, seed=0)[0]
    assert (score.metric, score.n, score.coverage) == ("length_controlled_winrate", 0, 0)
    assert np.isnan(score.value)
    assert set(board.by_prompt(verdicts)["length_controlled_winrate"].values()) == {None}


def test_a_folder_needs_exactly_one_set_of_outputs_and_bad_files_are_one_clear_message(tmp_path):
    with pytest.raises(ValueError, match="alpaca-eval needs the option data"):
        AlpacaEval()
    with pytest.raises(ValueError, match="is not there"):
        AlpacaEval(data=tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"holds no \*model_outputs\.json"):
        AlpacaEval(data=tmp_path / "empty")
    path = alpaca(tmp_path / "set", BEFORE, packed=True)
    assert len(all_questions(AlpacaEval(data=tmp_path / "set"), [], 1.0)) == 4
    with pytest.raises(ValueError, match="orders is 'three'"):
        AlpacaEval(data=path, orders="three")
    with pytest.raises(ValueError, match="limit is 1"):
        AlpacaEval(data=path, limit=1)
    shutil.copy(path, tmp_path / "set" / "other.model_outputs.json.gz")
    with pytest.raises(ValueError, match=r"2 files for \*model_outputs\.json"):
        AlpacaEval(data=tmp_path / "set")
    with pytest.raises(ValueError, match=r"bad.json: record 0 has no 'instruction'"):
        AlpacaEval(data=write(tmp_path / "bad.json", [{"output": "x"}]))


def test_length_files_of_another_set_are_told_before_anything_runs(tmp_path):
    length_files(tmp_path / "set" / "lc", 5)
    alpaca(tmp_path / "set", BEFORE)
    with pytest.raises(ValueError, match=r"4 outputs but instruction_difficulty\.csv is of 5"):
        AlpacaEval(data=tmp_path / "set")
    next((tmp_path / "set").rglob("df_gamed.csv")).unlink()
    with pytest.raises(ValueError, match=r"no df_gamed\*\.csv"):
        AlpacaEval(data=tmp_path / "set")


@needs_shared
def test_the_official_set_is_read_and_graded_by_a_panel(tmp_path):
    """The published outputs of a model, as a policy's answers, under a panel: 805 rows and every official figure."""
    source = SHARED / "alpacaeval"
    for file in (*source.glob("baseline/*"), *source.glob("lc/*")):
        shutil.copy(file, tmp_path)
    (tmp_path / "panel.yaml").write_text(PANEL)
    board = AlpacaEval(data=tmp_path)
    requests = all_questions(board, [], 0.7)
    model = AlpacaEval(data=source / "results" / "gemma-7b-it" / "model_outputs.json.gz")
    answers = answered(requests, [output["output"] for output in model._outputs])
    verdicts = board.grade(requests, answers, None, PanelJudge(tmp_path / "panel.yaml"))
    scores = scored(board, verdicts)
    assert scores.keys() == board.metrics.keys()
    assert {score.n for name, score in scores.items() if name != "average_length"} == {805}
    assert int(scores["average_length"].value) == 1115  # as the published table has it
    counts = {"n_wins", "n_draws", "lc_standard_error"}  # have no interval
    assert all(score.ci_low < score.value < score.ci_high for name, score in scores.items() if name not in counts)
