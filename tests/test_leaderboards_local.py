"""Head-to-head and duality gap: the two leaderboards that need nobody's data."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from boards_world import all_questions

from judges.judge import Judge, Question
from judges.verdicts import Answer
from leaderboards import DualityGap, HeadToHead
from leaderboards.boards.duality_gap import log_spaced

HELDOUT = [(f"q{i}", f"prompt {i}") for i in range(6)]


@dataclass(eq=False)
class Table(Judge):
    """Answers by the text placed first; `nan` fails."""

    table: dict[str, float] = field(default_factory=dict)

    def answer(self, questions: Sequence[Question], advance: Callable[[int], None]) -> list[Answer]:
        advance(len(questions))
        values = [self.table.get(question.first, 0.5) for question in questions]
        return [Answer.failure("timeout") if np.isnan(value) else Answer(value) for value in values]


def graded(table: dict[str, float]) -> list[dict[str, object]]:
    board = HeadToHead()
    requests = all_questions(board, HELDOUT, 1.0)
    answers, baseline = ({r.id: [f"{who} {r.id}"] for r in requests} for who in ("new", "old"))
    return board.grade(requests, answers, baseline, Table(table))


def test_both_orders_are_asked_and_a_judge_that_always_likes_the_first_calls_it_even() -> None:
    always_first = {f"{who} q{i}": 0.9 for who in ("new", "old") for i in range(6)}
    assert [v.preference for v in graded(always_first)] == pytest.approx([0.5] * 6)


def test_the_preference_is_the_mean_of_both_orders_read_for_the_policy() -> None:
    verdict = graded({"new q0": 0.8, "old q0": 0.4})[0]
    assert verdict.preference == pytest.approx((0.8 + (1 - 0.4)) / 2)
    assert (verdict.response, verdict.baseline_response, verdict.status) == ("new q0", "old q0", "ok")


def test_a_failed_verdict_is_none_with_its_reason_and_lowers_the_coverage_only() -> None:
    failing = {"new q0": np.nan, "old q0": np.nan, "new q1": 1.0, "old q1": 0.0}
    verdicts = graded(failing)
    assert (verdicts[0].preference, verdicts[0].status) == (None, "timeout")
    score = {s.metric: s for s in HeadToHead().rate(verdicts, seed=0)}["win_rate"]
    assert (score.n, score.coverage) == (5, pytest.approx(5 / 6))
    assert score.value == pytest.approx((1.0 + 4 * 0.5) / 5)
    assert HeadToHead().by_prompt(verdicts)["win_rate"]["q0"] is None


def test_when_every_verdict_fails_the_win_rate_is_nan_and_nothing_else() -> None:
    verdicts = graded({f"{who} q{i}": np.nan for who in ("new", "old") for i in range(6)})
    score = {s.metric: s for s in HeadToHead().rate(verdicts, seed=0)}["win_rate"]
    assert np.isnan([score.value, score.ci_low, score.ci_high]).all()
    assert (score.n, score.coverage) == (0, 0)


def test_average_length_is_in_characters_of_the_policys_answers() -> None:
    score = {s.metric: s for s in HeadToHead().rate(graded({}), seed=0)}["average_length"]
    assert score.value == len("new q0")


def test_limits_take_the_first_prompts_and_the_curves_limit_holds_before_the_last_iteration() -> None:
    board = HeadToHead(limit=4, curve_limit=2)
    assert [r.id for r in all_questions(board, HELDOUT, 0.7)] == ["q0", "q1", "q2", "q3"]
    early = board.requests(HELDOUT, 0.7, "curve")
    assert [(r.id, r.temperature) for r in early] == [("q0", 0.7), ("q1", 0.7)]
    assert HeadToHead(curve_limit=0).requests(HELDOUT, 0.7, "curve") == []
    for wrong in ({"limit": 1}, {"limit": 0}, {"curve_limit": 1}):
        with pytest.raises(ValueError, match="at least 2 prompts"):
            HeadToHead(**wrong)


def brute_gap(preference: np.ndarray, policy: np.ndarray) -> float:
    """max over pure deviations of the row player minus min over those of the column player."""
    rows = [sum(preference[i, j] * policy[j] for j in range(len(policy))) for i in range(len(policy))]
    columns = [sum(policy[i] * preference[i, j] for i in range(len(policy))) for j in range(len(policy))]
    return max(rows) - min(columns)


def test_the_duality_gap_of_last_and_average_policy_equals_enumeration_of_pure_deviations() -> None:
    generator = np.random.default_rng(0)
    upper = np.triu(generator.uniform(-0.5, 0.5, (4, 4)), 1)
    preference, path = 0.5 + upper - upper.T, generator.dirichlet(np.ones(4), size=9)
    rated = {(t, s.metric): s.value for t, s in DualityGap().rate(preference, path)}
    for t in (0, 1, 8):
        assert rated[t, "duality_gap"] == pytest.approx(brute_gap(preference, path[t]))
        assert rated[t, "average_duality_gap"] == pytest.approx(brute_gap(preference, path[: t + 1].mean(0)))
        assert rated[t, "entropy"] == pytest.approx(-(path[t] * np.log(path[t])).sum())


def test_a_pure_policy_has_entropy_zero_and_nash_has_gap_zero() -> None:
    rock_paper_scissors = [[0.5, 0.0, 1.0], [1.0, 0.5, 0.0], [0.0, 1.0, 0.5]]
    path = [[1 / 3, 1 / 3, 1 / 3], [1.0, 0.0, 0.0]]
    rated = {(t, s.metric): s.value for t, s in DualityGap().rate(rock_paper_scissors, path)}
    assert rated[0, "duality_gap"] == pytest.approx(0)
    assert (rated[1, "duality_gap"], rated[1, "entropy"]) == (1, 0)


@pytest.mark.parametrize("last", [0, 1, 2, 7, 10, 100, 4096])
def test_shown_iterations_start_at_0_end_at_the_last_and_thin_out_evenly_in_the_logarithm(last: int) -> None:
    shown = log_spaced(last)
    assert shown == sorted(set(shown))
    assert (shown[0], shown[-1]) == (0, last)
    assert len(shown) <= 2 + 12 * max(1.0, np.log10(max(last, 1)))
    assert all(b <= 2 * a for a, b in itertools.pairwise(shown[1:]))
