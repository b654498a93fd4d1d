"""The statistics hold what they promise: closed forms, independent recomputation, and simulation where it is quick."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from leaderboards.statistics.collapse import collapsed_seeds
from leaderboards.statistics.corrections import holm
from leaderboards.statistics.intervals import algorithm_estimate, mean_estimate
from leaderboards.statistics.means import BettingMean, BinomialMean, StudentMean, infer_mean, t_quantile, t_tail
from leaderboards.statistics.paired import compare_algorithms, compare_checkpoints, pooled_seed_variance
from leaderboards.statistics.power import detectable_difference, prompts_needed, seeds_needed


def covered(estimates, truth):
    return np.mean([e.ci_low <= truth <= e.ci_high for e in estimates])


def sample(n, seed=0):
    """Five-way outcomes."""
    return np.random.default_rng(seed).choice([0, 0.25, 0.5, 0.75, 1], size=n)


def test_importing_statistics_brings_neither_pandas_nor_scipy():
    code = "import sys, leaderboards.statistics; sys.exit(bool({'pandas', 'scipy', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_t_quantiles_reach_far_into_the_tail():
    assert t_quantile(1e-8, 5e4) == pytest.approx(5.6129, abs=1e-4)
    for df in (1, 9, 804):
        assert t_quantile(0.025, df) == pytest.approx(stats.t.ppf(0.975, df))
        assert t_tail(t_quantile(1e-12, df), df) == pytest.approx(1e-12)


# Means over prompts


def test_shares_have_the_interval_of_clopper_and_pearson_and_the_p_value_that_belongs_to_it():
    for wins, n in ((0, 10), (1, 30), (7, 30), (10, 10), (400, 805)):
        values = np.repeat([0.0, 100.0], [n - wins, wins])
        exact = stats.binomtest(wins, n).proportion_ci(method="exact")
        e = mean_estimate(values, bounds=(0, 100))
        assert [e.ci_low, e.ci_high] == pytest.approx([100 * exact.low, 100 * exact.high])
        one_sided = [stats.binomtest(wins, n, 0.5, alternative=side).pvalue for side in ("less", "greater")]
        p = infer_mean(values, np.ones(n), (0, 100)).p_value(50)
        assert p == pytest.approx(min(1, 2 * min(one_sided)))


def test_a_bet_on_two_prompts_by_hand(monkeypatch):
    """Staking half: at mean m an outcome x turns 1 into 1/2 + x / 2m, and 1 - x likewise for the other gambler."""
    monkeypatch.setattr("leaderboards.statistics.means.STAKES", np.array([0.5]))
    bet = BettingMean(np.array([1.0, 0.5]), np.ones(2), 0.0, 1.0)
    m = 0.3
    gain = max((0.5 + 1 / (2 * m)) * (0.5 + 0.5 / (2 * m)), 0.5 * (0.5 + 0.5 / (2 * (1 - m))))
    assert bet.p_value(m) == pytest.approx(2 / gain)
    low, high = bet.interval(0.5)
    assert (0.5 + 1 / (2 * low)) * (0.5 + 0.5 / (2 * low)) == pytest.approx(4)
    assert 0.5 * (0.5 + 0.5 / (2 * (1 - high))) == pytest.approx(4)


@pytest.mark.parametrize("weights", [None, (2.0, 4.0, 6.0)])
@pytest.mark.parametrize("n", [10, 30, 80])
def test_a_p_value_is_the_level_at_which_the_interval_touches_the_value(n, weights):
    values = sample(n)
    weight = np.ones(n) if weights is None else np.resize(weights, n)
    mean = infer_mean(values, weight, (0, 1))
    for null in (0.3, 0.45, 0.9):
        p = mean.p_value(null)
        low, high = mean.interval(p)
        assert min(abs(low - null), abs(high - null)) < 1e-8 or p == 1


def test_the_method_follows_from_what_is_known_of_the_outcome():
    ones = np.ones(60)
    assert isinstance(infer_mean(np.resize([0.0, 1.0], 60), ones, (0, 1)), BinomialMean)
    assert isinstance(infer_mean(sample(49), ones[:49], (0, 1)), BettingMean)
    assert isinstance(infer_mean(sample(50), ones[:50], (0, 1)), StudentMean)
    assert isinstance(infer_mean(sample(10), ones[:10], None), StudentMean)
    assert isinstance(infer_mean(np.resize([0.0, 1.0], 9), np.resize([2.0, 6.0], 9), (0, 1)), BettingMean)


def test_without_bounds_the_interval_is_students():
    values = np.random.default_rng(1).normal(3.0, 2.0, 40)
    e = mean_estimate(values)
    expected = stats.ttest_1samp(values, 0).confidence_interval()
    assert [e.ci_low, e.ci_high] == pytest.approx([expected.low, expected.high])


def test_many_bounded_outcomes_have_students_interval_with_one_more_at_each_bound():
    values = sample(80)
    e = mean_estimate(100 * values, bounds=(0, 100))
    expected = stats.ttest_1samp([*values, 0, 1], 0).confidence_interval()
    assert [e.ci_low, e.ci_high] == pytest.approx([100 * expected.low, 100 * expected.high])
    assert e.value == pytest.approx(100 * values.mean())


@pytest.mark.parametrize("n", [1, 10, 80])
@pytest.mark.parametrize("value", [0.0, 0.25, 1.0])
def test_equal_outcomes_within_bounds_still_have_an_interval(n, value):
    e = mean_estimate([value] * n, bounds=(0, 1))
    assert 0 <= e.ci_low <= value <= e.ci_high <= 1
    assert e.ci_high - e.ci_low > 1 / n / 2


def test_equal_outcomes_without_bounds_tell_nothing_of_their_spread():
    e = mean_estimate([7.0] * 9)
    assert e.value == 7
    assert np.isnan([e.ci_low, e.ci_high]).all()
    same, apart = compare_checkpoints([1.0, 2.0], [1.0, 2.0]), compare_checkpoints([1.0, 2.0], [0.5, 1.5])
    assert same.p_value == 1
    assert math.isnan(apart.p_value)


@pytest.mark.parametrize("bounds", [None, (0, 1)])
@pytest.mark.parametrize("n", [20, 80])
def test_failed_verdicts_are_left_out_and_lower_the_coverage(n, bounds):
    values = sample(n)
    whole, holed = mean_estimate(values, bounds=bounds), mean_estimate([*values, np.nan], bounds=bounds)
    assert (holed.value, holed.ci_low, holed.ci_high, holed.n) == (whole.value, whole.ci_low, whole.ci_high, n)
    assert holed.coverage == n / (n + 1)


@pytest.mark.parametrize("n", [20, 80])
def test_the_order_of_the_prompts_does_not_matter(n):
    values, weights = sample(n), np.resize([2.0, 4.0, 6.0], n)
    order = np.random.default_rng(1).permutation(n)
    one, other = (mean_estimate(v, w, bounds=(0, 1)) for v, w in ((values, weights), (values[order], weights[order])))
    assert [other.value, other.ci_low, other.ci_high] == pytest.approx([one.value, one.ci_low, one.ci_high])


def test_weights_make_a_prompt_count_as_if_its_verdicts_were_pooled():
    values, weights = np.array([0.25, 1.0, 0.5]), np.array([4.0, 1.0, 2.0])
    pooled = [0, 0, 0, 1, 1, 0, 1]
    assert mean_estimate(values, weights).value == pytest.approx(np.mean(pooled), abs=1e-15)


def test_the_error_of_a_weighted_mean_is_that_of_refitting_on_resampled_prompts():
    generator = np.random.default_rng(2)
    values, weights = sample(300), generator.choice([2.0, 4.0, 6.0], size=300)
    draws = generator.integers(300, size=(4000, 300))
    resampled = (values * weights)[draws].sum(1) / weights[draws].sum(1)
    e = mean_estimate(values, weights, bounds=(0, 1))
    assert (e.ci_high - e.ci_low) / 2 / 1.968 == pytest.approx(resampled.std(), rel=0.05)


def test_no_verdict_left_gives_nan_not_zero():
    for values in ([], [np.nan, np.nan]):
        e = mean_estimate(values, bounds=(0, 1))
        assert np.isnan([e.value, e.ci_low, e.ci_high]).all()
        assert e.n == 0


def test_one_prompt_without_bounds_has_a_value_and_no_interval():
    e = mean_estimate([0.7])
    assert e.value == 0.7
    assert np.isnan([e.ci_low, e.ci_high]).all()


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: mean_estimate([[1.0, 2.0]]), "one number a prompt"),
        (lambda: mean_estimate([1.0, 2.0], [1.0]), "same length"),
        (lambda: mean_estimate([1.0, 2.0], [1.0, -1.0]), "not be negative"),
        (lambda: mean_estimate([1.0, 2.0], level=95), "between 0 and 1"),
        (lambda: mean_estimate([0.5, 62.0], bounds=(0, 1)), "a value is 62, outside of its bounds 0 to 1"),
        (lambda: compare_checkpoints([1.0, 2.0], [1.0]), "the same prompts"),
        (lambda: compare_algorithms(np.zeros((2, 3)), np.zeros((3, 3))), "a must be"),
        (lambda: algorithm_estimate(np.zeros((1, 9))), "at least 2 seeds"),
        (lambda: compare_algorithms(np.zeros((1, 9)), np.zeros(9)), "at least 2 seeds"),
        (lambda: pooled_seed_variance(np.zeros((1, 3, 9))), "at least 2 trainers"),
        (lambda: prompts_needed(np.zeros((1, 3, 9))), r"must be \[prompts\]"),
    ],
)
def test_bad_input_is_told_in_one_sentence(call, told):
    with pytest.raises(ValueError, match=told):
        call()


def test_rows_taken_for_prompts_undercover():
    """Negative control: six verdicts a prompt treated as six prompts (Arena-Hard's published interval)."""
    generator = np.random.default_rng(3)
    rows, prompts = [], []
    for _ in range(400):
        verdicts = generator.normal(0, 1, (60, 1)) + generator.normal(0, 0.7, (60, 6))
        rows.append(mean_estimate(verdicts.ravel()))
        prompts.append(mean_estimate(verdicts.mean(1), np.full(60, 6.0)))
    assert covered(rows, 0) < 0.75
    assert 0.92 <= covered(prompts, 0) <= 0.98


# Paired tests


@pytest.mark.parametrize("rare", [0.02, 0.05, 0.1])
@pytest.mark.parametrize("n", [10, 80])
def test_a_mean_difference_of_zero_is_kept_however_skewed_the_differences_are(n, rare):
    """A rare +1 against many small losses: sign flips, which test symmetry, reject .82, .60 and .35 at n = 10."""
    generator = np.random.default_rng(n)
    differences = generator.choice([1.0, -rare / (1 - rare)], size=(400, n), p=[rare, 1 - rare])
    p = np.array([compare_checkpoints(row, np.zeros(n), bounds=(0, 1)).p_value for row in differences])
    assert (p < 0.05).mean() <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 400)


