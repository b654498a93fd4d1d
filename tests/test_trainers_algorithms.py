"""What each algorithm converges to, or steps by, on games: the papers' propositions, and where they fail."""

import math
from typing import Any

import numpy as np
import pytest

from trainers import DPO, EGPO, INPO, IPO, IPOMD, OMD, OMWU, ONPO, RL, SFT, SPPO, NashMD, SelfPlay, SimPO, SLiC, SLiCHF
from trainers.algorithm import Algorithm
from trainers.games import duality_gap, kl_divergence, load_game, win_rates
from trainers.policies.tabular import play

CYCLE = np.array([[0.5, 0.85, 0.3], [0.15, 0.5, 0.75], [0.7, 0.25, 0.5]])
REFERENCE = np.array([0.5, 0.2, 0.3])
START = np.array([0.25, 0.35, 0.4])


def game(actions: int, seed: int) -> np.ndarray:
    upper = np.triu(np.random.default_rng(seed).uniform(-0.45, 0.45, (actions, actions)), 1)
    return 0.5 + upper - upper.T


def bradley_terry(scores: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(scores[None, :] - scores[:, None]))


def normalised(weights: np.ndarray) -> np.ndarray:
    return weights / weights.sum(-1, keepdims=True)


def regularised_nash(preference: np.ndarray, reference: np.ndarray, tau: float) -> np.ndarray:
    policy, step = reference, 0.1
    for _ in range(20_000):
        policy = normalised(policy ** (1 - step * tau) * reference ** (step * tau) * np.exp(step * preference @ policy))
    return policy


