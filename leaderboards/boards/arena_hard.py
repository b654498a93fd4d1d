"""Arena-Hard: two games a prompt with the places swapped, five verdicts, win rate against a baseline.

Follows arena-hard-auto, `show_result.py`: a decisive verdict counts three times, and a prompt is left out where either
game gave no verdict. Where everybody plays the baseline only, the Bradley-Terry win rate is the weighted share of wins,
so nothing is fitted. Unlike upstream, which resamples the rows that the weight has multiplied (nominal 90% then covers
about 62%), intervals are over prompts. No style control.
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
from leaderboards.grading import PERCENT, both_orders, graded_item, play_games, preferences, win_rate
from leaderboards.leaderboard import Part, TextLeaderboard, data_path
from leaderboards.records import Answers, BoardQuestion, GradedItem, Score
from leaderboards.sources import (
    Record,
    distinct,
    field,
    identifiers,
    json_interval,
    json_number,
    one_file,
    question_file,
    read_records,
    texts,
)
from leaderboards.statistics.intervals import Estimate, mean_estimate

WHAT = "a folder with question.jsonl and model_answer/*.jsonl, as in arena-hard-auto"
DECISIVE, SLIGHT = 0.875, 0.625  # P(A beats B) from which on the verdict is A>>B, A>B: halfway between 1, 3/4 and 1/2

DECISIVE_WEIGHT = 3
LABELS = {
    "A>>B": (0.0,) * DECISIVE_WEIGHT,
    "A>B": (0.0,),
    "A=B": (0.5,),
    "B>A": (1.0,),
    "B>>A": (1.0,) * DECISIVE_WEIGHT,
}
BASELINE_FIRST = LABELS | {label[::-1].replace(">", "<"): scores for label, scores in LABELS.items()}
"""Label, also written backwards as upstream allows -> the model's scores where the baseline's answer is A."""


@dataclass(frozen=True)
class Battle:
    """A model and the baseline on one prompt.

    Attributes:
        prompt: the prompt's id.
        category: "" where the set has none.
        scores: 1 for each win of the model, 0.5 a tie, 0 a loss, decisive ones repeated; empty where a game failed.
        failed_games: games without a verdict that could be read.
    """

    prompt: str
    category: str
    scores: tuple[float, ...]
    failed_games: int = 0


@dataclass(frozen=True)
class ArenaHardQuestion:
    """A question of the set, and the answer of a baseline (a name, "" for the only one there) to it."""

    id: str
    prompt: str
    category: str
    answer: str
    baseline: str = ""


@dataclass(frozen=True, kw_only=True)
class ArenaHard(TextLeaderboard):
    """Arena-Hard: each answer plays the baseline's twice, places swapped; five verdicts, decisive ones count three.

    A verdict is what the judge's P(A beats B) is nearest to: decisive (1 or 0), slight (3/4, 1/4) or a tie (1/2). Where
    either game fails the prompt is left out. The judge is told each question's category, since upstream asks about
    creative writing in other words. A win rate over categories with different baselines is `pooled_win_rate`, no
    official figure; each category's own is. Answers are asked for at temperature 0, as upstream's configs do.

    Args:
        data: a folder with `question.jsonl` (v0.1: question_id, category, turns; v2.0: uid, category, prompt) and
            the baseline's answers, `model_answer/NAME.jsonl`; plain or .gz.
        baseline_model: NAME where there are several; or category -> NAME, as v2.0 has a baseline a category.

    Raises:
        ValueError: for data that is missing, ambiguous or of another kind, or questions without a baseline's answer.
    """

    data: str | Path | None = None
    baseline_model: str | Mapping[str, str] | None = None

    name = "arena-hard"
    default_max_tokens = 4096  # config/gen_answer_config.yaml of arena-hard-auto
    paths = ("data",)
    pairwise = True
    baseline = "board"
    metrics = {  # noqa: RUF012
        "win_rate": win_rate(
            "Bradley-Terry win rate against the baseline: the share of wins, decisive ones counting three",
            official=True,
            bounds=None,  # policies are compared by influence values, which have none
        ),
        "pooled_win_rate": win_rate(
            "the same over categories that have different baselines, in place of it; the authors keep these categories "
            "apart",
            official=False,
        ),
        "prompt_win_rate": win_rate(
            "the same share within each prompt, every prompt counting once",
            official=False,
        ),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self._questions  # read here, so that bad files are found before anything runs

    def requests(self, heldout: Sequence[tuple[str, Prompt]], temperature: float, part: Part) -> list[BoardQuestion]:
        questions = self.part_of(self._questions, part)
        return [BoardQuestion(id=q.id, prompt=q.prompt, temperature=0.0) for q in questions]

    def grade(
        self, questions: Sequence[BoardQuestion], answers: Answers, baseline: Answers | None, judge: Judge
    ) -> list[GradedItem]:
        by_id = {question.id: question for question in self._questions}
        official, ours = [by_id[q.id] for q in questions], [self.answer_to(q.id, answers) for q in questions]
        theirs = [question.answer for question in official]
        categories = [question.category for question in official]
        games = play_games(judge, [q.prompt for q in questions], ours, theirs, both_orders(len(questions)), categories)
        # A is the baseline's answer in the first game and the policy's in the second.
        labels = zip(map(verdict_label, 1 - games.preference[0]), map(verdict_label, games.preference[1]), strict=True)
        items = []
        for question, answer, entry, status, (one, two) in zip(
            questions, ours, official, games.status, labels, strict=True
        ):
            scores = scores_of_games(one, two)
            share = sum(scores) / len(scores) if scores else np.nan
            labelled = {"first_game": one, "second_game": two, "baseline": entry.baseline}
            items.append(graded_item(question, answer, entry.answer, share, status, entry.category, **labelled))
        return items

    def rate(self, items: Sequence[GradedItem], seed: int) -> list[Score]:
        pooled = arena_hard_scores(_battles(items))
        baselines = {item.extra.get("baseline", "") for item in items}
        scores = [
            Score.of("win_rate" if len(baselines) < 2 else "pooled_win_rate", pooled.pop("win_rate")),
            Score.of("prompt_win_rate", mean_estimate(100 * preferences(items), bounds=PERCENT)),
        ]
        of_categories = [Score.of("win_rate", estimate, category) for category, estimate in pooled.items()]
        return scores + (of_categories if len(of_categories) > 1 else [])

    def lost(self, item: GradedItem) -> GradedItem:
        return replace(super().lost(item), extra={**item.extra, "first_game": "A>>B", "second_game": "B>>A"})

    def by_prompt(self, items: Sequence[GradedItem]) -> dict[str, dict[str, float | None]]:
        shares = {item.id: item.preference for item in items}
        return {
            "win_rate": _influence_values(_battles(items)),
            "prompt_win_rate": {id: None if share is None else 100 * share for id, share in shares.items()},
        }

    @cached_property
    def _questions(self) -> list[ArenaHardQuestion]:
        path = question_file(data_path(self.name, self.data, WHAT), WHAT)
        records = read_records(path)
        with naming(path):
            ids = distinct(identifiers(records, "uid" if "uid" in records[0] else "question_id"), path)
        answers: dict[str, dict[str, str]] = {}
        questions = []
        for id, record in zip(ids, records, strict=True):
            category = str(record.get("category") or "")
            model = self._baseline_of(category)
            if model not in answers:
                answers[model] = _answers(one_file(path.parent / "model_answer", model))
            if id not in answers[model]:
                raise ValueError(
                    f"{path}: the baseline {clipped(model, 60) or 'there'} has no answer to question {shortened(id)}"
                )
            questions.append(ArenaHardQuestion(id, _prompt(record, path), category, answers[model][id], model))
        return questions

    def _baseline_of(self, category: str) -> str:
        """Name of the file of the baseline's answers; "" is the only one there."""
        if not isinstance(self.baseline_model, Mapping):
            return self.baseline_model or ""
        if category not in self.baseline_model:
            raise ValueError(f"{self.name}: baseline_model names no baseline for the category {shortened(category)}")
        return self.baseline_model[category]


