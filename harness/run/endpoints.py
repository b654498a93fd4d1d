"""A look at the endpoints that a sweep is to ask, so that a wrong URL, model or key is not found after hours."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from harness.identity import Part
from harness.registry import make
from harness.specs import Checkpoint, ComponentSpec
from harness.stage import Stage
from judges.judge import Judge
from judges.transports.chat_completions import ChatCompletions
from judges.transports.http import EndpointTransport

PATIENCE = 10.0
"""Seconds."""
UNREACHED = ("ConnectError", "ConnectTimeout")
"""The transport's names for a server that is not there; whatever else befalls a call, somebody answered."""


class _Asked(NamedTuple):
    """One model behind one endpoint."""

    model: str
    transport: EndpointTransport


def check_endpoints(stages: Iterable[Stage], warn: Callable[[str], None]) -> None:
    """Put one question of a token to every endpoint of these stages.

    `warn` is told of a judge's end, and where no connection comes about: the server may be up when it is needed, or all
    verdicts be in the store. An answer that says nothing about URL, model or key (a limit, a fault) is taken for one.

    Raises:
        ValueError: the key is refused, or there is no such model or no chat at the URL.
    """
    parts = _distinct_parts(stages)
    judges = [judge for part in parts if (judge := judge_of(part))]
    for note in dict.fromkeys(note for judge in judges for note in judge.notes()):
        warn(note)
    asked = [_Asked(*each) for judge in judges for each in judge.endpoints()]
    asked += [each for part in parts for each in _of_policy(part)]
    addresses = {
        (each.transport.url, each.transport.path, each.model, each.transport.api_key_env): each for each in asked
    }
    for each in addresses.values():
        _ask(each, warn)


def judges_of(stages: Iterable[Stage]) -> list[Judge]:
    """The distinct judges of stages."""
    return [judge for part in _distinct_parts(stages) if (judge := judge_of(part))]


def _distinct_parts(stages: Iterable[Stage]) -> list[Part]:
    parts = {json.dumps(_config(part), default=str): part for stage in stages for part in stage.parts()}
    return list(parts.values())


def _config(part: Part) -> Any:
    """A policy or component as a config writes it."""
    if isinstance(part, Checkpoint):
        return part.location
    return [part.kind, part.name, dict(part.options)] if isinstance(part, ComponentSpec) else None


def judge_of(part: Part) -> Judge | None:
    """The judge of a stage, made from its options; None for another part, and for one whose model a stage makes."""
    if not isinstance(part, ComponentSpec) or part.kind != "judges" or part.source is not None:
        return None
    made: Judge = make("judges", part.name, part.options)
    return made


def _of_policy(part: Part) -> list[_Asked]:
    """The endpoint of a policy that is behind one."""
    if not isinstance(part, Checkpoint) or not (policy := part.endpoint):
        return []
    return [_Asked(policy.model, ChatCompletions(base_url=policy.endpoint, api_key_env=policy.api_key_env))]


def _ask(asked: _Asked, warn: Callable[[str], None]) -> None:
    import openai

    from judges.transports.endpoint import client_options

    transport, url = asked.transport, asked.transport.url
    hello = transport.body(asked.model, transport.greeting, frozenset()) | dict(transport.extra_body or {})
    try:
        with openai.OpenAI(**client_options(transport), timeout=PATIENCE, max_retries=0) as client:
            client.post(transport.path, cast_to=str, body=hello)
    except (openai.AuthenticationError, openai.PermissionDeniedError, UnicodeEncodeError):
        raise ValueError(
            f"{url} takes no such key for {asked.model!r}; put a valid one into the environment variable "
            f"{transport.api_key_env}"
        ) from None
    except openai.NotFoundError:
        raise ValueError(
            f"{url} has no model {asked.model!r} or no chat (HTTP 404); correct the model or the URL, which "
            "mostly ends in /v1"
        ) from None
    except openai.APIConnectionError as error:
        if type(error.__cause__).__name__ in UNREACHED:
            why = f"no connection to {url} for {asked.model!r} ({error.__cause__})"
            warn(f"{why}; what asks it fails until there is one")
    except openai.OpenAIError:
        pass
