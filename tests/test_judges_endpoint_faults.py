"""LLMJudge against an endpoint that misbehaves: nothing lost, nothing doubled, nothing paid twice, no cap passed."""

from __future__ import annotations

import asyncio
import json
import math
import os
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from chat_server import Act, ChatServer, completion

from judges import EnsembleJudge, LLMJudge
from judges.protocols import mt_bench
from judges.protocols.protocol import Reading
from judges.transports.cache import ReplyCache, reply_cache, request_key
from judges.transports.messages import ChatReply, ChatRequest

KEY = "sk-test-5f2c9d-not-for-anyone"
ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def number_of(words: str) -> int:
    """The number of the item a rendered question is about."""
    return int(words.split("item")[1].split()[0])


def preference_of(number: int) -> float:
    return (number % 97 + 1) / 99


def right(words: str, *_: Any) -> Act:
    return Act(completion("A", preference_of(number_of(words))))


def items(n: int) -> tuple[list[str], list[str], list[str]]:
    return ["p"] * n, [f"item{i} " for i in range(n)], ["b"] * n


def judge(server: ChatServer, **options: Any) -> LLMJudge:
    return LLMJudge("m", base_url=server.url, **({"max_retries": 0, "concurrency": 64} | options))


WRONG_TYPES = [
    {"choices": 3},
    [1],
    {"choices": [{"message": {"content": ["A"]}}]},
    {"choices": [{"message": {"content": "A"}, "logprobs": {"content": [{"top_logprobs": 7}]}}]},
    completion("A", 0.5) | {"usage": {"prompt_tokens": "many"}},
    completion("A", 0.5) | {"usage": {"prompt_tokens": 10**400}},
    json.loads(json.dumps(completion("A", 0.5)).replace("-0.69", 'true, "x": -0.69')),
    json.loads(json.dumps(completion("A", 0.5)).replace("-0.69", f'{10**400}, "x": -0.69')),
    None,
]
UNLIKELY = json.loads(json.dumps(completion("A", 0.5)).replace("-0.69", "-10.69"))
TIMEOUT = 3.0
# Items by their number modulo 32: how often they fail before they are answered (99: always), as what, and how.
FAULTS: dict[int, tuple[int, str, Act]] = {
    0: (1, "rate-limit", Act({"error": KEY}, 429, {"retry-after": "0.05"})),
    1: (1, "http-500", Act({"error": KEY}, 500)),
    2: (99, "http-503", Act("down", 503, {"retry-after-ms": "20"})),
    3: (1, "timeout", Act(completion("A", 0.5), delay=3 * TIMEOUT)),
    4: (1, "connection", Act(reset=True)),
    5: (99, "connection", Act(reset=True)),
    6: (99, "timeout", Act(completion("A", 0.5), dribble=3 * TIMEOUT)),
    7: (99, "malformed-reply", Act('{"choices": [')),
    8: (99, "malformed-reply", Act(WRONG_TYPES[0])),
    9: (99, "no-logprobs", Act(completion("A"))),
    10: (99, "refusal", Act(completion(None, 0.5, refusal="I will not."))),
    11: (99, "http-400: [key]", Act({"error": KEY}, 400)),
    13: (1, "upstream-error", Act({"error": "no capacity"})),
    14: (99, "html-reply", Act(f"<!doctype html><html>{KEY}")),
    15: (99, "oversized-reply", Act("[" * (4 * 2**20 + 1))),
    16: (1, "http-502", Act({"error": {"message": "bad gateway", "code": 502}})),
    17: (99, "http-400: context 512 < 513", Act({"error": {"message": "context 512 < 513", "code": 400}})),
    18: (99, "upstream-error", Act(completion("A", 0.5, finish="error"))),
    19: (99, "malformed-reply", Act("[" * 100_000)),
    20: (99, "labels-unlikely", Act(UNLIKELY)),
    21: (1, "rate-limit", Act({"error": {"message": KEY, "code": 429}})),
}
RETRIED = {"rate-limit", "http-500", "http-502", "http-503", "timeout", "connection", "upstream-error"}


