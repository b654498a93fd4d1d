"""Whether preferences run in circles, and what a scalar reward would miss of them. Pure numpy.

Preferences of pairs that share a prompt are a graph: its distinct responses, and P(one beats the other) for each two
that were compared.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from judges.audit.agreement import bootstrap
from judges.files import Pair
from judges.judge import messages_of

Floats = NDArray[np.float64]
NO_TRIPLE = "no prompt has three responses that were all compared with each other"
RIDGE = 1e-6
"""Keeps Bradley-Terry's scores finite where one response always wins."""


@dataclass(frozen=True)
class Graph:
    """Preferences among the responses to one prompt: `edges[i, j]` with i < j is P(i beats j)."""

    responses: int
    edges: dict[tuple[int, int], float]

    def triples(self) -> tuple[int, int]:
        """Strict cycles (each of three beats exactly one other), and triples whose three pairs were all compared."""
        cycles = complete = 0
        for a, b, c in combinations(range(self.responses), 3):
            if {(a, b), (b, c), (a, c)} <= self.edges.keys():
                signs = np.sign(np.array([self.edges[a, b], self.edges[b, c], 1 - self.edges[a, c]]) - 0.5)
                complete += 1
                cycles += abs(signs.sum()) == 3
        return cycles, complete

    def excess(self) -> tuple[float, int]:
        """The Kullback-Leibler divergence of the preferences from the best Bradley-Terry model, summed over the
        comparisons in nats, and their number; (0, 0) where they form no loop that could contradict the model.
        """
        ends = np.array(list(self.edges))
        incidence = np.zeros((len(ends), self.responses))
        incidence[np.arange(len(ends)), ends[:, 0]], incidence[np.arange(len(ends)), ends[:, 1]] = 1, -1
        if len(ends) == np.linalg.matrix_rank(incidence):
            return 0.0, 0
        preference = np.array(list(self.edges.values()))
        fitted = incidence @ bradley_terry(incidence, preference)
        return float(np.sum(_cross_entropy(preference, fitted) - _entropy(preference))), len(ends)


def transitivity(pairs: Sequence[Pair], preference: Floats, *, seed: int = 0) -> dict[str, Any]:
    """How far preferences, float64 [n] with NaN where there is none, are from those of one score a response.

    Returns:
        `triples`: triples of responses to one prompt whose three pairs were all compared. `cycle_rate`: share of them
        that are strict cycles. `bradley_terry_excess`: how much better a preference free to be intransitive fits than
        Bradley-Terry, per comparison in nats: the log-likelihood ratio of the two, each fitted to the same preferences;
        0 where one score a response explains all. `interval`: 95%, prompts resampled. `prompts`, `comparisons`: on
        which the ratio is. It is not held out: the free preference has a parameter a comparison and fits noise too.
        Without any triple: `triples` 0 and the `reason`; the figures are NaN.
    """
    graphs = _graphs(pairs, preference)
    counted = np.array([[*graph.triples(), *graph.excess()] for graph in graphs]).reshape(-1, 4)
    counted = counted[counted[:, [1, 3]].any(axis=1)]
    cycles, triples, excess, comparisons = counted.sum(axis=0).tolist()
    ends = bootstrap(counted[:, 2:], lambda sums: sums[:, :1] / sums[:, 1:], seed=seed)[0]
    figures = {
        "triples": int(triples),
        "cycle_rate": cycles / triples if triples else float("nan"),
        "bradley_terry_excess": excess / comparisons if comparisons else float("nan"),
        "interval": ends.tolist(),
        "prompts": len(counted),
        "comparisons": int(comparisons),
    }
    return figures if triples else figures | {"reason": NO_TRIPLE}


def bradley_terry(incidence: Floats, preference: Floats) -> Floats:
    """The scores [responses] that fit P(i beats j) = sigmoid(score_i - score_j) best in cross-entropy.

    Newton's method with steps of at most 2 nats. Args: incidence [comparisons, responses], +1 and -1 in each row;
    preference [comparisons].
    """
    scores = np.zeros(incidence.shape[1])
    for _ in range(200):
        fitted = 0.5 * (1 + np.tanh(incidence @ scores / 2))
        gradient = incidence.T @ (fitted - preference) + RIDGE * scores
        if np.abs(gradient).max() < 1e-10:
            break
        hessian = incidence.T @ ((fitted * (1 - fitted))[:, None] * incidence) + RIDGE * np.eye(len(scores))
        step = np.linalg.solve(hessian, gradient)
        scores -= step * min(1.0, 2 / np.abs(step).max())
    return scores


def _graphs(pairs: Sequence[Pair], preference: Floats) -> list[Graph]:
    """A graph a prompt; a pair that was compared several times has its mean preference, equal texts are no pair."""
    answered: dict[str, dict[tuple[str, str], list[float]]] = defaultdict(lambda: defaultdict(list))
    for pair, p in zip(pairs, preference.tolist(), strict=True):
        if not np.isnan(p) and pair.first != pair.second:
            first, second = sorted((pair.first, pair.second))
            edges = answered[json.dumps(messages_of(pair.prompt))]
            edges[first, second].append(p if first == pair.first else 1 - p)
    return [_graph(edges) for edges in answered.values()]


def _graph(answered: dict[tuple[str, str], list[float]]) -> Graph:
    names = sorted({text for texts in answered for text in texts})
    number = {name: i for i, name in enumerate(names)}
    edges = {(number[a], number[b]): float(np.mean(p).round(12)) for (a, b), p in answered.items()}
    return Graph(len(names), edges)


def _cross_entropy(preference: Floats, log_odds: Floats) -> Floats:
    return np.logaddexp(0, log_odds) - preference * log_odds


def _entropy(preference: Floats) -> Floats:
    p = preference.clip(1e-15, 1 - 1e-15)
    return -(p * np.log(p) + (1 - p) * np.log1p(-p))
