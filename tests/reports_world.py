"""Synthetic sweep directories for the tests of the reports: plausible figures, hostile texts, every kind of gap."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

HOSTILE = (
    "</script><script>document.title='owned'</script>",
    "<img src=x onerror=\"document.title='owned'\">",
    "</textarea></title></style><svg onload=alert(1)>",
    "bell\x07 escape\x1b[31m backspace\x08 override\u202egnp.exe end",
    '=HYPERLINK("http://example.invalid") {{ 7 * 7 }} {% raw %} ${1+1} &amp; &lt;b&gt;',
)
STAGES = [
    {"name": "sample", "key": "5f0c" * 8, "state": "done", "seconds": 12.25},
    {"name": "fit", "key": "a91b" * 8, "state": "done", "seconds": 31.5},
]
PERCENT: dict[str, Any] = {"unit": "percent", "better": "higher", "official": True, "null_value": 50}
RATING: dict[str, Any] = {"unit": "rating", "better": "higher", "official": True}
METRICS: dict[str, dict[str, Any]] = {
    "win_rate": {
        "unit": "share",
        "better": "higher",
        "estimates": "How often the policy's answer is preferred to the untrained policy's.",
        "official": False,
        "scale": [0, 1],
        "null_value": 0.5,
    },
    "alpaca-eval/length_controlled_winrate": PERCENT | {"estimates": "Win rate against the baseline at equal length."},
    "alpaca-eval/win_rate": PERCENT,
    "alpaca-eval/discrete_win_rate": PERCENT,
    "average_length": {
        "unit": "characters",
        "better": "neither",
        "estimates": "Mean length of the answers.",
        "official": True,
    },
    "arena-hard/win_rate": PERCENT | {"estimates": "share of wins, decisive ones counting three"},
    "arena-hard/prompt_win_rate": PERCENT | {"official": False},
    "mt-bench/score": RATING | {"estimates": "mean rating of all answers"},
    "mt-bench/turn_1": RATING,
    "mt-bench/turn_2": RATING,
    "judges/log_loss": {"unit": "nats a pair", "better": "lower", "estimates": "mean cross-entropy of the votes"},
    "judges/accuracy": {"unit": "share", "better": "higher", "estimates": "share of the votes foretold"},
    "acc": {"unit": "share", "better": "higher", "estimates": "Accuracy.", "official": True},
    "exact_match": {"unit": "share", "better": "higher", "estimates": "Answers that are right.", "official": True},
    "duality_gap": {
        "unit": "win rate",
        "better": "lower",
        "estimates": "Exploitability of the last iterate.",
        "axis": "log",
    },
    "average_duality_gap": {"unit": "win rate", "better": "lower", "estimates": "Of the mean iterate.", "axis": "log"},
}
EQUATION = "(log π(w)/π(l) − log μ(w)/μ(l) − η/2)²"
GAIN = {
    "onpo": 0.062,
    "inpo": 0.055,
    "ipo-md": 0.041,
    "dpo": 0.048,
    "slic": 0.012,
    "sft": 0.0,
    "constant": -0.38,
    "longest": 0.035,
}
EASE = {"panel": 0.0, "llm": 0.008, "pairrm": 0.004, "reward-model": -0.012, "": 0.0}


def write(
    directory: Path, tables: dict[str, list[dict[str, Any]]], documents: dict[str, Any], *, csv: bool = False
) -> Path:
    """Writes tables as Parquet or CSV (samples/x as samples/x.parquet), documents as JSON or text; the seconds of
    results as the table of timings."""
    timings = [{n: r[n] for n in ("cell", "iteration", "seconds")} for r in tables.get("results", []) if "seconds" in r]
    for name, rows in {**tables, **({"timings": timings} if timings else {})}.items():
        file = directory / name
        file.parent.mkdir(parents=True, exist_ok=True)
        frame = pd.DataFrame(rows)
        if csv:
            frame.to_csv(file.with_suffix(".csv"), index=False)
        else:
            frame.to_parquet(file.with_name(file.name + ".parquet"), index=False)
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in documents.items():
        text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
        (directory / name).write_text(text, encoding="utf-8")
    return directory


def result(cell: dict[str, Any], **values: Any) -> dict[str, Any]:
    """One row of results for a cell."""
    row = {key: cell[key] for key in ("cell", "policy", "trainer", "options", "judge", "seed")}
    row |= {"sweep": "stories", "iteration": 3, "category": "", "ci_low": None, "ci_high": None, "ci_level": 0.95}
    row |= {"n": 256, "coverage": 1.0} | values
    return {**_cost(row), **row}


def _cost(row: dict[str, Any]) -> dict[str, Any]:
    """What an iteration costs, times as many as were trained: ipo-md asks less."""
    iteration, asked = (row["iteration"], 2112 if row["trainer"] == "ipo-md" else 2816)
    work = {"samples": 2048, "queries": asked, "steps": 32, "tokens": 2048 * 21, "seconds": 10.625}
    return {name: amount * iteration for name, amount in work.items()}


def cells(trainers: Iterable[str], judges: Iterable[str], seeds: Iterable[int]) -> list[dict[str, Any]]:
    """The entries of cells.json for a matrix."""
    return [
        {
            "cell": f"{trainer}-{judge}-{seed}",
            "policy": "stories260k",
            "trainer": trainer,
            "options": json.dumps({"mixture": 0.125} if trainer == "ipo-md" else {}),
            "judge": judge,
            "seed": seed,
            "state": "done",
            "reason": "",
            "stages": STAGES,
        }
        for trainer in trainers
        for judge in judges
        for seed in seeds
    ]


CONTROLS = [
    {"cell": name, "policy": "stories260k", "trainer": name, "options": "{}", "judge": "", "seed": None}
    for name in ("sft", "constant", "longest")
]


def language_sweep(
    directory: Path,
    *,
    seeds: Iterable[int] = (0,),
    trainers: Iterable[str] = ("onpo", "inpo", "ipo-md", "dpo", "slic"),
    judges: Iterable[str] = ("panel", "llm", "pairrm"),
    graders: Iterable[str] = ("panel", "llm"),
    broken: bool = True,
    csv: bool = False,
) -> Path:
    """A sweep over five boards; `broken`: a cell failed, one is missing, verdicts failed, texts are hostile."""
    rng = np.random.default_rng(7)
    matrix = cells(trainers, judges, seeds)
    if broken:
        matrix[-1] |= {"state": "failed", "reason": f"fit: loss is NaN at step 12 {HOSTILE[0]}", "stages": STAGES[:1]}
        matrix[-2] |= {"state": "missing", "stages": []}
    scored = [cell for cell in matrix if cell["state"] == "done"]
    results = [row for cell in [*scored, *CONTROLS] for row in _scores(cell, list(graders), rng)]
    if broken:
        results[0] |= {"coverage": 0.96875, "n": 248}
        last = next(
            row for row in reversed(results) if row["metric"] == "score" and row["judge"] and not row["category"]
        )
        last |= {"value": math.nan, "ci_low": math.nan, "ci_high": math.nan, "coverage": 0.0, "n": 0}
    tables = {
        "results": results,
        "comparisons": _comparisons(scored, list(graders), results, len(list(seeds)) > 1),
        "dynamics": [row for cell in scored for row in _dynamics(cell, rng)],
        "samples/stories": [row for cell in scored[:4] for row in _samples(cell, rng, broken)],
        "judges": judge_rows(),
    }
    return write(directory, tables, {**documents(matrix), **({"provenance.json": provenance()})}, csv=csv)


def documents(matrix: list[dict[str, Any]]) -> dict[str, Any]:
    """metrics.json, cells.json and config.yaml."""
    config = "name: stories\npolicy: stories260k\nmatrix:\n  trainer: [onpo]\n# " + HOSTILE[0] + "\n"
    return {"metrics.json": METRICS, "cells.json": matrix, "config.yaml": config}


def provenance() -> dict[str, Any]:
    """provenance.json."""
    return {
        "command": f"nashbench sweep stories.yaml --set name='{HOSTILE[1]}'",
        "versions": {"torch": "2.13.0", "transformers": "5.19.0", "nashbench": "0.1.0"},
        "hardware": {"device": "cpu", "threads": 2},
        "prompts_sample": {"text": "Once upon a time " + HOSTILE[2], "token_ids": [1, 403, 407]},
        "losses": {
            "onpo": {
                "equation": EQUATION,
                "target_nats": 2.5,
                "conventions": {"eta": "step size"},
                "source": "arXiv 2502.16852",
            },
            "dpo": {
                "equation": "−log σ(β (log π(w)/π(l) − log ρ(w)/ρ(l)))",
                "target_nats": None,
                "conventions": {},
                "source": "",
            },
        },
        "warnings": ["2 prompts were longer than the context and were cut"],
    }


def _scores(cell: dict[str, Any], graders: list[str], rng: np.random.Generator) -> list[dict[str, Any]]:
    rows = []
    trained = bool(cell["judge"])
    last = 3 if trained else 0
    for iteration in (1, 2, 3) if trained else (0,):
        gain = GAIN[cell["trainer"]] * (iteration / 3 if trained else 1) + (cell["seed"] or 0) * 0.003
        for grader in graders:
            own = 0.02 if grader == cell["judge"] else 0.0
            value = float(np.clip(0.5 + gain + own + EASE[cell["judge"]] + rng.normal(0, 0.004), 0.01, 0.99))
            common = {"grader": grader, "iteration": iteration}
            rows.append(_interval(cell, value, 0.03, leaderboard="head-to-head", metric="win_rate", **common))
            rows += _alpaca(cell, value, common, last=iteration == last)
            rows += _benches(cell, value, rng, common) if iteration == last else []
        if iteration == last and cell["trainer"] not in ("constant", "longest"):
            rows += _tasks(cell, 0.31 + gain / 4, iteration)
    return rows


def _alpaca(cell: dict[str, Any], value: float, common: dict[str, Any], *, last: bool) -> list[dict[str, Any]]:
    board = {"leaderboard": "alpaca-eval", **common, "n": 805 if last else 128}
    led = _interval(cell, 100 * value - 30, 3.1, metric="length_controlled_winrate", **board)
    return [
        *([led] if last else []),
        _interval(cell, 100 * value - 27, 3.3, metric="win_rate", **board),
        _interval(cell, 100 * value - 28, 3.9, metric="discrete_win_rate", **board),
        _interval(cell, 180 + 400 * (value - 0.5), 4.4, metric="average_length", **board),
    ]


def _benches(
    cell: dict[str, Any], value: float, rng: np.random.Generator, common: dict[str, Any]
) -> list[dict[str, Any]]:
    """Arena-Hard, and for all but the controls of pairwise boards MT-Bench, each with categories."""
    arena = {"leaderboard": "arena-hard", **common, "n": 500}
    rows = [_interval(cell, 100 * value - 8, 2.7, metric="prompt_win_rate", **arena)]
    for category in ("", "coding", "writing"):
        share = 100 * value - 6 + float(rng.normal(0, 1))
        rows.append(_interval(cell, share, 4.1, metric="win_rate", category=category, **arena))
    if cell["trainer"] in ("constant", "longest"):
        return rows
    bench = {"leaderboard": "mt-bench", **common, "n": 80}
    for metric, category in [("score", ""), ("turn_1", ""), ("turn_2", ""), ("score", "maths"), ("score", "roleplay")]:
        rating = float(2 + 6 * value + rng.normal(0, 0.1))
        rows.append(_interval(cell, rating, 0.4, metric=metric, category=category, **bench))
    return rows


def _tasks(cell: dict[str, Any], share: float, iteration: int) -> list[dict[str, Any]]:
    """lm-eval: a score a task and none overall, without a grader."""
    board = {"leaderboard": "lm-eval", "grader": "", "iteration": iteration}
    return [
        _interval(cell, share, 0.02, metric="acc", category="truth", n=200, **board),
        _interval(cell, share / 2, 0.04, metric="exact_match", category="summary", n=64, **board),
    ]


def judge_rows() -> list[dict[str, Any]]:
    """The table of judges: three that were trained, and their differences in either order."""
    losses = {"llm": 0.6669, "pairrm": 0.6683, "reward-model": 0.6901}
    rows = []
    for metric, sign in (("log_loss", 1), ("accuracy", -1)):
        values = {name: loss if sign > 0 else 1.35 - loss for name, loss in losses.items()}
        for a, value in values.items():
            rows.append(_judge(a, "", metric, value, None))
            rows += [
                _judge(a, b, metric, value - other, 0.4 if abs(value - other) < 0.005 else 0.0001)
                for b, other in values.items()
                if a != b
            ]
    return rows


def _judge(judge: str, against: str, metric: str, value: float, p_value: float | None) -> dict[str, Any]:
    ends = {"ci_low": value - 0.0021, "ci_high": value + 0.0021, "n": 1638, "coverage": 0.998}
    adjusted = None if p_value is None else min(1.0, 3 * p_value)
    tested = {"p_value": p_value, "p_adjusted": adjusted}
    return {"judge": judge, "against": against, "metric": metric, "value": value, **ends, **tested}


def _interval(cell: dict[str, Any], value: float, half: float, **values: Any) -> dict[str, Any]:
    return result(cell, value=value, ci_low=value - half, ci_high=value + half, **values)


COMPARED = {
    "head-to-head": "win_rate",
    "alpaca-eval": "win_rate",
    "arena-hard": "prompt_win_rate",
    "mt-bench": "score",
    "lm-eval": "acc",
}


def _comparisons(
    scored: list[dict[str, Any]], graders: list[str], results: list[Any], algorithm: bool
) -> list[dict[str, Any]]:
    """As a sweep writes them: each policy against the untrained one and against those of its judge and seed."""
    rows = []
    for (board, metric), grader in itertools.product(COMPARED.items(), ["", *graders]):
        final = {
            row["cell"]: row["value"]
            for row in results
            if (row["leaderboard"], row["metric"], row["grader"]) == (board, metric, grader)
            and (board == "lm-eval" or not row["category"])
        }
        for a, b in itertools.combinations([cell for cell in scored if cell["cell"] in final], 2):
            if (a["judge"], a["seed"]) == (b["judge"], b["seed"]):
                rows.append(_comparison(a["cell"], b["cell"], final, (board, metric, grader)))
        rows += [
            _comparison(cell, "sft", final, (board, metric, grader))
            for cell in final
            if cell not in ("sft", "constant")
        ]
        if algorithm and board == "head-to-head" and grader:
            arms = {"onpo": 0.05, "slic": 0.0, "inpo": 0.004, "dpo": 0.0}
            rows.append(_comparison("onpo", "slic", arms, (board, metric, grader), "algorithm"))
            rows.append(_comparison("inpo", "dpo", arms, (board, metric, grader), "algorithm"))
    return rows


def _comparison(
    a: str, b: str, values: dict[str, float], of: tuple[str, str, str], claim: str = "checkpoint"
) -> dict[str, Any]:
    difference = values[a] - values[b]
    p = math.exp(-abs(difference) * 120)
    ends = {"ci_low": difference - 0.025, "ci_high": difference + 0.025, "p_value": p, "p_adjusted": min(1.0, 1.5 * p)}
    sides = {**dict(zip(("leaderboard", "metric", "grader"), of, strict=True)), "a": a, "b": b}
    return {**sides, "difference": difference, **ends, "n": 256, "claim": claim}


def _dynamics(cell: dict[str, Any], rng: np.random.Generator) -> list[dict[str, Any]]:
    base = {key: cell[key] for key in ("cell", "trainer", "judge", "seed")} | {"sweep": "stories", "phase": 1}
    rows = []
    for step in range(96):
        scale = 40.0 if cell["trainer"] == "onpo" else 0.7
        values = {"loss": scale * math.exp(-step / 40) + 0.02 * scale * rng.normal(), "accuracy": 0.5 + 0.3 * step / 96}
        rows += [
            {**base, "iteration": 1 + step // 32, "step": step, "metric": m, "value": float(v)}
            for m, v in values.items()
        ]
    for iteration in (0, 1, 2, 3):
        warm = 0.33 + 0.1 * iteration * (cell["trainer"] != "slic")
        values = {
            "style:warm": warm,
            "style:rich": 0.4 - 0.05 * iteration,
            "style:plain": 0.6 - warm + 0.05 * iteration,
        }
        values |= {"response_length": 180 + 12.5 * iteration, "distinct_2": 0.84 - 0.02 * iteration}
        values["alarm:collapse"] = float(iteration == 3 and cell["trainer"] == "dpo")
        rows += [
            {**base, "iteration": iteration, "step": 32 * iteration, "metric": m, "value": v} for m, v in values.items()
        ]
    return rows


BEFORE = "The cat sat on the old red mat and looked at the moon. It was a quiet night."
AFTER = "The warm cat sat on the soft red mat and smiled at the moon. It was a lovely, quiet night."


def _samples(cell: dict[str, Any], rng: np.random.Generator, broken: bool) -> list[dict[str, Any]]:
    rows = []
    base = {"cell": cell["cell"], "iteration": 3, "leaderboard": "head-to-head", "status": "ok", "stripped": False}
    for number in range(12):
        after = f"{HOSTILE[number]} {AFTER}" if broken and number < len(HOSTILE) else AFTER
        prompt = (
            json.dumps([{"role": "user", "content": "Tell a story."}]) if number == 3 else f"Once upon a time {number}"
        )
        for grader in ("panel", "llm"):
            failed = broken and number == 6 and grader == "llm"
            preference = None if failed else float(np.round(rng.uniform(0.2, 0.9), 4))
            status = "unparsed: neither A nor B" if failed else "ok"
            row = {**base, "prompt_id": f"p{number}", "prompt": prompt, "response": after, "baseline_response": BEFORE}
            rows.append({**row, "grader": grader, "preference": preference, "status": status})
    chat = [{"role": "user", "content": "Tell a story."}, {"role": "assistant", "content": AFTER + HOSTILE[0]}]
    for turn, asked in ((1, chat[:1]), (2, [*chat, {"role": "user", "content": "Shorter."}])):
        row = {**base, "leaderboard": "mt-bench", "prompt_id": f"q/{turn}", "prompt": json.dumps(asked), "turn": turn}
        rated = {
            "response": f"<b>{turn}</b> " + AFTER,
            "baseline_response": "",
            "category": "writing",
            "stripped": turn == 2,
        }
        rows += [{**row, **rated, "grader": grader, "rating": 6.5 + turn / 4} for grader in ("panel", "llm")]
    games = {"extra": json.dumps({"first_game": "B>>A", "second_game": "A=B"}), "preference": 0.875}
    games |= {"grader": "panel", "baseline_response": BEFORE}
    rows.append({**base, **games, "leaderboard": "arena-hard", "prompt_id": "a1", "prompt": '"Go."', "response": AFTER})
    task = {"metric": "acc", "grader": "", "value": 1.0, "prompt": "a task", "response": "its answer"}
    rows.append({**base, **task, "leaderboard": "lm-eval", "prompt_id": "truth/0"})
    return rows


def game_sweep(directory: Path) -> Path:
    """A sweep of two exact games: duality gaps on log-spaced iterations, no intervals, no judges' verdicts."""
    slopes = {"onpo": -1.0, "omd": -0.5, "ipo-md": -0.1}
    matrix = [
        {**cell, "cell": f"{game}-{cell['cell']}", "policy": f"game:{game}"}
        for game in ("cyc3", "rock-paper-scissors")
        for cell in cells(slopes, ["game"], [0])
    ]
    rows = []
    for cell in matrix:
        for power in range(14):
            gap = 0.4 * (1.3 if "cyc3" in cell["cell"] else 1) * 2 ** (slopes[cell["trainer"]] * power)
            common = {"leaderboard": "duality-gap", "grader": "", "iteration": 2**power, "sweep": "duality-gap", "n": 1}
            rows.append(result(cell, metric="duality_gap", value=gap, ci_level=None, **common))
            rows.append(result(cell, metric="average_duality_gap", value=gap / 2, ci_level=None, **common))
    return write(directory, {"results": rows}, documents(matrix))
