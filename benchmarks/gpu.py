"""One GPU: the update, the memory of frozen policies and sampling, with a plain loop beside them.

`python -m benchmarks.gpu` takes a Llama of about 1.2 billion random weights and prints one line of JSON. It needs
torch, transformers and this repository. Without a GPU it says so; `--tiny` runs a model of a million weights anywhere.
"""

from __future__ import annotations

import argparse
import time
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.tiny import tell

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import LlamaForCausalLM

    from trainers.algorithm import Algorithm
    from trainers.fitting.pairs import Pairs

PEAK_FLOPS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "A10": 125e12, "4090": 165e12}
"""bf16 without sparsity, per second, of the makers' data sheets (4090: with float32 accumulation)."""
STRENGTH, STEPS = 0.1, 5


@dataclass(frozen=True)
class Sizes:
    """Of the model, the pairs (tokens) and the batches."""

    width: int = 2048
    layers: int = 16
    heads: int = 32
    vocabulary: int = 128_256
    prompt: int = 512
    response: int = 512
    pairs: int = 16
    micro: int = 4
    prompts: int = 64
    k: int = 8
    new_tokens: int = 256


TINY = Sizes(width=128, layers=4, heads=4, vocabulary=1024, prompt=16, response=32, prompts=8, new_tokens=16)


def build(sizes: Sizes, device: str) -> LlamaForCausalLM:
    """A Llama in the shape of Llama 3.2 1B, random weights in float32; computed in bf16 under autocast."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=sizes.vocabulary,
        hidden_size=sizes.width,
        intermediate_size=4 * sizes.width,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.heads // 4,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
    )
    with torch.device(device):
        return LlamaForCausalLM(config).eval()


def build_pairs(sizes: Sizes) -> Pairs:
    """Random tokens; responses of half the longest length and more."""
    import numpy as np

    from trainers.fitting.pairs import Pairs

    generator = np.random.default_rng(0)

    def tokens(shortest: int, longest: int) -> list[list[int]]:
        lengths = generator.integers(shortest, longest + 1, sizes.pairs)
        return [generator.integers(10, sizes.vocabulary, length).tolist() for length in lengths]

    half = sizes.response // 2
    prompts = tokens(sizes.prompt, sizes.prompt)
    return Pairs(prompts, tokens(half, sizes.response), tokens(half, sizes.response), np.ones(sizes.pairs))


def algorithm_with(frozen: int) -> Algorithm:
    """DPO, its reference the geometric mean of that many frozen policies."""
    import torch
    from torch.nn.functional import logsigmoid

    from trainers.algorithm import Algorithm, PairBatch, Phase, Schedule

    names = tuple(f"frozen-{i}" for i in range(frozen))

    class Measured(Algorithm):
        name = "measured"
        schedule = Schedule.REFIT
        phases = (Phase(start="policy", frozen=names, writes="policy"),)

        def loss(self, pair: PairBatch) -> Tensor:
            ratios = torch.stack([pair.log_ratio(name) for name in names])
            return -logsigmoid(STRENGTH * ratios.mean(0))

    return Measured()


class Clock:
    """Seconds with the GPU's work done, and the most memory it has held, MiB."""

    def __init__(self, device: str) -> None:
        import torch

        self.cuda = torch.cuda if device == "cuda" else None

    def now(self) -> float:
        if self.cuda:
            self.cuda.synchronize()
        return time.perf_counter()

    def forget_peak(self) -> None:
        if self.cuda:
            self.cuda.empty_cache()
            self.cuda.reset_peak_memory_stats()

    def peak_mib(self) -> float | None:
        return self.cuda.max_memory_allocated() / 2**20 if self.cuda else None


def timed_steps(clock: Clock, step: Any) -> dict[str, Any]:
    """Seconds a step after one that warms up, the first loss, and the peak of memory."""
    clock.forget_peak()
    first = step()
    started = clock.now()
    for _ in range(STEPS):
        step()
    return {"seconds": (clock.now() - started) / STEPS, "first_loss": first, "peak_mib": clock.peak_mib()}


def ours(sizes: Sizes, clock: Clock, device: str, frozen: int) -> dict[str, Any]:
    """Steps of our update with that many frozen policies, each scored before the first step."""
    from trainers.fitting.optimise import Optimiser
    from trainers.fitting.pairs import score
    from trainers.options import Training
    from trainers.policies.causal_lm import CausalLM

    policy = CausalLM(build(sizes, device), None, "bf16")  # type: ignore[arg-type]  # tokens only: nothing is decoded
    pairs, algorithm = build_pairs(sizes), algorithm_with(frozen)
    started = clock.now()
    scores = {name: score(policy, pairs, sizes.micro) for name in algorithm.phases[0].frozen}
    scoring = clock.now() - started
    training = Training(lr=1e-6, schedule="constant", warmup=0.0, batch_size=sizes.pairs, micro_batch_size=sizes.micro)
    optimiser = Optimiser(policy, training, STEPS + 1)
    figures = timed_steps(clock, lambda: optimiser.step(policy, algorithm, pairs, scores)["loss"])
    return figures | {"scoring_s": scoring / frozen}


