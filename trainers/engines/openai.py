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
import torch

from trainers.engines.engine import Decoding
from trainers.options import Endpoint
from trainers.policies.policy import Response

Messages = Sequence[Mapping[str, str]]
Said = tuple[str, str]
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
    generator: torch.Generator,
    received: Path,
    report: Callable[[int, int], None],
) -> list[list[Response]]:
    """k answers to each conversation, without tokens; `finished` where the server says that the model stopped.

    Each prompt has its own seed. How far a server heeds that, or the temperature, is not checked; one that gives fewer
    answers than asked for (`n`) is asked for the others. After a failure no further call is made; those in flight are
    waited for.

    Args:
        received: a folder. Answers are kept in it as they come, and are not asked for again.
        report: is told of each prompt answered, and of how many there are.

    Raises:
        ValueError: a call failed after all its tries, or its reply is no chat completion.
    """
    seeds = torch.randint(SEEDS, (len(prompts),), generator=generator).tolist()
    bodies = [_body(endpoint, *each, decoding) for each in zip(prompts, seeds, strict=True)]
    kept = _Received(received / "answers.jsonl")
    asyncio.run(_ask_all(endpoint, bodies, k, kept, report))
    return [[Response([], text, end == "stop") for text, end in kept.to(body)[:k]] for body in bodies]


def _body(endpoint: Endpoint, messages: Messages, seed: int, decoding: Decoding) -> dict[str, Any]:
    """A call's arguments."""
    body = {"model": endpoint.model, "messages": [dict(m) for m in messages], "seed": seed}
    body |= token_limit(endpoint.official, decoding.max_tokens)
    nucleus = {"top_p": decoding.top_p} if decoding.top_p < 1 and decoding.temperature > 0 else {}
    return body | {"temperature": decoding.temperature} | nucleus


def token_limit(official: bool, tokens: int) -> dict[str, int]:
    """All models of OpenAI take `max_completion_tokens`; other endpoints `max_tokens`."""
    return {"max_completion_tokens" if official else "max_tokens": tokens}


class _Received:
    """Answers by the request they answer, in a file of JSON lines: the request's hash, the number of its first answer
    here, then (text, end) of each. Where two processes asked for the same answers the first one's stand.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.found = path, dict[str, list[Said]]()
        for line in path.read_text(encoding="utf-8").split("\n") if path.exists() else ():
            with contextlib.suppress(ValueError):  # a process may have ended inside a line
                request, number, *said = json.loads(line)
                known = self.found.setdefault(request, [])
                known += map(tuple, said) if number == len(known) else ()

    def to(self, body: Mapping[str, Any]) -> list[Said]:
        return self.found.setdefault(_key(body), [])

    def add(self, body: Mapping[str, Any], said: Sequence[Said]) -> None:
        known = self.to(body)
        line = json.dumps([_key(body), len(known), *said])
        known += said
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"\n{line}\n")


def _key(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


async def _ask_all(
    endpoint: Endpoint,
    bodies: Sequence[Mapping[str, Any]],
    k: int,
    kept: _Received,
    report: Callable[[int, int], None],
) -> None:
    todo, done, failures = iter(bodies), itertools.count(1), list[str]()
    client = _client(endpoint)

    async def work() -> None:
        for body in todo:
            try:
                await _ask(client, endpoint, body, k, kept)
            except (openai.OpenAIError, ValueError) as error:
                failures.append(f"prompt {body['messages'][-1]['content'][:START]!a}: {_told(error, endpoint)}")
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


async def _ask(client: Any, endpoint: Endpoint, body: Mapping[str, Any], k: int, kept: _Received) -> None:
    """Ask until there are k answers; each call has a seed of its own."""
    while (missing := k - len(kept.to(body))) > 0:
        call = {**body, "seed": (body["seed"] + k - missing) % SEEDS} | ({"n": missing} if missing > 1 else {})
        text = await client.post("/chat/completions", cast_to=str, body=call)
        said = read_choices(text)
        kept.add(body, [(_without_key(words, endpoint), _without_key(end, endpoint)) for words, end in said])


def _without_key(text: str, endpoint: Endpoint) -> str:
    """The text without the key, should a server echo it; of parsed text, as JSON may spell a key with escapes."""
    key = endpoint.api_key
    return text.replace(key, "[key]") if len(key) >= SECRET else text


def read_choices(reply: str) -> list[Said]:
    """Text and reason of the end of each choice of a chat completion's body, at least one; a refusal is its words.

    Raises:
        ValueError: anything else.
    """
    try:
        said = [
            (
                _text(choice["message"]["content"] or choice["message"].get("refusal")),
                _text(choice.get("finish_reason")),
            )
            for choice in json.loads(reply)["choices"]
        ]
    except UNREADABLE as error:
        raise ValueError("the reply is no chat completion") from error
    if not said:
        raise ValueError("the reply is a chat completion without choices")
    return said


def _text(value: Any) -> str:
    if value is not None and not isinstance(value, str):
        raise TypeError("not a text")
    return (value or "").encode("utf-8", "replace").decode("utf-8")  # half a surrogate pair is no text to store


def _told(error: Exception, endpoint: Endpoint) -> str:
    """What came back, and what to do. A server's own words may quote parts of a key: they are passed on only where it
    refuses the request for what is asked, in one line of ASCII.
    """
    if isinstance(error, openai.APIStatusError):
        code = error.status_code
        advice = ADVICE.get(code, "look into the server's log").format(key=endpoint.api_key_env)
        said = f" ({_without_key(str(error.body), endpoint)[:WORDS]!a})" if advice == REFUSED else ""
        return f"HTTP {code}{said}; {advice}"
    if isinstance(error, openai.APITimeoutError):
        return f"no answer within {endpoint.timeout:g} s; lower the policy's concurrency or raise its timeout"
    if isinstance(error, openai.APIConnectionError):
        return "no connection; see that the server is up"
    if isinstance(error, UnicodeEncodeError):
        if not endpoint.api_key.isascii():
            return f"the key is not ASCII; put a valid key into the environment variable {endpoint.api_key_env}"
        return "the prompt holds half a surrogate pair, which no call can carry; mend it in its file"
    return f"{error if type(error) is ValueError else 'the reply is no chat completion'}; check the policy's endpoint"
