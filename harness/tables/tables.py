"""The tables a sweep leaves behind, assembled from the store: results, dynamics, samples, cells, metrics."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from harness.matrix import CONTROL
from harness.planning.comparisons import planned_comparisons
from harness.planning.own_options import own_pairs
from harness.planning.plan import Plan
from harness.planning.records import CellPlan, Rated
from harness.planning.tuning import BOARD
from harness.registry import load
from harness.stage import Stage
from harness.stages.fit import Fit
from harness.stages.judge import TrainJudge
from harness.stages.play import Play
from harness.stages.stream import Stream
from harness.store.artifacts import Store
from harness.tables.alarms import STANDSTILL, alarms, score_alarms
from harness.tables.judge_agreement import METRICS, judge_rows
from harness.tables.trials import trial_rows
from leaderboards.leaderboard import Leaderboard, TextLeaderboard
from leaderboards.outcomes import outcome_metrics
from leaderboards.records import Metric, read_items
from reports import schema

WORK = ("samples", "queries", "steps", "tokens")


def write_tables(plan: Plan, store: Store, out: Path) -> dict[str, pd.DataFrame]:
    """Write every table of the contract from what is in the store, as Parquet and CSV; the tables by name."""
    results = list(_results(plan, store))
    tables = {
        "results": _frame("results", results),
        "timings": _frame("timings", _timings(plan, store)),
        "comparisons": _frame("comparisons", _compared(plan, store, "comparisons")),
        "algorithms": _frame("algorithms", _compared(plan, store, "algorithms")),
        "dynamics": _frame("dynamics", [*_dynamics(plan, store), *_score_alarms(plan, results)]),
        "judges": _frame("judges", judge_rows(plan, store)),
        "trials": _frame("trials", trial_rows(plan, store)),
    }
    for name, table in tables.items():
        table.to_parquet(out / f"{name}.parquet", index=False)
        table.to_csv(out / f"{name}.csv", index=False)
    _write_samples(plan, store, out / "samples")
    (out / "metrics.json").write_text(json.dumps(_metrics(plan), indent=1, sort_keys=True), encoding="utf-8")
    return tables


def _frame(table: str, rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """The rows as a table with the columns and types of the schema."""
    types = {"number": "float64", "count": "Int64", "flag": "boolean"}
    frame = pd.DataFrame(list(rows), columns=schema.names(table))
    return frame.astype({column: types[kind] for kind in types for column in schema.of_kind(table, kind)})


def _results(plan: Plan, store: Store) -> Iterator[dict[str, Any]]:
    for cell in plan.cells:
        for rated in cell.rated:
            if not store.has(rated.stage):
                continue
            for score in json.loads(store.open(rated.stage, "scores.json").read_text(encoding="utf-8")):
                iteration = score.pop("iteration", rated.iteration)
                yield _identity(plan, cell) | {
                    "options": _options(cell),
                    "grader": rated.grader,
                    "iteration": iteration,
                    "leaderboard": rated.leaderboard,
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
    return json.dumps(cell.options, sort_keys=True)


def _work(cell: CellPlan, store: Store, iteration: int) -> dict[str, float | None]:
    """What training up to this iteration cost the cell, shared stages counted in full; for a game, its steps so far.

    None where nobody counted: the tokens of an artifact from before they were.
    """
    if _is_game(cell):
        return {name: iteration if name == "steps" else 0 for name in WORK}
    works = [store.manifest(stage).get("work", {}) for stage in _trained_by(cell, iteration)]
    total: dict[str, float | None] = {name: sum(work.get(name, 0) for work in works) for name in WORK}
    if any("samples" in work and "tokens" not in work for work in works):
        total["tokens"] = None
    return total


def _timings(plan: Plan, store: Store) -> Iterator[dict[str, Any]]:
    """The seconds of training up to every iteration that was scored; a part of a game has none of its own."""
    for cell in plan.cells:
        scored = {rated.iteration for rated in cell.rated if store.has(rated.stage)}
        for iteration in () if _is_game(cell) else sorted(scored):
            seconds = sum(store.manifest(stage).get("seconds", 0.0) for stage in _trained_by(cell, iteration))
            yield {"cell": cell.cell.id, "iteration": iteration, "seconds": seconds}


def _is_game(cell: CellPlan) -> bool:
    return any(isinstance(stage, Play) for of in cell.training.values() for stage in of)


def _trained_by(cell: CellPlan, iteration: int) -> list[Stage]:
    """The training stages up to an iteration."""
    return [stage for trained, of in cell.training.items() for stage in of if trained <= iteration]


def _compared(plan: Plan, store: Store, table: Literal["comparisons", "algorithms"]) -> Iterator[dict[str, Any]]:
    for comparison in planned_comparisons(plan, store.has):
        stage, leaderboard, grader = comparison.stage, comparison.leaderboard, comparison.grader
        if store.has(stage):
            for row in json.loads(store.open(stage, f"{table}.json").read_text(encoding="utf-8")):
                yield {"leaderboard": leaderboard, "grader": grader, **row}


def _dynamics(plan: Plan, store: Store) -> Iterator[dict[str, Any]]:
    for cell in plan.cells:
        identity = _identity(plan, cell)
        for iteration, stages in cell.training.items():
            fits = [stage for stage in stages if isinstance(stage, Fit | Stream) and store.has(stage)]
            for phase, stage in enumerate(fits, 1):
                steps = pd.read_parquet(store.open(stage, "dynamics.parquet"))
                for step, figures in enumerate(steps.to_dict("records"), 1):
                    for metric, value in figures.items():
                        at = {"iteration": iteration, "phase": phase, "step": step}
                        yield identity | at | {"metric": metric, "value": value}
            yield from _movements(identity, iteration, fits, store)
            yield from _counts(identity, iteration, stages, store)
        yield from _figures(plan, cell, store)


def _movements(
    identity: Mapping[str, Any], iteration: int, fits: list[Fit | Stream], store: Store
) -> Iterator[dict[str, Any]]:
    """How far each fit or stream moved, and whether one stood still."""
    moved = [figures for stage in fits if (figures := store.manifest(stage).get("movement"))]
    for phase, figures in enumerate(moved, 1):
        for metric, value in figures.items():
            yield {**identity, "iteration": iteration, "phase": phase, "step": 0, "metric": metric, "value": value}
    if moved:
        stood = float(any(figures["movement"] < STANDSTILL for figures in moved))
        at = {"iteration": iteration, "phase": 0, "step": 0}
        yield {**identity, **at, "metric": "alarm:standstill", "value": stood}


def _score_alarms(plan: Plan, results: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    identities = {cell.cell.id: _identity(plan, cell) for cell in plan.cells}
    for (cell, iteration), rang in score_alarms(results).items():
        for metric, value in rang.items():
            at = {"iteration": iteration, "phase": 0, "step": 0}
            yield identities[cell] | at | {"metric": metric, "value": value}


def _counts(identity: Mapping[str, Any], iteration: int, stages: list[Stage], store: Store) -> Iterator[dict[str, Any]]:
    """What was lost on the way: failed comparisons, dropped pairs, truncated responses."""
    at = {"iteration": iteration, "phase": 0, "step": 0}
    for stage in stages:
        manifest = store.manifest(stage) if store.has(stage) else {}
        for metric in ("pairs", "failed", "dropped", "ties", "empty", "truncated"):
            if metric in manifest:
                yield {**identity, **at, "metric": f"{stage.kind}/{metric}", "value": float(manifest[metric])}


def _figures(plan: Plan, cell: CellPlan, store: Store) -> Iterator[dict[str, Any]]:
    """Figures of the answers to the first leaderboard, and the alarms they raise beside the untrained policy's."""
    control = next(c for c in plan.cells if c.cell.trainer.name == CONTROL and c.cell.policy == cell.cell.policy)
    start, measured = answer_figures(control, store), answer_figures(cell, store)
    triggered = alarms(start.get(0, {}), list(measured.values())) if cell.algorithm else []
    at = {"phase": 0, "step": 0}
    for iteration, figures in measured.items():
        for metric, value in figures.items():
            named = metric if ":" in metric else f"answers/{metric}"
            yield {**_identity(plan, cell), **at, "iteration": iteration, "metric": named, "value": value}
    for iteration, found in zip(measured, triggered, strict=False):
        for metric, value in found.items():
            yield {**_identity(plan, cell), **at, "iteration": iteration, "metric": metric, "value": value}


