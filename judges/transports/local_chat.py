"""A local checkpoint that answers requests: labels from the logits of its next token, text by generation."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from judges.errors import JudgeError
from judges.kinds.checkpoint import (
    BATCHES,
    Loaded,
    batches,
    check_batch_size,
    check_kind,
    defused,
    load,
    padded,
    read_config,
)
from judges.protocols.custom import chat_text, encode_text
from judges.transports.messages import LABELS, TEXT, ChatReply, ChatRequest
from judges.transports.transport import Transport

if TYPE_CHECKING:
    from judges.transports.cache import ReplyCache
    from judges.transports.limits import Limits

KIND = "ForCausalLM"
CONTEXT = 16
"""Characters at the end of a prompt that decide how the tokenizer spells a label after it."""


@dataclass(frozen=True)
class Transformers(Transport):
    """A causal language model opened here by transformers, in the precision it was saved in.

    The head's softmax and all that follows is float32 or wider; weights in bf16 round within the model, so that there a
    verdict may depend, in its last digits, on what is in its batch.

    Args:
        revision: branch, tag or commit of a hub id.
        batch_size: texts in one forward pass.
        trust_remote_code: run the code that comes with the checkpoint.
    """

    revision: str | None = None
    batch_size: int = 16
    trust_remote_code: bool = False

    gives = frozenset({TEXT, LABELS})
    tuning = ("batch_size",)

    def __post_init__(self) -> None:
        check_batch_size(self.batch_size)

    def check(self, model: str | Path) -> None:
        config = read_config(model)
        if config is not None and not self.trust_remote_code:
            check_kind(model, config.get("architectures"), KIND)

    def chunk_size(self, limits: Limits) -> int:
        return BATCHES * self.batch_size

    def connect(self, model: str | Path, limits: Limits, repeat: int, replies: ReplyCache | None) -> LocalChat:
        return LocalChat(model, self.revision, self.batch_size, self.trust_remote_code)


class LocalChat:
    """A causal language model through transformers, loaded at the first question.

    Requests beyond its limit fail as "too-long"; they are never cut. A chat without a chat template is read as plain
    text. Special tokens in the texts of a question are broken apart.

    Args and errors: as `CheckpointJudge`.
    """

    def __init__(self, model: str | Path, revision: str | None, batch_size: int, trust_remote_code: bool) -> None:
        self.model, self.revision = model, revision
        self.batch_size, self.trust_remote_code = batch_size, trust_remote_code

    @cached_property
    def loaded(self) -> Loaded:
        """The checkpoint, loaded when first asked for. Nothing of its generation config decides a reply: temperature 0
        is the likeliest token whatever penalties, minimum lengths or stop texts the file has.
        """
        from transformers import GenerationConfig

        loaded = load(self.model, KIND, revision=self.revision, trust_remote_code=self.trust_remote_code)
        self._ends = end_tokens(loaded)
        pad = loaded.tokenizer.pad_token_id or 0
        loaded.model.generation_config = GenerationConfig(eos_token_id=sorted(self._ends) or None, pad_token_id=pad)
        return loaded

    def clean(self, text: str) -> str:
        """The text without special tokens."""
        return defused(self.loaded.tokenizer, text)

    def ask(self, requests: Sequence[ChatRequest], advance: Callable[[int], None]) -> list[ChatReply]:
        """A reply to each request, in order; all are of one protocol.

        Raises:
            ValueError: labels that are not single tokens.
        """
        started = time.perf_counter()
        chats = [chat_text(self.loaded.tokenizer, request.messages) for request in requests]
        rows = [[] if text is None else encode_text(self.loaded.tokenizer, text) for text in chats]
        labels, new = requests[0].labels, 0 if requests[0].labels else requests[0].max_tokens
        fits = [i for i, row in enumerate(rows) if row and len(row) + new <= self.loaded.limit]
        advance(len(rows) - len(fits))
        kept = [rows[i] for i in fits]
        if labels:
            answered = self._labels([str(chats[i]) for i in fits], kept, labels, advance)
        else:
            answered = self._generate(kept, requests[0], advance)
        replies = [ChatReply(status="template-refuses" if text is None else "too-long") for text in chats]
        for i, reply in zip(fits, answered, strict=True):
            replies[i] = reply
        latency = (time.perf_counter() - started) / len(rows)
        return [
            replace(reply, input_tokens=len(row), latency=latency) for reply, row in zip(replies, rows, strict=True)
        ]

    def _labels(
        self, texts: Sequence[str], rows: Sequence[list[int]], labels: tuple[str, str], advance: Callable[[int], None]
    ) -> list[ChatReply]:
        """Log-probabilities of the two labels as next token. Of a checkpoint that was trained to tell these two apart
        (`judge_labels` in its config, a token each) those tokens are read, among the two alone. A local model is never
        read as text.
        """
        trained = getattr(self.loaded.model.config, "judge_labels", None) or {}
        if is_trained := {*labels} <= {*trained}:
            groups = [[[trained[label]] for label in labels]] * len(texts)
        else:
            by_end = {text[-CONTEXT:]: text for text in texts}
            known = {end: self._tokens_after(text, labels) for end, text in by_end.items()}
            groups = [known[text[-CONTEXT:]] for text in texts]
        scores = next_log_probs(self.loaded, rows, groups, self.batch_size, advance)
        if is_trained:
            scores -= np.logaddexp(scores[:, :1], scores[:, 1:])
        return [ChatReply(top=list(zip(labels, log_probs, strict=True))) for log_probs in scores.tolist()]

    def _tokens_after(self, text: str, labels: tuple[str, str]) -> list[list[int]]:
        """The tokens of each label after a text. Raises ValueError where a label has none, or both share one."""
        tokens = [label_tokens(self.loaded.tokenizer, text, label) for label in labels]
        if {*tokens[0]} & {*tokens[1]}:
            raise JudgeError(
                f"labels {', '.join(map(repr, labels))} are one token to this judge's tokenizer; choose others"
            )
        return tokens

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

        device = self.loaded.model.device
        longest, pad = max(map(len, rows)), self.loaded.tokenizer.pad_token_id or 0
        inputs = torch.tensor([[pad] * (longest - len(row)) + row for row in rows], device=device)
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=device)
        sampling: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        temperature = 1.0 if request.temperature is None else request.temperature
        if temperature > 0:
            sampling = {"do_sample": True, "temperature": temperature, "top_p": 1.0, "top_k": 0}
        with torch.inference_mode():
            output = self.loaded.model.generate(
                inputs, attention_mask=mask, max_new_tokens=request.max_tokens, pad_token_id=pad, **sampling
            )
        return output[:, longest:].tolist()

    def _reply(self, new: list[int]) -> ChatReply:
        """A reply from its tokens; one without an end is cut off."""
        length = next((i for i, token in enumerate(new) if token in self._ends), None)
        text = self.loaded.tokenizer.decode(new[:length], skip_special_tokens=True)
        return ChatReply(text, finish="length" if length is None else "stop", output_tokens=len(new[:length]))


def end_tokens(loaded: Loaded) -> frozenset[int]:
    """Tokens that end a reply: the generation config's and the tokenizer's, as a policy's do."""
    configured = getattr(loaded.model.generation_config, "eos_token_id", None)
    ids = configured if isinstance(configured, list) else [configured]
    return frozenset(i for i in [*ids, loaded.tokenizer.eos_token_id] if i is not None)


