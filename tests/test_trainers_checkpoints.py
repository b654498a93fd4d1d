"""Checkpoints as they come from the world: nested configs, capped attention, rotary positions that depend on length,
generation configs that cannot be saved."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    LlamaConfig,
    LlamaForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
)

from trainers.errors import TrainingError
from trainers.options import LoRA, Sampling, Training
from trainers.policies.causal_lm import CausalLM

SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "image_size": 28,
    "patch_size": 14,
}
SWITCH = 24
"""Tokens from which on the frequencies are others."""


def saved(model: Any, tiny_model: Path, folder: Path) -> Path:
    """A checkpoint of this model with the tiny model's tokenizer."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        folder.mkdir(exist_ok=True)
        shutil.copy(tiny_model / name, folder)
    model.eval().save_pretrained(folder)
    return folder


def vocabulary(tiny_model: Path) -> int:
    return int(json.loads((tiny_model / "config.json").read_text())["vocab_size"])


@pytest.fixture(params=["longrope", "dynamic"])
def long_rope(request: pytest.FixtureRequest, tiny_model: Path, tmp_path: Path) -> CausalLM:
    torch.manual_seed(0)
    common = SHAPE | {"vocab_size": vocabulary(tiny_model), "initializer_range": 0.3}
    if request.param == "longrope":
        rope = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [1.0, 4.0, 16.0, 32.0]}
        config: Any = Phi3Config(
            **common, max_position_embeddings=256, original_max_position_embeddings=SWITCH, rope_scaling=rope
        )
        model: Any = Phi3ForCausalLM(config)
    else:
        config = LlamaConfig(
            **common, max_position_embeddings=SWITCH, rope_parameters={"rope_type": "dynamic", "factor": 8.0}
        )
        model = LlamaForCausalLM(config)
    return CausalLM.load(saved(model, tiny_model, tmp_path / "policy"))


def log_prob(fresh: Path, prompt: list[int], response: list[int]) -> float:
    """By a model that has seen nothing else, in one plain pass."""
    model = CausalLM.load(fresh).model
    with torch.inference_mode():
        law = model(input_ids=torch.tensor([prompt + response]), use_cache=False).logits[0].log_softmax(-1)
    return float(law[len(prompt) - 1 : -1].gather(-1, torch.tensor(response)[:, None]).sum())


def test_a_rows_log_probability_is_its_own_whatever_is_beside_it_and_came_before(long_rope: CausalLM) -> None:
    rows = [([1, 3, 4], [5, 6, 2]), ([1] + [3] * 14, [4, 5] * 10), ([1, 3, 4], [4] * 30), ([1, 5], [6] * 22)]
    alone = [log_prob(Path(long_rope.model.name_or_path), *row) for row in rows]
    with torch.inference_mode():
        together = long_rope.log_probs([p for p, _ in rows], [r for _, r in rows])
        again = torch.cat([long_rope.log_probs([p], [r]) for p, r in rows[::-1]]).flip(0)
    torch.testing.assert_close(together, torch.tensor(alone), rtol=0, atol=2e-4)
    torch.testing.assert_close(again, together, rtol=0, atol=2e-4)


def test_gradients_of_rows_of_both_frequencies_are_those_of_each_alone(long_rope: CausalLM) -> None:
    rows = [([1, 3, 4], [5, 6, 2]), ([1, 3], [4] * 30)]

    def gradient(some: list[tuple[list[int], list[int]]]) -> Tensor:
        long_rope.model.zero_grad()
        long_rope.log_probs([p for p, _ in some], [r for _, r in some]).sum().backward()
        return torch.cat([p.grad.flatten() for p in long_rope.parameters() if p.grad is not None]).clone()

    torch.testing.assert_close(gradient(rows), gradient(rows[:1]) + gradient(rows[1:]), rtol=1e-4, atol=1e-4)


def test_a_response_that_grows_into_other_frequencies_goes_on_as_a_pass_without_a_cache(long_rope: CausalLM) -> None:
    prompts = [[1, 3, 4], [1, 5], [1, 3, 4, 5, 6, 3, 4]]
    greedy = Sampling(k=2, max_tokens=34, top_p=1e-6)
    drawn = long_rope.sample(prompts, 2, greedy, [0, 1, 2])
    for prompt, responses in zip(prompts, drawn, strict=True):
        tokens = list(prompt)
        fresh = CausalLM.load(long_rope.model.name_or_path).model
        while len(tokens) < len(prompt) + 34 and (len(tokens) == len(prompt) or tokens[-1] not in long_rope.end_tokens):
            with torch.inference_mode():
                tokens.append(int(fresh(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, -1].argmax()))
        assert [r.tokens for r in responses] == [tokens[len(prompt) :]] * 2


