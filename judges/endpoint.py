"""Asking an OpenAI-compatible endpoint for one of two labels. Imports openai."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import openai

from judges.verdicts import Answer

logger = logging.getLogger(__name__)
TOP_LOGPROBS = 20


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """One model behind one URL; options as `LLMJudge`."""

    model: str
    base_url: str | None
    api_key: str
    labels: tuple[str, str]
    text_verdicts: bool
    concurrency: int
    timeout: float
    max_retries: int

    @cached_property
    def client(self) -> openai.OpenAI:
        """The client; it retries with jitter, and waits as long as a Retry-After says."""
        return openai.OpenAI(
            api_key=self.api_key, base_url=self.base_url, timeout=self.timeout, max_retries=self.max_retries
        )

    def ask(self, prompts: Sequence[str], advance: Callable[[int], None]) -> list[Answer]:
        """An answer to each prompt, in order; a request that fails is an answer with its kind of failure.

        Raises:
            ValueError: the endpoint refuses the key or does not know the model.
        """
        answers: list[Answer] = [Answer.failure("unanswered")] * len(prompts)
        said_so = False
        with ThreadPoolExecutor(self.concurrency) as pool:
            futures = {pool.submit(self._one, prompt): i for i, prompt in enumerate(prompts)}
            try:
                for future in as_completed(futures):
                    answers[futures[future]], from_text = future.result()
                    said_so = said_so or (from_text and self._say_so())
                    advance(1)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        return answers

    def _say_so(self) -> bool:
        logger.warning("%s returns no log-probabilities: its verdicts are read from its text", self.model)
        return True

    def _one(self, prompt: str) -> tuple[Answer, bool]:
        """The answer, and whether it had to be read from text."""
        started = time.perf_counter()
        try:
            reply = self.client.chat.completions.create(
                model=self.model,
                messages=[{"role": "user", "content": prompt}],
                max_tokens=1 if not self.text_verdicts else 8,
                temperature=0,
                logprobs=True,
                top_logprobs=TOP_LOGPROBS,
            )
        except openai.AuthenticationError as error:
            raise ValueError(f"the endpoint refused the API key (HTTP {error.status_code})") from None
        except openai.NotFoundError:
            raise ValueError(f"the endpoint does not know the model {self.model!r}, or the base_url is wrong") from None
        except openai.OpenAIError as error:
            return Answer.failure(failure_kind(error)), False
        except ValueError:  # the body is not JSON
            return Answer.failure("malformed-reply"), False
        return self._read(reply, time.perf_counter() - started)

    def _read(self, reply: Any, latency: float) -> tuple[Answer, bool]:
        try:
            choice = reply.choices[0]
            text = choice.message.content or ""
            logprobs = choice.logprobs.content[0].top_logprobs if choice.logprobs and choice.logprobs.content else None
            tokens = (reply.usage.prompt_tokens, reply.usage.completion_tokens) if reply.usage else (0, 0)
            top = None if logprobs is None else [(str(each.token), float(each.logprob)) for each in logprobs]
            refused = bool(choice.message.refusal)
            text = str(text)
        except (AttributeError, IndexError, TypeError, ValueError):
            return Answer.failure("malformed-reply"), False
        preference, status = self._verdict(text, top) if not refused else (math.nan, "refusal")
        answer = Answer(preference, status, int(tokens[0]), int(tokens[1]), latency, raw=text)
        return answer, top is None and status != "no-logprobs"

    def _verdict(self, text: str, top: Sequence[tuple[str, float]] | None) -> tuple[float, str]:
        if top is not None:
            return label_preference(top, self.labels)
        if not self.text_verdicts:
            return math.nan, "no-logprobs"
        if not text.strip():
            return math.nan, "empty-reply"
        stated = text.strip().rstrip(".")
        return (float(stated == self.labels[0]), "ok") if stated in self.labels else (math.nan, "no-label")


def label_preference(top: Sequence[tuple[str, float]], labels: tuple[str, str]) -> tuple[float, str]:
    """P(first label) among the two labels from (token, log-probability) pairs, and a status.

    A label's probability is the sum over tokens that equal it but for surrounding space; one that is not listed counts
    as 0 beside one that is. "no-label" where neither is listed.
    """
    weights = [math.fsum(math.exp(value) for token, value in top if token.strip() == label) for label in labels]
    total = sum(weights)
    if not 0 < total < math.inf:
        return math.nan, "no-label"
    return weights[0] / total, "ok"


def failure_kind(error: openai.OpenAIError) -> str:
    """A word or two for what went wrong; never the message, which may quote a key."""
    kinds: list[tuple[type[Exception], str]] = [
        (openai.APITimeoutError, "timeout"),
        (openai.APIConnectionError, "connection"),
        (openai.RateLimitError, "rate-limit"),
        (openai.APIResponseValidationError, "malformed-reply"),
    ]
    for kind, name in kinds:
        if isinstance(error, kind):
            return name
    return f"http-{error.status_code}" if isinstance(error, openai.APIStatusError) else "endpoint-error"