def verdict_label(preference: float) -> str | None:
    """The five-way verdict nearest to P(A beats B), a border's being the stronger one; None for NaN."""
    for least, for_a, for_b in ((DECISIVE, "A>>B", "B>>A"), (SLIGHT, "A>B", "B>A")):
        if preference >= least:
            return for_a
        if preference <= 1 - least:
            return for_b
    return None if np.isnan(preference) else "A=B"


def rate_arena_hard(judgments: Path) -> dict[str, dict[str, Any]]:
    """The win rate of each model in a file of judgments, or in a folder with a file a model.

    Returns:
        For each model `win_rate` (0..100; the baseline is at 50) with `ci` [low, high], `categories` (name -> win
        rate, each against its own baseline), `official` (whether `win_rate` is against one baseline, as the authors'
        figures are), `n` (prompts rated), `coverage` (share of the prompts judged anywhere in
        the files that are rated), `failed_games`, `intervals` of the categories, `ci_level`, `baseline` (None where
        the file does not say; a list where categories differ). A figure without any verdict is None.

    Args:
        judgments: JSON lines with `model`, `games` (the baseline's answer is A in the first, B in the second; each
            null or with a `score` such as "A>>B" or null) and `question_id` (v0.1) or `uid`, `category`, `baseline`
            (v2.0); or the older battles, `question_id`, `model_a`, `model_b`, `winner`, weights being repeated rows.

    Raises:
        ValueError: for files of another kind, or battles in which no model plays every time.
    """
    records = read_records(judgments)
    with naming(judgments):
        rows = _from_battles(records) if "model_a" in records[0] else _from_games(records)
    prompts = {battle.prompt for _, _, battle in rows}
    by_model: dict[str, list[Battle]] = defaultdict(list)
    baselines: dict[str, set[str]] = defaultdict(set)
    for model, baseline, battle in rows:
        by_model[model].append(battle)
        baselines[model] |= {baseline} - {""}
    return {
        model: _figures(battles, len(prompts))
        | {"baseline": _one_or_all(sorted(baselines[model])), "official": len(baselines[model]) < 2}
        for model, battles in sorted(by_model.items())
    }


