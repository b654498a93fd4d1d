"""Pairing: query counts, brackets against a brute-force referee, ties, failures, labels and orders."""

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from judges.tournament import Compare, Label, cycle_rate, iid, query_preferences, tournament


class Book:
    """A comparison that looks preferences up by text, and remembers each question."""

    def __init__(self, matrix: NDArray[np.float64], favour: float = 0.0) -> None:
        self.matrix, self.favour = matrix, favour
        self.calls: list[list[tuple[int, str, str]]] = []

    def __call__(self, prompt: NDArray[np.int64], first: Sequence[str], second: Sequence[str]) -> NDArray[np.float64]:
        self.calls.append(list(zip(prompt.tolist(), first, second, strict=True)))
        return np.array([self.matrix[int(a), int(b)] + self.favour for a, b in zip(first, second, strict=True)])

    @property
    def questions(self) -> int:
        return sum(map(len, self.calls))


def random_game(n: int, seed: int) -> NDArray[np.float64]:
    upper = np.triu(np.random.default_rng(seed).uniform(-0.5, 0.5, (n, n)), 1)
    return 0.5 + upper - upper.T


def texts(n: int, k: int, actions: int, seed: int) -> list[list[str]]:
    return [[str(x) for x in row] for row in np.random.default_rng(seed).integers(0, actions, (n, k))]


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def brute_force(matrix: NDArray[np.float64], row: list[str]) -> tuple[int, int] | None:
    """One prompt's tournament, played game by game with lists."""

    def beats(i: int, j: int) -> bool:
        return matrix[int(row[i]), int(row[j])] >= 0.5

    games = [(i, i + 1) for i in range(0, len(row), 2)]
    winners = [i if beats(i, j) else j for i, j in games]
    losers = [j if beats(i, j) else i for i, j in games]
    while len(winners) > 1:
        winners = [i if beats(i, j) else j for i, j in zip(winners[::2], winners[1::2], strict=True)]
        losers = [j if beats(i, j) else i for i, j in zip(losers[::2], losers[1::2], strict=True)]
    return (winners[0], losers[0]) if beats(winners[0], losers[0]) else None


@pytest.mark.parametrize(("k", "queries"), [(2, 2), (4, 5), (8, 11), (16, 23)])
@pytest.mark.parametrize("orders", ["one", "both"])
def test_a_tournament_of_different_texts_asks_three_halves_k_less_one(k: int, queries: int, orders):
    book = Book(random_game(k, 1))
    rows = [[str(i) for i in generator(seed).permutation(k)] for seed in range(5)]
    pairs = tournament(book, rows, generator(), orders=orders)
    assert pairs.queries == book.questions == 5 * queries * (2 if orders == "both" else 1)
    assert len(pairs) + pairs.dropped == 5
    assert len(book.calls) == np.log2(k) + 1


@pytest.mark.parametrize("k", [2, 4, 8, 16])
@pytest.mark.parametrize("orders", ["one", "both"])
def test_brackets_equal_a_brute_force_referee(k: int, orders):
    matrix = random_game(12, 3)
    rows = texts(200, k, 12, seed=4)
    pairs = tournament(Book(matrix), rows, generator(), orders=orders)
    expected = [brute_force(matrix, row) for row in rows]
    kept = [(i, *pair) for i, pair in enumerate(expected) if pair]
    assert list(zip(pairs.prompt, pairs.chosen, pairs.rejected, strict=True)) == kept
    assert pairs.dropped == expected.count(None)
    assert (pairs.dropped > 0) == (k > 2)  # with two texts the last game repeats the first
    assert (pairs.preference == 1).all()


def test_a_tie_is_won_by_the_first_and_equal_texts_cost_no_question():
    book = Book(np.full((3, 3), 0.5))
    same = tournament(book, [["1"] * 8], generator())
    assert (same.queries, same.ties, book.questions) == (0, 11, 0)
    assert (same.chosen[0], same.rejected[0]) == (0, 7)
    tied = tournament(book, [["0", "1", "0", "1"]], generator())
    assert (tied.chosen[0], tied.rejected[0], tied.ties) == (0, 3, 5)
    assert tied.queries == 3  # 0 v. 1 twice; winners 0 v. 0 and losers 1 v. 1 are free; the final is 0 v. 1