def test_capped_attention_is_computed_by_a_kernel_that_caps(tiny_model: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    shape = SHAPE | {"vocab_size": vocabulary(tiny_model), "head_dim": 8, "query_pre_attn_scalar": 8}
    capped = Gemma2ForCausalLM(Gemma2Config(**shape, attn_logit_softcapping=5.0, initializer_range=1.0))
    policy = CausalLM.load(saved(capped, tiny_model, tmp_path / "capped"))
    assert any("eager" in note for note in policy.notes)
    capped.set_attn_implementation("eager")
    prompt, response = [1, 3, 4, 5], [6, 3, 5, 2]
    with torch.inference_mode():
        law = capped(input_ids=torch.tensor([prompt + response])).logits[0, 3:-1].log_softmax(-1)
        expected = law.gather(-1, torch.tensor(response)[:, None]).sum()
        torch.testing.assert_close(policy.log_probs([prompt], [response])[0], expected, rtol=0, atol=1e-4)


@pytest.fixture
def nested(tiny_model: Path, tmp_path: Path) -> Path:
    torch.manual_seed(0)
    text = SHAPE | {"vocab_size": vocabulary(tiny_model), "head_dim": 8, "max_position_embeddings": 48}
    config = Gemma3Config(text_config=text, vision_config=VISION, mm_tokens_per_image=4)
    return saved(Gemma3ForConditionalGeneration(config), tiny_model, tmp_path / "nested")


def test_a_nested_config_is_read_and_its_policy_scored_sampled_and_adapted_in_the_language_model_alone(
    nested: Path, tmp_path: Path
) -> None:
    policy = CausalLM.to_train(nested, Training(lora=LoRA(r=2)), seed=0)
    assert policy.context_length == 48
    adapted = [name for name, _ in policy.model.named_parameters() if "lora_" in name]
    assert adapted
    assert not any("vision" in name or "projector" in name for name in adapted)
    policy.log_probs([[1, 3]] * 2, [[4, 2], [5, 2]]).sum().backward()
    policy.sample([[1, 3]], 2, Sampling(k=2, max_tokens=4), [0])
    policy.save(tmp_path / "adapter")
    assert CausalLM.load(tmp_path / "adapter").adapted


def generation(folder: Path, **changes: Any) -> None:
    path = folder / "generation_config.json"
    path.write_text(json.dumps((json.loads(path.read_text()) if path.exists() else {}) | changes))


def copied(tiny_model: Path, folder: Path) -> Path:
    return Path(shutil.copytree(tiny_model, folder))


def test_a_generation_config_that_transformers_would_not_save_is_mended_and_told(
    tiny_model: Path, tmp_path: Path
) -> None:
    folder = copied(tiny_model, tmp_path / "policy")
    generation(folder, temperature=0.9, top_p=0.6)
    policy = CausalLM.to_train(folder, Training(), seed=0)
    assert any("do_sample: true" in note for note in CausalLM.load(folder).notes)
    policy.save(tmp_path / "trained")
    assert CausalLM.load(tmp_path / "trained").end_tokens == CausalLM.load(tiny_model).end_tokens


@pytest.mark.parametrize("part", ["config", "generation config", "tokenizer"])
def test_what_cannot_be_saved_is_refused_before_anything_is_trained(
    tiny_model: Path, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = CausalLM.load(tiny_model)
    broken: Any = {
        "config": policy.model.config,
        "generation config": policy.model.generation_config,
        "tokenizer": policy.tokenizer,
    }[part]

    def refuse(*_: Any, **__: Any) -> None:
        raise ValueError("no JSON has it")

    monkeypatch.setattr(type(broken), "save_pretrained", refuse)
    with pytest.raises(TrainingError, match=f"the {part} of .* cannot be saved.*: no JSON has it; mend the checkpoint"):
        CausalLM.to_train(tiny_model, Training(), seed=0)
