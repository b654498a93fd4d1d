"""Protocols and transports of a third party: two entry points, and nothing of ours changes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from chat_server import Act, ChatServer, completion
from conftest import install

from judges import LLMJudge
from judges.protocols.arena_hard import ArenaHardProtocol
from judges.transports.chat_completions import ChatCompletions
from judges.transports.limits import Limits

ENTRIES = """\
[nashbench.protocols]
stars = my_judge_parts:Stars

[nashbench.transports]
upper = my_judge_parts:Upper
wire = my_judge_parts:Wire
"""
MODULE = '''
"""A protocol of 30 lines and two transports, as a third-party package brings them."""

from dataclasses import dataclass

from judges.protocols.protocol import NO_VERDICT, Protocol, Reading, chat
from judges.transports.http import EndpointTransport
from judges.transports.messages import ChatReply, ChatRequest
from judges.transports.transport import Transport


@dataclass(frozen=True)
class Stars(Protocol):
    """Which answer gets more stars: "**** **" says four and two."""

    word: str = "Stars"

    def request(self, question):
        asked = f"{self.word} for each?\\n1: {question.first}\\n2: {question.second}"
        return ChatRequest(chat("", asked), max_tokens=64)

    def read(self, reply, question):
        counts = [len(part) for part in reply.text.split() if set(part) == {"*"}]
        if len(counts) != 2:
            return Reading.failure(NO_VERDICT)
        first, second = counts
        return Reading(0.5 if first == second else float(first > second))


@dataclass(frozen=True)
class Upper(Transport):
    """Answers without any model: the longer answer has more stars."""

    most: int = 5

    def connect(self, model, limits, repeat, replies):
        return self

    def clean(self, text):
        return text

    def ask(self, requests, advance):
        lines = [request.messages[0]["content"].split("\\n")[1:] for request in requests]
        advance(len(requests))
        return [ChatReply(" ".join("*" * min(len(line) - 3, self.most) for line in each)) for each in lines]


@dataclass(frozen=True, repr=False)
class Wire(EndpointTransport):
    """An endpoint with a wire of its own."""

    path = "/complete"

    def body(self, model, request, refused):
        return {"engine": model, "messages": request.messages}

    def read(self, content, request):
        return ChatReply(content["said"], input_tokens=content["read"])
'''
ASK = """\
import json, sys
from judges import LLMJudge
options = json.loads(sys.argv[1])
verdicts = LLMJudge("m", **options).verdicts(["p", "p"], ["aaa", "a"], ["b", "bb"])
print(json.dumps([verdicts.preference.tolist(), verdicts.status, verdicts.raw, LLMJudge("m", **options).fingerprint()]))
"""


def ask(site: Path, **options: object) -> list:
    paths = f"{site}:{Path(__file__).parents[1]}"
    done = subprocess.run(
        [sys.executable, "-c", ASK, json.dumps(options)],
        env={"PYTHONPATH": paths, "PATH": "", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return install(tmp_path / "site", "my-judge-parts", ENTRIES, MODULE)


def test_a_protocol_and_a_transport_of_another_package_work_by_their_entry_points(site: Path) -> None:
    preference, status, raw, one = ask(site, protocol="stars", transport="upper")
    assert (preference, status, raw) == ([1.0, 0.0], ["ok", "ok"], ["*** *", "* **"])
    preference, _, raw, two = ask(site, protocol="stars", transport={"name": "upper", "most": 1})
    assert (preference, raw) == ([0.5, 0.5], ["* *"] * 2)
    preference, _, _, three = ask(site, protocol={"name": "stars", "word": "Points"}, transport="upper")
    assert len({one, two, three}) == 3
    module = site / "my_judge_parts.py"
    module.write_text(module.read_text().replace("float(first > second)", "float(first < second)"))
    preference, _, _, edited = ask(site, protocol="stars", transport="upper")
    assert preference == [0.0, 1.0]
    assert edited != one  # the parser is in the judge's identity


def test_a_wire_of_another_package_is_retried_paced_and_kept_as_ours_are(site: Path, tmp_path: Path) -> None:
    def script(words: str, tries: int, body: dict) -> Act:
        assert body["engine"] == "m"
        return Act({}, 500) if tries == 1 else Act({"said": "** *", "read": 7})

    with ChatServer(script) as server:
        options = {"protocol": "stars", "transport": {"name": "wire", "base_url": server.url}}
        for _ in range(2):
            preference, status, _, _ = ask(site, **options, limits={"cache": str(tmp_path / "kept"), "max_retries": 1})
            assert (preference, status) == ([1.0, 1.0], ["ok", "ok"])
            assert server.total == 4


def test_a_flat_option_a_nested_one_and_an_object_make_the_same_judge() -> None:
    flat = LLMJudge("m", protocol="arena-hard", base_url="http://h/v1", max_tokens=7, concurrency=3)
    nested = LLMJudge(
        "m",
        protocol={"name": "arena-hard", "max_tokens": 7},
        transport={"name": "chat-completions", "base_url": "http://h/v1"},
        limits={"concurrency": 5},
    )
    parts = ArenaHardProtocol(max_tokens=7), ChatCompletions(base_url="http://h/v1"), Limits()
    made = LLMJudge("m", *parts[:1], transport=parts[1], limits=parts[2])
    assert flat.fingerprint() == nested.fingerprint() == made.fingerprint()
    assert flat.protocol == nested.protocol == made.protocol
    assert (flat.limits.concurrency, nested.limits.concurrency) == (3, 5)
    with pytest.raises(ValueError, match="max_tokens stands beside a protocol that is an object"):
        LLMJudge("m", parts[0], base_url="http://h/v1", max_tokens=3)


def test_a_protocol_that_needs_what_a_transport_does_not_give_is_refused_when_it_is_made() -> None:
    class Silent(ChatCompletions):
        gives = frozenset({"labels"})

    with pytest.raises(ValueError, match="reads the text of a reply, and Silent gives only its labels"):
        LLMJudge("m", "arena-hard", transport=Silent(base_url="http://h/v1"))
    with ChatServer(lambda *_: Act(completion("A", 0.75))) as server:
        judge = LLMJudge("m", transport=Silent(base_url=server.url))
        assert judge.compare(["p"], ["a"], ["b"]).tolist() == [0.75]
