"""Cycles and what Bradley-Terry misses, against closed forms and another optimiser."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest

from judges.audit.transitivity import NO_TRIPLE, bradley_terry, transitivity
from judges.files import Pair
from judges.judge import messages_of


def pairs_of(prompt: object, table: dict[tuple[str, str], float]) -> tuple[list[Pair], list[float]]:
    pairs = [Pair(f"{prompt}{a}{b}", prompt, a, b) for a, b in table]  # type: ignore[arg-type]
    return pairs, list(table.values())


def entropy(p: float) -> float:
    return -p * math.log(p) - (1 - p) * math.log(1 - p)


def test_a_symmetric_cycle_is_one_and_bradley_terry_can_only_say_one_half() -> None:
    pairs, p = pairs_of("p", {("a", "b"): 0.9, ("b", "c"): 0.9, ("c", "a"): 0.9})
    found = transitivity(pairs, np.array(p))
    assert (found["triples"], found["cycle_rate"], found["comparisons"], found["prompts"]) == (1, 1.0, 3, 1)
    assert found["bradley_terry_excess"] == pytest.approx(math.log(2) - entropy(0.9), abs=1e-6)
    assert found["interval"] == pytest.approx([found["bradley_terry_excess"]] * 2)


def test_preferences_of_one_score_a_response_leave_nothing_over_and_their_scores_are_found() -> None:
    scores = {"a": 0.0, "b": 1.5, "c": -2.0, "d": 0.7}
    table = {(a, b): 1 / (1 + math.exp(scores[b] - scores[a])) for a, b in combinations(scores, 2)}
    pairs, p = pairs_of("p", table)
    found = transitivity(pairs, np.array(p))
    assert (found["triples"], found["cycle_rate"]) == (4, 0.0)
    assert found["bradley_terry_excess"] == pytest.approx(0, abs=1e-6)
    rows = np.array([[(x == a) - (x == b) for x in scores] for a, b in table], dtype=np.float64)
    fitted = bradley_terry(rows, np.array(p))
    np.testing.assert_allclose(fitted - fitted[0], list(scores.values()), atol=1e-4)


def test_hard_transitive_verdicts_are_explained_by_scores_and_hard_cycles_are_not() -> None:
    order = "abcdef"
    pairs, p = pairs_of("p", dict.fromkeys(combinations(order, 2), 1.0))
    assert transitivity(pairs, np.array(p))["bradley_terry_excess"] == pytest.approx(0, abs=1e-3)
    pairs, p = pairs_of("q", {("a", "b"): 1.0, ("b", "c"): 1.0, ("a", "c"): 0.0})
    assert transitivity(pairs, np.array(p))["bradley_terry_excess"] == pytest.approx(math.log(2))


def test_the_fit_is_the_one_scipy_finds() -> None:
    from scipy.optimize import minimize

    generator = np.random.default_rng(0)
    rows = np.array([np.eye(5)[a] - np.eye(5)[b] for a, b in combinations(range(5), 2)])
    preference = generator.random(len(rows))

    def loss(scores: np.ndarray) -> float:
        odds = rows @ scores
        return float(np.sum(np.logaddexp(0, odds) - preference * odds))

    best = minimize(loss, np.zeros(5), method="BFGS").fun
    assert loss(bradley_terry(rows, preference)) == pytest.approx(best, abs=1e-6)


def test_pairs_are_joined_by_prompt_and_texts_in_either_naming_and_repeated_pairs_are_averaged() -> None:
    chat = messages_of("p")
    triples = [("p", "b", "a", 0.2), (chat, "a", "b", 1.0), ("p", "b", "c", 0.9), ("p", "a", "c", 0.1)]
    pairs = [Pair(str(i), prompt, a, b) for i, (prompt, a, b, _) in enumerate(triples)]
    found = transitivity(pairs, np.array([p for *_, p in triples]))
    # a beats b by (.8 + 1) / 2, b beats c by .9, c beats a by .9.
    assert (found["cycle_rate"], found["comparisons"]) == (1.0, 3)
    assert found["bradley_terry_excess"] == pytest.approx(math.log(2) - entropy(0.9), abs=1e-6)


def test_an_open_chain_a_failed_edge_or_equal_texts_give_no_triple_and_the_reason() -> None:
    for table in (
        {("a", "b"): 0.9, ("b", "c"): 0.9},
        {("a", "b"): 0.9, ("b", "c"): 0.9, ("c", "a"): math.nan},
        {("a", "b"): 0.9, ("b", "c"): 0.9, ("c", "c"): 0.5},
    ):
        pairs, p = pairs_of("p", table)
        found = transitivity(pairs, np.array(p))
        assert (found["triples"], found["reason"]) == (0, NO_TRIPLE)
        assert math.isnan(found["cycle_rate"])
        assert math.isnan(found["bradley_terry_excess"])


def test_a_triple_with_a_tie_is_no_strict_cycle_but_counts_among_the_triples() -> None:
    pairs, p = pairs_of("p", {("a", "b"): 0.9, ("b", "c"): 0.9, ("c", "a"): 0.5})
    found = transitivity(pairs, np.array(p))
    assert (found["triples"], found["cycle_rate"]) == (1, 0.0)
    assert found["bradley_terry_excess"] > 0


def test_the_interval_draws_prompts_again() -> None:
    columns = [pairs_of(f"p{i}", {("a", "b"): q, ("b", "c"): q, ("c", "a"): q}) for i, q in enumerate([0.9, 0.5] * 20)]
    found = transitivity([x for pairs, _ in columns for x in pairs], np.array([p for _, ps in columns for p in ps]))
    one = math.log(2) - entropy(0.9)
    assert found["bradley_terry_excess"] == pytest.approx(one / 2, abs=1e-6)
    # The share of prompts with a cycle is a mean of 40 coins: 1/2 +- 1.96 sqrt(1/160).
    assert found["interval"] == pytest.approx([one * (0.5 - 0.155), one * (0.5 + 0.155)], abs=0.03 * one)
