"""Thinking blocks come out of responses whatever a model writes, before any judge or board sees them."""

from __future__ import annotations

import time
from typing import Any

import pandas as pd
import pytest
from boards_world import HOSTILE
from conftest import Workspace

from harness.config import load_config
from harness.planning.plan import make_plan
from harness.stage import in_order
from harness.stages.context import ModelCache
from harness.stages.running import run_stage
from harness.store.artifacts import Store
from trainers.options import Sampling
from trainers.policies.causal_lm import CausalLM
from trainers.policies.policy import Response
from trainers.thinking import strip_thinking


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("<think>a</think>b", "b"),
        ("<thinking>\na\n</thinking>\n\nb\n", "b"),
        ("<THINK>a</Think>b", "b"),
        ("a <think>b</think> c <think>d</think> e", "a  c  e"),
        ("a<think>b", "a"),
        ("<think>b", ""),
        ("thoughts</think>answer", "answer"),  # the template opened the block
        ("thoughts</think>", ""),
        ("</think>answer", "answer"),
        ("<think></think>", ""),
        ("<think>so <think> it is</think>answer", "answer"),  # blocks do not nest
        ("<think>a<think>b</think>c</think>d", "d"),
        ("<think>a</thinking>b", "b"),
        ("a</think>b</think>c", "c"),
        ("<think>a</think>b<think>c", "b"),
        ("</think><think>", ""),
    ],
)
def test_blocks_open_ends_and_lone_closing_tags(text, left):
    assert strip_thinking(text) == left


@pytest.mark.parametrize("text", ["", "  kept as it is \n", "< think >a</ think >", "<thinker>a</thinker>", HOSTILE])
def test_a_text_without_tags_is_not_touched(text):
    assert strip_thinking(text) == text


LONG = ("<think>" * 100_000, "</think>" * 100_000, "<" * 300_000, "<think>a</think>b" * 50_000 + HOSTILE)


@pytest.mark.parametrize("text", LONG, ids=["open", "closing", "brackets", "blocks"])
def test_stripping_twice_changes_nothing_more(text):
    once = strip_thinking(text)
    assert strip_thinking(once) == once


@pytest.mark.slow
def test_long_texts_take_no_time():
    start = time.process_time()
    for text in LONG:
        strip_thinking(text)
    assert time.process_time() - start < 2


def thinking_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every model thinks before it writes what it would have written."""
    original = CausalLM._response

    def thinks(self: CausalLM, tokens: list[int]) -> Response:
        response = original(self, tokens)
        return Response(tokens, f"<think> red </think> {response.text} .", response.finished)

    monkeypatch.setattr(CausalLM, "_response", thinks)


@pytest.mark.parametrize("strip", [True, False])
def test_a_policys_texts_go_without_thinking_where_asked_and_its_tokens_keep_it(
    policy: CausalLM, monkeypatch: pytest.MonkeyPatch, strip: bool
) -> None:
    plain = policy.sample([[0, 5]], 3, Sampling(max_tokens=4), [1])[0]
    thinking_policy(monkeypatch)
    drawn = policy.sample([[0, 5]], 3, Sampling(max_tokens=4, strip_thinking=strip), [1])[0]
    assert [r.tokens for r in drawn] == [r.tokens for r in plain]
    assert [r.text for r in drawn] == [
        f"{r.text} .".strip() if strip else f"<think> red </think> {r.text} ." for r in plain
    ]
    assert {r.stripped for r in drawn} == {strip}


@pytest.mark.parametrize("strip", [True, False])
@pytest.mark.parametrize("trainer", ["dpo", "ipo-md"])
def test_one_setting_holds_for_the_judge_that_trains_and_for_boards(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, strip: bool, trainer: str
) -> None:
    from judges.kinds.panel import PanelJudge

    asked: list[str] = []
    original = PanelJudge.answer

    def listening(self: PanelJudge, questions: Any, advance: Any) -> Any:
        asked.extend(text for question in questions for text in (question.first, question.second))
        return original(self, questions, advance)

    monkeypatch.setattr(PanelJudge, "answer", listening)
    thinking_policy(monkeypatch)
    options = {"iterations": 1, "sampling": {"k": 2, "max_tokens": 6, "strip_thinking": strip}}
    judge = [{"name": "panel", "panel": "panel.yaml"}]
    plan = make_plan(load_config(workspace.config(matrix={"trainer": [trainer], "judge": judge}, **options)))
    store, seen, flags = Store(workspace.store), dict[str, list[str]](), set[bool]()
    for stage in in_order(plan.stages):
        run_stage(stage, store, ModelCache(), lambda done, total: None)
        seen.setdefault(stage.kind, []).extend(asked)
        asked.clear()
        if stage.kind == "grade":
            flags |= set(pd.read_parquet(store.open(stage, "verdicts.parquet"))["stripped"])
    trained = seen["pair" if trainer == "dpo" else "stream"]
    assert trained
    assert seen["grade"]
    assert flags == {strip}
    assert {"<think>" in text for text in [*trained, *seen["grade"]]} == {not strip}