def label_tokens(tokenizer: Any, text: str, label: str) -> list[int]:
    """The tokens by which a reply may begin with a label: the one that follows this text, with and without a space
    before it, and the one that the label has by itself.

    Raises:
        ValueError: there is none: the label is several tokens, or unknown.
    """
    prompt = encode_text(tokenizer, text)
    found = set[int]()
    for spelled in (label, f" {label}"):
        whole = encode_text(tokenizer, text + spelled)
        if whole[: len(prompt)] == prompt and len(whole) == len(prompt) + 1:
            found.add(whole[-1])
    alone = tokenizer.encode(label, add_special_tokens=False)
    found |= {*alone} if len(alone) == 1 else set()
    found -= {tokenizer.unk_token_id}
    if not found:
        problem = "unknown" if len(alone) == 1 else f"{len(alone)} tokens"
        raise JudgeError(
            f"label {label!r} is {problem} to this judge's tokenizer; choose labels that are one known token each"
        )
    return sorted(found)


def next_log_probs(
    loaded: Loaded,
    rows: Sequence[Sequence[int]],
    tokens: Sequence[Sequence[Sequence[int]]],
    batch_size: int,
    advance: Callable[[int], None],
) -> NDArray[np.float64]:
    """Log-probability that the token after each row is one of each group of tokens: float64 [rows, groups].

    The softmax over the vocabulary is taken in float32 whatever the weights are.
    """
    import torch

    scores = np.empty((len(rows), len(tokens[0]) if tokens else 0))
    with torch.inference_mode():
        for batch in batches([len(row) for row in rows], batch_size):
            inputs = padded([rows[i] for i in batch], 0, loaded.model.device)
            last, where = torch.unique(inputs["attention_mask"].sum(dim=1) - 1, return_inverse=True)
            logits = loaded.model(**inputs, logits_to_keep=last).logits
            ends = logits[torch.arange(len(where), device=logits.device), where].float().log_softmax(-1)
            for groups in {json.dumps(tokens[i]): tokens[i] for i in batch}.values():  # mostly one for all rows
                same = [place for place, i in enumerate(batch) if tokens[i] == groups]
                columns = [ends[same][:, list(group)].logsumexp(-1) for group in groups]
                scores[[batch[place] for place in same]] = torch.stack(columns, 1).cpu().numpy()
            advance(len(batch))
    return scores
