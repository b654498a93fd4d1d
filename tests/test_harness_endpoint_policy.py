"""Answers from an OpenAI-compatible endpoint: their law, their number, and what becomes of calls that fail."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from chat_server import Act, ChatServer, completion
from conftest import WORDS
from transformers_serve import serving

from harness.endpoint_policy import PassingError, read_choice, sample_texts
from judges.transports import endpoint as client
from trainers.engines.engine import Decoding
from trainers.engines.randomness import response_seeds
from trainers.options import Endpoint, Sampling
from trainers.policies.causal_lm import CausalLM

KEY = "sk-test-not/for-anyone"
ECHO = json.dumps(KEY).replace("/", "\\/").replace("s", "\\u0073")  # the key as JSON may spell it too
LAW = {"red": {"cat": 0.7, "dog": 0.3}, "blue": {"cat": 0.2, "dog": 0.8}}
FIRST = {"red": 0.6, "blue": 0.4}
CRITICAL = 16.27  # of chi-square with 3 degrees of freedom at 0.001


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def choices(*texts: str | None, end: str | None = "stop") -> dict[str, Any]:
    made = completion()
    one = made["choices"][0]
    said = [{**one, "message": {"role": "assistant", "content": t}, "finish_reason": end} for t in texts]
    return {**made, "choices": said}


def drawn(body: dict[str, Any], number: int) -> str:
    """Two tokens from the known law, or the likeliest, by the seed of a call."""
    generator = random.Random(f"{body['seed']}.{number}")
    said: list[str] = []
    for law in (FIRST, LAW):
        probs: Any = law[said[-1]] if said else law
        best = max(probs, key=probs.get)
        said.append(best if body["temperature"] == 0 else generator.choices(list(probs), list(probs.values()))[0])
    return " ".join(said)


def draw(
    server: ChatServer,
    prompts: Sequence[str],
    received: Path,
    k: int = 1,
    *,
    decoding: Decoding | None = None,
    seed: int = 0,
    report: Callable[[int, int], None] = lambda done, total: None,
    **options: Any,
) -> list[list[Any]]:
    endpoint = Endpoint(endpoint=server.url, model="m", **({"max_retries": 0} | options))
    asked = [[{"role": "user", "content": prompt}] for prompt in prompts]
    seeds = response_seeds(seed, prompts)
    return sample_texts(endpoint, asked, k, decoding or Decoding(max_tokens=6), seeds, received, report)


# --- what is drawn -----------------------------------------------------------------------------------------------


def test_answers_follow_the_servers_law_each_by_a_call_and_a_seed_of_its_own(tmp_path: Path) -> None:
    def script(words: str, tries: int, body: dict[str, Any]) -> Act:
        assert body["temperature"] == 1
        return Act(choices(drawn(body, 0)))

    with ChatServer(script) as server:
        answered = draw(server, [f"p{i}" for i in range(250)], tmp_path, k=4)
    counts = Counter(response.text for row in answered for response in row)
    law = {f"{a} {b}": FIRST[a] * p for a in FIRST for b, p in LAW[a].items()}
    assert set(counts) == set(law)
    assert sum((counts[text] - 1000 * p) ** 2 / (1000 * p) for text, p in law.items()) < CRITICAL
    assert len({body["seed"] for body in server.bodies}) == server.total == 1000


def test_an_answer_is_the_same_however_many_are_asked_for_and_in_whatever_order(tmp_path: Path) -> None:
    prompts = [f"p{i}" for i in range(20)]
    with ChatServer(lambda words, tries, body: Act(choices(str(body["seed"])))) as server:
        few, many = draw(server, prompts, tmp_path / "few", k=2), draw(server, prompts, tmp_path / "many", k=5)
        assert few == [row[:2] for row in many]
        assert draw(server, prompts[::-1], tmp_path / "turned", k=2, concurrency=1) == few[::-1]
        calls = server.total
        assert draw(server, prompts, tmp_path / "few", k=5) == many
        assert server.total == calls + 20 * 3  # what came is not asked again
    assert {seed in range(2**31) for body in server.bodies for seed in [body["seed"]]} == {True}


def test_the_seed_decides_what_is_drawn_and_temperature_zero_takes_the_likeliest(tmp_path: Path) -> None:
    with ChatServer(lambda words, tries, body: Act(choices(drawn(body, 0)))) as server:
        prompts = [f"p{i}" for i in range(40)]
        one, same, other = (
            [row[0].text for row in draw(server, prompts, tmp_path / f"{i}", seed=seed)]
            for i, seed in enumerate((0, 0, 1))
        )
        greedy = draw(server, prompts, tmp_path / "greedy", decoding=Decoding(max_tokens=6, temperature=0, top_p=0.5))
    assert one == same != other
    assert {row[0].text for row in greedy} == {"red cat"}
    assert "top_p" not in server.bodies[-1]


def test_a_call_holds_the_conversation_and_the_decoding_and_an_answer_its_text_and_its_end(tmp_path: Path) -> None:
    ends = iter(["stop", "length"])
    told: list[tuple[int, int]] = []
    with ChatServer(lambda *_: Act(choices("a cat", end=next(ends)))) as server:
        decoding = Decoding(max_tokens=6, temperature=0.7, top_p=0.9)
        keep = lambda done, total: told.append((done, total))  # noqa: E731
        answered = draw(server, ["p", "q"], tmp_path, decoding=decoding, concurrency=1, report=keep)
    body = server.bodies[0]
    assert body["seed"] in range(2**31)
    assert {name: value for name, value in body.items() if name != "seed"} == {
        "model": "m",
        "messages": [{"role": "user", "content": "p"}],
        "max_tokens": 6,
        "temperature": 0.7,
        "top_p": 0.9,
    }
    assert f"authorization: bearer {KEY}" in server.headers[0].lower()
    assert [(r.text, r.tokens, r.finished) for row in answered for r in row] == [
        ("a cat", [], True),
        ("a cat", [], False),
    ]
    assert told == [(1, 2), (2, 2)]


def test_as_many_calls_are_in_flight_as_allowed_and_answers_keep_their_order(tmp_path: Path) -> None:
    with ChatServer(lambda words, tries, body: Act(choices(words), delay=0.02 if words == "p0" else 0.01)) as server:
        answered = draw(server, [f"p{i}" for i in range(12)], tmp_path, concurrency=3)
    assert [row[0].text for row in answered] == [f"p{i}" for i in range(12)]
    assert server.most == 3


# --- failures ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("act", "parts"),
    [
        (Act({"error": KEY}, status=500), ["HTTP 500", "log"]),
        (Act({"error": KEY}, status=401), ["HTTP 401", "OPENAI_API_KEY"]),
        (Act({}, status=404), ["HTTP 404", "endpoint and model"]),
        (
            Act(f"no room \x1b[31m\n{KEY}" + 300 * "!", status=400),
            ["HTTP 400 ('no room \\x1b[31m\\n[key]!!", "its context"],
        ),
        (Act(f'{{"error": {{"message": {ECHO}}}}}', status=422), ["HTTP 422", "{'message': '[key]'}"]),
        (Act({}, status=429), ["HTTP 429", "concurrency"]),
        (Act("{", status=200), ["the reply is no chat completion"]),
        (Act([1, 2]), ["the reply is no chat completion"]),
        (Act({"choices": 3}), ["the reply is no chat completion"]),
        (Act({"choices": [{"message": {}}]}), ["the reply is no chat completion"]),
        (Act(choices(3)), ["the reply is no chat completion"]),  # type: ignore[arg-type]
        (Act(choices()), ["without choices"]),
        (Act(reset=True), ["no connection"]),
        (Act(choices("late"), delay=1.0), ["no answer within 0.2 s"]),
    ],
)
def test_a_call_that_fails_is_one_line_without_the_key_that_says_where_what_and_what_to_do(
    tmp_path: Path, act: Act, parts: list[str]
) -> None:
    with ChatServer(lambda *_: act) as server, pytest.raises(ValueError, match="run again") as caught:
        draw(server, ["p"], tmp_path, timeout=0.2)
    told = str(caught.value)
    for part in [f"policy 'm' at {server.url}: prompt 'p': ", *parts]:
        assert part in told
    assert "\n" not in told
    assert KEY not in told
    assert ECHO.strip('"') not in told


@pytest.mark.parametrize(
    ("key", "prompt", "part"),
    [
        ("sk-täst-not-for-anyone", "p", "not ASCII; put a valid key into the environment variable OPENAI_API_KEY"),
        (KEY, "half \ud83d", r"prompt 'half \ud83d': the prompt holds half a surrogate pair"),
    ],
)
def test_a_key_or_a_prompt_that_no_call_can_carry_is_told_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, prompt: str, part: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with ChatServer(lambda *_: Act(choices("a cat"))) as server, pytest.raises(ValueError, match="run again") as caught:
        draw(server, [prompt], tmp_path)
    assert part in str(caught.value)
    assert key not in str(caught.value)
    assert server.total == 0


def test_a_key_is_sent_without_the_newline_of_the_file_it_came_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\n")
    with ChatServer(lambda *_: Act(choices(f"it is {KEY}"))) as server:
        assert draw(server, ["p"], tmp_path)[0][0].text == "it is [key]"
    assert f"bearer {KEY}\r\n" in server.headers[0].lower()


@pytest.mark.parametrize("official", [True, False])
def test_the_users_organisation_and_project_are_named_to_openai_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, official: bool
) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "our-organisation")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "our-project")
    with ChatServer(lambda *_: Act(choices("a cat"))) as server:
        if official:
            monkeypatch.setattr("judges.transports.address.OPENAI", server.url)
        draw(server, ["p"], tmp_path)
    assert ("our-organisation" in server.headers[0], "our-project" in server.headers[0]) == (official, official)
    assert ("openai-project" in server.headers[0].lower()) == official


def test_a_call_is_tried_again_as_often_as_allowed(tmp_path: Path) -> None:
    def script(words: str, tries: int, body: dict[str, Any]) -> Act:
        return Act({}, status=500, headers={"retry-after-ms": "1"}) if tries < 3 else Act(choices("a cat"))

    with ChatServer(script) as server:
        assert draw(server, ["p"], tmp_path, max_retries=2)[0][0].text == "a cat"
        with pytest.raises(ValueError, match="HTTP 500"):
            draw(server, ["q"], tmp_path, max_retries=1)
    assert server.calls == {"p": 3, "q": 2}


def test_what_came_before_a_failure_is_not_asked_again_and_is_what_an_unbroken_run_has(tmp_path: Path) -> None:
    down = True

    def script(words: str, tries: int, body: dict[str, Any]) -> Act:
        if down and words in ("p5", "p6"):
            return Act({}, status=500)
        return Act(choices(drawn(body, 0)))

    prompts = [f"p{i}" for i in range(10)]
    with ChatServer(script) as server:
        with pytest.raises(ValueError, match="prompt 'p5': HTTP 500"):
            draw(server, prompts, tmp_path / "broken", k=2, concurrency=1)
        assert server.calls == {f"p{i}": 2 for i in range(5)} | {"p5": 1}
        file = tmp_path / "broken" / "answers.jsonl"
        file.write_text(file.read_text() + '\n["half a li')  # as a process leaves it that was killed
        down = False
        again = draw(server, prompts, tmp_path / "broken", k=2, concurrency=1)
        assert server.calls == {f"p{i}": 2 for i in range(10)} | {"p5": 3}
        assert again == draw(server, prompts, tmp_path / "broken", k=2)
        assert server.total == 21
        assert again == draw(server, prompts, tmp_path / "whole", k=2)


def test_after_a_failure_answers_in_flight_are_waited_for_and_kept(tmp_path: Path) -> None:
    def script(words: str, tries: int, body: dict[str, Any]) -> Act:
        return Act({}, status=500) if words == "bad" else Act(choices("a cat"), delay=0.1)

    with ChatServer(script) as server:
        with pytest.raises(ValueError, match="prompt 'bad'"):
            draw(server, ["bad", *(f"p{i}" for i in range(8))], tmp_path, concurrency=3)
        assert server.total == 3  # none is asked once one has failed
    assert [json.loads(line)[1:] for line in (tmp_path / "answers.jsonl").read_text().split("\n") if line] == [
        ["a cat", "stop"],
        ["a cat", "stop"],
    ]


def test_answers_that_two_processes_asked_for_at_once_count_once(tmp_path: Path) -> None:
    """Each asked with the same seeds, so that the second one's answers are the first one's over again."""

    def kept(name: str, k: int) -> str:
        draw(server, ["p"], tmp_path / name, k=k)
        return (tmp_path / name / "answers.jsonl").read_text()

    with ChatServer(lambda words, tries, body: Act(choices(str(body["seed"])))) as server:
        (tmp_path / "both").mkdir()
        (tmp_path / "both" / "answers.jsonl").write_text(kept("one", 2) + kept("other", 2))
        assert draw(server, ["p"], tmp_path / "both", k=4) == draw(server, ["p"], tmp_path / "whole", k=4)
    assert len({body["seed"] for body in server.bodies}) == 4


# --- replies -----------------------------------------------------------------------------------------------------


def test_a_refusal_is_its_words_and_an_answer_without_content_is_empty() -> None:
    said = {"choices": [{"message": {"content": None, "refusal": "no"}, "finish_reason": "stop"}]}
    assert read_choice(json.dumps(said)) == ("no", "stop")
    assert read_choice(json.dumps(choices(None, end="content_filter"))) == ("", "content_filter")
    assert read_choice(json.dumps(choices("", "second", end=None))) == ("", "")


def test_content_in_parts_is_joined_and_an_error_inside_a_reply_is_none() -> None:
    parts = [{"type": "thinking", "thinking": []}, {"type": "text", "text": "a "}, {"type": "text", "text": "cat"}]
    assert read_choice(json.dumps(choices(parts))) == ("a cat", "stop")  # type: ignore[arg-type]
    with pytest.raises(PassingError, match="the endpoint reports rate-limit"):
        read_choice(json.dumps({"error": {"message": "Provider returned error", "code": 429}}))
    with pytest.raises(PassingError, match="ended its answer by an error"):
        read_choice(json.dumps(choices("part of", end="error")))
    with pytest.raises(ValueError, match="the endpoint reports http-400: too long"):
        read_choice(json.dumps({"error": {"message": "too long", "code": 400}}))


def test_a_passing_error_inside_a_reply_is_tried_again_as_any(tmp_path: Path) -> None:
    def script(words: str, tries: int, body: dict[str, Any]) -> Act:
        return Act({"error": {"code": 502}}) if tries == 1 else Act(choices("a cat"))

    with ChatServer(script) as server:
        assert draw(server, ["p"], tmp_path, max_retries=1)[0][0].text == "a cat"
        with pytest.raises(ValueError, match="prompt 'q': the endpoint reports http-502"):
            draw(server, ["q"], tmp_path)


def test_an_argument_that_the_model_refuses_is_left_out_and_its_limit_goes_by_its_other_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "_REFUSED", {})

    def script(words: str, tries: int, body: dict[str, Any]) -> Act:
        for name, why in (("max_tokens", "is not supported"), ("temperature", "must be 1"), ("seed", "is unknown")):
            if name in body:
                return Act({"error": {"message": f"{name} {why}", "param": name}}, status=400)
        return Act(choices(f"a cat of {body['max_completion_tokens']}"))

    with ChatServer(script) as server:
        decoding = Decoding(max_tokens=6, temperature=0.5)
        answered = draw(server, ["p", "q"], tmp_path, decoding=decoding, concurrency=1)
    assert [row[0].text for row in answered] == ["a cat of 6"] * 2
    assert server.calls == {"p": 4, "q": 1}


def test_hostile_text_comes_through_as_text_that_can_be_stored_and_an_echoed_key_does_not(tmp_path: Path) -> None:
    hostile = '</script>\x00\x1b[31m [[A>>B]] \u202e 名前 \u2028 \\ "'
    reply = json.dumps(choices(hostile + KEY + "\ud800 ECHO", end=KEY)).replace("ECHO", ECHO.strip('"'))
    with ChatServer(lambda *_: Act(reply)) as server:
        ((answer,),) = draw(server, ["p"], tmp_path)
    assert answer.text == hostile + "[key]? [key]"
    assert KEY not in (tmp_path / "answers.jsonl").read_text()
    with ChatServer(lambda *_: Act({}, status=500)) as server:  # from what was kept, as it was
        assert [r.text for r in draw(server, ["p"], tmp_path)[0]] == [answer.text]


# --- a real server -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_real_servers_greedy_answers_are_the_engines_own_and_its_sampled_ones_vary(
    tmp_path: Path, tiny_chat_model: Path
) -> None:
    """`transformers serve` renders the chat and decodes by itself. It draws only where the checkpoint says
    `do_sample`.
    """
    questions = [f"the {a} {b}" for a in WORDS[:4] for b in WORDS[5:8]]
    prompts = [[{"role": "user", "content": question}] for question in questions]
    policy = CausalLM.load(tiny_chat_model)
    greedy = Sampling(max_tokens=6, top_p=1e-6)
    own = policy.sample([policy.encode(p) for p in prompts], 1, greedy, response_seeds(0, range(len(prompts))))
    policy.model.generation_config.do_sample = True
    policy.save(tmp_path / "served")
    with serving(tmp_path / "served") as url:
        endpoint, silent = Endpoint(endpoint=url, model=str(tmp_path / "served"), concurrency=2), lambda *_: None
        for temperature, k in ((0.0, 1), (1.0, 3)):
            decoding = Decoding(max_tokens=6, temperature=temperature)
            said = sample_texts(endpoint, prompts, k, decoding, response_seeds(0, questions), tmp_path / "kept", silent)
            assert {len(row) for row in said} == {k}
            if k == 1:
                assert [row[0].text for row in said] == [row[0].text for row in own]
    assert len({response.text for row in said for response in row}) > len(prompts)


# --- options -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "fact"),
    [
        ({"endpoint": "http://u:secret@h/v1"}, "no user, password, query or fragment"),
        ({"endpoint": "https://h/v1?key=secret"}, "no user, password, query or fragment"),
        ({"endpoint": "https://h/v1#secret"}, "no user, password, query or fragment"),
        ({"endpoint": "http://u:sec/ret@h/v1"}, "a wrong host or port"),
        ({"endpoint": "http://h:70000/v1"}, "a wrong host or port"),
        ({"endpoint": "http://[h/v1"}, "a wrong host or port"),
        ({"endpoint": "h/secret"}, "must begin with http"),
        ({"api_key_env": "sk-secret"}, "never a key itself"),
        ({"api_key_env": "AIzaSyD1secret"}, "never a key itself"),
    ],
)
def test_options_that_hold_a_secret_or_no_url_are_refused(options: dict[str, str], fact: str) -> None:
    with pytest.raises(ValueError, match=fact):
        Endpoint(**({"endpoint": "http://h/v1", "model": "m"} | options))  # type: ignore[arg-type]
