"""What the report says of graders that mostly call ties; counted by hand."""

import json
from dataclasses import replace
from typing import Any

import pytest
from test_reports_boards import prose, sweep_of

from reports.sections.leaderboard import leaderboard
from reports.sections.ties import ties
from reports.sections.verdict import verdict
from reports.tables import Sweep

SCORES = {"onpo/j": (0.6, 0.5, 0.7), "sft": (0.5, 0.45, 0.55)}
BARE = {"leaderboard": "head-to-head", "grader": "panel", "extra": "", "preference": None}


def judged(*rows: dict[str, Any]) -> Sweep:
    return replace(sweep_of(SCORES), samples=[{**BARE, "cell": "onpo/j", **row} for row in rows])


def said(*rows: dict[str, Any]) -> str:
    return prose([ties(judged(*rows), "head-to-head", "panel")])


def games(first: str, second: str, preference: float | None, cell: str = "onpo/j") -> dict[str, Any]:
    return {"cell": cell, "extra": json.dumps({"first_game": first, "second_game": second}), "preference": preference}


def test_each_game_counts_where_games_are_recorded() -> None:
    rows = [games("A=B", "A=B", 0.5), games("A=B", "A>B", 0.75), games("B>>A", "A>>B", 1.0)]
    text = said(*rows, games("A=B", "A=B", 0.5, "sft"))
    assert text == (
        "5 of 8 games that panel judged on head-to-head are ties (62%; 100% on the untrained policy’s answers): "
        "this grader does not tell most of these answers from the baseline’s."
    )


def test_opposite_winners_in_the_two_orders_are_no_ties() -> None:
    assert said(*[games("A>B", "A>B", 0.5)] * 4) == ""


@pytest.mark.parametrize(("even", "told"), [(3, True), (2, False)])
def test_most_is_more_than_half(even: int, told: bool) -> None:
    rows = [games("A=B", "", None)] * even + [games("A>B", "", None)] * 2
    assert said(*rows).startswith(f"{even} of {even + 2} games") is told


def test_preferences_without_games_say_nothing_since_opposite_orders_also_have_a_half() -> None:
    assert said(*[{"preference": 0.5}] * 4) == ""


def test_failed_games_ratings_and_other_graders_are_not_counted() -> None:
    rows = [{"preference": None}, {"preference": None, "rating": 5.0}, {**games("A=B", "A=B", 0.5), "grader": "llm"}]
    assert said(*rows) == ""
    tied = games("A=B", "", None)
    assert said(*rows, tied).startswith("1 of 1 games that panel judged on head-to-head are ties (100%)")


def test_a_share_is_rounded_and_a_hundred_per_cent_are_all() -> None:
    assert "(90%)" in said(*[games("A=B", "", None)] * 8989, *[games("A>B", "", None)] * 1011)
    assert "(more than 99%)" in said(*[games("A=B", "", None)] * 999, games("A>B", "", None))


def test_the_note_stands_with_the_boards_tables_and_before_quoting() -> None:
    sweep = judged(games("A=B", "A=B", 0.5))
    (note,) = leaderboard([sweep])[0]["ties"]
    assert note["tags"] == {"sweep": "s", "grader": "panel"}
    assert note["sentence"] in verdict([sweep])["caveats"]
    assert leaderboard([sweep_of(SCORES)])[0]["ties"] == []
