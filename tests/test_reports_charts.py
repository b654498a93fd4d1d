"""The geometry of the charts against its closed forms."""

import math
import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.charts import LABEL_GAP, Axis, Line, extent, near, panel, path, tick_text, whisker, whisker_axis

FLOATS = st.floats(min_value=-1e6, max_value=1e6)


def test_a_linear_axis_maps_its_ends_and_middle_and_clamps_beyond() -> None:
    axis = Axis(low=0, high=10, start=100, end=0)
    assert [axis(v) for v in (0, 5, 10, 20, -3)] == [100, 50, 0, 0, 100]


def test_a_log_axis_gives_equal_steps_to_equal_ratios() -> None:
    axis = Axis(low=1, high=10_000, start=0, end=400, log=True)
    assert [axis(10.0**power) for power in range(5)] == [0, 100, 200, 300, 400]


def test_an_axis_without_width_puts_everything_in_the_middle() -> None:
    assert Axis(low=3, high=3, start=0, end=100)(3) == 50


@given(FLOATS, st.floats(min_value=1e-3, max_value=1e6), st.integers(min_value=2, max_value=6))
def test_ticks_are_round_inside_the_axis_and_evenly_spaced(low: float, width: float, count: int) -> None:
    axis = Axis(low=low, high=low + width, start=0, end=100)
    ticks = axis.ticks(count)
    steps = [b - a for a, b in pairwise(ticks)]
    assert len(ticks) <= count + 2
    assert all(axis.low - 1e-6 * width <= tick <= axis.high + 1e-6 * width for tick in ticks)
    assert not steps or max(steps) - min(steps) <= 1e-6 * max(steps)


def test_log_ticks_are_powers_of_ten() -> None:
    assert Axis(low=0.002, high=500, start=0, end=1, log=True).ticks(6) == [0.01, 0.1, 1, 10, 100]
    assert [tick_text(tick, True) for tick in (1e-5, 0.01, 1, 100, 1000.0)] == ["10⁻⁵", "0.01", "1", "100", "10³"]
    assert tick_text(-0.25, False) == "\N{MINUS SIGN}0.25"


def test_the_extent_leaves_out_what_cannot_be_drawn() -> None:
    low, high = extent([0.0, math.nan, None, math.inf, 1.0])
    assert low < 0 < 1 < high < 1.1
    assert extent([0.0, -1.0, 0.1, 10.0], log=True) == (pytest.approx(0.1 / 1.15), pytest.approx(11.5))
    assert extent([]) == (0, 1)
    assert extent([], log=True) == (1, 10)
    assert extent([0.5])[0] < 0.5 < extent([0.5])[1]


def test_a_null_value_is_near_within_the_width_of_the_values() -> None:
    assert near(50, [40, 46]) == 50
    assert near(50, [20, 26]) is None
    assert near(0.5, [0.4, 0.6]) == 0.5
    assert near(None, [1, 2]) is None


def test_a_whisker_points_out_where_its_value_leaves_the_axis() -> None:
    axis = Axis(low=0, high=1, start=0, end=100)
    assert whisker(axis, 0.5, 0.4, 0.6) == {"x": 50, "x1": 40, "x2": 60, "beyond": 0}
    assert whisker(axis, 0.5, None, None) == {"x": 50, "x1": 50, "x2": 50, "beyond": 0}
    assert [whisker(axis, value, None, None)["beyond"] for value in (-1, 2)] == [-1, 1]  # type: ignore[index]
    assert whisker(axis, None, 0.4, 0.6) is None
    assert whisker(axis, math.nan, None, None) is None


def test_the_axis_of_whiskers_holds_a_null_value_that_is_near() -> None:
    assert whisker_axis([0.52, 0.58], 0.5).low < 0.5
    assert whisker_axis([20, 26], 50).high < 50


@given(
    st.lists(
        st.tuples(*[st.floats(min_value=0, max_value=500).map(lambda v: round(v, 1))] * 2), min_size=1, max_size=30
    )
)
def test_a_relative_path_ends_where_the_places_end(places: list[tuple[float, float]]) -> None:
    steps = [tuple(map(float, pair.split(","))) for pair in re.split("[Ml]", path(places))[1:]]
    assert len(steps) == len(places)
    assert [math.fsum(axis) for axis in zip(*steps, strict=True)] == pytest.approx(list(places[-1]), abs=0.02)


def test_no_place_gives_no_path() -> None:
    assert path([]) == ""


@given(st.lists(st.floats(min_value=0, max_value=1), min_size=1, max_size=12))
def test_labels_at_the_lines_ends_keep_their_distance(ends: list[float]) -> None:
    lines = [
        Line(name=str(i), label=str(i), slot=i, points=[(0, 0.5, None, None), (1, end, None, None)])
        for i, end in enumerate(ends)
    ]
    placed = sorted(line["label_y"] for line in panel(lines)["lines"])
    assert all(b - a >= LABEL_GAP - 0.11 for a, b in pairwise(placed))


def test_a_panel_draws_bands_only_where_there_are_intervals() -> None:
    with_band = Line(name="a", label="a", slot=0, points=[(1, 0.5, 0.4, 0.6), (2, 0.6, 0.5, 0.7)])
    without = Line(name="b", label="b", slot=1, points=[(1, 0.5, None, None), (2, 0.6, None, None)])
    drawn = panel([with_band, without], null=0.5)
    assert [bool(line["band"]) for line in drawn["lines"]] == [True, False]
    assert drawn["lines"][0]["band"].count("l") == 3
    assert drawn["null"] is not None


def test_a_log_panel_leaves_out_points_that_have_no_logarithm() -> None:
    line = Line(name="a", label="a", slot=0, points=[(0, 0.5, None, None), (1, 0.0, None, None), (2, 0.25, None, None)])
    drawn = panel([line], log=True)
    assert [point[:2] for point in drawn["lines"][0]["points"]] == [(2, 0.25)]


def test_a_ninth_series_takes_the_first_colour_dashed_and_a_seventeenth_dotted() -> None:
    lines = [Line(name=str(i), label="", slot=i, points=[(0, 0, None, None)]) for i in range(17)]
    drawn = panel(lines)["lines"]
    assert [(drawn[i]["slot"], drawn[i]["dash"]) for i in (0, 8, 16)] == [(0, ""), (0, "dashed"), (0, "dotted")]


@pytest.mark.parametrize("count", [5, 15, 30])
def test_a_chart_has_room_for_the_labels_of_all_its_series(count: int) -> None:
    label = "ipo-md · mixture 0.125 · tau 1"
    lines = [Line(name=label, label=label, slot=i % 24, points=[(0, 0.5, None, None)]) for i in range(count)]
    drawn = panel(lines, size=(300, 190))
    places = sorted(line["label_y"] for line in drawn["lines"])
    assert places[0] >= 8
    assert places[-1] <= drawn["height"]
    assert all(b - a >= LABEL_GAP - 0.1 for a, b in pairwise(places))
    assert drawn["right"] + 6.4 * len(label) <= drawn["width"]


def test_panels_share_axes_that_are_given() -> None:
    line = Line(name="a", label="a", slot=0, points=[(1, 0.5, None, None)])
    first, second = (panel([line], x=(0, 4), y=(0, 1), size=(300, size)) for size in (190, 190))
    assert first == second
    assert [text for _, text in first["x_ticks"]] == ["0", "1", "2", "3", "4"]
