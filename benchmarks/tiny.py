"""What the benchmarks train: a Llama of about a million parameters, and pairs of random tokens."""

from __future__ import annotations

import json
import os
import resource
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

VOCABULARY, PROMPT, RESPONSE = 1024, 16, 32
"""Of the shared case: tokens in the vocabulary, a prompt, a response."""


def build_model(vocabulary: int = VOCABULARY, width: int = 128, layers: int = 4) -> LlamaForCausalLM:
    """The same random weights in every process."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    return LlamaForCausalLM(config)


def build_tokenizer() -> Any:
    """A word for every token."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "<s>", "</s>", *(f"w{i}" for i in range(3, VOCABULARY))]
    model = models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<pad>")
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(model), pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )


def build_pairs(count: int, prompt: int = PROMPT, response: int = RESPONSE) -> dict[str, list[list[int]]]:
    """Prompts, chosen and rejected responses as random tokens; the same in every process."""
    import torch

    generator = torch.Generator().manual_seed(0)

    def tokens(length: int) -> list[list[int]]:
        return torch.randint(10, VOCABULARY, (count, length), generator=generator).tolist()

    return {"prompts": tokens(prompt), "chosen": tokens(response), "rejected": tokens(response)}


def use_threads() -> None:
    """As many threads as `NASHBENCH_BENCH_THREADS` says, two without it."""
    import torch

    torch.set_num_threads(int(os.environ.get("NASHBENCH_BENCH_THREADS", "2")))


def resident_mib() -> float:
    """Most memory that this process has held, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def tell(result: dict[str, Any]) -> None:
    """The line that the runner reads."""
    print("RESULT " + json.dumps(result), flush=True)  # noqa: T201
