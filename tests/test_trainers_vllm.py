"""vLLM's engine against a stand-in of its public types; `test_vllm.py` runs the real one."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from trainers.engines import selection
from trainers.engines import vllm as engine
from trainers.engines.engine import Decoding
from trainers.engines.randomness import response_seeds
from trainers.engines.selection import check_engine
from trainers.errors import TrainingError
from trainers.options import Sampling
from trainers.policies.causal_lm import CausalLM


class SamplingParams:
    """What `vllm.SamplingParams` is given."""

    def __init__(self, **options: Any) -> None:
        self.options = options


class LLM:
    """`vllm.LLM`: notes what is asked of it, answers each prompt with its own tokens, numbers out of order.

    Its log-probabilities are those of the model that tests name, plus `wrong`.
    """

    made: list[LLM]
    model: Any = None
    wrong = 0.0

    def __init__(self, **options: Any) -> None:
        self.options, self.calls, self.weights = options, list[str](), dict[str, Tensor]()
        self.llm_engine = SimpleNamespace(engine_core=SimpleNamespace(shutdown=lambda: self.calls.append("shutdown")))
        self.made.append(self)

    def wake_up(self, tags: list[str]) -> None:
        self.calls.append(f"wake {' '.join(tags)}")

    def sleep(self, level: int) -> None:
        self.calls.append(f"sleep {level}")

    def reset_prefix_cache(self) -> None:
        self.calls.append("reset_prefix_cache")

    def collective_rpc(self, method: str, kwargs: dict[str, Any]) -> None:
        self.calls.append(method)
        self.weights = {name: weight.clone() for name, weight in kwargs["weights_iterator"]}

    def generate(self, prompts: list[Any], params: list[SamplingParams], use_tqdm: bool) -> list[Any]:
        checks = "logprobs" in params[0].options
        self.calls.append("check" if checks else "generate")
        if checks:
            return [
                self.greedy(prompt["prompt_token_ids"], each.options["max_tokens"])
                for prompt, each in zip(prompts, params, strict=True)
            ]
        self.params = params
        return [
            SimpleNamespace(
                outputs=[
                    SimpleNamespace(index=i, token_ids=(*prompt["prompt_token_ids"], i))
                    for i in reversed(range(each.options["n"]))
                ]
            )
            for prompt, each in zip(prompts, params, strict=True)
        ]

    def greedy(self, prompt: list[int], count: int) -> Any:
        tokens = list(prompt)
        for _ in range(count):
            with torch.inference_mode():
                law = self.model(input_ids=torch.tensor([tokens])).logits[0, -1].log_softmax(-1)
            tokens.append(int(law.argmax()))
        with torch.inference_mode():
            laws = self.model(input_ids=torch.tensor([tokens])).logits[0].log_softmax(-1)
        logprobs = [
            {token: SimpleNamespace(logprob=float(laws[place, token]) + self.wrong)}
            for place, token in enumerate(tokens[len(prompt) :], len(prompt) - 1)
        ]
        return SimpleNamespace(outputs=[SimpleNamespace(token_ids=tokens[len(prompt) :], logprobs=logprobs)])


@pytest.fixture
def llm(monkeypatch: pytest.MonkeyPatch, policy: CausalLM) -> type[LLM]:
    platform = SimpleNamespace(is_sleep_mode_available=lambda: True)
    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(LLM=LLM, SamplingParams=SamplingParams))
    monkeypatch.setitem(sys.modules, "vllm.platforms", SimpleNamespace(current_platform=platform))
    monkeypatch.setattr(engine, "_engines", {})
    monkeypatch.setattr(LLM, "made", [], raising=False)
    monkeypatch.setattr(LLM, "model", policy.model)
    return LLM


def test_a_request_names_number_seed_law_and_end_tokens_and_wants_no_text() -> None:
    decoding = Decoding(max_tokens=7, temperature=0.5, top_p=0.9, end_tokens=frozenset({5, 2}))
    assert engine.request(decoding, 3, 22, room=100) == {
        "n": 3,
        "seed": 11,
        "max_tokens": 7,
        "temperature": 0.5,
        "top_p": 0.9,
        "ignore_eos": True,
        "stop_token_ids": [2, 5],
        "detokenize": False,
    }


def test_responses_come_in_the_order_of_their_numbers_with_their_end_token(policy: CausalLM, llm: type[LLM]) -> None:
    drawn = policy.sample([[7, 8], [9]], 2, Sampling(k=2, engine="vllm"), response_seeds(0, range(2)))
    assert [[r.tokens for r in row] for row in drawn] == [[[7, 8, 0], [7, 8, 1]], [[9, 0], [9, 1]]]
    assert [r.finished for row in drawn for r in row] == [False, True, False, True]  # 1 is the end token
    assert [r.text for r in drawn[1]] == [policy.tokenizer.decode([9]), policy.tokenizer.decode([9])]


def test_an_engine_is_made_once_and_is_handed_the_weights_of_each_call(
    policy: CausalLM, reference: CausalLM, llm: type[LLM], monkeypatch: pytest.MonkeyPatch
) -> None:
    for model in (policy, reference):
        monkeypatch.setattr(LLM, "model", model.model)
        model.sample([[7]], 2, Sampling(k=2, engine="vllm"), [0])
        (made,) = llm.made
        for name, weight in model.state().items():
            assert torch.equal(made.weights[name], weight)
    assert made.options["load_format"] == "dummy"
    assert made.options["dtype"] == "float32"
    once = ["reload_weights", "wake kv_cache", "reset_prefix_cache", "check", "generate", "sleep 2"]
    assert made.calls == [*once, "wake weights", *once]


def test_an_engine_that_has_other_weights_is_found_out_before_anything_is_drawn(
    policy: CausalLM, llm: type[LLM], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LLM, "wrong", 0.02)
    with pytest.raises(TrainingError, match=r"differ from transformers' by 0\.02 nats a token \(limit 0\.01\)"):
        policy.sample([[7]], 2, Sampling(k=2, engine="vllm"), [0])
    assert "generate" not in llm.made[0].calls


def test_an_engine_is_as_long_as_the_prompts_at_hand_need_and_starts_anew_for_longer_ones(
    policy: CausalLM, llm: type[LLM]
) -> None:
    sampling = Sampling(k=2, engine="vllm", max_tokens=3)
    for length in (10, 13, 14):
        policy.sample([[7] * length], 2, sampling, [0])
    assert [made.options["max_model_len"] for made in llm.made] == [16, 32]
    assert llm.made[0].calls[-1] == "shutdown"
    own = Sampling(k=2, engine="vllm", max_tokens=3, vllm={"max_model_len": 20, "gpu_memory": 0.3})
    policy.sample([[7] * 18], 2, own, [0])
    assert [llm.made[2].options[name] for name in ("max_model_len", "gpu_memory_utilization")] == [20, 0.3]
    assert llm.made[2].params[0].options["max_tokens"] == 2


def test_options_of_an_engine_that_is_not_used_are_refused() -> None:
    with pytest.raises(ValueError, match=r"vllm is given and engine is 'transformers'; set engine: vllm"):
        Sampling(vllm={"dtype": "bf16"})


def test_the_seeds_of_vllms_responses_do_not_overlap_and_follow_their_prompt(policy: CausalLM, llm: type[LLM]) -> None:
    """vLLM adds a response's number to the seed of its request."""
    given = [*response_seeds(0, range(50)), 2**63 - 1]

    def drawn(order: range) -> list[int]:
        policy.sample([[7]] * len(order), 1024, Sampling(k=2, engine="vllm"), [given[i] for i in order])
        return [params.options["seed"] for params in llm.made[0].params]

    ahead = drawn(range(len(given)))
    assert drawn(range(len(given) - 1, -1, -1)) == ahead[::-1]
    of_responses = {seed + number for seed in ahead for number in range(1024)}
    assert len(of_responses) == len(given) * 1024
    assert max(of_responses) < 2**63


def test_a_mixture_is_refused_by_the_trainers_name_and_a_missing_vllm_by_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    check_engine("transformers", "ipo-md")
    with pytest.raises(ValueError, match=r"ipo-md samples from a mixture.* set sampling\.engine to 'transformers'"):
        check_engine("vllm", "ipo-md")
    with pytest.raises(ValueError, match="takes whole weights"):
        check_engine("vllm", adapter=True)
    monkeypatch.setattr(selection, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install -e '\.\[vllm\]'"):
        check_engine("vllm")
    monkeypatch.setattr(selection, "find_spec", lambda name: name)
    monkeypatch.setattr(selection, "version", lambda name: "0.32.0")
    check_engine("vllm")
    monkeypatch.setattr(selection, "version", lambda name: "0.33.0")
    with pytest.raises(ValueError, match=r"vLLM 0\.33\.0 is installed; 0\.32 is needed"):
        check_engine("vllm")