def field(algorithm: Algorithm, preference: np.ndarray, start: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """The expected gradient in the logits, read off one step of size 1 (both kinds of loss have components that sum
    to zero)."""
    run = play(algorithm, preference, 1, init=start, reference=reference, step_size=1.0)
    change = np.log(run.policies[1]) - np.log(run.policies[0])
    return -(change - change.mean())


def projected(policy: np.ndarray, weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """sum_y weights(y) values(y) d log policy(y) / d logits."""
    return weights * values - policy * (weights @ values)


# Where algorithms of one log-ratio end.


@pytest.mark.parametrize("data", [None, [0.2, 0.5, 0.3]])
def test_offline_ipo_finds_its_closed_form(data: Any) -> None:
    run = play(IPO(tau=0.3), CYCLE, 2, reference=REFERENCE, data=data, init=START)
    expected = normalised(REFERENCE * np.exp(CYCLE @ (REFERENCE if data is None else np.array(data)) / 0.3))
    np.testing.assert_allclose(run.policies[1:], [expected, expected], atol=1e-12)


def test_iterative_ipo_is_mirror_descent_and_online_ipo_is_ipo_md_without_mixture() -> None:
    iterative = play(IPO(tau=2.0, regime="iterative"), CYCLE, 30, init=START).policies
    np.testing.assert_allclose(iterative, play(OMD(eta=0.5), CYCLE, 30, init=START).policies, atol=1e-12)
    online = play(IPO(tau=2.0, regime="online"), CYCLE, 30, init=START, step_size=0.1).policies
    unmixed = play(IPOMD(tau=2.0, mixture=0), CYCLE, 30, init=START, step_size=0.1).policies
    np.testing.assert_array_equal(online, unmixed)


def test_dpo_breaks_on_a_cycle_where_online_ipo_does_not() -> None:
    preference, tau = load_game("cyc3"), 0.1
    laws = ([1 / 3] * 3, [0.6, 0.3, 0.1], [0.1, 0.3, 0.6])
    dpo = [play(DPO(beta=tau, regime="offline"), preference, 1, data=law).duality_gap()[-1] for law in laws]
    np.testing.assert_allclose(dpo, [0.294, 0.157, 0.782], atol=1e-3)
    ipo = play(IPO(tau=tau, regime="online"), preference, 2000, step_size=0.05).duality_gap()[-1]
    assert max(dpo) >= 0.5
    assert max(dpo) >= 5 * ipo


def test_plain_rock_paper_scissors_under_uniform_data_proves_nothing_against_dpo() -> None:
    preference = load_game("rock-paper-scissors")
    assert play(DPO(beta=0.1, regime="offline"), preference, 1).duality_gap()[-1] < 1e-12
    skewed = play(DPO(beta=0.1, regime="offline"), preference, 1, data=[0.6, 0.3, 0.1])
    assert skewed.duality_gap()[-1] > 0.5


def test_iterative_dpo_never_settles_on_a_cycle() -> None:
    gaps = play(DPO(beta=1.0), load_game("cyc3"), 200, init=START).duality_gap()[-100:]
    assert gaps.mean() > 0.3
    assert gaps.max() - gaps.min() > 0.1


def test_online_dpo_on_two_actions_ends_at_the_log_odds_and_ipo_at_the_nash_policy() -> None:
    preference = [[0.5, 0.7], [0.3, 0.5]]
    dpo = play(DPO(beta=1.0, regime="online"), preference, 4000, step_size=1.0).policies[-1]
    assert np.log(dpo[0] / dpo[1]) == pytest.approx(math.log(0.7 / 0.3), abs=1e-9)
    ipo = play(IPO(tau=1.0, regime="online"), preference, 1000, step_size=0.3).policies[-1]
    assert np.log(ipo[0] / ipo[1]) == pytest.approx(0.2, abs=1e-9)


def test_under_bradley_terry_the_rlhf_solution_is_stationary_for_online_dpo() -> None:
    scores, tau = np.array([1.2, -0.4, 0.3, -1.0]), 0.7
    reference = np.array([0.4, 0.3, 0.2, 0.1])
    solution, preference = normalised(reference * np.exp(scores / tau)), bradley_terry(scores)
    options: Any = {"init": solution, "reference": reference, "step_size": 1.0}
    moved = play(DPO(beta=tau, regime="online"), preference, 100, **options).policies[-1]
    np.testing.assert_allclose(moved, solution, atol=1e-12)
    other = play(IPO(tau=tau, regime="online"), preference, 100, **options | {"step_size": 0.1}).policies[-1]
    assert np.abs(other - solution).max() > 0.01
    reached = play(RL(tau=tau), preference, 4000, reference=reference, step_size=1.0).policies[-1]
    np.testing.assert_allclose(reached, solution, atol=1e-8)


def test_simpo_fits_the_log_odds_and_ignores_the_reference() -> None:
    """Two actions: the first-order condition of -p log sigma(b m - g) - (1 - p) log sigma(-b m - g) by bisection."""
    beta, gamma, p = 2.0, 0.5, 0.7
    policy = play(SimPO(beta=beta, gamma=gamma), [[0.5, p], [1 - p, 0.5]], 1, reference=[0.9, 0.1]).policies[-1]
    low, high = -10.0, 10.0
    for _ in range(100):
        m = (low + high) / 2
        slope = -p / (1 + math.exp(beta * m - gamma)) + (1 - p) / (1 + math.exp(-beta * m - gamma))
        low, high = (m, high) if slope < 0 else (low, m)
    assert np.log(policy[0] / policy[1]) == pytest.approx(low, abs=1e-9)


def test_slic_stops_at_its_margin_and_slic_hf_stays_with_the_reference() -> None:
    certain = [[0.5, 1.0], [0.0, 0.5]]
    policy = play(SLiC(beta=0.5, regime="offline"), certain, 3000, step_size=0.05).policies[-1]
    assert np.log(policy[0] / policy[1]) == pytest.approx(2.0, abs=0.05)
    still = play(SLiCHF(delta=1.0, sft_weight=1e4), certain, 3000, reference=[0.3, 0.7], step_size=1e-5).policies[-1]
    np.testing.assert_allclose(still, [0.3, 0.7], atol=1e-3)
    free = play(SLiCHF(delta=1.5, sft_weight=0.0), certain, 3000, step_size=0.02).policies[-1]
    assert np.log(free[0] / free[1]) == pytest.approx(1.5, abs=0.05)


# Steps of algorithms that look at win rates.


@pytest.mark.parametrize("mixture", [0.0, 0.125, 0.5])
def test_the_fields_of_ipo_md_and_nash_md_are_those_of_proposition_5_1_once_centred(mixture: float) -> None:
    preference, tau = game(5, 1), 0.4
    start, reference = normalised(np.arange(1.0, 6.0)), normalised(np.array([4.0, 1.0, 2.0, 2.0, 1.0]))
    mixed = normalised(start ** (1 - mixture) * reference**mixture)
    log_ratio, wins = np.log(start / reference), preference @ mixed - 0.5
    centred = wins - tau * (log_ratio - mixed @ log_ratio)

    ipo_md = field(IPOMD(tau=tau, mixture=mixture), preference, start, reference)
    np.testing.assert_allclose(ipo_md, -4 / tau * projected(start, mixed, centred), atol=1e-10)
    nash_md = field(NashMD(tau=tau, mixture=mixture), preference, start, reference)
    np.testing.assert_allclose(nash_md, -projected(start, start, wins - tau * log_ratio), atol=1e-10)

    cosine = ipo_md @ nash_md / np.linalg.norm(ipo_md) / np.linalg.norm(nash_md)
    uncentred = -4 / tau * projected(start, mixed, wins - tau * log_ratio)
    if mixture == 0:
        assert cosine == pytest.approx(1)
    else:
        assert cosine < 0.9999
        assert np.abs(uncentred - ipo_md).max() > 1e-3


def test_nash_md_ends_where_the_policy_is_a_regularised_reply_to_its_mixture() -> None:
    last = play(NashMD(tau=0.3, mixture=0.25), CYCLE, 4000, reference=REFERENCE, step_size=1.0).policies[-1]
    mixed = normalised(last**0.75 * REFERENCE**0.25)
    np.testing.assert_allclose(last, normalised(REFERENCE * np.exp(CYCLE @ mixed / 0.3)), atol=1e-8)


def test_self_play_takes_its_closed_form_step_and_ends_at_the_regularised_nash_policy() -> None:
    tau, step = 0.3, 0.5
    run = play(SelfPlay(tau=tau), CYCLE, 4000, init=START, reference=REFERENCE, step_size=step)
    for policy, following in zip(run.policies[:20], run.policies[1:21], strict=True):
        value = CYCLE @ policy - tau * np.log(policy / REFERENCE)
        expected = normalised(policy * np.exp(step * policy * (value - policy @ value)))
        np.testing.assert_allclose(following, expected, atol=1e-8)
    np.testing.assert_allclose(run.policies[-1], regularised_nash(CYCLE, REFERENCE, tau), atol=1e-8)


def test_rl_follows_the_mean_log_odds_over_the_reference() -> None:
    preference, tau = game(4, 3), 0.5
    reference, start = normalised(np.array([1.0, 3.0, 2.0, 2.0])), normalised(np.array([2.0, 1.0, 2.0, 1.0]))
    reward = np.log(preference / preference.T) @ reference
    expected = -projected(start, start, reward - tau * np.log(start / reference))
    np.testing.assert_allclose(field(RL(tau=tau), preference, start, reference), expected, atol=1e-10)


def test_log_odds_of_a_certain_preference_are_refused_unless_cut() -> None:
    certain = [[0.5, 1.0], [0.0, 0.5]]
    with pytest.raises(ValueError, match="no finite reward"):
        play(RL(), certain, 1, step_size=0.1)
    policy = play(RL(tau=1.0, reward_limit=2.0), certain, 3000, step_size=1.0).policies[-1]
    assert np.log(policy[0] / policy[1]) == pytest.approx(2.0, abs=1e-6)


@pytest.mark.parametrize("eta", [0.3, 2.0, 10.0])
def test_sppo_solves_its_constrained_least_squares(eta: float) -> None:
    """At the minimiser over distributions pi_t (u - target) is proportional to pi, u = log pi / pi_t: one bisection in
    each action within one in the multiplier."""
    preference = game(4, 5)
    start = normalised(np.array([2.0, 1.0, 2.0, 3.0]))
    policy = play(SPPO(eta=eta), preference, 1, init=start).policies[1]
    target = eta * (preference @ start - 0.5)
    residual = start * (np.log(policy / start) - target)
    np.testing.assert_allclose(residual / policy, residual[0] / policy[0], atol=1e-8)
    assert policy.sum() == pytest.approx(1)

    def value(candidate: np.ndarray) -> np.ndarray:
        return (start * (np.log(candidate / start) - target) ** 2).sum(-1)

    nearby = normalised(policy * np.exp(np.random.default_rng(0).normal(0, 0.05, (500, 4))))
    assert (value(nearby) >= value(policy)).all()


def test_sppo_approaches_the_papers_exponential_step_as_eta_falls() -> None:
    preference, start = game(4, 5), normalised(np.array([2.0, 1.0, 2.0, 3.0]))

    def distance(eta: float) -> float:
        step = normalised(start * np.exp(eta * preference @ start))
        return float(np.abs(play(SPPO(eta=eta), preference, 1, init=start).policies[1] - step).max())

    assert distance(1.0) > 1e-4
    assert math.log2(distance(0.2) / distance(0.1)) == pytest.approx(3.0, abs=0.05)


def test_egpo_takes_its_closed_form_step_on_uniform_pairs() -> None:
    preference, reference, tau, step = game(5, 7), normalised(np.arange(1.0, 6.0)), 0.2, 0.5
    run = play(EGPO(tau=tau, temperature=math.inf), preference, 40, reference=reference, step_size=step)
    shrink = 4 * step / 5
    for policy, following in zip(run.policies[:-1], run.policies[1:], strict=True):
        pulled = policy ** (1 - shrink) * reference**shrink
        ahead = normalised(pulled * np.exp(shrink / tau * preference @ policy))
        np.testing.assert_allclose(following, normalised(pulled * np.exp(shrink / tau * preference @ ahead)), atol=1e-8)


def test_egpo_divides_its_distance_to_nash_by_the_papers_factor() -> None:
    preference, tau, eta = game(10, 2), 0.1, 0.2
    run = play(EGPO(tau=tau, temperature=math.inf), preference, 500, step_size=eta * tau * 10 / 4)
    divergence = kl_divergence(regularised_nash(preference, np.full(10, 0.1), tau), run.policies)
    factors = divergence[201:401] / divergence[200:400]
    np.testing.assert_allclose(factors.mean(), (1 - eta * tau) ** 2, atol=2e-3)


def test_egpo_on_its_own_pairs_has_the_same_fixed_point() -> None:
    last = play(EGPO(tau=0.3), CYCLE, 3000, reference=REFERENCE, step_size=0.1).policies[-1]
    np.testing.assert_allclose(last, regularised_nash(CYCLE, REFERENCE, 0.3), atol=1e-8)


def test_omwu_takes_its_recursion_and_onpo_the_same_from_its_second_step() -> None:
    preference, eta = game(6, 4), 0.7
    for run in (
        play(OMWU(eta=eta), preference, 60, init=normalised(np.arange(1.0, 7.0))),
        play(ONPO(eta=eta), preference, 60),
        play(ONPO(eta=eta, start="policy"), preference, 60),
    ):
        rewards = win_rates(preference, run.policies)
        for t in range(1, 60):
            step = normalised(run.policies[t] * np.exp(eta * (2 * rewards[t] - rewards[t - 1])))
            np.testing.assert_allclose(run.policies[t + 1], step, atol=1e-10)


def test_on_the_comal_game_mirror_descent_cycles_inpo_stops_short_and_onpo_arrives() -> None:
    preference, start, step = load_game("comal3"), [0.2, 0.5, 0.3], 0.3
    omd = play(OMD(eta=step), preference, 1000, init=start).duality_gap()[-500:]
    inpo = play(INPO(eta=1 / step, tau=0.1), preference, 800, init=start, reference=start).duality_gap()[-100:]
    onpo = play(ONPO(eta=step), preference, 4000, init=start).duality_gap()
    assert omd.mean() > 0.3
    np.testing.assert_allclose(inpo, 5.88e-2, atol=1e-3)
    assert onpo[-1] < 1e-3


@pytest.mark.slow
def test_inpo_from_sampled_pairs_converges_at_one_over_t() -> None:
    preference, tau, iterations = game(10, 9), 0.5, 2048
    runs = np.broadcast_to(preference, (40, 10, 10))
    eta = INPO(eta=lambda t: tau * (t + 2) / 2, tau=tau)
    run = play(eta, runs, iterations, exact=False, pairs_per_iteration=64, seed=1)
    divergence = kl_divergence(regularised_nash(preference, np.full(10, 0.1), tau), run.policies).mean(-1)
    rounds = 2 ** np.arange(6, 12)
    slope = np.polyfit(np.log(rounds), np.log(divergence[rounds]), 1)[0]
    assert -1.1 <= slope <= -0.8


# All of them.

ALL: list[Algorithm] = [
    ONPO(eta=1.0), INPO(eta=1.0), OMD(), OMWU(), SPPO(eta=1.0), EGPO(), IPOMD(), NashMD(), SelfPlay(), RL(), SFT(),
    SLiCHF(), *(kind(regime=word) for kind in (DPO, IPO, SLiC, SimPO) for word in ("offline", "iterative", "online")),
]  # fmt: skip
NAMES = [f"{a.name}-{getattr(a, 'regime', '')}".strip("-") for a in ALL]


@pytest.mark.parametrize("algorithm", ALL, ids=NAMES)
@pytest.mark.parametrize("options", [{}, {"exact": False, "pairs_per_iteration": 500}], ids=["exact", "sampled"])
def test_every_algorithm_plays_a_batch_of_games(algorithm: Algorithm, options: dict[str, Any]) -> None:
    games = np.stack([CYCLE, CYCLE.T])
    run = play(algorithm, games, 3, init=START, reference=REFERENCE, step_size=0.01, **options)
    assert run.policies.shape == (4, 2, 3)
    np.testing.assert_allclose(run.policies.sum(-1), 1)
    assert (run.policies > 0).all()
    assert np.allclose(run.policies[1], START) == (algorithm.name == "sft")


@pytest.mark.parametrize("algorithm", ALL, ids=NAMES)
def test_every_algorithm_agrees_that_a_uniform_policy_is_best_where_nothing_is_preferred(algorithm: Algorithm) -> None:
    run = play(algorithm, np.full((4, 4), 0.5), 5, step_size=0.01)
    np.testing.assert_allclose(run.policies, 0.25, atol=1e-9)
    assert duality_gap(np.full((4, 4), 0.5), run.policies).max() < 1e-9


def test_an_algorithm_that_needs_text_refuses_a_game() -> None:
    class Textual(DPO):
        name = "textual"
        needs = "text"

    with pytest.raises(ValueError, match="textual needs text; it cannot play a game"):
        play(Textual(), CYCLE, 1)


@pytest.mark.parametrize("data", [[0.5, 0.6, 0.1], [0.5, 0.5], [0.5, 0.5, 0.0]])
def test_data_that_is_no_distribution_is_refused(data: list[float]) -> None:
    with pytest.raises(ValueError, match=r"data (must be positive and sum to 1|has shape)"):
        play(DPO(regime="offline"), CYCLE, 1, data=data)
