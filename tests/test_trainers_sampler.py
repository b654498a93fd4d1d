"""The sampler's law, token by token, against full forward passes that know no cache, no padding and no dropping."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from trainers.engines import transformers as engine
from trainers.engines.engine import Decoding
from trainers.engines.randomness import response_seeds
from trainers.engines.transformers import next_token_probs, sample_tokens
from trainers.options import Sampling
from trainers.policies.causal_lm import CausalLM
from trainers.policies.softmax_table import SoftmaxTable

PROMPTS = [[0, 5, 6], [0, 7], [0, 9, 8, 7, 6, 5, 10], [0, 11, 12, 5]]


def seeds(seed: int = 0, count: int = len(PROMPTS)) -> list[int]:
    return response_seeds(seed, range(count))


def law(policy: CausalLM, tokens: list[int], temperature: float = 1.0) -> Tensor:
    """log p(next | tokens), one sequence, no cache."""
    with torch.no_grad():
        logits = policy.model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, -1]
    return torch.log_softmax(logits.double() / temperature, -1)


def mixed_law(policy: CausalLM, reference: CausalLM, tokens: list[int], share: float, temperature: float) -> Tensor:
    weighted = (1 - share) * law(policy, tokens, temperature) + share * law(reference, tokens, temperature)
    return torch.log_softmax(weighted, -1)


class Recorder:
    """Keeps every next-token law that the sampler draws from, and the rows it belongs to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
        self.laws: list[tuple[Tensor, Tensor]] = []
        self.alive = torch.arange(rows)
        law, pack = engine.next_token_probs, engine.packed

        def record(*arguments: Any) -> Tensor:
            self.laws.append((law(*arguments), self.alive))
            return self.laws[-1][0]

        def move(keep: Tensor) -> Tensor:
            kept = pack(keep)
            self.alive = self.alive[kept]
            return kept

        monkeypatch.setattr(engine, "next_token_probs", record)
        monkeypatch.setattr(engine, "packed", move)

    def check(self, prompts: list[list[int]], rows: list[list[int]], expected: Callable[[list[int]], Tensor]) -> int:
        """Compare each recorded law with `expected(tokens)` of the row that it belongs to; how many were compared."""
        compared = 0
        for position, (recorded, alive) in enumerate(self.laws):
            assert set(alive.tolist()) == {i for i, row in enumerate(rows) if len(row) > position}
            for values, i in zip(recorded, alive.tolist(), strict=True):
                wanted = expected([*prompts[i], *rows[i][:position]])
                torch.testing.assert_close(values.double(), wanted.exp(), atol=1e-5, rtol=0)
                compared += 1
        return compared


@pytest.mark.parametrize(("share", "temperature"), [(0.0, 1.0), (0.125, 1.0), (0.5, 0.7), (1.0, 1.0)])
def test_every_position_follows_the_normalised_geometric_mixture(
    policy: CausalLM, reference: CausalLM, monkeypatch: pytest.MonkeyPatch, share: float, temperature: float
) -> None:
    k, order = 3, sorted(range(len(PROMPTS)), key=lambda i: len(PROMPTS[i]))
    recorder = Recorder(monkeypatch, k * len(PROMPTS))
    drawn = policy.sample(
        PROMPTS, k, Sampling(k=k, max_tokens=12, temperature=temperature), seeds(1), (reference, share)
    )
    prompts = [PROMPTS[i] for i in order for _ in range(k)]
    rows = [response.tokens for i in order for response in drawn[i]]
    assert len({len(row) for row in rows}) > 2, "rows must end at different positions for the dropping to be tested"
    compared = recorder.check(prompts, rows, lambda t: mixed_law(policy, reference, t, share, temperature))
    assert compared == sum(map(len, rows))


