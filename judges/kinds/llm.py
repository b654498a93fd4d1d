"""A language model as judge: a protocol asks and reads, a transport carries, limits hold for what is paid."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from judges.code_identity import class_name
from judges.judge import (
    Judge,
    Prompt,
    Question,
    Ratings,
    References,
    content_of,
    deciding_empty,
    reference_texts,
)
from judges.parts import described_part, owners, part, place, spelled
from judges.plugins import check_options, load_class
from judges.protocols.custom import cleaned
from judges.protocols.protocol import NO_VERDICT, Protocol, Reading
from judges.reading import shortened
from judges.transports.http import EndpointTransport
from judges.transports.limits import Limits
from judges.transports.lives import life_of
from judges.transports.messages import ChatReply, ChatRequest
from judges.transports.prices import price_of
from judges.transports.transport import Backend, Transport
from judges.verdicts import OK, Answer

if TYPE_CHECKING:
    from judges.transports.cache import ReplyCache

logger = logging.getLogger(__name__)
BACKENDS = {"openai": "chat-completions", "transformers": "transformers", "vllm": "vllm"}
"""What the option `backend` said before there were transports."""
Advance = Callable[[int], None]


@dataclass(eq=False, init=False)
class LLMJudge(Judge):
    """A language model that says which response is better: a protocol x a transport x limits.

    Each part is a name, {name: NAME, OPTION: VALUE}, or an object; an option of a part may also stand beside them by
    itself (`LLMJudge("m", base_url=..., labels=...)`), where the part in use has one of that name. `nashbench list
    protocols` and `nashbench list transports` show what there is; a package of your own adds to both by entry points.

    The model is not asked where a response is empty (`judges.verdicts.empty_outcome`); a rating of an empty answer by
    itself is asked for. Every failure has its kind: what the protocol calls it, or "timeout", "connection",
    "rate-limit", "http-500", "http-400: the server's reason", "malformed-reply", "budget" (never asked), ...

    Args:
        model: folder, hub id, or the endpoint's name for a model.
        protocol: what is asked and how the reply is read: `custom` (a template and two labels), `alpaca-eval`,
            `arena-hard`, `mt-bench`, ...
        transport: how the model is reached: `chat-completions` (the default where there is a base_url), `decisions`,
            `systemone`, `transformers` (the default), `vllm`, ...
        limits: pace, retries, budget and cache of an endpoint: as `judges.transports.limits.Limits`.
        repeat: which repetition of the same questions this is; another number asks a cached endpoint again.

    Raises:
        ValueError: a missing model, key, file, package or template variable; a value out of range; an option of another
            protocol or transport; a protocol that needs what the transport does not give; a budget in US$ for a model
            without a price. At the first question: labels that are not single tokens of a checkpoint, or an endpoint
            that refuses the key or does not know the model.
    """

    model: str | Path
    protocol: Protocol = "custom"  # type: ignore[assignment]
    transport: Transport = None  # type: ignore[assignment]
    limits: Limits = None  # type: ignore[assignment]
    repeat: int = 0

    paths: ClassVar[tuple[str, ...]] = ("model", "prompt_file", "settings_file", "cache", "prices")

    def __init__(self, model: str | Path, protocol: Any = "custom", **options: Any) -> None:
        given = self.nested({"model": model, "protocol": protocol, **options})
        check_options("judge 'llm'", type(self), given)
        self.model, self.repeat = model, given.get("repeat", 0)
        self.protocol = part("protocols", Protocol, given["protocol"])
        self.transport = part("transports", Transport, given["transport"])
        self.limits = _limits(given["limits"], self.transport)
        self.transport.check(model)
        self._check_parts()
        self._replies: ReplyCache | None = None
        self._connected: Backend | None = None

    @classmethod
    def nested(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """Options as anyone writes them, each in the part that has it.

        Raises:
            ValueError: an option that none of the parts in use has, or that is given twice.
        """
        own = {f.name for f in fields(cls)}
        loose = {name: value for name, value in options.items() if name not in (*own, "backend")}
        parts = {
            "protocol": options.get("protocol") or "custom",
            "transport": options.get("transport") or _transport_name(options.get("backend"), loose.get("base_url")),
            "limits": options.get("limits") or {},
        }
        placed = {name: value for name, value in loose.items() if value is not None or name == "temperature"}
        chosen = {"limits": "limits"}
        for kind, base in (("protocols", Protocol), ("transports", Transport)):
            chosen[kind[:-1]] = _name_of(kind, base, parts[kind[:-1]])
        kinds = _options_of_kinds() if placed else {}
        for option, value in placed.items():
            of_object = next((n for n in chosen if option in _object_options(parts[n])), None)
            name = of_object or place(option, chosen, kinds, "llm")
            parts[name] = _with(parts[name], name, option, value)
        return {name: value for name, value in options.items() if name in own} | parts

    @property
    def code_parts(self) -> tuple[type, ...]:
        return (type(self.protocol),)

    def described(self) -> dict[str, Any]:
        """As `Judge.described`: the protocol with the prompt that an installed package brings, and the transport with
        what changes replies. Limits are in no key.
        """
        options = {
            "model": self.model if self.transport.is_endpoint else content_of(self.model),
            "protocol": described_part(self.protocol),
            "transport": described_part(self.transport),
            **({"repeat": self.repeat} if self.repeat else {}),
        }
        described = {"class": class_name(type(self)), "options": options}
        return dict(json.loads(json.dumps(described, default=str)))

    @property
    def chunk_size(self) -> int:
        """Enough to keep an endpoint or vLLM busy; an endpoint's replies are also cached one by one."""
        return self.transport.chunk_size(self.limits)

    def keep_replies(self, replies: ReplyCache) -> None:
        """Cache an endpoint's replies there, unless the option `cache` names another folder."""
        self._replies = replies

    def endpoints(self) -> list[tuple[str, EndpointTransport]]:
        return [(str(self.model), self.transport)] if isinstance(self.transport, EndpointTransport) else []

    def notes(self) -> list[str]:
        if not isinstance(self.transport, EndpointTransport) or not self.transport.is_official:
            return []
        life = life_of(str(self.model))
        return [life.told(str(self.model), date.today())] if life else []

    def answer(self, questions: Sequence[Question], advance: Advance) -> list[Answer]:
        return deciding_empty(questions, advance, lambda asked, step: self._answers(self.protocol, asked, step))

    @property
    def supports_single_rating(self) -> bool:
        return self.protocol.rating is not None

    def rate(self, prompts: Sequence[Prompt], answers: Sequence[str], references: Sequence[References]) -> Ratings:
        """The protocol's ratings of single answers, 1 to 10, with references where given; where it has none, as
        `Judge.rate`.
        """
        if self.protocol.rating is None:
            return super().rate(prompts, answers, references)
        if len(prompts) != len(answers):
            raise ValueError(f"one answer a prompt: got {len(prompts)} prompts and {len(answers)} answers")
        reference_turns = reference_texts(references, len(prompts))
        questions = [Question(p, a, "", r) for p, a, r in zip(prompts, answers, reference_turns, strict=True)]
        rated = self._answers(self.protocol.rating, questions, lambda n: None) if questions else []
        rating = np.array([answer.preference for answer in rated], np.float64)
        return Ratings(rating, [answer.status for answer in rated], [answer.raw for answer in rated])

    def _answers(self, protocol: Protocol, questions: Sequence[Question], advance: Advance) -> list[Answer]:
        """What the model says to each question, as the protocol reads it; a rating is returned as the preference."""
        backend = self._backend
        requests = [protocol.request(cleaned(question, backend.clean)) for question in questions]
        replies = backend.ask(requests, advance)
        readings = [_read(protocol, *pair) for pair in zip(replies, questions, strict=True)]
        self._ask_again(protocol, questions, requests, replies, readings)
        if any(reading.from_text for reading in readings):
            logger.warning("%s gives no log-probabilities: its verdicts are read from its text", self.model)
        if one_sided := sum(reading.one_sided for reading in readings):
            logger.warning(
                "%s: %d of %d verdicts are 0 or 1 by the official rule: only one label was among the tokens shown",
                self.model,
                one_sided,
                len(readings),
            )
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
        later = self._backend.ask(list(further.values()), lambda n: None) if further else []
        for i, reply in zip(further, later, strict=True):
            replies[i] = replies[i].followed_by(reply)
            readings[i] = _read(protocol, replies[i], questions[i])

    @property
    def _backend(self) -> Backend:
        if self._connected is None:
            self._connected = self.transport.connect(self.model, self.limits, self.repeat, self._replies)
        return self._connected

    def _check_parts(self) -> None:
        if self.protocol.needs not in self.transport.gives:
            raise ValueError(
                f"{type(self.protocol).__name__} reads the {self.protocol.needs} of a reply, and "
                f"{type(self.transport).__name__} gives only its {' and '.join(sorted(self.transport.gives))}; choose "
                "another protocol or transport"
            )
        price = price_of(str(self.model), Path(self.limits.prices) if self.limits.prices else None)
        if price is None and self.limits.budget_usd is not None:
            raise ValueError(
                f"budget_usd needs the price of {str(self.model)!r}: name it in the file of the option prices"
            )


