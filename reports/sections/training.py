"""What happened in training: figures over iterations, style shares, and the alarms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from reports.charts import Line, Point, extent, finite, panel
from reports.sections.common import cell_lines, figure, seeds_of, spread, tags
from reports.tables import Row, Sweep, grouped, is_control

STYLE, ALARM = "style:", "alarm:"
CALLED = {
    "answers/entropy": "entropy of the sampled answers, nats a token",
    "answers/start_nll": "negative log-likelihood of the answers under the untrained policy, nats a token",
    "answers/distinct_2": "distinct word pairs in the answers, share",
    "answers/repeated": "answers given before, share",
    "answers/words": "length of the answers, words",
    "answers/empty": "answers without a word, share",
    "movement": "movement: root mean square log-ratio of the responses to where the iteration started, nats",
    "target_slope": "slope of the log-ratio to the start on (2p − 1) times the target: 1 reaches it",
    "response_length": "length of the responses, tokens",
    "pair/pairs": "pairs trained on",
    "pair/ties": "comparisons that were ties",
    "pair/dropped": "pairs left out, whose winner lost the last comparison",
    "pair/empty": "pairs that an empty answer lost",
    "pair/failed": "pairs without a verdict, because it failed",
    "pair/truncated": "responses cut at the longest length",
    "fit/truncated": "responses cut at the longest length, in the fit",
    "stream/failed": "pairs without a verdict, because it failed, while streaming",
    "stream/truncated": "responses cut at the longest length, while streaming",
    "finished": "responses that ended by themselves, share",
    "chosen_log_prob": "log-probability of the chosen response, nats",
    "margin": "margin, log π(w) − log π(l), nats",
    "grad_norm": "gradient norm before clipping",
    "lr": "learning rate",
}
# Figures by the policy that a pair is held against.
AGAINST = {
    "accuracy/": "pairs whose winner gained more than its loser, share, against the {} policy",
    "log_ratio/": "log-ratio of the winner less that of the loser, nats, against the {} policy",
}
# What an alarm says; the limits stand with its rule.
ALARMS = {
    "entropy": "the answers’ entropy has fallen far",
    "distinct-2": "far fewer distinct word pairs",
    "repeats": "many answers given before, word by word",
    "one-style": "nearly all answers in one style",
    "oscillation": "a style’s share swung far and back",
    "empty": "more than 2% of the answers to a board are empty",
    "unfinished": "more than a fifth of the answers to a board did not end by themselves",
    "missing": "more verdicts are missing than another policy’s, so that figures are over different prompts",
    "standstill": "training moved no response by .01 nats",
}
MOVED = ("movement", "target_slope")
PAIRS = ("pair/pairs", "pair/failed", "pair/dropped", "pair/ties", "pair/empty")
OWN_SCALES = 8  # panels of a row share their scale unless one reaches this many times as high as another


def dynamics(sweeps: Sequence[Sweep]) -> list[dict[str, Any]]:
    """Training figures: one row of panels a metric, a panel an arm, a line a training judge and seed.

    Figures of the answers first. Those that are 0 throughout are in `always_zero` instead.
    """
    facets = []
    for sweep in sweeps:
        by_metric = grouped(_figures(sweep), lambda row: row["metric"])
        for name in sorted(by_metric, key=lambda name: not name.startswith("answers/")):
            if not any(row["value"] for row in by_metric[name]):
                continue
            panels = _panels(sweep, by_metric[name], _limits(name))
            own = len({tuple(panel["y_ticks"]) for panel in panels}) > 1
            legend = _by_name(panels) if len(panels) > 1 else []
            block = {"name": _metric_title(name), "panels": panels, "own_scales": own, "legend": legend}
            facets.append({"sweep": sweep.name, **block})
    return facets


def _by_name(panels: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines of several panels, one a name."""
    return list({line["name"]: line for panel in panels for line in panel["lines"]}.values())


def always_zero(sweeps: Sequence[Sweep]) -> list[str]:
    """The figures that are 0 in every row."""
    by_metric = grouped((row for sweep in sweeps for row in _figures(sweep)), lambda row: row["metric"])
    return [_metric_title(name) for name, rows in by_metric.items() if not any(row["value"] for row in rows)]


