"""Thinking blocks come out of answers whatever a model writes; a later turn has the policy's own words before it."""

from __future__ import annotations

import time

import pytest
from boards_world import HOSTILE, Rule, all_questions

from leaderboards import HeadToHead
from leaderboards.leaderboard import conversation
from leaderboards.records import BoardQuestion
from leaderboards.thinking import strip_thinking


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


def test_head_to_head_strips_both_sides_and_marks_the_policys():
    board, judge = HeadToHead(strip_thinking=True), Rule(lambda a, b: 0.5)
    requests = all_questions(board, [("p", "x"), ("q", "x"), ("r", "x")], 1.0)
    answers = {"p": ["<think>a</think>b"], "q": ["c"], "r": ["d"]}
    verdicts = board.grade(requests, answers, {"p": ["e"], "q": ["<think>f</think>g"], "r": ["<think>"]}, judge)
    assert [(v.response, v.baseline_response, v.stripped, v.status) for v in verdicts] == [
        ("b", "e", True, "ok"),
        ("c", "g", False, "ok"),
        ("d", "", False, "ok"),
    ]
    assert [v.preference for v in verdicts] == [0.5, 0.5, 1.0]
    assert len(judge.asked) == 4


def test_a_later_turn_is_the_earlier_prompt_the_policys_own_answer_and_the_new_message():
    opening = [{"role": "system", "content": "s"}, {"role": "user", "content": "one"}]
    first = BoardQuestion(id="a", prompt=opening, temperature=0)
    second = BoardQuestion(id="b", prompt="two", temperature=0, turn=2, follows="a")
    third = BoardQuestion(id="c", prompt="three", temperature=0, turn=3, follows="b")
    by_id = {r.id: r for r in (first, second, third)}
    said = {"a": ["yes", "no"], "b": [HOSTILE]}
    assert conversation(first, by_id, {}) == opening
    assert conversation(third, by_id, said) == [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "yes"},
        {"role": "user", "content": "two"},
        {"role": "assistant", "content": HOSTILE},
        {"role": "user", "content": "three"},
    ]


def test_a_turn_whose_earlier_turn_is_missing_is_told():
    second = BoardQuestion(id="b", prompt="two", temperature=0, turn=2, follows="a")
    with pytest.raises(ValueError, match="'b' follows 'a', which is not among the questions"):
        conversation(second, {"b": second}, {"a": ["x"]})
    first = BoardQuestion(id="a", prompt="one", temperature=0)
    with pytest.raises(ValueError, match="which is not answered; answer it first"):
        conversation(second, {"a": first, "b": second}, {"a": []})
