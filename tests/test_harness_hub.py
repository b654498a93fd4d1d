"""Policies by their names on a hub: the commit is in the key, and the cache serves where there is no connection."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Workspace
from hub_server import Hub

ROOT = Path(__file__).resolve().parents[1]
REPO = "org/tiny"


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as served:
        yield served


class Client:
    """The command line in a process of its own, with a cache of its own."""

    def __init__(self, workspace: Workspace, url: str) -> None:
        self.workspace, self.url = workspace, url

    def __call__(self, *arguments: str, offline: bool = False) -> subprocess.CompletedProcess[str]:
        env = os.environ | {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(self.workspace.folder / "cache"),
            "HF_TOKEN": "t0ken",
        }
        env |= {"HF_HUB_OFFLINE": "1"} if offline else {"HF_HUB_OFFLINE": "0"}
        env |= {"PYTHONPATH": str(ROOT), "HF_HUB_DISABLE_XET": "1", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "harness", *arguments]
        return subprocess.run(command, env=env, cwd=self.workspace.folder, capture_output=True, text=True)

    def plan(self, policy: str, **how: Any) -> dict[str, Any]:
        config = self.workspace.config(policy=policy)
        ended = self("plan", str(config), "--store", "store", "--json", **how)
        assert ended.returncode == 0, ended.stderr
        planned: dict[str, Any] = json.loads(ended.stdout)
        keys = {stage["key"] for stage in planned["stages"] if stage["kind"] != "compare"}  # which has cells' names
        return planned | {"keys": keys, "err": ended.stderr}

    def refusal(self, policy: str, command: str = "plan", **how: Any) -> str:
        ended = self(command, str(self.workspace.config(policy=policy)), "--store", "store", **how)
        assert ended.returncode == 2, ended.stdout + ended.stderr
        assert "Traceback" not in ended.stderr
        assert "t0ken" not in ended.stderr
        return ended.stderr


@pytest.fixture
def client(workspace: Workspace, hub: Hub) -> Client:
    return Client(workspace, hub.url)


def test_a_sweep_runs_from_a_name_and_again_from_the_cache_without_a_connection(
    client: Client, hub: Hub, tiny_model: Path
) -> None:
    commit = hub.push(REPO, tiny_model)
    arguments = ["sweep", str(client.workspace.config(policy=REPO)), "--store", "store", "--out", "out", "--jobs", "1"]
    ended = client(*arguments)
    assert ended.returncode == 0, ended.stderr
    assert commit in (client.workspace.out / "provenance.json").read_text()
    again = client(*arguments, offline=True)
    assert again.returncode == 0, again.stderr
    assert "0 stages executed" in again.stderr


def test_a_branch_that_moved_is_another_policy_and_told_and_the_same_commit_is_the_same_by_any_name(
    client: Client, hub: Hub, tiny_model: Path, other_model: Path, tmp_path: Path
) -> None:
    first = hub.push(REPO, tiny_model)
    before = client.plan(REPO)
    assert client.plan(f"{REPO}@{first}")["keys"] == before["keys"]
    cached = tmp_path / "cache" / "hub" / "models--org--tiny" / "refs"
    cached.mkdir(parents=True)
    (cached / "main").write_text(first)
    second = hub.push(REPO, other_model)
    after = client.plan(REPO)
    assert not after["keys"] & before["keys"]
    assert f"{REPO}@main has moved from {first[:7]} to {second[:7]}" in after["err"]
    assert client.plan(f"{REPO}@{first}")["keys"] == before["keys"]
    assert client.plan(REPO, offline=True)["keys"] == before["keys"]  # what the cache has


def test_a_sharded_model_is_fetched_whole_and_half_a_download_is_told(
    client: Client, hub: Hub, tiny_model: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    sharded = tmp_path / "sharded"
    AutoModelForCausalLM.from_pretrained(tiny_model).save_pretrained(sharded, max_shard_size="4KB")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_model / name, sharded)
    shards = sorted(path.name for path in sharded.glob("*.safetensors"))
    assert len(shards) > 1
    commit = hub.push(REPO, sharded)
    ended = client(
        "sweep", str(client.workspace.config(policy=REPO)), "--store", "store", "--out", "out", "--jobs", "1"
    )
    assert ended.returncode == 0, ended.stderr
    snapshot = tmp_path / "cache" / "hub" / "models--org--tiny" / "snapshots" / commit
    (snapshot / shards[-1]).unlink()
    shutil.rmtree(tmp_path / "store")
    said = client.refusal(REPO, "sweep", offline=True)
    assert f"policy {REPO}@main" in said
    assert "is not in the cache" in said


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        ("org/none", "the hub has no such model, or it is private; set the environment variable HF_TOKEN"),
        (f"{REPO}@v9", "the hub has no revision 'v9' of it"),
        (f"{REPO}@{'0' * 40}", "the hub has no revision"),
    ],
)
def test_what_is_not_there_is_refused_when_planned(
    client: Client, hub: Hub, tiny_model: Path, policy: str, reason: str
) -> None:
    hub.push(REPO, tiny_model)
    assert reason in client.refusal(policy)


def test_a_gated_model_says_what_to_do_and_never_the_token(client: Client, hub: Hub, tiny_model: Path) -> None:
    hub.push(REPO, tiny_model)
    hub.gated.add(REPO)
    said = client.refusal(REPO, "sweep")
    assert f"policy {REPO} is gated: accept its terms on its page, and set the environment variable HF_TOKEN" in said


def test_without_connection_and_cache_there_is_one_message(client: Client, hub: Hub, tiny_model: Path) -> None:
    assert f"policy {REPO}@main is not in the cache, and the hub cannot be reached" in client.refusal(
        REPO, offline=True
    )
    hub.push(REPO, tiny_model)
    client.url = "http://127.0.0.1:9"  # nobody is there
    assert f"policy {REPO}@main is not in the cache, and the hub cannot be reached" in client.refusal(REPO)
