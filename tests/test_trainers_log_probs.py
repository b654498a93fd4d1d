"""Log-probabilities of responses: chunks against the whole, shared prompts against responses alone, and memory."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

import trainers.fitting.log_probs
from trainers import DPO
from trainers.fitting.log_probs import ResponseLogProbs, token_log_probs
from trainers.fitting.optimise import Optimiser
from trainers.fitting.packing import RowChooser, lay_out
from trainers.fitting.pairs import Pairs
from trainers.options import Training
from trainers.policies.causal_lm import CausalLM

SHAPE: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "initializer_range": 0.4,
}
GENERATOR = np.random.default_rng(0)


def tokens(*lengths: int, vocabulary: int = 40) -> list[list[int]]:
    return [GENERATOR.integers(3, vocabulary, length).tolist() for length in lengths]


def built(config: Any, kind: Any) -> Any:
    torch.manual_seed(0)
    return kind(config).eval()


def llama(**changes: Any) -> Any:
    return built(LlamaConfig(**SHAPE | changes), LlamaForCausalLM)


def alone(model: Any, prompt: list[int], response: list[int]) -> Tensor:
    """The full model on one sequence, token by token in float64."""
    logits = model(input_ids=torch.tensor([[*prompt, *response]])).logits[0].double().log_softmax(-1)
    return torch.stack([logits[len(prompt) - 1 + at, token] for at, token in enumerate(response)]).sum()


# --- chunks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("held", [7, 3 * 7, 4 * 7 + 1, 10**6])
def test_values_and_gradients_do_not_depend_on_how_many_logits_are_held(
    monkeypatch: pytest.MonkeyPatch, held: int
) -> None:
    monkeypatch.setitem(trainers.fitting.log_probs.CHUNK, "cpu", held)
    torch.manual_seed(1)
    hidden, weight = torch.randn(11, 5, requires_grad=True), torch.randn(7, 5, requires_grad=True)
    targets, outer = torch.randint(0, 7, (11,)), torch.randn(11)
    found = token_log_probs(hidden, weight, targets)
    gradients = torch.autograd.grad((found * outer).sum(), [hidden, weight])
    exact = (hidden.double() @ weight.double().T).log_softmax(-1)[torch.arange(11), targets]
    expected = torch.autograd.grad((exact * outer).sum(), [hidden, weight])
    assert torch.allclose(found.double(), exact, atol=1e-6)
    for ours, theirs in zip(gradients, expected, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)


def test_a_frozen_head_costs_no_gradient_and_hidden_states_still_have_theirs() -> None:
    hidden, weight = torch.randn(4, 3, requires_grad=True), torch.randn(6, 3)
    targets = torch.tensor([0, 5, 2, 2])
    token_log_probs(hidden, weight, targets).sum().backward()
    law = (hidden.detach() @ weight.T).softmax(-1)
    assert torch.allclose(hidden.grad, weight[targets] - law @ weight, atol=1e-6)  # type: ignore[arg-type]


@pytest.mark.parametrize("held", [50, 10**6])
def test_under_bf16_products_round_and_sums_do_not(monkeypatch: pytest.MonkeyPatch, held: int) -> None:
    monkeypatch.setitem(trainers.fitting.log_probs.CHUNK, "cpu", held)
    hidden, weight = torch.randn(9, 8, requires_grad=True), torch.randn(25, 8, requires_grad=True)
    targets = torch.randint(0, 25, (9,))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = token_log_probs(hidden, weight, targets)
    rounded = (hidden.bfloat16() @ weight.bfloat16().T).float().log_softmax(-1)[torch.arange(9), targets]
    assert found.dtype == torch.float32
    assert torch.allclose(found, rounded, atol=1e-6)
    found.sum().backward()
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float32


# --- heads -------------------------------------------------------------------------------------------------------

CAPPED = (
    (Gemma2Config(**SHAPE, head_dim=8, final_logit_softcapping=2.0), Gemma2ForCausalLM),
    (CohereConfig(**SHAPE, logit_scale=0.25), CohereForCausalLM),
    (GraniteConfig(**SHAPE, logits_scaling=3.0), GraniteForCausalLM),
)
PLAIN = (
    (LlamaConfig(**SHAPE), LlamaForCausalLM),
    (LlamaConfig(**SHAPE, tie_word_embeddings=True), LlamaForCausalLM),
    (Qwen3Config(**SHAPE, head_dim=8), Qwen3ForCausalLM),
    (MistralConfig(**SHAPE, sliding_window=3), MistralForCausalLM),
    (GPT2Config(vocab_size=40, n_embd=16, n_layer=2, n_head=2, initializer_range=0.4), GPT2LMHeadModel),
)


@pytest.mark.parametrize(("config", "kind"), [*CAPPED, *PLAIN], ids=lambda value: getattr(value, "__name__", ""))
def test_log_probs_are_those_of_the_whole_model_whatever_it_does_to_its_logits(config: Any, kind: Any) -> None:
    model = built(config, kind)
    scorer = ResponseLogProbs(model)
    assert (scorer.plain is None) == ((config, kind) in CAPPED)
    prompts, responses = tokens(9, 2, 9, 5), tokens(6, 1, 4, 8)
    prompts[2] = prompts[0]
    with torch.no_grad():
        found = scorer(prompts, responses)
        for value, prompt, response in zip(found, prompts, responses, strict=True):
            assert float(value) == pytest.approx(float(alone(model, prompt, response)), abs=1e-4)


# --- shared prompts ----------------------------------------------------------------------------------------------


def test_two_responses_behind_one_prompt_have_the_log_probs_and_gradients_they_have_alone() -> None:
    model = llama()
    prompts, responses = tokens(12, 20), tokens(3, 5, 1, 2)
    prompts = [*prompts, *prompts]
    scorer, found = ResponseLogProbs(model), []
    assert scorer.rows.rows(prompts, responses) == [(0, 2), (1, 3)]
    for rows in ([(0, 2), (1, 3)], [(0,), (1,), (2,), (3,)]):
        scorer.rows.rows = lambda *_, rows=rows: rows  # type: ignore[method-assign]
        model.zero_grad()
        values = scorer(prompts, responses)
        (values * torch.tensor([1.0, -2.0, 0.5, 3.0])).sum().backward()
        found.append((values.detach(), torch.cat([p.grad.flatten() for p in model.parameters()])))
    (shared, gradient), (single, expected) = found
    assert torch.allclose(shared, single, atol=1e-5)
    assert (gradient - expected).norm() < 1e-5 * expected.norm()


def test_prompts_are_shared_under_bf16_too() -> None:
    (prompt,) = tokens(60)
    chooser = RowChooser(llama(hidden_size=64))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert chooser.rows([prompt] * 2, tokens(3, 3)) == [(0, 1)]


def test_prompts_are_shared_where_that_spares_work() -> None:
    chooser = RowChooser(llama())
    assert chooser.rows(tokens(4, 4), tokens(3, 3)) == [(0,), (1,)]  # no prompt in common
    (prompt,) = tokens(60)
    assert chooser.rows([prompt] * 3, tokens(3, 3, 3)) == [(0, 1), (2,)]
    (prompt,) = tokens(1)
    assert chooser.rows([prompt] * 2, tokens(300, 300)) == [(0,), (1,)]  # attention over both would cost more


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (MistralConfig(**SHAPE, sliding_window=3), MistralForCausalLM),
        (GPT2Config(vocab_size=40, n_embd=16, n_layer=2, n_head=2), GPT2LMHeadModel),
        (LlamaConfig(**SHAPE, attn_implementation="eager"), LlamaForCausalLM),
    ],
    ids=["window", "learned positions", "eager"],
)
def test_a_model_with_windows_or_other_positions_or_masks_scores_responses_alone(config: Any, kind: Any) -> None:
    (prompt,) = tokens(60)
    assert RowChooser(built(config, kind)).rows([prompt] * 2, tokens(3, 3)) == [(0,), (1,)]


def test_a_model_in_which_responses_see_each_other_scores_them_alone() -> None:
    model = llama()
    forward = model.model.forward
    model.model.forward = lambda **inputs: forward(**inputs | {"attention_mask": None})
    (prompt,) = tokens(60)
    assert RowChooser(model).rows([prompt] * 2, tokens(3, 3)) == [(0,), (1,)]


def test_a_layout_predicts_every_response_token_from_the_place_before_it() -> None:
    prompts, responses = [[7, 8], [9]], [[1, 2, 3], [4]]
    layout = lay_out([(0,), (1,)], prompts, responses, "cpu")
    assert layout.inputs["input_ids"].tolist() == [[7, 8, 1, 2, 3], [9, 4, 0, 0, 0]]
    assert layout.places.tolist() == [1, 2, 3, 5]
    assert (layout.targets.tolist(), layout.owners.tolist()) == ([1, 2, 3, 4], [0, 0, 0, 1])
    shared = lay_out([(0, 1)], [[7, 8]] * 2, responses, "cpu")
    assert shared.inputs["position_ids"].tolist() == [[0, 1, 2, 3, 4, 2]]
    assert shared.places.tolist() == [1, 2, 3, 1]
    assert shared.inputs["attention_mask"][0, 0, -1].tolist() == [True, True, False, False, False, True]


# --- memory ------------------------------------------------------------------------------------------------------


class Held(TorchDispatchMode):
    """Bytes of tensors made while it is on, and the most there were at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, list | tuple) else (made,):
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage())
        return made

    def _add(self, storage: Any) -> None:
        place, size = storage.data_ptr(), storage.nbytes()
        if place and place not in self.known:
            self.known.add(place)
            self.now += size
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self._remove, place, size)

    def _remove(self, place: int, size: int) -> None:
        self.known.discard(place)
        self.now -= size


