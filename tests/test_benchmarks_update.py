"""The update's losses beside TRL's, where it is installed, and the benchmarks' own arithmetic."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from benchmarks.__main__ import loss_difference, over, table
from benchmarks.tiny import build_pairs
from benchmarks.update import CASES, STEPS


@pytest.mark.slow
@pytest.mark.skipif(find_spec("trl") is None, reason="trl is not installed: pip install '.[bench]'")
@pytest.mark.parametrize("case", CASES)
def test_losses_are_those_of_trl_at_each_of_16_steps(case: str) -> None:
    assert loss_difference(case, 8 * STEPS) < 1e-5


def test_a_ratio_is_of_medians() -> None:
    def runs(*seconds: float) -> list[dict[str, float]]:
        return [{"seconds": s} for s in seconds]

    assert over(runs(1, 2, 90), runs(4, 4, 1), "seconds") == 0.5


def test_the_table_has_a_line_for_every_figure() -> None:
    text = table({"update": {"ratio": 1.5, "losses": {"ipo": 1e-6}}})
    assert text.splitlines()[2:] == ["| update | ratio | 1.5 |", "| update | losses ipo | 1e-06 |"]


def test_pairs_are_the_same_every_time_and_responses_have_one_length() -> None:
    pairs = build_pairs(5, prompt=3, response=7)
    assert pairs == build_pairs(5, prompt=3, response=7)
    assert {len(response) for side in ("chosen", "rejected") for response in pairs[side]} == {7}
