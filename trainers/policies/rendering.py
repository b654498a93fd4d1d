"""Prompts to tokens, by the tokenizer's own chat template."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from trainers.errors import TrainingError
from trainers.policies.policy import Prompt, Tokens

Message = dict[str, str]
FOLDED = "the chat template takes no system turn: its text stands before the user's"


def encode(tokenizer: PreTrainedTokenizerBase, prompt: Prompt, template_date: str = "") -> tuple[Tokens, list[str]]:
    """A prompt's tokens, up to where the response begins, and what a reader should know of them.

    Text without a chat template is continued after one BOS. Where a template refuses a system turn, its text is put
    before the first turn of the user.

    Args:
        template_date: what a template that writes the date writes, YYYY-MM-DD; "" is today.

    Raises:
        TrainingError: the template refuses the prompt, or chat messages are given without a template.
    """
    if tokenizer.chat_template is None:
        return _continued(tokenizer, prompt), []
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else [dict(m) for m in prompt]
    try:
        return _rendered(tokenizer, messages, template_date), []
    except TemplateError as error:
        folded = _without_system(messages)
        if folded is None:
            raise _refused(tokenizer, error) from error
    try:
        return _rendered(tokenizer, folded, template_date), [FOLDED]
    except TemplateError as error:
        raise _refused(tokenizer, error) from error


def _rendered(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], template_date: str) -> Tokens:
    clock: dict[str, Any] = {}
    if template_date:
        clock["strftime_now"] = datetime.datetime.fromisoformat(template_date).strftime
    ids: Any = tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, return_dict=False, **clock)
    return list(ids)


def _without_system(messages: Sequence[Message]) -> list[Message] | None:
    """The messages with the text of leading system turns before the first user's; None where there is none to move."""
    system = [message["content"] for message in messages if message["role"] == "system"]
    others = [message for message in messages if message["role"] != "system"]
    if not system or not others or others[0]["role"] != "user":
        return None
    return [others[0] | {"content": "\n\n".join([*system, others[0]["content"]])}, *others[1:]]


def _refused(tokenizer: PreTrainedTokenizerBase, error: TemplateError) -> TrainingError:
    return TrainingError(
        f"the chat template of {tokenizer.name_or_path} refuses the prompt: {' '.join(str(error).split())[:200]}"
    )


def _continued(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> Tokens:
    if not isinstance(prompt, str):
        raise TrainingError(
            f"the tokenizer of {tokenizer.name_or_path} has no chat template, so it cannot take chat "
            "messages; give prompts as text, or a tokenizer with a chat template"
        )
    bos = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    return bos + list(tokenizer(prompt, add_special_tokens=False)["input_ids"])


def writes_the_date(template: str | None) -> bool:
    """Whether a chat template writes what day it is."""
    return "strftime_now" in (template or "")