def faulty(words: str, tries: int, _: Any) -> Act:
    number = number_of(words)
    failures, _, act = FAULTS.get(number % 32, (0, "", Act()))
    if tries > failures:
        return Act(completion("A", preference_of(number)), dribble=0.02 * (number % 32 == 12))
    return Act(WRONG_TYPES[number // 32 % len(WRONG_TYPES)]) if number % 32 == 8 else act


@pytest.mark.slow
def test_two_thousand_comparisons_under_every_fault_are_right_or_fail_as_their_kind():
    n, retries = 2000, 2
    seen: list[tuple[int, int]] = []
    with ChatServer(faulty) as server:
        made = judge(server, max_retries=retries, timeout=TIMEOUT)
        verdicts = made.verdicts(*items(n), progress=lambda *done: seen.append(done))
    failures = [FAULTS.get(i % 32, (0, "", Act())) for i in range(n)]
    expected = [kind if times > retries else "ok" for times, kind, _ in failures]
    assert Counter(verdicts.status) == Counter(expected)
    assert list(verdicts.status) == expected
    preference = [preference_of(i) if status == "ok" else math.nan for i, status in enumerate(expected)]
    np.testing.assert_allclose(verdicts.preference, preference, atol=1e-12)
    calls = [1 + (min(times, retries) if kind in RETRIED else 0) for times, kind, _ in failures]
    assert {number_of(words): count for words, count in server.calls.items()} == dict(enumerate(calls))
    assert verdicts.calls.tolist() == calls
    assert [done for done, _ in seen if done] == list(range(1, n + 1))
    assert KEY not in verdicts.frame().to_csv()


CLIENT = """\
import sys
import numpy as np
from judges import LLMJudge
judge = LLMJudge("m", base_url=sys.argv[1], cache=sys.argv[2], concurrency=32, max_retries=0)
n = int(sys.argv[3])
np.save(sys.argv[4], judge.compare(["p"] * n, [f"item{i} " for i in range(n)], ["b"] * n))
"""


def test_a_run_killed_half_way_and_resumed_repeats_no_paid_call(tmp_path: Path):
    n, cache = 800, tmp_path / "replies"
    with ChatServer(lambda *call: Act(right(*call).body, delay=0.1)) as server:
        command = [sys.executable, "-c", CLIENT, server.url, str(cache), str(n), str(tmp_path / "out.npy")]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        killed = subprocess.Popen(command, env=environment)
        while server.total < n // 2:
            time.sleep(0.005)
        killed.kill()
        killed.wait()
        time.sleep(0.2)
        before = server.total
        kept = sum(path.read_bytes().count(b"\n") for path in cache.glob("*.jsonl"))
        assert 0 < kept < n
        subprocess.run(command, env=environment, check=True)
        assert server.total - before == n - kept
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), [preference_of(i) for i in range(n)], atol=1e-12)
    assert before - kept <= 32 + 32 / 0.1  # what was in flight when it was killed, and a second's calls
    stored = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert KEY.encode() not in stored


FILE_CLIENT = """\
import sys
from judges import LLMJudge
from judges.runs import judge_file
judge_file(LLMJudge("m", base_url=sys.argv[1], concurrency=32, max_retries=0), sys.argv[2], sys.argv[3])
"""


def test_a_file_of_pairs_whose_run_is_killed_buys_nothing_again_and_leaves_no_replies_behind(tmp_path: Path):
    n, pairs, out = 300, tmp_path / "pairs.jsonl", tmp_path / "v.jsonl"
    rows = [{"id": str(i), "prompt": "p", "first": f"item{i} ", "second": "b"} for i in range(n)]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with ChatServer(lambda *call: Act(right(*call).body, delay=0.1)) as server:
        command = [sys.executable, "-c", FILE_CLIENT, server.url, str(pairs), str(out)]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        killed = subprocess.Popen(command, env=environment)
        while server.total < n:
            time.sleep(0.005)
        killed.kill()
        killed.wait()
        time.sleep(0.2)
        before = server.total
        kept = sum(path.read_bytes().count(b"\n") for path in tmp_path.glob("v.jsonl.replies/*.jsonl"))
        assert not out.exists()  # 600 questions are one chunk
        subprocess.run(command, env=environment, check=True)
        assert 0 < kept == 2 * n - (server.total - before)
    assert len(out.read_text().splitlines()) == 2 * n
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pairs.jsonl", "v.jsonl"]


@pytest.mark.parametrize("cap", [0, 1, 100])
def test_an_endpoint_never_sees_more_calls_than_the_budget_retries_included(cap: int):
    def half(words: str, tries: int, body: Any) -> Act:
        return Act({}, 500, {"retry-after": "0"}) if number_of(words) % 2 and tries < 3 else right(words)

    with ChatServer(half) as server:
        verdicts = judge(server, budget_calls=cap, max_retries=3).verdicts(*items(300))
        assert server.total == cap
    assert verdicts.calls.sum() == cap
    statuses = Counter(verdicts.status)
    assert statuses["budget"] == (verdicts.calls == 0).sum() > 0
    assert set(statuses) <= {"ok", "budget", "http-500"}


