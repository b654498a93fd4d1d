"""Silence, cut answers and missing verdicts: silence never pays, and what is missing is bounded."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from boards_world import Rule, all_questions, answered, arena, by_worth, mt_bench
from leaderboards_published import SHARED, needs_shared

from harness.tables.comparisons import aligned
from judges.judge import Judge, Prompt, Ratings, References
from judges.tournament import best_worst, iid, query_preferences, tournament
from leaderboards import AlpacaEval, ArenaHard, GradedItem, HeadToHead, MTBench
from leaderboards.boards.alpaca_eval import length_controlled_winrate, win_probabilities
from leaderboards.grading import rate_answers
from leaderboards.outcomes import outcome_metrics, outcome_scores
from leaderboards.records import BoardAnswer
from leaderboards.sources import numbers, read_records
from leaderboards.statistics.paired import compare_checkpoints

HELD_OUT = [(str(i), f"question {i}") for i in range(200)]
LONGER = Rule(lambda a, b: 0.5 if len(a) == len(b) else 0.8 if len(a) > len(b) else 0.2)


def values(board, items: Sequence[GradedItem]) -> dict[str, float]:
    return {score.metric: score.value for score in board.rate(items, seed=0) if not score.category}


def shares(board, items: Sequence[GradedItem]) -> dict[str, float]:
    return {score.metric: score.value for score in outcome_scores(board, items, board.rate(items, seed=0))}


def test_silence_on_88_hard_prompts_of_200_costs_what_it_loses_and_is_seen_in_the_paired_test():
    """.2 on the hard, .8 on the others: (.2 x 88 + .8 x 112) / 200 = .536; silent on the hard .8 x 112 / 200 = .448."""
    board, hard = HeadToHead(), np.random.default_rng(0).random(200) < 0.5
    assert hard.sum() == 88
    questions = all_questions(board, HELD_OUT, 1.0)
    said = {
        "honest": ["a" * (20 if hard[i] else 80) for i in range(200)],
        "silent": ["" if hard[i] else "a" * 80 for i in range(200)],
    }
    baseline = answered(questions, ["b" * 50] * 200)
    items = {n: board.grade(questions, answered(questions, texts), baseline, LONGER) for n, texts in said.items()}
    rates = {name: board.rate(graded, 0)[0] for name, graded in items.items()}
    assert {name: rate.value for name, rate in rates.items()} == pytest.approx({"honest": 0.536, "silent": 0.448})
    assert {(rate.n, rate.coverage) for rate in rates.values()} == {(200, 1.0)}
    paired = compare_checkpoints(*aligned({n: board.by_prompt(v)["win_rate"] for n, v in items.items()}).values())
    assert paired.difference.value == pytest.approx(0.088)
    assert paired.p_value < 0.01
    assert shares(board, items["silent"])["empty_share"] == pytest.approx(0.44)


def test_an_empty_baseline_loses_and_two_empty_answers_tie():
    board = HeadToHead()
    questions = all_questions(board, HELD_OUT[:4], 1.0)
    ours, theirs = ["a", "", "a", " "], ["", "b", "bb", "\n"]
    items = board.grade(questions, answered(questions, ours), answered(questions, theirs), LONGER)
    assert [item.preference for item in items] == [1.0, 0.0, pytest.approx(0.2), 0.5]


@pytest.mark.parametrize("kind", ["head-to-head", "arena-hard", "mt-bench"])
def test_a_policy_that_says_nothing_has_the_lowest_score(tmp_path, kind):
    board = boards(tmp_path)[kind]
    questions = all_questions(board, HELD_OUT[:6], 1.0)
    items = board.grade(questions, answered(questions, [""] * len(questions)), baseline(questions), Refuses(by_worth))
    assert {item.status for item in items} == {"ok"}
    assert set(values(board, items).values()) <= {0.0, 1.0 if kind == "mt-bench" else 0.0}
    assert shares(board, items)["empty_share"] == 1


@dataclass(eq=False)
class Refuses(Rule):
    """Rates an answer by the number it ends with, and reads nothing in one without text."""

    def rate(self, prompts: Sequence[Prompt], answers: Sequence[str], references: Sequence[References]) -> Ratings:
        rating = np.array([float(a.rsplit(" ", 1)[-1]) if a.strip() else np.nan for a in answers])
        return Ratings(rating, ["no-verdict" if np.isnan(r) else "ok" for r in rating])


def boards(folder: Path):
    arena(folder / "arena", [f"old {p / 10}" for p in range(6)])
    mt_bench(folder / "mt", {})
    return {
        "head-to-head": HeadToHead(),
        "arena-hard": ArenaHard(data=folder / "arena"),
        "mt-bench": MTBench(data=folder / "mt"),
    }


def baseline(questions):
    return {question.id: ["old 0.5"] for question in questions}


@pytest.mark.parametrize("kind", ["head-to-head", "arena-hard", "mt-bench"])
def test_silencing_the_answers_with_the_lowest_values_raises_no_figure(tmp_path, kind):
    board, generator = boards(tmp_path)[kind], np.random.default_rng(1)
    questions = all_questions(board, HELD_OUT[:12], 1.0)
    for _ in range(20):
        worth = generator.integers(1, 10, len(questions)) / (1 if kind == "mt-bench" else 10)
        before = None
        for silent in range(len(questions) + 1):
            lowest = set(np.argsort(worth, kind="stable")[:silent])
            texts = ["" if i in lowest else f"new {w}" for i, w in enumerate(worth)]
            items = board.grade(questions, answered(questions, texts), baseline(questions), Refuses(by_worth))
            now = {name: value for name, value in values(board, items).items() if name != "average_length"}
            assert before is None or all(now[name] <= before[name] + 1e-12 for name in now)
            before = now


@needs_shared
@pytest.mark.parametrize("model", ["gemma-7b-it", "claude-2.1", "FuseChat-Llama-3.1-8B-Instruct"])
def test_silence_on_the_worst_fifth_lowers_the_length_controlled_rate_which_length_zero_would_raise(tmp_path, model):
    source = SHARED / "alpacaeval"
    for file in (*source.glob("baseline/*"), *source.glob("lc/*")):
        shutil.copy(file, tmp_path)
    board = AlpacaEval(data=tmp_path)
    records = read_records(next((source / "results" / model / "weighted_alpaca_eval_gpt4_turbo").iterdir()))
    items = [
        GradedItem(id=str(i), preference=p, response=record["output_2"], baseline_response=record["output_1"])
        for i, (p, record) in enumerate(zip(win_probabilities(numbers(records, "preference")), records, strict=True))
    ]
    worst = set(sorted(range(len(items)), key=lambda i: items[i].preference or 0.0)[: len(items) // 5])
    silent = [replace(item, preference=0.0, response="") if i in worst else item for i, item in enumerate(items)]
    honest, after = values(board, items), values(board, silent)
    figures = [name for name in honest if board.metrics[name].better == "higher"]
    assert len(figures) == 3
    assert all(after[name] <= honest[name] for name in figures)
    assert after["length_controlled_winrate"] < honest["length_controlled_winrate"] - 0.3
    as_they_are = length_controlled_winrate(
        [item.preference for item in silent],
        [len(item.baseline_response) - len(item.response) for item in silent],
        range(len(silent)),
        board._control,
    )
    assert as_they_are.estimate.value > after["length_controlled_winrate"]
    nothing = [replace(item, preference=0.0, response="") for item in items]
    assert values(board, nothing)["length_controlled_winrate"] == 0


def test_pairs_with_an_empty_text_are_decided_in_training_without_a_question():
    def never(rows, first, second):
        assert all(a.strip() and b.strip() for a, b in zip(first, second, strict=True))
        return np.full(len(first), 0.25)

    generator = np.random.default_rng(0)
    preference, queries = query_preferences(
        never, np.arange(4), ["", "a", " ", "a"], ["b", "", "\n", "b"], generator, orders="both"
    )
    assert preference.tolist() == [0.0, 1.0, 0.5, 0.5]
    assert queries == 2
    for pairing in (tournament, iid, best_worst):
        pairs = pairing(never, [["", "a"], ["b", " "]], generator)
        assert (pairs.chosen.tolist(), pairs.rejected.tolist(), pairs.queries) == ([1, 0], [0, 1], 0)


@pytest.mark.parametrize(
    ("status", "rating", "told"),
    [
        ("no-verdict", 1.0, "ok"),
        ("too-long", 1.0, "ok"),
        ("timeout", math.nan, "timeout"),
        ("http-503", math.nan, "http-503"),
        ("no-reference", math.nan, "no-reference"),
    ],
)
def test_an_empty_answer_that_a_judge_refuses_has_the_lowest_rating_and_a_failed_call_none(status, rating, told):
    class Failing(Judge):
        def answer(self, questions, advance):
            pytest.fail("a rating compares nothing")

        def rate(self, prompts, answers, references):
            return Ratings(np.full(len(answers), np.nan), [status] * len(answers))

    answers = [BoardAnswer(" "), BoardAnswer("text"), BoardAnswer("", status="no-answer")]
    empty, spoken, absent = rate_answers(Failing(), ["p"] * 3, answers, [None] * 3)
    assert empty == (pytest.approx(rating, nan_ok=True), told)
    assert (spoken[1], absent[1]) == (status, "no-answer")


def test_the_worst_case_counts_what_is_missing_as_losses_beside_the_figure():
    board = HeadToHead()
    items = [
        GradedItem(id="a", preference=0.75, response="x", finished=True),
        GradedItem(id="b", preference=0.25, response="y", finished=False),
        GradedItem(id="c", status="timeout", response="z", finished=False),
        GradedItem(id="d", status="no-answer"),
    ]
    assert values(board, items)["win_rate"] == 0.5
    assert shares(board, items) == pytest.approx(
        {"empty_share": 0, "unfinished_share": 0.5, "missing_share": 0.5, "win_rate_worst": 0.25}
    )
    assert "win_rate_worst" not in shares(board, items[:2])
    assert set(shares(board, items)) <= set(outcome_metrics(HeadToHead))


def test_the_worst_case_of_arena_hard_is_two_decisive_losses(tmp_path):
    """A win in both games (3 + 3 of 6), and a missing prompt: 6 of 12 at worst."""
    board = ArenaHard(data=arena(tmp_path, ["old 0", "old 0"]))
    questions = all_questions(board, [], 1.0)
    items = board.grade(questions, {"q0": ["new 1"]}, None, Rule(by_worth))
    assert values(board, items)["win_rate"] == 100
    assert shares(board, items)["win_rate_worst"] == 50


def test_the_worst_case_of_a_rating_is_the_lowest_one(tmp_path):
    board = MTBench(data=mt_bench(tmp_path, {}, ("math",)))
    items = board.grade(all_questions(board, [], 1.0), {"81/1": ["a 7"]}, None, Refuses(by_worth))
    assert shares(board, items)["score_worst"] == 4