def test_the_p_value_and_the_interval_of_two_checkpoints_never_disagree():
    generator = np.random.default_rng(5)
    for n, bounds in ((12, (0, 1)), (80, (0, 1)), (12, None)):
        for _ in range(60):
            a, b = generator.choice([0, 0.5, 1], size=(2, n), p=[0.3, 0.1, 0.6])
            c = compare_checkpoints(a, b * generator.integers(2), bounds=bounds)
            assert (c.p_value < 0.05) == (not c.difference.ci_low <= 0 <= c.difference.ci_high)


@pytest.mark.parametrize("tests", [10, 100, 1000])
@pytest.mark.parametrize("kind", ["share", "graded", "unbounded"])
def test_differences_of_ten_standard_errors_are_separable_in_any_number_of_tests(tests, kind):
    generator = np.random.default_rng(6)
    p_values = []
    for _ in range(tests):
        n = int(generator.integers(80, 300))
        if kind == "share":  # won where the other lost, on enough prompts
            moved = np.ceil(100 / (1 + 100 / n))
            a, b = np.repeat([1.0, 0.0], [moved, n - moved]), np.zeros(n)
        else:
            noise = generator.normal(size=n)
            standard = (noise - noise.mean()) / noise.std(ddof=1)
            a, b = 0.5 + 0.2 * (standard + 10 / np.sqrt(n)) / 2, np.full(n, 0.5)
        p_values.append(compare_checkpoints(a, b, bounds=None if kind == "unbounded" else (0, 1)).p_value)
    assert (holm(p_values) < 0.05).all()


