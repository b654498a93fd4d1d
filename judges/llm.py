"""A language model as judge: any prompt, two labels; a local checkpoint or an OpenAI-compatible endpoint."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

from judges.judge import Judge, Question, failing_empty, prompt_text
from judges.models import check_batch_size, defused, encode_chat
from judges.pair_preference import LabelJudge, check_labels
from judges.verdicts import Answer

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


@dataclass(eq=False)
class LLMJudge(Judge):
    """A language model that names the better response: P(first beats second) from the probabilities of its two labels.

    With `base_url` (or `backend="openai"`) the model is asked through an OpenAI-compatible endpoint, else it is a
    checkpoint opened here. The template is the user's turn; a checkpoint without a chat template reads it as plain
    text. Empty responses fail as "empty-response". On an endpoint a reply with log-probabilities is read like a local
    model's; where the endpoint returns none and `text_verdicts` allows it, a reply that is exactly one label counts as
    1 or 0.

    Args:
        model: folder, hub id, or the endpoint's name for a model.
        base_url: of an OpenAI-compatible endpoint.
        backend: `transformers` or `openai`; by default `openai` where there is a base_url.
        template: Jinja text over `prompt`, `first`, `second` and `labels`; by default a plain question.
        labels: what the model writes for the response placed first and for the second; single tokens.
        text_verdicts: accept the reply's text where an endpoint gives no log-probabilities.
        api_key_env: environment variable that holds the endpoint's key; the key itself is never an option.
        revision, batch_size, trust_remote_code: of a checkpoint, as `CheckpointJudge`.
        concurrency, timeout, max_retries: requests in flight, seconds for one, and further tries by the client.

    Raises:
        ValueError: a missing model, key or template variable; a value out of range; labels that are not two texts. At
            the first question: labels that are not single tokens of a checkpoint, or an endpoint that refuses the key
                or
            does not know the model.
    """

    model: str | Path
    base_url: str | None = None
    backend: Literal["transformers", "openai"] | None = None
    template: str = TEMPLATE
    labels: tuple[str, str] = ("A", "B")
    text_verdicts: bool = False
    api_key_env: str = "OPENAI_API_KEY"
    revision: str | None = None
    batch_size: int = 16
    trust_remote_code: bool = False
    concurrency: int = 16
    timeout: float = 60.0
    max_retries: int = 3

    paths: ClassVar[tuple[str, ...]] = ("model",)
    tuning: ClassVar[tuple[str, ...]] = ("batch_size", "concurrency", "timeout", "max_retries", "api_key_env")

    def __post_init__(self) -> None:
        self.labels = check_labels(self.labels)
        self.backend = self.backend or ("openai" if self.base_url else "transformers")
        check_batch_size(self.batch_size)
        if self.backend not in ("transformers", "openai"):
            raise ValueError(f"backend must be 'transformers' or 'openai', got {self.backend!r}")
        if self.backend == "transformers" and self.base_url:
            raise ValueError("a base_url needs backend 'openai'; leave one of the two out")
        if self.concurrency < 1 or self.timeout <= 0 or self.max_retries < 0:
            raise ValueError("concurrency must be at least 1, timeout above 0 seconds and max_retries at least 0")
        if self.backend == "openai" and not self.base_url and not os.environ.get(self.api_key_env):
            raise ValueError(f"no API key: set the environment variable {self.api_key_env}, or give a base_url")
        self._template = compile_template(self.template)
        if self.backend == "transformers":
            source = (self.model, self.revision, self.batch_size, self.trust_remote_code)
            self._local = TemplateJudge(*source, labels=self.labels, template=self.template)

    def answer(self, questions: Sequence[Question], advance: Callable[[int], None]) -> list[Answer]:
        if self.backend == "transformers":
            return self._local.answer(questions, advance)
        return failing_empty(questions, advance, self._ask)

    @cached_property
    def _endpoint(self) -> Any:
        from judges.endpoint import Endpoint

        return Endpoint(
            model=str(self.model),
            base_url=self.base_url,
            api_key=os.environ.get(self.api_key_env) or "none",
            labels=self.labels,
            text_verdicts=self.text_verdicts,
            concurrency=self.concurrency,
            timeout=self.timeout,
            max_retries=self.max_retries,
        )

    def _ask(self, questions: Sequence[Question], advance: Callable[[int], None]) -> list[Answer]:
        return self._endpoint.ask([render(self._template, self.labels, each) for each in questions], advance)


@dataclass(eq=False)
class TemplateJudge(LabelJudge):
    """A local checkpoint that reads an LLMJudge's template. Args and errors: as `LLMJudge`."""

    template: str = TEMPLATE

    def __post_init__(self) -> None:
        super().__post_init__()
        self._template = compile_template(self.template)

    def encode(self, tokenizer: Any, question: Question) -> list[int]:
        return encode_template(tokenizer, self._template, self.labels, question)


def render(template: Any, labels: tuple[str, str], question: Question, clean: Callable[[str], str] = str) -> str:
    """The user's turn that asks a question; `clean` is applied to its texts first."""
    texts = {"prompt": prompt_text(question.prompt), "first": question.first, "second": question.second}
    return template.render(labels=labels, **{name: clean(text) for name, text in texts.items()})


def encode_template(tokenizer: Any, template: Any, labels: tuple[str, str], question: Question) -> list[int]:
    """Token ids of a rendered question, up to where the answer begins; plain text where there is no chat template."""
    text = render(template, labels, question, lambda part: defused(tokenizer, part))
    if tokenizer.chat_template is None:
        return tokenizer(text)["input_ids"]
    return encode_chat(tokenizer, [{"role": "user", "content": text}], generation_prompt=True)


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
