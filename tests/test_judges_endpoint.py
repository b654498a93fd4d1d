"""LLMJudge over HTTP: a scripted OpenAI-compatible server, faults included."""

import json
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

from judges import LLMJudge

Script = Callable[[int, dict[str, Any]], tuple[int, Any]]
KEY = "sk-test-not-for-anyone"


class Server(ThreadingHTTPServer):
    """Answers each request by `script(number, body) -> (HTTP status, JSON or raw text)`, and remembers the bodies."""

    daemon_threads = True
    request_queue_size = 128  # the usual 5 resets connections that come in a burst
    script: Script

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is part of the test."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.bodies: list[dict[str, Any]] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with self.server.lock:
            self.server.bodies.append(body)
            number = len(self.server.bodies) - 1
        status, reply = self.server.script(number, body)
        payload = (reply if isinstance(reply, str) else json.dumps(reply)).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(payload)))
        if status == 429:
            self.send_header("retry-after", "0.05")
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, *arguments: Any) -> None:
        """Nothing on stderr."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    made = Server()
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


def reply(text: str | None = "A", top: list[tuple[str, float]] | None = None, **message: Any) -> dict[str, Any]:
    listed = [{"token": token, "logprob": value, "bytes": None} for token, value in top or []]
    content = [{"token": text, "logprob": 0.0, "bytes": None, "top_logprobs": listed}]
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": text, **message},
                "logprobs": {"content": content} if top is not None else None,
            }
        ],
        "usage": {"prompt_tokens": 11, "completion_tokens": 1, "total_tokens": 12},
    }


def judge(server: Server, **options: Any) -> LLMJudge:
    return LLMJudge("m", base_url=server.url, **({"max_retries": 0} | options))


def test_preference_is_the_softmax_of_the_two_labels_and_the_record_is_kept(server: Server):
    server.script = lambda *_: (200, reply("A", [("A", -0.5), (" B", -1.5), ("C", -3.0), (" A", -4.0)]))
    verdicts = judge(server).verdicts(["p"], ["one"], ["two"])
    first, second = math.exp(-0.5) + math.exp(-4.0), math.exp(-1.5)
    np.testing.assert_allclose(verdicts.preference, [first / (first + second)], atol=1e-12)
    assert (verdicts.input_tokens[0], verdicts.output_tokens[0], verdicts.raw[0]) == (11, 1, "A")
    assert verdicts.latency[0] > 0
    body = server.bodies[0]
    assert (body["temperature"], body["max_tokens"], body["logprobs"], body["top_logprobs"]) == (0, 1, True, 20)
    assert "Response A:\none\n" in body["messages"][0]["content"]
    assert "Response B:\ntwo\n" in body["messages"][0]["content"]


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ((200, reply("hello", [("hello", -0.1)])), "no-label"),
        ((200, reply("A")), "no-logprobs"),
        ((200, reply(None, [("A", -0.1)], refusal="no")), "refusal"),
        ((200, {"choices": []}), "malformed-reply"),
        ((200, {"choices": 3}), "malformed-reply"),
        ((200, reply("A", [("A", "much")])), "malformed-reply"),  # type: ignore[list-item]
        ((200, "{"), "malformed-reply"),
        ((200, [1, 2]), "malformed-reply"),
        ((200, "null"), "malformed-reply"),
        ((500, {"error": "x"}), "http-500"),
        ((400, {"error": "x"}), "http-400: x"),
        ((429, {"error": "x"}), "rate-limit"),
    ],
)
def test_a_failing_request_is_a_failure_of_its_kind_and_the_others_are_answered(server: Server, answer, kind: str):
    good = (200, reply("A", [("A", -0.1), ("B", -2.0)]))
    server.script = lambda _, body: answer if "broken" in body["messages"][0]["content"] else good
    verdicts = judge(server).verdicts(["p"] * 3, ["a", "broken", "c"], ["d"] * 3)
    assert list(verdicts.status) == ["ok", kind, "ok"]
    assert np.isnan(verdicts.preference[1])


def test_timeouts_and_refused_connections_are_failures(server: Server):
    def slow(*_: Any) -> tuple[int, Any]:
        time.sleep(0.5)
        return 200, reply()

    server.script = slow
    assert judge(server, timeout=0.1).verdicts(["p"], ["a"], ["b"]).status == ["timeout"]
    closed = LLMJudge("m", base_url="http://127.0.0.1:9/v1", max_retries=0)
    assert closed.verdicts(["p"], ["a"], ["b"]).status == ["connection"]


def test_the_client_retries_as_often_as_told_and_waits_as_told(server: Server):
    good = (200, reply("B", [("B", 0.0)]))
    server.script = lambda number, _: (429, {"error": "slow down"}) if number < 2 else good
    assert judge(server, max_retries=2).compare(["p"], ["a"], ["b"]).tolist() == [0.0]
    assert len(server.bodies) == 3


def test_many_requests_in_flight_come_back_in_order_and_none_twice(server: Server):
    def script(_: int, body: dict[str, Any]) -> tuple[int, Any]:
        number = int(body["messages"][0]["content"].split("item")[1].split()[0])
        time.sleep(0.001 * (number % 7))
        return 200, reply("A", [("A", math.log((number + 1) / 202)), ("B", math.log((201 - number) / 202))])

    server.script = script
    seen: list[tuple[int, int]] = []
    verdicts = judge(server, concurrency=16).verdicts(
        ["p"] * 200, [f"item{i} " for i in range(200)], ["b"] * 200, progress=lambda *done: seen.append(done)
    )
    np.testing.assert_allclose(verdicts.preference, (np.arange(200) + 1) / 202, atol=1e-12)
    assert len(server.bodies) == 200
    assert seen[-1] == (200, 200)


@pytest.mark.parametrize(
    ("text", "preference", "status"),
    [
        ("A", 1.0, "ok"),
        (" B.\n", 0.0, "ok"),
        ("", None, "empty-reply"),
        ("A or B", None, "two-verdicts"),
        ("Neither.", None, "no-label"),
        ("А", None, "no-label"),  # a Cyrillic letter that looks like the label
    ],
)
def test_text_verdicts_are_read_only_when_allowed_and_said_so_once(
    server: Server, caplog: pytest.LogCaptureFixture, text: str, preference: float | None, status: str
):
    server.script = lambda *_: (200, reply(text))
    with caplog.at_level(logging.WARNING, logger="judges.kinds.llm"):
        verdicts = judge(server, text_verdicts=True).verdicts(["p"] * 3, ["a"] * 3, ["b"] * 3)
    assert list(verdicts.status) == [status] * 3
    assert verdicts.mean().tolist() == [preference] * 3 if preference is not None else np.isnan(verdicts.mean()).all()
    assert len(caplog.records) == 1
    assert "read from its text" in caplog.text


@pytest.mark.parametrize(("code", "message"), [(401, "refused the API key"), (404, "does not know the model 'm'")])
def test_an_endpoint_that_can_answer_nothing_stops_the_run_without_telling_the_key(
    server: Server, code: int, message: str
):
    server.script = lambda *_: (code, {"error": {"message": f"bad key {KEY}"}})
    with pytest.raises(ValueError, match=message) as caught:
        judge(server).compare(["p"] * 50, ["a"] * 50, ["b"] * 50)
    assert KEY not in str(caught.value)
    assert caught.value.__suppress_context__


def test_the_key_is_no_option_and_no_part_of_the_fingerprint(server: Server, monkeypatch: pytest.MonkeyPatch):
    made = judge(server)
    fingerprint = made.fingerprint()
    assert KEY not in json.dumps(made.options(), default=str) + repr(made)
    monkeypatch.setenv("OPENAI_API_KEY", "another")
    assert judge(server).fingerprint() == fingerprint
    assert judge(server, concurrency=2).fingerprint() == fingerprint
    assert judge(server, labels=("1", "2")).fingerprint() != fingerprint


def test_an_official_endpoint_without_a_key_is_refused_before_anything_runs(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ValueError, match="set the environment variable OPENAI_API_KEY, or give a base_url"):
        LLMJudge("m", transport="chat-completions")
