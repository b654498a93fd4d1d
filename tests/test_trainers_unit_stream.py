"""The stream on softmax tables: who is met, what it is worth, what is counted, what a look-ahead leaves alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch

from trainers import EGPO, IPO, IPOMD, RL, NashMD, SelfPlay
from trainers.algorithm import Algorithm
from trainers.fitting.optimise import Optimiser
from trainers.fitting.pairs import Pairs
from trainers.fitting.stream import StreamResult, _label, _passes, stream
from trainers.games import NAMED
from trainers.options import Sampling, Training
from trainers.policies.softmax_table import SoftmaxTable

CYC3 = np.array(NAMED["cyc3"])
SIZE = 8
POLICY_GRADIENTS = [SelfPlay(tau=0.2), NashMD(tau=0.2, mixture=0.3), RL(tau=0.2)]
REWARDED = [*POLICY_GRADIENTS, EGPO(tau=0.5)]


def named(algorithm: Algorithm) -> str:
    return algorithm.name


@dataclass
class Judge:
    """P(first beats second) of a game, with every question kept."""

    game: np.ndarray = field(default_factory=lambda: CYC3)
    asked: list[tuple[list[int], list[int], list[int]]] = field(default_factory=list)

    def __call__(self, rows: Sequence[int], first: Sequence[str], second: Sequence[str]) -> np.ndarray:
        self.asked.append((list(rows), [int(a) for a in first], [int(b) for b in second]))
        return self.game[self.asked[-1][1], self.asked[-1][2]]


@dataclass(frozen=True)
class Step:
    """What one optimiser step was given, and the weights and moments it found."""

    learner: SoftmaxTable
    logits: torch.Tensor
    moments: dict[str, torch.Tensor]
    pairs: Pairs
    frozen: dict[str, np.ndarray]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Step]:
    """Every optimiser step of the test, in order."""
    steps: list[Step] = []
    original = Optimiser.step

    def watched(self: Optimiser, policy: Any, algorithm: Algorithm, pairs: Pairs, frozen: Any) -> dict[str, float]:
        steps.append(Step(policy, policy.logits.detach().clone(), self.state(), pairs, dict(frozen)))
        return original(self, policy, algorithm, pairs, frozen)

    monkeypatch.setattr(Optimiser, "step", watched)
    return steps


def table(*logits: float) -> SoftmaxTable:
    return SoftmaxTable(torch.tensor(logits))


def run(
    algorithm: Algorithm,
    compare: Callable[..., np.ndarray],
    *,
    policy: SoftmaxTable | None = None,
    reference: SoftmaxTable | None = None,
    steps: int = 3,
    lr: float = 0.05,
    seed: int = 0,
    temperature: float = 1.0,
    **changes: Any,
) -> StreamResult:
    """A stream of batches of 8 over 8 prompts, in the algorithm's own label."""
    options: dict[str, Any] = {"label": algorithm.pairing.label, "total_steps": steps} | changes
    return stream(
        policy or table(0.3, 0.0, -0.2),
        {"reference": reference or table(0.0, 0.4, 0.1)},
        [[]] * SIZE,
        compare,
        algorithm,
        Training(lr=lr, schedule="constant", warmup=0.0, batch_size=SIZE, precision="fp32"),
        Sampling(k=2, temperature=temperature),
        steps=steps,
        seed=seed,
        **options,
    )


# --- what is sampled and asked -----------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", REWARDED, ids=named)
def test_each_phase_draws_two_responses_of_the_player_and_one_or_two_of_its_opponent(algorithm: Algorithm) -> None:
    judge = Judge()
    result = run(algorithm, judge, steps=3)
    phases = len(algorithm.phases)
    assert result.samples == 3 * phases * (2 + (1 if algorithm.name == "egpo" else 2)) * SIZE
    assert len(judge.asked) == 3 * phases * 2  # one question for each response of a pair, none about the pair
    assert (result.failed, result.truncated, len(result.dynamics)) == (0, 0, 3)


@pytest.mark.parametrize("label", ["soft", "sampled", "argmax"])
def test_without_opponents_one_question_a_pair_and_two_samples_a_prompt(label: str) -> None:
    judge = Judge()
    result = run(IPO(regime="online"), judge, steps=4, label=label)
    assert result.samples == 4 * 2 * SIZE
    assert [sorted(rows) for rows, _, _ in judge.asked] == [list(range(SIZE))] * 4


