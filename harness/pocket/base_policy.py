"""The pocket world's base policy: a small Llama trained from scratch on the grammar, saved as Hugging Face does."""

import math
import time
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.pocket.grammar import corpus, vocabulary
from harness.run.devices import cores

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

PAD, UNKNOWN, BOS, EOS, USER, ASSISTANT = SPECIAL = ("<pad>", "<unk>", "<s>", "</s>", "<user>", "<assistant>")
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'assistant' %} <assistant> {% else %} <user> {% endif %}{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %} {{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %} <assistant>{% endif %}"
)
JUDGE_WORDS = ("first", "second", "better")
"""Words of the judges' template (`judges.py` beside this file), so that a judge can start from these weights."""
CONTEXT = 128
PAIRS, BATCH_SIZE, LEARNING_RATE, WARMUP = 24_000, 64, 5e-3, 0.05
PART = 16  # rows that go through the model together
THREADS = 2  # parts that do so at once, where the cores hold them; their number changes no bit of the weights

Report = Callable[[int, int, float], None]


def build_base_policy(out: Path, *, seed: int, report: Report | None = None) -> dict[str, float]:
    """Train the base policy from scratch and save model and tokenizer to `out` (`save_pretrained`, safetensors).

    `report`, if given, is called after every step with (step, steps, loss). Returns `parameters`, `steps`, `seconds`
    and `loss`: the mean cross-entropy of the answers over the last tenth of the steps, in nats per token; every pair is
    seen once, so it is a loss on new pairs. Same seed, kind of machine and threads of an operation: same weights.
    """
    import torch

    started = time.perf_counter()
    tokenizer = build_tokenizer()
    ids, labels = encode_corpus(tokenizer, PAIRS, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_model(tokenizer)
        losses = _train(model, ids, labels, report)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    last = losses[-max(1, len(losses) // 10) :]
    return {
        "parameters": model.num_parameters(),
        "steps": len(losses),
        "loss": sum(last) / len(last),
        "seconds": time.perf_counter() - started,
    }


def build_tokenizer() -> "PreTrainedTokenizerFast":
    """A word-level tokenizer over the grammar's words, lower-casing, with a chat template; decoding puts spaces."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {word: index for index, word in enumerate([*SPECIAL, *vocabulary(), *JUDGE_WORDS])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNKNOWN,
        bos_token=BOS,
        eos_token=EOS,
        additional_special_tokens=[USER, ASSISTANT],
        model_max_length=CONTEXT,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def build_model(tokenizer: "PreTrainedTokenizerFast") -> "LlamaForCausalLM":
    """An untrained Llama from torch's global generator: 2 layers, hidden size 128, about 430 thousand parameters."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=352,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=False,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return LlamaForCausalLM(config)


def encode_corpus(tokenizer: "PreTrainedTokenizerFast", n: int, seed: int) -> tuple["Tensor", "Tensor"]:
    """`n` pairs as token ids and labels, both int64 [n, length], padded on the right.

    Labels are -100 everywhere but on the answer and its EOS.
    """
    rows = [
        f"{tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)} {answer} {EOS}"
        for messages, answer in corpus(n, seed)
    ]
    encoded = tokenizer(rows, add_special_tokens=False, padding=True, padding_side="right", return_tensors="pt")
    ids = encoded["input_ids"]
    from_answer = (ids == tokenizer.convert_tokens_to_ids(ASSISTANT)).int().flip(1).cumsum(1).flip(1) == 0
    return ids, ids.masked_fill(~(from_answer & encoded["attention_mask"].bool()), -100)


def _train(model: "LlamaForCausalLM", ids: "Tensor", labels: "Tensor", report: Report | None) -> list[float]:
    """One pass in the corpus's order, which is random, with AdamW, warm-up and cosine; returns each step's loss."""
    import torch

    steps = len(ids) // BATCH_SIZE
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step / steps))
    losses = []
    with ThreadPoolExecutor(max(1, min(THREADS, cores() // torch.get_num_threads()))) as pool:
        for step in range(steps):
            rows = slice(step * BATCH_SIZE, (step + 1) * BATCH_SIZE)
            losses.append(_backward(model, ids[rows], labels[rows], pool))
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            if report:
                report(step + 1, steps, losses[-1])
    return losses


def _rate(progress: float) -> float:
    return min((progress + 1e-3) / WARMUP, 0.5 * (1 + math.cos(math.pi * progress)))


def _backward(model: Any, ids: "Tensor", labels: "Tensor", pool: Executor) -> float:
    """Set the gradient of the answers' mean cross-entropy (nats a token), and return it.

    Rows go through the model in parts of similar length: the same mean with a third less padding. The pool's threads
    take a part each, and the parts' gradients are added in their order. Padding is on the right, so causal attention
    needs no mask.
    """
    import torch

    ends, tokens = (labels != -100).cumsum(1).argmax(1) + 1, int((labels != -100).sum())
    weights = list(model.parameters())

    def gradient(part: "Tensor") -> tuple[float, tuple["Tensor", ...]]:
        width = int(ends[part].max())
        loss = model(input_ids=ids[part, :width], labels=labels[part, :width], num_items_in_batch=tokens).loss
        return loss.item(), torch.autograd.grad(loss, weights)

    losses, gradients = zip(*pool.map(gradient, ends.argsort().split(PART)), strict=True)
    for weight, parts in zip(weights, zip(*gradients, strict=True), strict=True):
        weight.grad = torch.stack(parts).sum(0)
    return sum(losses)
