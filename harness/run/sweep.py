"""Run or resume a sweep: plan, check the input, execute what is missing, write the tables and the report."""

from __future__ import annotations

import json
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from harness.config import Config
from harness.errors import is_about_a_place, os_error_message
from harness.identity import digest
from harness.planning.comparisons import comparison_stages
from harness.planning.plan import Plan, make_plan
from harness.run.devices import machine
from harness.run.endpoints import check_endpoints
from harness.run.events import Broadcast, CellStates, SweepRecord
from harness.run.executor import Executor
from harness.run.files import clear_parts, write_atomically
from harness.run.local import LocalExecutor
from harness.run.lock import locked
from harness.run.progress import ProgressListener
from harness.stage import Stage
from harness.stages.prompts import Prompts
from harness.store.artifacts import DamagedArtifact, Store
from harness.tables.tables import trained_losses, write_tables
from harness.template_date import keep_template_date, with_template_date

RECORDED = (
    *("nashbench", "torch", "transformers", "tokenizers", "safetensors", "accelerate", "numpy", "pandas"),
    *("scikit-learn", "lm_eval", "alpaca-eval", "openai"),
)


@dataclass(frozen=True)
class Outcome:
    """How a sweep ended: cells by state, keys of the stages that were computed now, reasons of those that failed (each
    once), where the report is; None where it could not be written, for the last of the reasons.
    """

    states: dict[str, int]
    executed: list[str]
    failures: list[str]
    report: Path | None

    @property
    def exit_code(self) -> int:
        """0 where every cell and every comparison is done, else 1."""
        return 0 if set(self.states) <= {"done"} and not self.failures else 1


def run_sweep(config: Config, out: Path, store: Store, *, command: str, console: Console, jobs: int = 1) -> Outcome:
    """Run what is missing of a sweep and write its folder.

    Raises:
        ValueError: the input is wrong, or another sweep is at work in the folder; no stage was started but the looks at
            prompts and endpoints.
        OSError: the store or the folder cannot be written, and nothing was computed.
    """
    config = with_template_date(config, store)
    plan = make_plan(config)
    stages = plan.stages
    done = _done(stages, store)
    missing = (stage for stage in stages if stage.key not in done)
    check_endpoints(missing, lambda text: console.print(text, style="yellow", markup=False, soft_wrap=True))
    store.prepare()
    keep_template_date(config, store)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--out {out} cannot be written: {error.strerror}") from error
    with locked(out):
        clear_parts(out)
        _write_config(config, out)
        record = SweepRecord(CellStates(plan.cells, done), out)
        report, fault = None, []
        try:
            record, report = _execute_and_report(plan, store, out, record, command, console, jobs)
        except OSError as error:
            if not record.executed or not is_about_a_place(error):
                raise
            error.filename = error.filename or str(out)  # a full disk is an error without a name
            fault = [os_error_message(error)]
    failures = [*dict.fromkeys(record.reasons.values()), *fault]
    return Outcome(record.states.counts, record.executed, failures, report)


def _done(stages: list[Stage], store: Store) -> set[str]:
    """Keys of the stages whose artifacts are there."""
    return {stage.key for stage in stages if store.has(stage)}


def _execute_and_report(
    plan: Plan, store: Store, out: Path, record: SweepRecord, command: str, console: Console, jobs: int
) -> tuple[SweepRecord, Path]:
    """Compute what is missing, then the tables and the report.

    Tables find damage that no stage has met: each damaged artifact is moved away, so that this ends.
    """
    stages = plan.stages
    while True:
        _execute(plan, stages, LocalExecutor(store, jobs), record, console)
        try:
            return record, _finish(plan, store, out, command, record)
        except DamagedArtifact as damage:
            console.print(str(damage), style="yellow", markup=False, soft_wrap=True)
            again = SweepRecord(CellStates(plan.cells, _done(stages, store)), out, executed=record.executed)
            record = again


