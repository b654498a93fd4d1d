"""Rate limits and spending limits: a token bucket, a hard budget, and the back-off between tries."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

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
