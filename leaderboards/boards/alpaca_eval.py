"""AlpacaEval 2.0: pairwise verdicts against a baseline's outputs, as the official table rates them.

Follows alpaca-eval 0.6.6, `metrics/winrate.py`, `metrics/helpers.py` and `processors.py`. Figures are in 0..100.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from judges.judge import Judge, Prompt
from judges.reading import clipped, naming
from leaderboards.grading import PERCENT, both_orders, graded_item, lengths, play_games, preferences, win_rate
from leaderboards.leaderboard import Part, TextLeaderboard, data_path
from leaderboards.records import OK, Answers, BoardQuestion, GradedItem, Metric, Score
from leaderboards.sources import Record, find_file, json_interval, json_number, numbers, read_records, texts
from leaderboards.statistics.intervals import Estimate, mean_estimate
from leaderboards.statistics.length_control import (
    CONTROL_FILES,
    LengthControl,
    LengthControlledRate,
    length_controlled_winrate,
    read_length_control,
)

OUTPUTS = "*model_outputs.json*"
WHAT = (
    "the baseline's model_outputs.json[.gz], or a folder that holds one and, for the length-controlled win rate, "
    "instruction_difficulty.csv and df_gamed*.csv"
)


@dataclass(frozen=True, kw_only=True)
class AlpacaEval(TextLeaderboard):
    """AlpacaEval 2.0: answers to a set of instructions, each compared with a baseline's output.

    The judge is asked once an instruction, in the order that alpaca-eval itself draws for it. The
    length-controlled win rate is there where its files are, over all instructions: never before the final iteration or
    under a `limit`. What upstream's own judge prompt would say is up to the judge. An answer without text enters the
    length-controlled fit as equally long.

    Args:
        data: the baseline's outputs, JSON or JSON lines of {instruction, output, generator, dataset}, plain or gzip; or
            a folder that holds one such file called *model_outputs.json[.gz] and perhaps the files for length control,
            at any depth. A row's number is its id.
        orders: `one`, or `both` and their mean.

    Raises:
        ValueError: for data that is missing, ambiguous or of another kind.
    """

    data: str | Path | None = None
    orders: Literal["one", "both"] = "one"

    name = "alpaca-eval"
    default_max_tokens = 2048  # the commonest of models run locally: 92 of 145 in models_configs/ of alpaca-eval 0.6.6
    grading_options = ("orders",)
    paths = ("data",)
    pairwise = True
    baseline = "board"
    metrics = {  # noqa: RUF012
        "length_controlled_winrate": win_rate(
            "P(an answer is preferred to the baseline's) that a logistic regression, fitted together with two gamed "
            "baselines, predicts at equal lengths; not what it would be if both were equally long",
            official=True,
            bounds=None,
        ),
        "win_rate": win_rate("P(an answer is preferred to the baseline's), the mean preference", official=True),
        "discrete_win_rate": win_rate(
            "share of answers that win (preference above one half), ties counting one half", official=True
        ),
        "average_length": Metric(
            unit="characters", better="neither", estimates="mean length of the answers", official=True
        ),
        "n_wins": Metric(
            unit="answers", better="neither", estimates="answers with a preference above one half", official=True
        ),
        "n_draws": Metric(
            unit="answers", better="neither", estimates="answers with a preference of one half", official=True
        ),
        "lc_standard_error": Metric(
            unit="percent",
            better="neither",
            estimates="upstream's standard error of the length-controlled win rate, without the fit's uncertainty, "
            "which the interval has",
            official=True,
        ),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.orders not in ("one", "both"):
            raise ValueError(f"{self.name}: orders is {self.orders!r}; it must be 'one' or 'both'")
        outputs = len(self._outputs)  # read here, so that bad files are found before anything runs
        if self._control and self._control.difficulty.keys() != set(range(outputs)):
            raise ValueError(
                f"{self.data}: {outputs} outputs but instruction_difficulty.csv is of "
                f"{len(self._control.difficulty)} instructions; give files of one set, numbered from 0"
            )

    def requests(self, heldout: Sequence[tuple[str, Prompt]], temperature: float, part: Part) -> list[BoardQuestion]:
        instructions = self.part_of(list(enumerate(texts(self._outputs, "instruction"))), part)
        return [BoardQuestion(id=str(i), prompt=text, temperature=temperature) for i, text in instructions]

    def grade(
        self, questions: Sequence[BoardQuestion], answers: Answers, baseline: Answers | None, judge: Judge
    ) -> list[GradedItem]:
        outputs = [self._outputs[int(question.id)] for question in questions]
        ours, theirs = [self.answer_to(q.id, answers) for q in questions], [output["output"] for output in outputs]
        official_order = np.array([[model_first(output["instruction"]) for output in outputs]], bool)
        orders = official_order if self.orders == "one" else both_orders(len(outputs))
        games = play_games(judge, [q.prompt for q in questions], ours, theirs, orders)
        categories = [str(output.get("dataset") or "") for output in outputs]
        columns = zip(questions, ours, theirs, games.mean(), games.status, categories, strict=True)
        return [graded_item(*row) for row in columns]

    def rate(self, items: Sequence[GradedItem], seed: int) -> list[Score]:
        liked = preferences(items)
        estimates = {**win_rates(liked), "average_length": mean_estimate(lengths(items))}
        scores = [*(Score.of(name, estimate) for name, estimate in estimates.items()), *_counts(liked)]
        control = self._control_of(items)
        if control is None:
            return scores
        if _is_silent(items):
            return [replace(scores[0], metric="length_controlled_winrate"), *scores]
        rate = _rate_or_none(items, control)
        if rate is None:  # no such figure, and no other in its place
            return [Score(metric="length_controlled_winrate", value=math.nan, coverage=0.0), *scores]
        error = Score(metric="lc_standard_error", value=rate.standard_error, n=rate.estimate.n)
        return [Score.of("length_controlled_winrate", rate.estimate), *scores, error]

    def by_prompt(self, items: Sequence[GradedItem]) -> dict[str, dict[str, float | None]]:
        liked = {item.id: item.preference for item in items}
        values: dict[str, dict[str, float | None]] = {
            "win_rate": {id: None if p is None else 100 * p for id, p in liked.items()}
        }
        control = self._control_of(items)
        if control and _is_silent(items):
            values["length_controlled_winrate"] = values["win_rate"]
        elif control:
            rate = _rate_or_none(items, control)
            controlled = rate.prompt_values.tolist() if rate else [None] * len(items)
            values["length_controlled_winrate"] = dict(zip(liked, controlled, strict=True))
        return values

    def _control_of(self, items: Sequence[GradedItem]) -> LengthControl | None:
        """What the length-controlled win rate needs: with its files, and where all instructions were asked."""
        return self._control if len(items) == len(self._outputs) else None

    @cached_property
    def _outputs(self) -> list[Record]:
        """The baseline's outputs."""
        path = data_path(self.name, self.data, WHAT)
        file = find_file(path, OUTPUTS, OUTPUTS) if path.is_dir() else path
        if file is None:
            raise ValueError(f"{path} holds no *model_outputs.json; give {WHAT}")
        records = read_records(file)
        with naming(file):
            for name in ("instruction", "output", "generator"):
                texts(records, name)
        return records

    @cached_property
    def _control(self) -> LengthControl | None:
        """What the length-controlled win rate needs, where its files are."""
        folder = data_path(self.name, self.data, WHAT)
        has_files = folder.is_dir() and any(find_file(folder, *names) for names in CONTROL_FILES.items())
        return read_length_control(folder) if has_files else None


