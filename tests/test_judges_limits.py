"""Pace, budget, waits and prices by closed forms."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from judges.transports.limits import Bucket, Budget, backoff
from judges.transports.lives import Life, life_of
from judges.transports.prices import Price, price_of


@settings(max_examples=50, deadline=None)
@given(
    st.floats(1, 600),
    st.lists(st.tuples(st.floats(0, 3), st.floats(0.1, 50)), min_size=1, max_size=40),
)
def test_a_bucket_never_lets_more_through_than_its_rate_and_a_seconds_worth(per_minute, takes):
    bucket, now, passed = Bucket(per_minute), 0.0, []
    for gap, amount in takes:
        now += gap
        passed.append((now + bucket.delay(amount, now), amount))
    rate = per_minute / 60
    for i, (start, _) in enumerate(passed):
        for j in range(i, len(passed)):
            # Between two passings: all that passed but the last, which may be larger than the bucket.
            through = sum(amount for _, amount in passed[i + 1 : j + 1])
            assert through <= rate * (passed[j][0] - start) + max(1.0, rate) + 1e-6


def test_a_bucket_that_is_full_does_not_wait_and_an_empty_one_waits_what_is_missing():
    bucket = Bucket(120)  # two a second, holds two
    assert [bucket.delay(1, 0.0) for _ in range(4)] == [0, 0, 0.5, 1.0]
    assert bucket.delay(1, 10.0) == 0


def test_a_budget_waits_for_calls_in_flight_and_refuses_what_would_pass_it():
    async def run() -> tuple[bool, bool, float]:
        budget = Budget(usd=1.0)
        assert await budget.reserve(0.8)
        asyncio.get_running_loop().call_later(0.1, budget.settle, 0.8, 0.1)
        second = await budget.reserve(0.8)  # fits only once the first has settled
        budget.settle(0.8, 0.8)
        return second, await budget.reserve(0.2), budget.spent_usd

    second, third, spent = asyncio.run(run())
    assert (second, third, round(spent, 12)) == (True, False, 0.9)


@pytest.mark.parametrize("headers", [{"retry-after": "2"}, {"retry-after-ms": "2000", "retry-after": "9"}])
def test_backoff_is_what_the_endpoint_asks_and_never_less(headers):
    assert all(2 <= (backoff(1, headers) or 0) <= 2.2 for _ in range(200))


def test_backoff_reads_dates_doubles_without_a_header_and_gives_up_on_long_waits():
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert 27 < (backoff(1, {"retry-after": date}) or 0) <= 33
    for tries in range(1, 12):
        longest = min(8, 0.5 * 2 ** (tries - 1))
        assert all(longest / 2 <= (backoff(tries, {"retry-after": "soon"}) or 0) <= longest for _ in range(50))
    assert backoff(1, {"retry-after": "301"}) is None
    assert (backoff(1, {"retry-after": "-5"}), backoff(1, {"retry-after": "0"})) == (0, 0)
    assert 0 < (backoff(1, {"retry-after": "nan"}) or 0) <= 0.5


def test_a_users_prices_win_over_the_table_and_dates_are_left_off(tmp_path: Path):
    assert price_of("gpt-4o-2024-08-06") == price_of("gpt-4o") == Price(2.5, 10)
    assert price_of("mine") is None
    table = tmp_path / "prices.yaml"
    table.write_text("mine: {input: 1, output: 2}\ngpt-4o: {input: 0, output: 0}\n")
    assert price_of("mine", table) == Price(1, 2)
    assert price_of("gpt-4o-2024-08-06", table) == Price(0, 0)
    assert price_of("mine", table).cost(2_000_000, 1_000_000) == 4  # type: ignore[union-attr]


def test_models_that_are_gone_have_a_successor_and_no_price_and_the_others_a_price() -> None:
    gone, going = life_of("gpt-4-turbo-2024-04-09"), life_of("gpt-4o-2024-08-06")
    assert gone == Life(date(2026, 10, 23), "gpt-5.6-sol")
    assert going == Life(date(2027, 1, 14), "gpt-6-luna")
    assert life_of("gpt-6-luna") is life_of("mine") is None
    assert price_of("gpt-4-turbo") is price_of("gpt-4-1106-preview") is None
    assert price_of("gpt-6-luna") == Price(0.1, 0.5)
    told = going.told("gpt-4o", date(2026, 11, 27))
    assert told.startswith(
        "the judge gpt-4o is shut down on 2027-01-14 (published successor: gpt-6-luna); scores under"
    )
    assert "was shut down on 2027-01-14" in going.told("gpt-4o", date(2027, 1, 14))
    assert "successor" not in Life(date(2026, 10, 23)).told("m", date(2026, 11, 27))


@pytest.mark.parametrize(
    "text", ["- 1", "m: 3", "m: {input: 1}", "m: {input: -1, output: 0}", "m: {input: x, output: 0}"]
)
def test_a_price_table_in_another_form_is_refused(tmp_path: Path, text: str):
    (tmp_path / "prices.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"price table .* must be YAML"):
        price_of("m", tmp_path / "prices.yaml")


def test_many_at_once_wait_in_a_bucket_for_one_each_at_its_rate(monkeypatch: pytest.MonkeyPatch):
    waits: list[float] = []

    async def wait(seconds: float) -> None:
        waits.append(seconds)

    async def run() -> None:
        bucket = Bucket(6000)  # a hundred a second, holds a hundred
        await asyncio.gather(*(bucket.take(1) for _ in range(130)))

    monkeypatch.setattr("judges.transports.limits.time", SimpleNamespace(monotonic=lambda: 7.0))
    monkeypatch.setattr("judges.transports.limits.asyncio", SimpleNamespace(sleep=wait))
    asyncio.run(run())
    assert waits == pytest.approx([place / 100 for place in range(1, 31)])
