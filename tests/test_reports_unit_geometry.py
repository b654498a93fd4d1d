"""Corners of the figures and of the charts' geometry."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reports.charts import WHISKER, Axis, Line, extent, finite, near, panel, path, tick_text, whisker_axis
from reports.numbers import MINUS, NONE, THIN, exact, metric, show, show_p

SHORT = settings(max_examples=50, deadline=None)


def read(text: str) -> float:
    return float(text.replace(MINUS, "-").replace(THIN, ""))


@given(st.floats(1e-9, 1e14), st.sampled_from([1, -1]))
@SHORT
def test_a_figure_without_decimals_is_read_back_to_three_digits_at_least(size: float, sign: int) -> None:
    text = show(sign * size)
    assert read(text) == pytest.approx(sign * size, rel=5.1e-3)
    if 1e-3 <= size < 1e6:
        assert read(text) == pytest.approx(sign * size, rel=5.1e-4)
    assert text.startswith(MINUS) == (sign < 0)


@given(st.floats(-1e9, 1e9), st.integers(0, 4))
@SHORT
def test_a_signed_figure_differs_from_the_plain_one_in_its_plus_only(value: float, decimals: int) -> None:
    plain, signed = show(value, decimals), show(value, decimals, signed=True)
    assert signed.removeprefix("+") == plain
    assert signed.startswith("+") == (read(plain) > 0)
    assert "-" not in signed
    assert "," not in signed


@pytest.mark.parametrize("zero", [0.0, -0.0, 0])
def test_zero_has_no_sign(zero: float) -> None:
    assert show(zero) == show(zero, signed=True) == "0"
    assert show(zero, 2, signed=True) == "0.00"


def test_thousands_are_parted_in_threes() -> None:
    groups = show(-1234567890.0).removeprefix(MINUS).split(THIN)
    assert groups == ["1", "234", "567", "890"]
    assert show(999.0) == "999"


@pytest.mark.parametrize(("p", "text"), [(1.0, "1.000"), (0.001, "0.001"), (0.0, f"<{THIN}0.001"), (math.nan, NONE)])
def test_p_values_at_their_ends(p: float, text: str) -> None:
    assert show_p(p) == text


def test_the_full_value_of_nothing_is_empty() -> None:
    assert exact(None) == ""
    assert math.isnan(float(exact(math.nan)))


@pytest.mark.parametrize(("unit", "low", "high", "decimals"), [("probability", 0, 1, 3), ("percent", 0, 100, 1)])
def test_a_unit_that_implies_a_scale_gives_it(unit: str, low: float, high: float, decimals: int) -> None:
    found = metric("x", {"unit": unit, "null_value": 0.5, "better": "higher"})
    assert (found.low, found.high, found.decimals, found.null, found.sign) == (low, high, decimals, 0.5, 1)
    logged = metric("x", {"unit": unit, "null_value": 0.5, "axis": "log"})
    assert (logged.log, logged.null, logged.decimals) == (True, None, None)
    assert metric("x", {"unit": unit, "scale": [0, 10]}).high == 10  # what is written goes before what is implied


# --- axes --------------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(-50, 150), min_size=2, max_size=8), st.booleans())
@SHORT
def test_an_axis_keeps_the_order_and_stays_inside(values: list[float], falling: bool) -> None:
    axis = Axis(low=0, high=100, start=200 if falling else 10, end=10 if falling else 200)
    places = [axis(v) for v in sorted(values, reverse=falling)]
    assert all(a <= b for a, b in pairwise(places))
    assert all(10 <= place <= 200 for place in places)
    assert all(axis(axis.clamp(v)) == axis(v) for v in values)


@given(st.floats(1e-6, 1e3), st.floats(1.5, 1e6), st.floats(0, 1))
@SHORT
def test_a_log_axis_is_a_linear_axis_of_logarithms(low: float, ratio: float, share: float) -> None:
    axis = Axis(low=low, high=low * ratio, start=0, end=300, log=True)
    assert axis(low * ratio**share) == pytest.approx(300 * share, abs=0.06)
    for tick in axis.ticks(5):
        assert math.log10(tick) == pytest.approx(round(math.log10(tick)), abs=1e-9)
        assert low * (1 - 1e-6) <= tick <= low * ratio * (1 + 1e-6)
    assert len(axis.ticks(5)) <= 6


def test_ticks_of_an_axis_without_width_are_its_one_value() -> None:
    assert Axis(low=2.5, high=2.5, start=0, end=1).ticks(4) == [2.5]
    assert Axis(low=0, high=1, start=0, end=1).ticks(4) == [0, 0.25, 0.5, 0.75, 1]
    assert [tick_text(tick, False) for tick in (0.25, -3.0, 9500.0)] == ["0.25", f"{MINUS}3", "9500"]
    assert [tick_text(tick, False) for tick in (1e4, -2.5e5, 1e6, 1.25e7)] == ["10k", f"{MINUS}250k", "1M", "12.5M"]


@given(st.lists(st.floats(-1e5, 1e5), min_size=1, max_size=9), st.booleans())
@SHORT
def test_an_extent_holds_every_value_it_can_draw(values: list[float], log: bool) -> None:
    low, high = extent([*values, None, math.nan, math.inf], log=log)
    assert low < high
    assert all(low <= v <= high for v in values if v > 0 or not log)
    assert low > 0 or not log


def test_finite_keeps_the_order_of_what_can_be_drawn() -> None:
    assert finite([3.0, None, math.nan, -1.0, -math.inf, 0.0]) == [3.0, -1.0, 0.0]
    assert near(0.5, [None, math.nan]) == 0.5


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=6), st.booleans())
@SHORT
def test_the_axis_of_whiskers_spans_the_cell_less_its_padding(values: list[float], log: bool) -> None:
    axis = whisker_axis(values, None, log=log)
    assert (axis.start, axis.end, axis.log) == (5, WHISKER - 5, log)
    assert axis.low < min(values) <= max(values) < axis.high


# --- panels ------------------------------------------------------------------------------------------------------


def line(name: str, *heights: float, label: str = "", **more: Any) -> Line:
    points = [(float(i), height, None, None) for i, height in enumerate(heights)]
    return Line(name=name, label=label, slot=0, points=points, **more)


def test_a_panel_places_its_points_as_its_axes_do() -> None:
    drawn = panel([line("a", 0.0, 0.5, 1.0)], x=(0, 2), y=(0, 1), size=(300, 190))
    x, y = Axis(low=0, high=2, start=44, end=290), Axis(low=0, high=1, start=166, end=10)
    assert drawn["lines"][0]["path"] == path([(x(i), y(h)) for i, h in enumerate((0.0, 0.5, 1.0))])
    assert (drawn["left"], drawn["right"], drawn["bottom"]) == (44, 290, 166)
    assert [place for place, _ in drawn["x_ticks"]] == [44, 167, 290]


@pytest.mark.parametrize(("null", "drawn"), [(0.5, 88.0), (0.0, 166.0), (1.5, None), (None, None)])
def test_the_null_line_is_drawn_inside_the_panel_only(null: float | None, drawn: float | None) -> None:
    assert panel([line("a", 0.2, 0.8)], y=(0, 1), null=null)["null"] == drawn
    assert panel([line("a", 0.2, 0.8)], y=(0.01, 1), null=null, log=True)["null"] is None


def test_longer_labels_leave_less_room_up_to_a_limit() -> None:
    rights = [panel([line("a", 0.2, label="x" * n)])["right"] for n in (0, 5, 10, 18, 60)]
    assert rights == pytest.approx([290, 258, 226, 180, 180])


def test_points_that_are_no_numbers_are_left_out_and_an_empty_line_has_no_path() -> None:
    drawn = panel([line("a", 0.2, math.nan, 0.4), line("b", math.nan), line("c")])["lines"]
    assert [len(found["points"]) for found in drawn] == [2, 0, 0]
    assert [found["path"].count("l") for found in drawn] == [1, 0, 0]
    assert (drawn[1]["path"], drawn[2]["path"], drawn[2]["label_y"]) == ("", "", 0)


def test_labels_far_apart_stay_at_their_lines_ends_and_keep_their_order() -> None:
    lines = [line(name, height, label=name) for name, height in (("low", 0.1), ("high", 0.9), ("middle", 0.5))]
    drawn = panel(lines, y=(0, 1))["lines"]
    y = Axis(low=0, high=1, start=166, end=10)
    assert [found["label_y"] for found in drawn] == [y(0.1), y(0.9), y(0.5)]
    crowded = panel([line(str(i), 0.5 + i / 1000, label=str(i)) for i in range(5)], y=(0, 1))["lines"]
    places = [found["label_y"] for found in crowded]
    assert places == sorted(places, reverse=True)
