"""A policy behind an endpoint through whole sweeps: what is asked, what is graded, what is refused, what is kept."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boards_world as world
import pandas as pd
import pytest
from chat_server import Act, ChatServer, completion
from conftest import WORDS, Ended, Workspace, check_refused

from harness.config import load_config
from harness.errors import UserError
from harness.planning.plan import make_plan
from harness.run.endpoints import judge_of
from harness.specs import ComponentSpec
from harness.store.integrity import file_hash

Command = Callable[..., Ended]

KEY = "sk-test-not-for-anyone"
JUDGE = {"name": "panel", "panel": "panel.yaml"}
BOARDS = {"head-to-head", "alpaca-eval", "arena-hard", "mt-bench"}


def answers(words: str, tries: int, body: dict[str, Any]) -> Act:
    """Four words of the panel's by the seed of the call; the first ones at temperature 0."""
    generator = random.Random(body["seed"])
    said = list(WORDS[:4]) if body["temperature"] == 0 else generator.choices(WORDS, k=4)
    return Act(completion(" ".join(said)))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    monkeypatch.setenv("MY_KEY", KEY)
    with ChatServer(answers) as running:
        yield running


def config(workspace: Workspace, server: ChatServer, /, **changes: Any) -> Path:
    policy = {"endpoint": server.url, "model": "org/served:1", "api_key_env": "MY_KEY", "max_retries": 0}
    return workspace.config(**({"policy": policy, "matrix": {"trainer": [], "judge": [JUDGE]}} | changes))


def boards(folder: Path) -> list[Any]:
    """The four leaderboards that ask for answers, on question sets over the panel's words."""
    said = [f"the {word} runs" for word in WORDS[:6]]
    alpaca = world.alpaca(folder, said).parent
    arena, mt = (
        world.arena(folder / "arena", said),
        world.mt_bench(folder / "mt", {81 + i: ["a cat", "a dog"] for i in range(2)}),
    )
    data = {"alpaca-eval": alpaca, "arena-hard": arena, "mt-bench": mt}
    return ["head-to-head", *({"name": name, "data": str(path)} for name, path in data.items())]


# --- a whole sweep -----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("inline")
def test_a_policy_behind_an_endpoint_is_rated_on_every_board_that_asks_for_answers(
    workspace: Workspace, nashbench: Command, server: ChatServer
) -> None:
    path = config(workspace, server, leaderboards=boards(workspace.folder), sampling={"k": 4, "max_tokens": 6})
    ended = nashbench(*workspace.arguments(path))
    assert ended.code == 0, ended.err
    results = pd.read_parquet(workspace.out / "results.parquet")
    assert set(results["policy"]) == {"served:1"}
    of = results.groupby("trainer")["leaderboard"].agg(set).to_dict()
    assert of == {"sft": BOARDS, "constant": BOARDS - {"mt-bench"}, "longest": BOARDS - {"mt-bench"}}
    assert results["value"].notna().all()
    assert (results["coverage"] == 1).all()
    dynamics = set(pd.read_parquet(workspace.out / "dynamics.parquet")["metric"])
    assert "answers/distinct_2" in dynamics
    assert not dynamics & {"answers/entropy", "answers/start_nll"}  # not known, so not there
    warnings = json.loads((workspace.out / "provenance.json").read_text())["warnings"]
    assert "behind an endpoint" in warnings[0]
    assert "no entropy" in warnings[0]
    check_calls(server)
    check_pages(nashbench, workspace)
    check_no_key(workspace.folder)


def check_calls(server: ChatServer) -> None:
    """Temperatures, numbers and turns are as the boards ask for them."""
    arena = [body for body in server.bodies if body["messages"][-1]["content"].startswith("question")]
    assert {body["temperature"] for body in arena} == {0, 1.0}  # Arena-Hard asks greedily, AlpacaEval samples
    second = [body for body in server.bodies if len(body["messages"]) > 1]
    assert [message["role"] for message in second[0]["messages"]] == ["user", "assistant", "user"]
    assert second[0]["messages"][0]["content"].startswith("first")
    assert {len(body["messages"][1]["content"].split()) for body in second} == {4}  # its own answer
    requests = Counter(json.dumps(body, sort_keys=True) for body in server.bodies)
    assert set(requests.values()) == {1}  # every answer is a request of its own


