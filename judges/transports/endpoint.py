"""Client of an OpenAI-compatible endpoint: concurrent calls with retries, rate limits, a cache and a hard budget.
Imports openai.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

import openai

from judges.errors import JudgeError
from judges.transports.cache import ReplyCache, request_key
from judges.transports.limits import Bucket, Budget, backoff
from judges.transports.messages import ChatReply, ChatRequest
from judges.transports.prices import Price
from judges.verdicts import OK

RETRIED = {408, 409, 429}
OPENAI = "https://api.openai.com/v1"
ACCOUNT = ("OpenAI-Organization", "OpenAI-Project")  # headers that the client fills from the environment
SECRET = 8  # characters that make a key
MOST_TOKENS = 2**40  # more than that is no count
OVERHEAD = 16  # tokens that a chat format adds to a message, at most


@dataclass(frozen=True)
class CallResult:
    """The result of one call: its reply, whether a retry may help, the headers, and whether it may have been billed."""

    reply: ChatReply
    retryable: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    maybe_billed: bool = False


@dataclass(kw_only=True)
class EndpointClient:
    """One model behind one URL; options as `LLMJudge`."""

    model: str
    base_url: str | None
    api_key: str | None
    concurrency: int
    timeout: float
    max_retries: int
    requests: Bucket | None
    tokens: Bucket | None
    budget: Budget
    price: Price
    cache: ReplyCache | None
    repeat: int
    answered: bool = False

    def clean(self, text: str) -> str:
        """The text as it is: special tokens are the endpoint's to guard against."""
        return text

    def ask(self, requests: Sequence[ChatRequest], advance: Callable[[int], None]) -> list[ChatReply]:
        """A reply to each request, in order; one that fails has its kind of failure as status.

        With a cache equal requests are sent once.

        Raises:
            ValueError: the endpoint refuses the key or does not know the model, before it answered anything.
        """
        replies: dict[int, ChatReply] = {}
        rows: dict[str, list[int]] = {}
        for i, request in enumerate(requests):
            rows.setdefault(self._key(request) if self.cache else str(i), []).append(i)

        def done(key: str, reply: ChatReply) -> None:
            replies.update({i: reply if i == rows[key][0] else replace(reply, calls=0) for i in rows[key]})
            advance(len(rows[key]))

        cached = self.cache.find(rows) if self.cache else {}
        for key, reply in cached.items():
            done(key, reply)
        missing = {key: requests[first] for key, (first, *_) in rows.items() if key not in cached}
        if missing:
            _run(self._ask_all(missing, done))
        return [replies[i] for i in range(len(requests))]

    def _key(self, request: ChatRequest) -> str:
        return request_key(self.model, self.base_url, self.repeat, request)

    def _client(self) -> openai.AsyncOpenAI:
        """A client that names the user's organisation and project to OpenAI alone."""
        url = self.base_url or OPENAI
        official = urlsplit(url).hostname == urlsplit(OPENAI).hostname
        return openai.AsyncOpenAI(
            api_key=self.api_key or "none",
            base_url=url,
            timeout=None,  # `_send` has the whole call's
            max_retries=0,
            default_headers={} if official else dict.fromkeys(ACCOUNT, openai.omit),  # type: ignore[arg-type]
            http_client=openai.DefaultAioHttpClient(),  # half the processor's time of the default, which scans its pool
        )

    async def _ask_all(self, requests: Mapping[str, ChatRequest], done: Callable[[str, ChatReply], None]) -> None:
        todo = iter(requests.items())
        async with self._client() as client:
            workers = [
                asyncio.ensure_future(self._work(client, todo, done))
                for _ in range(min(self.concurrency, len(requests)))
            ]
            try:
                await asyncio.gather(*workers)
            finally:
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)

    async def _work(
        self, client: Any, todo: Iterator[tuple[str, ChatRequest]], done: Callable[[str, ChatReply], None]
    ) -> None:
        for key, request in todo:
            reply = await self._one(client, request)
            if self.cache and reply.status == OK:
                self.cache.add(key, reply)
            done(key, reply)

    async def _one(self, client: Any, request: ChatRequest) -> ChatReply:
        """The reply, after as many tries as needed and allowed."""
        reply = ChatReply(status="budget")
        max_cost = self.price.cost(most_tokens(request), request.max_tokens)
        for tries in range(1, self.max_retries + 2):
            if not await self.budget.reserve(max_cost):
                return reply
            result = await self._call(client, request, max_cost)
            reply = replace(result.reply, calls=tries)
            wait = backoff(tries, result.headers)
            if not result.retryable or wait is None or tries > self.max_retries:
                return reply
            await asyncio.sleep(wait)
        return reply

    async def _call(self, client: Any, request: ChatRequest, max_cost: float) -> CallResult:
        cost = max_cost  # also where the call is cancelled
        try:
            await self._pace(request)
            result = await self._send(client, request)
            cost = max_cost if result.maybe_billed else result.reply.cost
            return result
        finally:
            self.budget.settle(max_cost, cost)

    async def _pace(self, request: ChatRequest) -> None:
        if self.requests:
            await self.requests.take(1)
        if self.tokens:
            await self.tokens.take(sum(len(turn["content"]) for turn in request.messages) // 4 + request.max_tokens)

    async def _send(self, client: Any, request: ChatRequest) -> CallResult:
        started = time.perf_counter()
        try:
            async with asyncio.timeout(self.timeout):
                # The typed method spends a third of the processor's time on types that are not needed here.
                text = await client.post("/chat/completions", cast_to=str, body=self._body(request))
        except TimeoutError:
            return CallResult(ChatReply(status="timeout"), retryable=True, maybe_billed=True)
        except openai.APIStatusError as error:
            return self._refused(error)
        except openai.APIConnectionError as error:
            return CallResult(ChatReply(status=failure_kind(error)), retryable=True, maybe_billed=True)
        except (openai.OpenAIError, ValueError):
            return CallResult(ChatReply(status="malformed-reply"), maybe_billed=True)
        reply = self._without_key(read_reply(text))
        self.answered = True
        cost = self.price.cost(reply.input_tokens, reply.output_tokens)
        priced = replace(reply, latency=time.perf_counter() - started, cost=cost)
        return CallResult(priced, maybe_billed=not (reply.input_tokens or reply.output_tokens))

    def _without_key(self, reply: ChatReply) -> ChatReply:
        """The reply without the key, should an endpoint echo it; of parsed texts, as JSON may spell a key with escapes.
        Short keys, as of local servers, are ordinary words.
        """
        key = self.api_key or ""
        if len(key) < SECRET:
            return reply
        top = reply.top and [(token.replace(key, "[key]"), value) for token, value in reply.top]
        return replace(reply, text=reply.text.replace(key, "[key]"), top=top, finish=reply.finish.replace(key, "[key]"))

    def _body(self, request: ChatRequest) -> dict[str, Any]:
        """The call's arguments. All models of OpenAI take `max_completion_tokens`; other endpoints `max_tokens`."""
        limit = "max_tokens" if self.base_url else "max_completion_tokens"
        body = {"model": self.model, "messages": request.messages, "temperature": request.temperature}
        body[limit] = request.max_tokens
        return body | ({"logprobs": True, "top_logprobs": request.top_logprobs} if request.top_logprobs else {})

    def _refused(self, error: openai.APIStatusError) -> CallResult:
        """An HTTP status other than success. Its text may quote the key, so nothing of it is passed on."""
        code = error.status_code
        if not self.answered and code == 401:
            raise JudgeError("the endpoint refused the API key (HTTP 401)") from None
        if not self.answered and code == 404:
            raise JudgeError(f"the endpoint does not know the model {self.model!r}, or the base_url is wrong") from None
        return CallResult(ChatReply(status=failure_kind(error)), code in RETRIED or code >= 500, error.response.headers)


def most_tokens(request: ChatRequest) -> int:
    """An upper bound on the tokens of a request: a token is a byte at least."""
    return sum(len(turn["content"].encode("utf-8", "surrogatepass")) + OVERHEAD for turn in request.messages)


def failure_kind(error: openai.OpenAIError) -> str:
    """A word or two for what went wrong; never the message, which may quote a key."""
    if isinstance(error, openai.RateLimitError):
        return "rate-limit"
    if isinstance(error, openai.APIStatusError):
        return f"http-{error.status_code}"
    return "connection"  # the transport calls some of these timeouts, but has none of its own


def read_reply(body: str) -> ChatReply:
    """A chat completion's body as a reply; status "malformed-reply" for anything else."""
    try:
        content = json.loads(body)
        choice = content["choices"][0]
        message, usage = choice["message"], content.get("usage") or {}
        return ChatReply(
            text=_text(message.get("content")),
            top=_top(choice.get("logprobs")),
            finish=_text(choice.get("finish_reason")) or "stop",
            refused=bool(message.get("refusal")),
            input_tokens=_count(usage.get("prompt_tokens")),
            output_tokens=_count(usage.get("completion_tokens")),
        )
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, OverflowError, RecursionError):
        return ChatReply(status="malformed-reply")


def _text(value: Any) -> str:
    if value is not None and not isinstance(value, str):
        raise TypeError("not a text")
    return (value or "").encode("utf-8", "replace").decode("utf-8")  # half a surrogate pair is no text to store


def _count(value: Any) -> int:
    if value is None:
        return 0
    if type(value) is not int or not 0 <= value <= MOST_TOKENS:
        raise TypeError("not a number of tokens")
    return value


def _number(value: Any) -> float:
    if type(value) not in (int, float):
        raise TypeError("not a number")
    return float(value)


def _top(logprobs: Any) -> list[tuple[str, float]] | None:
    """(token, log-probability) of the first token's alternatives; None where there are none."""
    if not logprobs or not logprobs.get("content"):
        return None
    top = [
        (_text(alternative["token"]), _number(alternative["logprob"]))
        for alternative in logprobs["content"][0]["top_logprobs"]
    ]
    if not all(value <= 1e-3 or math.isnan(value) for _, value in top):
        raise ValueError("a log-probability above 0")
    return top or None


def _run(work: Coroutine[Any, Any, None]) -> None:
    """Run to completion, also where this thread already has a running event loop, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(work)
        return
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, work).result()