def answer_figures(cell: CellPlan, store: Store) -> dict[int, dict[str, float]]:
    """Iteration -> figures of a cell's answers to its first leaderboard, and their style shares."""
    first_board = next((board for board, _, _ in cell.answers), "")
    by_iteration: dict[int, dict[str, float]] = {}
    for (board, iteration, part), stage in cell.answers.items():
        if board == first_board and iteration not in by_iteration and store.has(stage):  # the curve's part comes first
            grades = [r.verdicts[part] for r in cell.rated if (r.leaderboard, r.iteration) == (board, iteration)]
            styles = [store.manifest(grade).get("figures", {}) for grade in grades if store.has(grade)]
            by_iteration[iteration] = dict(store.manifest(stage)["figures"]) | next((s for s in styles if s), {})
    return by_iteration


def _write_samples(plan: Plan, store: Store, folder: Path) -> None:
    """The last graded answers of every cell, with the untrained policy's and every grader's verdict."""
    folder.mkdir(exist_ok=True)
    for cell in plan.cells:
        done = [rated for rated in cell.rated if rated.verdicts and store.has(rated.stage)]
        last = max((rated.iteration for rated in done), default=0)
        rows = [row for rated in done if rated.iteration == last for row in _graded(cell, rated, store)]
        if rows:
            _frame("samples", rows).to_parquet(folder / f"{cell.cell.id}.parquet", index=False)


