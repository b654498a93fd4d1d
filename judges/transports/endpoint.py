"""The client of an endpoint: concurrent calls with retries, rate limits, a cache and a hard budget. Imports openai."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import openai

from judges.errors import JudgeError
from judges.transports.cache import ReplyCache, reply_cache, request_key
from judges.transports.http import EndpointTransport
from judges.transports.limits import Bucket, Budget, Limits, backoff
from judges.transports.messages import ChatReply, ChatRequest
from judges.transports.prices import Price, price_of
from judges.transports.replies import UPSTREAM, message_of, read_body, refusal_status
from judges.verdicts import OK

logger = logging.getLogger(__name__)
RETRIED = {408, 409, 429}
ACCOUNT = ("OpenAI-Organization", "OpenAI-Project")  # headers that the client fills from the environment
OVERHEAD = 16  # tokens that a chat format adds to a message, at most
DROPPED = ("temperature", "top_p", "seed")
"""Arguments that a model may refuse and be asked without."""
LIMITS = ("max_completion_tokens", "max_tokens")
"""The two names of a reply's limit, of which a model may refuse one."""
UNKNOWN = re.compile(
    r"support|recogni|unknown|permitted|allowed|unexpected|deprecated|extra (?:input|field)", re.IGNORECASE
)
"""How servers say that an argument is none of theirs."""
_REFUSED: dict[tuple[str, str], frozenset[str]] = {}
"""(URL, model) -> the arguments that it was found to refuse, in this process."""


@dataclass(frozen=True)
class CallResult:
    """The result of one call: its reply, whether a retry may help, the headers, whether it may have been billed, and
    the argument that the model refuses, where the call failed by one.
    """

    reply: ChatReply
    retryable: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    maybe_billed: bool = False
    refused: str = ""


