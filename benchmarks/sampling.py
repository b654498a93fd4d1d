"""Sampling 64 prompts x 8: ours and `generate`, and a mixture of two models beside one model.

`python -m benchmarks.sampling --side ours|theirs --case fixed|varied|mixture|stream` prints seconds and tokens of one
run. `theirs` is `generate` for the first two cases and our own sampling without a mixture for the others.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from benchmarks.tiny import RESPONSE, build_model, build_pairs, build_tokenizer, tell, use_threads

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import LlamaForCausalLM

PROMPTS, K, REPETITIONS, STEPS, SHARE = 64, 8, 3, 4, 0.125
END, LONGEST = 2, 24
CASES = ("fixed", "varied", "mixture", "stream")
ENDING = {8: 0.06, 11: 0.15, 12: 0.07, 13: 0.15, 14: 0.05, 15: 0.31, 16: 0.98, 17: 0.5, 21: 0.5}
"""P(a response ends at its n-th token | it got there) of the pocket world's base policy, 64 prompts x 8; else 0."""

Rows = list[list[int]]


def build_ending_model() -> LlamaForCausalLM:
    """The tiny model, whose end token comes as often at each position as the pocket policy's."""
    import math

    import torch

    model = build_model()
    others = math.log(model.config.vocab_size - 1)  # random weights: next to uniform over the other tokens
    odds = {position: others + math.log(p / (1 - p)) for position, p in ENDING.items()}
    prompt = len(build_pairs(1)["prompts"][0])
    table = torch.tensor([odds.get(position - prompt + 2, -30.0) for position in range(prompt + LONGEST + 1)])

    def end(_: Any, arguments: Any, keywords: dict[str, Any], output: Any) -> None:
        output.logits[..., END] = table[keywords["position_ids"][:, -1:]].expand(output.logits.shape[:2])

    model.register_forward_hook(end, with_kwargs=True)
    return model


def draw(models: list[tuple[Any, float]], ends: frozenset[int], longest: int, seed: int) -> Rows:
    """Our engine's responses, k a prompt in order."""
    from trainers.engines.engine import Decoding
    from trainers.engines.randomness import response_seeds
    from trainers.engines.transformers import sample_tokens

    decoding = Decoding(max_tokens=longest, end_tokens=ends)
    seeds = response_seeds(seed, range(PROMPTS))
    drawn = sample_tokens(models, build_pairs(PROMPTS)["prompts"], K, decoding, seeds)
    return [row for rows in drawn for row in rows]


def generate(model: Any, ends: frozenset[int], longest: int, seed: int) -> Tensor:
    """The same through `generate`: its responses, filled up with padding."""
    import torch

    torch.manual_seed(seed)
    prompts = torch.tensor(build_pairs(PROMPTS)["prompts"])
    with torch.inference_mode():
        made = model.generate(
            prompts,
            attention_mask=torch.ones_like(prompts),
            num_return_sequences=K,
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            max_new_tokens=longest,
            eos_token_id=sorted(ends) or None,
            pad_token_id=0,
        )
    return made[:, prompts.shape[1] :]


def lengths(rows: Rows, ends: frozenset[int]) -> list[int]:
    """Tokens of each response up to its first end token."""
    return [next((i + 1 for i, token in enumerate(row) if token in ends), len(row)) for row in rows]


def measure(run: Callable[[int], Any]) -> tuple[float, Any]:
    """Median seconds of a few runs after one that warms up; the last one's result."""
    run(0)
    seconds, result = [], None
    for seed in range(1, REPETITIONS + 1):
        started = time.perf_counter()
        result = run(seed)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds), result


def sampling(side: str, case: str) -> dict[str, Any]:
    """Seconds, tokens and the law of lengths of one way to draw the case's responses."""
    varied = case == "varied"
    model = (build_ending_model() if varied else build_model()).eval()
    ends, longest = (frozenset({END}), LONGEST) if varied else (frozenset[int](), RESPONSE)
    models = [(model, 1.0)]
    if case == "mixture" and side == "ours":
        models = [(model, 1 - SHARE), (build_model().eval(), SHARE)]
    if case == "mixture" or side == "ours":
        took, made = measure(lambda seed: draw(models, ends, longest, seed))
    else:
        model.generation_config.eos_token_id = None  # asked for by name below, where the case has one
        took, made = measure(lambda seed: generate(model, ends, longest, seed))
    counted = lengths(made if isinstance(made, list) else made.tolist(), ends)
    return {
        "seconds": took,
        "tokens": sum(counted),
        "tokens_per_s": sum(counted) / took,
        "length": statistics.mean(counted),
        "length_deviation": statistics.pstdev(counted),
    }


@contextmanager
def stopwatch(owner: Any, name: str, spent: dict[str, float]) -> Iterator[None]:
    """Adds the seconds that calls of `owner.name` take to `spent[name]`."""
    original = getattr(owner, name)

    def timed(*arguments: Any, **options: Any) -> Any:
        started = time.perf_counter()
        result = original(*arguments, **options)
        spent[name] = spent.get(name, 0.0) + time.perf_counter() - started
        return result

    with patch.object(owner, name, timed):
        yield


def streaming(side: str) -> dict[str, Any]:
    """Steps of IPO-MD (`theirs`: without a mixture): seconds of sampling, and the share of time outside of sampling,
    comparing, scoring and the update."""
    import numpy as np

    import trainers.fitting.stream as room
    from trainers import IPOMD
    from trainers.fitting.optimise import Optimiser
    from trainers.options import Sampling, Training
    from trainers.policies.causal_lm import CausalLM

    policy = CausalLM(build_model().eval(), build_tokenizer())
    policy.model.generation_config.eos_token_id = policy.tokenizer.eos_token = None
    options = Sampling(max_tokens=RESPONSE)
    training = Training(lr=1e-6, batch_size=PROMPTS, precision="fp32")
    prompts = build_pairs(training.batch_size)["prompts"]
    spent = dict[str, float]()

    def steps(count: int) -> float:
        started = time.perf_counter()
        room.stream(
            policy,
            {"reference": reference},
            prompts,
            lambda rows, first, second: np.full(len(rows), 0.75),
            IPOMD(mixture=SHARE if side == "ours" else 0.0),
            training,
            options,
            label="soft",
            steps=count,
            total_steps=count,
            seed=0,
        )
        return time.perf_counter() - started

    reference = policy.copy()
    steps(1)
    with ExitStack() as watches:
        for owner, name in ((CausalLM, "sample"), (room, "score"), (Optimiser, "step")):
            watches.enter_context(stopwatch(owner, name, spent))
        whole = steps(STEPS)
    tokens = 2 * len(prompts) * RESPONSE * STEPS
    return {
        "seconds": spent["sample"],
        "tokens": tokens,
        "tokens_per_s": tokens / spent["sample"],
        "outside": 1 - sum(spent.values()) / whole,
        "spent": spent,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--side", choices=("ours", "theirs"), required=True)
    parser.add_argument("--case", choices=CASES, required=True)
    asked = parser.parse_args()
    use_threads()
    tell(streaming(asked.side) if asked.case == "stream" else sampling(asked.side, asked.case))