def _counts(liked: NDArray[np.float64]) -> list[Score]:
    """`n_wins` and `n_draws` of the official table, of the verdicts that there are."""
    counts = {"n_wins": (liked > 0.5).sum(), "n_draws": (liked == 0.5).sum()}
    given = int((~np.isnan(liked)).sum())
    coverage = given / len(liked) if len(liked) else math.nan
    return [Score(metric=name, value=float(count), n=given, coverage=coverage) for name, count in counts.items()]


def _is_silent(items: Sequence[GradedItem]) -> bool:
    """Whether no answer that was graded has text, so that there is no length to control for."""
    return all(item.empty for item in items if item.status == OK)


def _rate_or_none(items: Sequence[GradedItem], control: LengthControl) -> LengthControlledRate | None:
    """The length-controlled win rate, None where too few verdicts are there or all lengths are alike.

    An answer without text enters with a length difference of 0. At its own length it would be a loss that the fit
    explains by shortness, and silence would raise the rate. `rate_alpaca_eval` takes official files as they are.
    """
    difference = np.array([len(item.baseline_response) for item in items]) - lengths(items)
    difference = np.where([item.empty for item in items], 0.0, difference)
    try:
        return length_controlled_winrate(preferences(items), difference, [int(item.id) for item in items], control)
    except ValueError:
        return None


def model_first(instruction: str) -> bool:
    """Whether the model's output is placed first: alpaca-eval's own draw, seeded by the instruction."""
    return random.Random(f"is_switched_outputs{instruction}0").choices([False, True])[0]


