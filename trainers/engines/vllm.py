"""Sampling with vLLM's offline engine: it batches by itself and computes a prompt's cache once for its k responses.

Run with vLLM 0.32 on a processor (`tests/test_vllm.py`, slow); on GPUs, where the engine also sleeps between calls and
may be cut over several, it was not run.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from transformers import PreTrainedModel

from trainers.engines.engine import Decoding, Weighted
from trainers.errors import TrainingError

DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
CHECKED_PROMPTS, CHECKED_TOKENS = 4, 8
"""How much is sampled, greedily, to see that the engine has the policy's weights."""
MAX_DIFFERENCE = {"fp32": 0.01, "bf16": 0.1, "fp16": 0.1}
"""Nats a token by which the engine's log-probabilities of these may differ from transformers', on average."""
QUANTIZED_DIFFERENCE = 0.5


@dataclass
class _Engine:
    """A started `vllm.LLM`, the longest sequence it takes, and whether it can give its memory back."""

    llm: Any
    max_model_len: int
    sleeps: bool

    def wake(self, weights: bool) -> None:
        """Take memory back: for the weights, and once these are there for the cache."""
        if self.sleeps:
            self.llm.wake_up(tags=["weights" if weights else "kv_cache"])

    def sleep(self) -> None:
        """Give memory back. Weights are not kept: they are handed over with each call."""
        if self.sleeps:
            self.llm.sleep(level=2)


_engines: dict[str, _Engine] = {}


def sample_tokens(
    models: Weighted, prompts: Sequence[list[int]], k: int, decoding: Decoding, seeds: Sequence[int]
) -> list[list[list[int]]]:
    """As `Sampler`. The engine is started once for each architecture, and is handed the weights with each call.

    vLLM gives response j of a request the seed of the request plus j (`vllm/v1/engine/parallel_sampling.py`) and each a
    generator of its own. What a request draws is the same in every batch up to rounding, as with transformers.

    Between calls it sleeps where the platform can: its cache and its weights leave the GPU.

    Raises:
        TrainingError: the engine's log-probabilities are not those of the model.
    """
    import vllm

    ((model, _),) = models
    engine = _with_weights(model, prompts, decoding)
    try:
        outputs = engine.llm.generate(
            [{"prompt_token_ids": prompt} for prompt in prompts],
            [
                vllm.SamplingParams(**request(decoding, k, seed, engine.max_model_len - len(prompt)))
                for prompt, seed in zip(prompts, seeds, strict=True)
            ],
            use_tqdm=False,
        )
    finally:
        engine.sleep()
    return [read_output(output) for output in outputs]


def request(decoding: Decoding, k: int, seed: int, room: int) -> dict[str, Any]:
    """The arguments of `vllm.SamplingParams` for k responses to a prompt; tokens come back without their text.

    The seed is halved: with the responses' numbers added it still fits 63 bits, and hashed seeds are so far apart that
    the responses of two prompts share none.

    Args:
        room: tokens that the context has left after the prompt.
    """
    return {
        "n": k,
        "seed": seed // 2,
        "max_tokens": min(decoding.max_tokens, room),
        "temperature": decoding.temperature,
        "top_p": decoding.top_p,
        "ignore_eos": True,  # the end tokens are the policy's, all of them named here
        "stop_token_ids": sorted(decoding.end_tokens),
        "detokenize": False,
    }


def read_output(output: Any) -> list[list[int]]:
    """The responses of a `vllm.RequestOutput`, in the order of their numbers, an end token kept."""
    return [
        list(completion.token_ids) for completion in sorted(output.outputs, key=lambda completion: completion.index)
    ]


def _with_weights(model: PreTrainedModel, prompts: Sequence[list[int]], decoding: Decoding) -> _Engine:
    """The engine of the model's architecture, awake, with the model's weights."""
    needed = max(map(len, prompts)) + decoding.max_tokens
    key = f"{model.config.to_json_string()} {decoding.vllm.model_dump_json()} {decoding.precision}"
    engine = _engines.get(key)
    if engine is None or (needed > engine.max_model_len and engine.max_model_len < _context(model, decoding)):
        if engine is not None:
            engine.wake(weights=True)
            _engines.pop(key).llm.llm_engine.engine_core.shutdown()
        engine = _engines[key] = _start(model, _room(needed, model, decoding), decoding)
    else:
        engine.wake(weights=True)
    _hand_over(engine, model, decoding)
    engine.wake(weights=False)
    engine.llm.reset_prefix_cache()  # computed with the old weights
    _check(engine, model, prompts, decoding)
    return engine


