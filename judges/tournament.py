"""Pairs to train on, from comparisons of K responses to each prompt; and how often a judge's majorities are cyclic.

Nothing here knows a judge: `compare(prompt index int64 [m], first, second)` returns P(first beats second) with `first`
placed first, float64 [m], NaN where it failed. Each round of all prompts is one call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from judges.verdicts import empty_outcome

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Responses = Sequence[Sequence[str]]
Compare = Callable[[Ints, Sequence[str], Sequence[str]], Floats]
Orders = Literal["one", "both"]
Label = Literal["argmax", "sampled", "soft"]


@dataclass(frozen=True)
class PreferencePairs:
    """Pairs of responses to train on, and what they cost.

    Attributes:
        prompt: int64 [m], the prompt of each pair.
        chosen, rejected: int64 [m], indices among that prompt's responses.
        preference: float64 [m], P(chosen beats rejected): 1 for the hard labels `argmax` and `sampled`; for `soft` the
            judge's own probability, below 1/2 where it prefers the second.
        queries: questions put to the judge; equal or empty texts cost none.
        failed: pairs lost because a comparison failed.
        dropped: pairs left out because the tournament's loser beat its winner in the last comparison.
        ties: comparisons at exactly 1/2, equal texts among them.
        win_rates: float64 [m, 2], mean preference of chosen and rejected over the prompt's other responses, where a
            protocol compares all with all.
    """

    prompt: Ints
    chosen: Ints
    rejected: Ints
    preference: Floats
    queries: int
    failed: int
    dropped: int
    ties: int
    win_rates: Floats | None = None

    def __len__(self) -> int:
        return len(self.prompt)


def tournament(
    compare: Compare,
    responses: Responses,
    generator: np.random.Generator,
    *,
    label: Label = "argmax",
    orders: Orders = "one",
) -> PreferencePairs:
    """At most one pair a prompt: the winner of a knock-out among K responses against the loser of all.

    Responses meet in the order sampled; then winners meet winners and losers meet losers until one of each is left.
    These two are compared once more, and the pair is kept only where the winner wins (INPO, arXiv 2407.00617): 3K/2 - 1
    comparisons, 11 for K = 8. A tie is won by the first. A prompt with a failed comparison is dropped and counts as
    `failed`. With `soft` games are decided as with `argmax`, and the last comparison is the label, not a test.

    Args:
        compare: P(first beats second) as placed.
        responses: [n][K] texts, K a power of two, at least 2.
        generator: draws the order of each comparison (`orders="one"`) and the outcomes of `sampled` games.
        label: `argmax`: the first wins where p >= 1/2; `sampled`: with probability p; `soft`: the pair keeps p.
        orders: `one`, drawn for each comparison; `both` asks twice and takes the mean.

    Raises:
        ValueError: K below 2, not a power of two, or not the same for all prompts.
    """
    n, k = _shape(responses)
    if k & (k - 1):
        raise ValueError(f"a tournament needs 2, 4, 8, 16, ... responses a prompt, got {k}; iid pairs take any number")
    referee = _Referee(compare, responses, generator, label, orders, alive=np.ones(n, dtype=bool))
    everyone = np.tile(np.arange(k), (n, 1))
    first_wins = referee.play(everyone[:, 0::2], everyone[:, 1::2])[1]
    brackets = np.stack([_advance(everyone, first_wins), _advance(everyone, ~first_wins)], axis=1)
    while brackets.shape[2] > 1:
        first_advances = referee.play(brackets[..., 0::2], brackets[..., 1::2])[1]
        first_advances[:, 1] ^= True  # the losers' bracket passes on whoever lost
        brackets = _advance(brackets, first_advances)
    winner, loser = brackets[:, 0, 0], brackets[:, 1, 0]
    preference, winner_wins = referee.play(winner, loser)
    keep = referee.alive & (winner_wins | (label == "soft"))
    return PreferencePairs(
        prompt=np.flatnonzero(keep),
        chosen=winner[keep],
        rejected=loser[keep],
        preference=preference[keep] if label == "soft" else np.ones(keep.sum()),
        queries=referee.queries,
        failed=int((~referee.alive).sum()),
        dropped=int((referee.alive & ~keep).sum()),
        ties=referee.ties,
    )


def iid(
    compare: Compare,
    responses: Responses,
    generator: np.random.Generator,
    *,
    label: Label = "argmax",
    orders: Orders = "one",
) -> PreferencePairs:
    """K // 2 disjoint pairs a prompt, in the order sampled: independent draws of the policy, as the theory needs them.

    Pairs of equal texts are kept, because the theory counts them. With `soft`, chosen is the first of the two and
    rejected the second, whoever is better. With an odd K the last response is unused.

    Args and errors: as `tournament`, for any K of at least 2.
    """
    n, k = _shape(responses)
    prompt = np.repeat(np.arange(n), k // 2)
    first = np.tile(np.arange(0, k - 1, 2), n)
    texts = [(responses[i][a], responses[i][a + 1]) for i, a in zip(prompt, first, strict=True)]
    preference, queries = query_preferences(
        compare, prompt, [a for a, _ in texts], [b for _, b in texts], generator, orders=orders
    )
    first_wins = _first_wins(preference, label, generator) | (label == "soft")
    answered = ~np.isnan(preference)
    return PreferencePairs(
        prompt=prompt[answered],
        chosen=np.where(first_wins, first, first + 1)[answered],
        rejected=np.where(first_wins, first + 1, first)[answered],
        preference=preference[answered] if label == "soft" else np.ones(answered.sum()),
        queries=queries,
        failed=int((~answered).sum()),
        dropped=0,
        ties=int((preference == 0.5).sum()),
    )


def best_worst(
    compare: Compare,
    responses: Responses,
    generator: np.random.Generator,
    *,
    label: Label = "argmax",
    orders: Orders = "one",
) -> PreferencePairs:
    """One pair a prompt: the response with the highest mean win rate over the others, and the one with the lowest.

    All K (K - 1) / 2 pairs are compared (SPPO, arXiv 2405.00675, section 4). Among equals the first sampled is best and
    the last is worst. A prompt with a failed comparison is left out. The label is hard whatever `label` says.

    Args and errors: as `tournament`, for any K of at least 2.
    """
    n, k = _shape(responses)
    one, other = np.triu_indices(k, 1)
    prompt = np.repeat(np.arange(n), len(one))
    firsts = [texts[i] for texts in responses for i in one]
    seconds = [texts[i] for texts in responses for i in other]
    preference, queries = query_preferences(compare, prompt, firsts, seconds, generator, orders=orders)
    table = np.zeros((n, k, k))
    table[:, one, other], table[:, other, one] = preference.reshape(n, -1), 1 - preference.reshape(n, -1)
    rates = table.sum(axis=2) / (k - 1)
    kept = np.flatnonzero(~np.isnan(rates).any(axis=1))
    best, worst = rates[kept].argmax(axis=1), k - 1 - rates[kept][:, ::-1].argmin(axis=1)
    return PreferencePairs(
        prompt=kept,
        chosen=best,
        rejected=worst,
        preference=np.ones(len(kept)),
        queries=queries,
        failed=n - len(kept),
        dropped=0,
        ties=int((preference == 0.5).sum()),
        win_rates=np.stack([rates[kept, best], rates[kept, worst]], axis=1),
    )


def query_preferences(
    compare: Compare,
    prompt: Ints,
    first: Sequence[str],
    second: Sequence[str],
    generator: np.random.Generator,
    *,
    orders: Orders = "one",
) -> tuple[Floats, int]:
    """P(first beats second), float64 [m], NaN where it failed, and how many questions that took.

    Equal texts are 1/2 without a question, and a pair with an empty text has `judges.verdicts.empty_outcome`. With
    `one` a coin decides for each comparison which text is placed first;
    with `both` each is asked twice, and the mean of what was answered counts.

    Raises:
        ValueError: `compare` returns a different number of preferences than requested.
    """
    coins = generator.random(len(first)) < 0.5
    outcomes = [0.5 if a == b else empty_outcome(a, b) for a, b in zip(first, second, strict=True)]
    undecided = np.array([i for i, outcome in enumerate(outcomes) if outcome is None], dtype=np.int64)
    swapped = coins[undecided] if orders == "one" else np.repeat([False, True], len(undecided))
    index = undecided if orders == "one" else np.tile(undecided, 2)
    placed = [(second[i], first[i]) if swap else (first[i], second[i]) for i, swap in zip(index, swapped, strict=True)]
    preference = np.array(outcomes, dtype=np.float64)
    if len(index) == 0:
        return preference, 0
    raw = np.asarray(compare(prompt[index], [a for a, _ in placed], [b for _, b in placed]), dtype=np.float64)
    if raw.shape != index.shape:
        raise ValueError(f"the comparison returned shape {raw.shape} for {len(index)} questions: one preference each")
    answers = np.where(swapped, 1 - raw, raw).reshape(-1, len(undecided))
    preference[undecided] = answers.mean(axis=0)  # NaN where an order failed: one order alone would favour a place
    return preference, len(index)


def cycle_rate(compare: Compare, responses: Responses, generator: np.random.Generator, *, triples: int) -> float:
    """Share of random triples whose pairwise majority is a strict cycle, in 0..1.

    A triple is three different texts for one prompt: a prompt drawn uniformly among those that have three, then three
    of its distinct texts. Each of its three pairs is asked in both orders. It is a cycle where every majority is strict
    (p away from 1/2) and each text beats exactly one other. Triples with a failed pair are left out; NaN where none is
    left.

    Raises:
        ValueError: no prompt has three different responses.
    """
    distinct = [sorted(set(texts)) for texts in responses]
    eligible = [i for i, texts in enumerate(distinct) if len(texts) >= 3]
    if not eligible:
        raise ValueError("no prompt has three different responses, so there is no triple to look at")
    prompt = generator.choice(eligible, size=triples)
    chosen = [generator.choice(distinct[i], size=3, replace=False).tolist() for i in prompt]
    first = [texts[side] for texts in chosen for side in range(3)]
    second = [texts[(side + 1) % 3] for texts in chosen for side in range(3)]
    preference, _ = query_preferences(compare, np.repeat(prompt, 3), first, second, generator, orders="both")
    edges = preference.reshape(triples, 3)
    edges = edges[~np.isnan(edges).any(axis=1)]
    cyclic = np.all(edges > 0.5, axis=1) | np.all(edges < 0.5, axis=1)
    return float(cyclic.mean()) if len(edges) else float("nan")


@dataclass
class _Referee:
    """Plays the games of all prompts still alive, and counts queries and ties."""

    compare: Compare
    responses: Responses
    generator: np.random.Generator
    label: Label
    orders: Orders
    alive: Bools
    queries: int = 0
    ties: int = 0

    def play(self, left: Ints, right: Ints) -> tuple[Floats, Bools]:
        """Preferences and whether the left one wins, shaped like `left` [n, ...]; a failed game ends its prompt."""
        prompt = np.broadcast_to(np.arange(len(left)).reshape(-1, *[1] * (left.ndim - 1)), left.shape)[self.alive]
        first = self._texts(prompt, left[self.alive])
        second = self._texts(prompt, right[self.alive])
        answers, queries = query_preferences(
            self.compare, prompt.ravel(), first, second, self.generator, orders=self.orders
        )
        preference = np.full(left.shape, np.nan)
        preference[self.alive] = answers.reshape(prompt.shape)
        self.queries += queries
        self.ties += int((answers == 0.5).sum())
        self.alive = ~np.isnan(preference).reshape(len(left), -1).any(axis=1)
        return preference, _first_wins(preference, self.label, self.generator)

    def _texts(self, prompt: Ints, index: Ints) -> list[str]:
        return [self.responses[i][j] for i, j in zip(prompt.ravel().tolist(), index.ravel().tolist(), strict=True)]


def _first_wins(preference: Floats, label: Label, generator: np.random.Generator) -> Bools:
    if label == "sampled":
        return generator.random(preference.shape) < preference
    return preference >= 0.5


def _advance(entrants: Ints, first_advances: Bools) -> Ints:
    """The entrants that advance, [..., m / 2], from neighbouring pairs along the last axis [..., m]."""
    return np.where(first_advances, entrants[..., 0::2], entrants[..., 1::2])


def _shape(responses: Responses) -> tuple[int, int]:
    sizes = {len(texts) for texts in responses}
    if len(sizes) != 1 or min(sizes) < 2:
        raise ValueError(f"every prompt needs the same number of responses, at least 2; got {sorted(sizes) or 'none'}")
    return len(responses), sizes.pop()
