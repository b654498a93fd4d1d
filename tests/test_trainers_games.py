"""Games in plain numpy: what is read, what is measured, which Nash policy is chosen."""

from pathlib import Path

import numpy as np
import pytest

from trainers.games import (
    NAMED,
    condorcet_game,
    duality_gap,
    entropy,
    kl_divergence,
    load_game,
    log_log_slope,
    nash_policy,
    random_game,
    regularised_gap,
    reward_change,
)

RPS = np.array([[0.5, 0.1, 0.8], [0.9, 0.5, 0.3], [0.2, 0.7, 0.5]])


def cycles(preference: np.ndarray) -> int:
    """How many triples of actions beat each other in a circle."""
    beats = (preference > 0.5).astype(int)
    return int(np.trace(beats @ beats @ beats)) // 3


def test_named_games_are_preferences_with_their_known_nash_policies() -> None:
    np.testing.assert_allclose(nash_policy(NAMED["rock-paper-scissors"]), [1 / 3] * 3, atol=1e-8)
    np.testing.assert_allclose(nash_policy(NAMED["cyc3"]), np.array([2, 3, 4]) / 9, atol=1e-7)
    np.testing.assert_allclose(nash_policy(NAMED["comal3"]), np.array([4, 3, 4]) / 11, atol=1e-7)


def test_the_nash_policy_of_a_cycle_is_its_closed_form() -> None:
    skew = RPS - 0.5
    weights = np.array([skew[1, 2], skew[2, 0], skew[0, 1]])
    np.testing.assert_allclose(nash_policy(RPS), weights / weights.sum(), atol=1e-7)


@pytest.mark.parametrize("actions", [2, 4, 9, 30])
def test_the_nash_policy_of_a_random_game_cannot_be_exploited(actions: int) -> None:
    for seed in range(10):
        preference = random_game(actions, seed)
        policy = nash_policy(preference)
        assert policy.sum() == pytest.approx(1)
        assert (preference @ policy).max() - (policy @ preference).min() < 1e-7


def test_of_many_nash_policies_the_one_of_greatest_entropy_is_taken() -> None:
    """Action 2 loses to action 0, else all tie: every mixture of actions 0 and 1 is Nash."""
    np.testing.assert_allclose(
        nash_policy([[0.5, 0.5, 0.9], [0.5, 0.5, 0.5], [0.1, 0.5, 0.5]]), [0.5, 0.5, 0], atol=1e-7
    )
    np.testing.assert_allclose(nash_policy(np.full((5, 5), 0.5)), [0.2] * 5)


def test_clones_share_what_their_original_had() -> None:
    original, copies = nash_policy(RPS), [0, 0, 0, 1, 2]
    cloned = nash_policy(RPS[np.ix_(copies, copies)])
    np.testing.assert_allclose(cloned, [original[0] / 3] * 3 + [original[1], original[2]], atol=1e-7)


def test_a_nash_set_is_searched_to_its_point_of_greatest_entropy() -> None:
    """Two cycles that tie with each other: every mixture of their Nash policies is Nash."""
    other = np.array([[0.5, 0.9, 0.4], [0.1, 0.5, 0.6], [0.6, 0.4, 0.5]])
    both = np.full((6, 6), 0.5)
    both[:3, :3], both[3:, 3:] = RPS, other
    first, second = nash_policy(RPS), nash_policy(other)
    shares = np.linspace(0.001, 0.999, 9999)
    mixtures = np.concatenate([shares[:, None] * first, (1 - shares[:, None]) * second], -1)
    best = mixtures[entropy(mixtures).argmax()]
    np.testing.assert_allclose(nash_policy(both), best, atol=2e-4)


def test_one_game_at_a_time_has_its_nash_policy_sought() -> None:
    with pytest.raises(ValueError, match="takes one game"):
        nash_policy(np.stack([RPS, RPS]))


def test_the_regularised_gap_is_zero_at_the_fixed_point_and_positive_elsewhere() -> None:
    reference, tau, policy = np.array([0.2, 0.5, 0.3]), 0.3, np.array([0.2, 0.5, 0.3])
    for _ in range(3000):
        policy = policy**0.9 * (reference * np.exp(RPS @ policy / tau)) ** 0.1
        policy /= policy.sum()
    assert abs(regularised_gap(RPS, policy, reference, tau)) < 1e-12
    assert regularised_gap(RPS, reference, reference, tau) > 1e-3
    np.testing.assert_array_equal(regularised_gap(RPS, policy, reference, 0), duality_gap(RPS, policy))


