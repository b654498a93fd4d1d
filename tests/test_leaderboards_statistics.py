"""The statistics hold what they promise: coverage, size, family-wise error by simulation; the rest in closed form."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest

from leaderboards.statistics import intervals
from leaderboards.statistics.corrections import holm
from leaderboards.statistics.intervals import algorithm_estimate, prompt_bootstrap
from leaderboards.statistics.paired import compare_algorithms, compare_checkpoints, sign_flip_test
from leaderboards.statistics.t_distribution import normal_tail, t_quantile, t_tail


def covered(estimates, truth):
    return np.mean([e.ci_low <= truth <= e.ci_high for e in estimates])


def test_importing_statistics_brings_neither_pandas_nor_scipy():
    code = "import sys, leaderboards.statistics; sys.exit(bool({'pandas', 'scipy', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# The t distribution


def test_t_tail_is_the_closed_form_for_one_and_two_degrees_of_freedom():
    for t in (0.0, 0.3, 1.0, 4.0, 60.0):
        assert t_tail(t, 1) == pytest.approx(0.5 - np.arctan(t) / np.pi, abs=1e-12)
        assert t_tail(t, 2) == pytest.approx(0.5 - t / (2 * np.sqrt(2 + t * t)), abs=1e-12)


def test_t_quantile_meets_printed_tables_and_the_normal_in_the_limit():
    table = {1: 12.7062, 2: 4.3027, 4: 2.7764, 9: 2.2622, 30: 2.0423, 100: 1.9840}
    for df, expected in table.items():
        assert t_quantile(0.025, df) == pytest.approx(expected, abs=5e-5)
    assert normal_tail(t_quantile(0.025, 1e5)) == pytest.approx(0.025, abs=1e-5)


# The bootstrap over prompts


def test_failed_verdicts_are_left_out_and_lower_the_coverage():
    whole = prompt_bootstrap([1.0, 0.0, 1.0, 1.0])
    holed = prompt_bootstrap([1.0, np.nan, 0.0, 1.0, 1.0])
    assert (holed.value, holed.n, holed.coverage) == (whole.value, 4, 0.8)
    assert (holed.ci_low, holed.ci_high) == (whole.ci_low, whole.ci_high)


def test_weights_make_a_prompt_count_as_if_its_verdicts_were_pooled():
    values, weights = np.array([0.25, 1.0, 0.5]), np.array([4.0, 1.0, 2.0])
    pooled = [0, 0, 0, 1, 1, 0, 1]
    assert prompt_bootstrap(values, weights).value == pytest.approx(np.mean(pooled), abs=1e-15)


def test_bootstrap_interval_is_the_t_interval_where_the_normal_theory_holds():
    values = np.random.default_rng(1).normal(3.0, 2.0, 2000)
    e = prompt_bootstrap(values, rounds=20_000)
    half = 1.961 * values.std(ddof=1) / np.sqrt(len(values))
    assert [e.ci_low, e.ci_high] == pytest.approx([e.value - half, e.value + half], abs=0.03 * half)


def test_same_seed_gives_the_same_interval_whatever_the_memory_allowed(monkeypatch):
    values = np.random.default_rng(2).normal(size=300)
    first = prompt_bootstrap(values, seed=5)
    np.random.default_rng(0).normal(size=10)  # nobody else's generator matters
    monkeypatch.setattr(intervals, "CHUNK", 7000)
    assert prompt_bootstrap(values, seed=5) == first
    assert prompt_bootstrap(values, seed=6) != first


@pytest.mark.parametrize("values", [[], [np.nan, np.nan]])
def test_no_verdict_left_gives_nan_not_zero(values):
    e = prompt_bootstrap(values)
    assert np.isnan([e.value, e.ci_low, e.ci_high]).all()
    assert e.n == 0


def test_one_prompt_has_a_value_and_no_interval():
    e = prompt_bootstrap([0.7])
    assert e.value == 0.7
    assert np.isnan([e.ci_low, e.ci_high]).all()


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: prompt_bootstrap([[1.0, 2.0]]), "one number a prompt"),
        (lambda: prompt_bootstrap([1.0, 2.0], [1.0]), "same length"),
        (lambda: prompt_bootstrap([1.0, 2.0], [1.0, -1.0]), "not be negative"),
        (lambda: prompt_bootstrap([1.0, 2.0], level=95), "between 0 and 1"),
        (lambda: prompt_bootstrap([1.0, 2.0], rounds=10), "10 bootstrap rounds"),
        (lambda: compare_checkpoints([1.0, 2.0], [1.0]), "the same prompts"),
        (lambda: compare_algorithms(np.zeros((2, 3)), np.zeros((3, 3))), "a must be"),
        (lambda: algorithm_estimate(np.zeros((1, 9))), "at least 2 seeds"),
        (lambda: compare_algorithms(np.zeros((1, 9)), np.zeros(9)), "at least 2 seeds"),
    ],
)
def test_bad_input_is_told_in_one_sentence(call, told):
    with pytest.raises(ValueError, match=told):
        call()


@pytest.mark.parametrize(
    ("n", "draw", "truth"),
    [
        (10, lambda g, n: g.normal(7.0, 1.5, n), 7.0),  # a category of MT-Bench
        (60, lambda g, n: g.beta(0.5, 1.5, n), 0.25),  # graded preferences, skewed
        (200, lambda g, n: (g.random(n) < 0.3).astype(float), 0.3),  # wins and losses
    ],
)
def test_bootstrap_interval_covers_at_its_level(n, draw, truth):
    generator = np.random.default_rng(n)
    share = covered([prompt_bootstrap(draw(generator, n), seed=s, rounds=600) for s in range(1200)], truth)
    assert 0.93 <= share <= 0.97


def test_rows_resampled_instead_of_prompts_undercover():
    """Negative control: six verdicts a prompt treated as six prompts (Arena-Hard's published interval)."""
    generator = np.random.default_rng(3)
    rows, prompts = [], []
    for seed in range(400):
        verdicts = generator.normal(0, 1, (60, 1)) + generator.normal(0, 0.7, (60, 6))
        rows.append(prompt_bootstrap(verdicts.ravel(), seed=seed, rounds=400))
        prompts.append(prompt_bootstrap(verdicts.mean(1), np.full(60, 6.0), seed=seed, rounds=400))
    assert covered(rows, 0) < 0.75
    assert 0.92 <= covered(prompts, 0) <= 0.98


# The sign-flip test


def test_exact_test_equals_the_enumeration_by_hand():
    differences = np.array([0.3, -0.1, 0.5, 0.0, 0.2, np.nan])
    known = differences[~np.isnan(differences)]
    sums = [abs(np.dot(known, signs)) for signs in itertools.product([-1, 1], repeat=len(known))]
    assert sign_flip_test(differences) == np.mean(np.array(sums) >= abs(known.sum()) - 1e-12)


def test_all_wins_on_five_prompts_is_two_in_thirty_two():
    assert sign_flip_test([1, 1, 1, 1, 1]) == 2 / 32


def test_no_difference_at_all_is_no_evidence():
    assert sign_flip_test(np.zeros(40)) == 1.0
    assert np.isnan(sign_flip_test([np.nan]))


def test_random_flips_count_the_observed_one_so_no_p_value_is_zero():
    assert sign_flip_test(np.ones(200), rounds=999) == 1 / 1000


def test_random_flips_agree_with_the_exact_test():
    differences = np.random.default_rng(4).normal(0.4, 1, 12)
    exact = sign_flip_test(differences, rounds=4096)
    assert sign_flip_test(differences, rounds=4095) == pytest.approx(exact, abs=4 * np.sqrt(exact / 4095))


@pytest.mark.parametrize("n", [9, 80])
def test_sign_flip_test_rejects_a_true_null_at_its_level(n):
    generator = np.random.default_rng(n)
    p = np.array([sign_flip_test(generator.standard_t(3, n), seed=s, rounds=600) for s in range(2000)])
    for level in (0.05, 0.2):
        assert np.mean(p <= level) == pytest.approx(level, abs=4 * np.sqrt(level / 2000))


# Holm


def test_holm_by_hand_and_in_the_order_given():
    # sorted .01 .02 .03 .04 times 4 3 2 1 = .04 .06 .06 .04, made monotone
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.7]) == pytest.approx([1.0, 1.0])
    assert len(holm([])) == 0


