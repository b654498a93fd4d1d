"""Sampling with vLLM's offline engine: it batches by itself and computes a prompt's cache once for its k responses.

Not run with vLLM itself. Tests drive it with a stand-in of the shape that vLLM documents for `LLM`,
`SamplingParams`, `RequestOutput` and `CompletionOutput`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedModel

from trainers.engines.engine import Decoding, Weighted

MEMORY = 0.45
"""Share of the GPU's memory for the engine: the policy itself is in it as well."""

_engines: dict[str, Any] = {}


def sample_tokens(
    models: Weighted, prompts: Sequence[list[int]], k: int, decoding: Decoding, seeds: Sequence[int]
) -> list[list[list[int]]]:
    """As `Sampler`. The engine is built once for each architecture, and loads the weights from memory.

    vLLM gives response j of a request the seed of the request plus j (`vllm/v1/engine/parallel_sampling.py`) and each a
    generator of its own. What a request draws is the same in every batch up to rounding, as with transformers.

    Between calls it sleeps: its cache is dropped and its weights leave the GPU. A model whose weights are not numbers
    is not noticed.
    """
    import vllm

    ((model, _),) = models
    engine = _woken_engine(model)
    outputs = engine.generate(
        [{"prompt_token_ids": prompt} for prompt in prompts],
        [vllm.SamplingParams(**request(decoding, k, seed)) for seed in seeds],
        use_tqdm=False,
    )
    engine.sleep(level=1)
    return [read_output(output) for output in outputs]


def request(decoding: Decoding, k: int, seed: int) -> dict[str, Any]:
    """The arguments of `vllm.SamplingParams` for k responses to a prompt; tokens come back without their text.

    The seed is halved: with the responses' numbers added it still fits 63 bits, and hashed seeds are so far apart that
    the responses of two prompts share none.
    """
    return {
        "n": k,
        "seed": seed // 2,
        "max_tokens": decoding.max_tokens,
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


def _woken_engine(model: PreTrainedModel) -> Any:
    """The engine of the model's architecture with the model's weights."""
    key = model.config.to_json_string()
    if key in _engines:
        _engines[key].wake_up()
    else:
        _engines[key] = _start(model)
    engine = _engines[key]

    def take(served: Any) -> None:
        served.load_weights(model.state_dict().items())

    engine.apply_model(take)
    engine.reset_prefix_cache()  # computed with the old weights
    return engine


def _start(model: PreTrainedModel) -> Any:
    # In this process, so that weights are handed over and not sent.
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    import vllm

    return vllm.LLM(
        model=model.name_or_path,
        load_format="dummy",
        skip_tokenizer_init=True,
        dtype="bfloat16",
        enable_prefix_caching=True,
        enable_sleep_mode=True,
        gpu_memory_utilization=MEMORY,
    )