def test_the_regularised_gap_is_what_the_best_replies_win() -> None:
    """Against a grid of all replies on the simplex."""
    reference, tau, policy = np.array([0.2, 0.5, 0.3]), 0.4, np.array([0.6, 0.1, 0.3])
    steps = np.arange(1, 400) / 400
    replies = np.array([(a, b, 1 - a - b) for a in steps for b in steps if a + b < 1 - 1e-9])
    cost = tau * kl_divergence(replies, reference)
    own = tau * kl_divergence(policy, reference)
    best_first = (replies @ RPS @ policy - cost + own).max()
    best_second = (policy @ RPS @ replies.T - own + cost).min()
    assert regularised_gap(RPS, policy, reference, tau) == pytest.approx(best_first - best_second, abs=1e-4)


def test_divergence_and_entropy_are_their_sums() -> None:
    assert kl_divergence([0.5, 0.5, 0.0], [0.25, 0.5, 0.25]) == pytest.approx(0.5 * np.log(2))
    assert kl_divergence([0.5, 0.5], [1.0, 0.0]) == np.inf
    assert entropy([0.5, 0.5, 0.0]) == pytest.approx(np.log(2))
    assert entropy(np.full((4, 2, 8), 1 / 8)) == pytest.approx(np.full((4, 2), np.log(8)))


def test_reward_change_is_the_largest_move_of_a_win_rate() -> None:
    policies = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
    np.testing.assert_allclose(reward_change(RPS, policies), [np.abs(RPS[:, 1] - RPS[:, 0]).max(), 0.0])
    assert reward_change(np.stack([RPS, RPS.T]), np.full((4, 2, 3), 1 / 3)).shape == (3, 2)


def test_slopes_of_power_laws_are_their_powers() -> None:
    counts = np.arange(1, 2001)
    values = np.stack([3 / counts, 7 / np.sqrt(counts)], -1)
    np.testing.assert_allclose(log_log_slope(values), [-1.0, -0.5], atol=1e-9)
    np.testing.assert_allclose(log_log_slope(values[:, 0] + (counts < 100), first=100), -1.0, atol=1e-9)
    assert np.isnan(log_log_slope(np.zeros(10)))


def test_the_panel_is_transitive_at_zero_and_cycles_at_one() -> None:
    for seed in range(5):
        transitive = condorcet_game(6, 0.0, seed)
        assert cycles(transitive) == 0
        logits = np.log(transitive / transitive.T)
        np.testing.assert_allclose(logits[0, 1] + logits[1, 2], logits[0, 2], atol=1e-9)
        assert cycles(condorcet_game(6, 1.0, seed)) >= 8
    counts = [np.mean([cycles(condorcet_game(9, knob, seed)) for seed in range(20)]) for knob in (0, 0.6, 0.8, 1)]
    assert counts == sorted(counts)


def test_generated_games_are_written_as_calls() -> None:
    np.testing.assert_array_equal(load_game("random(actions=4, seed=7)"), random_game(4, 7))
    np.testing.assert_array_equal(load_game("condorcet(intransitivity=0.25)"), condorcet_game(6, 0.25, 0))


@pytest.mark.parametrize(
    ("game", "message"),
    [
        ("cyc4", "no game and no file is called 'cyc4'; the games are comal3, cyc3, rock-paper-scissors, condorcet"),
        ("random(actions=1)", "actions is 1; it must be a whole number of at least 2"),
        ("random(actions=2.5)", "whole number"),
        ("random(size=3)", "unexpected keyword argument 'size'"),
        ("condorcet(intransitivity=2)", r"intransitivity is 2; it must be in \[0, 1\]"),
        ("condorcet(actions=2)", "at least 3"),
    ],
)
def test_a_game_that_cannot_be_made_says_why(game: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_game(game)


def test_a_matrix_is_read_from_csv(tmp_path: Path) -> None:
    path = tmp_path / "game.csv"
    path.write_text("\ufeff0.5, 0.7\n0.3,0.5\n\n", encoding="utf-8")
    np.testing.assert_array_equal(load_game(path), [[0.5, 0.7], [0.3, 0.5]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("0.5,0.7\n0.3\n", "row 2 has 1 entries and row 1 has 2"),
        ("a,b\n0.5,0.7\n0.3,0.5\n", "row 1 has 'a', which is not a number"),
        ("0.5,0.7,0.1\n0.3,0.5,0.2\n", r"must be square with at least 2 actions; its shape is \(2, 3\)"),
        ("0.5,0.7\n0.2,0.5\n", r"entries \(0, 1\) and \(1, 0\)"),
        ("0.5,nan\n0.2,0.5\n", "it has nan"),
    ],
)
def test_a_csv_that_is_no_preference_names_the_file_and_the_fault(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "game.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as raised:
        load_game(path)
    assert str(path) in str(raised.value)