def test_checkpoints_are_paired_by_prompt():
    """The prompts' difficulty, however large, cancels."""
    generator = np.random.default_rng(14)
    a, noise = generator.normal(0, 100, 50), generator.normal(0, 0.01, 50)
    c = compare_checkpoints(a, a - 0.1 + noise)
    assert c.difference.value == pytest.approx(0.1, abs=0.01)
    assert c.p_value == pytest.approx(stats.ttest_1samp(0.1 - noise, 0).pvalue, rel=1e-6)
    assert c.claim == "checkpoint"


def test_a_pair_with_one_failed_verdict_lowers_the_coverage():
    c = compare_checkpoints([0.9, 0.8, np.nan, 0.6], [0.1, np.nan, 0.5, 0.3])
    assert (c.difference.n, c.difference.coverage) == (2, 0.5)
    assert c.difference.value == pytest.approx(0.55)


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
    for _ in range(600):
        effect = generator.normal(0, 0.3)
        e = mean_estimate(effect + generator.normal(0, 1, 120))
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


def test_an_algorithm_without_any_spread_has_no_interval():
    c = compare_algorithms(np.full((2, 5), 0.3), np.full((2, 5), 0.1))
    assert c.difference.value == pytest.approx(0.2)
    assert math.isnan(c.difference.ci_low)
    assert math.isnan(c.p_value)
    assert compare_algorithms(np.full((2, 5), 0.3), np.full((2, 5), 0.3)).p_value == 1


