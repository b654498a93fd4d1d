"""A local checkpoint that answers requests: labels from the logits of its next token, text by generation."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from judges.kinds.checkpoint import (
    Loaded,
    batches,
    check_batch_size,
    check_kind,
    defused,
    label_ids,
    last_logits,
    load,
    read_config,
)
from judges.protocols.custom import encode_messages
from judges.transports.messages import ChatReply, ChatRequest

KIND = "ForCausalLM"


class LocalChat:
    """A causal language model through transformers, loaded at the first question.

    Requests beyond its limit fail as "too-long"; they are never cut. A chat without a chat template is read as plain
    text. Special tokens in the texts of a question are broken apart.

    Args and errors: as `CheckpointJudge`.
    """

    def __init__(self, model: str | Path, revision: str | None, batch_size: int, trust_remote_code: bool) -> None:
        check_batch_size(batch_size)
        config = read_config(model)
        if config is not None and not trust_remote_code:
            check_kind(model, config.get("architectures"), KIND)
        self.model, self.revision = model, revision
        self.batch_size, self.trust_remote_code = batch_size, trust_remote_code

    @cached_property
    def loaded(self) -> Loaded:
        """The checkpoint, loaded when first asked for."""
        return load(self.model, KIND, revision=self.revision, trust_remote_code=self.trust_remote_code)

    def clean(self, text: str) -> str:
        """The text without special tokens."""
        return defused(self.loaded.tokenizer, text)

    def ask(self, requests: Sequence[ChatRequest], advance: Callable[[int], None]) -> list[ChatReply]:
        """A reply to each request, in order; all are of one protocol.

        Raises:
            ValueError: labels that are not single tokens.
        """
        started = time.perf_counter()
        rows = [encode_messages(self.loaded.tokenizer, request.messages) for request in requests]
        labels, new = requests[0].labels, 0 if requests[0].labels else requests[0].max_tokens
        fits = [i for i, row in enumerate(rows) if len(row) + new <= self.loaded.limit]
        advance(len(rows) - len(fits))
        kept = [rows[i] for i in fits]
        answered = self._labels(kept, labels, advance) if labels else self._generate(kept, requests[0], advance)
        replies = [ChatReply(status="too-long")] * len(rows)
        for i, reply in zip(fits, answered, strict=True):
            replies[i] = reply
        latency = (time.perf_counter() - started) / len(rows)
        return [
            replace(reply, input_tokens=len(row), latency=latency) for reply, row in zip(replies, rows, strict=True)
        ]

    def _labels(
        self, rows: Sequence[list[int]], labels: tuple[str, str], advance: Callable[[int], None]
    ) -> list[ChatReply]:
        """Log-probabilities of the two labels among themselves; a local model is never read as text."""
        tokens = label_ids(self.loaded.tokenizer, labels)
        logits = last_logits(self.loaded, rows, tokens, self.batch_size, advance)
        scores = logits - np.logaddexp(logits[:, :1], logits[:, 1:])
        return [ChatReply(top=list(zip(labels, log_probs, strict=True))) for log_probs in scores.tolist()]

    def _generate(
        self, rows: Sequence[list[int]], request: ChatRequest, advance: Callable[[int], None]
    ) -> list[ChatReply]:
        replies = [ChatReply()] * len(rows)
        for batch in batches([len(row) for row in rows], self.batch_size):
            continuations = self._continue([rows[i] for i in batch], request)
            for i, new in zip(batch, continuations, strict=True):
                replies[i] = self._reply(new)
            advance(len(batch))
        return replies

    def _continue(self, rows: Sequence[list[int]], request: ChatRequest) -> list[list[int]]:
        """New token ids of each row: greedy at temperature 0, else drawn."""
        import torch

        longest, pad = max(map(len, rows)), self.loaded.tokenizer.pad_token_id or 0
        device = self.loaded.model.device
        inputs = torch.tensor([[pad] * (longest - len(row)) + row for row in rows], device=device)
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=device)
        sampling: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        if request.temperature > 0:
            sampling = {"do_sample": True, "temperature": request.temperature, "top_p": 1.0, "top_k": 0}
        with torch.inference_mode():
            output = self.loaded.model.generate(
                inputs, attention_mask=mask, max_new_tokens=request.max_tokens, pad_token_id=pad, **sampling
            )
        return output[:, longest:].tolist()

    def _reply(self, new: list[int]) -> ChatReply:
        """A reply from its tokens; one without an end is cut off."""
        ends = self._ends()
        length = next((i for i, token in enumerate(new) if token in ends), None)
        text = self.loaded.tokenizer.decode(new[:length], skip_special_tokens=True)
        return ChatReply(text, finish="length" if length is None else "stop", output_tokens=len(new[:length]))

    def _ends(self) -> set[int]:
        ends = self.loaded.model.generation_config.eos_token_id
        return set(ends) if isinstance(ends, list) else {ends}
