"""Optimiser, pairs, options, softmax tables and games, each against its closed form."""

from __future__ import annotations

import math
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from trainers import OMD
from trainers.engines.randomness import response_seeds
from trainers.fitting.optimise import OPTIMIZERS, Optimiser
from trainers.fitting.pairs import Pairs, length_batches, pair_log_probs, pair_values, score, token_counts
from trainers.games import (
    check_preference,
    condorcet_game,
    duality_gap,
    entropy,
    kl_divergence,
    log_log_slope,
    nash_policy,
    random_game,
    regularised_gap,
    reward_change,
    win_rates,
)
from trainers.options import Sampling, Training
from trainers.policies.softmax_table import SoftmaxTable

LAW = np.array([0.5, 0.3, 0.2])
(PHASE,) = OMD(eta=1.0).phases
(ANCHOR,) = PHASE.frozen


def table(law: np.ndarray = LAW) -> SoftmaxTable:
    return SoftmaxTable(torch.from_numpy(np.log(law)))


def action_pairs(chosen: list[int], rejected: list[int]) -> Pairs:
    return Pairs([[]] * len(chosen), [[a] for a in chosen], [[b] for b in rejected], np.ones(len(chosen)))


def stepped(training: Training, steps: int, taken: int, policy: SoftmaxTable) -> tuple[Optimiser, list[dict[str, Any]]]:
    """An optimiser after some steps of OMD on two fixed pairs."""
    pairs = action_pairs([0, 1], [1, 2])
    optimiser = Optimiser(policy, training, steps)
    frozen = {ANCHOR: score(policy, pairs, 2)}
    return optimiser, [optimiser.step(policy, OMD(eta=1.0), pairs, frozen) for _ in range(taken)]


# --- the optimiser -----------------------------------------------------------------------------------------------