def test_a_huge_difference_of_algorithms_has_a_p_value_without_a_floor():
    generator = np.random.default_rng(15)
    scores = 5 + 1e-3 * layout(generator, 10, 60, 0.2)
    assert 0 <= compare_algorithms(scores, np.zeros(60)).p_value < 1e-25


def test_two_trainers_pool_to_their_own_interval():
    a, b = np.random.default_rng(16).normal(size=(2, 4, 30))
    c = compare_algorithms(a, b, alike=pooled_seed_variance([a, b]))
    assert [c.if_alike.ci_low, c.if_alike.ci_high] == pytest.approx([c.difference.ci_low, c.difference.ci_high])
    assert compare_algorithms(a, b[0], alike=pooled_seed_variance([a, b])).if_alike is None


def test_pooled_variance_is_the_interaction_mean_square_of_an_analysis_of_variance():
    scores = np.random.default_rng(17).normal(size=(3, 4, 5))
    means = scores.mean(2)
    total = ((means - means.mean()) ** 2).sum()
    by_trainer = 4 * ((means.mean(1) - means.mean()) ** 2).sum()
    by_seed = 3 * ((means.mean(0) - means.mean()) ** 2).sum()
    pooled = pooled_seed_variance(scores)
    assert (pooled.variance, pooled.df) == (pytest.approx((total - by_trainer - by_seed) / 6), 6)


