"""What an endpoint sends back, read with suspicion: JSON, or one kind of failure for each way of being wrong."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from judges.transports.messages import ChatReply

MALFORMED, HTML, OVERSIZED, UPSTREAM = "malformed-reply", "html-reply", "oversized-reply", "upstream-error"
LARGEST = 4 * 2**20
"""Characters of a body that is read; a verdict has some thousands."""
MOST_TOKENS = 2**40  # more than that is no count
LONGEST_REASON = 120
UNREADABLE = (AttributeError, IndexError, KeyError, TypeError, ValueError, OverflowError, RecursionError)
KEY_LIKE = re.compile(r"\b(?:sk|pk|rk|key|gsk|xai|hf|Bearer)[-_ ][\w*.-]{6,}", re.IGNORECASE)
HTML_START = re.compile(r"\s*<(?:!doctype|html|head|body|\?xml)", re.IGNORECASE)


def read_body(body: str, read: Callable[[Any], ChatReply]) -> ChatReply:
    """A body as a reply by `read`, which may raise on anything; a failure of its kind where it is none.

    An error inside an HTTP 200, as gateways send it for a fault further up, is the failure that it says.
    """
    if len(body) > LARGEST:
        return ChatReply(status=OVERSIZED)
    if HTML_START.match(body):
        return ChatReply(status=HTML)
    try:
        content = json.loads(body)
        if isinstance(content, dict) and content.get("error"):
            return ChatReply(status=error_status(content["error"]))
        return read(content)
    except UNREADABLE:
        return ChatReply(status=MALFORMED)


def error_status(error: Any) -> str:
    """The failure that an error object in a body says, by the HTTP status that it names: "rate-limit", "http-503",
    "http-400: its message"; "upstream-error" where it names none.
    """
    code = error.get("code", error.get("status")) if isinstance(error, Mapping) else None
    number = int(code) if isinstance(code, int | str) and str(code).isdecimal() else 0
    if number == 429:
        return "rate-limit"
    if 400 <= number < 500:
        return refusal_status(number, error)
    return f"http-{number}" if 500 <= number < 600 else UPSTREAM


def refusal_status(code: int, body: Any, secrets: tuple[str, ...] = ()) -> str:
    """`http-400: the server's own reason`, in one line, keys taken out; the number alone where it gives none.

    A message about the key itself (401, 403) may show parts of it and is left out, as of a passing fault.
    """
    reason = "" if code in (401, 403, 408, 409, 429) or code >= 500 else message_of(body)
    for secret in secrets:
        reason = reason.replace(secret, "[key]")
    reason = KEY_LIKE.sub("[key]", " ".join(reason.split()))
    reason = "".join(letter for letter in reason if letter.isprintable())
    reason = reason if len(reason) <= LONGEST_REASON else f"{reason[: LONGEST_REASON - 3]}..."
    return f"http-{code}: {reason}" if reason else f"http-{code}"


def message_of(body: Any) -> str:
    """The words of an error's body as servers spell it; empty where there are none."""
    if isinstance(body, Mapping):
        for name in ("error", "message", "detail", "msg"):
            if body.get(name):
                return message_of(body[name])
    if isinstance(body, list) and body:
        return message_of(body[0])
    return body if isinstance(body, str) and not HTML_START.match(body) else ""


def text_of(value: Any) -> str:
    """A text, with half surrogate pairs replaced; "" for None. Raises TypeError for anything else."""
    if value is not None and not isinstance(value, str):
        raise TypeError("not a text")
    return (value or "").encode("utf-8", "replace").decode("utf-8")  # half a surrogate pair is no text to store


def content_text(content: Any) -> str:
    """A message's content: a text, or a list of parts, whose texts are joined and whose thinking is left out.

    Raises TypeError or AttributeError for anything else.
    """
    if not isinstance(content, list):
        return text_of(content)
    texts = [part for part in content if part["type"] in ("text", "output_text")]
    return "".join(text_of(part["text"]) for part in texts)


def count_of(value: Any) -> int:
    """A number of tokens; 0 for None. Raises TypeError for anything else."""
    if value is None:
        return 0
    if type(value) is not int or not 0 <= value <= MOST_TOKENS:
        raise TypeError("not a number of tokens")
    return value


def number_of(value: Any) -> float:
    """A number. Raises TypeError for anything else, truth values included."""
    if type(value) not in (int, float):
        raise TypeError("not a number")
    return float(value)


def probability_of(value: Any) -> float:
    """A probability. Raises TypeError or ValueError for anything else."""
    probability = number_of(value)
    if not -1e-6 <= probability <= 1 + 1e-6:
        raise ValueError("not a probability")
    return min(max(probability, 0.0), 1.0)


def log_of(probability: float) -> float:
    """The natural logarithm, -inf at 0."""
    return math.log(probability) if probability > 0 else -math.inf