def test_a_test_that_could_not_be_made_is_not_counted():
    adjusted = holm([0.02, np.nan, 0.03])
    assert adjusted[[0, 2]] == pytest.approx([0.04, 0.04])
    assert np.isnan(adjusted[1])


def test_holm_holds_the_family_wise_error_and_raw_p_values_do_not():
    generator = np.random.default_rng(6)
    p = generator.random((4000, 10))
    p[:, :4] *= 1e-4  # four effects are real; the other six nulls are true
    wrong = np.array([(holm(row)[4:] <= 0.05).any() for row in p])
    assert wrong.mean() <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 4000)
    assert (p[:, 4:] <= 0.05).any(axis=1).mean() > 0.2


# Claims


def layout(generator, seeds, prompts, seed_sd):
    """Differences [seeds, prompts] of mean 0: a seed effect, a prompt effect and their residual."""
    return (
        generator.normal(0, seed_sd, (seeds, 1))
        + generator.normal(0, 1, (1, prompts))
        + generator.normal(0, 0.7, (seeds, prompts))
    )


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("seed_sd", [0.0, 0.1, 0.5])
def test_algorithm_interval_covers_at_least_at_its_level_over_seeds_and_prompts(seeds, seed_sd):
    generator = np.random.default_rng(seeds)
    share = covered([algorithm_estimate(layout(generator, seeds, 120, seed_sd)) for _ in range(1000)], 0)
    assert 0.93 <= share <= 0.995  # between the two extremes of the variance components it is conservative


