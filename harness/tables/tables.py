"""The tables a sweep leaves behind, assembled from the store: results, dynamics, samples, cells, metrics."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from harness.matrix import CONTROL
from harness.planning.plan import CellPlan, Grade, Plan
from harness.registry import load
from harness.stage import Stage
from harness.store.artifacts import Store
from harness.tables.alarms import alarms
from harness.tables.comparisons import comparison_stages
from harness.tables.judge_agreement import JUDGES, METRICS, judge_rows

RESULTS = [
    "sweep",
    "cell",
    "policy",
    "trainer",
    "options",
    "judge",
    "grader",
    "seed",
    "iteration",
    "leaderboard",
    "category",
    "metric",
    "value",
    "ci_low",
    "ci_high",
    "ci_level",
    "n",
    "coverage",
    "samples",
    "queries",
    "steps",
]
DYNAMICS = ["sweep", "cell", "policy", "trainer", "judge", "seed", "iteration", "phase", "step", "metric", "value"]
COMPARISONS = [
    "leaderboard",
    "metric",
    "grader",
    "a",
    "b",
    "difference",
    "ci_low",
    "ci_high",
    "p_value",
    "p_adjusted",
    "n",
    "claim",
]
WORK = ("samples", "queries", "steps")


def write_tables(plan: Plan, store: Store, out: Path) -> dict[str, pd.DataFrame]:
    """Write every table of the contract from what is in the store, as Parquet and CSV; the tables by name."""
    tables = {
        "results": pd.DataFrame(list(_results(plan, store)), columns=RESULTS).astype({"seed": "Int64"}),
        "comparisons": pd.DataFrame(list(_comparisons(plan, store)), columns=COMPARISONS),
        "dynamics": pd.DataFrame(list(_dynamics(plan, store)), columns=DYNAMICS).astype({"seed": "Int64"}),
        "judges": pd.DataFrame(list(judge_rows(plan, store)), columns=JUDGES),
    }
    for name, table in tables.items():
        table.to_parquet(out / f"{name}.parquet", index=False)
        table.to_csv(out / f"{name}.csv", index=False)
    _write_samples(plan, store, out / "samples")
    (out / "metrics.json").write_text(json.dumps(_metrics(plan), indent=1, sort_keys=True), encoding="utf-8")
    return tables


def _results(plan: Plan, store: Store) -> Iterator[dict[str, Any]]:
    for cell in plan.cells:
        for grade in cell.grades:
            if not store.has(grade.stage):
                continue
            for score in json.loads((store.path(grade.stage) / "scores.json").read_text(encoding="utf-8")):
                iteration = score.pop("iteration", grade.iteration)
                yield _identity(plan, cell) | {
                    "options": _options(cell),
                    "grader": grade.grader,
                    "iteration": iteration,
                    "leaderboard": grade.leaderboard,
                    **score,
                    **_work(cell, store, iteration),
                }


def _identity(plan: Plan, cell: CellPlan) -> dict[str, Any]:
    named = cell.cell
    return {
        "sweep": plan.config.name,
        "cell": named.id,
        "policy": named.policy_label,
        "trainer": named.trainer.label,
        "judge": named.judge_label,
        "seed": named.seed,
    }


def _options(cell: CellPlan) -> str:
    return json.dumps(dataclasses.asdict(cell.algorithm) if cell.algorithm else {}, sort_keys=True)


def _work(cell: CellPlan, store: Store, iteration: int) -> dict[str, int]:
    """What training up to this iteration cost the cell, shared stages counted in full; for a game, its steps so far."""
    total = dict.fromkeys(WORK, 0)
    for trained, stages in cell.training.items():
        for stage in stages:
            if stage.kind == "play":
                total["steps"] += iteration
            elif trained <= iteration:
                work = store.manifest(stage).get("work", {})
                total = {name: total[name] + work.get(name, 0) for name in WORK}
    return total


def _comparisons(plan: Plan, store: Store) -> Iterator[dict[str, Any]]:
    graders = {g.stage.key: (g.leaderboard, g.grader) for cell in plan.cells for g in cell.grades}
    for stage in comparison_stages(plan, store.has):
        if store.has(stage):
            leaderboard, grader = graders[next(iter(stage.inputs.values())).key]
            for row in json.loads((store.path(stage) / "comparisons.json").read_text(encoding="utf-8")):
                yield {"leaderboard": leaderboard, "grader": grader, **row}


def _dynamics(plan: Plan, store: Store) -> Iterator[dict[str, Any]]:
    for cell in plan.cells:
        identity = _identity(plan, cell)
        for iteration, stages in cell.training.items():
            fits = [stage for stage in stages if stage.kind in ("fit", "stream") and store.has(stage)]
            for phase, stage in enumerate(fits, 1):
                steps = pd.read_parquet(store.path(stage) / "dynamics.parquet")
                for step, figures in enumerate(steps.to_dict("records"), 1):
                    for metric, value in figures.items():
                        at = {"iteration": iteration, "phase": phase, "step": step}
                        yield identity | at | {"metric": metric, "value": value}
            yield from _counts(identity, iteration, stages, store)
        yield from _figures(plan, cell, store)


def _counts(identity: Mapping[str, Any], iteration: int, stages: list[Stage], store: Store) -> Iterator[dict[str, Any]]:
    """What was lost on the way: failed comparisons, dropped pairs, truncated responses."""
    at = {"iteration": iteration, "phase": 0, "step": 0}
    for stage in stages:
        manifest = store.manifest(stage) if store.has(stage) else {}
        for metric in ("pairs", "failed", "dropped", "ties", "truncated"):
            if metric in manifest:
                yield {**identity, **at, "metric": f"{stage.kind}/{metric}", "value": float(manifest[metric])}


def _figures(plan: Plan, cell: CellPlan, store: Store) -> Iterator[dict[str, Any]]:
    """Figures of the answers to the first leaderboard, and the alarms they raise beside the untrained policy's."""
    control = next(c for c in plan.cells if c.cell.trainer.name == CONTROL and c.cell.policy == cell.cell.policy)
    start, measured = answer_figures(control, store), answer_figures(cell, store)
    rang = alarms(start.get(0, {}), list(measured.values())) if cell.algorithm else []
    at = {"phase": 0, "step": 0}
    for iteration, figures in measured.items():
        for metric, value in figures.items():
            named = metric if ":" in metric else f"answers/{metric}"
            yield {**_identity(plan, cell), **at, "iteration": iteration, "metric": named, "value": value}
    for iteration, found in zip(measured, rang, strict=False):
        for metric, value in found.items():
            yield {**_identity(plan, cell), **at, "iteration": iteration, "metric": metric, "value": value}


