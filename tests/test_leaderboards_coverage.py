"""What the intervals cover and how often the tests reject a true null: the table of docs/statistics.md.

`python tests/test_leaderboards_coverage.py` prints the table, `pytest -m slow` checks it against the limits and the
document.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from leaderboards.boards.arena_hard import LABELS, scores_of_games
from leaderboards.statistics.collapse import collapsed_seeds
from leaderboards.statistics.intervals import estimate_and_test, mean_estimate
from leaderboards.statistics.length_control import (
    PENALTIES,
    LengthControl,
    _fit,
    _training_rows,
    length_controlled_winrate,
)
from leaderboards.statistics.paired import compare_algorithms, pooled_seed_variance

DOCUMENT = Path(__file__).parents[1] / "docs" / "statistics.md"
LEAST = 0.93
REPETITIONS = 2000
SIZES = (10, 30, 80, 805)


@dataclass(frozen=True)
class Row:
    """One line of the table; rates are of a nominal 95% and 5%, `exact` where no draw was made."""

    outcome: str
    size: str
    coverage: float
    rejected: float
    width: float
    reference: float
    draws: int
    excepted: bool = False

    @property
    def error(self) -> float:
        return 2 * np.sqrt(LEAST * (1 - LEAST) / self.draws) if self.draws else 0.0

    @property
    def name(self) -> str:
        """As the document has it: a star marks what may cover less."""
        return f"{self.outcome} *" if self.excepted else self.outcome

    def line(self) -> str:
        figures = f"{self.coverage:.3f} | {self.rejected:.3f} | {self.width:.3f} | {self.reference:.3f}"
        return f"| {self.name} | {self.size} | {figures} | {self.draws or 'exact'} |"


# --- shares: exact, by the binomial law ---------------------------------------------------------------------------


def shares() -> Iterator[Row]:
    for n, share in itertools.product(SIZES, (0.02, 0.05, 0.1, 0.3, 0.5, 0.7, 0.9, 0.95, 0.98)):
        wins = np.arange(n + 1)
        mass = stats.binom.pmf(wins, n, share)
        likely = wins[mass > 1e-7]
        seen = [estimate_and_test(np.repeat([0.0, 1.0], [n - k, k]), None, bounds=(0, 1), level=0.95) for k in likely]
        ends = np.array([(e.ci_low, e.ci_high) for e, _ in seen])
        exact = np.array([stats.binomtest(int(k), n).proportion_ci(method="exact") for k in likely])
        of = mass[likely]
        yield Row(
            f"share {share:g}",
            f"{n}",
            float(of @ ((ends[:, 0] <= share) & (share <= ends[:, 1]))),
            float(of @ [mean.p_value(share) < 0.05 for _, mean in seen]),
            float(of @ np.diff(ends).ravel()),
            float(of @ np.diff(exact).ravel()),
            0,
        )


# --- other means over prompts ------------------------------------------------------------------------------------

Draw = Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray | None]]


def of_values(values: list[float], chances: list[float]) -> tuple[Draw, float]:
    """Independent prompts with these values, and their mean."""
    return (lambda g, n: (g.choice(values, size=n, p=chances), None)), float(np.dot(values, chances))


def arena_hard() -> tuple[Draw, float]:
    """Two games a prompt, a third of the prompts hard; decisive verdicts weigh three."""
    hard, easy = np.array([0.4, 0.3, 0.1, 0.1, 0.1]), np.array([0.05, 0.2, 0.2, 0.25, 0.3])
    labels, swapped = list(LABELS), [label[::-1].replace(">", "<").replace("<", ">") for label in LABELS]
    pairs = list(itertools.product(range(5), range(5)))
    mass = np.array([np.mean([hard[i] * hard[j], easy[i] * easy[j], easy[i] * easy[j]]) for i, j in pairs])
    scores = [scores_of_games(labels[i], swapped[j]) for i, j in pairs]
    value, weight = np.array([np.mean(s) for s in scores]), np.array([float(len(s)) for s in scores])

    def draw(g: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        prompts = g.choice(len(pairs), size=n, p=mass)
        return value[prompts], weight[prompts]

    return draw, float((mass * weight) @ value / (mass @ weight))


def means() -> Iterator[Row]:
    third = {"0 / .5 / 1, even": [0.35, 0.3, 0.35], "0 / .5 / 1, rare wins": [0.9, 0.06, 0.04]}
    cases = {name: (*of_values([0, 0.5, 1], p), (0, 1)) for name, p in third.items()}
    cases["five-way"] = (*of_values([0, 0.25, 0.5, 0.75, 1], [0.1, 0.2, 0.3, 0.25, 0.15]), (0, 1))
    cases["five-way, nearly all won"] = (*of_values([0, 0.25, 0.5, 0.75, 1], [0.02, 0.01, 0.02, 0.05, 0.9]), (0, 1))
    cases["Arena-Hard weights"] = (*arena_hard(), (0, 1))
    steps = [-1, -0.5, 0, 0.5, 1]
    cases["difference, five-way"] = (*of_values(steps, [0.1, 0.2, 0.4, 0.2, 0.1]), (-1, 1))
    for rare in (0.02, 0.05, 0.1):
        both = of_values([-1, 0, 1], [rare / 2, 1 - rare, rare / 2])
        cases[f"difference, {rare:g} rare +1 and -1"] = (*both, (-1, 1))
        cases[f"difference, {rare:g} rare +1"] = (*of_values([0, 1], [1 - rare, rare]), (-1, 1))
        null = of_values([-rare / (1 - rare), 1], [1 - rare, rare])
        cases[f"difference, skewed two-point of mean 0, rare {rare:g}"] = (*null, (-1, 1))
    for (name, (draw, truth, bounds)), n in itertools.product(cases.items(), SIZES):
        yield _mean_row(name, n, draw, truth, bounds)


def _mean_row(name: str, n: int, draw: Draw, truth: float, bounds: tuple[float, float]) -> Row:
    generator = np.random.default_rng([n, len(name)])
    samples: dict[bytes, tuple[float, ...]] = {}  # what a sample gives, whatever its order: rare outcomes repeat
    figures = []
    for _ in range(REPETITIONS):
        values, weights = draw(generator, n)
        order = np.argsort(values if weights is None else values + 10 * weights)
        key = values[order].tobytes() + (b"" if weights is None else weights[order].tobytes())
        if key not in samples:
            samples[key] = _of_sample(values, weights, truth, bounds)
        figures.append(samples[key])
    return Row(name, f"{n}", *np.mean(figures, axis=0).tolist(), draws=REPETITIONS)


def _of_sample(
    values: np.ndarray, weights: np.ndarray | None, truth: float, bounds: tuple[float, float]
) -> tuple[float, ...]:
    """Whether the truth is covered, whether it is rejected, the width, and that of the plain t interval."""
    estimate, mean = estimate_and_test(values, weights, bounds=bounds, level=0.95)
    student = mean_estimate(values, weights)
    covered, rejected = estimate.ci_low <= truth <= estimate.ci_high, mean.p_value(truth) < 0.05
    plain = float(np.nan_to_num(student.ci_high - student.ci_low))
    return float(covered), float(rejected), estimate.ci_high - estimate.ci_low, plain


# --- algorithms over seeds -----------------------------------------------------------------------------------------

TRAINERS, PROMPTS, SEED_SD, COLLAPSE, SHARE = 4, 120, 0.03, -0.2, 0.15


def trainers(g: np.random.Generator, seeds: int, kind: str) -> np.ndarray:
    """Scores [trainers, seeds, prompts] of equal means; the first trainer varies thrice as much, or may collapse."""
    sd = np.full((TRAINERS, 1, 1), SEED_SD)
    sd[0] *= 3 if kind == "unequal" else 1
    of_seeds = sd * g.normal(size=(TRAINERS, seeds, 1)) + 0.03 * g.normal(size=(1, seeds, 1))
    if kind == "collapsing":
        of_seeds[0] += COLLAPSE * (g.random((seeds, 1)) < SHARE)
    of_prompts = 0.3 * g.normal(size=(1, 1, PROMPTS)) + 0.15 * g.normal(size=(TRAINERS, 1, PROMPTS))
    return of_seeds + of_prompts + 0.2 * g.normal(size=(TRAINERS, seeds, PROMPTS))


def algorithms() -> Iterator[Row]:
    for kind, seeds in itertools.product(("equal", "unequal", "collapsing"), (2, 3, 5, 10)):
        yield from _algorithm_rows(kind, seeds)


def _algorithm_rows(kind: str, seeds: int) -> Iterator[Row]:
    generator = np.random.default_rng([seeds, len(kind)])
    truth = COLLAPSE * SHARE if kind == "collapsing" else 0.0
    made = []
    for _ in range(REPETITIONS):
        table = trainers(generator, seeds, kind)
        shifted = table[0] - truth  # so that the null holds
        made.append(compare_algorithms(shifted, table[1], alike=pooled_seed_variance(table)))
    rejected = float(np.mean([c.p_value < 0.05 for c in made]))
    own, pooled = [c.difference for c in made], [c.if_alike for c in made]
    (coverage, width), (if_alike, narrower) = _of_estimates(own), _of_estimates(pooled)
    name, size = f"algorithms, seeds vary: {kind}", f"{seeds} seeds"
    yield Row(name, size, coverage, rejected, width, narrower, REPETITIONS, kind == "collapsing")
    if kind != "collapsing":
        told = f"{name}; if all trainers vary alike"
        yield Row(told, size, if_alike, 1 - if_alike, narrower, width, REPETITIONS, kind == "unequal")


def _of_estimates(estimates: list) -> tuple[float, float]:
    """Coverage of 0 and mean width."""
    ends = np.array([(e.ci_low, e.ci_high) for e in estimates])
    return float(((ends[:, 0] <= 0) & (ends[:, 1] >= 0)).mean()), float(np.diff(ends).mean())


def collapses() -> Iterator[str]:
    """How often a collapsed seed is named, and a sound one."""
    for seeds in (2, 3, 5, 10):
        generator = np.random.default_rng(seeds)
        fallen, named, sound, false = 0, 0, 0, 0
        for _ in range(500):
            table = trainers(generator, seeds, "equal")
            down = generator.random(seeds) < SHARE
            table[0, down] += COLLAPSE
            seen = collapsed_seeds({str(i): scores for i, scores in enumerate(table)})
            right = set(np.flatnonzero(down)) & set(seen.get("0", ()))
            fallen, named = fallen + int(down.sum()), named + len(right)
            sound += TRAINERS * seeds - int(down.sum())
            false += sum(map(len, seen.values())) - len(right)
        yield f"| {seeds} seeds | {named / fallen:.3f} | {false / sound:.4f} |"


# --- length control ------------------------------------------------------------------------------------------------


def length_world(g: np.random.Generator, n: int, skill: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Length differences, difficulties and graded preferences of n prompts; the longer answer is preferred."""
    delta, hard = g.normal(-0.4, 1, n), g.normal(0, 1, n)
    chance = 1 / (1 + np.exp(-(skill - 0.9 * np.tanh(delta) + 0.5 * hard)))
    return delta, hard, g.beta(2 * chance, 2 * (1 - chance))


