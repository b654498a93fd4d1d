"""Low-rank adapters: what they change, what they leave, and who can open them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import AutoPeftModelForCausalLM, PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from trainers import DPO
from trainers.fitting.fit import fit
from trainers.fitting.pairs import Pairs, score
from trainers.options import LoRA, Sampling, Training
from trainers.policies.causal_lm import CausalLM

LORA = LoRA(r=4, alpha=8)
TRAINING = Training(lr=1e-2, schedule="constant", warmup=0.0, batch_size=3, max_length=40, precision="fp32", lora=LORA)


def some_pairs(count: int = 6) -> Pairs:
    generator = np.random.default_rng(0)
    prompts, chosen, rejected = (generator.integers(3, 20, (count, size)).tolist() for size in (5, 6, 4))
    return Pairs(prompts, chosen, rejected, np.ones(count))


def trained(policy: CausalLM, steps: int = 2) -> list[dict[str, float]]:
    """One DPO epoch of `steps` steps against the policy as it is."""
    pairs = some_pairs(3 * steps)
    return fit(policy, pairs, {"previous": score(policy, pairs, 3)}, DPO(), TRAINING, seed=0)


@pytest.fixture
def adapted(policy: CausalLM) -> CausalLM:
    policy.adapt(LORA, seed=5)
    return policy


def test_a_new_adapter_changes_nothing_and_dpo_starts_at_ln_2(tiny_model: Path, adapted: CausalLM) -> None:
    pairs, base = some_pairs(), CausalLM.load(tiny_model)
    np.testing.assert_array_equal(score(adapted, pairs, 3), score(base, pairs, 3))
    assert trained(adapted)[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)


def test_training_moves_the_adapter_and_leaves_every_bit_of_the_base(tiny_model: Path, adapted: CausalLM) -> None:
    start = {name: weight.clone() for name, weight in adapted.model.named_parameters()}
    losses = trained(adapted, 4)
    assert losses[-1]["loss"] != losses[0]["loss"]
    moved = {name for name, weight in adapted.model.named_parameters() if not torch.equal(weight, start[name])}
    assert moved
    assert all("lora_" in name for name in moved)
    base = load_file(tiny_model / "model.safetensors")
    held = {name.replace(".base_layer", ""): weight for name, weight in adapted.model.named_parameters()}
    assert all(torch.equal(held[name], weight) for name, weight in base.items())


def test_a_saved_adapter_opens_in_plain_peft_and_here_with_the_same_log_probs(
    tiny_model: Path, tmp_path: Path, adapted: CausalLM
) -> None:
    trained(adapted)
    adapted.save(tmp_path / "model")
    names = {file.name for file in (tmp_path / "model").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json"} <= names
    assert not {"config.json", "model.safetensors"} & names
    pairs = some_pairs()
    expected = score(adapted, pairs, 6)
    ids = torch.tensor([[*pairs.prompts[0], *pairs.chosen[0]]])
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    for opened in (
        PeftModel.from_pretrained(base, tmp_path / "model"),
        AutoPeftModelForCausalLM.from_pretrained(tmp_path / "model"),
    ):
        laws = opened(input_ids=ids).logits[0].log_softmax(-1)
        total = sum(float(laws[4 + at, token].detach()) for at, token in enumerate(pairs.chosen[0]))
        assert total == pytest.approx(float(expected[0, 0]), abs=1e-4)
    again = CausalLM.load(tmp_path / "model")
    np.testing.assert_allclose(score(again, pairs, 6), expected, atol=1e-5)
    assert again.end_tokens == adapted.end_tokens


def test_the_next_iteration_goes_on_with_the_same_adapter(tmp_path: Path, adapted: CausalLM) -> None:
    trained(adapted)
    adapted.save(tmp_path / "model")
    again = CausalLM.load(tmp_path / "model")
    again.adapt(LORA, seed=6)
    shapes = {name: weight.shape for name, weight in again.model.named_parameters()}
    assert shapes == {name: weight.shape for name, weight in adapted.model.named_parameters()}
    trainable = {name for name, weight in again.model.named_parameters() if weight.requires_grad}
    assert trainable == {name for name in shapes if "lora_" in name}
    for name, weight in adapted.model.named_parameters():
        assert torch.equal(dict(again.model.named_parameters())[name], weight)
    trained(again)


def test_the_policy_under_an_adapter_is_the_base_and_shares_its_memory(tiny_model: Path, adapted: CausalLM) -> None:
    trained(adapted)
    under, pairs = adapted.without_adapter(), some_pairs()
    np.testing.assert_allclose(score(under, pairs, 6), score(CausalLM.load(tiny_model), pairs, 6), atol=1e-5)
    assert not np.allclose(score(adapted, pairs, 6), score(under, pairs, 6), atol=1e-3)
    places = {weight.data_ptr() for name, weight in adapted.model.named_parameters() if "lora_" not in name}
    assert places == {w.data_ptr() for n, w in under.model.named_parameters() if "lora_" not in n}
    assert all(weight.requires_grad for name, weight in adapted.model.named_parameters() if "lora_" in name)
    mixed = adapted.sample([[0, 5]], 2, Sampling(max_tokens=3), [0], (under, 0.5))
    assert len(mixed[0]) == 2


def test_a_copy_shares_the_base_and_not_the_adapter(adapted: CausalLM) -> None:
    copy = adapted.copy()
    ours, theirs = dict(adapted.model.named_parameters()), dict(copy.model.named_parameters())
    shared = {name for name in ours if ours[name].data_ptr() == theirs[name].data_ptr()}
    assert shared == {name for name in ours if "lora_" not in name}


def test_the_same_seed_gives_the_same_adapter_whatever_the_global_generator(tiny_model: Path) -> None:
    adapters = []
    for seed in (1, 1, 2):
        torch.rand(3)
        policy = CausalLM.load(tiny_model)
        policy.adapt(LORA, seed)
        adapters.append(torch.cat([w.flatten() for n, w in policy.model.named_parameters() if "lora_A" in n]))
    assert torch.equal(adapters[0], adapters[1])
    assert not torch.equal(adapters[0], adapters[2])


def test_named_targets_alone_have_an_adapter(policy: CausalLM) -> None:
    policy.adapt(LoRA(r=2, alpha=4, targets=("q_proj",)), seed=0)
    assert all("q_proj" in name for name, weight in policy.model.named_parameters() if weight.requires_grad)


@pytest.mark.parametrize("lora", [None, LORA])
def test_checkpointed_gradients_are_the_gradients(tiny_model: Path, lora: LoRA | None) -> None:
    pairs, gradients = some_pairs(), []
    for kept in (True, False):
        policy = CausalLM.load(tiny_model)
        if lora is not None:
            policy.adapt(lora, seed=0)
        if not kept:
            policy.checkpoint_gradients()
        policy.log_probs(pairs.prompts, pairs.chosen).sum().backward()
        gradients.append(torch.cat([w.grad.flatten() for w in policy.parameters() if w.grad is not None]))
        assert policy.sample([[0, 5]], 2, Sampling(max_tokens=3), [0])
    torch.testing.assert_close(*gradients)


def test_checkpointed_gradients_hold_less_for_the_backward_pass(tiny_model: Path) -> None:
    pairs, kept = some_pairs(), []
    for checkpointed in (False, True):
        policy = CausalLM.load(tiny_model)
        if checkpointed:
            policy.checkpoint_gradients()
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, sizes=sizes: sizes.append(t.numel()) or t, lambda t: t):
            policy.log_probs(pairs.prompts, pairs.chosen)
        kept.append(sum(sizes))
    assert kept[1] < 0.6 * kept[0]
