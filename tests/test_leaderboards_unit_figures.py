"""Corners of the exact figures and of the statistics: invariances and closed forms."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leaderboards.boards.duality_gap import DualityGap, log_spaced
from leaderboards.statistics.corrections import holm
from leaderboards.statistics.intervals import algorithm_estimate, prompt_bootstrap
from leaderboards.statistics.paired import compare_algorithms, compare_checkpoints, sign_flip_test
from leaderboards.statistics.t_distribution import normal_tail, t_quantile, t_tail

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


# --- the t distribution ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("t", [0.0, 0.2, 1.0, 2.5, 9.0])
def test_t_tail_is_the_closed_form_for_three_and_four_degrees_of_freedom(t: float) -> None:
    root = t / math.sqrt(3)
    assert t_tail(t, 3) == pytest.approx(0.5 - (root / (1 + root**2) + math.atan(root)) / math.pi, abs=1e-12)
    part = 1 + t * t / 4
    assert t_tail(t, 4) == pytest.approx(0.5 - 3 / 8 * t / math.sqrt(part) * (1 - t * t / (12 * part)), abs=1e-12)


@given(st.floats(1e-4, 0.5), st.integers(1, 200))
@SHORT
def test_a_quantile_has_its_tail(tail: float, df: int) -> None:
    assert t_tail(t_quantile(tail, df), df) == pytest.approx(tail, abs=1e-9)
    assert t_quantile(tail, df) >= t_quantile(tail, df + 1) - 1e-9  # more degrees of freedom, thinner tails


def test_normal_tails_mirror_and_meet_the_printed_quantiles() -> None:
    for z, tail in ((0.0, 0.5), (1.2815516, 0.1), (1.9599640, 0.025), (3.0902323, 0.001)):
        assert normal_tail(z) == pytest.approx(tail, abs=1e-8)
        assert normal_tail(z) + normal_tail(-z) == pytest.approx(1)


# --- the bootstrap -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("factor", "shift"), [(1.0, 3.0), (100.0, 0.0), (2.0, -7.0)])
def test_moving_and_stretching_the_scores_moves_and_stretches_the_interval(factor: float, shift: float) -> None:
    plain, moved = prompt_bootstrap(SCORES), prompt_bootstrap(factor * SCORES + shift)
    for end in ("value", "ci_low", "ci_high"):
        assert getattr(moved, end) == pytest.approx(factor * getattr(plain, end) + shift)


def test_equal_scores_have_an_interval_of_no_width_and_a_higher_level_a_wider_one() -> None:
    same = prompt_bootstrap([0.25] * 6)
    assert (same.value, same.ci_low, same.ci_high) == (0.25, 0.25, 0.25)
    widths = [e.ci_high - e.ci_low for e in (prompt_bootstrap(SCORES, level=level) for level in (0.5, 0.8, 0.95))]
    assert widths == sorted(widths)
    assert widths[0] > 0


def test_a_prompt_without_weight_has_given_no_verdict() -> None:
    weighed = prompt_bootstrap([*SCORES, 55.0], [1.0] * len(SCORES) + [0.0])
    plain = prompt_bootstrap(SCORES)
    assert (weighed.value, weighed.ci_low, weighed.n) == (plain.value, plain.ci_low, plain.n)
    assert weighed.coverage == pytest.approx(7 / 8)


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(1, 9)), min_size=1, max_size=12))
@SHORT
def test_the_weighted_mean_is_that_of_repeated_scores(scored: list[tuple[float, int]]) -> None:
    values, weights = zip(*scored, strict=True)
    estimate = prompt_bootstrap(values, weights, rounds=100)
    assert estimate.value == pytest.approx(np.mean(np.repeat(values, weights)), abs=1e-12)
    assert estimate.n == len(values)


# --- paired tests ------------------------------------------------------------------------------------------------


def test_exchanging_checkpoints_mirrors_the_difference_and_keeps_the_p_value() -> None:
    one, other = compare_checkpoints(SCORES, SCORES**2), compare_checkpoints(SCORES**2, SCORES)
    assert other.difference.value == -one.difference.value == -(SCORES - SCORES**2).mean()
    assert (one.p_value, one.claim) == (other.p_value, "checkpoint")
    assert one.p_value == 2 / 2**7  # every difference is positive: the observed signs and their mirror image


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=8), st.sampled_from([0.001, 3.0, 1e6]))
@SHORT
def test_a_sign_flip_p_value_counts_all_flips_and_knows_no_scale(differences: list[int], scale: float) -> None:
    sums = [abs(sum(s * d for s, d in zip(signs, differences, strict=True))) for signs in _signs(len(differences))]
    expected = np.mean([total >= abs(sum(differences)) for total in sums])
    assert sign_flip_test(np.array(differences) * scale) == pytest.approx(expected)
    assert sign_flip_test(-np.array(differences)) == pytest.approx(expected)


def _signs(n: int) -> Any:
    return itertools.product((1, -1), repeat=n)


def test_failed_verdicts_are_no_differences() -> None:
    assert math.isnan(sign_flip_test([]))
    assert math.isnan(sign_flip_test([math.nan, math.nan]))
    assert sign_flip_test([1.0, math.nan, 2.0, 3.0]) == sign_flip_test([1.0, 2.0, 3.0]) == 0.25


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