def decay(schedule: str, step: int, warmup: int, steps: int) -> float:
    """The share of the peak rate at a step: an even rise to the peak at step `warmup`, then the decay."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if schedule == "constant":
        return 1.0
    left = (steps - step) / (steps - warmup)
    return left if schedule == "linear" else 0.5 * (1 + math.cos(math.pi * (1 - left)))


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
@pytest.mark.parametrize(("share", "steps"), [(0.0, 7), (0.25, 8), (0.3, 11), (0.9, 10)])
def test_a_learning_rate_is_its_warm_up_then_its_decay(schedule: Any, share: float, steps: int) -> None:
    training = Training(lr=0.02, schedule=schedule, warmup=share, batch_size=2)
    _, figures = stepped(training, steps, steps, table())
    expected = [0.02 * decay(schedule, t, round(share * steps), steps) for t in range(steps)]
    rates = [f["lr"] for f in figures]
    assert rates == pytest.approx(expected, rel=1e-9, abs=1e-15)
    assert min(rates) > 0  # no step of the work is wasted
    assert rates[round(share * steps)] == max(rates) == 0.02


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
@pytest.mark.parametrize("cut", [1, 2, 5])
def test_a_schedule_goes_on_where_its_state_was_taken(schedule: Any, cut: int) -> None:
    training, policy = Training(lr=0.02, schedule=schedule, warmup=0.25, batch_size=2), table()
    first, _ = stepped(training, 8, cut, policy)
    second = Optimiser(policy, training, 8, first.state())
    assert second.schedule.get_last_lr()[0] == pytest.approx(0.02 * decay(schedule, cut, 2, 8), rel=1e-9)
    assert int(second.state()["schedule_step"]) == cut


def test_the_state_is_a_copy_that_later_steps_and_other_optimisers_do_not_touch() -> None:
    training, policy = Training(lr=0.1, schedule="constant", warmup=0.0, batch_size=2), table()
    optimiser, _ = stepped(training, 9, 2, policy)
    state = optimiser.state()
    kept = {name: value.clone() for name, value in state.items()}
    pairs, copy = action_pairs([0], [2]), policy.copy()
    other = Optimiser(copy, training, 9, optimiser.state())
    other.step(copy, OMD(eta=1.0), pairs, {ANCHOR: score(copy, pairs, 1)})
    again = optimiser.state()
    assert all(torch.equal(again[name], kept[name]) for name in kept)
    optimiser.step(policy, OMD(eta=1.0), pairs, {ANCHOR: score(policy, pairs, 1)})
    assert all(torch.equal(state[name], kept[name]) for name in kept)
    assert not torch.equal(optimiser.state()["0.exp_avg"], kept["0.exp_avg"])
    state["0.exp_avg"].fill_(99.0)
    assert float(optimiser.state()["0.exp_avg"].max()) < 99.0


def test_a_fresh_optimiser_has_no_moments_and_no_steps() -> None:
    state = Optimiser(table(), Training(), 5).state()
    assert state.keys() == {"schedule_step"}
    assert int(state["schedule_step"]) == 0


@pytest.mark.parametrize("limit", [1e9, 0.5, 1e-3])
def test_the_first_moment_is_a_tenth_of_the_clipped_gradient(limit: float) -> None:
    """At log-ratio 0 the gradient of (h - eta/2)^2 is -eta (onehot(chosen) - onehot(rejected)), here its mean."""
    training = Training(lr=0.1, schedule="constant", warmup=0.0, batch_size=2, max_grad_norm=limit)
    policy = table()
    optimiser, (figures,) = stepped(training, 5, 1, policy)
    gradient = -np.array([1.0, 0.0, -1.0]) / 2  # pairs (0, 1) and (1, 2)
    norm = np.linalg.norm(gradient)
    assert figures["grad_norm"] == pytest.approx(norm, rel=1e-5)
    assert figures["loss"] == pytest.approx(0.25, rel=1e-5)
    expected = 0.1 * gradient * min(1.0, limit / norm)
    np.testing.assert_allclose(optimiser.state()["0.exp_avg"].numpy(), expected, rtol=1e-4, atol=1e-8)
    moved = policy.logits.detach().numpy() - np.log(LAW)
    np.testing.assert_allclose(moved[[0, 2]], [0.1, -0.1], rtol=1e-3)  # Adam's first step is lr * sign


# --- pairs -------------------------------------------------------------------------------------------------------


def random_pairs(count: int, seed: int) -> Pairs:
    generator = np.random.default_rng(seed)

    def texts(low: int) -> list[list[int]]:
        return [generator.integers(0, 3, generator.integers(low, 9)).tolist() for _ in range(count)]

    rewards = {name: generator.random((count, 2)) for name in ("policy", "auxiliary")}
    return Pairs(texts(0), texts(1), texts(1), generator.random(count), rewards)


@given(st.integers(0, 12), st.integers(0, 99), st.data())
@settings(max_examples=40, deadline=None)
def test_selected_rows_keep_their_label_their_rewards_and_their_order(count: int, seed: int, data: Any) -> None:
    pairs = random_pairs(count, seed)
    rows = data.draw(st.lists(st.integers(0, count - 1), max_size=15)) if count else []
    chosen = pairs.select(rows)
    assert len(chosen) == len(rows)
    assert chosen.rewards.keys() == pairs.rewards.keys()
    for place, row in enumerate(rows):
        assert chosen.prompts[place] == pairs.prompts[row]
        assert (chosen.chosen[place], chosen.rejected[place]) == (pairs.chosen[row], pairs.rejected[row])
        assert chosen.preference[place] == pairs.preference[row]
        assert all((chosen.rewards[name][place] == values[row]).all() for name, values in pairs.rewards.items())


@given(st.integers(1, 12), st.integers(0, 99), st.integers(9, 20))
@settings(max_examples=40, deadline=None)
def test_cut_responses_are_beginnings_that_fit_and_nothing_else_changes(count: int, seed: int, room: int) -> None:
    pairs = random_pairs(count, seed)
    cut, number = pairs.truncated(room)
    assert cut.prompts == pairs.prompts
    assert cut.rewards is pairs.rewards
    changed = 0
    for before, after in ((pairs.chosen, cut.chosen), (pairs.rejected, cut.rejected)):
        for prompt, whole, part in zip(pairs.prompts, before, after, strict=True):
            assert part == whole[: len(part)]
            assert len(part) == min(len(whole), room - len(prompt))
            changed += part != whole
    assert number == changed
    assert cut.truncated(room)[1] == 0


@given(st.integers(0, 12), st.integers(0, 99), st.integers(1, 14))
@settings(max_examples=40, deadline=None)
def test_batches_by_length_cover_every_row_once_and_never_get_shorter(count: int, seed: int, size: int) -> None:
    pairs = random_pairs(count, seed)
    batches = list(length_batches(pairs, size))
    rows = [row for batch in batches for row in batch]
    longest = [len(pairs.prompts[r]) + max(len(pairs.chosen[r]), len(pairs.rejected[r])) for r in rows]
    assert sorted(rows) == list(range(count))
    assert longest == sorted(longest)
    assert len(batches) == math.ceil(count / size)
    assert all(len(batch) == size for batch in batches[:-1])


@pytest.mark.parametrize("batch_size", [1, 2, 5, 64])
def test_scores_are_the_log_probabilities_whatever_the_batches(batch_size: int) -> None:
    pairs, policy = random_pairs(9, 3), table()
    scored = score(policy, pairs, batch_size)
    expected = [[math.log(LAW[c[0]]), math.log(LAW[r[0]])] for c, r in zip(pairs.chosen, pairs.rejected, strict=True)]
    np.testing.assert_allclose(scored, expected, rtol=1e-6)
    assert scored.dtype == np.float32
    assert policy.logits.grad is None
    own = pair_log_probs(policy, pairs)
    np.testing.assert_allclose(torch.stack([own.chosen, own.rejected], -1).detach().numpy(), expected, rtol=1e-12)


def test_token_counts_are_lengths_and_values_become_columns() -> None:
    pairs = random_pairs(6, 1)
    counts = token_counts(pairs)
    assert counts.tolist() == [[len(c), len(r)] for c, r in zip(pairs.chosen, pairs.rejected, strict=True)]
    values = pair_values(counts, torch.zeros(1, dtype=torch.float64))
    assert values.chosen.dtype == torch.float64
    assert values.chosen.tolist() == [len(c) for c in pairs.chosen]
    assert values.margin.tolist() == (counts[:, 0] - counts[:, 1]).tolist()
    assert values.swapped().margin.tolist() == (-values.margin).tolist()


# --- options -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("group", "option", "wrong"),
    [
        (Sampling, "k", 1),
        (Sampling, "k", 2.0),
        (Sampling, "temperature", 0),
        (Sampling, "temperature", -1.0),
        (Sampling, "top_p", 0),
        (Sampling, "top_p", 1.01),
        (Sampling, "max_tokens", 0),
        (Sampling, "max_tokens", True),
        (Sampling, "batch_size", -3),
        (Sampling, "engine", "guess"),
        (Training, "lr", 0),
        (Training, "schedule", "step"),
        (Training, "warmup", 1),
        (Training, "warmup", -0.1),
        (Training, "epochs", 0),
        (Training, "batch_size", "8"),
        (Training, "micro_batch_size", 0),
        (Training, "max_length", 1),
        (Training, "precision", "fp16"),
        (Training, "steps_per_iteration", 0),
        (Training, "max_grad_norm", 0),
    ],
)
def test_an_option_out_of_its_range_is_refused_by_its_name(group: Any, option: str, wrong: object) -> None:
    with pytest.raises(ValidationError) as raised:
        group(**{option: wrong})
    assert [error["loc"] for error in raised.value.errors()] == [(option,)]


def test_the_ends_of_the_ranges_are_allowed() -> None:
    assert Sampling(k=2, top_p=1, max_tokens=1, batch_size=1).top_p == 1
    assert Training(warmup=0, max_length=2, micro_batch_size=None, steps_per_iteration=1).warmup == 0


@pytest.mark.parametrize("group", [Sampling, Training])
def test_options_are_frozen_and_unknown_ones_are_errors(group: Any) -> None:
    with pytest.raises(ValidationError, match="learning_rate"):
        group(learning_rate=1)
    with pytest.raises(ValidationError, match="frozen"):
        group().batch_size = 3


# --- softmax tables ----------------------------------------------------------------------------------------------


@given(st.lists(st.floats(-30, 30), min_size=2, max_size=6))
@settings(max_examples=30, deadline=None)
def test_log_probs_are_logits_less_their_log_sum_of_exponentials(logits: list[float]) -> None:
    policy = SoftmaxTable(torch.tensor(logits, dtype=torch.float64))
    actions = [*range(len(logits)), 0]
    found = policy.log_probs([[]] * len(actions), [[a] for a in actions]).detach().numpy()
    total = max(logits) + math.log(math.fsum(math.exp(x - max(logits)) for x in logits))
    np.testing.assert_allclose(found, [logits[a] - total for a in actions], rtol=1e-12, atol=1e-12)
    assert np.exp(found[:-1]).sum() == pytest.approx(1)


def test_the_gradient_of_a_log_prob_is_the_action_less_the_law() -> None:
    policy = table()
    policy.log_probs([[]], [[1]]).sum().backward()
    assert policy.logits.grad is not None
    np.testing.assert_allclose(policy.logits.grad.numpy(), np.array([0.0, 1.0, 0.0]) - LAW, atol=1e-12)


def drawn(policy: SoftmaxTable, count: int, temperature: float, mix: Any = None, seed: int = 0) -> list[int]:
    seeds = response_seeds(seed, range(count // 4))
    rows = policy.sample([[]] * (count // 4), 4, Sampling(temperature=temperature), seeds, mix=mix)
    assert all(len(row) == 4 for row in rows)
    return [response.tokens[0] for row in rows for response in row]


@pytest.mark.parametrize(("temperature", "share"), [(1.0, None), (2.0, None), (0.5, None), (1.0, 0.25), (2.0, 0.75)])
def test_drawn_actions_pass_a_chi_square_test_against_their_law(temperature: float, share: float | None) -> None:
    """With 2 degrees of freedom the tail beyond x is exp(-x/2): 18.4 is passed one time in 10,000."""
    other = np.array([0.1, 0.2, 0.7])
    law = LAW if share is None else LAW ** (1 - share) * other**share
    law = law ** (1 / temperature)
    expected = 4000 * law / law.sum()
    mix = None if share is None else (table(other), share)
    counts = np.bincount(drawn(table(), 4000, temperature, mix), minlength=3)
    assert ((counts - expected) ** 2 / expected).sum() < 18.4


def test_a_mixture_at_its_ends_draws_as_either_table() -> None:
    policy, other = table(), table(np.array([0.1, 0.2, 0.7]))
    assert drawn(policy, 200, 1.0, (other, 0.0)) == drawn(policy, 200, 1.0)
    assert drawn(policy, 200, 1.0, (other, 1.0)) == drawn(other, 200, 1.0)


def test_a_copy_shares_no_weights_with_its_table() -> None:
    policy = table()
    copy = policy.copy()
    assert torch.equal(copy.logits, policy.logits)
    with torch.no_grad():
        copy.logits += torch.tensor([1.0, 2.0, 3.0])
    np.testing.assert_allclose(policy.logits.detach().numpy(), np.log(LAW))
    start = torch.zeros(3, dtype=torch.float64)
    held = SoftmaxTable(start)
    start += 5
    assert held.logits.tolist() == [0.0, 0.0, 0.0]
    assert policy.encode("anything") == []


# --- games -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [[[0.5]], [0.5, 0.5], np.full((2, 2, 2, 2), 0.5), np.full((2, 3, 2), 0.5)])
def test_a_preference_of_another_shape_is_refused_with_its_shape(wrong: Any) -> None:
    with pytest.raises(ValueError, match="square with at least 2 actions") as raised:
        check_preference(wrong)
    assert str(np.shape(wrong)) in str(raised.value)


def test_one_bad_game_of_many_is_refused() -> None:
    games = np.stack([random_game(3, seed) for seed in range(4)])
    np.testing.assert_array_equal(check_preference(games), games)
    games[2, 0, 1] = 1.5
    with pytest.raises(ValueError, match=r"it has 1\.5"):
        check_preference(games)


@given(st.integers(2, 7), st.integers(0, 999))
@settings(max_examples=30, deadline=None)
def test_win_rates_gaps_and_entropies_of_a_batch_are_those_of_each_game(actions: int, seed: int) -> None:
    games = np.stack([random_game(actions, seed + i) for i in range(3)])
    laws = np.random.default_rng(seed).dirichlet(np.ones(actions), 3)
    rates, gaps = win_rates(games, laws), duality_gap(games, laws)
    for i in range(3):
        np.testing.assert_allclose(rates[i], games[i] @ laws[i])
        assert laws[i] @ rates[i] == pytest.approx(0.5)  # a policy ties with itself
        assert gaps[i] == pytest.approx((games[i] @ laws[i]).max() - (laws[i] @ games[i]).min())
        assert gaps[i] >= -1e-12
        assert entropy(laws)[i] <= math.log(actions) + 1e-12
        assert entropy(laws[i]) == pytest.approx(
            math.log(actions) - kl_divergence(laws[i], np.full(actions, 1 / actions))
        )


def test_renaming_actions_renames_the_nash_policy() -> None:
    game, order = random_game(6, 3), np.array([3, 0, 5, 1, 4, 2])
    np.testing.assert_allclose(nash_policy(game[np.ix_(order, order)]), nash_policy(game)[order], atol=1e-6)


@pytest.mark.parametrize("tau", [0.05, 0.5, 5.0])
def test_the_regularised_gap_of_the_reference_is_twice_its_free_energy(tau: float) -> None:
    game, reference = condorcet_game(5, 0.7, 2), np.full(5, 0.2)
    energy = tau * math.log(np.mean(np.exp(game @ reference / tau)))
    assert regularised_gap(game, reference, reference, tau) == pytest.approx(2 * energy - 1)
    assert regularised_gap(game, reference, reference, tau) <= duality_gap(game, reference)


@pytest.mark.parametrize("generated", [random_game(7, 1), condorcet_game(7, 0.3, 1), condorcet_game(3, 1.0, 0)])
def test_generated_games_are_preferences(generated: np.ndarray) -> None:
    np.testing.assert_allclose(generated + generated.T, 1, atol=1e-12)
    np.testing.assert_allclose(np.diag(generated), 0.5)
    assert (check_preference(generated) == generated).all()


def test_a_policy_that_does_not_move_changes_no_reward() -> None:
    game, law = random_game(4, 0), np.array([0.1, 0.2, 0.3, 0.4])
    assert reward_change(game, np.stack([law] * 5)).tolist() == [0.0] * 4


@pytest.mark.parametrize("factor", [1e-3, 1.0, 50.0])
def test_a_factor_does_not_change_a_slope(factor: float) -> None:
    counts = np.arange(1, 500)
    assert log_log_slope(factor * counts**-1.5) == pytest.approx(-1.5)
    assert log_log_slope(np.full(499, factor)) == pytest.approx(0, abs=1e-12)


def test_every_optimizer_that_a_config_may_name_has_a_rule_and_the_other_way_round() -> None:
    assert set(OPTIMIZERS) == set(get_args(Training.model_fields["optimizer"].annotation))
