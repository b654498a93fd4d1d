"""What the duality-gap board says of a run, against the closed forms of a cycle."""

import numpy as np
import pytest

from leaderboards.boards.duality_gap import DualityGap
from trainers import IPOMD, OMD
from trainers.games import random_game
from trainers.policies.tabular import play

CYCLE = np.array([[0.5, 0.6, 0.3], [0.4, 0.5, 0.8], [0.7, 0.2, 0.5]])
NASH = np.array([0.3, 0.2, 0.1]) / 0.6  # (b, c, a) / (a + b + c) for the skew parts a = .1, b = .3, c = .2


def rated(policies, preference=CYCLE, tau=0.0):
    return {(t, s.metric): s.value for t, s in DualityGap().rate(preference, policies, tau)}


def test_at_nash_every_distance_is_zero():
    scores = rated(np.tile(NASH, (3, 1)))
    for metric in ("duality_gap", "average_duality_gap", "kl_to_nash", "reward_change"):
        assert scores[2, metric] == pytest.approx(0, abs=1e-7)


def test_kl_is_from_the_nash_policy_to_the_last_one():
    uniform = np.full((1, 3), 1 / 3)
    assert rated(uniform)[0, "kl_to_nash"] == pytest.approx(float((NASH * np.log(3 * NASH)).sum()), abs=1e-6)


def test_the_regularised_gap_appears_with_tau_and_vanishes_where_online_ipo_ends():
    run = play(IPOMD(tau=0.5, mixture=0), CYCLE, 4000, step_size=0.2)
    scores = rated(run.policies, tau=0.5)
    assert scores[4000, "regularised_gap"] == pytest.approx(0, abs=1e-9)
    assert scores[0, "regularised_gap"] > 1e-3 < scores[4000, "duality_gap"]
    assert not any(metric == "regularised_gap" for _, metric in rated(run.policies))


def test_reward_change_is_the_last_iterations_largest_move_of_a_win_rate():
    policies = np.array([[1.0, 0, 0], [0, 1.0, 0]])
    assert rated(policies)[1, "reward_change"] == np.abs(CYCLE[:, 1] - CYCLE[:, 0]).max()


def test_the_slope_is_that_of_the_average_gap():
    game = random_game(6, 901)
    run = play(OMD(eta=0.2), game, 600)
    scores = rated(run.policies, game)
    gaps = run.average_duality_gap()
    counts = np.unique(np.geomspace(1, 601, 64).round().astype(int))
    fitted = np.polyfit(np.log(counts), np.log(gaps[counts - 1]), 1)[0]
    assert scores[600, "average_gap_slope"] == pytest.approx(fitted, abs=1e-9)
    assert scores[600, "average_gap_slope"] < 0
    assert scores[600, "average_duality_gap"] == pytest.approx(gaps[600], abs=1e-12)
