"""Answers from a model behind an OpenAI-compatible endpoint: texts alone. Tokens and logits stay with the server, so
nothing can be trained on them or mixed with them.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import openai

from trainers.engines.engine import Decoding
from trainers.options import Endpoint
from trainers.policies.policy import Response

Messages = Sequence[Mapping[str, str]]
Answer = tuple[str, str]
"""A text and why it ended."""

SEEDS = 2**31
WORDS = 200  # characters of what a server says
START = 40  # characters of a prompt, by which a user finds it
SECRET = 8  # characters that make a key; shorter ones, as of local servers, are ordinary words
UNREADABLE = (AttributeError, KeyError, TypeError, ValueError, RecursionError)
REFUSED = "see that the model takes the temperature, and that the prompt and sampling.max_tokens fit its context"
ADVICE = {
    400: REFUSED,
    422: REFUSED,
    401: "put a valid key into the environment variable {key}",
    403: "put a key that may use the model into the environment variable {key}",
    404: "check the policy's endpoint and model",
    429: "lower the policy's concurrency",
}


def sample_texts(
    endpoint: Endpoint,
    prompts: Sequence[Messages],
    k: int,
    decoding: Decoding,
    seeds: Sequence[int],
    received: Path,
    report: Callable[[int, int], None],
) -> list[list[Response]]:
    """k answers to each conversation, without tokens; `finished` where the server says that the model stopped.

    Every answer is a call with a seed of its own, so that it does not depend on how many are requested (`n` would leave
    the joint distribution of answers to the server, and many servers ignore it). Whether a server honours seed and
    temperature is not checked. After a failure no further call is made; those in flight are awaited.

    Args:
        seeds: one a prompt. The seed of call j about it is the prompt's plus j, in [0, 2**31).
        received: a folder. Answers are saved there as they arrive, and are not requested again.
        report: called with the number of answers received and the number wanted.

    Raises:
        ValueError: a call failed after all its tries, or its reply is no chat completion.
    """
    bodies = [
        [_body(endpoint, messages, (seed + number) % SEEDS, decoding) for number in range(k)]
        for messages, seed in zip(prompts, seeds, strict=True)
    ]
    answers = _AnswerLog(received / "answers.jsonl")
    asyncio.run(_ask_all(endpoint, [body for row in bodies for body in row], answers, report))
    return [[Response([], text, end == "stop") for text, end in map(answers.to, row)] for row in bodies]


def _body(endpoint: Endpoint, messages: Messages, seed: int, decoding: Decoding) -> dict[str, Any]:
    """A call's arguments."""
    body = {"model": endpoint.model, "messages": [dict(m) for m in messages], "seed": seed}
    body |= token_limit(endpoint.official, decoding.max_tokens)
    nucleus = {"top_p": decoding.top_p} if decoding.top_p < 1 and decoding.temperature > 0 else {}
    return body | {"temperature": decoding.temperature} | nucleus


def token_limit(official: bool, tokens: int) -> dict[str, int]:
    """All models of OpenAI take `max_completion_tokens`; other endpoints `max_tokens`."""
    return {"max_completion_tokens" if official else "max_tokens": tokens}


