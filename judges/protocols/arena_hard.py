"""Arena-Hard's comparison: an explanation that ends with one of five verdicts, [[A>>B]] to [[B>>A]]."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from judges.errors import JudgeError
from judges.judge import Question, prompt_text
from judges.protocols.protocol import NO_VERDICT, OWN, Protocol, Reading, chat, check_decoding, fill, own_or
from judges.protocols.reading import find, one_verdict, strip_thinking, without_text
from judges.reading import clipped, parse_json, parse_yaml, read_text
from judges.transports.messages import ChatReply, ChatRequest

SYSTEM = """\
You compare the answers of two assistants, A and B, to one request. Check both for mistakes, then weigh how well each \
helps with what was asked. Explain your comparison briefly and end with exactly one verdict on a line of its own:

[[A>>B]] A is much better
[[A>B]] A is a little better
[[A=B]] they are about equal
[[B>A]] B is a little better
[[B>>A]] B is much better
"""
USER = """\
Request:
{QUESTION}

Answer of assistant A:
{ANSWER_A}

Answer of assistant B:
{ANSWER_B}
"""
ONCE_MORE = "Your reply has no verdict. Finish it with exactly one of the five verdicts in double square brackets."
PATTERNS = (r"\[\[([AB<>=]+)\]\]", r"\[([AB<>=]+)\]")
# show_result.py of lmarena/arena-hard-auto reads the mirrored spellings too.
PREFERENCE = {"A>>B": 1.0, "A>B": 0.75, "A=B": 0.5, "B>A": 0.25, "B>>A": 0.0}
MIRRORED = {"B<<A": 1.0, "B<A": 0.75, "B=A": 0.5, "A<B": 0.25, "A<<B": 0.0}
SIDES = ({"ANSWER_A", "answer_1"}, {"ANSWER_B", "answer_2"})


@dataclass(frozen=True)
class _Prompts:
    """What a prompt file says, and ours where there is none."""

    system: str = SYSTEM
    by_category: Mapping[str, str] = field(default_factory=dict)
    template: str = USER
    patterns: tuple[re.Pattern[str], ...] = tuple(map(re.compile, PATTERNS))
    attempts: int = 2
    max_tokens: int = 4096
    temperature: float = 0.0


@dataclass(frozen=True)
class ArenaHardProtocol(Protocol):
    """Arena-Hard's five-way verdicts, as 1, .75, .5, .25 and 0, after an explanation.

    Follows lmarena/arena-hard-auto, `gen_judgment.py`: the first of the patterns that matches decides; a reply without
    a verdict is answered once ("number_of_judgment_attempts: 2" of its v0.1) and both replies are read together. As in
    v0.1, two verdicts that differ are a failure; v2.0 takes the last one, which would let a quoted verdict count. The
    words of the second request are our own. A question's own category chooses the system prompt, as upstream's
    JUDGE_SETTINGS have one for each (creative writing differs). Without a file prompt and system text are ours too:
    **not the official prompt**, only its contract.

    Args:
        prompt_file: YAML of arena-hard-auto with `prompt_template`, `regex_patterns` or `regex_pattern`, `temperature`,
            `max_tokens`, and, before v2.0, `system_prompt`.
        settings_file: JSON of upstream's JUDGE_SETTINGS, {category: {"system_prompt"}}, where the YAML has none.
        category: of settings_file, for questions that have none of their own.
        max_tokens, temperature: of a reply; by default the file's. Temperature null: none is sent.

    Raises:
        ValueError: a file that is missing, is not in this form, or leaves a response out.
    """

    prompt_file: str | Path | None = None
    settings_file: str | Path | None = None
    category: str = "hard_prompt"
    max_tokens: int | None = None
    temperature: float | str | None = OWN

    gives = ("five-way",)
    paths = ("prompt_file", "settings_file")

    def __post_init__(self) -> None:
        check_decoding(self.max_tokens, self.temperature)
        if self.settings_file and not self.prompt_file:
            raise ValueError("settings_file needs a prompt_file; give both, or leave it out")
        _ = self.prompts  # a wrong file is found now

    @cached_property
    def prompts(self) -> _Prompts:
        """The official prompts, or ours."""
        if not self.prompt_file:
            return _Prompts()
        settings = Path(self.settings_file) if self.settings_file else None
        return _from_files(Path(self.prompt_file), settings, self.category)

    def request(self, question: Question) -> ChatRequest:
        asked = prompt_text(question.prompt)
        values = {"QUESTION": asked, "question_1": asked}
        values |= dict.fromkeys(SIDES[0], question.first) | dict.fromkeys(SIDES[1], question.second)
        return ChatRequest(
            chat(self._system(question), fill(self.prompts.template, values)),
            self.max_tokens or self.prompts.max_tokens,
            own_or(self.temperature, self.prompts.temperature),
        )

    def _system(self, question: Question) -> str:
        by_category = self.prompts.by_category
        if not by_category or not question.category:
            return self.prompts.system
        if question.category not in by_category:
            raise JudgeError(
                f"the category {question.category!r} of a question has no system_prompt in settings_file; there is "
                f"{', '.join(by_category)}"
            )
        return by_category[question.category]

    def again(self, request: ChatRequest, reply: ChatReply) -> ChatRequest | None:
        if self.prompts.attempts < 2:
            return None
        turns = [{"role": "assistant", "content": reply.text}, {"role": "user", "content": ONCE_MORE}]
        return ChatRequest([*request.messages, *turns], request.max_tokens, request.temperature)

    def read(self, reply: ChatReply, question: Question) -> Reading:
        if problem := without_text(reply):
            return Reading.failure(problem)
        text = strip_thinking(reply.text)
        verdicts = next((matches for pattern in self.prompts.patterns if (matches := find(pattern, text))), [])
        verdict, problem = one_verdict(verdicts, text, question)
        if problem:
            return Reading.failure(problem)
        value = (PREFERENCE | MIRRORED).get(verdict)
        return Reading.failure(NO_VERDICT) if value is None else Reading(value)


def _from_files(prompt_file: Path, settings_file: Path | None, category: str) -> _Prompts:
    config = _mapping(prompt_file, parse_yaml)
    template = config.get("prompt_template")
    template = template[0] if isinstance(template, list) and template else template
    if not isinstance(template, str) or not all(any(f"{{{n}}}" in template for n in side) for side in SIDES):
        raise ValueError(f"{prompt_file} has no prompt_template with {{ANSWER_A}} and {{ANSWER_B}}")
    return _Prompts(
        system=_system(config, prompt_file, settings_file, category),
        by_category={} if settings_file is None else _systems(settings_file),
        template=template,
        patterns=_patterns(config, prompt_file),
        attempts=int(config.get("number_of_judgment_attempts", 2)),
        max_tokens=int(config.get("max_tokens", _Prompts.max_tokens)),
        temperature=float(config.get("temperature", _Prompts.temperature)),
    )


def _mapping(path: Path, parse: Any) -> dict[str, Any]:
    try:
        content = parse(read_text(Path(path)), str(path))
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as a config of a judge: {clipped(str(error))}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no keys and values; it must be a config of a judge")
    return content


def _system(config: dict[str, Any], prompt_file: Path, settings_file: Path | None, category: str) -> str:
    if settings_file is None:
        if not isinstance(config.get("system_prompt"), str):
            raise JudgeError(f"{prompt_file} has no system_prompt; give the option settings_file")
        return config["system_prompt"]
    settings = _mapping(settings_file, parse_json)
    try:
        return str(settings[category]["system_prompt"])
    except (KeyError, TypeError):
        raise JudgeError(
            f"{settings_file} has no system_prompt for category {category!r}; it has {', '.join(map(str, settings))}"
        ) from None


def _systems(settings_file: Path) -> dict[str, str]:
    """The system prompt of each category that has one."""
    settings = _mapping(settings_file, parse_json)
    return {
        str(category): str(values["system_prompt"])
        for category, values in settings.items()
        if isinstance(values, dict) and "system_prompt" in values
    }


def _patterns(config: dict[str, Any], prompt_file: Path) -> tuple[re.Pattern[str], ...]:
    texts = config.get("regex_patterns") or [config.get("regex_pattern") or PATTERNS[0]]
    try:
        patterns = tuple(re.compile(text) for text in texts)
    except (re.error, TypeError) as error:
        raise ValueError(f"{prompt_file} has a pattern that is no regular expression: {error}") from error
    if any(pattern.groups != 1 for pattern in patterns):
        raise ValueError(f"{prompt_file} has a pattern without exactly one group for the verdict")
    return patterns
