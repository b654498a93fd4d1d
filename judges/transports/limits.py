"""Rate limits and spending limits: a token bucket, a hard budget, and the back-off between tries."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path

LONGEST_WAIT = 300.0  # seconds; longer Retry-After waits are not honoured
POLL = 0.02


class Bucket:
    """A token bucket of `per_minute` with one second's capacity: in any period it lets through that period's share and
    one second more.
    """

    def __init__(self, per_minute: float) -> None:
        self.rate = per_minute / 60
        self.capacity = max(1.0, self.rate)
        self.level, self.at = self.capacity, -math.inf

    def delay(self, amount: float, now: float) -> float:
        """Seconds to wait before `amount` may be spent at time `now`; it is reserved at once, so callers queue."""
        if self.at > -math.inf:
            self.level = min(self.capacity, self.level + (now - self.at) * self.rate)
        self.at = now
        self.level -= amount
        return max(0.0, -self.level / self.rate)

    async def take(self, amount: float) -> None:
        """Waits until `amount` may pass."""
        if (wait := self.delay(amount, time.monotonic())) > 0:
            await asyncio.sleep(wait)


@dataclass(frozen=True)
class Limits:
    """What an endpoint may be asked, how fast and for how much. None of it changes a verdict.

    Args:
        concurrency, timeout, max_retries: calls in flight, seconds for one, and further tries. Retries wait as long as
            Retry-After says (a question whose wait would pass 5 minutes fails), else ever longer, with jitter.
        requests_per_minute, tokens_per_minute: what is sent at most; tokens are estimated as 4 characters each.
        budget_calls, budget_usd: what one judge may spend as long as it lives, retries included. A call that could
            pass it is not made. A call that failed on its way counts at the most it can have cost.
        prices: YAML of {model: {input, output}}, US$ for a million tokens, over the table that comes along.
        cache: folder that keeps replies; what is in it is not paid for again. A sweep keeps them in its store, a file
            of pairs is judged with a folder beside it.

    Raises:
        ValueError: a value out of range.
    """

    concurrency: int = 16
    timeout: float = 60.0
    max_retries: int = 3
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    budget_calls: int | None = None
    budget_usd: float | None = None
    prices: str | Path | None = None
    cache: str | Path | None = None

    def __post_init__(self) -> None:
        if self.concurrency < 1 or self.timeout <= 0 or self.max_retries < 0:
            raise ValueError("concurrency must be at least 1, timeout above 0 seconds and max_retries at least 0")
        for name in ("requests_per_minute", "tokens_per_minute"):
            if (value := getattr(self, name)) is not None and not value > 0:
                raise ValueError(f"{name} must be above 0, got {value}")
        for name in ("budget_calls", "budget_usd"):
            if (value := getattr(self, name)) is not None and not value >= 0:
                raise ValueError(f"{name} must be at least 0, got {value}")


@dataclass
class Budget:
    """Calls and US$ that one judge object may spend in its lifetime; None is unlimited.

    A call reserves its maximum cost and releases the unspent rest, so that not even calls in flight exceed the budget:
    a call that would exceed it waits until the others have settled, and is refused if it still would.
    """

    calls: int | None = None
    usd: float | None = None
    spent_calls: int = 0
    spent_usd: float = 0.0
    reserved_usd: float = 0.0
    in_flight: int = 0

    async def reserve(self, most: float) -> bool:
        """Whether a call of at most `most` US$ may be made now; it is then counted, and must be settled."""
        while self._passes(self.spent_usd + self.reserved_usd + most):
            if self._passes(self.spent_usd + most) or not self.in_flight:
                return False
            await asyncio.sleep(POLL)
        self.spent_calls += 1
        self.in_flight += 1
        self.reserved_usd += most
        return True

    def settle(self, most: float, cost: float) -> None:
        """A call that reserved `most` cost `cost`."""
        self.in_flight -= 1
        self.reserved_usd = self.reserved_usd - most if self.in_flight else 0.0  # sums of floats leave crumbs
        self.spent_usd += cost

    def _passes(self, usd: float) -> bool:
        return (self.calls is not None and self.spent_calls >= self.calls) or (self.usd is not None and usd > self.usd)


def backoff(tries: int, headers: Mapping[str, str]) -> float | None:
    """Seconds to wait after the `tries`-th failed try: what Retry-After says and up to a tenth more, else half a second
    doubled each time, at most 8, and between a half and all of that. None: the endpoint wants too long a wait.
    """
    requested_wait = _retry_after(headers)
    if requested_wait is None:
        return min(8.0, 0.5 * 2 ** (tries - 1)) * random.uniform(0.5, 1)
    return requested_wait * random.uniform(1, 1.1) if requested_wait <= LONGEST_WAIT else None


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds, from `retry-after-ms` or `retry-after` as seconds or as a date; None where there is none to read."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) * unit
        except ValueError:
            continue
        if math.isfinite(seconds):
            return max(0.0, seconds)
    try:
        return max(0.0, parsedate_to_datetime(headers.get("retry-after", "")).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None
