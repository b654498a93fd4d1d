"""Corners of the exact figures and of the statistics: invariances and closed forms."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leaderboards.boards.duality_gap import DualityGap, log_spaced
from leaderboards.statistics.corrections import holm
from leaderboards.statistics.intervals import algorithm_estimate, mean_estimate
from leaderboards.statistics.means import t_quantile
from leaderboards.statistics.paired import compare_algorithms, compare_checkpoints

SHORT = settings(max_examples=30, deadline=None)
SCORES = np.array([0.1, 0.9, 0.4, 0.6, 0.3, 0.8, 0.2])

# --- the duality gap ---------------------------------------------------------------------------------------------


@given(st.integers(0, 50_000), st.integers(1, 30))
@SHORT
def test_shown_iterations_are_sorted_distinct_whole_and_end_at_the_last(last: int, density: int) -> None:
    shown = log_spaced(last, density)
    assert all(isinstance(t, int) for t in shown)
    assert all(a < b for a, b in itertools.pairwise(shown))
    assert (shown[0], shown[-1]) == (0, last)
    assert last == 0 or shown[1] == 1
    assert len(shown) <= 2 + max(2, density * math.log10(max(last, 10)))


@pytest.mark.parametrize("actions", [2, 3, 10])
def test_the_entropy_of_a_uniform_policy_is_the_logarithm_of_its_actions(actions: int) -> None:
    path = [np.full(actions, 1 / actions), np.eye(actions)[0], np.repeat([0.5, 0.0], [2, actions - 2])]
    rated = {(t, s.metric): s for t, s in DualityGap().rate(np.full((actions, actions), 0.5), path)}
    entropies = [rated[t, "entropy"].value for t in range(3)]
    assert entropies == pytest.approx([math.log(actions), 0.0, math.log(2)])
    assert all(score.value == pytest.approx(0) for (_, metric), score in rated.items() if metric != "entropy")
    assert all(score.n == 1 for score in rated.values())


def test_a_cycle_through_the_pure_actions_averages_to_nash() -> None:
    path = np.eye(3)[[0, 1, 2] * 2]
    rated = {(t, s.metric): s.value for t, s in DualityGap().rate([[0.5, 0, 1], [1, 0.5, 0], [0, 1, 0.5]], path)}
    assert rated[0, "average_duality_gap"] == rated[0, "duality_gap"] == 1
    assert rated[2, "average_duality_gap"] == rated[5, "average_duality_gap"] == pytest.approx(0)
    assert rated[1, "average_duality_gap"] == pytest.approx(0.5)  # action 2 meets (1/2, 1/2): 0 and 1; action 1: 3/4
    assert {value for (_, metric), value in rated.items() if metric == "duality_gap"} == {1.0}


# --- means over prompts --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bounds", [None, (0.0, 1.0)])
@pytest.mark.parametrize(("factor", "shift"), [(1.0, 3.0), (100.0, 0.0), (2.0, -7.0)])
def test_moving_and_stretching_the_scores_moves_and_stretches_the_interval(
    factor: float, shift: float, bounds: tuple[float, float] | None
) -> None:
    stretched = bounds and (factor * bounds[0] + shift, factor * bounds[1] + shift)
    for scores in (SCORES, np.resize(SCORES, 60)):
        plain, moved = mean_estimate(scores, bounds=bounds), mean_estimate(factor * scores + shift, bounds=stretched)
        for end in ("value", "ci_low", "ci_high"):
            assert getattr(moved, end) == pytest.approx(factor * getattr(plain, end) + shift)


@pytest.mark.parametrize("bounds", [None, (0.0, 1.0)])
@pytest.mark.parametrize("n", [7, 60])
def test_a_higher_level_has_a_wider_interval(n: int, bounds: tuple[float, float] | None) -> None:
    scores = np.resize(SCORES, n)
    made = [mean_estimate(scores, bounds=bounds, level=level) for level in (0.5, 0.8, 0.95, 0.999)]
    widths = [e.ci_high - e.ci_low for e in made]
    assert widths == sorted(widths)
    assert widths[0] > 0


def test_a_prompt_without_weight_has_given_no_verdict() -> None:
    weighed = mean_estimate([*SCORES, 55.0], [1.0] * len(SCORES) + [0.0], bounds=(0, 1))
    plain = mean_estimate(SCORES, bounds=(0, 1))
    assert (weighed.value, weighed.ci_low, weighed.n) == (plain.value, plain.ci_low, plain.n)
    assert weighed.coverage == pytest.approx(7 / 8)


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(1, 9)), min_size=1, max_size=12))
@SHORT
def test_the_weighted_mean_is_that_of_repeated_scores_and_within_its_interval(scored: list[tuple[float, int]]) -> None:
    values, weights = zip(*scored, strict=True)
    estimate = mean_estimate(values, weights, bounds=(0, 1))
    assert estimate.value == pytest.approx(np.mean(np.repeat(values, weights)), abs=1e-12)
    assert estimate.n == len(values)
    assert 0 <= estimate.ci_low <= estimate.value + 1e-9
    assert estimate.value - 1e-9 <= estimate.ci_high <= 1


# --- paired tests ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bounds", [None, (0.0, 1.0)])
def test_exchanging_checkpoints_mirrors_the_difference_and_keeps_the_p_value(
    bounds: tuple[float, float] | None,
) -> None:
    one = compare_checkpoints(SCORES, SCORES**2, bounds=bounds)
    other = compare_checkpoints(SCORES**2, SCORES, bounds=bounds)
    assert other.difference.value == pytest.approx(-one.difference.value)
    assert [other.difference.ci_low, other.difference.ci_high] == pytest.approx(
        [-one.difference.ci_high, -one.difference.ci_low]
    )
    assert (other.p_value, other.claim) == (pytest.approx(one.p_value), "checkpoint")


def test_failed_verdicts_are_no_differences() -> None:
    assert math.isnan(compare_checkpoints([], []).p_value)
    assert math.isnan(compare_checkpoints([math.nan, 1.0], [0.5, math.nan], bounds=(0, 1)).p_value)
    holed = compare_checkpoints([1.0, math.nan, 0.5], [0.0, 0.2, 0.1], bounds=(0, 1))
    assert holed.p_value == compare_checkpoints([1.0, 0.5], [0.0, 0.1], bounds=(0, 1)).p_value


# --- many tests --------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 1), min_size=1, max_size=10))
@SHORT
def test_holm_rejects_what_its_step_down_procedure_rejects(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    for level in (0.0123, 0.05, 0.31):
        rejected: set[int] = set()
        for step, test in enumerate(order):
            if p_values[test] * (len(p_values) - step) > level:
                break
            rejected.add(test)
        assert {i for i, p in enumerate(adjusted) if p <= level} == rejected
    assert all(
        p <= a <= min(1.0, len(p_values) * max(p_values)) + 1e-12 for p, a in zip(p_values, adjusted, strict=True)
    )


def test_one_test_needs_no_correction_and_none_gives_none() -> None:
    assert holm([0.03]).tolist() == [0.03]
    assert holm([]).tolist() == []
    assert np.isnan(holm([math.nan, math.nan])).all()


# --- algorithms --------------------------------------------------------------------------------------------------


def test_the_algorithm_interval_is_that_of_the_variance_components_by_hand() -> None:
    """Two seeds, three prompts; effects of seed and prompt add up, so there is no residual."""
    table = np.add.outer([0.0, 0.2], [0.1, 0.4, 0.7])
    estimate = algorithm_estimate(table)
    seeds, prompts = np.var([0.4, 0.6], ddof=1) / 2, np.var([0.2, 0.5, 0.8], ddof=1) / 3
    half = math.sqrt(seeds * t_quantile(0.025, 1) ** 2 + prompts * t_quantile(0.025, 2) ** 2)
    assert (estimate.value, estimate.n, estimate.coverage) == (pytest.approx(0.5), 3, 1.0)
    assert (estimate.ci_low, estimate.ci_high) == (pytest.approx(0.5 - half), pytest.approx(0.5 + half))


def test_the_order_of_seeds_and_prompts_does_not_matter() -> None:
    table = np.random.default_rng(0).random((4, 9))
    shuffled = table[[2, 0, 3, 1]][:, ::-1]
    assert algorithm_estimate(shuffled).ci_low == pytest.approx(algorithm_estimate(table).ci_low)
    one, other = compare_algorithms(table, table[:, ::-1] / 2), compare_algorithms(table[:, ::-1] / 2, table)
    assert one.p_value == pytest.approx(other.p_value)
    assert one.difference.ci_low == pytest.approx(-other.difference.ci_high)
    assert one.claim == "algorithm"


def test_where_every_prompt_failed_somewhere_nothing_is_claimed() -> None:
    estimate = algorithm_estimate([[0.1, math.nan], [math.nan, 0.3]])
    assert np.isnan([estimate.value, estimate.ci_low, estimate.ci_high]).all()
    assert (estimate.n, estimate.coverage) == (0, 0.0)
    single = compare_algorithms([[0.1, math.nan], [0.2, 0.3]], [[0.0, 0.1], [0.0, 0.1]])
    assert single.difference.value == pytest.approx(0.15)
    assert math.isnan(single.p_value)