def length_control() -> Iterator[Row]:
    for n, draws, skill in ((200, 200, -0.5), (805, 50, -0.5)):
        generator = np.random.default_rng(n)
        delta, hard, liked = length_world(generator, 2 * n, 0.0)
        gamed = np.column_stack([np.tanh(delta), hard, np.zeros(2 * n)])
        truth = _population_rate(generator, n, skill, gamed, liked)
        estimates, published = [], []
        for _ in range(draws):
            delta, hard, y = length_world(generator, n, skill)
            control = LengthControl(difficulty=dict(enumerate(hard)), gamed_features=gamed, gamed_preferences=liked)
            rate = length_controlled_winrate(y, delta, range(n), control)
            estimates.append((rate.estimate.ci_low - truth, rate.estimate.ci_high - truth))
            published.append(2 * 1.96 * rate.standard_error)
        low, high = np.array(estimates).T
        coverage = float(((low <= 0) & (high >= 0)).mean())
        yield Row(
            "length-controlled win rate", f"{n}", coverage, 1 - coverage, float((high - low).mean()) / 100,
            float(np.mean(published)) / 100, draws, excepted=True,
        )  # fmt: skip


def _population_rate(g: np.random.Generator, n: int, skill: float, gamed: np.ndarray, liked: np.ndarray) -> float:
    """Upstream's estimand: the same fit, hardly penalised, on 50 times as many prompts that weigh as much as n."""
    delta, hard, y = length_world(g, 50 * n, skill)
    features = np.column_stack([np.tanh(delta / delta.std(ddof=1)), hard, np.ones(50 * n)])
    control = LengthControl(difficulty={}, gamed_features=gamed, gamed_preferences=liked)
    x, labels, weights = _training_rows(features, y, control)
    weights[len(gamed) :] /= 50
    coefficients = _fit(x, labels, weights, PENALTIES[-1])
    return 100 * float((1 / (1 + np.exp(-(features * [0, 1, 1]) @ coefficients))).mean())


