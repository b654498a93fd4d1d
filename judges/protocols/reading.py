"""Reading verdicts from text that may be hostile: the rules that all protocols with written verdicts share."""

from __future__ import annotations

import re
import string
from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass

from judges.judge import Question, prompt_text
from judges.protocols.protocol import NO_VERDICT
from judges.transports.messages import ChatReply

OPENING = re.compile(r"\s*(?:<think(?:ing)?>|\[THINK\]|<\|channel\|>analysis)", re.IGNORECASE)
CLOSING = re.compile(r"</think(?:ing)?>|\[/THINK\]|<\|channel\|>final<\|message\|>", re.IGNORECASE)
"""How thinking begins and ends: with tags, with Mistral's brackets, with the channels of OpenAI's open models."""
REFUSAL = re.compile(
    r"\s*(?:i['’]m (?:very )?sorry|i am (?:very )?sorry|sorry|i can(?:['’]t|not)|i['’]m (?:unable|not able)"
    r"|i am (?:unable|not able)|i (?:must|have to) (?:decline|refuse)|i won['’]t|as an ai)\b",
    re.IGNORECASE,
)
# A fenced block, a line that quotes, a text in quotation marks. The last two end with their line.
QUOTATION = re.compile(r'```.*?(?:```|\Z)|^[ \t]*>[^\n]*|"[^"\n]*"|“[^”\n]*”', re.DOTALL | re.MULTILINE)
QUOTED_LINE = re.compile(r'^[ \t*]*("[^"\n]*"|“[^”\n]*”)[ \t*.]*$', re.MULTILINE)
QUOTED_END = re.compile(r'("[^"\n]*"|“[^”\n]*”)[\s*.]*\Z')
UPPER = str.maketrans(string.ascii_lowercase, string.ascii_uppercase)
CONTEXT = 16  # characters before a verdict that make it a copy of a response's words


@dataclass(frozen=True)
class Found:
    """A verdict in a text, and its position."""

    verdict: str
    start: int
    end: int


def strip_thinking(text: str) -> str:
    """A reply without the thinking block it begins with; "" where the block never ends.

    A block whose opening tag is in the prompt shows only its closing tag; all up to the last one is thinking.
    """
    closings = list(CLOSING.finditer(text))
    if closings:
        return text[closings[-1].end() :]
    return "" if OPENING.match(text) else text


def without_text(reply: ChatReply) -> str | None:
    """Why a reply holds no text to read: "refusal", "truncated", "empty-reply"; None where it does."""
    if reply.refused or reply.finish == "content_filter":
        return "refusal"
    if reply.finish == "length":
        return "truncated"
    return None if strip_thinking(reply.text).strip() else "empty-reply"


def find(pattern: re.Pattern[str], text: str) -> list[Found]:
    """The matches of a pattern with one group, ASCII letters read as capitals, empty ones left out."""
    return [Found(match[1], *match.span()) for match in pattern.finditer(text.translate(UPPER)) if match[1]]


def one_verdict(verdicts: Sequence[Found], text: str, question: Question) -> tuple[str, str]:
    """(verdict, "") or ("", kind of failure) from the verdicts in a reply.

    "two-verdicts": two that differ, anywhere. "quoted-verdict": the only one stands in a quotation or in
    words copied from the prompt or a response; or these hold the same verdict and it is not the reply's last line.
    "refusal": none, and the reply begins as refusals do. "no-verdict": none.
    """
    if not verdicts:
        return "", "refusal" if REFUSAL.match(text) else NO_VERDICT
    if len({verdict.verdict for verdict in verdicts}) > 1:
        return "", "two-verdicts"
    sources = _sources(question)
    in_source = any(text[verdicts[0].start : verdicts[0].end].translate(UPPER) in source for source in sources)
    foreign = _copies(sources, text, verdicts) | _quoted(text, verdicts, strict=in_source)
    last_line = text.rstrip().rfind("\n") + 1
    if any(verdict not in foreign and (not in_source or verdict.start >= last_line) for verdict in verdicts):
        return verdicts[0].verdict, ""
    return "", "quoted-verdict"


def _sources(question: Question) -> list[str]:
    texts = (prompt_text(question.prompt), question.first, question.second, *question.references)
    return [text.translate(UPPER) for text in texts]


def _copies(sources: Sequence[str], text: str, verdicts: Sequence[Found]) -> set[Found]:
    """The verdicts preceded by the same characters as in a source."""
    capitals = text.translate(UPPER)
    written = {capitals[verdict.start : verdict.end] for verdict in verdicts}
    contexts = {
        source[match.start() - CONTEXT : match.end()]
        for source in sources
        for token in written
        for match in re.finditer(re.escape(token), source)
        if match.start() >= CONTEXT
    }
    return {verdict for verdict in verdicts if capitals[max(0, verdict.start - CONTEXT) : verdict.end] in contexts}


def _quoted(text: str, verdicts: Sequence[Found], *, strict: bool) -> set[Found]:
    """The verdicts inside quotations.

    Prompts show the verdict in quotation marks, so marks around the bare verdict, around a whole line, or around the
    end of a reply with no other verdict are the judge's own, unless `strict`.
    """
    own = set() if strict else {match.span(1) for match in QUOTED_LINE.finditer(text)}
    if not strict and len(verdicts) == 1 and (ending := QUOTED_END.search(text)):
        own.add(ending.span(1))
    spans = [match.span() for match in QUOTATION.finditer(text)]
    starts = [start for start, _ in spans]
    quoted = set()
    for verdict in verdicts:
        start, end = spans[bisect(starts, verdict.start) - 1] if starts else (0, 0)
        bare = not strict and (start, end) == (verdict.start - 1, verdict.end + 1)
        if start <= verdict.start and verdict.end <= end and not bare and (start, end) not in own:
            quoted.add(verdict)
    return quoted