def test_the_label_none_asks_nothing_and_takes_every_pair_as_it_comes(seen: list[Step]) -> None:
    judge = Judge()
    result = run(IPOMD(tau=1.0), judge, label="none", steps=2)
    assert judge.asked == []
    assert result.failed == 0
    assert all((step.pairs.preference == 1).all() and step.pairs.rewards == {} for step in seen)


@pytest.mark.parametrize("algorithm", REWARDED, ids=named)
def test_a_reward_is_what_the_comparison_with_that_opponent_says(algorithm: Algorithm, seen: list[Step]) -> None:
    judge = Judge()
    run(algorithm, judge, steps=2)
    opponents = [name for _ in range(2) for phase in algorithm.phases for name in phase.opponents]
    assert len(seen) == len(opponents)
    for turn, (step, opponent) in enumerate(zip(seen, opponents, strict=True)):
        own = [[tokens[0] for tokens in side] for side in (step.pairs.chosen, step.pairs.rejected)]
        for side, (rows, first, second) in enumerate(judge.asked[2 * turn : 2 * turn + 2]):
            won = CYC3[first, second]
            worth = np.log(won / (1 - won)) if algorithm.name == "rl" else won
            assert first == own[side]
            assert sorted(rows) == list(range(SIZE))
            np.testing.assert_allclose(step.pairs.rewards[opponent][:, side], worth, rtol=1e-12, atol=1e-12)
        assert set(step.pairs.rewards) == {opponent}


@pytest.mark.parametrize("algorithm", POLICY_GRADIENTS, ids=named)
def test_the_loss_of_a_policy_gradient_is_recomputed_from_its_pairs(algorithm: Any, seen: list[Step]) -> None:
    result = run(algorithm, Judge(), steps=3)
    baseline = 0.0 if algorithm.name == "rl" else 0.5
    for step, figures in zip(seen, result.dynamics, strict=True):
        law = step.logits.log_softmax(-1).numpy()
        reference = table(0.0, 0.4, 0.1).logits.detach().log_softmax(-1).numpy()
        actions = np.array([[c[0], r[0]] for c, r in zip(step.pairs.chosen, step.pairs.rejected, strict=True)])
        own, anchor = law[actions], reference[actions]
        (rewards,) = step.pairs.rewards.values()
        surrogate = -(rewards - baseline - algorithm.tau * (own - anchor)) * own
        np.testing.assert_allclose(step.frozen["reference"], anchor, rtol=1e-6)
        assert figures["loss"] == pytest.approx(surrogate.mean(), rel=1e-5, abs=1e-7)
        assert figures["chosen_log_prob"] == pytest.approx(own[:, 0].mean(), rel=1e-9)


# --- who the opponent is -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("algorithm", "met"),
    [
        (SelfPlay(), {0}),
        (RL(), {2}),
        (NashMD(mixture=0.0), {0}),
        (NashMD(mixture=1.0), {2}),
    ],
    ids=["self-play", "rl", "nash-md at 0", "nash-md at 1"],
)
def test_the_opponent_is_the_policy_the_reference_or_their_mixture(algorithm: Algorithm, met: set[int]) -> None:
    judge = Judge()
    run(algorithm, judge, policy=table(60.0, 0.0, 0.0), reference=table(0.0, 0.0, 60.0), steps=1)
    assert {action for _, first, _ in judge.asked for action in first} == {0}
    assert {action for _, _, second in judge.asked for action in second} == met


def test_nash_md_meets_the_normalised_geometric_mixture() -> None:
    """Logits (12, 12, 0) and (0, 12, 12) share only action 1 at mixture 1/2: logits (6, 12, 6)."""
    judge, share = Judge(), np.exp([6.0, 12.0, 6.0])
    policy, reference = table(12.0, 12.0, 0.0), table(0.0, 12.0, 12.0)
    run(NashMD(mixture=0.5), judge, policy=policy, reference=reference, steps=20, lr=1e-9)
    met = np.concatenate([second for _, _, second in judge.asked])
    assert len(met) == 20 * 2 * SIZE
    assert np.mean(met == 1) >= share[1] / share.sum() - 4 * np.sqrt(0.005 / len(met))


def test_egpos_second_phase_meets_the_look_ahead() -> None:
    """Adam's first step is lr * sign(gradient), so at lr 100 the look-ahead plays only the action that wins."""
    judge = Judge(np.array([[0.5, 0.0], [1.0, 0.5]]))
    policy = table(0.0, 0.0)
    run(EGPO(tau=1.0), judge, policy=policy, reference=table(0.0, 0.0), steps=1, lr=100.0, seed=1)
    before, after = judge.asked[:2], judge.asked[2:]
    assert {b for _, _, second in before for b in second} == {0, 1}
    assert {b for _, _, second in after for b in second} == {1}
    assert {a for _, first, _ in after for a in first} == {0, 1}  # the player is still the policy as it was