def test_us_dollars_are_reserved_before_a_call_so_that_the_budget_is_never_passed(tmp_path: Path):
    prices = tmp_path / "prices.yaml"
    prices.write_text("m: {input: 1000, output: 100000}\n")
    with ChatServer(lambda *_: Act(completion("A", 0.75, usage=(20, 1)), delay=0.01)) as server:
        made = judge(server, budget_usd=5.0, prices=prices)
        verdicts = made.verdicts(*items(100))
        again = made.verdicts(*items(3))
    paid = verdicts.cost[verdicts.calls > 0]
    np.testing.assert_allclose(paid, 0.12, atol=1e-12)  # 20 x $1,000 and 1 x $100,000 a million
    longest = 0.1 + 1e-3 * (16 + len(server.bodies[0]["messages"][0]["content"].encode()) + 2)
    assert 5 - longest - 0.12 < paid.sum() <= 5
    assert Counter(verdicts.status) == {"ok": len(paid), "budget": 100 - len(paid)}
    assert again.status == ["budget"] * 3


def test_a_budget_in_dollars_needs_a_price_and_dated_names_have_their_models_price():
    with pytest.raises(ValueError, match="budget_usd needs the price of 'unknown'"):
        LLMJudge("unknown", base_url="http://localhost/v1", budget_usd=1)
    with ChatServer(right) as server:
        verdicts = LLMJudge("gpt-4o-mini-2024-07-18", base_url=server.url).verdicts(*items(1))
    np.testing.assert_allclose(verdicts.cost, (11 * 0.15 + 1 * 0.60) / 1e6)


def test_a_cached_verdict_costs_no_call_and_keeps_what_it_cost_then(tmp_path: Path):
    with ChatServer(right) as server:
        first = judge(server, cache=tmp_path).verdicts(*items(5))
        again = judge(server, cache=tmp_path).verdicts(*items(5))
        assert server.total == 5
        np.testing.assert_array_equal(first.preference, again.preference)
        np.testing.assert_array_equal(first.latency, again.latency)
        assert (first.calls.tolist(), again.calls.tolist()) == ([1] * 5, [0] * 5)
        for other in ({"repeat": 1}, {"temperature": 0.5}, {"max_tokens": 2}, {"labels": ("A", "C")}):
            judge(server, cache=tmp_path, **other).compare(*items(5))
        LLMJudge("n", base_url=server.url, cache=tmp_path).compare(*items(5))
        LLMJudge("m", base_url=server.url.replace("127.0.0.1", "localhost"), cache=tmp_path).compare(*items(5))
        judge(server, cache=tmp_path).compare(["p"] * 5, ["b"] * 5, items(5)[1])
        assert server.total == 5 * 8


def test_equal_questions_are_asked_once_with_a_cache_and_each_time_without(tmp_path: Path):
    with ChatServer(right) as server:
        verdicts = judge(server, cache=tmp_path / "one").verdicts(["p"] * 4, ["item1 "] * 4, ["b"] * 4)
        assert server.total == verdicts.calls.sum() == 1
        np.testing.assert_allclose(verdicts.preference, [preference_of(1)] * 4)
        judge(server).compare(["p"] * 4, ["item1 "] * 4, ["b"] * 4)
        assert server.total == 5


def test_failed_calls_are_not_cached_and_are_asked_again(tmp_path: Path):
    with ChatServer(lambda words, tries, body: right(words) if tries > 1 else Act({}, 500)) as server:
        assert judge(server, cache=tmp_path).verdicts(*items(3)).status == ["http-500"] * 3
        assert judge(server, cache=tmp_path).verdicts(*items(3)).status == ["ok"] * 3


def test_an_unreadable_reply_is_read_again_and_not_bought_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with ChatServer(lambda *_: Act(completion("It is the first."))) as server:
        options: dict[str, Any] = {"protocol": "mt-bench", "cache": tmp_path}
        before = judge(server, **options).verdicts(*items(3))
        paid = server.total
        assert (before.status, paid) == (["no-verdict"] * 3, 3)
        assert judge(server, **options).verdicts(*items(3)).status == ["no-verdict"] * 3
        monkeypatch.setattr(mt_bench.MTBenchProtocol, "read", lambda *_: Reading(1.0))  # the parser is edited
        after = judge(server, **options).verdicts(*items(3))
        assert server.total == paid
    assert (after.preference.tolist(), after.calls.tolist(), after.raw) == ([1.0] * 3, [0] * 3, before.raw)


