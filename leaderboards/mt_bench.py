"""MT-Bench: two turns a question, each answer rated 1 to 10 on its own, as the official script averages the ratings.

Follows FastChat, `llm_judge/show_result.py --mode single`: a rating of -1 is a judgment that could not be read; it is
left out, and here also counted. The second turn of a question is not independent of the first, so intervals resample
questions. Pairwise judgments are not rated.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from leaderboards.sources import Record, identifiers, json_interval, json_number, numbers, read_records, texts
from leaderboards.statistics import Estimate, prompt_bootstrap

CATEGORIES = ("writing", "roleplay", "reasoning", "math", "coding", "extraction", "stem", "humanities")
FIRST_QUESTION, QUESTIONS_EACH = 81, 10


@dataclass(frozen=True)
class Rating:
    """One judged answer: the question's id, the turn (from 1), and the score, NaN where the judgment failed."""

    question: str
    turn: int
    score: float


def rate_mt_bench(judgments: Path, questions: Path | None = None, *, seed: int = 0) -> dict[str, dict[str, Any]]:
    """The official figures of each model in a file (or folder) of single-answer judgments.

    Returns:
        For each model `turn_1`, `turn_2`, `score` (all ratings pooled, with `ci` [low, high] over questions),
        `categories` (name -> score), `n` (questions with a rating), `coverage` (share of the question turns judged
        anywhere in the file that have a rating of this model), `intervals` of the other figures, `ci_level`. A figure
        without any rating is None.

    Args:
        judgments: JSON lines with `question_id`, `model`, `turn`, `score`; -1 or null is a failed judgment.
        questions: the question file (`question_id`, `category`), for sets other than the 80 official questions.

    Raises:
        ValueError: for pairwise judgments, several judges in one file, or missing fields.
    """
    records = read_records(judgments)
    if "score" not in records[0] and {"winner", "g1_winner"} & records[0].keys():
        raise ValueError(f"{judgments} holds pairwise judgments; give single-answer ones, with a score for each answer")
    _check_one_judge(records)
    by_model: dict[str, list[Rating]] = defaultdict(list)
    for model, rating in zip(texts(records, "model"), _ratings(records), strict=True):
        by_model[model].append(rating)
    category_of = _categories(records, questions)
    asked = {(r.question, r.turn) for ratings in by_model.values() for r in ratings}
    return {model: _figures(ratings, category_of, len(asked), seed) for model, ratings in sorted(by_model.items())}


def mt_bench_scores(ratings: Sequence[Rating], category_of: Mapping[str, str], *, seed: int = 0) -> dict[str, Estimate]:
    """`score`, `turn_1`, `turn_2`, ... and every category: means of all ratings in 1..10, intervals over questions.

    Categories come in the order of `category_of`; questions it does not know are in no category.
    """
    groups: dict[str, list[Rating]] = {"score": list(ratings)}
    for turn in sorted({r.turn for r in ratings}):
        groups[f"turn_{turn}"] = [r for r in ratings if r.turn == turn]
    for category in dict.fromkeys(category_of.values()):
        groups[category] = [r for r in ratings if category_of.get(r.question) == category]
    return {name: _pooled(group, seed) for name, group in groups.items() if group}


def _pooled(ratings: Sequence[Rating], seed: int) -> Estimate:
    """The mean of all ratings that did not fail; whole questions are resampled, coverage is by rating."""
    by_question: dict[str, list[float]] = defaultdict(list)
    for rating in ratings:
        by_question[rating.question].append(rating.score)
    known = [[score for score in scores if not np.isnan(score)] for scores in by_question.values()]
    means = [sum(scores) / len(scores) if scores else np.nan for scores in known]
    estimate = prompt_bootstrap(means, [len(scores) for scores in known], seed=seed)
    return replace(estimate, coverage=sum(map(len, known)) / len(ratings))


def _figures(ratings: Sequence[Rating], category_of: Mapping[str, str], asked: int, seed: int) -> dict[str, Any]:
    estimates = mt_bench_scores(ratings, category_of, seed=seed)
    values = {name: json_number(estimate.value) for name, estimate in estimates.items()}
    intervals = {name: json_interval(e) for name, e in estimates.items()}
    rated = {(r.question, r.turn) for r in ratings if not np.isnan(r.score)}
    return {
        "turn_1": values.get("turn_1"),
        "turn_2": values.get("turn_2"),
        "score": values["score"],
        "categories": {name: values[name] for name in dict.fromkeys(category_of.values()) if name in values},
        "n": estimates["score"].n,
        "coverage": len(rated) / asked,
        "ci": intervals.pop("score"),
        "ci_level": estimates["score"].ci_level,
        "intervals": intervals,
    }


def _categories(records: Sequence[Record], questions: Path | None) -> dict[str, str]:
    """Question id -> category, from the question file or, without it, of the official questions."""
    if questions is None:
        return {str(FIRST_QUESTION + i): name for i, name in enumerate(np.repeat(CATEGORIES, QUESTIONS_EACH).tolist())}
    asked = read_records(questions)
    category_of = dict(zip(identifiers(asked, "question_id"), texts(asked, "category"), strict=True))
    unknown = sorted(set(identifiers(records, "question_id")) - category_of.keys())
    if unknown:
        raise ValueError(f"{questions} lacks {len(unknown)} judged questions, such as {unknown[0]}")
    return category_of


def _ratings(records: Sequence[Record]) -> list[Rating]:
    turns, scores = numbers(records, "turn"), numbers(records, "score")
    if not np.isin(turns, (1, 2)).all():
        raise ValueError("a judgment is of neither turn 1 nor turn 2; MT-Bench has two turns a question")
    read = np.where(scores == -1, np.nan, scores)
    rows = zip(identifiers(records, "question_id"), turns, read, strict=True)
    return [Rating(question, int(turn), float(score)) for question, turn, score in rows]


def _check_one_judge(records: Sequence[Record]) -> None:
    """Upstream writes one file a judge model; ratings of two judges must not be averaged unnoticed."""
    named = [record.get("judge") for record in records]
    judges = sorted({str(judge[0] if isinstance(judge, list) and judge else judge) for judge in named})
    if len(judges) > 1:
        raise ValueError(f"the judgments are of {len(judges)} judges: {', '.join(judges[:5])}; rate one at a time")