def test_temperature_is_applied_to_both_models_before_they_are_mixed() -> None:
    """Not the same as mixing first where the models' raw logits carry different constants or normalisers."""
    logits = [torch.randn(1, 7, generator=torch.Generator().manual_seed(i)) * 3 for i in range(2)]
    got = next_token_probs([(None, 0.7), (None, 0.3)], logits, 0.5).double()  # type: ignore[list-item]
    laws = [(raw.double() * 2).softmax(-1) for raw in logits]
    product = laws[0] ** 0.7 * laws[1] ** 0.3
    torch.testing.assert_close(got, product / product.sum(), atol=1e-6, rtol=0)


def test_greedy_decoding_equals_generate_token_by_token(policy: CausalLM) -> None:
    decoding = Decoding(max_tokens=15, temperature=0, end_tokens=frozenset({1}))
    ours = sample_tokens([(policy.model, 1.0)], PROMPTS, 1, decoding, seeds())
    for prompt, (row,) in zip(PROMPTS, ours, strict=True):
        theirs = policy.model.generate(
            torch.tensor([prompt]), do_sample=False, max_new_tokens=15, eos_token_id=1, pad_token_id=1
        )
        assert row == theirs[0, len(prompt) :].tolist()


def assert_drawn_from(expected: np.ndarray, counts: np.ndarray) -> None:
    """Chi-square over the tokens that are expected five times: mean `freedom`, variance 2 `freedom`."""
    usual = expected >= 5
    statistic, freedom = ((counts[usual] - expected[usual]) ** 2 / expected[usual]).sum(), usual.sum() - 1
    assert freedom >= 5
    assert statistic < freedom + 4 * np.sqrt(2 * freedom)


def test_sampled_tokens_pass_a_chi_square_test_against_the_exact_law(policy: CausalLM, reference: CausalLM) -> None:
    draws, prompt, share = 4000, PROMPTS[0], 0.3
    drawn = policy.sample([prompt], draws, Sampling(k=draws, max_tokens=1), seeds(2, 1), (reference, share))[0]
    counts = np.bincount([r.tokens[0] for r in drawn], minlength=policy.model.config.vocab_size)
    expected = mixed_law(policy, reference, prompt, share, 1.0).exp().numpy() * draws
    assert_drawn_from(expected, counts)


def test_second_tokens_pass_a_chi_square_test_after_the_cache_was_repeated(policy: CausalLM) -> None:
    draws, prompt = 4000, PROMPTS[2]
    drawn = policy.sample([PROMPTS[1], prompt], draws, Sampling(k=draws, max_tokens=2), seeds(3, 2))[1]
    first = np.bincount([r.tokens[0] for r in drawn]).argmax()
    seconds = [r.tokens[1] for r in drawn if r.tokens[0] == first and len(r.tokens) > 1]
    expected = law(policy, [*prompt, int(first)]).exp().numpy() * len(seconds)
    counts = np.bincount(seconds, minlength=len(expected))
    assert_drawn_from(expected, counts)


@pytest.mark.parametrize("top_p", [0.3, 0.6, 0.9])
def test_top_p_keeps_the_smallest_set_of_likeliest_tokens_that_reaches_it(policy: CausalLM, top_p: float) -> None:
    prompt = PROMPTS[0]
    ranked = sorted(enumerate(law(policy, prompt).exp().tolist()), key=lambda pair: -pair[1])
    kept, mass = set(), 0.0
    for token, probability in ranked:
        if mass >= top_p:
            break
        kept.add(token)
        mass += probability
    drawn = policy.sample([prompt], 3000, Sampling(k=3000, max_tokens=1, top_p=top_p), seeds(4, 1))[0]
    seen = {r.tokens[0] for r in drawn}
    assert seen <= kept
    assert {token for token, p in ranked if token in kept and p > 0.01} <= seen