class EndpointClient:
    """One model behind one endpoint.

    Args:
        transport: where the endpoint is, how a request is spelled and a reply is read.
        repeat: which repetition of the same questions these are; another number is asked anew.
        cache: where replies are kept, unless the limits name a folder.
    """

    def __init__(
        self,
        model: str,
        transport: EndpointTransport,
        limits: Limits,
        *,
        repeat: int = 0,
        cache: ReplyCache | None = None,
    ) -> None:
        self.model, self.transport, self.limits, self.repeat = model, transport, limits, repeat
        self.requests = Bucket(limits.requests_per_minute) if limits.requests_per_minute else None
        self.tokens = Bucket(limits.tokens_per_minute) if limits.tokens_per_minute else None
        self.budget = Budget(limits.budget_calls, limits.budget_usd)
        self.price = price_of(model, Path(limits.prices) if limits.prices else None) or Price(0, 0)
        self.cache = reply_cache(Path(limits.cache).resolve()) if limits.cache else cache
        self.answered = False
        self._secrets = transport.secrets

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
        self._recall()
        for i, request in enumerate(requests):
            rows.setdefault(self._key(self._adapted(request)) if self.cache else str(i), []).append(i)

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

    @property
    def refused(self) -> frozenset[str]:
        """The arguments that the model was found to refuse."""
        return refused_by(self.transport.url, self.model)

    def _recall(self) -> None:
        known = frozenset(self.cache.learnt(self.transport.url, self.model)) if self.cache else frozenset()
        for argument in known - self.refused:
            learn_refused(self.transport.url, self.model, argument)

    def _learn(self, argument: str) -> None:
        if argument not in self.refused:
            learn_refused(self.transport.url, self.model, argument)
            if self.cache:
                self.cache.learn(self.transport.url, self.model, argument)

    def _adapted(self, request: ChatRequest) -> ChatRequest:
        """The request without the arguments that the model refuses."""
        dropped = dict.fromkeys(self.refused.intersection(DROPPED))
        return replace(request, **dropped) if dropped else request  # type: ignore[arg-type]

    def _key(self, request: ChatRequest) -> str:
        transport = self.transport
        return request_key(self.model, transport.base_url, self.repeat, request, transport.sent(request))

    async def _ask_all(self, requests: Mapping[str, ChatRequest], done: Callable[[str, ChatReply], None]) -> None:
        todo = iter(requests.items())
        async with openai.AsyncOpenAI(
            **client_options(self.transport),
            timeout=None,  # `_send` has the whole call's
            max_retries=0,
            http_client=openai.DefaultAioHttpClient(),  # half the processor's time of the default, which scans its pool
        ) as client:
            workers = [
                asyncio.ensure_future(self._work(client, todo, done))
                for _ in range(min(self.limits.concurrency, len(requests)))
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
            reply, sent = await self._one(client, request)
            if self.cache and reply.status == OK:
                self.cache.add(self._key(sent), reply)
            done(key, reply)

    async def _one(self, client: Any, request: ChatRequest) -> tuple[ChatReply, ChatRequest]:
        """The reply after as many tries as needed and allowed, and the request that it answers.

        A try without an argument that the model refuses is no retry: it is not waited for, nor counted against them.
        """
        reply, calls, tries = ChatReply(status="budget"), 0, 1
        while True:
            sent, refused = self._adapted(request), self.refused
            max_cost = self.price.cost(most_tokens(sent), self.transport.paid_tokens(sent))
            if not await self.budget.reserve(max_cost):
                return reply, sent
            calls += 1
            result = await self._call(client, sent, refused, max_cost)
            reply = replace(result.reply, calls=calls)
            if result.refused:
                self._learn(result.refused)
                continue
            wait = backoff(tries, result.headers)
            if not result.retryable or wait is None or tries > self.limits.max_retries:
                return reply, sent
            tries += 1
            await asyncio.sleep(wait)

    async def _call(self, client: Any, request: ChatRequest, refused: frozenset[str], max_cost: float) -> CallResult:
        cost = max_cost  # also where the call is cancelled
        try:
            await self._pace(request)
            result = await self._send(client, request, refused)
            cost = max_cost if result.maybe_billed else result.reply.cost
            return result
        finally:
            self.budget.settle(max_cost, cost)

    async def _pace(self, request: ChatRequest) -> None:
        if self.requests:
            await self.requests.take(1)
        if self.tokens:
            words = sum(len(turn["content"]) for turn in request.messages)
            await self.tokens.take(words // 4 + self.transport.paid_tokens(request))

    async def _send(self, client: Any, request: ChatRequest, refused: frozenset[str]) -> CallResult:
        started = time.perf_counter()
        arguments = self.transport.body(self.model, request, refused)
        body = {**arguments, **(self.transport.extra_body or {})}
        try:
            async with asyncio.timeout(self.limits.timeout):
                # The typed method spends a third of the processor's time on types that are not needed here.
                text = await client.post(self.transport.path, cast_to=str, body=body)
        except TimeoutError:
            return CallResult(ChatReply(status="timeout"), retryable=True, maybe_billed=True)
        except openai.APIStatusError as error:
            return self._failed(error, arguments, refused)
        except openai.APIConnectionError:  # the transport calls some of these timeouts, but has none of its own
            return CallResult(ChatReply(status="connection"), retryable=True, maybe_billed=True)
        except (openai.OpenAIError, ValueError):
            return CallResult(ChatReply(status="malformed-reply"), maybe_billed=True)
        reply = self._without_secrets(read_body(text, lambda content: self.transport.read(content, request)))
        self.answered = True
        passing = reply.status in (UPSTREAM, "rate-limit") or reply.status.startswith("http-5")
        cost = self.price.cost(reply.input_tokens, reply.output_tokens)
        priced = replace(reply, latency=time.perf_counter() - started, cost=cost)
        return CallResult(priced, passing, maybe_billed=not (reply.input_tokens or reply.output_tokens))

    def _without_secrets(self, reply: ChatReply) -> ChatReply:
        """The reply without the key, should an endpoint echo it; of parsed texts, as JSON may spell a key with
        escapes.
        """
        for secret in self._secrets:
            top = reply.top and [(token.replace(secret, "[key]"), value) for token, value in reply.top]
            texts = {name: getattr(reply, name).replace(secret, "[key]") for name in ("text", "finish", "status")}
            reply = replace(reply, top=top, **texts)
        return reply

    def _failed(
        self, error: openai.APIStatusError, arguments: Mapping[str, Any], refused: frozenset[str]
    ) -> CallResult:
        """An HTTP status other than success."""
        code = error.status_code
        if not self.answered and code == 401:
            raise JudgeError("the endpoint refused the API key (HTTP 401)") from None
        if not self.answered and code == 404:
            raise JudgeError(f"the endpoint does not know the model {self.model!r}, or the base_url is wrong") from None
        if code == 429:
            return CallResult(ChatReply(status="rate-limit"), True, error.response.headers)
        status = refusal_status(code, error.body, self._secrets)
        own = {name: value for name, value in arguments.items() if name not in (self.transport.extra_body or {})}
        argument = refused_argument(error.body, own, refused) if code in (400, 422) else ""
        retryable = code in RETRIED or code >= 500
        return CallResult(ChatReply(status=status), retryable, error.response.headers, refused=argument)


def refused_by(url: str, model: str) -> frozenset[str]:
    """The arguments that the model at this URL was found to refuse, in this process."""
    return _REFUSED.get((url, model), frozenset())


def learn_refused(url: str, model: str, argument: str) -> None:
    """Remember that the model at this URL refuses an argument, and say so."""
    if argument in DROPPED and argument not in refused_by(url, model):
        logger.warning("%s at %s takes no %s: it is asked without, at its own", model, url, argument)
    _REFUSED[url, model] = refused_by(url, model) | {argument}


def client_options(transport: EndpointTransport) -> dict[str, Any]:
    """What a client of the openai package is made with: it names the user's organisation and project, which it reads in
    the environment, to OpenAI alone.
    """
    others: dict[str, Any] = {} if transport.is_official else dict.fromkeys(ACCOUNT, openai.omit)
    return {
        "api_key": transport.key or "none",
        "base_url": transport.url,
        "default_headers": others | transport.headers,
    }


def refused_argument(error: Any, body: Mapping[str, Any], refused: frozenset[str]) -> str:
    """The argument by which a request failed and without which it may be sent again; "" where there is none.

    `logprobs` is none: a judge that loses the probabilities it asks for would give other verdicts. A limit's name is
    one only where the message says that it is unknown: a limit that is too high is the user's.

    Args:
        body: what was sent.
        refused: what the model was known to refuse then; of the two names of the limit one at most.
    """
    inner = error.get("error", error) if isinstance(error, Mapping) else error
    named = str(inner.get("param") or "") if isinstance(inner, Mapping) else ""
    message = message_of(error)
    words = set(re.findall(r"\w+", f"{named} {message}"))
    if words & {"logprobs", "top_logprobs"}:
        return ""
    limits = LIMITS if UNKNOWN.search(message) and not refused.intersection(LIMITS) else ()
    found = [name for name in (*limits, *DROPPED) if name in words and name in body]
    return named if named in found else next(iter(found), "")


def most_tokens(request: ChatRequest) -> int:
    """An upper bound on the tokens of a request: a token is a byte at least."""
    return sum(len(turn["content"].encode("utf-8", "surrogatepass")) + OVERHEAD for turn in request.messages)


def _run(work: Coroutine[Any, Any, None]) -> None:
    """Run to completion, also where this thread already has a running event loop, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(work)
        return
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, work).result()
