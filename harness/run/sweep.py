"""Run or resume a sweep: plan, check the input, execute what is missing, write the tables and the report."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from harness.config import Config
from harness.planning.plan import Plan, make_plan
from harness.run.endpoints import check_endpoints
from harness.run.local import LocalExecutor
from harness.run.progress import ProgressListener
from harness.stage import Stage, machine
from harness.store.artifacts import Store
from harness.tables.comparisons import comparison_stages
from harness.tables.tables import cell_states, trained_losses, write_tables

RECORDED = (
    *("nashbench", "torch", "transformers", "tokenizers", "safetensors", "accelerate", "numpy", "pandas"),
    *("scikit-learn", "lm_eval", "alpaca-eval", "openai"),
)


@dataclass(frozen=True)
class Outcome:
    """How a sweep ended: cells by state, keys of the stages that were computed now, reasons of those that failed (each
    once), where the report is.
    """

    states: dict[str, int]
    executed: list[str]
    failures: list[str]
    report: Path

    @property
    def exit_code(self) -> int:
        """0 where every cell and every comparison is done, else 1."""
        return 0 if set(self.states) <= {"done"} and not self.failures else 1


def run_sweep(config: Config, out: Path, store: Store, *, command: str, console: Console, jobs: int = 1) -> Outcome:
    """Run what is missing of a sweep and write its folder.

    Raises:
        ValueError: the input is wrong; no stage was started but the looks at prompts and endpoints.
    """
    plan = make_plan(config)
    missing = (stage for stage in plan.stages if not store.has(stage))
    check_endpoints(missing, lambda text: console.print(text, style="yellow", markup=False, soft_wrap=True))
    store.prepare()
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--out {out} cannot be written: {error.strerror}") from error
    _write_config(config, out)
    stages = [*plan.stages, *comparison_stages(plan, lambda stage: True)]

    def write_cells() -> None:
        cells = cell_states(plan, store, listener.reasons, listener.running)
        _write_atomically(out / "cells.json", json.dumps(cells))

    listener = ProgressListener(stages, write_cells, console, {stage.key for stage in plan.checks})
    with listener, LocalExecutor(store, jobs) as executor:
        executor.execute(plan.checks, listener)
        if listener.reasons:
            raise ValueError(next(iter(listener.reasons.values())))
        executor.execute(plan.stages, listener)
        executor.execute(comparison_stages(plan, store.has), listener)
    write_cells()
    _write_failures(listener, out)
    try:
        report = _finish(plan, store, out, command)
    except ValueError as error:  # the input was accepted long ago: this is no error of the user's
        raise RuntimeError(
            f"the tables or the report of {out} could not be written; what was computed is kept"
        ) from error
    failures = list(dict.fromkeys(listener.reasons.values()))
    return Outcome(_count_states(out), listener.executed, failures, report)


def _finish(plan: Plan, store: Store, out: Path, command: str) -> Path:
    """Tables, provenance and report."""
    import reports

    write_tables(plan, store, out)
    provenance = {
        "command": command,
        "versions": {name: _version(name) for name in RECORDED} | {"python": platform.python_version()},
        "hardware": machine() | {"platform": platform.platform()},
        "losses": trained_losses(plan),
        **_prompt_facts(plan.checks, store),
    }
    _write_atomically(out / "provenance.json", json.dumps(provenance, indent=1, sort_keys=True, default=str))
    return reports.build([out], out / "report")


def _prompt_facts(checks: list[Stage], store: Store) -> dict[str, Any]:
    manifests = [store.manifest(stage) for stage in checks if stage.kind == "prompts"]
    return {
        "prompts_sample": [m["first"] for m in manifests],
        "warnings": [w for m in manifests for w in m["warnings"]],
    }


def _write_failures(listener: ProgressListener, out: Path) -> None:
    """The traceback of every stage that failed by itself, for a bug report."""
    folder = out / "failures"
    for key, details in listener.details.items():
        if details:
            folder.mkdir(exist_ok=True)
            (folder / f"{key}.txt").write_text(f"{listener.reasons[key]}\n\n{details}", encoding="utf-8")


def _count_states(out: Path) -> dict[str, int]:
    cells = json.loads((out / "cells.json").read_text(encoding="utf-8"))
    states = [cell["state"] for cell in cells]
    return {state: states.count(state) for state in sorted(set(states))}


def _write_config(config: Config, out: Path) -> None:
    resolved = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
    _write_atomically(out / "config.yaml", resolved)


def _write_atomically(path: Path, text: str) -> None:
    """Readers see the old text or the new one, never half."""
    temporary = path.with_suffix(path.suffix + ".part")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"