def check_pages(nashbench: Command, workspace: Workspace) -> None:
    assert nashbench("report", str(workspace.out)).code == 0
    page = (workspace.out / "report" / "index.html").read_text()
    assert "served:1" in page
    assert "Nothing is trained here" in page
    cells = json.loads(nashbench("status", str(workspace.out), "--json").out)
    assert {(cell["trainer"], cell["state"]) for cell in cells} == {
        (name, "done") for name in ("sft", "constant", "longest")
    }


def check_no_key(folder: Path) -> None:
    for file in folder.rglob("*"):
        assert not file.is_file() or KEY.encode() not in file.read_bytes(), file


@pytest.mark.usefixtures("inline")
def test_an_endpoint_stands_beside_a_policy_that_is_trained(
    workspace: Workspace, nashbench: Command, server: ChatServer
) -> None:
    policy = [str(workspace.model), {"endpoint": server.url, "model": "served"}]
    matrix = {"trainer": ["dpo"], "judge": [JUDGE]}
    path = config(workspace, server, policy=policy, matrix=matrix, exclude=[{"policy": "served"}])
    ended = nashbench(*workspace.arguments(path))
    assert ended.code == 0, ended.err
    results = pd.read_parquet(workspace.out / "results.parquet")
    trainers = results.groupby("policy")["trainer"].agg(set).to_dict()
    controls = {"sft", "constant", "longest"}
    assert trainers == {"served": controls, workspace.model.name: controls | {"dpo"}}


@pytest.mark.usefixtures("inline")
def test_a_checkpoint_is_evaluated_as_it_is_where_there_is_no_trainer(workspace: Workspace, nashbench: Command) -> None:
    ended = nashbench(*workspace.arguments(workspace.config(matrix={"judge": [JUDGE]})))
    assert ended.code == 0, ended.err
    assert set(pd.read_parquet(workspace.out / "results.parquet")["trainer"]) == {"sft", "constant", "longest"}


# --- failures ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("inline")
def test_a_call_that_fails_fails_its_cell_in_one_line_and_the_next_run_asks_only_what_is_missing(
    workspace: Workspace, nashbench: Command, server: ChatServer
) -> None:
    """A board that fails disturbs no other; answers that came are kept until their stage is whole."""
    down = True

    def script(words: str, tries: int, body: dict[str, Any]) -> Act:
        broken = words == "question 3" and down
        return Act({"error": {"message": KEY}}, status=500) if broken else answers(words, tries, body)

    server.script = script
    chosen = [board for board in boards(workspace.folder) if "mt" not in str(board)]
    policy = {"endpoint": server.url, "model": "served", "api_key_env": "MY_KEY", "max_retries": 0, "concurrency": 1}
    path = config(workspace, server, policy=policy, leaderboards=chosen)
    ended = nashbench(*workspace.arguments(path))
    assert ended.code == 1
    told = {cell["cell"]: cell["reason"] for cell in json.loads((workspace.out / "cells.json").read_text())}
    for part in ("alpaca-eval, answer", "policy 'served'", server.url, "prompt 'question 3': HTTP 500", "run again"):
        assert part in told["served~sft"]
    assert "\n" not in told["served~sft"]
    assert KEY not in ended.err + ended.out
    results = pd.read_parquet(workspace.out / "results.parquet")
    assert set(results[results["trainer"] == "sft"]["leaderboard"]) == {"head-to-head"}
    assert set(results[results["trainer"] == "constant"]["leaderboard"]) == BOARDS - {"mt-bench"}  # asks one question
    check_no_key(workspace.folder)
    down, before = False, server.calls.copy()
    assert nashbench(*workspace.arguments(path)).code == 0
    asked = server.calls - before
    assert asked["question 0"] == 0
    assert asked["question 4"] > 0
    assert not any((workspace.store / "unfinished").iterdir())


