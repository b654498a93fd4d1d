"""The formatter: what is written can be read back, and the same figure is always written the same way."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.numbers import MINUS, NONE, THIN, exact, metric, show, show_p


@pytest.mark.parametrize(
    ("value", "decimals", "text"),
    [
        (0.5634567, 3, "0.563"),
        (0.5, 3, "0.500"),
        (-0.0004, 3, "0.000"),
        (-0.0006, 3, f"{MINUS}0.001"),
        (12345.678, 1, f"12{THIN}345.7"),
        (12345, None, f"12{THIN}345"),
        (96.0, None, "96"),
        (0.0123456, None, "0.01235"),
        (9.99996, None, "10.00"),
        (0.099999, None, "0.1000"),
        (999.96, None, f"1{THIN}000"),
        (99999.6, None, f"100{THIN}000"),
        (123.456, None, "123.5"),
        (1e-7, None, f"1.00e{MINUS}7"),
        (math.inf, None, "∞"),
        (-math.inf, 2, f"{MINUS}∞"),
        (None, 3, NONE),
        (math.nan, None, NONE),
    ],
)
def test_figures_are_written_with_fixed_decimals_or_four_digits(
    value: float | None, decimals: int | None, text: str
) -> None:
    assert show(value, decimals) == text


def test_a_sign_is_written_only_where_a_digit_other_than_zero_is() -> None:
    assert show(0.0634, 3, signed=True) == "+0.063"
    assert show(0.0001, 3, signed=True) == show(-0.0001, 3, signed=True) == "0.000"


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_the_full_value_reads_back_exactly(value: float) -> None:
    assert float(exact(value)) == value


@given(st.floats(min_value=-1e6, max_value=1e6), st.integers(min_value=0, max_value=4))
def test_the_text_is_within_half_a_unit_of_its_last_digit(value: float, decimals: int) -> None:
    read = float(show(value, decimals).replace(MINUS, "-").replace(THIN, ""))
    assert abs(read - value) <= 0.5 * 10**-decimals * (1 + 1e-9) + 1e-9


def test_small_p_values_are_bounded_not_rounded_to_zero() -> None:
    assert show_p(0.0004) == f"<{THIN}0.001"
    assert show_p(0.04999) == "0.050"
    assert show_p(None) == NONE


@pytest.mark.parametrize(
    ("scale", "decimals"), [([0, 1], 3), ([-1, 1], 3), ([1, 10], 2), ([0, 100], 1), ([0, 4096], 0), (None, None)]
)
def test_decimals_follow_the_scale_of_the_metric(scale: list[float] | None, decimals: int | None) -> None:
    assert metric("score", {"scale": scale}).decimals == decimals


def test_a_metric_that_is_not_described_has_no_direction_and_no_null_value() -> None:
    unknown = metric("mystery", {})
    assert (unknown.sign, unknown.null, unknown.official, unknown.log) == (0, None, False, False)
    assert metric("gap", {"better": "lower", "axis": "log"}).sign == -1
    assert metric("length_controlled_winrate", {}).label == "length-controlled win rate"
