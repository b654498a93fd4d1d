"""MT-Bench's judge: ratings of single answers, and comparisons, with and without a reference answer, of one or two
turns.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from judges.judge import Question, messages_of
from judges.protocols.protocol import OWN, Protocol, Reading, chat, check_decoding, fill, own_or
from judges.protocols.reading import Found, find, one_verdict, strip_thinking, without_text
from judges.reading import clipped, parse_json, read_text
from judges.transports.messages import ChatReply, ChatRequest

Prompts = Mapping[str, tuple[str, str]]
Reader = Callable[[str, Question], Reading]
RATING = re.compile(r"\[\[([0-9]+\.?[0-9]*)\]\]")
RATING_FALLBACK = re.compile(r"\[([0-9]+\.?[0-9]*)\]")
WINNER = re.compile(r"\[\[([ABC])\]\]")
PREFERENCE = {"A": 1.0, "B": 0.0, "C": 0.5}
MAX_TOKENS = 2048

PAIR_SYSTEM = """\
You compare the answers of two assistants, A and B. Look for mistakes first, then weigh how well each answer serves \
the user. Explain briefly and end with one verdict on a line of its own: [[A]] if A is better, [[B]] if B is better, \
[[C]] if neither is.
"""
SINGLE_SYSTEM = """\
You rate the answer of an assistant. Look for mistakes first, then weigh how well it serves the user. Explain briefly \
and end with a whole number from 1 (useless) to 10 (excellent) in double square brackets on a line of its own, as in \
[[4]].
"""
REFERENCE = "A correct answer, for comparison:\n{ref_answer_1}\n\n"
REFERENCES = (
    "Correct answers, for comparison, to the first question:\n{ref_answer_1}\n\nto the second:\n{ref_answer_2}\n\n"
)
PAIR = "Question:\n{question}\n\nAnswer of A:\n{answer_a}\n\nAnswer of B:\n{answer_b}\n"
PAIR_TURNS = (
    "First question:\n{question_1}\n\nA answered:\n{answer_a_1}\n\nB answered:\n{answer_b_1}\n\n"
    "Second question, the one to judge:\n{question_2}\n\nA answered:\n{answer_a_2}\n\nB answered:\n{answer_b_2}\n"
)
SINGLE = "Question:\n{question}\n\nAnswer:\n{answer}\n"
SINGLE_TURNS = (
    "First question:\n{question_1}\n\nAnswer:\n{answer_1}\n\n"
    "Second question, the one to judge:\n{question_2}\n\nAnswer:\n{answer_2}\n"
)
OWN_PROMPTS: dict[str, tuple[str, str]] = {
    "pair-v2": (PAIR_SYSTEM, PAIR),
    "pair-v2-multi-turn": (PAIR_SYSTEM, PAIR_TURNS),
    "pair-math-v1": (PAIR_SYSTEM, REFERENCE + PAIR),
    "pair-math-v1-multi-turn": (PAIR_SYSTEM, REFERENCES + PAIR_TURNS),
    "single-v1": (SINGLE_SYSTEM, SINGLE),
    "single-v1-multi-turn": (SINGLE_SYSTEM, SINGLE_TURNS),
    "single-math-v1": (SINGLE_SYSTEM, REFERENCE + SINGLE),
    "single-math-v1-multi-turn": (SINGLE_SYSTEM, REFERENCES + SINGLE_TURNS),
}


@dataclass(frozen=True)
class MTBenchProtocol(Protocol):
    """MT-Bench's ratings and comparisons, after an explanation.

    Prompts go by their names in FastChat's `llm_judge/data/judge_prompts.jsonl`, read as FastChat reads.

    A prompt that is a chat of two user's turns is judged by its second turn; the first answer is the one in the chat,
    for both sides of a comparison (FastChat shows each side's own). With references the prompts named "math" are used;
    one reference for two turns is the second turn's. Ratings: `[[7]]`, else `[7]`; "out-of-range" beyond 1..10.
    Comparisons: [[A]], [[B]], and [[C]] as 1/2. Replies with two verdicts that differ are failures; FastChat takes the
    first rating, and A before B before C. Without a file the prompts are our own: **not the official ones**, only
    their contract.

    Args:
        prompt_file: FastChat's `judge_prompts.jsonl`.
        max_tokens, temperature: of a reply; temperature null: none is sent.

    Raises:
        ValueError: a file that is missing or not in this form, or lacks a prompt.
    """

    prompt_file: str | Path | None = None
    max_tokens: int = MAX_TOKENS
    temperature: float | str | None = OWN

    rates = False
    gives = ("verdict", "rating")
    paths = ("prompt_file",)

    def __post_init__(self) -> None:
        check_decoding(self.max_tokens, self.temperature)
        _ = self.prompts  # a wrong file is found now

    @cached_property
    def prompts(self) -> Prompts:
        """(system text, template) by FastChat's names: the official ones, or ours."""
        return _from_file(Path(self.prompt_file)) if self.prompt_file else OWN_PROMPTS

    @property
    def rating(self) -> MTBenchProtocol:
        return MTBenchRating(self.prompt_file, self.max_tokens, self.temperature)

    def request(self, question: Question) -> ChatRequest:
        values = _values(question)
        kind, plain = ("single", "v1") if self.rates else ("pair", "v2")
        variant = "math-v1" if question.references else plain
        turns = "-multi-turn" if "question_2" in values else ""
        system, template = self.prompts[f"{kind}-{variant}{turns}"]
        return ChatRequest(chat(system, fill(template, values)), self.max_tokens, own_or(self.temperature, 0.0))

    def read(self, reply: ChatReply, question: Question) -> Reading:
        if problem := without_text(reply):
            return Reading.failure(problem)
        text = strip_thinking(reply.text)
        verdict, problem = one_verdict(self._find(text), text, question)
        if problem:
            return Reading.failure(problem)
        if not self.rates:
            return Reading(PREFERENCE[verdict])
        value = float(verdict)
        return Reading(value) if 1 <= value <= 10 else Reading.failure("out-of-range")

    def _find(self, text: str) -> list[Found]:
        if not self.rates:
            return find(WINNER, text)
        return find(RATING, text) or find(RATING_FALLBACK, text)


class MTBenchRating(MTBenchProtocol):
    """MT-Bench's ratings of single answers."""

    rates = True


def _from_file(prompt_file: Path) -> Prompts:
    """The prompts of FastChat's `judge_prompts.jsonl`. Raises ValueError where it is not in this form, or lacks one."""
    try:
        lines = read_text(prompt_file).split("\n")
        records = [parse_json(line, f"line {number}") for number, line in enumerate(lines, 1) if line.strip()]
        prompts = {str(each["name"]): (str(each["system_prompt"]), str(each["prompt_template"])) for each in records}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{prompt_file} is no judge_prompts.jsonl of FastChat: {clipped(str(error))}") from error
    if missing := sorted(OWN_PROMPTS.keys() - prompts.keys()):
        raise ValueError(f"{prompt_file} lacks the prompts {', '.join(missing)}")
    return prompts


def _values(question: Question) -> dict[str, str]:
    """What fills a template, by FastChat's names; two turns where the prompt has two user's turns."""
    turns = messages_of(question.prompt)
    asked = [turn["content"] for turn in turns if turn["role"] == "user"]
    known = question.references if len(question.references) >= len(asked[:2]) else ("", *question.references)
    references = {f"ref_answer_{i}": text for i, text in enumerate(known, 1)}
    if len(asked) < 2:
        texts = {"question": asked[-1] if asked else "", "answer": question.first}
        return texts | {"answer_a": question.first, "answer_b": question.second} | references
    earlier = next((turn["content"] for turn in reversed(turns) if turn["role"] == "assistant"), "")
    return references | {
        "question_1": asked[-2],
        "question_2": asked[-1],
        **dict.fromkeys(("answer_1", "answer_a_1", "answer_b_1"), earlier),
        **dict.fromkeys(("answer_2", "answer_a_2"), question.first),
        "answer_b_2": question.second,
    }
