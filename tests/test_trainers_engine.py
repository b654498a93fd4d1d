"""The engine drives any causal LM of transformers: full attention, sliding windows, recurrent states."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from transformers import PreTrainedModel

from trainers.engines.cache import ROOM, RoomyLayer, decoding_cache, packed
from trainers.engines.engine import Decoding, Weighted
from trainers.engines.randomness import response_seeds
from trainers.engines.transformers import sample_tokens

PROMPTS = [[0, 5, 6], [0, 7], [0, 9, 8, 7, 6, 5, 10, 4, 3, 11, 9], [0, 11, 12, 5]]
SIZES: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}
GPT2: dict[str, Any] = {"vocab_size": 40, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
CONFIGS: dict[str, Callable[[], Any]] = {
    "gpt2": lambda: transformers.GPT2Config(**GPT2, initializer_range=0.3, bos_token_id=0, eos_token_id=1),
    "qwen2": lambda: transformers.Qwen2Config(**SIZES),
    "mistral-sliding": lambda: transformers.MistralConfig(**SIZES, sliding_window=6),
    "gemma3-alternating": lambda: transformers.Gemma3TextConfig(
        **SIZES, head_dim=8, sliding_window=6, layer_types=["sliding_attention", "full_attention"]
    ),
    "lfm2-convolutions": lambda: transformers.Lfm2Config(**SIZES, layer_types=["conv", "full_attention"]),
}


def build(name: str) -> PreTrainedModel:
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(CONFIGS[name]()).eval()


@pytest.mark.parametrize("name", CONFIGS)
def test_greedy_answers_equal_generate_token_by_token(name: str) -> None:
    model = build(name)
    decoding = Decoding(max_tokens=16, temperature=0, end_tokens=frozenset({1, 2, 3}))
    ours = sample_tokens([(model, 1.0)], PROMPTS, 2, decoding, response_seeds(0, range(4)))
    for prompt, rows in zip(PROMPTS, ours, strict=True):
        theirs = model.generate(
            torch.tensor([prompt]), do_sample=False, max_new_tokens=16, eos_token_id=[1, 2, 3], pad_token_id=1
        )
        assert rows == [theirs[0, len(prompt) :].tolist()] * 2


@pytest.mark.parametrize("name", CONFIGS)
def test_a_rows_tokens_do_not_depend_on_the_rows_that_end_beside_it(name: str) -> None:
    """Each row has uniform numbers of its own, so an end token only cuts what would be drawn without one."""
    model = build(name)

    def draw(ends: frozenset[int]) -> list[list[int]]:
        decoding = Decoding(max_tokens=12, end_tokens=ends)
        drawn = sample_tokens([(model, 1.0)], PROMPTS, 3, decoding, response_seeds(1, range(4)))
        return [row for rows in drawn for row in rows]

    ends = frozenset({1, 2, 3, 4, 5, 6, 7, 8})
    whole, cut = draw(frozenset()), draw(ends)
    assert len({len(row) for row in cut}) > 2, "rows must end at different positions"
    for long, short in zip(whole, cut, strict=True):
        stop = next((i + 1 for i, token in enumerate(long) if token in ends), 12)
        assert short == long[:stop]


def test_full_attention_gets_a_cache_with_room_and_other_layers_their_own() -> None:
    layers = decoding_cache(build("gemma3-alternating")).layers
    assert [isinstance(layer, RoomyLayer) for layer in layers] == [False, True]


def test_a_cache_layer_grows_and_keeps_what_was_written() -> None:
    """Against plain concatenation and indexing, over more tokens than there was room for."""
    generator = torch.Generator().manual_seed(0)

    def states(rows: int, tokens: int) -> Tensor:
        return torch.randn(rows, 2, tokens, 3, generator=generator)

    layer, expected = RoomyLayer(), states(4, 5)
    layer.update(expected, expected + 1)
    layer.batch_repeat_interleave(3)
    expected = expected.repeat_interleave(3, 0)
    for position in range(2 * ROOM + 1):
        new = states(len(expected), 1)
        expected = torch.cat([expected, new], -2)
        keys, values = layer.update(new, new + 1)
        assert layer.get_seq_length() == 6 + position
        assert torch.equal(keys, expected)
        assert torch.equal(values, expected + 1)
        kept = packed(torch.rand(len(expected), generator=generator) < 0.97)
        moved = (kept != torch.arange(len(kept))).nonzero().squeeze(-1)
        layer.replace_rows(moved, kept[moved], len(kept))
        expected = expected[kept]


@pytest.mark.parametrize("keep", [[True, True], [False, True, False, True, True], [False, False], [True, False]])
def test_packing_moves_only_rows_into_holes(keep: list[bool]) -> None:
    order = packed(torch.tensor(keep)).tolist()
    assert sorted(order) == [i for i, kept in enumerate(keep) if kept]
    assert all(row == i or not keep[i] for i, row in enumerate(order))


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_whole_responses_pass_a_chi_square_test_against_their_exact_probabilities(share: float) -> None:
    """All responses of up to three tokens from five, token 1 ending one; prompts of two lengths in a batch."""
    sizes = SIZES | {"vocab_size": 5, "max_position_embeddings": 16}
    models = []
    for seed, weight in ((0, 1 - share), (1, share)):
        torch.manual_seed(seed)
        models.append((transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes)).eval(), weight))
    models = [pair for pair in models if pair[1]]
    prompts, draws = [[0, 2, 3, 4], [0, 3]], 6000
    decoding = Decoding(max_tokens=3, temperature=1.5, batch_size=100_000, end_tokens=frozenset({1}))
    drawn = sample_tokens(models, prompts, draws, decoding, response_seeds(0, range(2)))
    for prompt, rows in zip(prompts, drawn, strict=True):
        expected = responses(models, prompt, decoding)
        assert sum(expected.values()) == pytest.approx(1, abs=1e-5)
        counts = Counter(map(tuple, rows))
        assert set(counts) <= set(expected)
        usual = [row for row, p in expected.items() if p * draws >= 5]
        statistic = sum((counts[row] - expected[row] * draws) ** 2 / (expected[row] * draws) for row in usual)
        freedom = len(usual) - 1
        assert freedom >= 10
        assert statistic < freedom + 4 * (2 * freedom) ** 0.5  # mean and deviation of a chi-square variable


def responses(models: Weighted, prompt: list[int], decoding: Decoding) -> dict[tuple[int, ...], float]:
    """Every response and its probability, from full forward passes of one sequence."""
    found: dict[tuple[int, ...], float] = {}
    begun: list[tuple[tuple[int, ...], float]] = [((), 1.0)]
    while begun:
        tokens, probability = begun.pop()
        ids = torch.tensor([[*prompt, *tokens]])
        with torch.no_grad():
            laws = [w * (m(ids).logits[0, -1].double() / decoding.temperature).log_softmax(-1) for m, w in models]
        for token, p in enumerate(torch.stack(laws).sum(0).softmax(-1).tolist()):
            longer = (*tokens, token)
            if token in decoding.end_tokens or len(longer) == decoding.max_tokens:
                found[longer] = probability * p
            else:
                begun.append((longer, probability * p))
    return found
