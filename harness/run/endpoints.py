"""A look at the endpoints that a sweep is to ask, so that a wrong URL, model or key is not found after hours."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from harness.identity import Part
from harness.specs import Checkpoint, ComponentSpec
from harness.stage import Stage
from trainers.options import is_openai

OPENAI = "https://api.openai.com/v1"
PATIENCE = 10.0
"""Seconds."""
UNREACHED = ("ConnectError", "ConnectTimeout")
"""The transport's names for a server that is not there; whatever else befalls a call, somebody answered."""


class _Asked(NamedTuple):
    """One model behind one URL, and the name of the environment variable that has the key."""

    url: str
    model: str
    key: str


def check_endpoints(stages: Iterable[Stage], warn: Callable[[str], None]) -> None:
    """Put one question of a token to every endpoint of these stages.

    `warn` is told where no connection comes about: the server may be up when it is needed, or all verdicts be in the
    store. An answer that says nothing about URL, model or key (a limit, a fault) is taken for one.

    Raises:
        ValueError: the key is refused, or there is no such model or no chat at the URL.
    """
    for asked in dict.fromkeys(
        each for stage in stages for part in stage.parts() for each in _endpoints(_config(part))
    ):
        _ask(asked, warn)


def _config(part: Part) -> Any:
    """A policy or component as a config writes it."""
    if isinstance(part, Checkpoint):
        return part.location
    return {"name": part.name, "options": dict(part.options)} if isinstance(part, ComponentSpec) else None


def _endpoints(value: Any) -> Iterator[_Asked]:
    """Those of policies, of judges `llm` and of such members, wherever they stand in a stage's options."""
    if isinstance(value, list | tuple):
        for each in value:
            yield from _endpoints(each)
    elif isinstance(value, Mapping):
        options = {**value, **value.get("options", {})}
        url = None if "name" in options else options.get("endpoint")  # one with a name is a judge
        if options.get("name") == "llm" and (options.get("base_url") or options.get("backend") == "openai"):
            url = options.get("base_url") or OPENAI
        if url:
            yield _Asked(url, str(options["model"]), options.get("api_key_env", "OPENAI_API_KEY"))
        yield from _endpoints([each for key, each in options.items() if key != "options"])


def _ask(asked: _Asked, warn: Callable[[str], None]) -> None:
    import openai

    from trainers.engines.openai import account_headers, token_limit

    official = is_openai(asked.url)
    hello = {"model": asked.model, "messages": [{"role": "user", "content": "Hello"}], **token_limit(official, 1)}
    try:
        with openai.OpenAI(
            api_key=os.environ.get(asked.key, "").strip() or "none",
            base_url=asked.url,
            timeout=PATIENCE,
            max_retries=0,
            default_headers=account_headers(official),
        ) as client:
            client.post("/chat/completions", cast_to=str, body=hello)
    except (openai.AuthenticationError, openai.PermissionDeniedError, UnicodeEncodeError):
        raise ValueError(
            f"{asked.url} takes no such key for {asked.model!r}; put a valid one into the environment variable "
            f"{asked.key}"
        ) from None
    except openai.NotFoundError:
        raise ValueError(
            f"{asked.url} has no model {asked.model!r} or no chat (HTTP 404); correct the model or the URL, which "
            "mostly ends in /v1"
        ) from None
    except openai.APIConnectionError as error:
        if type(error.__cause__).__name__ in UNREACHED:
            why = f"no connection to {asked.url} for {asked.model!r} ({error.__cause__})"
            warn(f"{why}; what asks it fails until there is one")
    except openai.OpenAIError:
        pass