def baseline(sizes: Sizes, clock: Clock, device: str) -> dict[str, Any]:
    """The same as a plain loop: reference in memory and scored in each step, padded, all logits in float32, AdamW as
    ours. TRL 1.16 itself makes its logits in chunks.
    """
    import torch
    from torch.nn.functional import logsigmoid

    model = build(sizes, device)
    reference = deepcopy(model).requires_grad_(False)
    pairs = build_pairs(sizes)
    adamw = torch.optim.AdamW(model.parameters(), lr=1e-6, weight_decay=0.0, fused=True)

    def step() -> float:
        total = 0.0
        for start in range(0, sizes.pairs, sizes.micro):
            ids, mask, scored = padded(pairs.select(range(start, start + sizes.micro)), device)
            with torch.no_grad():
                frozen = full_log_probs(reference, ids, mask, scored)
            ratios = full_log_probs(model, ids, mask, scored) - frozen
            chosen, rejected = ratios.chunk(2)
            loss = -logsigmoid(STRENGTH * (chosen - rejected)).sum() / sizes.pairs
            loss.backward()
            total += float(loss.detach())
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adamw.step()
        adamw.zero_grad(set_to_none=True)
        return total

    return timed_steps(clock, step)


def padded(pairs: Pairs, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, attention mask and mask of response tokens of chosen, then rejected; each [2 pairs, longest]."""
    import torch

    prompts, responses = pairs.prompts * 2, pairs.chosen + pairs.rejected
    longest = max(len(p) + len(r) for p, r in zip(prompts, responses, strict=True))
    ids = torch.zeros(len(prompts), longest, dtype=torch.long)
    mask, scored = torch.zeros_like(ids), torch.zeros_like(ids)
    for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        end = len(prompt) + len(response)
        ids[row, :end] = torch.tensor([*prompt, *response])
        mask[row, :end] = 1
        scored[row, len(prompt) : end] = 1
    return ids.to(device), mask.to(device), scored.to(device)


def full_log_probs(model: LlamaForCausalLM, ids: Tensor, mask: Tensor, scored: Tensor) -> Tensor:
    """Summed log-probabilities of the responses, through the logits of every position."""
    import torch

    with torch.autocast(ids.device.type, dtype=torch.bfloat16):
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1]
    laws = logits.float().log_softmax(-1)
    return (laws.gather(-1, ids[:, 1:, None]).squeeze(-1) * scored[:, 1:]).sum(-1)


def sampling(sizes: Sizes, clock: Clock, device: str) -> dict[str, Any]:
    """Tokens a second of our engine and of `generate`, both at a fixed length and with bf16 weights."""
    import torch

    from trainers.engines.engine import Decoding
    from trainers.engines.randomness import response_seeds
    from trainers.engines.transformers import sample_tokens

    model: Any = build(sizes, device)
    model.to(torch.bfloat16)
    model.generation_config.eos_token_id = None
    prompts = torch.randint(10, sizes.vocabulary, (sizes.prompts, sizes.prompt), device=device)
    decoding, seeds = Decoding(max_tokens=sizes.new_tokens), response_seeds(0, range(sizes.prompts))

    def ours() -> None:
        sample_tokens([(model, 1.0)], prompts.tolist(), sizes.k, decoding, seeds)

    def theirs() -> None:
        model.generate(
            prompts,
            attention_mask=torch.ones_like(prompts),
            do_sample=True,
            top_k=0,
            num_return_sequences=sizes.k,
            max_new_tokens=sizes.new_tokens,
            pad_token_id=0,
        )

    tokens = sizes.prompts * sizes.k * sizes.new_tokens
    return {
        "ours_tokens_per_s": tokens / seconds(clock, ours),
        "generate_tokens_per_s": tokens / seconds(clock, theirs),
    }


def seconds(clock: Clock, run: Any) -> float:
    """Of the second call."""
    run()
    started = clock.now()
    run()
    return clock.now() - started


def flops_a_step(sizes: Sizes, parameters: int) -> float:
    """6 a weight and token of prompts and responses, each sequence with its prompt, and 12 a layer, width and attended
    token (the usual count of a forward and a backward pass; recomputation and sharing do not lower it)."""
    pairs = build_pairs(sizes)
    lengths = [
        len(p) + len(r) for side in (pairs.chosen, pairs.rejected) for p, r in zip(pairs.prompts, side, strict=True)
    ]
    attention = sum(12 * sizes.layers * sizes.width * length * length / 2 for length in lengths)
    return 6 * parameters * sum(lengths) + attention


def measure(sizes: Sizes, device: str) -> dict[str, Any]:
    """All figures."""
    import gc

    import torch

    clock = Clock(device)
    parameters = sum(weight.numel() for weight in build(sizes, "meta").parameters())
    results: dict[str, Any] = {"parameters": parameters, "sampling": sampling(sizes, clock, device)}
    runs = {
        "one_frozen": lambda: ours(sizes, clock, device, 1),
        "three_frozen": lambda: ours(sizes, clock, device, 3),
        "trl_shaped": lambda: baseline(sizes, clock, device),
    }
    for name, run in runs.items():
        gc.collect()
        results[name] = run()
    work = flops_a_step(sizes, parameters)
    tokens = sum(map(len, build_pairs(sizes).chosen + build_pairs(sizes).rejected)) + 2 * sizes.pairs * sizes.prompt
    machine = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    peak = next((flops for part, flops in PEAK_FLOPS.items() if part in machine), None)
    one, three, trl = (results[name] for name in runs)
    for figures in (one, three, trl):
        took = figures["seconds"]
        figures |= {"tokens_per_s": tokens / took, "mfu": work / took / peak if peak else None}
    results["ratio"] = trl["seconds"] / one["seconds"]
    if device == "cuda":
        results["memory_three_over_one"] = three["peak_mib"] / one["peak_mib"]
        results["memory_ratio"] = one["peak_mib"] / trl["peak_mib"]
    return results | {"device": machine}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tiny", action="store_true", help="a model of a million weights, on whatever there is")
    tiny = parser.parse_args().tiny
    import torch

    if not torch.cuda.is_available() and not tiny:
        print("no GPU here: nothing was measured (--tiny runs a small model on the CPU)")  # noqa: T201
        return
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tell(measure(TINY if tiny else Sizes(), device))


if __name__ == "__main__":
    main()
