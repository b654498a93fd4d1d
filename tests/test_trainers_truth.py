"""What theory says of games, found again through the losses that train language models."""

import numpy as np
import pytest
import torch

from trainers import INPO, IPOMD, OMD, ONPO
from trainers.algorithm import PairBatch, Schedule, labelled_loss
from trainers.games import duality_gap, load_game
from trainers.policies.feedback import Exact
from trainers.policies.minimise import ExpectedLoss, all_pairs
from trainers.policies.tabular import play

CYCLE = np.array([[0.5, 0.85, 0.3], [0.15, 0.5, 0.75], [0.7, 0.25, 0.5]])


def games(count: int, actions: int, seed: int) -> np.ndarray:
    """Games of this file only, [count, actions, actions]."""
    upper = np.triu(np.random.default_rng(seed).uniform(-0.5, 0.5, (count, actions, actions)), 1)
    return 0.5 + upper - np.swapaxes(upper, 1, 2)


def simplex(actions: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.full(actions, 3.0))


def slopes(rounds: np.ndarray, gaps: np.ndarray) -> np.ndarray:
    """Log-log slopes of gaps [rounds, games]."""
    return np.polyfit(np.log(rounds), np.log(gaps), 1)[0]


def average_gaps(preference: np.ndarray, rounds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gaps of the mean of the first T policies, for OMD with eta = sqrt(D/T) and ONPO with eta 1/2, [rounds, games]."""
    entropy = np.log(preference.shape[-1])
    omd = [play(OMD(eta=float(np.sqrt(entropy / t))), preference, int(t)).average_duality_gap()[t - 1] for t in rounds]
    onpo = play(ONPO(eta=0.5), preference, int(rounds[-1])).average_duality_gap()[rounds - 1]
    return np.stack(omd), onpo


def test_optimism_speeds_up_the_average_gap() -> None:
    omd, onpo = average_gaps(games(20, 10, seed=41), 2 ** np.arange(5, 9))
    assert slopes(2 ** np.arange(5, 9), onpo).mean() < slopes(2 ** np.arange(5, 9), omd).mean() - 0.3
    assert np.median(omd[-1] / onpo[-1]) > 3


@pytest.mark.slow
def test_the_average_gap_falls_at_one_over_root_t_for_omd_and_at_one_over_t_for_onpo() -> None:
    rounds = 2 ** np.arange(7, 14)
    omd, onpo = average_gaps(games(20, 10, seed=2025), rounds)
    assert -0.55 <= slopes(rounds, omd).mean() <= -0.35
    assert -1.15 <= slopes(rounds, onpo).mean() <= -0.93
    assert np.median(omd[-1] / onpo[-1]) >= 15


def test_onpo_iterates_are_those_of_optimistic_multiplicative_weights() -> None:
    preference, eta, iterations = games(1, 7, seed=3)[0], 0.5, 1500
    run = play(ONPO(eta=eta), preference, iterations)
    logits, previous = np.zeros(7), np.zeros(7)
    for policy in run.policies:
        expected = np.exp(logits - logits.max())
        np.testing.assert_allclose(policy, expected / expected.sum(), atol=1e-10, rtol=0)
        reward = preference @ (expected / expected.sum())
        logits, previous = logits + eta * (2 * reward - previous), reward


@pytest.mark.parametrize(("actions", "iterations"), [(2, 100), (5, 100), (30, 60)])
def test_the_corrected_constant_bounds_onpo_on_every_game(actions: int, iterations: int) -> None:
    gap = play(ONPO(eta=0.5), games(100, actions, seed=actions), iterations).average_duality_gap()[:-1]
    rounds = np.arange(1, iterations + 1)[:, None]
    assert (gap <= (4 * np.log(actions) + 1) / rounds).all()


def test_the_constant_as_printed_in_the_paper_fails_where_one_action_beats_all() -> None:
    preference = np.full((40, 40), 0.5)
    preference[0, 1:], preference[1:, 0] = 1.0, 0.0
    rounds = 10
    gap = play(ONPO(eta=0.5), preference, rounds).average_duality_gap()[rounds - 1]
    assert 4 * np.sqrt(np.log(40)) / rounds < gap <= (4 * np.log(40) + 1) / rounds


def online_ipo_gradient(preference: np.ndarray, logits: np.ndarray, reference: np.ndarray, tau: float, stop: bool):
    """d/d logits of the labelled loss of pairs drawn from the policy, with or without a gradient through the draw."""
    theta = torch.tensor(logits, requires_grad=True)
    log_policy = torch.log_softmax(theta, -1)
    law = log_policy.detach().exp() if stop else log_policy.exp()
    pair = PairBatch(all_pairs(log_policy), {"reference": all_pairs(torch.from_numpy(np.log(reference)))})
    losses = labelled_loss(IPOMD(tau=tau, mixture=0), pair, torch.from_numpy(preference))
    (gradient,) = torch.autograd.grad(law @ losses @ law, theta)
    return gradient.numpy()


def self_play_gradient(preference: np.ndarray, policy: np.ndarray, reference: np.ndarray, tau: float) -> np.ndarray:
    """d/d logits of E P(y beats a fixed opponent) - tau KL(policy || reference), the opponent being the policy."""
    value = preference @ policy - tau * np.log(policy / reference)
    return policy * (value - policy @ value)


@pytest.mark.parametrize("tau", [0.01, 0.1, 1.0, 5.0])
@pytest.mark.parametrize("actions", [3, 10, 50])
def test_the_gradient_of_online_ipo_is_that_of_self_play(actions: int, tau: float) -> None:
    preference, reference = games(1, actions, seed=actions)[0], simplex(actions, 1)
    logits = np.random.default_rng(2).normal(size=actions)
    policy = np.exp(logits) / np.exp(logits).sum()
    expected = -4 / tau * self_play_gradient(preference, policy, reference, tau)
    scale = np.abs(expected).max()

    stopped = online_ipo_gradient(preference, logits, reference, tau, stop=True)
    np.testing.assert_allclose(stopped / scale, expected / scale, atol=1e-10)

    loss = ExpectedLoss(
        IPOMD(tau=tau, mixture=0),
        Exact(torch.from_numpy(preference[None])).pairs(torch.from_numpy(np.log(policy[None]))),
        {"reference": torch.from_numpy(np.log(reference[None]))},
        {},
    )
    streamed = loss.logit_gradient(torch.from_numpy(np.log(policy[None])))[0].numpy()
    np.testing.assert_allclose(streamed / scale, expected / scale, atol=1e-10)

    through = online_ipo_gradient(preference, logits, reference, tau, stop=False)
    cosine = through @ expected / np.linalg.norm(through) / np.linalg.norm(expected)
    assert cosine < (0.95 if tau < 1 else 0.9998)


def regularised_nash(preference: np.ndarray, reference: np.ndarray, tau: float) -> np.ndarray:
    """The policy proportional to reference exp(P policy / tau), by small mirror steps."""
    logits, step = np.log(reference), 0.1
    for _ in range(20_000):
        policy = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        logits = (1 - step * tau) * np.log(policy) + step * tau * np.log(reference) + step * preference @ policy
    return policy


@pytest.mark.parametrize("mixture", [0.0, 0.125, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("actions", [3, 6])
def test_ipo_md_streams_to_the_policy_whose_mixture_is_nash(mixture: float, actions: int) -> None:
    preference = CYCLE if actions == 3 else games(1, actions, seed=8)[0]
    reference, tau = simplex(actions, 4), 0.2
    algorithm = IPOMD(tau=tau, mixture=mixture)
    last = play(algorithm, preference, 1500, reference=reference, step_size=0.2).policies[-1]
    mixed = last ** (1 - mixture) * reference**mixture
    expected = regularised_nash(preference, reference, tau / (1 - mixture))
    np.testing.assert_allclose(mixed / mixed.sum(), expected, atol=1e-8)


def test_refitting_is_not_online_ipo() -> None:
    class Refitted(IPOMD):
        schedule = Schedule.REFIT

    preference = load_game("cyc3")
    cycling = play(Refitted(tau=0.1, mixture=0), preference, 600).duality_gap()[-100:]
    settled = play(IPOMD(tau=0.1, mixture=0), preference, 2000, step_size=0.05).duality_gap()[-100:]
    assert cycling.mean() == pytest.approx(0.36, abs=0.05)
    np.testing.assert_allclose(settled, 0.0529, atol=1e-4)


def test_inpo_without_regularisation_is_mirror_descent() -> None:
    preference = games(3, 6, seed=12)
    inverted = play(INPO(eta=4.0, tau=0.0), preference, 300).policies
    np.testing.assert_allclose(inverted, play(OMD(eta=0.25), preference, 300).policies, atol=1e-12)


def test_inpo_takes_the_papers_exact_step() -> None:
    preference, reference, eta, tau = games(1, 5, seed=6)[0], simplex(5, 9), 2.0, 0.5
    run = play(INPO(eta=eta, tau=tau), preference, 40, reference=reference, init=simplex(5, 10))
    for policy, following in zip(run.policies[:-1], run.policies[1:], strict=True):
        step = np.exp(preference @ policy / eta) * reference ** (tau / eta) * policy ** (1 - tau / eta)
        np.testing.assert_allclose(following, step / step.sum(), atol=1e-12)


def test_mirror_descent_cycles_where_optimism_converges() -> None:
    start = [0.6, 0.3, 0.1]
    cycling = play(OMD(eta=1.0), CYCLE, 400, init=start).duality_gap()
    settled = play(ONPO(eta=1.0), CYCLE, 2000, init=start).duality_gap()
    assert cycling[-100:].min() > 0.1
    assert settled[-1] < 1e-3


def test_long_games_keep_their_accuracy_where_probabilities_underflow() -> None:
    preference = games(1, 8, seed=1)[0]
    eta, iterations = 50.0, 400
    run = play(OMD(eta=eta), preference, iterations)
    logits = np.zeros(8)
    for _ in range(iterations):
        policy = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        logits = logits + eta * (preference @ policy)
    expected = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    assert (run.policies == 0).any()
    np.testing.assert_allclose(run.policies[-1], expected, atol=1e-9)
    np.testing.assert_allclose(run.duality_gap()[-1], duality_gap(preference, expected), atol=1e-9)
