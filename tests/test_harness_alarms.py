"""Alarms on figures written by hand: each rule at, below and above its threshold, and silent where nothing is known."""

from __future__ import annotations

import pytest

from harness.tables.alarms import ALARMS, alarms, score_alarms


def rang(name: str, start: dict[str, float], *iterations: dict[str, float]) -> list[float | None]:
    return [found.get(f"alarm:{name}") for found in alarms(start, iterations)]


def styles(plain: float, rich: float) -> dict[str, float]:
    return {"style:plain": plain, "style:rich": rich, "style:other": 1 - plain - rich}


@pytest.mark.parametrize(("alarm", "figure"), [("entropy", "entropy"), ("distinct-2", "distinct_2")])
def test_less_than_half_of_the_start_is_an_alarm_and_half_of_it_is_none(alarm: str, figure: str) -> None:
    path = [{figure: value} for value in (1.0, 0.5, 0.499, 0.0, 0.501)]
    assert rang(alarm, {figure: 1.0}, *path) == [0, 0, 1, 1, 0]
    assert rang(alarm, {figure: 0.5}, {figure: 0.25}, {figure: 0.24}) == [0, 1]


def test_more_than_a_quarter_more_repeated_answers_than_at_the_start_is_an_alarm() -> None:
    path = [{"repeated": value} for value in (0.125, 0.375, 0.376, 1.0)]
    assert rang("repeats", {"repeated": 0.125}, *path) == [0, 0, 1, 1]
    assert rang("repeats", {"repeated": 0.75}, {"repeated": 1.0}) == [0]


def test_more_than_nine_tenths_in_one_style_is_an_alarm_unless_it_was_so_at_the_start() -> None:
    path = [styles(0.9, 0.0), styles(0.91, 0.0), styles(0.0, 0.95), styles(0.5, 0.5)]
    assert rang("one-style", styles(0.9, 0.1), *path) == [0, 1, 1, 0]
    assert rang("one-style", styles(0.91, 0.0), *path) == [0, 0, 0, 0]


def test_texts_in_no_known_style_are_a_style_too() -> None:
    assert rang("one-style", styles(0.5, 0.5), styles(0.0, 0.05)) == [1]


def test_a_swing_of_a_quarter_and_back_is_an_oscillation_and_less_or_one_way_is_none() -> None:
    def swings(*path: float) -> list[float | None]:
        return rang("oscillation", styles(path[0], 0.0), *(styles(p, 0.0) for p in path[1:]))

    assert swings(0.25, 0.5, 0.25) == [0, 1]
    assert swings(0.25, 0.5, 0.26) == [0, 0]
    assert swings(0.25, 0.49, 0.0) == [0, 0]
    assert swings(0.0, 0.5, 1.0) == [0, 0]
    assert swings(0.25, 0.5, 0.5, 0.25) == [0, 0, 0]  # back, but not within two iterations
    assert swings(0.5, 0.25, 0.75, 0.25, 0.25) == [0, 1, 1, 0]


def test_one_style_that_swings_is_enough() -> None:
    assert rang("oscillation", styles(0.5, 0.25), styles(0.5, 0.5), styles(0.5, 0.25)) == [0, 1]


def test_what_was_not_measured_gives_no_alarm() -> None:
    assert alarms({}, [{}, {}]) == [{}, {}]
    assert alarms({"entropy": 1.0}, [{"distinct_2": 0.1}]) == [{}]
    assert alarms({}, [{"entropy": 0.0, "distinct_2": 0.0, "repeated": 1.0, **styles(1.0, 0.0)}]) == [
        {"alarm:oscillation": 0.0}
    ]
    assert alarms({"entropy": 1.0}, []) == []


def test_an_iteration_is_judged_by_what_came_before_it_alone() -> None:
    start = {"entropy": 1.0, "distinct_2": 0.5, "repeated": 0.0, **styles(0.5, 0.25)}
    path = [
        {"entropy": 0.9, "distinct_2": 0.4, "repeated": 0.1, **styles(0.95, 0.0)},
        {"entropy": 0.4, "distinct_2": 0.2, "repeated": 0.5, **styles(0.25, 0.25)},
        {"entropy": 1.2, "distinct_2": 0.5, "repeated": 0.0, **styles(0.5, 0.0)},
    ]
    whole = alarms(start, path)
    assert [set(found) for found in whole] == [{f"alarm:{name}" for name in ALARMS}] * 3
    assert [alarms(start, path[:t]) for t in range(4)] == [whole[:t] for t in range(4)]
    assert [sorted(name for name, value in found.items() if value) for found in whole] == [
        ["alarm:one-style"],
        ["alarm:distinct-2", "alarm:entropy", "alarm:oscillation", "alarm:repeats"],
        ["alarm:oscillation"],
    ]


def shares_of(cell: str, iteration: int, board: str = "b", **shares: float) -> list[dict[str, object]]:
    at = {"cell": cell, "iteration": iteration, "leaderboard": board, "grader": "g"}
    return [{**at, "metric": f"{name}_share", "value": value} for name, value in shares.items()]


def test_a_share_above_its_limit_on_any_board_is_an_alarm() -> None:
    rows = shares_of("a", 1, empty=0.02, unfinished=0.2) + shares_of("a", 2, empty=0.021, unfinished=0.1)
    rows += shares_of("a", 2, "other", empty=0.0, unfinished=0.21)
    assert score_alarms(rows) == {
        ("a", 1): {"alarm:empty": 0, "alarm:unfinished": 0},
        ("a", 2): {"alarm:empty": 1, "alarm:unfinished": 1},
    }


def test_a_policy_that_lacks_more_verdicts_than_another_by_two_points_is_an_alarm() -> None:
    rows = shares_of("sft", 0, missing=0.1) + shares_of("a", 3, missing=0.05) + shares_of("b", 3, missing=0.069)
    rows += shares_of("c", 3, missing=0.08)
    rang = {cell: found["alarm:missing"] for (cell, _), found in score_alarms(rows).items()}
    assert rang == {"sft": 0, "a": 0, "b": 0, "c": 1}