def _figures(sweep: Sweep) -> list[Row]:
    return [row for row in _placed(sweep) if not row["metric"].startswith((STYLE, ALARM))]


def _metric_title(name: str) -> str:
    for start, words in AGAINST.items():
        if name.startswith(start):
            return words.format(name.removeprefix(start))
    return CALLED.get(name) or name.replace("_", " ").replace("/", " / ")


def _limits(name: str) -> tuple[float, float] | None:
    """The ends that an axis of a share cannot pass."""
    return (0.0, 1.0) if ", share" in _metric_title(name) else None


def styles(sweeps: Sequence[Sweep]) -> list[dict[str, Any]]:
    """Style shares: one row of panels an arm, a panel a training judge, a line a style."""
    return [facet for sweep in sweeps for facet in _styles_of(sweep)]


def _styles_of(sweep: Sweep) -> list[dict[str, Any]]:
    rows = [row for row in _placed(sweep) if row["metric"].startswith(STYLE)]
    names = sorted({row["metric"] for row in rows})
    trained = [row for row in rows if not is_control(sweep.info[row["cell"]])]
    # The untrained policy's shares are where every line starts, unless a cell has an iteration 0 of its own.
    own = not sweep.one_policy or any(row["x"] <= 0 for row in trained)
    start = [] if own else [row for row in rows if row["trainer"] == "sft"]
    y = extent([0.0, *(row["value"] for row in rows)], margin=0)
    return [
        {
            "sweep": sweep.name,
            "name": arm,
            "trainer": members[0]["trainer"],
            "panels": [
                _style_panel(sweep, cell, [*start, *of_cell], names, y)
                for cell, of_cell in grouped(members, lambda row: row["cell"]).items()
            ],
        }
        for arm, members in grouped(trained, lambda row: sweep.info[row["cell"]]["label"]).items()
    ]


def _style_panel(sweep: Sweep, cell: str, rows: Sequence[Row], names: Sequence[str], y: Any) -> dict[str, Any]:
    info = sweep.info[cell]
    lines = [
        Line(name=label, label=label, slot=names.index(STYLE + label), points=[_point(row) for row in members])
        for label, members in grouped(rows, lambda row: row["metric"].removeprefix(STYLE)).items()
    ]
    title = f"{info['judge']}" + (f", seed {info['seed']}" if len(seeds_of([sweep])) > 1 else "")
    return {"tags": {"judge": info["judge"], "seed": info["seed"]}, **panel(lines, title=title, size=(250, 150), y=y)}


def _point(row: Row) -> Point:
    return (row["x"], row["value"], None, None)


def _placed(sweep: Sweep) -> list[Row]:
    """The drawable rows of dynamics with `x`, the iterations passed: figures spread evenly within their iteration."""
    rows = [
        row
        for row in sweep.dynamics
        if row["value"] is not None and row["cell"] in sweep.info and finite([row["value"]])
    ]
    placed = []
    for members in grouped(rows, lambda row: (row["cell"], row["metric"], row["iteration"])).values():
        for index, row in enumerate(members):
            placed.append({**row, "x": round((row["iteration"] or 0) - 1 + (index + 1) / len(members), 4)})
    return placed


def _panels(sweep: Sweep, rows: Sequence[Row], limits: tuple[float, float] | None) -> list[dict[str, Any]]:
    """A panel an arm, a line a judge; where one judge trained and one scale serves, one panel with a line an arm."""
    trained = grouped(
        (row for row in rows if sweep.info[row["cell"]]["judge"]), lambda row: sweep.info[row["cell"]]["label"]
    )
    start = [row["value"] for row in rows if row["trainer"] == "sft"][-1:] if sweep.one_policy else []
    heights = [max(abs(row["value"]) for row in members) for members in trained.values()]
    shared = max(heights, default=0) <= OWN_SCALES * min(filter(None, heights), default=0)
    null, every = start[0] if start else None, [row for of_arm in trained.values() for row in of_arm]

    def y_of(members: Sequence[Row]) -> tuple[float, float]:
        return extent([*(row["value"] for row in members), null], limits=limits)

    if shared and len({row["judge"] for row in sweep.info.values() if row["judge"]}) == 1:
        lines = cell_lines(sweep, every, "arm", _point)
        return [{"tags": {}, **panel(lines, size=(330, 180), y=y_of(every), null=null)}]
    return [_small(sweep, arm, members, y_of(every if shared else members), null) for arm, members in trained.items()]