def _battles(items: Sequence[GradedItem]) -> list[Battle]:
    return [
        Battle(item.id, item.category, scores_of_games(item.extra["first_game"], item.extra["second_game"]))
        for item in items
    ]


def _influence_values(battles: Sequence[Battle]) -> dict[str, float | None]:
    """Prompt -> the pooled win rate plus the prompt's influence on it, 0..100: they average to the win rate, and have
    the spread of its linearised error. None where a game failed.
    """
    weights = {battle.prompt: len(battle.scores) for battle in battles if battle.scores}
    means = {battle.prompt: 100 * sum(battle.scores) / len(battle.scores) for battle in battles if battle.scores}
    total = sum(weights.values())
    pooled = sum(weights[prompt] * mean for prompt, mean in means.items()) / total if total else 0.0
    values = {
        prompt: pooled + weights[prompt] * len(weights) / total * (mean - pooled) for prompt, mean in means.items()
    }
    return {battle.prompt: values.get(battle.prompt) for battle in battles}


def arena_hard_scores(battles: Sequence[Battle]) -> dict[str, Estimate]:
    """`win_rate` and every category's, 0..100: the weighted share of wins, intervals over prompts."""
    groups = {"win_rate": list(battles)}
    for category in dict.fromkeys(battle.category for battle in battles if battle.category):
        groups[category] = [battle for battle in battles if battle.category == category]
    return {name: _pooled(group) for name, group in groups.items()}


def scores_of_games(first: str | None, second: str | None) -> tuple[float, ...]:
    """The model's scores from the labels of both games, the baseline's answer being A in the first and B in the second.

    Empty where either label is missing or unknown, as upstream leaves such prompts out: one order alone would favour
    a place.
    """
    if first not in BASELINE_FIRST or second not in BASELINE_FIRST:
        return ()
    return (*BASELINE_FIRST[first], *(1 - score for score in BASELINE_FIRST[second]))


def _prompt(record: Record, path: Path) -> str:
    """The question's text: `prompt` in v2.0, the first of `turns` in v0.1."""
    try:
        text = record["prompt"] if "prompt" in record else record["turns"][0]["content"]
    except (LookupError, TypeError):
        text = None
    if not isinstance(text, str):
        raise ValueError(f"{path}: a question has neither 'prompt' nor 'turns' with 'content'; is this Arena-Hard's?")
    return text