def test_algorithm_interval_is_nominal_where_seeds_decide():
    generator = np.random.default_rng(8)
    share = covered([algorithm_estimate(layout(generator, 3, 120, 1.0)) for _ in range(2000)], 0)
    assert 0.935 <= share <= 0.965


def test_checkpoint_interval_undercovers_the_algorithm_and_covers_its_checkpoint():
    """Negative control: one seed's interval is about its own weights only."""
    generator = np.random.default_rng(9)
    algorithm, checkpoint = [], []
    for s in range(600):
        effect = generator.normal(0, 0.3)
        e = prompt_bootstrap(effect + generator.normal(0, 1, 120), seed=s, rounds=600)
        algorithm.append(e.ci_low <= 0 <= e.ci_high)
        checkpoint.append(e.ci_low <= effect <= e.ci_high)
    assert np.mean(algorithm) < 0.6
    assert 0.92 <= np.mean(checkpoint) <= 0.98


def test_algorithm_interval_is_the_t_interval_of_the_seeds_where_prompts_do_not_matter():
    shifts = np.array([1.0, 2.0, 4.0])
    e = algorithm_estimate(np.repeat(shifts[:, None], 50, axis=1))
    half = 4.302653 * shifts.std(ddof=1) / np.sqrt(3)
    assert [e.value, e.ci_low, e.ci_high] == pytest.approx([7 / 3, 7 / 3 - half, 7 / 3 + half], rel=1e-6)


def test_algorithm_interval_is_the_t_interval_of_the_prompts_where_seeds_do_not_matter():
    prompts = np.random.default_rng(10).normal(size=40)
    e = algorithm_estimate(np.stack([prompts] * 3))
    half = 2.022691 * prompts.std(ddof=1) / np.sqrt(40)
    assert e.ci_high - e.value == pytest.approx(half, rel=1e-6)


def test_algorithm_p_value_is_the_level_at_which_the_interval_touches_zero():
    generator = np.random.default_rng(11)
    scores = 0.4 + layout(generator, 4, 60, 0.2)
    comparison = compare_algorithms(scores, np.zeros(60))
    touching = algorithm_estimate(scores, level=1 - comparison.p_value)
    assert min(abs(touching.ci_low), abs(touching.ci_high)) < 1e-8
    assert comparison.claim == "algorithm"


def test_comparing_with_an_untrained_policy_is_comparing_with_its_scores_repeated():
    generator = np.random.default_rng(12)
    a, b = generator.normal(size=(3, 30)), generator.normal(size=30)
    assert compare_algorithms(a, b) == compare_algorithms(a, np.stack([b] * 3))


def test_a_prompt_that_failed_under_one_seed_is_left_out_of_all():
    table = np.random.default_rng(13).normal(size=(2, 10))
    table[1, 3] = np.nan
    e = algorithm_estimate(table)
    assert (e.n, e.coverage) == (9, 0.9)
    assert e.value == pytest.approx(np.delete(table, 3, axis=1).mean())


def test_checkpoints_are_paired_by_prompt():
    """The prompts' difficulty, however large, cancels: b is a shifted by exactly .1."""
    a = np.random.default_rng(14).normal(0, 100, 50)
    c = compare_checkpoints(a, a - 0.1)
    assert [c.difference.value, c.difference.ci_low, c.difference.ci_high] == pytest.approx([0.1] * 3)
    assert c.p_value < 1e-3
    assert c.claim == "checkpoint"


def test_a_pair_with_one_failed_verdict_lowers_the_coverage():
    c = compare_checkpoints([0.9, 0.8, np.nan, 0.6], [0.1, np.nan, 0.5, 0.3])
    assert (c.difference.n, c.difference.coverage) == (2, 0.5)
    assert c.difference.value == pytest.approx(0.55)
