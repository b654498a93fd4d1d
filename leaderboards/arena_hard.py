"""Arena-Hard: two games a prompt with the places swapped, five verdicts, win rate against a baseline.

Follows arena-hard-auto, `show_result.py`: a decisive verdict counts three times, and a prompt is left out where either
game gave no verdict. Where everybody plays the baseline only, the Bradley-Terry win rate is the weighted share of wins,
so nothing is fitted. Unlike upstream, which resamples the rows that the weight has multiplied (nominal 90% then covers
about 62%), intervals resample prompts. No style control.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from leaderboards.sources import Record, field, identifiers, json_interval, json_number, read_records, texts
from leaderboards.statistics import Estimate, prompt_bootstrap

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


def rate_arena_hard(judgments: Path, *, seed: int = 0) -> dict[str, dict[str, Any]]:
    """The win rate of each model in a file of judgments, or in a folder with a file a model.

    Returns:
        For each model `win_rate` (0..100; the baseline is at 50) with `ci` [low, high], `categories` (name -> win
        rate, each against its own baseline), `n` (prompts rated), `coverage` (share of the prompts judged anywhere in
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
    rows = _from_battles(records) if "model_a" in records[0] else _from_games(records)
    asked = {battle.prompt for _, _, battle in rows}
    by_model: dict[str, list[Battle]] = defaultdict(list)
    baselines: dict[str, set[str]] = defaultdict(set)
    for model, baseline, battle in rows:
        by_model[model].append(battle)
        baselines[model] |= {baseline} - {""}
    return {
        model: _figures(battles, len(asked), seed) | {"baseline": _one_or_all(sorted(baselines[model]))}
        for model, battles in sorted(by_model.items())
    }


def arena_hard_scores(battles: Sequence[Battle], *, seed: int = 0) -> dict[str, Estimate]:
    """`win_rate` and every category's, 0..100: the weighted share of wins, intervals over prompts."""
    groups = {"win_rate": list(battles)}
    for category in dict.fromkeys(battle.category for battle in battles if battle.category):
        groups[category] = [battle for battle in battles if battle.category == category]
    return {name: _pooled(group, seed) for name, group in groups.items()}


def scores_of_games(first: str | None, second: str | None) -> tuple[float, ...]:
    """The model's scores from the labels of both games, the baseline's answer being A in the first and B in the second.

    Empty where either label is missing or unknown, as upstream leaves such prompts out: one order alone would favour
    a place.
    """
    if first not in BASELINE_FIRST or second not in BASELINE_FIRST:
        return ()
    return (*BASELINE_FIRST[first], *(1 - score for score in BASELINE_FIRST[second]))


def _pooled(battles: Sequence[Battle], seed: int) -> Estimate:
    by_prompt: dict[str, tuple[float, ...]] = defaultdict(tuple)
    for battle in battles:
        by_prompt[battle.prompt] += battle.scores
    means = [100 * sum(scores) / len(scores) if scores else np.nan for scores in by_prompt.values()]
    return prompt_bootstrap(means, [len(scores) for scores in by_prompt.values()], seed=seed)


def _figures(battles: Sequence[Battle], asked: int, seed: int) -> dict[str, Any]:
    estimates = arena_hard_scores(battles, seed=seed)
    total = estimates.pop("win_rate")
    return {
        "win_rate": json_number(total.value),
        "ci": json_interval(total),
        "ci_level": total.ci_level,
        "categories": {name: json_number(estimate.value) for name, estimate in estimates.items()},
        "intervals": {name: json_interval(e) for name, e in estimates.items()},
        "n": total.n,
        "coverage": total.n / asked,
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
            raise ValueError(f"a battle is {pair[0]} against {pair[1]}; rate battles against one baseline only")
        model, place = (pair[1], "model_b") if pair[0] == baseline else (pair[0], "model_a")
        known = {"model_a": 0.0, "model_b": 0.0, "tie": 0.5, "tie (bothbad)": 0.5} | {place: 1.0}
        scores = (known[winner],) if isinstance(winner, str) and winner in known else ()
        rows.append((model, baseline, Battle(prompt, "", scores, failed_games=1 - len(scores))))
    return rows


def _one_or_all(names: list[str]) -> str | list[str] | None:
    return names if len(names) > 1 else next(iter(names), None)
