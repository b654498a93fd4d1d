"""A language model as judge: a protocol asks and reads; an endpoint, a local checkpoint or vLLM answers."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal
from typing import Protocol as Interface
from urllib.parse import urlsplit

import numpy as np

from judges.judge import Judge, Prompt, Question, Ratings, References, deciding_empty, reference_texts
from judges.kinds.checkpoint import BATCHES
from judges.kinds.pair_preference import check_labels
from judges.protocols.alpaca_eval import AlpacaEvalProtocol
from judges.protocols.arena_hard import ArenaHardProtocol
from judges.protocols.custom import TEMPLATE, CustomProtocol, cleaned, compile_template
from judges.protocols.mt_bench import MTBenchProtocol
from judges.protocols.protocol import NO_VERDICT, Protocol, Reading
from judges.transports.local_chat import LocalChat
from judges.transports.messages import ChatReply, ChatRequest
from judges.verdicts import OK, Answer

if TYPE_CHECKING:
    from judges.transports.cache import ReplyCache
    from judges.transports.endpoint import EndpointClient
    from judges.transports.prices import Price

logger = logging.getLogger(__name__)
BACKENDS = ("transformers", "openai", "vllm")
PROTOCOLS = ("custom", "alpaca-eval", "arena-hard", "mt-bench")
NAME = re.compile(r"[A-Z_][A-Z0-9_]*")
Advance = Callable[[int], None]


class Backend(Interface):
    """What answers requests."""

    def clean(self, text: str) -> str:
        """A text of a question, made safe for a request."""

    def ask(self, requests: Sequence[ChatRequest], advance: Advance) -> list[ChatReply]:
        """A reply to each request, in order; a failed one has its kind as status."""


@dataclass(eq=False)
class LLMJudge(Judge):
    """A language model that says which response is better, by one of four protocols.

    `custom`: a template and two labels; P(first beats second) is the first label's share of the two labels'
    probabilities. `alpaca-eval`: the same with the prompt, labels and decoding of the installed alpaca-eval package.
    `arena-hard`: an explanation and one of five verdicts. `mt-bench`: an explanation and [[A]], [[B]] or [[C]]; it also
    rates single answers (`rate`) and shows reference answers. See `judges.protocols` for how each reads replies.

    With `base_url` (or `backend="openai"`) the model is asked through an OpenAI-compatible endpoint, else it is a
    checkpoint opened here. It is not asked where a response is empty (`judges.verdicts.empty_outcome`); a rating of an
    empty answer by itself is asked for. Every failure has its kind: what the protocol
    calls it, or "timeout", "connection", "rate-limit", "http-500", "malformed-reply", "budget" (never asked).

    Args:
        model: folder, hub id, or the endpoint's name for a model.
        base_url: of an OpenAI-compatible endpoint.
        backend: `transformers`, `openai` or `vllm`; by default `openai` where there is a base_url.
        protocol: `custom`, `alpaca-eval`, `arena-hard` or `mt-bench`.
        template, labels: of `custom`. Jinja text over `prompt`, `first`, `second` and `labels`; what the model writes
            for the response placed first and for the second, single tokens.
        text_verdicts: of `custom`: read a reply that is exactly one label as 1 or 0 where an endpoint gives no
            log-probabilities.
        prompt_file: the official prompts of `arena-hard` (a config of arena-hard-auto, YAML) or `mt-bench`
            (judge_prompts.jsonl). Without it the prompt is our own, with the same verdicts, and not official.
        settings_file, category: of `arena-hard`: JSON of JUDGE_SETTINGS, for a prompt_file without a system prompt, and
            the category whose system prompt is used for questions that have none of their own.
        max_tokens, temperature: of a reply; by default the protocol's own.
        repeat: which repetition of the same questions this is; another number asks a cached endpoint again.
        cache: folder that keeps an endpoint's replies; what is in it is not paid for again. A sweep keeps them in its
            store, a file of pairs is judged with a folder beside it.
        api_key_env: environment variable that holds the endpoint's key; the key itself is never an option.
        concurrency, timeout, max_retries: calls in flight, seconds for one, and further tries. Retries wait as long as
            Retry-After says (a question whose wait would pass 5 minutes fails), else ever longer, with jitter.
        requests_per_minute, tokens_per_minute: what is sent at most; tokens are estimated as 4 characters each.
        budget_calls, budget_usd: what this judge may spend on an endpoint as long as it lives, retries included. A call
            that could pass it is not made. A call that failed on its way counts at the most it can have cost.
        prices: YAML of {model: {input, output}}, US$ for a million tokens, over the table that comes along.
        revision, batch_size, trust_remote_code: of a checkpoint, as `CheckpointJudge`.

    Raises:
        ValueError: a missing model, key, file, package or template variable; a value out of range; an option of another
            protocol; a budget in US$ for a model without a price. At the first question: labels that are not single
            tokens of a checkpoint, or an endpoint that refuses the key or does not know the model.
    """

    model: str | Path
    base_url: str | None = None
    backend: Literal["transformers", "openai", "vllm"] | None = None
    protocol: Literal["custom", "alpaca-eval", "arena-hard", "mt-bench"] = "custom"
    template: str = TEMPLATE
    labels: tuple[str, str] = ("A", "B")
    text_verdicts: bool = False
    prompt_file: str | Path | None = None
    settings_file: str | Path | None = None
    category: str = "hard_prompt"
    max_tokens: int | None = None
    temperature: float | None = None
    repeat: int = 0
    cache: str | Path | None = None
    api_key_env: str = "OPENAI_API_KEY"
    revision: str | None = None
    batch_size: int = 16
    trust_remote_code: bool = False
    concurrency: int = 16
    timeout: float = 60.0
    max_retries: int = 3
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    budget_calls: int | None = None
    budget_usd: float | None = None
    prices: str | Path | None = None

    paths: ClassVar[tuple[str, ...]] = ("model", "prompt_file", "settings_file", "cache", "prices")
    tuning: ClassVar[tuple[str, ...]] = (
        *("batch_size", "concurrency", "timeout", "max_retries", "api_key_env", "cache", "prices"),
        *("requests_per_minute", "tokens_per_minute", "budget_calls", "budget_usd"),
    )

    def __post_init__(self) -> None:
        self.labels = check_labels(self.labels)
        self.backend = self.backend or ("openai" if self.base_url else "transformers")
        self._check_values()
        self._check_endpoint()
        self._protocol = self._new_protocol()
        self._price = self._find_price()
        self._replies: ReplyCache | None = None
        self._backend: Backend | None = None
        if self.backend != "openai":
            self._backend = self._local()

    @property
    def code_parts(self) -> tuple[type, ...]:
        return (type(self._protocol),)

    def described(self) -> dict[str, Any]:
        """As `Judge.described`, with the protocol's prompt and decoding, which an installed package may bring."""
        return super().described() | {"protocol": repr(self._protocol)}

    @property
    def chunk_size(self) -> int:
        """Enough to keep an endpoint or vLLM busy; an endpoint's replies are also cached one by one."""
        if self.backend == "transformers":
            return BATCHES * self.batch_size
        return 64 * self.concurrency

    def keep_replies(self, replies: ReplyCache) -> None:
        """Cache an endpoint's replies there, unless the option `cache` names another folder."""
        self._replies = replies

    def answer(self, questions: Sequence[Question], advance: Advance) -> list[Answer]:
        return deciding_empty(questions, advance, lambda asked, step: self._answers(self._protocol, asked, step))

    @property
    def supports_single_rating(self) -> bool:
        return self._protocol.rating is not None

    def rate(self, prompts: Sequence[Prompt], answers: Sequence[str], references: Sequence[References]) -> Ratings:
        """MT-Bench's ratings of single answers, 1 to 10, with references where given; others: as `Judge.rate`."""
        if self._protocol.rating is None:
            return super().rate(prompts, answers, references)
        if len(prompts) != len(answers):
            raise ValueError(f"one answer a prompt: got {len(prompts)} prompts and {len(answers)} answers")
        reference_turns = reference_texts(references, len(prompts))
        questions = [Question(p, a, "", r) for p, a, r in zip(prompts, answers, reference_turns, strict=True)]
        rated = self._answers(self._protocol.rating, questions, lambda n: None) if questions else []
        rating = np.array([answer.preference for answer in rated], np.float64)
        return Ratings(rating, [answer.status for answer in rated], [answer.raw for answer in rated])

    def _answers(self, protocol: Protocol, questions: Sequence[Question], advance: Advance) -> list[Answer]:
        """What the model says to each question, as the protocol reads it; a rating is returned as the preference."""
        backend = self._answering
        requests = [protocol.request(cleaned(question, backend.clean)) for question in questions]
        replies = backend.ask(requests, advance)
        readings = [_read(protocol, *pair) for pair in zip(replies, questions, strict=True)]
        self._ask_again(protocol, questions, requests, replies, readings)
        if any(reading.from_text for reading in readings):
            logger.warning("%s gives no log-probabilities: its verdicts are read from its text", self.model)
        return [_answer(*pair) for pair in zip(readings, replies, strict=True)]

    def _ask_again(
        self,
        protocol: Protocol,
        questions: Sequence[Question],
        requests: Sequence[ChatRequest],
        replies: list[ChatReply],
        readings: list[Reading],
    ) -> None:
        """Ask a follow-up where a reply has no verdict and the protocol has one; both replies are read together."""
        missing = [i for i, reading in enumerate(readings) if reading.status == NO_VERDICT]
        further = {i: request for i in missing if (request := protocol.again(requests[i], replies[i]))}
        later = self._answering.ask(list(further.values()), lambda n: None) if further else []
        for i, reply in zip(further, later, strict=True):
            replies[i] = replies[i].followed_by(reply)
            readings[i] = _read(protocol, replies[i], questions[i])

    @property
    def _answering(self) -> Backend:
        if self._backend is None:
            self._backend = self._endpoint
        return self._backend

    @cached_property
    def _endpoint(self) -> EndpointClient:
        from judges.transports.cache import reply_cache
        from judges.transports.endpoint import EndpointClient
        from judges.transports.limits import Bucket, Budget

        return EndpointClient(
            model=str(self.model),
            base_url=self.base_url,
            api_key=os.environ.get(self.api_key_env, "").strip(),
            concurrency=self.concurrency,
            timeout=self.timeout,
            max_retries=self.max_retries,
            requests=Bucket(self.requests_per_minute) if self.requests_per_minute else None,
            tokens=Bucket(self.tokens_per_minute) if self.tokens_per_minute else None,
            budget=Budget(self.budget_calls, self.budget_usd),
            price=self._price,
            cache=reply_cache(Path(self.cache).resolve()) if self.cache else self._replies,
            repeat=self.repeat,
        )

    def _local(self) -> Backend:
        if self.backend == "vllm":
            from judges.transports.vllm_chat import VllmChat

            return VllmChat(self.model, self.revision, self.trust_remote_code)
        return LocalChat(self.model, self.revision, self.batch_size, self.trust_remote_code)

    def _new_protocol(self) -> Protocol:
        decoding = {"max_tokens": self.max_tokens, "temperature": self.temperature}
        changed = {name: value for name, value in decoding.items() if value is not None}
        if self.protocol == "custom":
            compile_template(self.template)
            return CustomProtocol(self.template, self.labels, self.text_verdicts, **changed)  # type: ignore[arg-type]
        if self.protocol == "alpaca-eval":
            return AlpacaEvalProtocol.installed(max_tokens=self.max_tokens, temperature=self.temperature)
        chosen: Any = self._mt_bench() if self.protocol == "mt-bench" else self._arena_hard()
        return replace(chosen, **changed)

    def _mt_bench(self) -> MTBenchProtocol:
        return MTBenchProtocol.from_file(Path(self.prompt_file)) if self.prompt_file else MTBenchProtocol()

    def _arena_hard(self) -> ArenaHardProtocol:
        if not self.prompt_file:
            return ArenaHardProtocol()
        settings = Path(self.settings_file) if self.settings_file else None
        return ArenaHardProtocol.from_files(Path(self.prompt_file), settings, self.category)

    def _find_price(self) -> Price:
        from judges.transports.prices import Price, price_of

        price = price_of(str(self.model), Path(self.prices) if self.prices else None)
        if price is None and self.budget_usd is not None:
            raise ValueError(
                f"budget_usd needs the price of {str(self.model)!r}: name it in the file of the option prices"
            )
        return price or Price(0, 0)

    def _check_values(self) -> None:
        if self.backend not in BACKENDS:
            raise ValueError(f"backend must be {', '.join(BACKENDS)}, got {self.backend!r}")
        if self.protocol not in PROTOCOLS:
            raise ValueError(f"protocol must be one of {', '.join(PROTOCOLS)}, got {self.protocol!r}")
        foreign = {
            "template, labels and text_verdicts are options of protocol 'custom'": self.protocol != "custom"
            and (self.template != TEMPLATE or self.labels != LLMJudge.labels or self.text_verdicts),
            "prompt_file is an option of protocols 'arena-hard' and 'mt-bench'": self.prompt_file
            and self.protocol not in ("arena-hard", "mt-bench"),
            "settings_file needs protocol 'arena-hard' and a prompt_file": self.settings_file
            and not (self.prompt_file and self.protocol == "arena-hard"),
        }
        if problem := next((message for message, applies in foreign.items() if applies), None):
            raise ValueError(f"{problem}; leave it out with {self.protocol!r}")
        if (self.max_tokens is not None and self.max_tokens < 1) or (self.temperature or 0) < 0:
            raise ValueError("max_tokens must be at least 1 and temperature at least 0")

    def _check_endpoint(self) -> None:
        if not NAME.fullmatch(self.api_key_env):
            raise ValueError("api_key_env must be the name of an environment variable, in capitals, never a key itself")
        if self.base_url:
            _check_url(self.base_url)
        if self.backend != "openai":
            if self.base_url:
                raise ValueError("a base_url needs backend 'openai'; leave one of the two out")
            return
        if self.concurrency < 1 or self.timeout <= 0 or self.max_retries < 0:
            raise ValueError("concurrency must be at least 1, timeout above 0 seconds and max_retries at least 0")
        for name in ("requests_per_minute", "tokens_per_minute"):
            if (value := getattr(self, name)) is not None and not value > 0:
                raise ValueError(f"{name} must be above 0, got {value}")
        for name in ("budget_calls", "budget_usd"):
            if (value := getattr(self, name)) is not None and not value >= 0:
                raise ValueError(f"{name} must be at least 0, got {value}")
        if not self.base_url and not os.environ.get(self.api_key_env):
            raise ValueError(f"no API key: set the environment variable {self.api_key_env}, or give a base_url")


def _check_url(url: str) -> None:
    """Raises ValueError for a URL that may carry a secret, without telling it."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # checked as it is read
    except ValueError:  # whose words show what it cannot read
        raise ValueError("base_url has a wrong host or port; write it as http://localhost:8000/v1") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("base_url must begin with http:// or https:// and name a host")
    if parts.username or parts.password or set("?#") & set(url):
        raise ValueError("base_url must carry no user, password, query or fragment; the key comes from api_key_env")


def _read(protocol: Protocol, reply: ChatReply, question: Question) -> Reading:
    return protocol.read(reply, question) if reply.status == OK else Reading.failure(reply.status)


def _answer(reading: Reading, reply: ChatReply) -> Answer:
    return Answer(
        reading.value,
        reading.status,
        reply.input_tokens,
        reply.output_tokens,
        reply.latency,
        reply.cost,
        raw=reply.text,
        calls=reply.calls,
    )