def test_a_reply_is_kept_for_the_request_whoever_reads_it_for_what():
    request = ChatRequest([{"role": "user", "content": "which?"}], 1, 0.0, ("A", "B"), 20)
    key = request_key("m", None, 0, request)
    assert key == request_key(
        "m", None, 0, ChatRequest([{"content": "which?", "role": "user"}], 1, 0.0, ("1", "2"), 20)
    )
    others = [
        request_key("n", None, 0, request),
        request_key("m", "http://host/v1", 0, request),
        request_key("m", None, 1, request),
        *(
            request_key("m", None, 0, replace(request, **change))
            for change in (
                {"max_tokens": 2},
                {"temperature": 0.5},
                {"top_logprobs": 5},
                {"messages": []},
            )
        ),
    ]
    assert len({key, *others}) == 8


def test_a_judge_that_is_handed_a_cache_keeps_its_replies_there_as_do_an_ensembles_members(tmp_path: Path):
    replies = ReplyCache(tmp_path / "handed")
    with ChatServer(right) as server:
        for _ in range(2):
            alone, ensemble = judge(server), EnsembleJudge([judge(server), judge(server, repeat=1)])
            fingerprints = alone.fingerprint(), ensemble.fingerprint()
            for each in (alone, ensemble):
                each.keep_replies(replies)
                np.testing.assert_allclose(each.compare(*items(3)), [preference_of(i) for i in range(3)])
            assert (alone.fingerprint(), ensemble.fingerprint()) == fingerprints
        assert server.total == 6
        own = judge(server, cache=tmp_path / "own")
        own.keep_replies(replies)
        own.compare(*items(3))
        assert server.total == 9


def test_a_kept_reply_comes_back_whole_the_earliest_one(tmp_path: Path):
    reply = ChatReply("A \ud83d", [("A", -0.5), ("B", -1.0)], "length", True, 11, 1, 0.25, 0.5, calls=3)
    bare = ChatReply("", None)
    replies = ReplyCache(tmp_path)
    one, two = (request_key(name, None, 0, ChatRequest([], 1)) for name in "xy")
    for key, kept in ((one, reply), (two, bare), (one, bare)):
        replies.add(key, kept)
    replies.close()
    assert ReplyCache(tmp_path).find([one, two, "0" * 64]) == {one: replace(reply, calls=0), two: bare}


