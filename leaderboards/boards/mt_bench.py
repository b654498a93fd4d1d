"""MT-Bench: two turns a question, each answer rated 1 to 10 on its own, as the official script averages the ratings.

Follows FastChat, `llm_judge/show_result.py --mode single`: a rating of -1 is a judgment that could not be read; it is
left out, and here also counted. The second turn of a question is not independent of the first, so intervals are over
questions. Pairwise judgments are not rated.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from judges.judge import Judge, Prompt
from judges.reading import clipped, naming, shortened
from leaderboards.grading import rate_answers
from leaderboards.leaderboard import Part, TextLeaderboard, conversation, data_path
from leaderboards.records import Answers, BoardAnswer, BoardQuestion, GradedItem, Metric, Score
from leaderboards.sources import (
    Record,
    distinct,
    field,
    identifiers,
    json_interval,
    json_number,
    numbers,
    one_file,
    question_file,
    read_records,
    texts,
)
from leaderboards.statistics.intervals import Estimate, mean_estimate

WHAT = "a folder with question.jsonl and perhaps reference_answer/*.jsonl, as in FastChat's mt_bench"
TEMPERATURES = {"writing": 0.7, "roleplay": 0.7, "stem": 0.1, "humanities": 0.1} | dict.fromkeys(
    ("reasoning", "math", "coding", "extraction"), 0.0
)
"""Of the answers, by category (FastChat, llm_judge/common.py); elsewhere the sweep's own."""

CATEGORIES = ("writing", "roleplay", "reasoning", "math", "coding", "extraction", "stem", "humanities")
FIRST_QUESTION, QUESTIONS_EACH = 81, 10
RATINGS = (1.0, 10.0)


@dataclass(frozen=True)
class Rating:
    """One judged answer: the question's id, the turn (from 1), and the score, NaN where the judgment failed."""

    question: str
    turn: int
    score: float


@dataclass(frozen=True)
class MTBenchQuestion:
    """A question of two turns, and the reference answers to them where there are some."""

    id: str
    category: str
    turns: tuple[str, str]
    references: tuple[str, str] | None


def _mean_rating(estimates: str) -> Metric:
    return Metric(unit="rating", better="higher", estimates=estimates, official=True, bounds=RATINGS)