def _graded(cell: CellPlan, rated: Rated, store: Store) -> Iterator[dict[str, Any]]:
    about = {"cell": cell.cell.id, "iteration": rated.iteration, "grader": rated.grader}
    for item in (i for stage in rated.verdicts.values() for i in read_items(store.open(stage, "verdicts.parquet"))):
        texts = {"prompt_id": item.id, "prompt": json.dumps(item.prompt), "extra": json.dumps(item.extra)}
        yield {**vars(item), **about, **texts, "leaderboard": rated.leaderboard}


def _metrics(plan: Plan) -> dict[str, Any]:
    names = [*(entry.name for entry in plan.config.leaderboards), *([BOARD] if plan.config.tune else [])]
    boards = [load("leaderboards", name) for name in dict.fromkeys(names)]
    metrics = {board.name: board.metrics | _outcomes(board) for board in boards}
    if any(isinstance(stage, TrainJudge) for stage in plan.stages):
        metrics["judges"] = METRICS
    return {f"{board}/{name}": _metric(m) for board, described in metrics.items() for name, m in described.items()}


def _outcomes(board: type[Leaderboard]) -> Mapping[str, Metric]:
    return outcome_metrics(board) if issubclass(board, TextLeaderboard) else {}


def _metric(metric: Metric) -> dict[str, Any]:
    return {field: getattr(metric, field) for field in schema.METRIC_FIELDS}


def trained_losses(plan: Plan) -> dict[str, Any]:
    """For the provenance: each trainer's equation, source, target and conventions."""
    out: dict[str, Any] = {}
    for cell in plan.cells:
        if cell.algorithm is None or cell.cell.trainer.name == CONTROL:
            continue
        algorithm = cell.algorithm
        target = None if "tuned" in cell.options.values() else algorithm.target_nats()
        out[cell.cell.trainer.label] = {
            "equation": algorithm.equation,
            "source": algorithm.source,
            "target_nats": target if target is not None and math.isfinite(target) else None,
            "conventions": {
                "schedule": algorithm.schedule.value,
                "player": algorithm.player.value,
                "pairing": dataclasses.asdict(own_pairs(plan.config, cell.cell.trainer).over(algorithm.pairing)),
                "options": cell.options,
                "tuned": sorted(cell.cell.trainer.tune),
                "log_probs": f"{getattr(algorithm, 'log_prob', 'sum')} over the response's tokens",
            },
        }
    return out
