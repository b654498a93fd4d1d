"""The length-controlled win rate of AlpacaEval 2.0 (arXiv 2404.04475), with an interval that knows the fit.

Follows alpaca-eval 0.6.6, `metrics/glm_winrate.py`, to its solver: a logistic regression of the graded preference on
tanh of the standardised length difference, the instruction's difficulty and the model, fitted together with two
"gamed" baselines at weight 0.1 each, L1-penalised with liblinear, the penalty chosen by five-fold cross-validation;
then the mean prediction at equal lengths. The gamed baselines share the coefficient of length, so this is upstream's
estimand and not what the win rate would be if both were equally long: in two models it missed that by 4.8 and 8.1
points. liblinear stops early, and published figures carry that: the exact optimum
can lie 0.005 points away, so the same solver is used. The published standard error leaves the fit's uncertainty out;
the interval here does not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from leaderboards.sources import find_file, read_table
from leaderboards.statistics.intervals import Estimate, mean_estimate
from leaderboards.statistics.means import Floats

PENALTIES = np.logspace(-4, 4, 10)  # scikit-learn's C: inverse strength
FOLDS = 5
GAMED_WEIGHT = 0.1
CONTROL_FILES = {"instruction_difficulty.csv": "instruction_difficulty.csv", "df_gamed.csv": "df_gamed*.csv"}
"""File -> pattern of names that will do for it."""


@dataclass(frozen=True, kw_only=True)
class LengthControl:
    """What the fit needs besides the annotations.

    Attributes:
        difficulty: difficulty of each instruction, by its number.
        gamed_features: [rows, 3], tanh of the standardised length difference, difficulty, 0.
        gamed_preferences: [rows], of the gamed baselines, in 0..1.
    """

    difficulty: dict[int, float]
    gamed_features: Floats
    gamed_preferences: Floats


@dataclass(frozen=True, kw_only=True)
class LengthControlledRate:
    """The length-controlled win rate of a model, 0..100.

    Attributes:
        estimate: with the interval that knows the fit; `n` and `coverage` are of verdicts.
        standard_error: upstream's (`lc_standard_error`), which leaves the fit's uncertainty out.
        prompt_values: [n], whose mean is the rate and whose spread is its uncertainty (the rate plus each prompt's
            influence, not bounded by 0 and 100): two models are compared by them, prompt by prompt. A prompt whose
            verdict failed has one too, since the fit predicts it.
    """

    estimate: Estimate
    standard_error: float
    prompt_values: Floats


def read_length_control(folder: Path) -> LengthControl:
    """From `instruction_difficulty.csv` and `df_gamed*.csv`, searched for in `folder` and below.

    Upstream downloads both from the Hugging Face data set tatsu-lab/alpaca_eval; nothing is downloaded here.

    Raises:
        ValueError: where one is missing, there are several, or a column is no number.
    """
    paths = {name: find_file(folder, name, pattern) for name, pattern in CONTROL_FILES.items()}
    missing = [CONTROL_FILES[name] for name, path in paths.items() if path is None]
    if missing:
        raise ValueError(f"{folder} holds no {' and no '.join(missing)}; the length-controlled win rate needs them")
    difficulty, gamed = (read_table(path) for path in paths.values() if path)
    try:
        delta, hard, liked = (
            np.array([float(row[name] or "nan") for row in gamed])
            for name in ("std_delta_len", "instruction_difficulty", "preference")
        )
        by_number = {int(next(iter(row.values()))): float(row["instruction_difficulty"]) for row in difficulty}
    except (KeyError, ValueError) as error:
        raise ValueError(f"{folder}: a length control file lacks a column or a number: {error}") from error
    features = np.column_stack([np.tanh(delta), hard, np.zeros(len(gamed))])
    return LengthControl(
        difficulty=by_number, gamed_features=features[~np.isnan(liked)], gamed_preferences=liked[~np.isnan(liked)]
    )


def length_controlled_winrate(
    preferences: ArrayLike,
    length_differences: ArrayLike,
    instructions: Sequence[int],
    control: LengthControl,
) -> LengthControlledRate:
    """The win rate against the baseline that the fit predicts at equal lengths.

    Args:
        preferences: [n], 1 where the model wins, 0 where the baseline does; NaN where the verdict failed.
        length_differences: [n], characters of the baseline's output minus those of the model's; NaN without an output.
        instructions: [n], the instructions' numbers.

    Raises:
        ValueError: for an instruction without difficulty, lengths that differ everywhere by the same, or fewer
            verdicts than a fit needs.
    """
    y, delta = np.asarray(preferences, np.float64), np.asarray(length_differences, np.float64)
    unknown = sorted({number for number in instructions if number not in control.difficulty})
    if unknown:
        raise ValueError(f"{len(unknown)} instructions have no difficulty, such as number {unknown[0]:.0f}")
    spread = np.nanstd(delta, ddof=1) if np.count_nonzero(~np.isnan(delta)) > 1 else 0.0
    if np.count_nonzero(~np.isnan(y)) < FOLDS or spread == 0:
        raise ValueError(f"a fit needs {FOLDS} verdicts and length differences that vary")
    difficulty = np.array([control.difficulty[number] for number in instructions])
    features = np.column_stack([np.tanh(np.nan_to_num(delta) / spread), difficulty, np.ones(len(y))])
    coefficients = _fit_chosen(*_training_rows(features, y, control))
    predicted = 100 * _logistic(features * [0, 1, 1] @ coefficients)
    values = predicted.mean() + 100 * _influence(features, y, control, coefficients)
    return LengthControlledRate(
        estimate=_estimate(values, float(predicted.mean()), ~np.isnan(y)),
        standard_error=float(predicted.std(ddof=1) / math.sqrt(len(y))),
        prompt_values=values,
    )


def _estimate(values: Floats, rate: float, known: NDArray[np.bool_]) -> Estimate:
    """The rate with the interval of its prompt values, and what share of the verdicts there were."""
    interval = mean_estimate(values)
    low, high = np.clip([interval.ci_low, interval.ci_high], 0, 100).tolist()
    return replace(interval, value=rate, ci_low=low, ci_high=high, n=int(known.sum()), coverage=float(known.mean()))


def _training_rows(features: Floats, y: Floats, control: LengthControl) -> tuple[Floats, Floats, Floats]:
    """Features, preferences and weights of the gamed baselines' rows and of the model's verdicts."""
    graded = ~np.isnan(y)
    weights = np.repeat([GAMED_WEIGHT, 1.0], [len(control.gamed_preferences), int(graded.sum())])
    x = np.concatenate([control.gamed_features, features[graded]])
    return x, np.concatenate([control.gamed_preferences, y[graded]]), weights


def _fit_chosen(x: Floats, y: Floats, weights: Floats) -> Floats:
    """Coefficients [3] at the penalty whose held-out weighted log-loss, the mean over folds, is least."""
    from sklearn.model_selection import GroupKFold

    groups = np.tile(np.arange(len(y)), 2)  # upstream splits the rows doubled as in `_fit`
    losses = np.zeros(len(PENALTIES))
    for _, held in GroupKFold(FOLDS).split(groups, groups=groups):
        out = np.isin(np.arange(len(y)), groups[held])
        for i, penalty in enumerate(PENALTIES):
            p = _logistic(x[out] @ _fit(x[~out], y[~out], weights[~out], penalty)).clip(1e-15, 1 - 1e-15)
            losses[i] -= np.mean(weights[out] * (y[out] * np.log(p) + (1 - y[out]) * np.log(1 - p))) / FOLDS
    return _fit(x, y, weights, PENALTIES[losses.argmin()])


def _fit(x: Floats, y: Floats, weights: Floats, penalty: float) -> Floats:
    """Coefficients [3] for graded y: every row stands twice, as a win weighing y and as a loss weighing 1 - y."""
    from sklearn.linear_model import LogisticRegression

    model: Any = LogisticRegression(C=penalty, l1_ratio=1.0, solver="liblinear", fit_intercept=False, random_state=123)
    labels = np.repeat([1, 0], len(y))
    model.fit(np.tile(x, (2, 1)), labels, sample_weight=np.concatenate([y * weights, (1 - y) * weights]))
    return model.coef_[0]


def _influence(features: Floats, y: Floats, control: LengthControl, coefficients: Floats) -> Floats:
    """How much each prompt moves the win rate, [n] with mean 0: through its own prediction and through the fit.

    The fit's part is one Newton step (the infinitesimal jackknife). Length and difficulty at exactly 0 stay there; the
    model's own term never does, or a policy near the baseline would be taken for one that is known to equal it.
    """
    active = (coefficients != 0) | [False, False, True]
    x, _, weights = _training_rows(features, y, control)
    p = _logistic(x @ coefficients)
    x, here, level = x[:, active], features[:, active], (features * [0, 1, 1])[:, active]
    curvature = (x * (weights * p * (1 - p))[:, None]).T @ x
    pull = here * np.nan_to_num(y - _logistic(features @ coefficients))[:, None]
    steps = np.linalg.solve(curvature, (pull - pull.mean(0)).T).T
    predicted = _logistic(level @ coefficients[active])
    slope = (level * (predicted * (1 - predicted))[:, None]).mean(0)
    return predicted - predicted.mean() + len(y) * (steps @ slope)


def _logistic(z: Floats) -> Floats:
    return np.exp(-np.logaddexp(0, -z))
