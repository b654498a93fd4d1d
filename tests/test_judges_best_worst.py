"""Best against worst of all responses: every pair compared, win rates by hand, failures left out."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from judges.tournament import best_worst

GENERATOR = np.random.default_rng(0)
QUALITY = {"a": 0.0, "b": 1.0, "c": 3.0, "d": -2.0}


def compare(prompt, first, second):
    gaps = [QUALITY[a] - QUALITY[b] for a, b in zip(first, second, strict=True)]
    return 1 / (1 + np.exp(-np.array(gaps)))


def test_the_best_and_the_worst_by_mean_win_rate_are_paired_with_their_rates():
    made = best_worst(compare, [["a", "b", "c", "d"], ["d", "c", "b", "a"]], GENERATOR)
    assert made.chosen.tolist() == [2, 1]
    assert made.rejected.tolist() == [3, 0]
    others = [QUALITY["c"] - QUALITY[x] for x in "abd"]
    expected = np.mean([1 / (1 + np.exp(-gap)) for gap in others])
    np.testing.assert_allclose(made.win_rates[:, 0], expected, atol=1e-12)
    assert (made.win_rates[:, 1] < 0.5).all()
    assert (made.preference == 1).all()


@pytest.mark.parametrize(("orders", "each"), [("one", 1), ("both", 2)])
def test_every_pair_of_different_texts_is_asked(orders, each):
    made = best_worst(compare, [["a", "b", "c", "d"]], GENERATOR, orders=orders)
    assert made.queries == each * len(list(itertools.combinations("abcd", 2)))
    assert best_worst(compare, [["a", "a", "b"]], GENERATOR, orders=orders).queries == 2 * each


def test_among_equals_the_first_is_best_and_the_last_is_worst():
    made = best_worst(compare, [["a", "a", "a"]], GENERATOR)
    assert (made.chosen.tolist(), made.rejected.tolist(), made.queries) == ([0], [2], 0)
    np.testing.assert_array_equal(made.win_rates, [[0.5, 0.5]])


def test_a_prompt_with_a_failed_comparison_is_left_out_and_counted():
    def failing(prompt, first, second):
        return np.where(np.asarray(prompt) == 0, np.nan, compare(prompt, first, second))

    made = best_worst(failing, [["a", "b", "c"], ["b", "c", "d"]], GENERATOR)
    assert made.prompt.tolist() == [1]
    assert made.failed == 1
