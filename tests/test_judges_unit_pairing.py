"""Invariants of pairing over random games: prompts may be permuted, names changed, and the judge's sign turned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from judges.tournament import PreferencePairs, best_worst, cycle_rate, iid, query_preferences, tournament

PAIRINGS = [tournament, iid, best_worst]
quick = settings(max_examples=30, deadline=None)
seeds = st.integers(0, 2**32 - 1)
powers = st.sampled_from([2, 4, 8])


def game(seed: int, n: int, k: int) -> np.ndarray:
    """P(i beats j) for each of n prompts: multiples of 1/1024 (so 1 - p is exact), never 1/2, [n, k, k]."""
    upper = np.triu(np.random.default_rng(seed).integers(1, 512, (n, k, k)), 1) / 1024
    sign = np.where(np.random.default_rng(seed + 1).random((n, k, k)) < 0.5, -1, 1)
    return 0.5 + upper * sign - np.swapaxes(upper * sign, 1, 2)


def lookup(table: np.ndarray) -> Any:
    def compare(prompt: np.ndarray, first: Sequence[str], second: Sequence[str]) -> np.ndarray:
        rows = zip(prompt.tolist(), first, second, strict=True)
        return np.array([table[i, int(a), int(b)] for i, a, b in rows])

    return compare


def names(n: int, k: int) -> list[list[str]]:
    return [[str(i) for i in range(k)] for _ in range(n)]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def triples(pairs: PreferencePairs) -> set[tuple[int, int, int]]:
    return set(zip(pairs.prompt.tolist(), pairs.chosen.tolist(), pairs.rejected.tolist(), strict=True))


def transitive(seed: int, n: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """A game where the better rank always wins, and the ranks [n, k]."""
    ranks = np.stack([rng(seed + i).permutation(k) for i in range(n)])
    return 0.5 + (ranks[:, :, None] - ranks[:, None, :]) / 64, ranks


@pytest.mark.parametrize("pairing", PAIRINGS)
@quick
@given(seed=seeds, n=st.integers(1, 6), k=powers)
def test_permuting_the_prompts_permutes_the_pairs(pairing: Any, seed: int, n: int, k: int):
    table, order = game(seed, n, k), rng(seed).permutation(n)
    plain = pairing(lookup(table), names(n, k), rng())
    moved = pairing(lookup(table[order]), names(n, k), rng())
    assert {(int(order[i]), a, b) for i, a, b in triples(moved)} == triples(plain)
    assert (moved.queries, moved.dropped, moved.failed) == (plain.queries, plain.dropped, plain.failed)


@pytest.mark.parametrize("pairing", PAIRINGS)
@quick
@given(seed=seeds, n=st.integers(1, 5), k=powers)
def test_each_prompt_is_paired_as_if_it_were_alone(pairing: Any, seed: int, n: int, k: int):
    table = game(seed, n, k)
    together = triples(pairing(lookup(table), names(n, k), rng(1)))
    alone = [triples(pairing(lookup(table[i : i + 1]), names(1, k), rng(i))) for i in range(n)]
    assert together == {(i, a, b) for i, each in enumerate(alone) for _, a, b in each}


@pytest.mark.parametrize("pairing", PAIRINGS)
@quick
@given(seed=seeds, n=st.integers(1, 5), k=powers)
def test_the_texts_themselves_do_not_matter_only_who_beats_whom(pairing: Any, seed: int, n: int, k: int):
    table, name = game(seed, n, k), rng(seed).permutation(k)
    renamed = np.empty_like(table)
    renamed[:, name[:, None], name[None, :]] = table
    texts = [[str(name[i]) for i in range(k)] for _ in range(n)]
    assert triples(pairing(lookup(renamed), texts, rng())) == triples(pairing(lookup(table), names(n, k), rng()))


@pytest.mark.parametrize("pairing", [tournament, iid])
@quick
@given(seed=seeds, n=st.integers(1, 6), k=powers)
def test_turning_the_judges_sign_swaps_chosen_and_rejected(pairing: Any, seed: int, n: int, k: int):
    table = game(seed, n, k)
    liked = pairing(lookup(table), names(n, k), rng())
    disliked = pairing(lookup(1 - table), names(n, k), rng())
    assert {(i, b, a) for i, a, b in triples(disliked)} == triples(liked)
    assert disliked.dropped == liked.dropped


@quick
@given(seed=seeds, n=st.integers(1, 6), k=st.integers(2, 6))
def test_turning_the_sign_turns_best_to_worst_and_complements_their_rates(seed: int, n: int, k: int):
    table = game(seed, n, k)
    made, turned = (best_worst(lookup(each), names(n, k), rng()) for each in (table, 1 - table))
    rates = (table.sum(axis=2) - 0.5) / (k - 1)
    assert made.win_rates is not None
    assert turned.win_rates is not None
    np.testing.assert_allclose(made.win_rates, np.stack([rates.max(axis=1), rates.min(axis=1)], axis=1), atol=1e-12)
    np.testing.assert_allclose(turned.win_rates, 1 - made.win_rates[:, ::-1], atol=1e-12)


@quick
@given(seed=seeds, n=st.integers(1, 6), k=powers)
def test_a_soft_iid_pair_keeps_the_places_and_complements_with_the_sign(seed: int, n: int, k: int):
    table = game(seed, n, k)
    made, turned = (iid(lookup(each), names(n, k), rng(), label="soft") for each in (table, 1 - table))
    np.testing.assert_array_equal(made.chosen, np.tile(np.arange(0, k, 2), n))
    np.testing.assert_array_equal(made.rejected, made.chosen + 1)
    np.testing.assert_array_equal(made.preference, table[made.prompt, made.chosen, made.rejected])
    np.testing.assert_array_equal(turned.preference, 1 - made.preference)


@quick
@given(seed=seeds, n=st.integers(1, 6), k=powers)
def test_a_soft_tournament_labels_the_finalists_with_their_own_preference(seed: int, n: int, k: int):
    table = game(seed, n, k)
    soft = tournament(lookup(table), names(n, k), rng(), label="soft")
    assert soft.prompt.tolist() == list(range(n))
    np.testing.assert_array_equal(soft.preference, table[soft.prompt, soft.chosen, soft.rejected])
    hard = tournament(lookup(table), names(n, k), rng())
    wins = soft.preference >= 0.5
    assert triples(hard) == {pair for pair, won in zip(sorted(triples(soft)), wins, strict=True) if won}
    assert hard.dropped == (~wins).sum()


@quick
@given(seed=seeds, n=st.integers(1, 6), k=powers)
def test_where_ranks_decide_the_best_meets_the_worst_in_both_protocols(seed: int, n: int, k: int):
    table, ranks = transitive(seed, n, k)
    expected = {(i, int(row.argmax()), int(row.argmin())) for i, row in enumerate(ranks)}
    for pairing in (tournament, best_worst):
        made = pairing(lookup(table), names(n, k), rng(seed))
        assert triples(made) == expected
        assert (made.dropped, made.failed, made.ties) == (0, 0, 0)


@pytest.mark.parametrize("pairing", PAIRINGS)
@quick
@given(seed=seeds, n=st.integers(1, 4), k=powers)
def test_asking_both_orders_doubles_the_questions_and_leaves_a_fair_judges_pairs(
    pairing: Any, seed: int, n: int, k: int
):
    table = game(seed, n, k)
    one = pairing(lookup(table), names(n, k), rng(), orders="one")
    both = pairing(lookup(table), names(n, k), rng(), orders="both")
    assert both.queries == 2 * one.queries
    assert triples(both) == triples(one)


@pytest.mark.parametrize("pairing", PAIRINGS)
@quick
@given(seed=seeds, n=st.integers(2, 6), k=powers)
def test_a_prompt_that_fails_costs_itself_alone(pairing: Any, seed: int, n: int, k: int):
    table = game(seed, n, k)
    whole = pairing(lookup(table), names(n, k), rng())
    table[n - 1] = np.nan
    broken = pairing(lookup(table), names(n, k), rng())
    assert triples(broken) == {each for each in triples(whole) if each[0] != n - 1}
    assert broken.failed == (k // 2 if pairing is iid else 1)


@pytest.mark.parametrize("pairing", PAIRINGS)
@quick
@given(seed=seeds, n=st.integers(1, 5), k=powers)
def test_a_pair_is_two_different_responses_with_a_certain_label(pairing: Any, seed: int, n: int, k: int):
    made = pairing(lookup(game(seed, n, k)), names(n, k), rng(seed), label="argmax")
    assert len(made) == len(made.chosen) == len(made.rejected) == len(made.preference)
    assert (made.chosen != made.rejected).all()
    assert ((made.chosen < k) & (made.rejected < k)).all()
    assert (made.preference == 1).all()


@quick
@given(seed=seeds, m=st.integers(1, 12), favour=st.integers(-100, 100))
def test_a_taste_for_the_first_place_cancels_in_both_orders_and_shows_in_one(seed: int, m: int, favour: int):
    p, extra = rng(seed).integers(200, 800, m) / 1024, favour / 1024
    first, second = [f"a{i}" for i in range(m)], [f"b{i}" for i in range(m)]

    def biased(prompt: np.ndarray, left: Sequence[str], right: Sequence[str]) -> np.ndarray:
        return np.array([(p[i] if a[0] == "a" else 1 - p[i]) + extra for i, a in zip(prompt, left, strict=True)])

    both, asked = query_preferences(biased, np.arange(m), first, second, rng(seed), orders="both")
    np.testing.assert_allclose(both, p, atol=1e-12)
    assert asked == 2 * m
    one, asked = query_preferences(biased, np.arange(m), first, second, rng(seed), orders="one")
    np.testing.assert_allclose(abs(one - p), abs(extra), atol=1e-12)
    assert asked == m


def test_equal_texts_are_a_half_without_a_question_and_the_others_keep_their_prompts():
    seen: list[int] = []

    def compare(prompt: np.ndarray, first: Sequence[str], second: Sequence[str]) -> np.ndarray:
        seen.extend(prompt.tolist())
        return np.full(len(first), 0.5)

    found, asked = query_preferences(compare, np.array([7, 8, 9]), ["a", "b", "c"], ["x", "b", "y"], rng())
    assert seen == [7, 9]
    assert asked == 2
    assert found.tolist() == [0.5, 0.5, 0.5]


def test_asking_about_equal_texts_alone_never_calls_the_judge():
    def never(*_: Any) -> np.ndarray:
        raise AssertionError("asked")

    found, asked = query_preferences(never, np.arange(2), ["a", "b"], ["a", "b"], rng(), orders="both")
    assert (found.tolist(), asked) == ([0.5, 0.5], 0)


def test_a_pair_whose_second_order_fails_is_missing_and_one_whose_orders_agree_is_not():
    def compare(prompt: np.ndarray, first: Sequence[str], second: Sequence[str]) -> np.ndarray:
        return np.array(
            [np.nan if i == 0 and a == "b" else 0.75 if a == "a" else 0.25 for i, a in zip(prompt, first, strict=True)]
        )

    found, _ = query_preferences(compare, np.arange(2), ["a", "a"], ["b", "b"], rng(), orders="both")
    np.testing.assert_array_equal(found, [np.nan, 0.75])


@quick
@given(seed=seeds, k=st.integers(3, 6))
def test_the_cycle_rate_is_blind_to_the_judges_sign_and_nought_where_ranks_decide(seed: int, k: int):
    table = game(seed, 1, k)
    rates = [cycle_rate(lookup(each), names(1, k), rng(seed), triples=30) for each in (table, 1 - table)]
    assert rates[0] == rates[1]
    ordered, _ = transitive(seed, 1, k)
    assert cycle_rate(lookup(ordered), names(1, k), rng(seed), triples=30) == 0.0


@pytest.mark.parametrize("k", [3, 5, 7])
def test_the_rotational_game_has_the_cycles_that_counting_finds(k: int):
    # i beats the next (k - 1) / 2 round the circle: k (k^2 - 1) / 24 cycles, the most a game of k can have.
    step = (np.arange(k)[None, :] - np.arange(k)[:, None]) % k
    table = np.where(step == 0, 0.5, np.where(step <= (k - 1) // 2, 0.75, 0.25))[None]
    share = (k * (k * k - 1) / 24) / (k * (k - 1) * (k - 2) / 6)
    found = cycle_rate(lookup(table), names(1, k), rng(), triples=2000)
    assert abs(found - share) <= 4 * np.sqrt(share * (1 - share) / 2000)


@pytest.mark.parametrize("pairing", PAIRINGS)
@pytest.mark.parametrize("rows", [[], [["a"]], [["a", "b"], ["a"]]])
def test_responses_of_no_common_number_are_refused(pairing: Any, rows: list[list[str]]):
    with pytest.raises(ValueError, match="every prompt needs the same number of responses, at least 2"):
        pairing(lookup(game(0, 1, 2)), rows, rng())
