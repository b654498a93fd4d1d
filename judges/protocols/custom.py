"""A Jinja template and two labels: the verdict is the first label's share of the two labels' probability."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from judges.judge import Question, prompt_text
from judges.kinds.checkpoint import defused, encode_chat
from judges.protocols.protocol import Protocol, Reading
from judges.protocols.reading import REFUSAL, strip_thinking
from judges.transports.messages import ChatReply, ChatRequest
from judges.verdicts import OK

TEMPLATE = """\
Two responses answer one prompt. Decide which of them is the better answer.

Prompt:
{{ prompt }}

Response {{ labels[0] }}:
{{ first }}

Response {{ labels[1] }}:
{{ second }}

Which response is better, {{ labels[0] }} or {{ labels[1] }}? Reply with that one letter and nothing else.
"""
VARIABLES = {"prompt", "first", "second", "labels"}
TOP_LOGPROBS = 20
TEXT_TOKENS = 8


class LabelProtocol(Protocol):
    """A protocol whose verdict is the softmax over two labels as first token of the reply."""

    labels: tuple[str, str]
    text_verdicts: bool = False
    """Whether a reply without log-probabilities may be read as text: exactly one label, 1 or 0."""

    exact: bool = False
    """Whether only the label itself counts, and not the label with a space around it."""

    def read(self, reply: ChatReply, question: Question) -> Reading:
        if reply.refused or reply.finish == "content_filter":
            return Reading.failure("refusal")
        if reply.top is not None:
            value, status = label_preference(reply.top, self.labels, exact=self.exact)
            return Reading(value, "refusal" if status != OK and REFUSAL.match(reply.text) else status)
        return replace(self._text(reply), from_text=True) if self.text_verdicts else Reading.failure("no-logprobs")

    def _text(self, reply: ChatReply) -> Reading:
        stated = strip_thinking(reply.text).strip().rstrip(".")
        if stated in self.labels:
            return Reading(float(stated == self.labels[0]))
        if reply.finish == "length":
            return Reading.failure("truncated")
        if not stated:
            return Reading.failure("empty-reply")
        if REFUSAL.match(stated):
            return Reading.failure("refusal")
        both = all(re.search(rf"(?<!\w){re.escape(label)}(?!\w)", stated) for label in self.labels)
        return Reading.failure("two-verdicts" if both else "no-label")


@dataclass(frozen=True)
class CustomProtocol(LabelProtocol):
    """A user's template and labels. Args and errors: as `LLMJudge`."""

    template: str = TEMPLATE
    labels: tuple[str, str] = ("A", "B")
    text_verdicts: bool = False
    max_tokens: int | None = None
    temperature: float = 0.0

    @cached_property
    def compiled(self) -> Any:
        return compile_template(self.template)

    def request(self, question: Question) -> ChatRequest:
        return ChatRequest(
            messages=[{"role": "user", "content": render(self.compiled, self.labels, question)}],
            max_tokens=self.max_tokens or (TEXT_TOKENS if self.text_verdicts else 1),
            temperature=self.temperature,
            labels=self.labels,
            top_logprobs=TOP_LOGPROBS,
        )


def label_preference(
    top: Sequence[tuple[str, float]], labels: tuple[str, str], *, exact: bool = False
) -> tuple[float, str]:
    """P(first label) among the two labels from (token, log-probability) pairs, and a status.

    A label's probability is the sum over tokens that equal it but for surrounding space (or, `exact`, that equal it);
    one that is not listed counts as 0 beside one that is. "no-label" where neither is listed.
    """
    named = [(token if exact else token.strip(), value) for token, value in top]
    weights = [math.fsum(math.exp(value) for token, value in named if token == label) for label in labels]
    total = sum(weights)
    if not 0 < total < math.inf:
        return math.nan, "no-label"
    return weights[0] / total, OK


def render(template: Any, labels: tuple[str, str], question: Question) -> str:
    """The user's turn that asks a question."""
    return template.render(
        labels=labels, prompt=prompt_text(question.prompt), first=question.first, second=question.second
    )


def encode_template(tokenizer: Any, template: Any, labels: tuple[str, str], question: Question) -> list[int]:
    """Token ids of a rendered question, up to where the answer begins; plain text where there is no chat template."""
    text = render(template, labels, cleaned(question, lambda part: defused(tokenizer, part)))
    return encode_messages(tokenizer, [{"role": "user", "content": text}])


def encode_messages(tokenizer: Any, messages: Sequence[dict[str, str]]) -> list[int]:
    """Token ids of a chat up to where the answer begins; its contents as paragraphs where there is no chat template."""
    if tokenizer.chat_template is None:
        return tokenizer("\n\n".join(turn["content"] for turn in messages))["input_ids"]
    return encode_chat(tokenizer, messages, generation_prompt=True)


def cleaned(question: Question, clean: Callable[[str], str]) -> Question:
    """The question with `clean` applied to each of its texts."""
    prompt = question.prompt
    return Question(
        clean(prompt) if isinstance(prompt, str) else [{**turn, "content": clean(turn["content"])} for turn in prompt],
        clean(question.first),
        clean(question.second),
        tuple(map(clean, question.references)),
        question.category,
    )


def compile_template(text: str) -> Any:
    """A Jinja template over `prompt`, `first`, `second` and `labels`.

    Raises:
        ValueError: it does not parse, leaves a response out, or uses another variable.
    """
    import jinja2
    from jinja2 import meta
    from jinja2.sandbox import SandboxedEnvironment

    environment = SandboxedEnvironment(undefined=jinja2.StrictUndefined, keep_trailing_newline=False)
    try:
        used = meta.find_undeclared_variables(environment.parse(text))
    except jinja2.TemplateSyntaxError as error:
        raise ValueError(f"template line {error.lineno}: {error.message}") from error
    if unknown := sorted(used - VARIABLES):
        raise ValueError(f"template uses {', '.join(unknown)}; it has only {', '.join(sorted(VARIABLES))}")
    if missing := sorted({"first", "second"} - used):
        raise ValueError(f"template never shows {' and '.join(missing)}: a judge must see both responses")
    return environment.from_string(text)
