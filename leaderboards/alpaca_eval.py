"""AlpacaEval 2.0: pairwise verdicts against a baseline's outputs, as the official table rates them.

Follows alpaca-eval 0.6.6, `metrics/winrate.py` and `metrics/helpers.py`. Figures are in 0..100.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from leaderboards.length_control import length_controlled_winrate, read_length_control
from leaderboards.sources import Record, json_interval, json_number, numbers, read_records, texts
from leaderboards.statistics import Estimate, prompt_bootstrap


def rate_alpaca_eval(annotations: Path, files: Path | None = None, *, seed: int = 0) -> dict[str, Any]:
    """The official figures of one model from its annotation file.

    Returns:
        `win_rate`, its `standard_error` (of the mean) and `ci` [low, high], `discrete_win_rate`,
        `length_controlled_winrate` (None without its files; `length_controlled_note` says why), `avg_length`
        (characters, cut to an integer as in the official table), `n_total` (verdicts), `coverage` (of all rows),
        `intervals` of the other two win rates, `ci_level`, `model` and `baseline`. What cannot be told is None.

    Args:
        annotations: JSON or JSON lines with `preference` (1 the baseline wins, 2 the model, 0 or 1.5 a tie; null or
            another number is a failed verdict), `output_1`, `output_2`, `generator_1`, `generator_2`.
        files: a folder that holds `instruction_difficulty.csv` and `df_gamed*.csv`, at any depth.

    Raises:
        ValueError: for a file of another kind or of several models.
    """
    records = read_records(annotations)
    baseline, model = (_only(records, name) for name in ("generator_1", "generator_2"))
    preferences = win_probabilities(numbers(records, "preference"))
    rates = win_rates(preferences, seed=seed)
    win, discrete = rates.pop("win_rate"), rates["discrete_win_rate"]
    controlled, note = _length_controlled(records, preferences, files, seed)
    if controlled:
        rates["length_controlled_winrate"] = controlled
    return {
        "win_rate": json_number(win.value),
        "standard_error": json_number(100 * standard_error(preferences)),
        "discrete_win_rate": json_number(discrete.value),
        "length_controlled_winrate": controlled and json_number(controlled.value),
        "avg_length": int(np.mean([len(text) for text in texts(records, "output_2")])),
        "n_total": win.n,
        "coverage": win.coverage,
        "ci": json_interval(win),
        "ci_level": win.ci_level,
        "intervals": {name: json_interval(estimate) for name, estimate in rates.items()},
        "length_controlled_note": note,
        "model": model,
        "baseline": baseline,
    }


def win_probabilities(preferences: ArrayLike) -> NDArray[np.float64]:
    """Official preferences (1 the baseline, 2 the model, 0 for a tie) as P(the model wins), NaN where it is none."""
    raw = np.asarray(preferences, np.float64)
    raw = np.where(raw == 0, 1.5, raw)
    return np.where((raw >= 1) & (raw <= 2), raw - 1, np.nan)


def win_rates(preferences: ArrayLike, *, seed: int = 0) -> dict[str, Estimate]:
    """`win_rate` (the mean preference) and `discrete_win_rate` (wins plus half the exact ties), 0..100.

    Args:
        preferences: [prompts], P(the model wins), NaN where the verdict failed.
    """
    graded = np.asarray(preferences, np.float64)
    discrete = np.where(np.isnan(graded), np.nan, np.heaviside(graded - 0.5, 0.5))
    figures = {"win_rate": graded, "discrete_win_rate": discrete}
    return {name: prompt_bootstrap(100 * values, seed=seed) for name, values in figures.items()}


def standard_error(values: ArrayLike) -> float:
    """Of the mean, NaNs left out, with the sample's n - 1; NaN for fewer than two."""
    known = np.asarray(values, np.float64)
    known = known[~np.isnan(known)]
    return float(known.std(ddof=1) / math.sqrt(len(known))) if len(known) > 1 else math.nan


def _length_controlled(
    records: Sequence[Record], preferences: NDArray[np.float64], files: Path | None, seed: int
) -> tuple[Estimate | None, str]:
    """The length-controlled win rate, or None, and what there is to say about it."""
    if records[0]["generator_1"] == records[0]["generator_2"]:
        return prompt_bootstrap(np.full(len(records), 50.0)), "the model is the baseline: 50 by definition"
    if files is None:
        return None, "needs instruction_difficulty.csv and df_gamed.csv of tatsu-lab/alpaca_eval: give their folder"
    if not files.is_dir():
        raise ValueError(f"{files} is not a folder; give one that holds instruction_difficulty.csv and df_gamed.csv")
    lengths = [np.array([len(text) for text in texts(records, name)]) for name in ("output_1", "output_2")]
    numbered = "index" in records[0]  # else upstream takes the row's number
    instructions = numbers(records, "index").tolist() if numbered else list(range(len(records)))
    try:
        control = read_length_control(files)
        rate = length_controlled_winrate(preferences, lengths[0] - lengths[1], instructions, control, seed)
    except (ValueError, ImportError) as error:
        return None, str(error)
    if len(records) == len(control.difficulty):
        return rate, ""
    return (
        rate,
        f"{len(records)} rows for {len(control.difficulty)} instructions, matched by row number as upstream does",
    )


def _only(records: Sequence[Record], name: str) -> str:
    """The one text that all records hold under `name`."""
    found = sorted(set(texts(records, name)))
    if len(found) > 1:
        raise ValueError(f"the annotations are of {len(found)} {name}s: {', '.join(found[:5])}; rate one at a time")
    return found[0]
