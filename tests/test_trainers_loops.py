"""The two fitting loops on tiny language models and on softmax tables, against closed forms and recomputation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from trainers import DPO, INPO, IPOMD, OMD, SLiC
from trainers.algorithm import Algorithm, PairBatch
from trainers.fitting.fit import fit
from trainers.fitting.optimise import Optimiser, _backward
from trainers.fitting.pairs import Pairs, length_batches, score
from trainers.fitting.stream import stream
from trainers.games import NAMED, win_rates
from trainers.options import Sampling, Training
from trainers.policies.causal_lm import CausalLM
from trainers.policies.softmax_table import SoftmaxTable

CYC3 = np.array(NAMED["cyc3"])
TRAINING = Training(lr=1e-2, schedule="cosine", warmup=0.2, batch_size=4, max_length=40, precision="fp32")
LM_SAMPLING = Sampling(k=2, max_tokens=5)


def random_pairs(policy: CausalLM, count: int, seed: int = 0) -> Pairs:
    """Prompts of 2 to 9 tokens and responses of 1 to 7, hard labels."""
    generator = np.random.default_rng(seed)

    def tokens(low: int, high: int) -> list[int]:
        return generator.integers(3, policy.model.config.vocab_size, generator.integers(low, high)).tolist()

    prompts = [[0, *tokens(1, 9)] for _ in range(count)]
    return Pairs(prompts, [tokens(1, 8) for _ in prompts], [tokens(1, 8) for _ in prompts], np.ones(count))


def weights(policy: CausalLM | SoftmaxTable) -> torch.Tensor:
    return torch.cat([p.detach().flatten().clone() for p in policy.parameters()])


def frozen_of(algorithm: Algorithm, policy: CausalLM, pairs: Pairs) -> dict[str, np.ndarray]:
    return {name: score(policy, pairs, 3) for phase in algorithm.phases for name in phase.frozen}


# --- step 0: the policy is its own reference ---------------------------------------------------------------------


def test_dpo_starts_at_ln_2_and_every_margin_at_zero_when_policy_is_reference(policy: CausalLM) -> None:
    pairs = random_pairs(policy, 6)
    first = fit(policy, pairs, frozen_of(DPO(), policy, pairs), DPO(), TRAINING, seed=0)[0]
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert first["log_ratio/previous"] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(
    ("algorithm", "loss"),
    [
        (IPOMD(tau=0.5), 1.0),  # (0 - 1/(2 tau))^2
        (INPO(eta=0.25), 4.0),  # (0 - 1/(2 eta))^2
        (OMD(eta=3.0), 2.25),  # (0 - eta/2)^2
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_squared_losses_start_at_their_squared_target_because_the_margin_is_zero(
    policy: CausalLM, algorithm: Algorithm, loss: float
) -> None:
    pairs = random_pairs(policy, 4)
    first = fit(policy, pairs, frozen_of(algorithm, policy, pairs), algorithm, TRAINING, seed=0)[0]
    assert first["loss"] == pytest.approx(loss, rel=1e-4)


def test_a_soft_label_weighs_both_readings_of_a_pair(policy: CausalLM) -> None:
    pairs = replace(random_pairs(policy, 3), preference=np.array([1.0, 0.25, 0.0]))
    frozen = {"previous": score(policy, pairs, 3) + np.array([[0.5, 0.0]], dtype=np.float32)}  # log-ratio -0.5 each
    first = fit(policy, pairs, frozen, DPO(beta=2.0), TRAINING, seed=0)[0]
    expected = np.mean([p * math.log1p(math.exp(1.0)) + (1 - p) * math.log1p(math.exp(-1.0)) for p in (1.0, 0.25, 0.0)])
    assert first["loss"] == pytest.approx(expected, rel=1e-4)


# --- one optimiser step ------------------------------------------------------------------------------------------


def test_accumulated_micro_batches_of_one_give_the_step_of_one_whole_batch(policy: CausalLM) -> None:
    pairs = random_pairs(policy, 6)
    frozen = frozen_of(DPO(), policy, pairs)
    frozen = {name: values + np.float32(0.3) * np.arange(12).reshape(6, 2) for name, values in frozen.items()}
    stepped = []
    for micro in (None, 1, 4):
        training = TRAINING.model_copy(update={"lr": 1e-3, "batch_size": 6, "warmup": 0.0, "micro_batch_size": micro})
        copy = policy.copy()
        figures = fit(copy, pairs, frozen, DPO(), training, seed=0)
        stepped.append((weights(copy), figures))
    assert not torch.equal(stepped[0][0], weights(policy))
    for other, figures in stepped[1:]:
        assert (stepped[0][0] - other).abs().max() < 1e-6
        for ours, theirs in zip(stepped[0][1], figures, strict=True):
            assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-5)


def test_accumulated_gradients_equal_the_whole_batch_gradient(policy: CausalLM) -> None:
    pairs, gradients = random_pairs(policy, 6), []
    frozen = {"previous": score(policy, pairs, 6)}
    for rows in ([[*range(6)]], [[row] for row in range(6)]):
        copy = policy.copy()
        for part in rows:
            _backward(copy, OMD(eta=1.0), pairs.select(part), {"previous": frozen["previous"][part]}, 6, 1.0)
        gradients.append(torch.cat([p.grad.flatten() for p in copy.parameters() if p.grad is not None]))
    assert (gradients[0] - gradients[1]).norm() < 1e-5 * gradients[0].norm()  # float32


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_with_the_learning_rate_and_leaves_the_weights(
    policy: CausalLM, bad: float
) -> None:
    pairs = random_pairs(policy, 4)
    frozen = {"previous": score(policy, pairs, 4)}
    frozen["previous"][2, 0] = bad
    before = weights(policy)
    with pytest.raises(FloatingPointError, match=r"omd: loss .* lower training.lr \(now 0.01\)"):
        fit(policy, pairs, frozen, OMD(), TRAINING, seed=0)
    assert torch.equal(weights(policy), before)


def test_fit_refuses_no_pairs(policy: CausalLM) -> None:
    with pytest.raises(ValueError, match="no pairs to fit"):
        fit(policy, Pairs([], [], [], np.empty(0)), {}, DPO(), TRAINING, seed=0)


def test_fit_sees_every_pair_once_an_epoch_and_reports_every_step(policy: CausalLM) -> None:
    pairs = random_pairs(policy, 7)
    training = TRAINING.model_copy(update={"batch_size": 3, "epochs": 2, "lr": 1e-9})
    frozen, heard = {"previous": score(policy, pairs, 7)}, []
    scored = score(policy, pairs, 7)
    steps = fit(policy, pairs, frozen, OMD(), training, seed=0, report=lambda *at: heard.append(at))
    assert heard == [(i, 6) for i in range(1, 7)]
    sizes = [3, 3, 1] * 2
    for epoch in (steps[:3], steps[3:]):
        seen = sum(step["chosen_log_prob"] * size for step, size in zip(epoch, sizes, strict=False))
        assert seen == pytest.approx(float(scored[:, 0].sum()), rel=1e-4)


@pytest.mark.parametrize("count", [2, 7, 21], ids=["less than a batch", "three passes", "one pass"])
def test_a_given_number_of_steps_cycles_over_the_pairs_in_full_batches_shuffled_anew(
    policy: CausalLM, count: int
) -> None:
    pairs = random_pairs(policy, count)
    training = TRAINING.model_copy(update={"batch_size": 3, "lr": 1e-9, "schedule": "constant", "warmup": 0.0})
    training = training.model_copy(update={"steps_per_iteration": 7, "epochs": 5})
    scored = score(policy, pairs, 7)
    first, again = (fit(policy, pairs, {"previous": scored}, OMD(), training, seed=3) for _ in range(2))
    seen = [step["chosen_log_prob"] for step in first]
    assert seen == pytest.approx([step["chosen_log_prob"] for step in again], rel=1e-4)
    rows = np.concatenate(_passes(3, count, 21))[:21]
    assert seen == pytest.approx([scored[rows[3 * s : 3 * s + 3], 0].mean() for s in range(7)], rel=1e-4)
    assert len(first) == 7
    assert set(np.bincount(rows, minlength=count)) <= {21 // count, -(-21 // count)}


def _passes(seed: int, count: int, draws: int) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [generator.permutation(count) for _ in range(0, draws, count)]


def test_the_learning_rate_rises_over_the_warmup_and_falls_to_zero_as_a_cosine(policy: CausalLM) -> None:
    pairs = random_pairs(policy, 10)
    training = TRAINING.model_copy(update={"batch_size": 1, "warmup": 0.2, "lr": 1e-6})
    rates = [step["lr"] for step in fit(policy, pairs, {"previous": score(policy, pairs, 5)}, DPO(), training, seed=0)]
    expected = [1e-6 * (t + 1) / 3 if t < 2 else 1e-6 * (1 + math.cos(math.pi * (t - 2) / 8)) / 2 for t in range(10)]
    assert rates == pytest.approx(expected, abs=1e-15)


# --- log-probabilities -------------------------------------------------------------------------------------------


def test_log_probs_equal_a_per_token_recomputation_without_padding(policy: CausalLM) -> None:
    pairs = random_pairs(policy, 5)
    with torch.no_grad():
        ours = policy.log_probs(pairs.prompts, pairs.chosen)
        for value, prompt, response in zip(ours, pairs.prompts, pairs.chosen, strict=True):
            total = 0.0
            for at, token in enumerate(response):
                logits = policy.model(input_ids=torch.tensor([[*prompt, *response[:at]]])).logits[0, -1].double()
                total += float(logits[token] - logits.logsumexp(-1))
            assert float(value) == pytest.approx(total, abs=1e-5)


def test_padding_batch_order_and_batch_size_do_not_change_log_probs(policy: CausalLM) -> None:
    pairs = random_pairs(policy, 12)
    alone = score(policy, pairs, 1)
    for size in (2, 5, 12):
        np.testing.assert_allclose(score(policy, pairs, size), alone, atol=1e-5)
    order = np.random.default_rng(3).permutation(12).tolist()
    np.testing.assert_allclose(score(policy, pairs.select(order), 5), alone[order], atol=1e-5)


def test_length_batches_hold_every_row_once(policy: CausalLM) -> None:
    batches = list(length_batches(random_pairs(policy, 11), 4))
    assert [len(batch) for batch in batches] == [4, 4, 3]
    assert sorted(row for batch in batches for row in batch) == list(range(11))


def test_log_probs_are_float32_under_bf16(policy: CausalLM) -> None:
    half = CausalLM(policy.model, policy.tokenizer, precision="bf16")
    pairs = random_pairs(policy, 3)
    with torch.no_grad():
        found, exact = half.log_probs(pairs.prompts, pairs.chosen), policy.log_probs(pairs.prompts, pairs.chosen)
    assert found.dtype == torch.float32
    assert not torch.equal(found, exact)
    assert torch.allclose(found, exact, rtol=0.1, atol=0.5)


# --- truncation --------------------------------------------------------------------------------------------------


def test_truncation_cuts_responses_to_the_room_their_prompt_leaves_and_counts_them() -> None:
    pairs = Pairs([[1, 2], [1, 2, 3]], [[4] * 5, [5]], [[6] * 3, [7] * 3], np.ones(2))
    cut, count = pairs.truncated(5)
    assert (cut.chosen, cut.rejected, count) == ([[4] * 3, [5]], [[6] * 3, [7] * 2], 2)
    assert pairs.truncated(8)[1] == 0


def test_a_prompt_that_leaves_no_room_for_a_response_is_refused_with_both_lengths() -> None:
    pairs = Pairs([[1, 2, 3]], [[4]], [[5]], np.ones(1))
    with pytest.raises(ValueError, match=r"a prompt has 3 tokens and training\.max_length is 3; raise max_length"):
        pairs.truncated(3)


# --- the stream --------------------------------------------------------------------------------------------------


def prefer_short(rows: object, first: list[str], second: list[str]) -> np.ndarray:
    return np.array([1 / (1 + math.exp(len(a) - len(b))) for a, b in zip(first, second, strict=True)])


@dataclass
class Streamed:
    """A stream on the tiny model, in one piece or several."""

    policy: CausalLM
    reference: CausalLM
    compare: Callable[..., np.ndarray] = prefer_short

    def run(self, steps: int, seed: int = 0, state: dict[str, torch.Tensor] | None = None, **changes: object):  # type: ignore[no-untyped-def]
        prompts = [self.policy.encode(f"the {word}") for word in ("cat", "dog", "big bird", "red", "a it")]
        options = {"label": "soft", "total_steps": 6} | changes
        frozen = {"reference": self.reference}
        training = TRAINING.model_copy(update={"warmup": 0.34, "max_length": options.pop("max_length", 40)})
        return stream(
            self.policy,
            frozen,
            prompts,
            self.compare,
            IPOMD(tau=1.0),
            training,
            options.pop("sampling", LM_SAMPLING),
            steps=steps,
            seed=seed,
            state=state,
            **options,
        )


@pytest.fixture
def streamed(policy: CausalLM, reference: CausalLM) -> Streamed:
    return Streamed(policy, reference)


def test_a_stream_cut_between_two_passes_is_the_stream_without_the_cut(streamed: Streamed) -> None:
    """Five steps of four prompts are four passes over five."""
    whole, cut = streamed, Streamed(streamed.policy.copy(), streamed.reference)
    asked: dict[str, list[object]] = {"whole": [], "cut": []}
    for name, one in (("whole", whole), ("cut", cut)):
        one.compare = lambda *question, kept=asked[name]: kept.append(question) or prefer_short(*question)
    expected = whole.run(10, total_steps=10, label="sampled")
    first = cut.run(5, total_steps=10, label="sampled")
    carried = {name: value.clone() for name, value in first.state.items()}
    second = cut.run(5, total_steps=10, label="sampled", state=carried)
    assert asked["whole"] == asked["cut"]
    assert asked["cut"][:5] != asked["cut"][5:]
    assert [*first.dynamics, *second.dynamics] == expected.dynamics
    assert torch.equal(weights(cut.policy), weights(whole.policy))
    assert expected.state.keys() == second.state.keys()
    assert all(torch.equal(value, second.state[name]) for name, value in expected.state.items())
    assert int(second.state["schedule_step"]) == 10
    assert {int(v) for k, v in second.state.items() if k.endswith(".step")} == {10}


def test_the_number_of_sequences_decoded_at_once_does_not_change_what_a_stream_compares(streamed: Streamed) -> None:
    asked: list[list[object]] = []
    for batch_size in (1, 3, 1024):
        asked.append([])
        one = Streamed(streamed.policy.copy(), streamed.reference)
        one.compare = lambda *question: asked[-1].append(question) or prefer_short(*question)
        one.run(3, sampling=LM_SAMPLING.model_copy(update={"batch_size": batch_size}))
    assert asked[0] == asked[1] == asked[2]


def test_a_step_after_a_cut_equals_the_step_without_the_cut(policy: CausalLM) -> None:
    pairs = [random_pairs(policy, 4, seed) for seed in range(6)]
    frozen = [{"previous": score(policy, batch, 4)} for batch in pairs]
    ends = []
    for cut in (None, 3):
        copy = policy.copy()
        optimiser = Optimiser(copy, TRAINING, 6)
        for t, (batch, scores) in enumerate(zip(pairs, frozen, strict=True)):
            if t == cut:
                optimiser = Optimiser(copy, TRAINING, 6, {k: v.clone() for k, v in optimiser.state().items()})
            optimiser.step(copy, OMD(eta=1.0), batch, scores)
        ends.append((weights(copy), optimiser.state()))
    (whole, moments), (continued, carried) = ends
    assert torch.equal(whole, continued)
    assert moments.keys() == carried.keys()
    assert all(torch.equal(moments[name], carried[name]) for name in moments)
    assert any(name.endswith("exp_avg_sq") for name in moments)


def test_failed_comparisons_are_dropped_from_the_step_and_counted(streamed: Streamed) -> None:
    def half_fails(rows: list[int], first: list[str], second: list[str]) -> np.ndarray:
        return np.where(np.arange(len(rows)) % 2, np.nan, prefer_short(rows, first, second))

    streamed.compare = half_fails
    result = streamed.run(2)
    assert (result.samples, result.failed) == (2 * 2 * 4, 2 * 2)
    lengths = [step["response_length"] for step in result.dynamics]  # the mean over a step's 2 x 4 responses
    assert result.tokens == pytest.approx(8 * sum(lengths))
    assert all(math.isfinite(step["loss"]) for step in result.dynamics)


def test_a_step_whose_comparisons_all_fail_is_an_error(streamed: Streamed) -> None:
    streamed.compare = lambda rows, first, second: np.full(len(rows), np.nan)
    with pytest.raises(ValueError, match="all 4 comparisons of a step failed"):
        streamed.run(1)


def test_a_stream_counts_what_it_cuts(streamed: Streamed) -> None:
    assert streamed.run(2).truncated == 0
    assert streamed.run(2, max_length=5).truncated > 0


def test_a_stream_passes_over_all_prompts_before_it_repeats_one(streamed: Streamed) -> None:
    asked: list[int] = []

    def listen(rows: list[int], first: list[str], second: list[str]) -> np.ndarray:
        asked.extend(rows)
        return prefer_short(rows, first, second)

    streamed.compare = listen
    streamed.run(5)
    assert len(asked) == 20
    assert all(sorted(asked[i : i + 5]) == [0, 1, 2, 3, 4] for i in range(0, 20, 5))


@pytest.mark.parametrize(("label", "allowed"), [("argmax", {1.0}), ("sampled", {0.0, 1.0}), ("soft", {0.7})])
def test_a_streams_label_is_kept_drawn_or_hardened(label: str, allowed: set[float]) -> None:
    seen: list[float] = []

    class Watching(IPOMD):
        def loss(self, pair: PairBatch) -> torch.Tensor:
            return super().loss(pair)

    table, frozen = SoftmaxTable(torch.zeros(3)), SoftmaxTable(torch.zeros(3))
    import trainers.fitting.stream as loop

    original = loop._label
    try:
        loop._label = lambda p, kind, g: seen.extend(found := original(p, kind, g)) or found  # type: ignore[assignment]
        stream(
            table,
            {"reference": frozen},
            [[]] * 64,
            lambda rows, a, b: np.full(len(rows), 0.7),
            Watching(tau=1.0),
            Training(lr=1e-3, batch_size=64, precision="fp32"),
            Sampling(k=2),
            label=label,
            steps=4,
            total_steps=4,
            seed=0,
        )
    finally:
        loop._label = original
    assert set(seen) == allowed
    if label == "sampled":
        assert np.mean(seen) == pytest.approx(0.7, abs=4 * math.sqrt(0.7 * 0.3 / 256))


# --- games through the very same loops ---------------------------------------------------------------------------


def sampled_pairs(preference: np.ndarray, law: np.ndarray, count: int, seed: int) -> Pairs:
    """Independent pairs of actions with a drawn winner each, as `iid` with label `sampled` makes them."""
    generator = np.random.default_rng(seed)
    first, second = (generator.choice(len(law), count, p=law) for _ in range(2))
    wins = generator.random(count) < preference[first, second]
    chosen, rejected = np.where(wins, first, second), np.where(wins, second, first)
    return Pairs([[]] * count, [[int(a)] for a in chosen], [[int(a)] for a in rejected], np.ones(count))


@pytest.mark.parametrize(
    "algorithm", [OMD(eta=1.0), INPO(eta=1.0, tau=0.0), IPOMD(tau=0.5)], ids=lambda algorithm: algorithm.name
)
def test_fit_on_many_sampled_pairs_of_a_game_takes_the_exact_mirror_step(algorithm: Algorithm) -> None:
    """The squared losses' minimiser over iid pairs is pi proportional to start exp(step P pi).

    The population minimiser's log-ratio is 2 target (P pi)_y up to a constant, with the loss (h - target)^2. With N
    pairs the standard error of a log-ratio is below 2 target / sqrt(N min pi) (a label's variance is at most 1/4).
    """
    start = np.array([0.5, 0.2, 0.3])
    count, target = 8_000, algorithm.target_nats()
    assert target is not None
    table = SoftmaxTable(torch.tensor(start).log())
    pairs = sampled_pairs(CYC3, start, count, seed=1)
    frozen = {name: score(table, pairs, count) for phase in algorithm.phases for name in phase.frozen}
    training = Training(lr=0.1, warmup=0.0, batch_size=count, epochs=60, precision="fp32")
    fit(table, pairs, frozen, algorithm, training, seed=0)
    found = table.logits.detach().log_softmax(-1).numpy() - np.log(start)
    exact = 2 * target * win_rates(CYC3, start)
    error = (found - found.mean()) - (exact - exact.mean())
    assert np.abs(exact - exact.mean()).max() > 0.1
    assert np.abs(error).max() < 4 * 2 * target / math.sqrt(count * start.min())


def regularised_nash(preference: np.ndarray, tau: float) -> np.ndarray:
    """The fixed point log pi = (P pi) / tau + constant against the uniform reference, by damped iteration."""
    log_policy = np.zeros(len(preference))
    for _ in range(20_000):
        policy = np.exp(log_policy - log_policy.max())
        policy /= policy.sum()
        log_policy = 0.98 * log_policy + 0.02 * win_rates(preference, policy) / tau
    return policy


@pytest.mark.parametrize("mixture", [0.0, 0.5])
def test_streamed_ipo_md_on_sampled_pairs_approaches_the_regularised_nash_policy(mixture: float) -> None:
    """At the fixed point the mixture of policy and reference is the Nash policy at tau / (1 - mixture)."""
    tau, preference = 0.25, CYC3
    table, uniform = SoftmaxTable(torch.zeros(3)), SoftmaxTable(torch.zeros(3))
    result = stream(
        table,
        {"reference": uniform},
        [[]],
        lambda rows, a, b: preference[[int(x) for x in a], [int(x) for x in b]],
        IPOMD(tau=tau, mixture=mixture),
        Training(lr=0.04, warmup=0.0, schedule="linear", batch_size=256, precision="fp32", max_grad_norm=1e9),
        Sampling(k=2),
        label="soft",
        steps=300,
        total_steps=300,
        seed=0,
    )
    mixed = ((1 - mixture) * table.logits.detach()).softmax(-1).numpy()
    nash = regularised_nash(preference, tau / (1 - mixture))
    assert np.abs(nash - 1 / 3).max() > 0.03
    assert np.abs(mixed - nash).max() < 0.03
    assert result.samples == 300 * 2 * 256


def test_slic_moves_a_table_towards_the_action_that_always_wins() -> None:
    preference = np.array([[0.5, 1.0, 1.0], [0.0, 0.5, 1.0], [0.0, 0.0, 0.5]])
    law = np.full(3, 1 / 3)
    table, pairs = SoftmaxTable(torch.zeros(3)), sampled_pairs(preference, law, 2000, seed=0)
    algorithm = SLiC()
    frozen = {name: score(table, pairs, 2000) for phase in algorithm.phases for name in phase.frozen}
    fit(table, pairs, frozen, algorithm, Training(lr=0.05, batch_size=500, epochs=5, precision="fp32"), seed=0)
    ranked = table.logits.detach().numpy()
    assert ranked[0] > ranked[1] > ranked[2]
