"""A Jinja template and two labels: the verdict is the first label's share of the two labels' probability."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from judges.errors import JudgeError
from judges.judge import Question, prompt_text
from judges.kinds.checkpoint import defused
from judges.kinds.pair_preference import check_labels
from judges.protocols.protocol import OWN, Protocol, Reading, check_decoding, own_or
from judges.protocols.reading import REFUSAL, strip_thinking
from judges.transports.messages import LABELS, ChatReply, ChatRequest
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
MIN_LABEL_MASS = 0.1
UNLIKELY = "labels-unlikely"


class LabelProtocol(Protocol):
    """A protocol whose verdict is the softmax over two labels as first token of the reply."""

    gives = ("label",)
    needs = LABELS
    labels: tuple[str, str]
    text_verdicts: bool = False
    """Whether a reply without log-probabilities may be read as text: exactly one label, 1 or 0."""

    def read(self, reply: ChatReply, question: Question) -> Reading:
        if reply.refused or reply.finish == "content_filter":
            return Reading.failure("refusal")
        if reply.top is not None:
            value, status = self.preference(reply.top)
            return Reading(value, "refusal" if status != OK and REFUSAL.match(reply.text) else status)
        return replace(self._text(reply), from_text=True) if self.text_verdicts else Reading.failure("no-logprobs")

    def preference(self, top: Sequence[tuple[str, float]]) -> tuple[float, str]:
        """P(first label) among the two from (token, log-probability) pairs, and a status."""
        return label_preference(top, self.labels)

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
    """A user's template and two labels: P(first beats second) is the first label's share of their probabilities.

    Args:
        template: Jinja text over `prompt`, `first`, `second` and `labels`.
        labels: what the model writes for the response placed first and for the second, single tokens.
        text_verdicts: read a reply that is exactly one label as 1 or 0 where an endpoint gives no log-probabilities.
        min_label_mass: below this probability of the two labels together a reply is "labels-unlikely": the model means
            to write something else, and how the rest is shared says little.
        max_tokens, temperature: of a reply, by default one token (8 with `text_verdicts`) and 0. Temperature null:
            none is sent.

    Raises:
        ValueError: labels that are not two different words, a template that does not parse, leaves a response out, or
            uses another variable.
    """

    template: str = TEMPLATE
    labels: tuple[str, str] = ("A", "B")
    text_verdicts: bool = False
    max_tokens: int | None = None
    temperature: float | str | None = OWN
    min_label_mass: float = MIN_LABEL_MASS

    def __post_init__(self) -> None:
        if not 0 <= self.min_label_mass <= 1:
            raise ValueError(f"min_label_mass must be in 0..1, got {self.min_label_mass}")
        object.__setattr__(self, "labels", check_labels(self.labels))
        check_decoding(self.max_tokens, self.temperature)
        _ = self.compiled  # a wrong template is found now

    @cached_property
    def compiled(self) -> Any:
        return compile_template(self.template)

    def preference(self, top: Sequence[tuple[str, float]]) -> tuple[float, str]:
        return label_preference(top, self.labels, self.min_label_mass)

    def request(self, question: Question) -> ChatRequest:
        return ChatRequest(
            messages=[{"role": "user", "content": render(self.compiled, self.labels, question)}],
            max_tokens=self.max_tokens or (TEXT_TOKENS if self.text_verdicts else 1),
            temperature=own_or(self.temperature, 0.0),
            labels=self.labels,
            top_logprobs=TOP_LOGPROBS,
        )


def label_preference(
    top: Sequence[tuple[str, float]], labels: tuple[str, str], min_mass: float = 0.0
) -> tuple[float, str]:
    """P(first label) among the two labels from (token, log-probability) pairs, and a status.

    A label's probability is the sum over tokens that equal it but for surrounding space. One that is not listed has at
    most the smallest probability that is, and what these leave of 1, and is taken to have that. "no-label" where
    neither is listed, "labels-unlikely" where what is listed of the two has less than `min_mass` together.
    """
    shown = [(token.strip(), math.exp(value)) for token, value in top]
    listed = [[p for token, p in shown if token == label] for label in labels]
    total = math.fsum(map(math.fsum, listed))
    if not 0 < total < math.inf:
        return math.nan, "no-label"
    if total < min_mass:
        return math.nan, UNLIKELY
    left = max(0.0, 1 - math.fsum(p for _, p in shown))
    bound = min(left, *(p for _, p in shown))
    first, second = (math.fsum(each) if each else bound for each in listed)
    return first / (first + second), OK


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
    """Token ids of a chat up to where the answer begins; its contents as paragraphs where there is no chat template.

    Raises:
        ValueError: the chat template refuses the turns.
    """
    text = chat_text(tokenizer, messages)
    if text is None:
        raise JudgeError(f"the chat template refuses turns of {', '.join(turn['role'] for turn in messages)}")
    return encode_text(tokenizer, text)


def chat_text(tokenizer: Any, messages: Sequence[dict[str, str]]) -> str | None:
    """A chat up to where the answer begins, as the tokenizer's template writes it; None where that refuses it.

    The system's words go into the user's turn where the template refuses a system turn, as Gemma's and Mistral's do.
    """
    import jinja2

    if tokenizer.chat_template is None:
        return "\n\n".join(turn["content"] for turn in messages)
    for turns in (messages, without_system(messages)):
        try:
            return str(tokenizer.apply_chat_template(list(turns), tokenize=False, add_generation_prompt=True))
        except jinja2.TemplateError:
            continue
    return None


def without_system(messages: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """The chat with the system's words at the head of the first user's turn."""
    system = "\n\n".join(turn["content"] for turn in messages if turn["role"] == "system")
    turns = [turn for turn in messages if turn["role"] != "system"]
    first = next((i for i, turn in enumerate(turns) if turn["role"] == "user"), None)
    if system and first is not None:
        turns[first] = {**turns[first], "content": f"{system}\n\n{turns[first]['content']}"}
    return turns


def encode_text(tokenizer: Any, text: str) -> list[int]:
    """Token ids of what `chat_text` wrote: a template writes the BOS itself, plain text has none yet."""
    return list(tokenizer(text, add_special_tokens=tokenizer.chat_template is None)["input_ids"])


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
