"""A local checkpoint through vLLM's offline engine.

Run with vLLM 0.32 on a processor (`tests/test_vllm.py`, slow); on GPUs, where the engine sleeps between stages, and in
several processes it was not run.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from judges.errors import JudgeError
from judges.kinds.checkpoint import defused
from judges.protocols.custom import chat_text, encode_text
from judges.transports.messages import LABELS, TEXT, ChatReply, ChatRequest
from judges.transports.transport import Transport

if TYPE_CHECKING:
    from judges.transports.cache import ReplyCache
    from judges.transports.limits import Limits


@dataclass(frozen=True)
class Vllm(Transport):
    """A causal language model opened here by vLLM's offline engine, one engine for all judges of a process.

    Args:
        revision: branch, tag or commit of a hub id.
        trust_remote_code: run the code that comes with the checkpoint.
        dtype: of weights and computation, as vLLM names it; `auto` is the checkpoint's own.
        quantization: how vLLM quantises the weights; None as the checkpoint says.
        gpu_memory: share of each GPU's memory for weights and cache; between stages the engine gives it back where the
            platform can.
        tensor_parallel: GPUs that the engine is cut over.
        max_model_len: longest request and reply, tokens; None is the model's own limit.
    """

    revision: str | None = None
    trust_remote_code: bool = False
    dtype: str = "auto"
    quantization: str | None = None
    gpu_memory: float = 0.45
    tensor_parallel: int = 1
    max_model_len: int | None = None

    gives = frozenset({TEXT, LABELS})
    tuning = ("gpu_memory", "tensor_parallel", "max_model_len")

    def check(self, model: str | Path) -> None:
        if find_spec("vllm") is None:
            raise JudgeError(
                "transport 'vllm' needs vLLM: pip install -e '.[vllm]' where nashbench lies, or choose another one"
            )

    def connect(self, model: str | Path, limits: Limits, repeat: int, replies: ReplyCache | None) -> VllmChat:
        return VllmChat(model, self)


class VllmChat:
    """A causal language model through `vllm.LLM.generate`, started at the first question.

    Requests beyond its limit fail as "too-long", chats that the template refuses as "template-refuses"; the others are
    answered all the same. Special tokens in the texts of a question are broken apart.
    """

    def __init__(self, model: str | Path, options: Vllm) -> None:
        self.model, self.options = model, options

    @cached_property
    def engine(self) -> Any:
        """The engine, started when first asked for; judges of one checkpoint and options share it."""
        return _engine(str(self.model), self.options)

    @cached_property
    def tokenizer(self) -> Any:
        """The checkpoint's tokenizer."""
        return self.engine.get_tokenizer()

    def clean(self, text: str) -> str:
        """The text without special tokens."""
        return defused(self.tokenizer, text)

    def ask(self, requests: Sequence[ChatRequest], advance: Callable[[int], None]) -> list[ChatReply]:
        """A reply to each request, in order; the engine batches them itself."""
        import vllm

        started = time.perf_counter()
        chats = [chat_text(self.tokenizer, request.messages) for request in requests]
        rows = [[] if text is None else encode_text(self.tokenizer, text) for text in chats]
        limit = self.engine.model_config.max_model_len
        fits = [i for i, row in enumerate(rows) if row and len(row) + requests[i].max_tokens <= limit]
        _wake(self.engine)
        try:
            outputs = self.engine.generate(
                [{"prompt_token_ids": rows[i]} for i in fits],
                [vllm.SamplingParams(**sampling(requests[i])) for i in fits],
                use_tqdm=False,
            )
        finally:
            _sleep(self.engine)
        advance(len(requests))
        replies = [ChatReply(status="template-refuses" if text is None else "too-long") for text in chats]
        for i, output in zip(fits, outputs, strict=True):
            replies[i] = read_output(output)
        latency = (time.perf_counter() - started) / len(requests)
        return [
            replace(reply, input_tokens=len(row), latency=latency) for reply, row in zip(replies, rows, strict=True)
        ]


_engines: dict[str, Any] = {}


def _engine(model: str, options: Vllm) -> Any:
    key = json.dumps([model, asdict(options)])
    if key not in _engines:
        _engines[key] = _start(model, options)
    return _engines[key]


def _start(model: str, options: Vllm) -> Any:
    if options.tensor_parallel == 1:
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # no process beside the worker's own
    import vllm

    return vllm.LLM(
        model=model,
        revision=options.revision,
        trust_remote_code=options.trust_remote_code,
        dtype=options.dtype,
        quantization=options.quantization,
        gpu_memory_utilization=options.gpu_memory,
        tensor_parallel_size=options.tensor_parallel,
        max_model_len=options.max_model_len,
        enable_prefix_caching=True,
        enable_sleep_mode=_can_sleep(),
    )


def _can_sleep() -> bool:
    from vllm.platforms import current_platform

    return bool(current_platform.is_sleep_mode_available())


def _sleep(engine: Any) -> None:
    """Give the GPU's memory back: weights wait in the machine's own, the cache is dropped."""
    if _can_sleep():
        engine.sleep(level=1)


def _wake(engine: Any) -> None:
    if _can_sleep() and engine.llm_engine.is_sleeping():
        engine.wake_up()


def sampling(request: ChatRequest) -> dict[str, Any]:
    """The arguments of `vllm.SamplingParams` for a request."""
    arguments: dict[str, Any] = {"max_tokens": request.max_tokens}
    arguments |= {} if request.temperature is None else {"temperature": request.temperature}
    return arguments | ({"logprobs": request.top_logprobs} if request.top_logprobs else {})


def read_output(output: Any) -> ChatReply:
    """A `vllm.RequestOutput` as a reply; "no-reply" where it holds none."""
    if not output.outputs:
        return ChatReply(status="no-reply")
    completion = output.outputs[0]
    first_token = completion.logprobs[0] if completion.logprobs else None
    return ChatReply(
        text=completion.text,
        top=None
        if first_token is None
        else [(alternative.decoded_token or "", alternative.logprob) for alternative in first_token.values()],
        finish=completion.finish_reason or "stop",
        input_tokens=len(output.prompt_token_ids or ()),
        output_tokens=len(completion.token_ids),
    )