@pytest.mark.usefixtures("inline")
def test_answers_are_kept_until_they_are_in_the_store(
    workspace: Workspace, nashbench: Command, server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They were paid for: what fails after the last of them does not cost them."""
    arguments = workspace.arguments(config(workspace, server))

    def unstorable(path: Path) -> str:
        if path.name == "answers.parquet":
            raise UserError("the artifact cannot be stored")
        return file_hash(path)

    with monkeypatch.context() as patch:
        patch.setattr("harness.store.integrity.file_hash", unstorable)
        assert nashbench(*arguments).code == 1
    before = server.total
    assert before > 0
    assert nashbench(*arguments).code == 0
    assert server.total == before
    assert not any((workspace.store / "unfinished").iterdir())


# --- keys of artifacts -------------------------------------------------------------------------------------------


def answer_keys(path: Path) -> set[str]:
    return {stage.key for stage in make_plan(load_config(path)).stages if stage.kind == "answer"}


def test_an_answer_is_named_by_url_model_and_decoding_and_not_by_how_it_is_fetched(
    workspace: Workspace, server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = {"endpoint": "http://one/v1", "model": "m"}
    base = answer_keys(config(workspace, server, policy=one))
    for same in ({"concurrency": 2}, {"timeout": 3.0}, {"max_retries": 1}, {"api_key_env": "MY_KEY"}):
        assert answer_keys(config(workspace, server, policy=one | same)) == base
    monkeypatch.setenv("OPENAI_API_KEY", "another")
    assert answer_keys(config(workspace, server, policy=one)) == base
    for other in ({"endpoint": "http://two/v1"}, {"model": "n"}):
        assert not answer_keys(config(workspace, server, policy=one | other)) & base
    engine = {"sampling": {"k": 2, "max_tokens": 6, "batch_size": 3, "engine": "vllm"}}
    for same in (engine, {"training": {"precision": "bf16"}}, {"training": {"precision": "fp32"}}):
        assert answer_keys(config(workspace, server, policy=one, **same)) == base
    for sampling in ({"temperature": 0.5}, {"top_p": 0.5}, {"max_tokens": 7}):
        decoding = {"k": 2, "max_tokens": 6} | sampling
        assert not answer_keys(config(workspace, server, policy=one, sampling=decoding)) & base


def test_the_names_of_an_endpoint_are_never_paths(workspace: Workspace, server: ChatServer) -> None:
    (workspace.folder / "org").mkdir()
    policies = [{"endpoint": server.url, "model": "org"}, {"endpoint": server.url, "model": "./org.json"}]
    loaded = load_config(config(workspace, server, policy=policies))
    assert [str(policy) for policy in loaded.policy] == ["org", "./org.json"]


# --- refused before anything starts ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        (["matrix.trainer=[dpo]"], ["'dpo' cannot train", "'served:1'", "never trained", "leave matrix.trainer out"]),
        (["include=[{trainer: dpo}]"], ["include: 'dpo' cannot train", "never trained", "name another policy in it"]),
        (["include=[{seed: 1}]"], ["include: name a trainer"]),
        (["leaderboards=[{name: lm-eval, tasks: arc_easy}]"], ["lm-eval", "opens the checkpoint", "'org/served:1'"]),
        (["policy={endpoint: 'http://h/v1'}"], ["--set policy", "'policy.0.model' is missing"]),
        (["policy={model: x}"], ["'policy.0.endpoint' is missing"]),
        (["policy={endpoint: 'http://h/v1', modle: x}"], ["unknown key 'policy.0.modle'; did you mean 'model'?"]),
        (["policy={endpoint: 'http://h/v1', model: x, timout: 3}"], ["unknown key", "did you mean 'timeout'?"]),
        (["policy={endpoint: 'http://u:secret@h/v1', model: x}"], ["no user, password, query or fragment"]),
        (["policy={endpoint: 'http://h:secret/v1', model: x}"], ["a wrong host or port"]),
        (["policy={endpoint: h, model: x}"], ["must begin with http"]),
        (["policy={endpoint: 'http://h/v1', model: x, api_key_env: sk-secret}"], ["never a key itself"]),
        (["policy={endpoint: 'http://h/v1', model: x, api_key_env: NOT_SET}"], ["no API key", "NOT_SET"]),
        (["policy={endpoint: 'https://api.openai.com/v1', model: x}"], ["no API key", "OPENAI_API_KEY"]),
        (["policy={endpoint: 'http://h/v1', model: x, concurrency: 0}"], ["concurrency", "greater than or equal to 1"]),
        (["policy={endpoint: 'http://h/v1', model: ''}"], ["model", "at least 1 character"]),
        (["prompts=null"], ["prompts is missing", "'org/served:1'"]),
    ],
)
def test_what_an_endpoint_cannot_do_is_refused_in_one_line_without_a_call(
    workspace: Workspace,
    nashbench: Command,
    server: ChatServer,
    monkeypatch: pytest.MonkeyPatch,
    settings: list[str],
    parts: list[str],
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    overrides = [part for setting in settings for part in ("--set", setting)]
    ended = nashbench(*workspace.arguments(config(workspace, server)), *overrides)
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1), ended.err
    for part in parts:
        assert part in ended.err
    assert "secret" not in ended.err
    assert not workspace.out.exists()
    assert server.total == 0


def test_a_plan_asks_nothing_of_an_endpoint(workspace: Workspace, nashbench: Command, server: ChatServer) -> None:
    ended = nashbench("plan", str(config(workspace, server)), "--store", str(workspace.store), "--json")
    assert ended.code == 0
    cells = [cell["cell"] for cell in json.loads(ended.out)["cells"]]
    for id, name in zip(cells, ("sft", "constant", "longest"), strict=True):
        assert id.startswith(f"served_1~{name}~")  # and a hash, since the colon is none of a file's name
    assert server.total == 0


# --- asked once before anything starts ---------------------------------------------------------------------------


def test_a_server_that_is_not_there_is_warned_of_and_costs_only_what_asks_it(
    workspace: Workspace, nashbench: Command
) -> None:
    with ChatServer(answers) as gone:
        grader = {"name": "llm", "model": "served", "base_url": gone.url, "max_retries": 0}
    panel = {"name": "panel", "panel": str(workspace.folder / "panel.yaml")}
    path = workspace.config(graders=[panel, {"name": "ensemble", "judges": [[panel, grader]]}])
    ended = nashbench(*workspace.arguments(path))
    assert ended.code == 1
    assert f"no connection to {gone.url} for 'served' (" in ended.err
    assert set(pd.read_parquet(workspace.out / "results.parquet").grader) == {"panel"}


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (401, "takes no such key for 'org/served:1'; put a valid one into the environment variable MY_KEY"),
        (403, "takes no such key for 'org/served:1'"),
        (404, "has no model 'org/served:1' or no chat (HTTP 404); correct the model or the URL"),
    ],
)
def test_a_wrong_key_or_model_is_told_before_anything_starts_and_no_key_is_shown(
    workspace: Workspace, nashbench: Command, server: ChatServer, status: int, told: str
) -> None:
    server.hello = Act({"error": {"message": f"wrong {KEY}"}}, status=status)
    ended = nashbench(*workspace.arguments(config(workspace, server)))
    check_refused(ended, f"{server.url} {told}")
    assert KEY not in ended.err
    assert not workspace.out.exists()
    assert not workspace.store.exists()
    assert (server.greetings, server.total) == (1, 0)


def test_a_key_that_no_header_can_carry_is_told_before_anything_starts(
    workspace: Workspace, nashbench: Command, server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "sk-t\xe4st")
    ended = nashbench(*workspace.arguments(config(workspace, server)))
    check_refused(ended, "put a valid one into the environment variable MY_KEY")
    assert "t\xe4st" not in ended.err


@pytest.mark.usefixtures("inline")
@pytest.mark.parametrize(
    "hello",
    [Act("[]"), Act("<html>"), Act("", status=500), Act("", status=429), Act(reset=True)],
    ids=["no chat completion", "no JSON", "broken", "busy", "hangs up"],
)
def test_any_other_greeting_stops_nothing_and_there_is_one_only_while_something_is_missing(
    workspace: Workspace, nashbench: Command, server: ChatServer, hello: Act
) -> None:
    server.hello = hello
    arguments = workspace.arguments(config(workspace, server))
    assert nashbench(*arguments).code == 0
    before = server.total
    assert nashbench(*arguments).code == 0
    assert (server.greetings, server.total) == (1, before)


def test_endpoints_are_found_wherever_judges_stand_in_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    inner = {"name": "llm", "model": "a", "base_url": "http://one/v1", "api_key_env": "KEY"}
    nested = {"name": "ensemble", "judges": [{"name": "ensemble", "judges": [inner, inner]}, inner]}
    official = {"model": "b", "transport": "chat-completions"}
    given = {"ensemble": {"judges": [nested, {"name": "llm", **official}]}, "llm": official}
    specs = [ComponentSpec("judges", name, options, name, None) for name, options in given.items()]
    judges = [judge for spec in specs if (judge := judge_of(spec))]
    found = {(each.url, model, each.api_key_env) for judge in judges for model, each in judge.endpoints()}
    assert found == {("http://one/v1", "a", "KEY"), ("https://api.openai.com/v1", "b", "OPENAI_API_KEY")}


def test_a_plan_and_a_sweep_tell_when_a_hosted_judge_is_shut_down(
    workspace: Workspace, nashbench: Command, server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    arguments = workspace.arguments(config(workspace, server))
    official = "graders=[{name: llm, model: gpt-4-1106-preview, transport: chat-completions, protocol: arena-hard}]"
    ended = nashbench("plan", *arguments[1:2], "--set", official)
    told = "the judge gpt-4-1106-preview was shut down on 2026-10-23 (published successor: gpt-5.6-sol); scores under"
    assert ended.code == 0, ended.err
    assert told in ended.out