def test_both_responses_of_egpos_pair_meet_one_response_of_the_opponent(seen: list[Step]) -> None:
    """Under a Bradley-Terry judge of 10 actions the noise of the target is then tens of times smaller."""
    scores = np.linspace(-0.5, 0.5, 10)
    game = 1 / (1 + np.exp(scores[None, :] - scores[:, None]))
    judge = Judge(game)
    run(EGPO(tau=1.0), judge, policy=table(*[0.0] * 10), reference=table(*[0.0] * 10), steps=300, lr=1e-12)
    for (_, _, one), (_, _, other) in zip(judge.asked[::2], judge.asked[1::2], strict=True):
        assert one == other
    uniform = np.full(10, 0.1)
    expected = game @ uniform
    first, second = (np.concatenate([a for _, a, _ in judge.asked[side::2]]) for side in (0, 1))
    targets = np.concatenate(
        [
            step.pairs.rewards[name][:, 0] - step.pairs.rewards[name][:, 1]
            for step in seen
            for name in step.pairs.rewards
        ]
    )
    noise = np.mean((targets - (expected[first] - expected[second])) ** 2)
    each = ((game - expected[:, None]) ** 2 @ uniform)[None, :]
    shared = (
        (game[:, None] - game[None, :] - (expected[:, None] - expected[None, :])[..., None]) ** 2 @ uniform
    ).mean()
    assert noise == pytest.approx(shared, rel=0.15)
    assert (each + each.T).mean() > 50 * shared


def test_the_players_temperature_is_the_algorithms_and_the_opponents_the_sweeps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[int, float]] = []
    original = SoftmaxTable.sample

    def watched(self: SoftmaxTable, prompts: Any, k: int, options: Sampling, *rest: Any, **more: Any) -> Any:
        asked.append((k, options.temperature))
        return original(self, prompts, k, options, *rest, **more)

    monkeypatch.setattr(SoftmaxTable, "sample", watched)
    run(EGPO(temperature=3.0), Judge(), steps=2, temperature=0.7)
    run(SelfPlay(), Judge(), steps=1, temperature=0.7)
    assert asked == [(2, 3.0), (1, 0.7)] * 4 + [(2, 0.7)] * 2


@pytest.mark.parametrize("algorithm", [*REWARDED, IPOMD(tau=1.0)], ids=named)
def test_no_two_prompts_uses_phases_or_steps_share_a_seed(
    algorithm: Algorithm, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds: list[int] = []
    original = SoftmaxTable.sample

    def watched(self: SoftmaxTable, prompts: Any, k: int, options: Any, given: Sequence[int], **more: Any) -> Any:
        seeds.extend(given)
        return original(self, prompts, k, options, given, **more)

    monkeypatch.setattr(SoftmaxTable, "sample", watched)
    first = run(algorithm, Judge(), steps=2, seed=1)
    run(algorithm, Judge(), steps=2, seed=1, state=first.state)
    run(algorithm, Judge(), steps=1, seed=2)
    uses = sum(1 + len(phase.opponents) for phase in algorithm.phases)  # of each step: the player's and the opponents'
    assert len(set(seeds)) == len(seeds) == 5 * uses * SIZE


def test_sampled_labels_of_a_step_are_not_those_of_another(seen: list[Step]) -> None:
    run(IPO(regime="online"), Judge(np.full((3, 3), 0.5)), label="sampled", steps=8)
    labels = [tuple(step.pairs.preference) for step in seen]
    assert len(set(labels)) >= 7
    assert 16 <= np.sum(labels) <= 48


# --- the look-ahead ----------------------------------------------------------------------------------------------


def test_a_look_ahead_leaves_the_policy_and_its_moments_as_they_were(seen: list[Step]) -> None:
    policy = table(0.3, 0.0, -0.2)
    result = run(EGPO(tau=0.5), Judge(), policy=policy, steps=3)
    for ahead, real in zip(seen[::2], seen[1::2], strict=True):
        assert ahead.learner is not policy
        assert real.learner is policy
        assert torch.equal(ahead.logits, real.logits)
        assert not torch.equal(ahead.learner.logits.detach(), real.logits)
        assert ahead.moments.keys() == real.moments.keys()
        assert all(torch.equal(ahead.moments[name], real.moments[name]) for name in real.moments)
    assert [int(step.moments["schedule_step"]) for step in seen] == [0, 0, 1, 1, 2, 2]
    assert int(result.state["schedule_step"]) == int(result.state["0.step"]) == 3


@pytest.mark.parametrize("algorithm", REWARDED, ids=named)
def test_the_reference_is_never_written(algorithm: Algorithm) -> None:
    policy, reference = table(0.3, 0.0, -0.2), table(0.0, 0.4, 0.1)
    before = reference.logits.detach().clone()
    run(algorithm, Judge(), policy=policy, reference=reference)
    assert torch.equal(reference.logits.detach(), before)
    assert reference.logits.grad is None
    assert not torch.equal(policy.logits.detach(), table(0.3, 0.0, -0.2).logits.detach())


@pytest.mark.parametrize("algorithm", REWARDED, ids=named)
def test_one_seed_gives_one_stream_and_another_seed_another(algorithm: Algorithm) -> None:
    ends = []
    for seed in (4, 4, 5):
        policy = table(0.3, 0.0, -0.2)
        run(algorithm, Judge(), policy=policy, seed=seed, steps=4)
        ends.append(policy.logits.detach())
    assert torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[0], ends[2])