def step_peak(vocabulary: int) -> float:
    """Most bytes held in a step beyond weights, gradients and optimiser (here moments that a first step has made)."""
    model = llama(vocab_size=vocabulary, hidden_size=64, intermediate_size=192, max_position_embeddings=2048)
    policy = CausalLM(model, None)  # type: ignore[arg-type]
    data = [tokens(16, vocabulary=vocabulary), *(tokens(1024, vocabulary=vocabulary) for _ in range(2))]
    pairs, frozen = Pairs(*data, preference=np.ones(1)), {"previous": np.zeros((1, 2), dtype=np.float32)}
    optimiser = Optimiser(policy, Training(lr=1e-4, batch_size=1, precision="fp32"), 4)
    optimiser.step(policy, DPO(), pairs, frozen)
    with Held() as held:
        optimiser.step(policy, DPO(), pairs, frozen)
    return held.most - sum(p.numel() * p.element_size() for p in model.parameters())


def test_no_step_holds_logits_of_all_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """2 x 1,024 tokens over 32,768 words are 256 MiB of logits."""
    few, many = step_peak(2048), step_peak(32768)
    assert many < 1.3 * few
    monkeypatch.setitem(trainers.fitting.log_probs.CHUNK, "cpu", 2**30)  # that the measure would see it
    assert step_peak(32768) > 2 * few
