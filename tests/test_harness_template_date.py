"""Chat templates that write the date, and those that refuse a system turn."""

from __future__ import annotations

import datetime
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Ended, Workspace, check_refused

from harness.components import base_policy
from harness.template_date import FILE
from trainers.errors import TrainingError
from trainers.policies.causal_lm import CausalLM

TURNS = "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {% endfor %}"
DATED = "the {{ strftime_now('%Y %m %d') }} " + TURNS
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system turn here') }}{% endif %}" + TURNS
SYSTEM = [{"role": "system", "content": "red"}, {"role": "user", "content": "blue"}]


def with_template(tiny_model: Path, folder: Path, template: str) -> Path:
    shutil.copytree(tiny_model, folder)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": template}))
    return folder


@pytest.fixture
def dated(workspace: Workspace, tiny_model: Path) -> Workspace:
    with_template(tiny_model, workspace.folder / "dated", DATED)
    return workspace


def sweep(workspace: Workspace, nashbench: Callable[..., Ended], *more: str, **changes: Any) -> Ended:
    config = workspace.config(**{"policy": "./dated"} | changes)
    return nashbench(*workspace.arguments(config, *more))


def test_a_store_writes_the_day_on_which_it_first_rendered_a_template_and_goes_on_with_it(
    dated: Workspace, nashbench: Callable[..., Ended]
) -> None:
    ended = nashbench("plan", str(dated.config(policy="./dated")), "--store", str(dated.store))
    assert ended.code == 0
    assert not (dated.store / FILE).exists()  # a plan writes nothing
    assert sweep(dated, nashbench).code == 0
    assert (dated.store / FILE).read_text() == datetime.date.today().isoformat()
    again = nashbench("plan", str(dated.config(policy="./dated")), "--store", str(dated.store), "--json")
    assert json.loads(again.out)["totals"]["missing"] == 0
    (dated.store / FILE).write_text("2026-01-02")  # a store of another day
    assert (
        json.loads(nashbench("plan", str(dated.config(policy="./dated")), "--store", str(dated.store), "--json").out)[
            "totals"
        ]["done"]
        == 0
    )
    assert sweep(dated, nashbench).code == 0
    assert "template_date: '2026-01-02'" in (dated.out / "config.yaml").read_text()


def test_the_date_that_a_config_gives_is_written_and_in_the_key_of_dated_templates_alone(
    dated: Workspace, tiny_model: Path, nashbench: Callable[..., Ended]
) -> None:
    assert base_policy(str(dated.folder / "dated"), "2025-05-06").template_date == "2025-05-06"
    assert base_policy(str(tiny_model), "2025-05-06").template_date == ""
    policy = CausalLM.load(dated.folder / "dated")
    policy.template_date = "2025-05-06"
    expected = policy.tokenizer("the 2025 05 06 user red", add_special_tokens=False)["input_ids"]
    assert policy.encode("red")[: len(expected)] == expected
    check_refused(sweep(dated, nashbench, template_date="6 May"), "template_date: must be a date such as 2026-11-27")


def test_the_text_of_a_system_turn_that_a_template_refuses_stands_before_the_users(
    tiny_model: Path, tmp_path: Path
) -> None:
    policy = CausalLM.load(with_template(tiny_model, tmp_path / "policy", NO_SYSTEM))
    assert policy.encode(SYSTEM) == policy.encode([{"role": "user", "content": "red\n\nblue"}])
    assert any("no system turn" in note for note in policy.notes)
    with pytest.raises(TrainingError, match="refuses the prompt: no system turn here"):
        policy.encode([*SYSTEM[:1], {"role": "assistant", "content": "x"}])


def test_a_prompt_that_a_template_refuses_ends_the_sweep_with_its_id(
    workspace: Workspace, tiny_model: Path, nashbench: Callable[..., Ended]
) -> None:
    template = "{% if messages | length > 2 %}{{ raise_exception('at most two turns') }}{% endif %}" + TURNS
    with_template(tiny_model, workspace.folder / "dated", template)
    chat = [{"role": "user", "content": "red"}, {"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}]
    lines = [{"prompt": f"the {i}", "id": f"p{i}"} for i in range(5)] + [{"prompt": chat, "id": "long"}]
    workspace.write("prompts.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    ended = sweep(workspace, nashbench)
    assert ended.code == 2
    assert "prompt 'long': the chat template of" in ended.err
    assert "at most two turns" in ended.err