# --- failures ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sides", "lost"), [((0,), {0, 3}), ((1,), {0, 3}), ((0, 1), {0, 3})])
def test_a_pair_with_a_failed_comparison_against_the_opponent_is_dropped_and_counted_once(
    sides: tuple[int, ...], lost: set[int], seen: list[Step]
) -> None:
    judge = Judge()

    def fails(rows: Sequence[int], first: Sequence[str], second: Sequence[str]) -> np.ndarray:
        won = judge(rows, first, second)
        side = (len(judge.asked) - 1) % 2
        return np.where(np.isin(rows, list(lost)) & (side in sides), np.nan, won)

    result = run(SelfPlay(), fails, steps=2)
    assert result.failed == 2 * len(lost)
    assert result.samples == 2 * 4 * SIZE  # what was drawn stays counted
    for step, (rows, first, _) in zip(seen, judge.asked[::2], strict=True):
        kept = [action for row, action in zip(rows, first, strict=True) if row not in lost]
        assert [tokens[0] for tokens in step.pairs.chosen] == kept
        assert np.isfinite(step.pairs.rewards["policy"]).all()
        assert step.frozen["reference"].shape == (SIZE - len(lost), 2)


@pytest.mark.parametrize("algorithm", REWARDED, ids=named)
def test_a_step_whose_rewards_all_failed_is_an_error_and_writes_nothing(algorithm: Algorithm) -> None:
    policy = table(0.3, 0.0, -0.2)
    with pytest.raises(ValueError, match=f"all {SIZE} comparisons of a step failed"):
        run(algorithm, lambda rows, first, second: np.full(len(rows), np.nan), policy=policy)
    assert torch.equal(policy.logits.detach(), table(0.3, 0.0, -0.2).logits.detach())


# --- small parts -------------------------------------------------------------------------------------------------


def test_a_failed_preference_stays_failed_under_every_label() -> None:
    preference = np.array([0.2, np.nan, 0.9])
    for label in ("soft", "sampled", "argmax"):
        labelled = _label(preference, label, np.random.default_rng(0))
        assert np.isnan(labelled).tolist() == [False, True, False]


def test_certain_preferences_are_drawn_as_they_are_and_a_tie_goes_to_the_first() -> None:
    certain = np.array([0.0, 1.0] * 200)
    assert (_label(certain, "sampled", np.random.default_rng(3)) == certain).all()
    assert _label(np.array([0.4999, 0.5, 0.5001]), "argmax", np.random.default_rng(0)).tolist() == [0.0, 1.0, 1.0]


@pytest.mark.parametrize(("count", "draws"), [(1, 4), (5, 3), (5, 5), (5, 12), (7, 21)])
def test_passes_hold_every_row_equally_often(count: int, draws: int) -> None:
    order = _passes(count, draws, seed=2)
    assert len(order) == draws
    for start in range(0, draws, count):
        part = order[start : start + count]
        assert len(set(part)) == len(part)
        assert set(part) <= set(range(count))
    times = np.bincount(order, minlength=count)
    assert times.max() - times.min() <= 1


def test_every_step_is_reported_with_the_steps_in_all() -> None:
    told: list[tuple[int, int]] = []
    run(SelfPlay(), Judge(), steps=3, report=lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_a_games_responses_are_one_token_long_and_all_finished() -> None:
    for figures in run(NashMD(), Judge(), steps=2).dynamics:
        assert (figures["response_length"], figures["finished"], figures["lr"]) == (1.0, 1.0, 0.05)