def test_pooling_narrows_the_interval_and_leaves_the_p_value():
    tables = np.random.default_rng(18).normal(0, 1, (8, 2, 1)) + np.zeros((8, 2, 50))
    plain = compare_algorithms(tables[0], tables[1])
    pooled = compare_algorithms(tables[0], tables[1], alike=pooled_seed_variance(tables))
    assert (pooled.p_value, pooled.difference) == (plain.p_value, plain.difference)
    assert plain.if_alike is None
    half = np.sqrt(2 * pooled_seed_variance(tables).variance / 2) * stats.t.ppf(0.975, 7)
    assert pooled.if_alike.ci_high - pooled.if_alike.value == pytest.approx(half)


# What would settle a comparison


def test_the_detectable_difference_of_checkpoints_is_the_textbook_one():
    differences = np.random.default_rng(19).normal(0, 0.4, 100)
    error = differences.std(ddof=1) / 10
    assert detectable_difference(differences) == pytest.approx((stats.t.ppf(0.975, 99) + stats.norm.ppf(0.8)) * error)
    assert math.isnan(detectable_difference([0.3]))


def test_the_detectable_difference_is_detected_at_its_power():
    generator = np.random.default_rng(20)
    detectable = detectable_difference(generator.normal(0, 0.4, 100_000)[:100])
    p = [compare_checkpoints(generator.normal(detectable, 0.4, 100), np.zeros(100)).p_value for _ in range(800)]
    assert np.mean(np.array(p) < 0.05) == pytest.approx(0.8, abs=0.1)


def test_so_many_prompts_settle_and_one_fewer_does_not():
    differences = np.random.default_rng(21).normal(0.05, 0.4, 100)
    n = prompts_needed(differences)
    difference, sd = abs(differences.mean()), differences.std(ddof=1)

    def settled(n):
        return (stats.t.ppf(0.975, n - 1) + stats.norm.ppf(0.8)) * sd / np.sqrt(n) <= difference

    assert settled(n)
    assert not settled(n - 1)
    assert prompts_needed(differences, level=1 - 0.05 / 100) > n


def test_where_prompts_decide_seeds_settle_nothing_and_the_other_way_round():
    generator = np.random.default_rng(22)
    by_prompt = 0.1 + np.tile(generator.normal(0, 1, 30), (3, 1)) + 1e-4 * generator.normal(size=(3, 30))
    by_seed = 0.1 + np.array([[-0.3], [0.0], [0.3]]) + 1e-4 * generator.normal(size=(3, 30))
    assert (seeds_needed(by_prompt), prompts_needed(by_seed)) == (math.inf, math.inf)
    assert prompts_needed(by_prompt) > 30
    assert 3 < seeds_needed(by_seed) < 200
    assert prompts_needed([0.0, 0.0]) == math.inf
    assert math.isnan(prompts_needed([np.nan, 0.2]))


# Collapse


def test_a_seed_far_below_the_others_is_named_and_no_other():
    generator = np.random.default_rng(0)
    scores = {name: 0.5 + layout(generator, 5, 200, 0.3) * 0.1 for name in "abc"}
    assert collapsed_seeds(scores) == {}
    scores["b"][3] -= 0.5
    assert collapsed_seeds(scores) == {"b": [3]}
    assert collapsed_seeds({"b": scores["b"]}) == {"b": [3]}


def test_seeds_that_prompts_alone_tell_apart_are_not_called_collapsed():
    """Two seeds equal to the digit and a third that differs by noise of its prompts."""
    generator = np.random.default_rng(24)
    base = generator.normal(size=50)
    scores = np.stack([base, base, base + generator.normal(-0.1, 1, 50)])
    assert collapsed_seeds({"a": scores}) == {}


def test_one_seed_or_none_is_passed_over():
    assert collapsed_seeds({}) == collapsed_seeds({"a": np.zeros((1, 9))}) == {}