def _small(sweep: Sweep, arm: str, rows: Sequence[Row], y: Any, null: float | None) -> dict[str, Any]:
    """An arm's panel, a line a judge; the names stand in a legend of all panels."""
    lines = [replace(line, label="") for line in cell_lines(sweep, rows, "judge", _point)]
    return {"tags": {"trainer": rows[0]["trainer"]}, **panel(lines, title=arm, size=(186, 128), y=y, null=null)}


def movements(sweeps: Sequence[Sweep]) -> list[dict[str, Any]]:
    """A row a trained cell: its steps, and the least and the most that its fits moved and came towards their target."""
    rows = []
    for sweep in sweeps:
        steps = {row["cell"]: row["steps"] for row in sweep.final}
        watched = (r for r in sweep.dynamics if r["metric"] in MOVED and r["value"] is not None)
        for cell, members in grouped(watched, lambda row: row["cell"]).items():
            of = {name: [row["value"] for row in members if row["metric"] == name] for name in MOVED}
            about = {"row": members[0], "tags": tags(sweep, members[0]), "steps": figure(steps.get(cell))}
            arm = sweep.info[cell]["label"] if cell in sweep.info else cell
            ends = {name: spread(values) if values else [figure(None)] for name, values in of.items()}
            rows.append({**about, "arm": arm, **ends})
    return rows


def pairs(sweeps: Sequence[Sweep]) -> dict[str, Any]:
    """`rows`: for each refit cell its pairs an iteration, those left out by reason, and its steps; `uneven`: trainers
    whose steps differ by judge or seed after as many iterations, since different numbers of pairs were left.
    """
    rows = [row for sweep in sweeps for row in _pairs_of(sweep)]
    uneven = []
    for members in grouped(rows, lambda row: (row["tags"]["sweep"], row["arm"], row["iteration"])).values():
        steps = sorted((row["steps"] for row in members if row["steps"].value is not None), key=lambda f: f.value)
        if steps and steps[0] != steps[-1]:
            named = {row["steps"]: row["under"] for row in reversed(members)}
            uneven.append({**members[0], "ends": [(end, named[end]) for end in (steps[0], steps[-1])]})
    return {"rows": rows, "uneven": uneven}


def _pairs_of(sweep: Sweep) -> Iterator[dict[str, Any]]:
    ended, several = {row["cell"]: row for row in sweep.final}, len(seeds_of([sweep])) > 1
    counted = (r for r in sweep.dynamics if r["metric"] in PAIRS and r["value"] is not None and r["cell"] in sweep.info)
    for cell, members in grouped(counted, lambda row: row["cell"]).items():
        of, end, info = grouped(members, lambda row: row["metric"]), ended.get(cell, {}), sweep.info[cell]
        yield {
            "row": members[0],
            "tags": tags(sweep, members[0]),
            "arm": info["label"],
            "under": info["judge"] + (f", seed {info['seed']}" if several else ""),
            "counts": [spread([row["value"] for row in of[name]]) if name in of else [figure(None)] for name in PAIRS],
            "iteration": end.get("iteration"),
            "steps": figure(end.get("steps")),
        }


def alarms(sweeps: Sequence[Sweep]) -> dict[str, Any]:
    """The alarms that rang, one entry a row of dynamics, and how many kinds were watched over how many cells."""
    watched = [(sweep, row) for sweep in sweeps for row in sweep.dynamics if row["metric"].startswith(ALARM)]
    triggered = [
        {
            "name": _alarm(row["metric"].removeprefix(ALARM)),
            "arm": sweep.info[row["cell"]]["label"] if row["cell"] in sweep.info else row["cell"],
            "row": row,
            "tags": tags(sweep, row),
            "iteration": figure(row["iteration"]),
            "step": figure(row["step"]),
        }
        for sweep, row in watched
        if row["value"] == 1
    ]
    return {
        "kinds": len({row["metric"] for _, row in watched}),
        "cells": len({(sweep.name, row["cell"]) for sweep, row in watched}),
        "triggered": triggered,
    }


def _alarm(name: str) -> str:
    """An alarm's name and what it says, where that is known."""
    return f"{name} ({ALARMS[name]})" if name in ALARMS else name.replace("_", " ")
