"""A look at the endpoints that a sweep is to ask, so that a wrong URL or key is not found after hours of training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from harness.stage import Stage
from trainers.options import ACCOUNT, Endpoint

OPENAI = "https://api.openai.com/v1"
PATIENCE = 10.0
"""Seconds."""
UNREACHED = ("ConnectError", "ConnectTimeout")
"""The transport's names for a server that is not there; whatever else befalls a call, somebody answered."""


def check_endpoints(stages: Iterable[Stage]) -> None:
    """Ask every endpoint of these stages once, for its models.

    Raises:
        ValueError: nobody answers at a URL, or the key is refused.
    """
    for endpoint in dict.fromkeys(each for stage in stages for each in _endpoints(stage.where)):
        _ask(endpoint)


def _endpoints(where: Mapping[str, Any]) -> Iterator[Endpoint]:
    """Those of policies, judges and a judge's members."""
    for value in where.values():
        if isinstance(value, Mapping) and "endpoint" in value:
            yield Endpoint.model_validate(value)
        options = value.get("options", {}) if isinstance(value, Mapping) else {}
        for each in (options, *options.get("judges", ())):
            if isinstance(each, Mapping) and (each.get("base_url") or each.get("backend") == "openai"):
                named = {"api_key_env": each["api_key_env"]} if "api_key_env" in each else {}
                yield Endpoint(endpoint=each.get("base_url") or OPENAI, model=str(each["model"]), **named)


def _ask(endpoint: Endpoint) -> None:
    import openai

    refused = (openai.AuthenticationError, openai.PermissionDeniedError)
    try:
        with openai.OpenAI(
            api_key=endpoint.api_key or "none",
            base_url=endpoint.endpoint,
            timeout=PATIENCE,
            max_retries=0,
            default_headers={} if endpoint.official else dict.fromkeys(ACCOUNT, openai.omit),  # type: ignore[arg-type]
        ) as client:
            try:
                client.models.list()
            except refused:  # a valid key need not be allowed to list models
                hello = {"model": endpoint.model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
                client.post("/chat/completions", cast_to=str, body=hello)
    except refused as error:
        raise ValueError(
            f"{endpoint.endpoint} refuses the key for {endpoint.model!r} (HTTP {error.status_code}); put a valid one "
            f"into the environment variable {endpoint.api_key_env}"
        ) from None
    except openai.APIConnectionError as error:
        if type(error.__cause__).__name__ in UNREACHED:
            raise ValueError(
                f"nobody answers at {endpoint.endpoint}, for {endpoint.model!r}; start the server or correct the URL"
            ) from None
    except (openai.OpenAIError, ValueError):
        pass  # it need not list models, nor in the words that the client knows