def test_a_file_that_is_no_cache_is_refused(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("no database " * 100)
    with pytest.raises(ValueError, match=r"cache .*notes.txt is a file; replies are kept in a folder"):
        LLMJudge("m", base_url="http://127.0.0.1:9/v1", cache=tmp_path / "notes.txt").compare(["p"], ["a"], ["b"])


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that the client waits between tries or to keep a pace, of which none pass; its clock stands still."""
    waited: list[float] = []

    async def wait(seconds: float) -> None:
        waited.append(seconds)

    for module in ("endpoint", "limits"):
        monkeypatch.setattr(f"judges.transports.{module}.asyncio", SimpleNamespace(**vars(asyncio) | {"sleep": wait}))
    monkeypatch.setattr("judges.transports.limits.time", SimpleNamespace(**vars(time) | {"monotonic": lambda: 7.0}))
    return waited


def test_retry_after_is_waited_for_and_a_wait_too_long_is_a_failure_at_once(waits: list[float]):
    def script(words: str, tries: int, _: Any) -> Act:
        wait = {"item0": "0.4", "item1": "86400"}[words.split("Response A:\n")[1].split()[0]]
        return Act({}, 429, {"retry-after": wait}) if tries == 1 else right(words)

    with ChatServer(script) as server:
        assert judge(server, max_retries=2).verdicts(*items(2)).status == ["ok", "rate-limit"]
        assert server.total == 3
    assert waits == [pytest.approx(0.42, abs=0.02)]  # and up to a tenth more


def test_as_many_calls_are_in_flight_as_told_and_no_more():
    with ChatServer(lambda *call: Act(right(*call).body, delay=0.05)) as server:
        judge(server, concurrency=10).compare(*items(60))
    assert server.most == 10


def test_requests_a_minute_are_kept(waits: list[float]):
    with ChatServer(right) as server:
        judge(server, requests_per_minute=1200).compare(*items(40))  # 20 at once, then 20 a second
    assert sorted(waits) == pytest.approx([place / 20 for place in range(1, 21)])


def test_a_key_refused_after_answers_fails_those_questions_and_keeps_the_answers():
    def script(words: str, *_: Any) -> Act:
        return Act({"error": KEY}, 401) if number_of(words) > 4 else right(words)

    with ChatServer(script) as server:
        verdicts = judge(server, concurrency=1).verdicts(*items(8))
    assert list(verdicts.status) == ["ok"] * 5 + ["http-401"] * 3


def test_judging_works_where_a_loop_is_running_already():
    async def notebook() -> list[float]:
        return judge(server).compare(*items(3)).tolist()

    with ChatServer(right) as server:
        np.testing.assert_allclose(asyncio.run(notebook()), [preference_of(i) for i in range(3)])


def test_the_key_is_sent_and_stands_nowhere_else(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level("DEBUG")

    def script(words: str, tries: int, _: Any) -> Act:
        number = number_of(words)
        if number == 1:
            return Act({"error": {"message": f"key {KEY}"}}, 500)
        if number == 2:
            return Act(f"{KEY} is not JSON")
        escaped = KEY.replace("s", "\\u0073").replace("-", "\\u002d")  # as JSON may spell it too
        reply = completion("your key is KEY", preference_of(number), finish="KEY")
        return Act(json.dumps(reply).replace("KEY", escaped))

    with ChatServer(script) as server:
        made = judge(server, cache=tmp_path / "replies")
        verdicts = made.verdicts(*items(4))
        reply_cache(tmp_path / "replies").close()
        assert all(f"Bearer {KEY}" in head for head in server.headers)
    assert verdicts.raw[0] == "your key is [key]"
    shown = [verdicts.frame().to_csv(), json.dumps(made.options(), default=str), repr(made), caplog.text]
    stored = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert KEY not in "".join(shown)
    assert stored.count(b"[key]") > 1
    assert KEY.encode() not in stored


@pytest.mark.parametrize("official", [True, False])
def test_the_users_organisation_and_project_are_named_to_openai_alone(monkeypatch: pytest.MonkeyPatch, official: bool):
    monkeypatch.setenv("OPENAI_ORG_ID", "our-organisation")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "our-project")
    with ChatServer(right) as server:
        if official:
            monkeypatch.setattr("judges.transports.address.OPENAI", server.url)
        judge(server).compare(*items(1))
    head = server.headers[0].lower()
    assert ("our-organisation" in head, "our-project" in head, "openai-project" in head) == (official,) * 3


@pytest.mark.parametrize(
    "options",
    [
        {"api_key_env": KEY},
        {"base_url": f"https://user:{KEY}@host/v1"},
        {"base_url": f"https://host/v1?key={KEY}"},
        {"base_url": f"ftp://{KEY}"},
    ],
)
def test_a_key_in_an_option_is_refused_without_telling_it(options: dict[str, Any]):
    with pytest.raises(ValueError, match="must") as caught:
        LLMJudge("m", **({"base_url": "https://host/v1"} | options))
    assert KEY not in str(caught.value)


async def bare(url: str, prompts: list[str], concurrency: int) -> None:
    """The same calls through the openai client alone."""
    import openai

    limit = asyncio.Semaphore(concurrency)
    async with openai.AsyncOpenAI(api_key="none", base_url=url, max_retries=0) as client:

        async def one(prompt: str) -> None:
            messages: Any = [{"role": "user", "content": prompt}]
            async with limit:
                await client.chat.completions.create(
                    model="m", messages=messages, max_tokens=1, temperature=0, logprobs=True, top_logprobs=20
                )

        await asyncio.gather(*map(one, prompts))


SPIN = """\
import time
wall, cpu = time.perf_counter(), time.process_time()
while time.perf_counter() - wall < 0.5:
    pass
print((time.process_time() - cpu) / (time.perf_counter() - wall))
"""


def two_cores_are_free() -> bool:
    """Whether two programs, as the client and the server are, each get a core to themselves."""
    spins = [subprocess.Popen([sys.executable, "-c", SPIN], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    return min(float(spin.communicate()[0]) for spin in spins) > 0.95


@pytest.mark.slow
def test_a_thousand_calls_take_no_longer_than_the_bare_client_and_near_what_latency_allows():
    n, latency, concurrency, free = 1000, 0.2, 64, two_cores_are_free()
    program = [sys.executable, str(Path(__file__).parent / "chat_server.py"), str(latency)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout
            url = server.stdout.readline().strip()
            made = LLMJudge("m", base_url=url, concurrency=concurrency, max_retries=0)
            made.compare(*items(concurrency))
            theirs, ours = [], []
            for _ in range(3):
                started = time.perf_counter()
                asyncio.run(bare(url, [f"item{i} " for i in range(n)], concurrency))
                theirs.append(time.perf_counter() - started)
                started = time.perf_counter()
                assert made.verdicts(*items(n)).coverage() == 1
                ours.append(time.perf_counter() - started)
        finally:
            server.kill()
    print(
        f"openai client {min(theirs):.2f} s, judge {min(ours):.2f} s, latency allows {latency * n / concurrency:.2f} s"
    )
    assert min(ours) <= 1.05 * min(theirs)
    allowed = 1.25 * latency * n / concurrency
    if not (free and two_cores_are_free()):
        pytest.skip(f"client and server share a core: {min(ours):.2f} s of {allowed:.2f} s; compared with openai only")
    assert min(ours) <= allowed


def test_half_a_surrogate_pair_neither_stops_a_run_nor_a_file(tmp_path: Path):
    with ChatServer(lambda *_: Act('{"choices": [{"message": {"content": "\\ud83d A"}}]}')) as server:
        verdicts = judge(server, cache=tmp_path).verdicts(["p", "p\ud83d"], ["item1 ", "item2 "], ["b", "b"])
    assert verdicts.status[0] == "no-logprobs"
    verdicts.frame().to_parquet(tmp_path / "verdicts.parquet")


def test_arena_hard_asks_once_more_for_a_missing_verdict_and_a_cached_run_asks_nothing(tmp_path: Path):
    def script(words: str, tries: int, body: dict[str, Any]) -> Act:
        asked_again = len(body["messages"]) == 4
        return Act(completion("My verdict: [[A>B]]" if asked_again else "Both answer well.", usage=(10, 5)))

    with ChatServer(script) as server:
        made = judge(server, protocol="arena-hard", cache=tmp_path)
        verdicts = made.verdicts(*items(2))
        assert server.total == 4
        again = judge(server, protocol="arena-hard", cache=tmp_path).verdicts(*items(2))
        assert server.total == 4
    assert verdicts.preference.tolist() == again.preference.tolist() == [0.75] * 2
    assert verdicts.raw == ["Both answer well.\nMy verdict: [[A>B]]"] * 2
    assert (verdicts.calls.tolist(), verdicts.input_tokens.tolist()) == ([2, 2], [20, 20])
    further = [body["messages"] for body in server.bodies if len(body["messages"]) == 4]
    assert [turn["role"] for turn in further[0]] == ["system", "user", "assistant", "user"]
    assert further[0][2]["content"] == "Both answer well."


def test_mt_bench_shows_reference_answers_where_there_are_some_in_both_orders():
    with ChatServer(lambda *_: Act(completion("[[A]]"))) as server:
        made = judge(server, protocol="mt-bench", concurrency=1)
        verdicts = made.verdicts(
            ["p", "q"], ["one", "two"], ["x", "y"], both_orders=True, references=[None, ["the truth"]]
        )
        asked = [body["messages"][1]["content"] for body in server.bodies]
        with pytest.raises(ValueError, match="one reference a prompt"):
            made.verdicts(["p"], ["a"], ["b"], references=[])
    assert ["the truth" in words for words in asked] == [False, True, False, True]
    assert verdicts.mean().tolist() == [0.5, 0.5]


def test_mt_bench_rates_through_an_endpoint_and_failures_are_nan():
    def script(words: str, *_: Any) -> Act:
        return Act({}, 500) if "item1" in words else Act(completion("Good.\n\nRating: [[8]]"))

    with ChatServer(script) as server:
        ratings = judge(server, protocol="mt-bench").rate(["p"] * 3, ["item0", "item1", "item2"], [None] * 3)
    np.testing.assert_array_equal(ratings.rating, [8, np.nan, 8])
    assert ratings.status == ["ok", "http-500", "ok"]


def test_a_local_servers_short_key_spoils_no_reply(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    with ChatServer(right) as server:
        assert judge(server).verdicts(*items(2)).status == ["ok", "ok"]