def test_one_order_is_a_fair_coin_and_swapped_answers_are_turned_round():
    book = Book(random_game(8, 5))
    rows = [[str(i) for i in range(8)]] * 400
    pairs = tournament(book, rows, generator())
    expected = brute_force(book.matrix, rows[0])
    assert expected is not None
    assert set(zip(pairs.chosen.tolist(), pairs.rejected.tolist(), strict=True)) == {expected}
    share = np.mean([int(a) < int(b) for _, a, b in book.calls[0]])
    assert abs(share - 0.5) < 4 * 0.5 / np.sqrt(1600)


def test_both_orders_cancel_a_judges_taste_for_the_first_place():
    matrix = np.array([[0.5, 0.45], [0.55, 0.5]])
    preference, queries = query_preferences(
        Book(matrix, favour=0.2), np.zeros(1, int), ["0"], ["1"], generator(), orders="both"
    )
    np.testing.assert_allclose(preference, [0.45], atol=1e-15)
    assert queries == 2


def failing(matrix: NDArray[np.float64], broken: int) -> Compare:
    """Fails for one prompt."""
    return lambda prompt, a, b: np.where(prompt == broken, np.nan, Book(matrix)(prompt, a, b))


def test_a_prompt_with_a_failed_comparison_is_dropped_and_counted_and_never_a_tie():
    matrix = random_game(8, 5)
    rows = [[str(i) for i in range(8)]] * 3
    pairs = tournament(failing(matrix, 1), rows, generator())
    assert (pairs.failed, pairs.ties) == (1, 0)
    assert 1 not in pairs.prompt
    assert pairs.queries == 2 * 11 + 4  # the broken prompt leaves after its first round
    pairs = iid(failing(matrix, 1), rows, generator(), label="soft")
    assert (pairs.failed, len(pairs), pairs.ties) == (4, 8, 0)


def test_one_failed_order_of_two_is_a_failure():
    def compare(prompt: NDArray[np.int64], first: Sequence[str], second: Sequence[str]) -> NDArray[np.float64]:
        return np.where(np.array(first) == "a", np.nan, 0.3)

    preference, queries = query_preferences(compare, np.zeros(1, int), ["a"], ["b"], generator(), orders="both")
    assert np.isnan(preference).all()
    assert queries == 2


def test_iid_pairs_are_disjoint_neighbours_in_the_order_sampled():
    matrix = random_game(6, 2)
    rows = texts(50, 8, 6, seed=1)
    book = Book(matrix)
    pairs = iid(book, rows, generator(), label="soft")
    assert len(pairs) == 200
    np.testing.assert_array_equal(pairs.chosen, np.tile([0, 2, 4, 6], 50))
    np.testing.assert_array_equal(pairs.rejected, np.tile([1, 3, 5, 7], 50))
    expected = [matrix[int(rows[i][a]), int(rows[i][a + 1])] for i in range(50) for a in (0, 2, 4, 6)]
    np.testing.assert_allclose(pairs.preference, expected, atol=1e-15)
    equal = sum(row[a] == row[a + 1] for row in rows for a in (0, 2, 4, 6))
    assert pairs.ties == equal > 0
    assert pairs.queries == book.questions == 200 - equal


def test_iid_argmax_chooses_the_preferred_one_and_an_odd_one_stays_alone():
    pairs = iid(Book(np.array([[0.5, 0.2], [0.8, 0.5]])), [["0", "1", "1"]], generator())
    assert (pairs.chosen.tolist(), pairs.rejected.tolist(), pairs.preference.tolist()) == ([1], [0], [1.0])


@pytest.mark.parametrize("pairing", [tournament, iid])
def test_sampled_labels_choose_the_first_as_often_as_its_preference_says(pairing):
    matrix = np.array([[0.5, 0.7], [0.3, 0.5]])
    n = 4000
    pairs = pairing(Book(matrix), [["0", "1"]] * n, generator(), label="sampled")
    share = np.mean(pairs.chosen == 0)
    # The tournament of two keeps a pair where two independent games agree: .49 against .09.
    expected = 0.7 if pairing is iid else 0.49 / 0.58
    assert abs(share - expected) < 4 * 0.5 / np.sqrt(len(pairs))
    assert (pairs.preference == 1).all()


