"""`play`: its options, sampled play and what it refuses."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from trainers import DPO, INPO, IPO, IPOMD, OMD, OMWU, ONPO, SPPO, SelfPlay, SLiC
from trainers.algorithm import PairBatch
from trainers.games import NAMED, duality_gap
from trainers.policies.feedback import Exact
from trainers.policies.minimise import ExpectedLoss, Newton
from trainers.policies.tabular import play

CYCLE = np.array([[0.5, 0.7, 0.35], [0.3, 0.5, 0.8], [0.65, 0.2, 0.5]])


@pytest.mark.parametrize(
    ("preference", "message"),
    [
        ([[0.5, 0.2, 0.1], [0.8, 0.5, 0.4]], "must be square"),
        ([0.5], "must be square"),
        ([[0.5]], "at least 2 actions"),
        ([[0.5, 1.2], [-0.2, 0.5]], r"in \[0, 1\]; it has 1.2"),
        ([[0.5, float("nan")], [0.5, 0.5]], r"in \[0, 1\]; it has nan"),
        ([[0.5, 0.7], [0.2, 0.5]], r"P \+ P\^T = 1; entries \(0, 1\) and \(1, 0\) miss it by 0.1"),
        ([[0.6, 0.7], [0.3, 0.5]], r"entries \(0, 0\)"),
    ],
)
def test_a_matrix_that_is_no_preference_is_refused(preference: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        play(ONPO(), preference, 1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"iterations": 0}, "iterations is 0"),
        ({"init": [0.5, 0.5]}, r"init has shape \(2,\)"),
        ({"init": [0.5, 0.4, 0.2]}, "init must be positive and sum to 1"),
        ({"init": [1.0, 0.0, 0.0]}, "init must be positive"),
        ({"reference": [0.5, 0.5, np.nan]}, "reference must be positive"),
        ({"data": [0.2, 0.3, 0.5]}, "data is the law of offline algorithms; onpo samples from the policy"),
        ({"pairs_per_iteration": 5}, "add exact=False"),
        ({"exact": False}, "needs pairs_per_iteration of at least 1; it is None"),
        ({"exact": False, "pairs_per_iteration": 0}, "at least 1; it is 0"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        play(ONPO(), CYCLE, options.pop("iterations", 3), **options)


@pytest.mark.parametrize("algorithm", [IPOMD(), SLiC()])
def test_gradient_steps_need_a_size(algorithm: Any) -> None:
    with pytest.raises(ValueError, match="needs step_size"):
        play(algorithm, CYCLE, 3)


def test_a_logistic_loss_on_a_certain_preference_says_that_it_has_no_minimiser() -> None:
    with pytest.raises(ValueError, match="dpo has no finite minimiser here"):
        play(DPO(), [[0.5, 1.0], [0.0, 0.5]], 1)


def test_a_step_too_bold_for_double_precision_is_told_as_that_and_not_as_certain_preferences() -> None:
    with pytest.raises(ValueError, match=r"sppo: the minimiser was not found .* nats apart.*eta is 1000") as refused:
        play(SPPO(), NAMED["cyc3"], 5)
    assert "entries 0 or 1" not in str(refused.value)
    assert play(SPPO(eta=1.0), NAMED["cyc3"], 5).policies.shape == (6, 3)


@pytest.mark.parametrize("step", [2, 5, 20])
def test_gradient_steps_that_end_a_policy_far_from_its_fixed_point_are_refused(step: float) -> None:
    """Its own fixed point is the control: at short steps the same game ends there, and nothing is refused."""
    algorithm = IPOMD(tau=0.1, mixture=0.0)
    with pytest.raises(ValueError, match=f"ipo-md: the gradient steps of {step:g} are too long .* Lower step_size"):
        play(algorithm, NAMED["cyc3"], 600, step_size=step)
    last = play(algorithm, NAMED["cyc3"], 600, step_size=0.2).policies[-1]
    assert duality_gap(NAMED["cyc3"], last) == pytest.approx(0.053, abs=1e-3)


def test_a_policy_that_rightly_leaves_an_action_is_not_taken_for_one_that_stands_still() -> None:
    """The Nash policy of a Bradley-Terry game plays its best action alone; nothing raises the others again."""
    scores = np.array([1.0, 0.0, -1.0])
    preference = 1 / (1 + np.exp(scores[None, :] - scores[:, None]))
    run = play(SelfPlay(tau=0.0), preference, 2000, step_size=50.0)
    assert run.policies[-1, 0] > 0.999


def test_own_pairs_refitted_against_the_fixed_reference() -> None:
    """The exact refit is ref exp(P pi_t / tau), whatever the policy is: no regime refits from itself here."""
    reference, start = np.array([0.2, 0.5, 0.3]), np.array([0.6, 0.3, 0.1])
    run = play(IPO(regime="on-policy", tau=0.7), CYCLE, 4, reference=reference, init=start)
    for before, after in itertools.pairwise(run.policies):
        weights = reference * np.exp(CYCLE @ before / 0.7)
        np.testing.assert_allclose(after, weights / weights.sum(), atol=1e-12)


def test_policies_begin_with_the_start_and_are_distributions() -> None:
    run = play(ONPO(eta=1.0), CYCLE, 20, init=[0.2, 0.5, 0.3])
    assert run.policies.shape == (21, 3)
    assert run.policies.dtype == np.float64
    np.testing.assert_allclose(run.policies[0], [0.2, 0.5, 0.3])
    np.testing.assert_allclose(run.policies.sum(-1), 1)


def test_a_batch_of_games_is_played_as_each_alone() -> None:
    batch = np.stack([CYCLE, CYCLE.T, np.full((3, 3), 0.5)])
    together = play(DPO(beta=0.3), batch, 15, init=[0.2, 0.5, 0.3])
    assert together.policies.shape == (16, 3, 3)
    assert together.duality_gap().shape == (16, 3)
    for game, preference in enumerate(batch):
        alone = play(DPO(beta=0.3), preference, 15, init=[0.2, 0.5, 0.3])
        np.testing.assert_allclose(together.policies[:, game], alone.policies, atol=1e-11)
        np.testing.assert_allclose(together.average_duality_gap()[:, game], alone.average_duality_gap(), atol=1e-11)


def test_the_average_gap_is_that_of_the_mean_policy_so_far() -> None:
    run = play(OMD(eta=2.0), CYCLE, 9)
    wins = CYCLE @ run.policies[:4].mean(0)
    assert run.average_duality_gap()[3] == pytest.approx(wins.max() - (1 - wins).min())


def test_a_start_may_differ_by_game() -> None:
    starts = np.array([[0.2, 0.5, 0.3], [0.6, 0.2, 0.2]])
    together = play(ONPO(eta=1.0), np.stack([CYCLE, CYCLE]), 10, init=starts)
    np.testing.assert_allclose(together.policies[:, 1], play(ONPO(eta=1.0), CYCLE, 10, init=starts[1]).policies)


def test_a_step_size_may_be_a_function_of_the_iteration() -> None:
    constant = play(IPOMD(tau=0.5), CYCLE, 30, step_size=0.1, init=[0.6, 0.3, 0.1])
    asked: list[int] = []

    def halved_later(t: int) -> float:
        asked.append(t)
        return 0.1 if t <= 20 else 0.05

    timed = play(IPOMD(tau=0.5), CYCLE, 30, step_size=halved_later, init=[0.6, 0.3, 0.1])
    np.testing.assert_array_equal(timed.policies[:21], constant.policies[:21])
    assert not np.allclose(timed.policies[-1], constant.policies[-1], atol=1e-6)
    assert asked == list(range(1, 31))


def test_sampled_play_repeats_with_its_seed_and_changes_with_another() -> None:
    def run(seed: int) -> np.ndarray:
        return play(INPO(eta=2.0), CYCLE, 5, exact=False, pairs_per_iteration=40, seed=seed).policies

    np.testing.assert_array_equal(run(1), run(1))
    assert not np.allclose(run(1), run(2), atol=1e-6)


@pytest.mark.parametrize(
    ("algorithm", "options"), [(ONPO(eta=1.0), {}), (DPO(beta=1.0), {}), (IPOMD(tau=0.5), {"step_size": 0.1})]
)
def test_many_sampled_pairs_come_close_to_exact_play(algorithm: Any, options: dict[str, Any]) -> None:
    exact = play(algorithm, CYCLE, 3, init=[0.5, 0.3, 0.2], **options).policies
    sampled = play(
        algorithm, CYCLE, 3, init=[0.5, 0.3, 0.2], exact=False, pairs_per_iteration=200_000, **options
    ).policies
    np.testing.assert_allclose(sampled, exact, atol=0.01)


def test_a_sampled_refit_leaves_unseen_actions_beside_the_pairs_mean() -> None:
    """One pair (w, l): the least-norm change moves w and l by half the target each, and nothing else."""
    preference = np.full((4, 4), 0.5)
    for seed in range(20):
        run = play(OMD(eta=1.2), preference, 1, exact=False, pairs_per_iteration=1, seed=seed)
        change = np.sort(np.log(run.policies[1]) - np.log(run.policies[0]))
        change -= change[1]
        if change[-1] > 1e-9:
            np.testing.assert_allclose(change, [-0.3, 0.0, 0.0, 0.3], atol=1e-12)
            return
    pytest.fail("every sampled pair held the same action twice")


def test_sampled_pairs_that_fall_into_unconnected_groups_still_have_a_small_solution() -> None:
    """At most three pairs hang together, so no two log-probabilities move apart by more than three targets of eta/2."""
    games = np.full((500, 6, 6), 0.5)
    run = play(OMD(eta=1.2), games, 1, exact=False, pairs_per_iteration=3, seed=4)
    change = np.log(run.policies[1]) - np.log(run.policies[0])
    assert (change.max(-1) - change.min(-1)).max() <= 3 * 0.6 + 1e-9


def test_sampled_pairs_estimate_the_gradient_without_bias() -> None:
    start = [0.5, 0.3, 0.2]
    exact = play(IPOMD(tau=1.0), CYCLE, 1, init=start, step_size=1e-3).policies[1]
    games = np.broadcast_to(CYCLE, (4000, 3, 3))
    sampled = play(IPOMD(tau=1.0), games, 1, init=start, step_size=1e-3, exact=False, pairs_per_iteration=4).policies[1]
    error = sampled.std(0) / np.sqrt(len(sampled))
    assert (np.abs(sampled.mean(0) - exact) < 4 * error).all()


def test_a_curvature_that_depends_on_the_policy_or_on_rewards_is_not_taken_for_a_constant() -> None:
    """Only where the curvature is a constant may one linear solve replace Newton's method."""

    class Weighted(OMWU):
        def loss(self, pair: PairBatch) -> Tensor:
            return (1 + pair.rewards["previous"].margin.square()) * super().loss(pair)

    preference = torch.from_numpy(CYCLE[None])
    start = torch.log(torch.tensor([[0.5, 0.3, 0.2]], dtype=torch.float64))
    law, rewards = (
        Exact(preference).pairs(start),
        {name: (preference @ start.exp()[0]) for name in ("previous", "earlier")},
    )
    for algorithm, constant in ((OMWU(), True), (Weighted(), False), (DPO(), False)):
        loss, newton = ExpectedLoss(algorithm, law, {"previous": start}, rewards), Newton()
        solution = newton.minimise(loss, start)
        assert (newton.constant is not None) == constant
        assert loss.at(solution).size.max() < 1e-13
