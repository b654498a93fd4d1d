"""What all endpoints have in common: where they are, with which key and headers they are asked, and what is added."""

from __future__ import annotations

import json
import os
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from judges.transports.address import NAME, OPENAI, SECRET, check_key_name, check_url, is_openai, key_of
from judges.transports.messages import ChatReply, ChatRequest
from judges.transports.transport import Backend, Transport

if TYPE_CHECKING:
    from judges.transports.cache import ReplyCache
    from judges.transports.limits import Limits

SECRET_HEADERS = ("auth", "key", "token", "secret", "cookie")


@dataclass(frozen=True)
class EndpointTransport(Transport):
    """An endpoint that takes one JSON object by POST and gives one back. A subclass says where, what and how to read.

    Args:
        base_url: such as http://localhost:8000/v1, without user, password, query or fragment; OpenAI's own without one.
        api_key_env: environment variable that holds the key; the key itself is never an option.
        extra_headers: further headers. A value `$NAME` is read from the environment, as headers that look like secrets
            must be; the values are in no file that is written.
        extra_body: further arguments of the request, over those that are sent anyway.
    """

    base_url: str | None = None
    api_key_env: str = "OPENAI_API_KEY"
    extra_headers: Mapping[str, str] | None = None
    extra_body: Mapping[str, Any] | None = None

    is_endpoint = True
    tuning = ("api_key_env", "extra_headers")
    path: ClassVar[str] = ""
    """Of the call, below the base URL."""

    def __post_init__(self) -> None:
        check_key_name(self.api_key_env)
        if self.base_url is not None:
            check_url(self.base_url)
        _check_headers(self.extra_headers)
        if self.extra_body is not None and not isinstance(self.extra_body, Mapping):
            raise ValueError("extra_body must hold names and values, such as {top_k: 1}")

    def __repr__(self) -> str:
        return f"{type(self).__name__}(base_url={self.base_url!r}, api_key_env={self.api_key_env!r})"

    def check(self, model: str | Path) -> None:
        if not self.base_url and not self.key:
            raise ValueError(f"no API key: set the environment variable {self.api_key_env}, or give a base_url")

    @property
    def url(self) -> str:
        """The base URL."""
        return self.base_url or OPENAI

    @property
    def is_official(self) -> bool:
        """Whether it is OpenAI's own."""
        return is_openai(self.base_url)

    @property
    def key(self) -> str:
        """The key; empty where there is none."""
        return key_of(self.api_key_env)

    @property
    def headers(self) -> dict[str, str]:
        """The further headers, with their values."""
        given = (self.extra_headers or {}).items()
        return {name: os.environ.get(value[1:], "").strip() if value[:1] == "$" else value for name, value in given}

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must stand in nothing that is kept: the key and the values of headers."""
        return tuple(text for text in (self.key, *self.headers.values()) if len(text) >= SECRET)

    def connect(self, model: str | Path, limits: Limits, repeat: int, replies: ReplyCache | None) -> Backend:
        from judges.transports.endpoint import EndpointClient

        return EndpointClient(str(model), self, limits, repeat=repeat, cache=replies)

    def sent(self, request: ChatRequest) -> Mapping[str, Any]:
        """What the key of a reply must have beside a plain chat completion's messages and decoding."""
        return {"path": self.path} | ({"extra_body": dict(self.extra_body)} if self.extra_body else {})

    @property
    def greeting(self) -> ChatRequest:
        """A question as small as can be, by which a wrong URL, model or key shows itself."""
        return ChatRequest([{"role": "user", "content": "Hello"}], 1, None)

    def paid_tokens(self, request: ChatRequest) -> int:
        """The most tokens that a reply can be billed for."""
        return 0

    @abstractmethod
    def body(self, model: str, request: ChatRequest, refused: frozenset[str]) -> dict[str, Any]:
        """The call's arguments, but for `extra_body`; without those that the model was found to refuse."""

    @abstractmethod
    def read(self, content: Any, request: ChatRequest) -> ChatReply:
        """The JSON that came back as a reply; whatever it raises is a malformed reply."""


def _check_headers(headers: Any) -> None:
    if headers is None:
        return
    if not isinstance(headers, Mapping) or not all(isinstance(part, str) for pair in headers.items() for part in pair):
        raise ValueError("extra_headers must hold names and texts, such as {X-Title: nashbench}")
    for name, value in headers.items():
        if value.startswith("$"):
            if not NAME.fullmatch(value[1:]):
                raise ValueError(f"extra_headers: {json.dumps(name)} must name an environment variable after its $")
        elif any(part in name.lower() for part in SECRET_HEADERS):
            raise ValueError(
                f"extra_headers: {json.dumps(name)} looks like a secret; put its value into the environment and write "
                "$NAME_OF_THE_VARIABLE"
            )