def test_a_soft_tournament_keeps_every_final_with_its_own_preference():
    matrix = np.array([[0.5, 0.9, 0.2, 0.6], [0.1, 0.5, 0.7, 0.6], [0.8, 0.3, 0.5, 0.6], [0.4, 0.4, 0.4, 0.5]])
    rows = texts(100, 4, 4, seed=2)
    pairs = tournament(Book(matrix), rows, generator(), label="soft")
    assert (len(pairs), pairs.dropped) == (100, 0)
    finals = [
        matrix[int(rows[i][a]), int(rows[i][b])]
        for i, a, b in zip(pairs.prompt, pairs.chosen, pairs.rejected, strict=True)
    ]
    np.testing.assert_allclose(pairs.preference, finals, atol=1e-15)


@pytest.mark.parametrize("label", ["argmax", "sampled", "soft"])
def test_the_same_seed_gives_the_same_pairs(label: Label):
    rows = texts(30, 8, 5, seed=7)
    one, two = (tournament(Book(random_game(5, 1)), rows, generator(3), label=label) for _ in range(2))
    for name in ("prompt", "chosen", "rejected", "preference"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))


@pytest.mark.parametrize(
    ("pairing", "rows", "message"),
    [
        (tournament, [["a"] * 6], "needs 2, 4, 8, 16, ... responses a prompt, got 6"),
        (tournament, [["a"]], r"at least 2; got \[1\]"),
        (iid, [["a"]], r"at least 2; got \[1\]"),
        (iid, [["a"] * 2, ["a"] * 4], r"the same number of responses, at least 2; got \[2, 4\]"),
        (iid, [], "at least 2; got none"),
    ],
)
def test_impossible_numbers_of_responses_are_refused(pairing, rows: list[list[str]], message: str):
    with pytest.raises(ValueError, match=message):
        pairing(Book(np.eye(2)), rows, generator())


def test_a_comparison_that_returns_the_wrong_number_is_refused():
    with pytest.raises(ValueError, match=r"returned shape \(1,\) for 4 questions"):
        tournament(lambda *_: np.array([0.5]), [[str(i) for i in range(8)]], generator())


def test_cycle_rate_counts_strict_cycles_among_triples_of_distinct_texts():
    rock_paper_scissors = np.array([[0.5, 0.9, 0.1], [0.1, 0.5, 0.9], [0.9, 0.1, 0.5]])
    rows = [["0", "1", "2", "0"]]
    assert cycle_rate(Book(rock_paper_scissors), rows, generator(), triples=20) == 1.0
    ordered = np.array([[0.5, 0.9, 0.9], [0.1, 0.5, 0.9], [0.1, 0.1, 0.5]])
    assert cycle_rate(Book(ordered), rows, generator(), triples=20) == 0.0
    tied = rock_paper_scissors.copy()
    tied[0, 1] = tied[1, 0] = 0.5
    assert cycle_rate(Book(tied), rows, generator(), triples=20) == 0.0


def test_cycle_rate_equals_the_share_over_all_triples_of_a_random_game():
    matrix = random_game(9, 11)
    cycles = [
        (matrix[i, j] > 0.5) == (matrix[j, k] > 0.5) == (matrix[k, i] > 0.5)
        for i in range(9)
        for j in range(i)
        for k in range(j)
    ]
    rate = cycle_rate(Book(matrix), [[str(i) for i in range(9)]], generator(), triples=4000)
    assert abs(rate - np.mean(cycles)) < 4 * 0.5 / np.sqrt(4000)


def test_cycle_rate_needs_three_texts_and_leaves_failed_triples_out():
    with pytest.raises(ValueError, match="no prompt has three different responses"):
        cycle_rate(Book(np.eye(2)), [["0", "1", "1"]], generator(), triples=3)
    nothing = cycle_rate(lambda p, a, b: np.full(len(a), np.nan), [["0", "1", "2"]], generator(), triples=3)
    assert np.isnan(nothing)
