"""vLLM's engine against a stand-in of its public types: no machine with vLLM was at hand."""

from __future__ import annotations

import sys
from collections.abc import Iterable
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
from trainers.options import Sampling
from trainers.policies.causal_lm import CausalLM


class SamplingParams:
    """What `vllm.SamplingParams` is given."""

    def __init__(self, **options: Any) -> None:
        self.options = options


class Served:
    """A model inside vLLM: takes named weights."""

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        self.weights = {name: weight.clone() for name, weight in weights}
        return set(self.weights)


class LLM:
    """`vllm.LLM`: notes what is asked of it, answers each prompt with its own tokens, numbers out of order."""

    made: list[LLM]

    def __init__(self, **options: Any) -> None:
        self.options, self.calls, self.served = options, list[str](), Served()
        self.made.append(self)

    def wake_up(self) -> None:
        self.calls.append("wake_up")

    def sleep(self, level: int) -> None:
        self.calls.append(f"sleep {level}")

    def reset_prefix_cache(self) -> None:
        self.calls.append("reset_prefix_cache")

    def apply_model(self, function: Any) -> list[Any]:
        self.calls.append("apply_model")
        return [function(self.served)]

    def generate(self, prompts: list[Any], params: list[SamplingParams], use_tqdm: bool) -> list[Any]:
        self.calls.append("generate")
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


@pytest.fixture
def llm(monkeypatch: pytest.MonkeyPatch) -> type[LLM]:
    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(LLM=LLM, SamplingParams=SamplingParams))
    monkeypatch.setattr(engine, "_engines", {})
    monkeypatch.setattr(LLM, "made", [], raising=False)
    return LLM


def test_a_request_names_number_seed_law_and_end_tokens_and_wants_no_text() -> None:
    decoding = Decoding(max_tokens=7, temperature=0.5, top_p=0.9, end_tokens=frozenset({5, 2}))
    assert engine.request(decoding, 3, 22) == {
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


def test_an_engine_is_made_once_and_takes_the_weights_of_each_call_from_memory(
    policy: CausalLM, reference: CausalLM, llm: type[LLM]
) -> None:
    for model in (policy, reference):
        model.sample([[7]], 2, Sampling(k=2, engine="vllm"), [0])
        (made,) = llm.made
        for name, weight in model.state().items():
            assert torch.equal(made.served.weights[name], weight)
    assert made.options["load_format"] == "dummy"
    once = ["apply_model", "reset_prefix_cache", "generate", "sleep 1"]
    assert made.calls == [*once, "wake_up", *once]


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
    check_engine("vllm")