def _options_of_kinds() -> dict[str, dict[str, set[str]]]:
    return {
        "protocol": owners("protocols", Protocol),
        "transport": owners("transports", Transport),
        "limits": {"limits": {f.name for f in fields(Limits)}},
    }


def _limits(given: Any, transport: Transport) -> Limits:
    if isinstance(given, Limits):
        return given
    if not isinstance(given, Mapping):
        raise ValueError(f"limits must hold names and values, such as {{concurrency: 8}}, got {shortened(given)}")
    check_options("limits", Limits, given)
    return Limits(**given)


def _transport_name(backend: Any, base_url: Any) -> str:
    if backend is not None and backend not in BACKENDS:
        raise ValueError(
            f"backend must be {', '.join(sorted(BACKENDS))}, got {shortened(backend)}; or give a transport"
        )
    return BACKENDS[backend or ("openai" if base_url else "transformers")]


def _name_of(kind: str, base: type[Any], given: Any) -> str:
    """The name of a part that is none itself; a wrong one is told before options are."""
    if isinstance(given, base):
        return type(given).__name__
    name = str(spelled(kind, given)["name"])
    load_class(kind, name, lambda: base)
    return name


def _object_options(given: Any) -> set[str]:
    return {f.name for f in fields(given)} if is_dataclass(given) and not isinstance(given, type) else set()


def _with(given: Any, name: str, option: str, value: Any) -> dict[str, Any]:
    """A part with one more option."""
    if not isinstance(given, str | Mapping):
        raise ValueError(f"{option} stands beside a {name} that is an object: give it to that")
    spec = {"name": given} if isinstance(given, str) else dict(given)
    if option in spec:
        raise ValueError(f"{option} is given twice, in {name} and beside it; leave one out")
    return spec | {option: value}


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
