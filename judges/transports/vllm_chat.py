"""A local checkpoint through vLLM's offline engine.

Not run: no machine with vLLM was at hand. Tests cover the two pure functions, on objects of the shape that vLLM
documents for its public types (`SamplingParams`, `RequestOutput`, `CompletionOutput`, `Logprob`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from judges.errors import JudgeError
from judges.kinds.checkpoint import defused
from judges.transports.messages import LABELS, TEXT, ChatReply, ChatRequest
from judges.transports.transport import Transport

if TYPE_CHECKING:
    from judges.transports.cache import ReplyCache
    from judges.transports.limits import Limits


@dataclass(frozen=True)
class Vllm(Transport):
    """A causal language model opened here by vLLM's offline engine.

    Args:
        revision: branch, tag or commit of a hub id.
        trust_remote_code: run the code that comes with the checkpoint.
    """

    revision: str | None = None
    trust_remote_code: bool = False

    gives = frozenset({TEXT, LABELS})

    def check(self, model: str | Path) -> None:
        if find_spec("vllm") is None:
            raise JudgeError(
                "transport 'vllm' needs vLLM: pip install -e '.[vllm]' where nashbench lies, or choose another one"
            )

    def connect(self, model: str | Path, limits: Limits, repeat: int, replies: ReplyCache | None) -> VllmChat:
        return VllmChat(model, self.revision, self.trust_remote_code)


class VllmChat:
    """A causal language model through `vllm.LLM.chat`, loaded at the first question."""

    def __init__(self, model: str | Path, revision: str | None, trust_remote_code: bool) -> None:
        self.options = {"model": str(model), "revision": revision, "trust_remote_code": trust_remote_code}

    @cached_property
    def engine(self) -> Any:
        """The engine, loaded when first asked for."""
        import vllm

        return vllm.LLM(**self.options)

    def clean(self, text: str) -> str:
        """The text without special tokens."""
        return defused(self.engine.get_tokenizer(), text)

    def ask(self, requests: Sequence[ChatRequest], advance: Callable[[int], None]) -> list[ChatReply]:
        """A reply to each request, in order; the engine batches them itself."""
        import vllm

        started = time.perf_counter()
        outputs = self.engine.chat(
            [list(request.messages) for request in requests],
            [vllm.SamplingParams(**sampling(request)) for request in requests],
            use_tqdm=False,
        )
        advance(len(requests))
        latency = (time.perf_counter() - started) / len(requests)
        return [replace(read_output(output), latency=latency) for output in outputs]


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