def _answers(path: Path) -> dict[str, str]:
    """Question id -> answer: the last of `messages` in newer files, the first choice's first turn in older ones."""
    records = read_records(path)
    new = "messages" in records[0]
    with naming(path):
        ids = distinct(identifiers(records, "uid" if "uid" in records[0] else "question_id"), path)
    answers = {}
    for id, record in zip(ids, records, strict=True):
        try:
            text = record["messages"][-1]["content"] if new else record["choices"][0]["turns"][0]["content"]
            text = text["answer"] if isinstance(text, dict) else text
        except (LookupError, TypeError):
            text = None
        if not isinstance(text, str):
            what = "neither 'messages' nor 'choices' with 'turns'"
            raise ValueError(f"{path}: the answer to {shortened(id)} has {what} that hold a text")
        answers[id] = text
    return answers


def _pooled(battles: Sequence[Battle]) -> Estimate:
    by_prompt: dict[str, tuple[float, ...]] = defaultdict(tuple)
    for battle in battles:
        by_prompt[battle.prompt] += battle.scores
    means = [100 * sum(scores) / len(scores) if scores else np.nan for scores in by_prompt.values()]
    return mean_estimate(means, [len(scores) for scores in by_prompt.values()], bounds=PERCENT)


def _figures(battles: Sequence[Battle], prompts: int) -> dict[str, Any]:
    estimates = arena_hard_scores(battles)
    total = estimates.pop("win_rate")
    return {
        "win_rate": json_number(total.value),
        "ci": json_interval(total),
        "ci_level": total.ci_level,
        "categories": {name: json_number(estimate.value) for name, estimate in estimates.items()},
        "intervals": {name: json_interval(e) for name, e in estimates.items()},
        "n": total.n,
        "coverage": total.n / prompts,
        "failed_games": sum(battle.failed_games for battle in battles),
    }


def _from_games(records: Sequence[Record]) -> list[tuple[str, str, Battle]]:
    """(model, baseline or "", battle) of each judgment."""
    prompts = identifiers(records, "uid" if "uid" in records[0] else "question_id")
    rows = []
    for row, (model, prompt, games) in enumerate(
        zip(texts(records, "model"), prompts, field(records, "games"), strict=True)
    ):
        if not isinstance(games, list) or len(games) != 2:
            raise ValueError(f"record {row} does not hold two games; Arena-Hard needs both orders of each pair")
        labels = [_label(game) for game in games]
        category, baseline = (str(records[row].get(name) or "") for name in ("category", "baseline"))
        failed = sum(label not in BASELINE_FIRST for label in labels)
        rows.append((model, baseline, Battle(prompt, category, scores_of_games(*labels), failed)))
    return rows


def _label(game: Any) -> str | None:
    """The verdict of a game, None where there is none."""
    score = game.get("score") if isinstance(game, dict) else None
    return score.strip().upper() if isinstance(score, str) else None


def _from_battles(records: Sequence[Record]) -> list[tuple[str, str, Battle]]:
    """(model, baseline, battle) of each row of the older format; the baseline is who plays every time, as model_a."""
    pairs = list(zip(texts(records, "model_a"), texts(records, "model_b"), strict=True))
    baseline = pairs[0][0] if all(pairs[0][0] in pair for pair in pairs) else pairs[0][1]
    rows = []
    for pair, prompt, winner in zip(pairs, identifiers(records, "question_id"), field(records, "winner"), strict=True):
        if baseline not in pair:
            one, other = map(shortened, pair)
            raise ValueError(f"a battle is {one} against {other}; rate battles against one baseline only")
        model, place = (pair[1], "model_b") if pair[0] == baseline else (pair[0], "model_a")
        score_of = {"model_a": 0.0, "model_b": 0.0, "tie": 0.5, "tie (bothbad)": 0.5} | {place: 1.0}
        scores = (score_of[winner],) if isinstance(winner, str) and winner in score_of else ()
        rows.append((model, baseline, Battle(prompt, "", scores, failed_games=1 - len(scores))))
    return rows


def _one_or_all(names: list[str]) -> str | list[str] | None:
    return names if len(names) > 1 else next(iter(names), None)
