"""Prompts as users' files have them: what is read, what is refused, and by which place."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Ended, Workspace, check_refused

from harness.prompts import read_prompts

PANEL = {"name": "panel", "panel": "panel.yaml"}


def written(folder: Path, *prompts: Any) -> str:
    path = folder / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
    return str(path)


def chat(*turns: tuple[str, Any]) -> list[dict[str, Any]]:
    return [{"role": role, "content": content} for role, content in turns]


def text(words: Any) -> dict[str, Any]:
    return {"type": "text", "text": words}


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        (chat(("user", "q"), ("assistant", "the answer is")), "ends with a turn of the assistant"),
        (chat(("system", "be brief")), "ends with a turn of the system"),
        (chat(("user", [{"type": "image_url", "image_url": "x"}])), "'image_url'"),
        (chat(("user", [text("q"), "r"])), "'r'"),
        (chat(("user", [])), "nothing in it"),
        (chat(("user", [text(3)])), "'text': 3"),
        (chat(("user", None)), "must be a text or a list"),
        ([], "must be a text or a list"),
        (" ", "must be a text or a list"),
    ],
)
def test_a_prompt_that_leaves_nothing_to_answer_is_refused_by_file_and_line(
    tmp_path: Path, prompt: Any, reason: str
) -> None:
    source = written(tmp_path, "good", prompt)
    with pytest.raises(ValueError, match=r"prompts\.jsonl:2: ") as caught:
        read_prompts(source, 0)
    assert reason in str(caught.value)


def test_parts_of_text_are_joined_and_half_characters_are_marked(tmp_path: Path) -> None:
    source = written(tmp_path, chat(("system", "s"), ("user", [text("a "), text("b")])), "c \ud83d d", "e")
    assert {record.id: record.prompt for record in read_prompts(source, 0)} == {
        "1": chat(("system", "s"), ("user", "a b")),
        "2": "c \N{REPLACEMENT CHARACTER} d",
        "3": "e",
    }


@pytest.mark.parametrize("again", [chat(("user", "q")), chat(("user", [text("q")]))])
def test_a_prompt_is_the_same_as_a_text_and_as_one_message_of_the_user(tmp_path: Path, again: Any) -> None:
    with pytest.raises(ValueError, match="occurs twice"):
        read_prompts(written(tmp_path, "q", again), 0)


def lines_with_one_long_prompt() -> str:
    rows = [{"id": f"p{i}", "prompt": "red blue " * (10 if i == 7 else 1) + str(i), "split": "train"} for i in range(9)]
    rows[0]["split"] = "heldout"
    return "".join(json.dumps(row) + "\n" for row in rows)


def training(max_length: int) -> dict[str, Any]:
    return {"lr": 0.001, "batch_size": 4, "precision": "fp32", "max_length": max_length}


def test_a_prompt_that_training_cannot_hold_ends_the_sweep_with_its_id_before_anything_is_sampled(
    workspace: Workspace, nashbench: Callable[..., Ended]
) -> None:
    workspace.write("prompts.jsonl", lines_with_one_long_prompt())
    short = workspace.arguments(workspace.config("short.yaml", training=training(16)))
    check_refused(nashbench(*short), "prompt 'p7' has 22 tokens and training.max_length is 16")
    assert not (workspace.store / "sample").exists()
    assert nashbench(*workspace.arguments(workspace.config(training=training(40)))).code == 0
    ended = nashbench(*short)  # with the prompts, samples and pairs in the store
    assert ended.code == 1
    assert "training.max_length is 16" in ended.err


def test_prompts_that_are_only_answered_may_be_longer_than_what_training_takes(
    workspace: Workspace, nashbench: Callable[..., Ended]
) -> None:
    workspace.write("prompts.jsonl", lines_with_one_long_prompt())
    config = workspace.config(matrix={"trainer": ["sft"], "judge": [PANEL]}, graders=[PANEL], training=training(16))
    assert nashbench(*workspace.arguments(config)).code == 0