def rate_alpaca_eval(annotations: Path, files: Path | None = None) -> dict[str, Any]:
    """The official figures of one model from its annotation file.

    Returns:
        `win_rate`, its `standard_error` (of the mean) and `ci` [low, high], `discrete_win_rate`,
        `length_controlled_winrate` (None without its files; `length_controlled_note` says why), `avg_length`
        (characters, cut to an integer as in the official table), `lc_standard_error` (upstream's, without the fit's
        uncertainty, which the interval has), `n_wins`, `n_wins_base` and `n_draws` (preferences above, below and at
        one half), `n_total` (verdicts), `coverage` (of all rows),
        `intervals` of the other two win rates, `ci_level`, `model` and `baseline`. What cannot be told is None.

    Args:
        annotations: JSON or JSON lines with `preference` (1 the baseline wins, 2 the model, 0 or 1.5 a tie; null or
            another number is a failed verdict), `output_1`, `output_2`, `generator_1`, `generator_2`.
        files: a folder that holds `instruction_difficulty.csv` and `df_gamed*.csv`, at any depth.

    Raises:
        ValueError: for a file of another kind or of several models.
    """
    records = read_records(annotations)
    with naming(annotations):
        baseline, model = (_only(records, name) for name in ("generator_1", "generator_2"))
        preferences = win_probabilities(numbers(records, "preference"))
        length = int(np.mean([len(text) for text in texts(records, "output_2")]))
    rates = win_rates(preferences)
    win, discrete = rates.pop("win_rate"), rates["discrete_win_rate"]
    controlled, note = _length_controlled(records, preferences, files)
    if controlled:
        rates["length_controlled_winrate"] = controlled.estimate
    return {
        "win_rate": json_number(win.value),
        "standard_error": json_number(100 * standard_error(preferences)),
        "discrete_win_rate": json_number(discrete.value),
        "length_controlled_winrate": controlled and json_number(controlled.estimate.value),
        "lc_standard_error": controlled and json_number(controlled.standard_error),
        "avg_length": length,
        "n_wins": int((preferences > 0.5).sum()),
        "n_wins_base": int((preferences < 0.5).sum()),
        "n_draws": int((preferences == 0.5).sum()),
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


def win_rates(preferences: ArrayLike) -> dict[str, Estimate]:
    """`win_rate` (the mean preference) and `discrete_win_rate` (wins plus half the exact ties), 0..100.

    Args:
        preferences: [prompts], P(the model wins), NaN where the verdict failed.
    """
    graded = np.asarray(preferences, np.float64)
    discrete = np.where(np.isnan(graded), np.nan, np.heaviside(graded - 0.5, 0.5))
    figures = {"win_rate": graded, "discrete_win_rate": discrete}
    return {name: mean_estimate(100 * values, bounds=PERCENT) for name, values in figures.items()}


def standard_error(values: ArrayLike) -> float:
    """Of the mean, NaNs left out, with the sample's n - 1; NaN for fewer than two."""
    numbers = np.asarray(values, np.float64)
    numbers = numbers[~np.isnan(numbers)]
    return float(numbers.std(ddof=1) / math.sqrt(len(numbers))) if len(numbers) > 1 else math.nan


def _length_controlled(
    records: Sequence[Record], preferences: NDArray[np.float64], files: Path | None
) -> tuple[LengthControlledRate | None, str]:
    """The length-controlled win rate, or None, and what there is to say about it."""
    if records[0]["generator_1"] == records[0]["generator_2"]:
        fifty = Estimate(value=50.0, ci_low=50.0, ci_high=50.0, n=len(records), coverage=1.0)
        values = np.full(len(records), 50.0)
        rate = LengthControlledRate(estimate=fifty, standard_error=0.0, prompt_values=values)
        return rate, "the model is the baseline: 50 by definition"
    if files is None:
        return (
            None,
            "needs instruction_difficulty.csv and df_gamed.csv of tatsu-lab/alpaca_eval: give their folder (--files)",
        )
    if not files.is_dir():
        raise ValueError(f"{files} is not a folder; give one that holds instruction_difficulty.csv and df_gamed.csv")
    lengths = [np.array([len(text) for text in texts(records, name)]) for name in ("output_1", "output_2")]
    numbered = "index" in records[0]  # else upstream takes the row's number
    instructions = numbers(records, "index").tolist() if numbered else list(range(len(records)))
    try:
        control = read_length_control(files)
        rate = length_controlled_winrate(preferences, lengths[0] - lengths[1], instructions, control)
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
    values = sorted(set(texts(records, name)))
    if len(values) > 1:
        named = clipped(", ".join(values[:5]), 120)
        raise ValueError(f"the annotations are of {len(values)} {name}s: {named}; rate one at a time")
    return values[0]
