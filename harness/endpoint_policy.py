"""Answers from a model behind an OpenAI-compatible endpoint: texts alone. Tokens and logits stay with the server, so
nothing can be trained on them or mixed with them. Where the endpoint is, its key and headers, what a request is spelled
like and how a reply is read are the judges' (`judges.transports`): one client's rules for both.
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

from judges.transports.chat_completions import ChatCompletions
from judges.transports.endpoint import (
    DROPPED,
    LIMITS,
    client_options,
    learn_refused,
    refused_argument,
    refused_by,
)
from judges.transports.limits import backoff
from judges.transports.messages import ChatRequest
from judges.transports.replies import UNREADABLE, content_text, error_status, text_of
from judges.verdicts import is_transient
from trainers.engines.engine import Decoding
from trainers.options import Endpoint
from trainers.policies.policy import Response

Messages = Sequence[Mapping[str, str]]
Answer = tuple[str, str]
"""A text and why it ended."""

SEEDS = 2**31
WORDS = 200  # characters of what a server says
START = 40  # characters of a prompt, by which a user finds it
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


def _body(
    endpoint: Endpoint, messages: Messages, seed: int, decoding: Decoding, refused: frozenset[str] = frozenset()
) -> dict[str, Any]:
    """A call's arguments, without those that the model was found to refuse."""
    nucleus = decoding.top_p if decoding.top_p < 1 and decoding.temperature > 0 else None
    turns = [dict(message) for message in messages]
    request = ChatRequest(turns, decoding.max_tokens, decoding.temperature, top_p=nucleus, seed=seed)
    return transport_of(endpoint).body(endpoint.model, request, refused)


def transport_of(endpoint: Endpoint) -> ChatCompletions:
    """How the policy is reached."""
    return ChatCompletions(base_url=endpoint.endpoint, api_key_env=endpoint.api_key_env)


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
    client = openai.AsyncOpenAI(
        **client_options(transport_of(endpoint)), timeout=endpoint.timeout, max_retries=endpoint.max_retries
    )

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


async def _ask(client: Any, endpoint: Endpoint, body: Mapping[str, Any]) -> Answer:
    """The answer to a request, without the key. An argument that the model refuses is left out, from then on; an error
    inside a successful reply is tried again as often as any.
    """
    tries = 1
    while True:
        refused = refused_by(endpoint.endpoint, endpoint.model)
        kept = {name: value for name, value in body.items() if name not in refused.intersection(DROPPED)}
        sent = {_spelled(endpoint, name, refused): value for name, value in kept.items()}
        try:
            text, end = read_choice(await client.post("/chat/completions", cast_to=str, body=sent))
        except openai.BadRequestError as error:
            argument = refused_argument(error.body, sent, refused)
            if not argument:
                raise
            learn_refused(endpoint.endpoint, endpoint.model, argument)
        except PassingError:
            if tries > endpoint.max_retries:
                raise
            await asyncio.sleep(backoff(tries, {}) or 0)
            tries += 1
        else:
            return _without_key(text, endpoint), _without_key(end, endpoint)


def _spelled(endpoint: Endpoint, name: str, refused: frozenset[str]) -> str:
    """An argument's name, or for a reply's limit the one that the model takes."""
    return transport_of(endpoint).limit_name(refused) if name in LIMITS else name


def _without_key(text: str, endpoint: Endpoint) -> str:
    """The text without the key, should a server echo it; of parsed text, as JSON may spell a key with escapes."""
    for secret in transport_of(endpoint).secrets:
        text = text.replace(secret, "[key]")
    return text


class PassingError(ValueError):
    """A reply that says that a fault further up may pass."""


def read_choice(reply: str) -> Answer:
    """Text and reason of the end of the first choice of a chat completion's body; a refusal is its words.

    Raises:
        PassingError: an error inside the reply that may pass.
        ValueError: anything else that is no such text.
    """
    content = _parsed(reply)
    if isinstance(content, dict) and content.get("error"):
        status = error_status(content["error"])
        raise (PassingError if is_transient(status) else ValueError)(f"the endpoint reports {status}")
    try:
        answers = [_read(choice) for choice in content["choices"][:1]]
    except UNREADABLE as error:
        raise ValueError("the reply is no chat completion") from error
    if not answers:
        raise ValueError("the reply is a chat completion without choices")
    if answers[0][1] == "error":
        raise PassingError("the endpoint ended its answer by an error")
    return answers[0]


def _parsed(reply: str) -> Any:
    try:
        return json.loads(reply)
    except (ValueError, RecursionError) as error:
        raise ValueError("the reply is no chat completion") from error


def _read(choice: Mapping[str, Any]) -> Answer:
    message = choice["message"]
    text = content_text(message["content"]) or text_of(message.get("refusal"))
    return text, text_of(choice.get("finish_reason"))


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
    known = type(error) in (ValueError, PassingError)
    return f"{error if known else 'the reply is no chat completion'}; check the policy's endpoint"