def _context(model: PreTrainedModel, decoding: Decoding) -> int:
    """The longest sequence that an engine for this model may be started for, tokens."""
    own = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return decoding.vllm.max_model_len or own or 2**31


def _room(needed: int, model: PreTrainedModel, decoding: Decoding) -> int:
    """The length to start an engine for: a power of two, so that few batches start another."""
    longest = _context(model, decoding)
    return longest if decoding.vllm.max_model_len else min(longest, 1 << (needed - 1).bit_length())


def _start(model: PreTrainedModel, max_model_len: int, decoding: Decoding) -> _Engine:
    if decoding.vllm.tensor_parallel == 1:
        # In this process, so that weights are handed over and not sent.
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    import vllm
    from vllm.platforms import current_platform

    sleeps = current_platform.is_sleep_mode_available()
    llm = vllm.LLM(
        model=model.name_or_path,
        load_format="dummy",
        skip_tokenizer_init=True,
        dtype=DTYPES[_dtype(decoding)],
        quantization=decoding.vllm.quantization,
        tensor_parallel_size=decoding.vllm.tensor_parallel,
        max_model_len=max_model_len,
        enable_prefix_caching=True,
        enable_sleep_mode=sleeps,
        gpu_memory_utilization=decoding.vllm.gpu_memory,
    )
    return _Engine(llm, max_model_len, sleeps)


def _dtype(decoding: Decoding) -> str:
    return decoding.precision if decoding.vllm.dtype == "auto" else decoding.vllm.dtype


def _hand_over(engine: _Engine, model: PreTrainedModel, decoding: Decoding) -> None:
    """Replace the engine's weights by the model's: from memory, or by a file where engines are other processes."""
    if decoding.vllm.tensor_parallel == 1:
        engine.llm.collective_rpc("reload_weights", kwargs={"weights_iterator": list(model.state_dict().items())})
        return
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        engine.llm.collective_rpc("reload_weights", kwargs={"weights_path": folder})


def _check(engine: _Engine, model: PreTrainedModel, prompts: Sequence[list[int]], decoding: Decoding) -> None:
    """Compare log-probabilities of a few greedy tokens with transformers'.

    Raises:
        TrainingError: they differ: the engine does not compute with these weights.
    """
    import vllm

    some = [p for p in islice(prompts, CHECKED_PROMPTS) if len(p) < engine.max_model_len]
    params = [
        vllm.SamplingParams(
            temperature=0.0,
            max_tokens=min(CHECKED_TOKENS, engine.max_model_len - len(prompt)),
            logprobs=0,
            ignore_eos=True,
            detokenize=False,
        )
        for prompt in some
    ]
    outputs = engine.llm.generate([{"prompt_token_ids": prompt} for prompt in some], params, use_tqdm=False)
    differences = [
        abs(theirs - ours)
        for prompt, output in zip(some, outputs, strict=True)
        for theirs, ours in zip(*_both_log_probs(model, prompt, output.outputs[0]), strict=True)
    ]
    mean = sum(differences) / max(len(differences), 1)
    limit = QUANTIZED_DIFFERENCE if decoding.vllm.quantization else MAX_DIFFERENCE[_dtype(decoding)]
    if not mean <= limit:
        raise TrainingError(
            f"vLLM's log-probabilities differ from transformers' by {mean:.3g} nats a token (limit {limit}): it does "
            f"not compute with the weights of {model.name_or_path}; set sampling.engine to 'transformers'"
        )


def _both_log_probs(model: PreTrainedModel, prompt: list[int], completion: Any) -> tuple[list[float], list[float]]:
    """The log-probabilities of a completion's tokens, by vLLM and by the model."""
    tokens = list(completion.token_ids)
    theirs = [entry[token].logprob for token, entry in zip(tokens, completion.logprobs, strict=True)]
    ids = torch.tensor([prompt + tokens], device=model.device)
    with torch.inference_mode():
        logits = model(input_ids=ids).logits[0, len(prompt) - 1 : -1].float()
    ours = logits.log_softmax(-1).gather(-1, ids[0, len(prompt) :, None])
    return theirs, ours.squeeze(-1).tolist()
