"""Pair-preference models: a causal language model that answers "A" or "B"."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from judges.judge import Question, messages_of
from judges.kinds.checkpoint import CheckpointJudge, defused, label_ids, last_logits
from judges.verdicts import Answer

# The context template and prompt of RLHFlow/RLHF-Reward-Modeling, pair-pm/README.md: part of what its models learned.
CONTEXT = (
    "\n{% for message in messages %}{% if loop.index0 % 2 == 0 %}\n\n<turn> user\n {{ message['content'] }}"
    "{% else %}\n\n<turn> assistant\n {{ message['content'] }}{% endif %}{% endfor %}\n\n\n"
)
PROMPT = "[CONTEXT] {context} [RESPONSE A] {first} [RESPONSE B] {second} \n"


@dataclass(eq=False)
class LabelJudge(CheckpointJudge):
    """A causal language model whose next token is a label: P(first beats second) = softmax over the two labels' logits.

    Prompts beyond the model's limit fail as "too-long"; they are never cut.

    Args:
        model, revision, batch_size, trust_remote_code: as `CheckpointJudge`.
        labels: what the model writes for the response placed first and for the second; each a single token.

    Raises:
        ValueError: as `CheckpointJudge`; at the first question, labels that are not single tokens.
    """

    labels: tuple[str, str] = ("A", "B")
    kind: ClassVar[str] = "ForCausalLM"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.labels = check_labels(self.labels)

    @abstractmethod
    def encode(self, tokenizer: Any, question: Question) -> list[int]:
        """Token ids of the prompt whose next token is the label."""

    def read(self, questions: Sequence[Question], advance: Callable[[int], None]) -> list[Answer]:
        started = time.perf_counter()
        tokens = label_ids(self.loaded.tokenizer, self.labels)
        rows = [self.encode(self.loaded.tokenizer, question) for question in questions]
        fits = [i for i, row in enumerate(rows) if len(row) <= self.loaded.limit]
        advance(len(rows) - len(fits))
        logits = last_logits(self.loaded, [rows[i] for i in fits], tokens, self.batch_size, advance)
        preference = np.full(len(rows), np.nan)
        preference[fits] = 0.5 * (1 + np.tanh((logits[:, 0] - logits[:, 1]) / 2))
        latency = (time.perf_counter() - started) / len(rows)
        return [
            Answer(float(p), status="too-long" if np.isnan(p) else "ok", input_tokens=len(row), latency=latency)
            for p, row in zip(preference, rows, strict=True)
        ]


@dataclass(eq=False)
class PairPreferenceJudge(LabelJudge):
    """RLHFlow's pair-preference models (RLHFlow/pair-preference-model-LLaMA3-8B), the oracle of INPO and ONPO.

    The prompt and the reading of "A" and "B" follow pair-pm/README.md of RLHFlow/RLHF-Reward-Modeling. Upstream
    averages both orders; ask for `both_orders` to do the same. Args and errors: as `LabelJudge`.
    """

    def encode(self, tokenizer: Any, question: Question) -> list[int]:
        return encode_preference(tokenizer, question)


def encode_preference(tokenizer: Any, question: Question) -> list[int]:
    """Token ids of RLHFlow's question: one user's turn without BOS, or plain text where there is no chat template."""
    turns = [{**turn, "content": defused(tokenizer, turn["content"])} for turn in messages_of(question.prompt)]
    prompt = PROMPT.format(
        context=tokenizer.apply_chat_template(turns, chat_template=CONTEXT, tokenize=False),
        first=defused(tokenizer, question.first),
        second=defused(tokenizer, question.second),
    )
    if tokenizer.chat_template is None:
        return tokenizer(prompt)["input_ids"]
    text = tokenizer.apply_chat_template([{"role": "user", "content": prompt}], tokenize=False)
    if tokenizer.bos_token:
        text = text.replace(tokenizer.bos_token, "")
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def check_labels(labels: Any) -> tuple[str, str]:
    """Raises ValueError for anything but two different texts."""
    pair = tuple(labels) if isinstance(labels, list | tuple) else ()
    if len(pair) != 2 or not all(isinstance(label, str) and label for label in pair) or pair[0] == pair[1]:
        raise ValueError(f"labels must be two different texts, for the first and the second response, got {labels!r}")
    return pair