def answer_figures(cell: CellPlan, store: Store) -> dict[int, dict[str, float]]:
    """Iteration -> figures of a cell's answers to its first leaderboard, and their style shares."""
    board = next((board for board, _ in cell.answers), "")
    found: dict[int, dict[str, float]] = {}
    for (answered, iteration), stage in cell.answers.items():
        if answered == board and store.has(stage):
            graded = [g.stage for g in cell.grades if g.stage.inputs.get("answers") is stage and store.has(g.stage)]
            styles = [store.manifest(grade).get("figures", {}) for grade in graded]
            found[iteration] = dict(store.manifest(stage)["figures"]) | next((s for s in styles if s), {})
    return found


def _write_samples(plan: Plan, store: Store, folder: Path) -> None:
    """The last graded answers of every cell, with the untrained policy's and every grader's verdict."""
    folder.mkdir(exist_ok=True)
    for cell in plan.cells:
        done = [g for g in cell.grades if g.stage.kind in ("grade", "benchmark") and store.has(g.stage)]
        last = max((g.iteration for g in done), default=0)
        frames = [_graded(cell, g, store) for g in done if g.iteration == last]
        if frames:
            pd.concat(frames).to_parquet(folder / f"{cell.cell.id}.parquet", index=False)


def _graded(cell: CellPlan, grade: Grade, store: Store) -> pd.DataFrame:
    verdicts = pd.read_parquet(store.path(grade.stage) / "verdicts.parquet").rename(columns={"id": "prompt_id"})
    return verdicts.assign(
        cell=cell.cell.id, iteration=grade.iteration, grader=grade.grader, leaderboard=grade.leaderboard
    )


def _metrics(plan: Plan) -> dict[str, Any]:
    boards = [load("leaderboards", entry.name) for entry in plan.config.leaderboards]
    metrics = {board.name: board.metrics for board in boards}
    if any(stage.kind == "judge" for stage in plan.stages):
        metrics["judges"] = METRICS
    return {f"{of}/{name}": dataclasses.asdict(m) for of, known in metrics.items() for name, m in known.items()}


def cell_states(plan: Plan, store: Store, reasons: Mapping[str, str], running: Collection[str]) -> list[dict[str, Any]]:
    """What `cells.json` holds: each cell's state, its reason where it failed, and its stages."""
    return [_cell_state(cell, store, reasons, running) for cell in plan.cells]


def _cell_state(cell: CellPlan, store: Store, reasons: Mapping[str, str], running: Collection[str]) -> dict[str, Any]:
    stages = [
        {"name": s.title or s.kind, "key": s.key, "state": _stage_state(s, store, reasons, running)}
        for s in cell.stages
    ]
    states = {stage["state"] for stage in stages}
    state = next((s for s in ("failed", "running", "missing") if s in states), "done")
    reason = next((reasons[s.key] for s in cell.stages if s.key in reasons), "")
    named = cell.cell
    return {
        "cell": named.id,
        "label": named.label,
        "algorithm": named.algorithm,
        "policy": named.policy_label,
        "trainer": named.trainer.label,
        "options": json.loads(_options(cell)),
        "judge": named.judge_label,
        "seed": named.seed,
        "state": state,
        "reason": reason,
        "stages": stages,
    }


def _stage_state(stage: Stage, store: Store, reasons: Mapping[str, str], running: Collection[str]) -> str:
    if store.has(stage):
        return "done"
    if stage.key in reasons:
        return "failed"
    return "running" if stage.key in running else "missing"


def trained_losses(plan: Plan) -> dict[str, Any]:
    """For the provenance: each trainer's equation, source, target and conventions."""
    out: dict[str, Any] = {}
    for cell in plan.cells:
        if cell.algorithm is None or cell.cell.trainer.name == CONTROL:
            continue
        algorithm = cell.algorithm
        target = algorithm.target_nats()
        out[cell.cell.trainer.label] = {
            "equation": algorithm.equation,
            "source": algorithm.source,
            "target_nats": target if target is not None and math.isfinite(target) else None,
            "conventions": {
                "schedule": algorithm.schedule.value,
                "player": algorithm.player.value,
                "pairing": dataclasses.asdict(plan.config.pairs.over(algorithm.pairing)),
                "options": dataclasses.asdict(algorithm),
                "log_probs": f"{getattr(algorithm, 'log_prob', 'sum')} over the response's tokens",
            },
        }
    return out
