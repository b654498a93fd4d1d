"""A later turn has the policy's own words before it."""

from __future__ import annotations

import pytest
from boards_world import HOSTILE

from leaderboards.leaderboard import conversation
from leaderboards.records import BoardQuestion


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