def test_an_end_token_ends_its_row_is_kept_in_it_and_marks_it_finished(policy: CausalLM) -> None:
    drawn = policy.sample(PROMPTS, 40, Sampling(k=40, max_tokens=10), seeds(5))
    flat = [response for row in drawn for response in row]
    assert {r.finished for r in flat} == {True, False}
    for response in flat:
        assert 1 not in response.tokens[:-1]
        assert response.finished == (response.tokens[-1] == 1)
        assert response.finished or len(response.tokens) == 10
        assert "</s>" not in response.text


def test_responses_come_back_in_the_order_of_their_prompts_whatever_the_batches(policy: CausalLM) -> None:
    """With temperature near zero the law is deterministic, so every batch size must give the same rows."""
    sampling = Sampling(k=2, max_tokens=6, temperature=1e-4)
    whole = policy.sample(PROMPTS, 2, sampling, seeds())
    cut = policy.sample(PROMPTS, 2, sampling.model_copy(update={"batch_size": 2}), seeds())
    assert [[r.tokens for r in row] for row in whole] == [[r.tokens for r in row] for row in cut]
    for prompt, row in zip(PROMPTS, whole, strict=True):
        assert row[0].tokens[0] == int(law(policy, prompt).argmax())


def test_the_same_seeds_give_the_same_responses_and_others_give_others(policy: CausalLM) -> None:
    def draw(seed: int) -> list[list[int]]:
        return [r.tokens for row in policy.sample(PROMPTS, 2, Sampling(k=2, max_tokens=8), seeds(seed)) for r in row]

    assert draw(0) == draw(0)
    assert draw(0) != draw(1)


def test_the_end_tokens_are_those_of_the_generation_config_and_of_the_tokenizer(policy: CausalLM) -> None:
    assert policy.end_tokens == {1}
    policy.model.generation_config.eos_token_id = [3, 4]
    assert policy.end_tokens == {1, 3, 4}


def test_a_policy_whose_weights_diverged_is_not_sampled_from(policy: CausalLM) -> None:
    with torch.no_grad():
        next(iter(policy.parameters())).fill_(torch.nan)
    with pytest.raises(FloatingPointError, match=r"not a number.* lower training\.lr"):
        policy.sample(PROMPTS, 2, Sampling(k=2), seeds())


# --- rendering ---------------------------------------------------------------------------------------------------


def test_text_without_a_chat_template_is_continued_after_one_bos(policy: CausalLM) -> None:
    assert policy.tokenizer.convert_ids_to_tokens(policy.encode("the cat")) == ["<s>", "the", "cat"]


def test_chat_messages_need_a_chat_template(policy: CausalLM) -> None:
    with pytest.raises(ValueError, match="no chat template"):
        policy.encode([{"role": "user", "content": "the cat"}])


def test_a_chat_template_renders_text_as_one_turn_of_the_user_and_opens_the_answer(tiny_chat_model: object) -> None:
    chat = CausalLM.load(str(tiny_chat_model))
    expected = ["<s>", "user", "the", "cat", "assistant"]
    assert chat.tokenizer.convert_ids_to_tokens(chat.encode("the cat")) == expected
    assert chat.encode([{"role": "user", "content": "the cat"}]) == chat.encode("the cat")


# --- tables ------------------------------------------------------------------------------------------------------


def test_a_table_samples_the_tempered_geometric_mixture() -> None:
    table, other = SoftmaxTable(torch.tensor([0.0, 1.0, -1.0])), SoftmaxTable(torch.tensor([1.0, 0.0, 0.0]))
    drawn = table.sample([[]], 20_000, Sampling(k=2, temperature=0.5), seeds(6, 1), (other, 0.25))[0]
    shares = np.bincount([r.tokens[0] for r in drawn], minlength=3) / len(drawn)
    product = table.logits.softmax(-1) ** 1.5 * other.logits.softmax(-1) ** 0.5  # powers (1 - .25) / .5 and .25 / .5
    np.testing.assert_allclose(shares, (product / product.sum()).detach().numpy(), atol=4 * 0.5 / np.sqrt(20_000))