class _AnswerLog:
    """Answers by the request they answer, in a file of JSON lines: the request's hash, the text and why it ended. The
    first of several answers to a request is kept.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.answers = path, dict[str, Answer]()
        for line in path.read_text(encoding="utf-8").split("\n") if path.exists() else ():
            with contextlib.suppress(ValueError):  # a process may have ended inside a line
                request, text, end = json.loads(line)
                self.answers.setdefault(request, (text, end))

    def __contains__(self, body: Mapping[str, Any]) -> bool:
        return _key(body) in self.answers

    def to(self, body: Mapping[str, Any]) -> Answer:
        return self.answers[_key(body)]

    def add(self, body: Mapping[str, Any], answer: Answer) -> None:
        line = json.dumps([_key(body), *self.answers.setdefault(_key(body), answer)])
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"\n{line}\n")


def _key(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


async def _ask_all(
    endpoint: Endpoint,
    bodies: Sequence[Mapping[str, Any]],
    answers: _AnswerLog,
    report: Callable[[int, int], None],
) -> None:
    todo, done, failures = iter(bodies), itertools.count(1), list[str]()
    client = _client(endpoint)

    async def work() -> None:
        for body in todo:
            try:
                if body not in answers:
                    answers.add(body, await _ask(client, endpoint, body))
            except (openai.OpenAIError, ValueError) as error:
                failures.append(f"prompt {body['messages'][-1]['content'][:START]!a}: {_explain(error, endpoint)}")
            if failures:
                return
            report(next(done), len(bodies))

    async with client:
        await asyncio.gather(*(work() for _ in range(min(endpoint.concurrency, len(bodies)))))
    if failures:
        raise ValueError(
            f"policy {endpoint.model!r} at {endpoint.endpoint}: {failures[0]}; run again to ask what is missing, the "
            "answers that came are kept"
        )


def account_headers(official: bool) -> dict[str, Any]:
    """Headers by which the client does not name the user's organisation and project, of its environment, to others."""
    return {} if official else dict.fromkeys(("OpenAI-Organization", "OpenAI-Project"), openai.omit)


def _client(endpoint: Endpoint) -> openai.AsyncOpenAI:
    """A client that names the user's organisation and project to OpenAI alone."""
    return openai.AsyncOpenAI(
        api_key=endpoint.api_key or "none",
        base_url=endpoint.endpoint,
        timeout=endpoint.timeout,
        max_retries=endpoint.max_retries,
        default_headers=account_headers(endpoint.official),
    )


async def _ask(client: Any, endpoint: Endpoint, body: Mapping[str, Any]) -> Answer:
    """The answer to a request, without the key."""
    text, end = read_choice(await client.post("/chat/completions", cast_to=str, body=body))
    return _without_key(text, endpoint), _without_key(end, endpoint)


def _without_key(text: str, endpoint: Endpoint) -> str:
    """The text without the key, should a server echo it; of parsed text, as JSON may spell a key with escapes."""
    key = endpoint.api_key
    return text.replace(key, "[key]") if len(key) >= SECRET else text


def read_choice(reply: str) -> Answer:
    """Text and reason of the end of the first choice of a chat completion's body; a refusal is its words.

    Raises:
        ValueError: anything else.
    """
    try:
        answers = [
            (
                _text(choice["message"]["content"] or choice["message"].get("refusal")),
                _text(choice.get("finish_reason")),
            )
            for choice in json.loads(reply)["choices"][:1]
        ]
    except UNREADABLE as error:
        raise ValueError("the reply is no chat completion") from error
    if not answers:
        raise ValueError("the reply is a chat completion without choices")
    return answers[0]


def _text(value: Any) -> str:
    if value is not None and not isinstance(value, str):
        raise TypeError("not a text")
    return (value or "").encode("utf-8", "replace").decode("utf-8")  # half a surrogate pair is no text to store


def _explain(error: Exception, endpoint: Endpoint) -> str:
    """The error in one line, with advice. A server's own message may quote parts of a key: it is included, in ASCII,
    only where the request itself was invalid.
    """
    if isinstance(error, openai.APIStatusError):
        code = error.status_code
        advice = ADVICE.get(code, "look into the server's log").format(key=endpoint.api_key_env)
        details = f" ({_without_key(str(error.body), endpoint)[:WORDS]!a})" if advice == REFUSED else ""
        return f"HTTP {code}{details}; {advice}"
    if isinstance(error, openai.APITimeoutError):
        return f"no answer within {endpoint.timeout:g} s; lower the policy's concurrency or raise its timeout"
    if isinstance(error, openai.APIConnectionError):
        return "no connection; see that the server is up"
    if isinstance(error, UnicodeEncodeError):
        if not endpoint.api_key.isascii():
            return f"the key is not ASCII; put a valid key into the environment variable {endpoint.api_key_env}"
        return "the prompt holds half a surrogate pair, which no call can carry; mend it in its file"
    return f"{error if type(error) is ValueError else 'the reply is no chat completion'}; check the policy's endpoint"
