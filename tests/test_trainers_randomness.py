"""A response is a function of its prompt, the prompt's seed and its own number, and follows the law asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from scipy import stats

from trainers.engines import transformers as engine
from trainers.engines.randomness import response_seeds, uniforms
from trainers.options import Sampling
from trainers.policies.causal_lm import CausalLM

PROMPTS = [[0, 5, 6], [0, 7], [0, 9, 8, 7, 6, 5, 10], [0, 11, 12, 5], [0, 3, 4], [0, 6, 6, 6, 6]]
LEAST_P = 1e-3

# --- seeds and uniform numbers -----------------------------------------------------------------------------------


def test_a_prompts_seed_follows_its_id_and_the_stage_whatever_other_prompts_there_are() -> None:
    whole = dict(zip("abcd", response_seeds(7, "abcd"), strict=True))
    assert response_seeds(7, "dab") == [whole["d"], whole["a"], whole["b"]]
    ids: list[str | int] = [1, "1", "a", "a", "a", 2]
    assert len({*response_seeds(7, ids), *response_seeds(8, ids)}) == 12
    assert all(0 <= seed < 2**63 for seed in response_seeds(7, range(1000)))


def test_a_prompt_that_is_asked_again_has_a_seed_of_its_own_for_each_time() -> None:
    assert response_seeds(0, ["a", "b", "a"])[1:] == response_seeds(0, ["b", "a", "a"])[::2]


def test_a_rows_numbers_are_the_philox_stream_of_its_seed_and_its_own_number() -> None:
    seeds = [0, 2**63 - 1, *response_seeds(0, range(3))]
    expected = [
        np.random.Generator(np.random.Philox(key=np.array([seed, number], np.uint64))).random(50)
        for seed in seeds
        for number in range(4)
    ]
    assert (uniforms(seeds, 4, 50) == np.array(expected)).all()
    assert (uniforms(seeds[2:3], 2, 10) == np.array(expected)[8:10, :10]).all()
    assert (uniforms(seeds, 4, 26, first=24) == np.array(expected)[:, 24:]).all()


def test_uniform_numbers_are_uniform_and_those_of_numbers_prompts_and_tokens_are_independent() -> None:
    prompts, k, tokens = 500, 8, 8
    drawn = uniforms(response_seeds(3, range(prompts)), k, tokens).reshape(prompts, k, tokens)
    assert stats.kstest(drawn.ravel(), "uniform").pvalue > LEAST_P
    neighbours = [
        (drawn[:-1], drawn[1:]),
        (drawn[:, :-1], drawn[:, 1:]),
        (drawn[..., :-1], drawn[..., 1:]),
        (drawn[:, 0], drawn[:, -1]),
        (uniforms(range(prompts), k, tokens)[:-k], uniforms(range(prompts), k, tokens)[k:]),  # type: ignore[arg-type]
    ]
    for one, other in neighbours:
        assert stats.pearsonr(one.ravel(), other.ravel()).pvalue > LEAST_P
        table = np.histogram2d(one.ravel(), other.ravel(), bins=5, range=[[0, 1], [0, 1]])[0]
        assert stats.chi2_contingency(table).pvalue > LEAST_P


# --- what does not change a response -----------------------------------------------------------------------------


def tokens(policy: CausalLM, prompts: Sequence[int], k: int, **options: object) -> dict[tuple[int, int], list[int]]:
    """The tokens of each response by its prompt's and its own number."""
    sampling = Sampling.model_validate({"k": 2, "max_tokens": 14} | options)
    rows = policy.sample([PROMPTS[i] for i in prompts], k, sampling, response_seeds(5, prompts))
    return {(i, j): response.tokens for i, row in zip(prompts, rows, strict=True) for j, response in enumerate(row)}


@pytest.mark.parametrize("batch_size", [1, 3, 7, 64])
def test_batch_size_order_company_and_the_number_asked_for_do_not_change_a_response(
    policy: CausalLM, batch_size: int
) -> None:
    whole = tokens(policy, range(6), 5)
    assert len({len(row) for row in whole.values()}) > 4, "rows must end at different positions"
    assert len(set(map(tuple, whole.values()))) > 25
    assert tokens(policy, range(6), 5, batch_size=batch_size) == whole
    assert tokens(policy, [4, 2, 0, 5, 1, 3], 5, batch_size=batch_size) == whole
    few = tokens(policy, [5, 2], 3, batch_size=batch_size)
    assert few == {number: whole[number] for number in few}


def test_a_shorter_limit_cuts_responses_and_blocks_of_tokens_do_not_show(
    policy: CausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tokens(policy, range(6), 5)
    assert tokens(policy, range(6), 5, max_tokens=6) == {number: row[:6] for number, row in whole.items()}
    monkeypatch.setattr(engine, "BLOCK", 4)
    assert tokens(policy, range(6), 5) == whole


# --- the law -----------------------------------------------------------------------------------------------------


def exact_law(models: list[tuple[CausalLM, float]], prompt: list[int], temperature: float, top_p: float) -> np.ndarray:
    """Of the next token, from full passes: tempered, mixed, normalised, cut to the nucleus."""
    logits = np.zeros(())
    for model, weight in models:
        with torch.no_grad():
            raw = model.model(input_ids=torch.tensor([prompt]), use_cache=False).logits[0, -1]
        logits = logits + weight * (raw.double() / temperature).log_softmax(-1).numpy()
    probs = np.exp(logits) / np.exp(logits).sum()
    order = np.argsort(-probs)
    before = probs[order].cumsum() - probs[order]
    probs[order[before >= top_p]] = 0
    return probs / probs.sum()


def check_drawn_from(law: np.ndarray, drawn: Sequence[int]) -> None:
    counts = np.bincount(drawn, minlength=len(law))
    assert not counts[law == 0].any()
    usual = law * len(drawn) >= 5
    counted, expected = np.append(counts[usual], counts[~usual].sum()), law * len(drawn)
    wanted = np.append(expected[usual], expected[~usual].sum())
    kept = wanted > 0
    assert kept.sum() >= 3
    assert stats.chisquare(counted[kept], wanted[kept]).pvalue > LEAST_P


@pytest.mark.parametrize(("prompts", "k"), [(1, 4000), (4000, 1), (64, 64)])
@pytest.mark.parametrize(
    ("temperature", "top_p", "share"),
    [(1.0, 1.0, 0.0), (0.7, 1.0, 0.0), (2.0, 1.0, 0.0), (1.0, 0.8, 0.0), (1.0, 1.0, 0.3), (1.5, 0.9, 0.3)],
)
def test_first_and_second_tokens_follow_the_exact_law_over_numbers_and_over_prompts(
    policy: CausalLM,
    reference: CausalLM,
    temperature: float,
    top_p: float,
    share: float,
    prompts: int,
    k: int,
) -> None:
    prompt = PROMPTS[0]
    sampling = Sampling(max_tokens=2, temperature=temperature, top_p=top_p, batch_size=4096)
    mix = (reference, share) if share else None
    rows = policy.sample([prompt] * prompts, k, sampling, response_seeds(11, [0] * prompts), mix)
    drawn = [response.tokens for row in rows for response in row]
    models = [(policy, 1 - share), (reference, share)]
    check_drawn_from(exact_law(models, prompt, temperature, top_p), [row[0] for row in drawn])
    going = Counter(row[0] for row in drawn if len(row) > 1)
    for first, _ in going.most_common(3):
        law = exact_law(models, [*prompt, first], temperature, top_p)
        check_drawn_from(law, [row[1] for row in drawn if row[0] == first])
