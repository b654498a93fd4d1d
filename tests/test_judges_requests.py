"""What models accept: four families of scripted servers, and every protocol that applies to each."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_server import Act, ChatServer, completion

from judges import LLMJudge
from judges.protocols import alpaca_eval
from judges.protocols.custom import label_preference
from judges.transports import endpoint
from judges.transports.chat_completions import ChatCompletions, read_completion
from judges.transports.endpoint import refused_argument
from judges.transports.http import EndpointTransport
from judges.transports.messages import ChatRequest
from judges.verdicts import is_transient, kind_of

Script = Callable[[str, int, dict[str, Any]], Act]
PAIR = (["p"], ["one"], ["two"])
KEY = "sk-test-5f2c9d-not-for-anyone"


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(endpoint, "_REFUSED", {})
    evaluator = alpaca_eval.Evaluator((("user", "{instruction} {output_1} {output_2}"),), ("A", "B"), 1, 1.0, 5)
    monkeypatch.setattr(alpaca_eval, "installed", lambda: evaluator)


def refuse(parameter: str, message: str) -> Act:
    error = {"message": message, "type": "invalid_request_error", "param": parameter, "code": "unsupported_value"}
    return Act({"error": error}, 400)


def classic(words: str, tries: int, body: dict[str, Any]) -> Act:
    if "max_completion_tokens" in body:
        return refuse("max_completion_tokens", "Unrecognized request argument supplied: max_completion_tokens")
    assert body["max_tokens"] > 0
    text = "[[A>B]]" if "much better" in str(body) else "Good. [[A]]" if "[[C]]" in str(body) else "Good. [[8]]"
    return Act(completion("A", 0.75) if body.get("logprobs") else completion(text))


def reasoning(words: str, tries: int, body: dict[str, Any]) -> Act:
    """Thinks always: no temperature, no log-probabilities, the limit under its new name."""
    if "max_tokens" in body:
        text = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens'."
        return refuse("max_tokens", text)
    if body.get("temperature", 1) != 1:
        return refuse("temperature", "'temperature' does not support 0 with this model. Only the default (1) value is.")
    if "logprobs" in body:
        return refuse("logprobs", "You are not allowed to request logprobs from this model")
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 35}
    reply = classic(words, tries, {"max_tokens": 1, **{k: v for k, v in body.items() if "max_" not in k}}).body
    return Act(reply | {"usage": usage | {"completion_tokens_details": {"reasoning_tokens": 20}}})


def quiet(words: str, tries: int, body: dict[str, Any]) -> Act:
    """Gives temperature and log-probabilities with thinking off alone."""
    if body.get("reasoning_effort") != "none" and {"temperature", "logprobs"} & body.keys():
        named = "logprobs" if "logprobs" in body else "temperature"
        return refuse(named, f"'{named}' is only supported with reasoning_effort none")
    return classic(words, tries, body)


@pytest.mark.parametrize(
    ("script", "options", "statuses"),
    [
        (classic, {}, {"custom": "ok", "alpaca-eval": "ok", "arena-hard": "ok", "mt-bench": "ok"}),
        (quiet, {"reasoning": {"effort": "none"}}, {"custom": "ok", "alpaca-eval": "ok", "arena-hard": "ok"}),
        (reasoning, {}, {"custom": "http-400", "alpaca-eval": "http-400", "arena-hard": "ok", "mt-bench": "ok"}),
        (reasoning, {"temperature": None}, {"arena-hard": "ok", "mt-bench": "ok"}),
    ],
)
def test_each_family_of_models_answers_the_protocols_that_apply_to_it(
    script: Script, options: dict[str, Any], statuses: dict[str, str]
) -> None:
    with ChatServer(script) as server:
        for protocol, status in statuses.items():
            judge = LLMJudge("m", protocol, base_url=server.url, max_retries=0, **options)
            verdicts = judge.verdicts(*PAIR)
            assert [kind_of(each) for each in verdicts.status] == [status], protocol
        if "mt-bench" in statuses:
            assert judge.rate(["p"], ["one"], [None]).rating.tolist() == [8]


def test_what_a_model_refuses_is_learnt_once_and_the_reply_is_kept_under_what_was_sent(tmp_path: Path) -> None:
    with ChatServer(reasoning) as server:
        options: dict[str, Any] = {
            "protocol": "arena-hard",
            "base_url": server.url,
            "cache": tmp_path,
            "concurrency": 1,
        }
        verdicts = LLMJudge("m", **options).verdicts(["p"] * 3, ["a", "b", "c"], ["d"] * 3)
        assert (verdicts.status, verdicts.calls.tolist()) == (["ok"] * 3, [3, 1, 1])
        assert verdicts.output_tokens.tolist() == [25] * 3  # thinking is counted, here beside what was written
        assert server.total == 5
        assert "temperature" not in server.bodies[-1]
        endpoint._REFUSED.clear()  # another process
        again = LLMJudge("m", **options).verdicts(["p"] * 3, ["a", "b", "c"], ["d"] * 3)
        assert (server.total, again.calls.tolist()) == (5, [0] * 3)
        without = LLMJudge("m", temperature=None, **options).verdicts(["p"] * 3, ["a", "b", "c"], ["d"] * 3)
        assert (server.total, without.preference.tolist()) == (5, verdicts.preference.tolist())


def test_many_calls_in_flight_learn_it_together_and_none_fails() -> None:
    with ChatServer(lambda *call: Act((act := reasoning(*call)).body, act.status, delay=0.02)) as server:
        judge = LLMJudge("m", "arena-hard", base_url=server.url, max_retries=0)
        verdicts = judge.verdicts(["p"] * 64, [f"a{i}" for i in range(64)], ["b"] * 64)
    assert set(verdicts.status) == {"ok"}
    assert 64 + 2 <= server.total <= 64 + 2 * 16


@pytest.mark.parametrize(
    ("error", "sent", "refused", "argument"),
    [
        ({"message": "temperature must be 1", "param": "temperature"}, {"temperature": 0}, (), "temperature"),
        ({"message": "unknown field: seed"}, {"seed": 1, "temperature": 0}, (), "seed"),
        ({"detail": [{"msg": "Extra inputs are not permitted", "loc": ["top_p"]}]}, {"top_p": 1}, (), ""),
        ({"message": "max_tokens is not supported"}, {"max_tokens": 1}, (), "max_tokens"),
        ({"message": "max_tokens is not supported"}, {"max_tokens": 1}, ("max_completion_tokens",), ""),
        ({"message": "max_tokens 9000 is beyond the context of 512"}, {"max_tokens": 9000}, (), ""),
        ({"message": "logprobs need temperature 1", "param": "logprobs"}, {"temperature": 0, "logprobs": True}, (), ""),
        ({"message": "temperature is bad"}, {}, (), ""),
        ("temperature", {"temperature": 0}, (), "temperature"),
        (None, {"temperature": 0}, (), ""),
    ],
)
def test_an_argument_is_left_out_only_where_the_refusal_names_it(
    error: Any, sent: dict[str, Any], refused: tuple[str, ...], argument: str
) -> None:
    assert refused_argument(error, sent, frozenset(refused)) == argument


def test_an_argument_of_the_users_own_is_never_taken_out_again() -> None:
    with ChatServer(reasoning) as server:
        judge = LLMJudge("m", "arena-hard", base_url=server.url, extra_body={"temperature": 0.5}, max_retries=0)
        status = judge.verdicts(*PAIR).status[0]
    assert status.startswith("http-400: 'temperature' does not support 0")
    assert server.total == 2


def test_the_limits_name_is_the_hosts_and_thinking_has_room_of_its_own() -> None:
    request, none = ChatRequest([{"role": "user", "content": "q"}], 16, 0.0), frozenset[str]()
    for url in (None, "https://api.openai.com/v1"):
        assert ChatCompletions(base_url=url).body("m", request, none)["max_completion_tokens"] == 16
    assert ChatCompletions(base_url="http://h/v1").body("m", request, none)["max_tokens"] == 16
    thinking = ChatCompletions(base_url="http://h/v1", reasoning={"effort": "low"})
    assert thinking.body("m", request, none)["max_tokens"] == 16 + 4096
    assert thinking.body("m", request, none)["reasoning_effort"] == "low"
    router = ChatCompletions(base_url="https://openrouter.ai/api/v1", reasoning={"effort": "none", "exclude": True})
    assert router.body("m", request, none)["reasoning"] == {"effort": "none", "exclude": True}


def test_the_reason_of_a_refusal_is_kept_in_one_line_without_keys_and_a_faults_is_not() -> None:
    def script(words: str, tries: int, body: dict[str, Any]) -> Act:
        if "item1" in words:
            return Act({"error": {"message": f"context 512 <\n513 tokens of {KEY} and sk-other-key-12345"}}, 400)
        return Act({"error": {"message": "oops " * 100}}, 402 if "item2" in words else 403)

    with ChatServer(script) as server:
        judge = LLMJudge("m", base_url=server.url, max_retries=0, concurrency=1)
        status = judge.verdicts(["p"] * 3, ["item1", "item2", "item3"], ["x"] * 3).status
    assert status[0] == "http-400: context 512 < 513 tokens of [key] and [key]"
    assert status[1].startswith("http-402: oops oops")
    assert len(status[1]) < 140
    assert status[2] == "http-403"
    assert [is_transient(each) for each in status] == [False, True, True]


def test_headers_of_ones_own_are_sent_and_their_secrets_stand_nowhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MY_SECRET", "very-secret-value")
    headers = {"X-Title": "nashbench", "X-Api-Key": "$MY_SECRET"}
    with ChatServer(lambda *_: Act(completion("A very-secret-value", 0.75))) as server:
        judge = LLMJudge("m", base_url=server.url, extra_headers=headers, extra_body={"top_k": 3}, cache=tmp_path)
        verdicts = judge.verdicts(*PAIR)
    assert "x-api-key: very-secret-value" in server.headers[0].lower()
    assert server.bodies[0]["top_k"] == 3
    assert verdicts.raw == ["A [key]"]
    assert "very-secret" not in repr(judge) + json.dumps(judge.described()) + json.dumps(verdicts.frame().to_dict())
    assert judge.fingerprint() == LLMJudge("m", base_url=server.url, extra_body={"top_k": 3}).fingerprint()
    assert judge.fingerprint() != LLMJudge("m", base_url=server.url).fingerprint()


# Replies that are wrong, each in its way


@pytest.mark.parametrize(
    ("act", "status", "calls"),
    [
        (Act({"error": {"message": "Provider returned error", "code": 429}}), "rate-limit", 2),
        (Act({"error": {"message": "bad gateway", "code": 502}}), "http-502", 2),
        (Act({"error": "no capacity"}), "upstream-error", 2),
        (Act({"error": {"message": "context 9 < 10", "code": 400}}), "http-400: context 9 < 10", 1),
        (Act(completion("part of", finish="error")), "upstream-error", 2),
        (Act("<!DOCTYPE html><html>Log in"), "html-reply", 1),
        (Act('{"choices": [{"message": {"content": "[[A'), "malformed-reply", 1),
        (Act("x" * 10 * 2**20), "oversized-reply", 1),
        (Act(completion(None, finish="length")), "truncated", 1),
        (Act(completion("[[A>B]]") | {"choices": []}), "malformed-reply", 1),
    ],
)
def test_each_wrong_reply_is_one_kind_of_failure_and_only_passing_ones_are_asked_again(
    act: Act, status: str, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "backoff", lambda *_: 0.0)
    with ChatServer(lambda *_: act) as server:
        verdicts = LLMJudge("m", "arena-hard", base_url=server.url, max_retries=1).verdicts(*PAIR)
    assert (verdicts.status, verdicts.calls.tolist()) == ([status], [calls])
    assert np.isnan(verdicts.preference[0])


def test_content_in_parts_is_joined_without_its_thinking() -> None:
    parts = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "hm [[B>A]]"}]},
        {"type": "text", "text": "So: "},
        {"type": "text", "text": "[[A>>B]]"},
    ]
    assert read_completion(completion(parts)).text == "So: [[A>>B]]"  # type: ignore[arg-type]
    with ChatServer(lambda *_: Act(completion(parts))) as server:  # type: ignore[arg-type]
        assert LLMJudge("m", "arena-hard", base_url=server.url).compare(*PAIR).tolist() == [1.0]


@pytest.mark.parametrize(
    "text",
    [
        "[THINK]first thought [[B>A]][/THINK]So: [[A>>B]]",
        "<|channel|>analysis<|message|>maybe [[B>A]]<|end|><|start|>assistant<|channel|>final<|message|>[[A>>B]]",
        "<think>maybe [[B>A]]</think>[[A>>B]]",
    ],
)
def test_thinking_by_any_known_mark_is_no_verdict(text: str) -> None:
    with ChatServer(lambda words, tries, body: Act(completion(text if "one" in words else text[:20]))) as server:
        judge = LLMJudge("m", "arena-hard", base_url=server.url)
        verdicts = judge.verdicts(["p"] * 2, ["one", "other"], ["two", "x"])
    assert verdicts.status == ["ok", "empty-reply"]
    assert verdicts.preference[0] == 1.0


# Labels that are not there


@pytest.mark.parametrize(
    ("top", "value", "status"),
    [
        ([("A", 0.6), ("B", 0.2), (" A", 0.1)], 0.7 / 0.9, "ok"),
        ([("A", 0.5), ("C", 0.3), ("D", 0.1)], 0.5 / 0.6, "ok"),  # B has .1 at most
        ([("A", 0.9)], 0.9, "ok"),  # what is left of 1
        ([("B", 1.0)], 0.0, "ok"),
        ([("A", 1.0), ("B", 0.0)], 1.0, "ok"),
        ([("A", 0.0016), ("C", 0.99)], math.nan, "labels-unlikely"),
        ([("A", 6e-6), ("B", 2e-6), ("C", 0.99)], math.nan, "labels-unlikely"),
        ([("C", 0.99)], math.nan, "no-label"),
    ],
)
def test_a_label_that_is_not_shown_is_bounded_and_two_unlikely_ones_are_no_verdict(
    top: list[tuple[str, float]], value: float, status: str
) -> None:
    logs = [(token, math.log(p) if p else -math.inf) for token, p in top]
    read = label_preference(logs, ("A", "B"), 0.1)
    assert read == (pytest.approx(value, nan_ok=True), status)


def test_alpaca_evals_rule_is_upstreams_and_such_verdicts_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    body = completion("A", 0.5)
    body["choices"][0]["logprobs"]["content"][0]["top_logprobs"] = [{"token": "A", "logprob": -9.0}]
    with ChatServer(lambda words, *_: Act(body if "one" in words else completion("A", 0.75))) as server:
        judge = LLMJudge("m", "alpaca-eval", base_url=server.url)
        assert judge.compare(["p"] * 2, ["one", "x"], ["y"] * 2).tolist() == [1.0, 0.75]
    assert "1 of 2 verdicts are 0 or 1 by the official rule" in caplog.text


# Decisions


def decide(body: dict[str, Any]) -> dict[str, Any]:
    """The documented reply of `POST /v1/decisions` (openai 3.52, `types/decision.py`)."""
    (question,) = body["questions"]
    if "secret" in str(body["input"]):
        answer: dict[str, Any] = {"type": "refusal", "name": question["name"]}
    elif question["type"] == "choice":
        shares = dict(zip([each["value"] for each in question["choices"]], (0.75, 0.25), strict=True))
        rows = [{"value": value, "probability": p} for value, p in shares.items()]
        answer = {"type": "choice", "choice": "A", "confidence": 0.75, "probabilities": rows}
    else:
        n = len(question["levels"])
        rows = [{"label": each["label"], "value": i, "probability": 0.0} for i, each in enumerate(question["levels"])]
        rows[n - 1]["probability"], rows[n - 2]["probability"] = 0.75, 0.25
        answer = {"type": "score", "score": n - 1.25, "confidence": 0.75, "probabilities": rows}
    usage = {"input_tokens": 40, "output_tokens": 0, "total_tokens": 40}
    return {"model": body["model"], "answers": [{"name": question["name"]} | answer], "usage": usage}


def system_one(body: dict[str, Any]) -> dict[str, Any]:
    """The documented reply of `POST /v1/systemone` (transformers 5.23, `cli/serving/systemone.py`)."""
    assert body.keys() == {"model", "state", "questions"}
    ((name, question),) = body["questions"].items()
    assert question.keys() == {"type", "instructions", "criteria"}
    usage = {"input_tokens": 40, "output_tokens": 0}
    if "secret" in body["state"]:
        return {"model": body["model"], "answers": {}, "usage": usage}
    if question["type"] == "choice":
        shares = dict(zip(question["criteria"], (0.75, 0.25), strict=True))
        answer = {"type": "choice", "choice": "A", "probabilities": shares, "confidence": 0.75}
    else:
        n = len(question["criteria"])
        shares = {str(i): 0.75 if i == n - 1 else 0.25 if i == n - 2 else 0.0 for i in range(n)}
        answer = {"type": "score", "score": n - 1.25, "probabilities": shares, "confidence": 0.75}
    return {"model": body["model"], "answers": {name: answer}, "usage": usage}


WIRES = pytest.mark.parametrize(("transport", "reply"), [("decisions", decide), ("systemone", system_one)])


@WIRES
def test_a_decision_endpoint_gives_labels_five_ways_and_ratings(
    transport: str, reply: Callable[[dict[str, Any]], dict[str, Any]], tmp_path: Path
) -> None:
    with ChatServer(lambda words, tries, body: Act(reply(body))) as server:
        reach = {"transport": transport, "base_url": server.url, "cache": tmp_path}
        label, five = LLMJudge("m", **reach), LLMJudge("m", "decision", **reach)
        for _ in range(2):
            verdicts = label.verdicts(["p"] * 2, ["one", "secret"], ["two"] * 2)
            assert (verdicts.status, verdicts.preference[0]) == (["ok", "refusal"], pytest.approx(0.75))
            assert verdicts.input_tokens.tolist() == [40, 40]
            assert five.compare(*PAIR).tolist() == [pytest.approx(0.75 + 0.25 * 0.75)]
            rated = five.rate(["p"] * 2, ["one", "secret"], [None, ("known",)])
            assert (rated.rating[0], rated.status) == (pytest.approx(9.75), ["ok", "refusal"])
            assert server.total == 5
        chat = LLMJudge("m", base_url=server.url, cache=tmp_path, max_retries=0)
        assert chat.verdicts(*PAIR).status == ["connection"]  # it was asked, and no decision was taken for its reply


@WIRES
@pytest.mark.parametrize(
    "shares", [{"A": 0.9, "B": 0.9}, {"A": 1.0}, {"A": "much", "B": 0.1}, {"A": -0.5, "B": 1.5}, 7]
)
def test_probabilities_that_are_none_are_malformed(
    transport: str, reply: Callable[[dict[str, Any]], dict[str, Any]], shares: Any
) -> None:
    def script(words: str, tries: int, body: dict[str, Any]) -> Act:
        made = reply(body)
        answer = made["answers"][0] if transport == "decisions" else made["answers"]["verdict"]
        listed = [{"value": v, "probability": p} for v, p in shares.items()] if isinstance(shares, dict) else shares
        answer["probabilities"] = listed if transport == "decisions" else shares
        return Act(made)

    with ChatServer(script) as server:
        verdicts = LLMJudge("m", transport=transport, base_url=server.url, max_retries=0).verdicts(*PAIR)
    assert verdicts.status == ["malformed-reply"]


@pytest.mark.parametrize("transport", ["decisions", "systemone"])
@pytest.mark.parametrize("protocol", ["mt-bench", "arena-hard"])
def test_a_decision_endpoint_that_is_asked_for_explanations_is_refused(transport: str, protocol: str) -> None:
    with pytest.raises(ValueError, match=r"reads the text of a reply, and .* gives only its labels and levels; choose"):
        LLMJudge("m", protocol, transport=transport, base_url="http://h/v1")
    with pytest.raises(ValueError, match="DecisionProtocol reads the levels of a reply"):
        LLMJudge("m", "decision", base_url="http://h/v1")


def test_the_typed_client_of_openai_reads_our_request_and_the_servers_reply() -> None:
    """The wire is the client's own: its types take what we send and what the scripted server answers."""
    from openai.types import Decision
    from openai.types.decision_create_params import DecisionCreateParams
    from pydantic import TypeAdapter

    from judges.transports.decisions import Decisions

    for request in (
        ChatRequest([{"role": "user", "content": "q"}], 1, None, labels=("A", "B")),
        ChatRequest([{"role": "user", "content": "q"}], 1, None, levels=("bad", "good")),
    ):
        body = Decisions(base_url="http://h/v1").body("m", request, frozenset())
        TypeAdapter(DecisionCreateParams).validate_python(body)
        reply = decide(body)
        usage = {"input_tokens_details": {"cache_write_tokens": 0, "cached_tokens": 0}}
        usage |= {"output_tokens_details": {"reasoning_tokens": 0}}
        read = Decision.model_validate(reply | {"usage": reply["usage"] | usage})
        assert len(read.answers) == len(body["questions"])


def test_every_endpoint_greets_with_a_request_of_its_own_wire() -> None:
    from judges.transports.decisions import Decisions, SystemOne

    made: list[EndpointTransport] = [each(base_url="http://h/v1") for each in (ChatCompletions, Decisions, SystemOne)]
    bodies = [each.body("m", each.greeting, frozenset()) for each in made]
    assert bodies[0] == {"model": "m", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
    assert all("questions" in body for body in bodies[1:])