# --- the table -----------------------------------------------------------------------------------------------------


@cache
def rows() -> tuple[Row, ...]:
    return (*shares(), *means(), *algorithms(), *length_control())


def table() -> str:
    """The tables as docs/statistics.md has them."""
    head = "| outcome | prompts or seeds | coverage | true null rejected | mean width | beside | draws |"
    rule = "|---|---|---|---|---|---|---|"
    named = "| seeds | collapsed ones named | sound ones named |\n|---|---|---|"
    return "\n".join([head, rule, *(row.line() for row in rows()), "", named, *collapses()])


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_no_interval_covers_less_and_no_test_rejects_more_than_it_says():
    low = [row.line() for row in rows() if not row.excepted and row.coverage < LEAST - row.error]
    eager = [row.line() for row in rows() if not row.excepted and row.rejected > 1 - LEAST + row.error]
    assert not low
    assert not eager
    for row in rows():
        if row.outcome.startswith("share"):
            assert row.width == pytest.approx(row.reference)  # Clopper and Pearson's, by scipy


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_document_holds_this_table():
    written = {}
    for line in DOCUMENT.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 7:
            written[cells[0], cells[1]] = cells[2:4]
    for row in rows():
        coverage, rejected = map(float, written[row.name, row.size])
        assert coverage == pytest.approx(row.coverage, abs=0.02)
        assert rejected == pytest.approx(row.rejected, abs=0.02)


if __name__ == "__main__":
    sys.stdout.write(table() + "\n")