def _execute(plan: Plan, stages: list[Stage], executor: Executor, record: SweepRecord, console: Console) -> None:
    """The looks at the input, then every stage, then the comparisons of the cells that have grades."""
    checks, comparisons = plan.checks, comparison_stages(plan, lambda stage: True)
    progress = ProgressListener([*stages, *comparisons], console, {stage.key for stage in checks})
    listener = Broadcast(record, progress)
    with record, progress, executor:
        executor.execute(checks, listener)
        if record.reasons:
            raise ValueError(next(iter(record.reasons.values())))
        checked = {stage.key for stage in checks}
        executor.execute([stage for stage in stages if stage.key not in checked], listener)
        there = record.states.done
        executor.execute(comparison_stages(plan, lambda stage: stage.key in there), listener)


def _finish(plan: Plan, store: Store, out: Path, command: str, record: SweepRecord) -> Path:
    """Tables, provenance and report; nothing is written again where all that they show is as it was.

    Raises:
        RuntimeError: a bug; the input was accepted long ago, so that no ValueError here is the user's.
    """
    import reports

    page, shown = out / "report" / "index.html", _shown(plan, record)
    if page.is_file() and _read(out / ".shown") == shown:
        return page
    try:
        write_tables(plan, store, out)
        write_atomically(out / "provenance.json", _provenance(plan, store, command))
        page = reports.build([out], out / "report")
        write_atomically(out / ".shown", shown)
        return page
    except ValueError as error:
        raise RuntimeError(
            f"the tables or the report of {out} could not be written; what was computed is kept"
        ) from error


def _shown(plan: Plan, record: SweepRecord) -> str:
    """Changes with what tables and report show: the config, the stages that are done or failed, and the code."""
    rooms = [Path(__file__).parents[1] / "tables", Path(__file__).parents[2] / "reports"]
    files = [(str(f), f.stat().st_mtime_ns) for room in rooms for f in sorted(room.rglob("*.*")) if f.suffix != ".pyc"]
    return digest([plan.config.model_dump(mode="json"), record.states.json(), sorted(record.reasons.items()), files])


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _provenance(plan: Plan, store: Store, command: str) -> str:
    provenance = {
        "command": command,
        "versions": {name: _version(name) for name in RECORDED} | {"python": platform.python_version()},
        "hardware": machine() | {"platform": platform.platform()},
        "losses": trained_losses(plan),
        "environments": _environments(plan, store),
        **_prompt_facts(plan.checks, store),
    }
    return json.dumps(provenance, indent=1, sort_keys=True, default=str)


def _environments(plan: Plan, store: Store) -> list[dict[str, Any]]:
    """The kinds of machine that artifacts were made on, each with how many stages and which cells have some."""
    made: dict[str, dict[str, Any]] = {}
    environment_of: dict[str, str] = {}
    for cell in plan.cells:
        for stage in cell.stages:
            if stage.key not in environment_of and store.has(stage):
                facts = store.manifest(stage).get("environment", {})
                name = f"{facts.get('device')}, {facts.get('threads')} threads, torch {facts.get('torch')}"
                environment_of[stage.key] = name
                made.setdefault(name, {**facts, "stages": 0, "cells": {}})["stages"] += 1
            if stage.key in environment_of:
                made[environment_of[stage.key]]["cells"][cell.cell.id] = None
    return [{**facts, "cells": list(facts["cells"])} for facts in made.values()]


def _prompt_facts(checks: list[Stage], store: Store) -> dict[str, Any]:
    manifests = [store.manifest(stage) for stage in checks]
    return {
        "prompts_sample": [m["first"] for m in manifests if "first" in m],
        "warnings": [w for m in manifests for w in m.get("warnings", [])],
        "hub": [
            s.policy.location for s in checks if isinstance(s, Prompts) and s.policy.fingerprint.startswith("hub:")
        ],
    }


def _write_config(config: Config, out: Path) -> None:
    resolved = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
    write_atomically(out / "config.yaml", resolved)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"