@dataclass(frozen=True, kw_only=True)
class MTBench(TextLeaderboard):
    """MT-Bench: questions of two turns, each answer rated 1 to 10 on its own (`Judge.rate`), per category.

    The second turn is asked after the policy's own first answer. A judge that only compares rates against the reference
    answer, and fails where there is none. An answer without text is rated like any other, and has the lowest rating
    where the judge gives it none.

    Args:
        data: a folder with `question.jsonl` {question_id, category, turns: [first, second]} and perhaps one
            `reference_answer/NAME.jsonl` {question_id, choices: [{turns: [first, second]}]}; plain or .gz.

    Raises:
        ValueError: for data that is missing, ambiguous or of another kind.
    """

    data: str | Path | None = None

    name = "mt-bench"
    default_max_tokens = 1024  # --max-new-token of FastChat's gen_model_answer.py
    paths = ("data",)
    pairwise = False
    baseline = "board"
    metrics = {  # noqa: RUF012
        "score": _mean_rating("mean rating in 1..10 of all answers"),
        "turn_1": _mean_rating("mean rating of first turns"),
        "turn_2": _mean_rating("mean rating of second turns"),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self._questions  # read here, so that bad files are found before anything runs

    def requests(self, heldout: Sequence[tuple[str, Prompt]], temperature: float, part: Part) -> list[BoardQuestion]:
        return [
            BoardQuestion(
                id=f"{question.id}/{turn}",
                prompt=question.turns[turn - 1],
                temperature=TEMPERATURES.get(question.category, temperature),
                turn=turn,
                follows=f"{question.id}/1" if turn == 2 else None,
            )
            for turn in (1, 2)
            for question in self.part_of(self._questions, part)
        ]

    def grade(
        self, questions: Sequence[BoardQuestion], answers: Answers, baseline: Answers | None, judge: Judge
    ) -> list[GradedItem]:
        ours = {question.id: self._answer_to(question, answers) for question in questions}
        by_id, texts_by_id = {q.id: q for q in questions}, {id: [answer.text] for id, answer in ours.items()}
        prompts = {id: conversation(question, by_id, texts_by_id) for id, question in by_id.items()}
        ratings = rate_answers(
            judge,
            [prompts[q.id] for q in questions],
            [ours[q.id] for q in questions],
            [self._references(q) for q in questions],
        )
        return [self._item(q, prompts[q.id], ours[q.id], *rated) for q, rated in zip(questions, ratings, strict=True)]

    def rate(self, items: Sequence[GradedItem], seed: int) -> list[Score]:
        ratings = [
            Rating(item.extra["question"], item.turn, np.nan if item.rating is None else item.rating) for item in items
        ]
        estimates = mt_bench_scores(ratings, {item.extra["question"]: item.category for item in items})
        overall = [Score.of(name, estimates.pop(name)) for name in self.metrics if name in estimates]
        return overall + [Score.of("score", estimate, category) for category, estimate in estimates.items()]

    def by_prompt(self, items: Sequence[GradedItem]) -> dict[str, dict[str, float | None]]:
        by_question: dict[str, list[float]] = {item.extra["question"]: [] for item in items}
        for item in items:
            if item.rating is not None:
                by_question[item.extra["question"]].append(item.rating)
        return {"score": {id: sum(ratings) / len(ratings) if ratings else None for id, ratings in by_question.items()}}

    def _answer_to(self, question: BoardQuestion, answers: Answers) -> BoardAnswer:
        """The answer; none to a turn whose first turn has none, since then nobody asked for it."""
        reached = question.follows is None or bool(answers.get(question.follows))
        return self.answer_to(question.id, answers if reached else {})

    def _item(
        self, question: BoardQuestion, prompt: Prompt, answer: BoardAnswer, rating: float, status: str
    ) -> GradedItem:
        official, references = self._official(question), self._references(question)
        return GradedItem(
            id=question.id,
            rating=rating,
            status=status,
            prompt=prompt,
            response=answer.text,
            baseline_response=references[-1] if references else "",
            category=official.category,
            turn=question.turn,
            extra={"question": official.id},
        )

    def _official(self, question: BoardQuestion) -> MTBenchQuestion:
        """The question of the set that a turn is of."""
        return self._by_id[question.id.rpartition("/")[0]]

    def _references(self, question: BoardQuestion) -> tuple[str, ...] | None:
        """The reference answers up to the question's turn."""
        references = self._official(question).references
        return references[: question.turn] if references else None

    @cached_property
    def _by_id(self) -> dict[str, MTBenchQuestion]:
        return {question.id: question for question in self._questions}

    @cached_property
    def _questions(self) -> list[MTBenchQuestion]:
        path = question_file(data_path(self.name, self.data, WHAT), WHAT)
        records = read_records(path)
        with naming(path):
            ids = distinct(identifiers(records, "question_id"), path)
            categories, turns = texts(records, "category"), [_two(t, path) for t in field(records, "turns")]
        references = _reference_answers(path.parent / "reference_answer")
        return [
            MTBenchQuestion(id, category, two, references.get(id))
            for id, category, two in zip(ids, categories, turns, strict=True)
        ]


def rate_mt_bench(judgments: Path, questions: Path | None = None) -> dict[str, dict[str, Any]]:
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
    by_model: dict[str, list[Rating]] = defaultdict(list)
    with naming(judgments):
        _check_one_judge(records)
        for model, rating in zip(texts(records, "model"), _ratings(records), strict=True):
            by_model[model].append(rating)
    category_of = _categories(records, questions)
    judged = {(r.question, r.turn) for ratings in by_model.values() for r in ratings}
    return {model: _figures(ratings, category_of, len(judged)) for model, ratings in sorted(by_model.items())}


def mt_bench_scores(ratings: Sequence[Rating], category_of: Mapping[str, str]) -> dict[str, Estimate]:
    """`score`, `turn_1`, `turn_2`, ... and every category: means of all ratings in 1..10, intervals over questions.

    Categories come in the order of `category_of`; questions it does not know are in no category.
    """
    groups: dict[str, list[Rating]] = {"score": list(ratings)}
    for turn in sorted({r.turn for r in ratings}):
        groups[f"turn_{turn}"] = [r for r in ratings if r.turn == turn]
    for category in dict.fromkeys(category_of.values()):
        groups[category] = [r for r in ratings if category_of.get(r.question) == category]
    return {name: _pooled(group) for name, group in groups.items() if group}


def _two(turns: Any, path: Path) -> tuple[str, str]:
    if not isinstance(turns, list) or len(turns) != 2 or not all(isinstance(turn, str) for turn in turns):
        raise ValueError(f"{path}: 'turns' is {shortened(turns)}; MT-Bench has two texts a question")
    return turns[0], turns[1]


def _reference_answers(folder: Path) -> dict[str, tuple[str, str]]:
    """Question id -> both reference answers; none where the folder is not there."""
    if not folder.is_dir():
        return {}
    path = one_file(folder)
    records = read_records(path)
    with naming(path):
        ids = distinct(identifiers(records, "question_id"), path)
    try:
        return {id: _two(r["choices"][0]["turns"], path) for id, r in zip(ids, records, strict=True)}
    except (LookupError, TypeError) as error:
        raise ValueError(f"{path}: a reference answer has no 'choices' with 'turns'; is this MT-Bench's?") from error


def _pooled(ratings: Sequence[Rating]) -> Estimate:
    """The mean of all ratings that did not fail; the interval is over questions, the coverage by rating."""
    by_question: dict[str, list[float]] = defaultdict(list)
    for rating in ratings:
        by_question[rating.question].append(rating.score)
    known = [[score for score in scores if not np.isnan(score)] for scores in by_question.values()]
    means = [sum(scores) / len(scores) if scores else np.nan for scores in known]
    low, high = RATINGS
    rated = [score for scores in known for score in scores]
    bounds = min([low, *rated]), max([high, *rated])  # a judge may have rated beyond the scale it was given
    estimate = mean_estimate(means, [len(scores) for scores in known], bounds=bounds)
    return replace(estimate, coverage=sum(map(len, known)) / len(ratings))


def _figures(ratings: Sequence[Rating], category_of: Mapping[str, str], judged: int) -> dict[str, Any]:
    estimates = mt_bench_scores(ratings, category_of)
    values = {name: json_number(estimate.value) for name, estimate in estimates.items()}
    intervals = {name: json_interval(e) for name, e in estimates.items()}
    rated = {(r.question, r.turn) for r in ratings if not np.isnan(r.score)}
    return {
        "turn_1": values.get("turn_1"),
        "turn_2": values.get("turn_2"),
        "score": values["score"],
        "categories": {name: values[name] for name in dict.fromkeys(category_of.values()) if name in values},
        "n": estimates["score"].n,
        "coverage": len(rated) / judged,
        "ci": intervals.pop("score"),
        "ci_level": estimates["score"].ci_level,
        "intervals": intervals,
    }


def _categories(records: Sequence[Record], questions: Path | None) -> dict[str, str]:
    """Question id -> category, from the question file or, without it, of the official questions."""
    if questions is None:
        return {str(FIRST_QUESTION + i): name for i, name in enumerate(np.repeat(CATEGORIES, QUESTIONS_EACH).tolist())}
    listed = read_records(questions)
    with naming(questions):
        category_of = dict(zip(identifiers(listed, "question_id"), texts(listed, "category"), strict=True))
    unknown = sorted(set(identifiers(records, "question_id")) - category_of.keys())
    if unknown:
        raise ValueError(f"{questions} lacks {len(unknown)} judged questions, such as {shortened(unknown[0])}")
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
    told = [record.get("judge") for record in records]
    judges = sorted({str(judge[0] if isinstance(judge, list) and judge else judge) for judge in told})
    if len(judges) > 1:
        raise ValueError(
            f"the judgments are of {len(judges)} judges: {clipped(', '.join(judges[:5]), 120)}; rate one at a time"
        )
