"""The command line. Exit codes: 0 done; 1 some cells failed; 2 the input is wrong; 130 interrupted, resumable."""

from __future__ import annotations

import json
import shlex
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from harness.cli import judges as judge_commands
from harness.cli import store as store_commands
from harness.cli.rate import rate
from harness.cli.store import Json, StoreOption, open_store
from harness.errors import is_about_a_place, os_error_message, printable
from judges.reading import shortened

if TYPE_CHECKING:
    from harness.planning.effort import Effort
    from harness.planning.plan import Plan
    from harness.planning.records import CellPlan

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")

ConfigPath = Annotated[Path, typer.Argument(help="The sweep's YAML file.", metavar="CONFIG.yaml")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the config; the value is YAML. Repeatable."),
]


def main() -> None:
    """Run the command line; wrong input is one message on stderr and exit 2. SIGTERM ends as Ctrl-C does."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        code = app(standalone_mode=False) or 0  # typer turns Ctrl-C into 130
    except ValueError as error:
        _say(f"error: {error}")
        sys.exit(2)
    except OSError as error:
        if not is_about_a_place(error):
            raise
        _say(f"error: {os_error_message(error)}")
        sys.exit(2)
    except Exception as error:
        sys.exit(_usage_exit(error))
    if code == 130:
        _say("interrupted; the same command goes on from here")
    sys.exit(code)


def _usage_exit(error: Exception) -> int:
    """Usage errors of the command line, as typer words them; anything else is a bug of ours and is raised."""
    show = getattr(error, "show", None)
    if show is not None:
        show()
        return int(getattr(error, "exit_code", 2))
    raise error


def _say(text: str) -> None:
    Console(stderr=True, highlight=False, soft_wrap=True).print(printable(text), markup=False)


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=1))


@app.command()
def sweep(
    config: ConfigPath,
    set: Overrides = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Default: runs/NAME.")] = None,
    store: StoreOption = None,
    executor: Annotated[str, typer.Option(metavar="local|ray", help="Where stages run.")] = "local",
    jobs: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Stages at once. Default: one a core on a CPU, one on a GPU.")
    ] = None,
) -> None:
    """Run a matrix, or go on with it: only what is missing is computed. Ends with tables and report.

    In the config a list as the value of an option of a trainer or judge is several variants, {name: dpo, beta: [0.1,
    1]}; a value that is itself a list is written as a list in a list, {name: llm, labels: [[A, B]]}.

    [bold]Examples[/bold]

    nashbench sweep examples/quickstart.yaml

    nashbench sweep examples/stories.yaml --set policy=path/to/model --set matrix.seed=[0,1]
    """
    if executor != "local":
        known = "not built yet" if executor == "ray" else "there is no such executor"
        raise ValueError(f"--executor {executor}: {known}; use local")
    from harness.config import load_config
    from harness.run.devices import default_jobs
    from harness.run.sweep import run_sweep

    loaded = load_config(config, set or [])
    folder = out or Path("runs") / loaded.name
    console = Console(stderr=True)
    command = shlex.join(["nashbench", *sys.argv[1:]])
    artifacts = open_store(store)
    outcome = run_sweep(loaded, folder, artifacts, command=command, console=console, jobs=jobs or default_jobs())
    counts = ", ".join(f"{n} {state}" for state, n in outcome.states.items())
    failed = f"; {len(outcome.failures)} failures" if outcome.failures else ""
    console.print(f"{len(outcome.executed)} stages executed; cells: {counts}{failed}", highlight=False)
    if outcome.report is None:
        _say(f"error: {outcome.failures[-1]}")
    else:
        typer.echo(outcome.report)
    raise typer.Exit(outcome.exit_code)


@app.command()
def plan(
    config: ConfigPath,
    set: Overrides = None,
    store: StoreOption = None,
    json: Json = False,
    why: Annotated[
        str | None,
        typer.Option(
            metavar="STAGE",
            help="Say instead what in the key of a stage differs from the nearest artifact that is there. STAGE is the "
            "beginning of its key, or words of its title.",
        ),
    ] = None,
) -> None:
    """Show the cells and stages of a sweep, what each trains and what is there already; runs nothing.

    Pairs are those of an iteration, steps the optimiser's; with ≤ the judge decides how many are left.

    [bold]Examples[/bold]

    nashbench plan examples/quickstart.yaml --json

    nashbench plan examples/quickstart.yaml --why "onpo iteration 1 fit"
    """
    from harness.config import load_config
    from harness.planning.comparisons import comparison_stages
    from harness.planning.plan import make_plan
    from harness.planning.why import answer_why
    from harness.template_date import with_template_date

    artifacts = open_store(store)
    planned = make_plan(with_template_date(load_config(config, set or []), artifacts))
    stages = [*planned.stages, *comparison_stages(planned, lambda stage: True)]
    if why is not None:
        if json:
            raise ValueError("--why answers in words; leave --json out")
        typer.echo(answer_why(stages, why, artifacts))
        return
    there = {stage.key: artifacts.has(stage) for stage in stages}
    rows = [(c.cell.id, len(c.stages), sum(there[s.key] for s in c.stages), _effort(planned, c)) for c in planned.cells]
    if json:
        cells = [
            {"cell": id, "stages": total, "done": done, "training": None if trains is None else asdict(trains)}
            for id, total, done, trains in rows
        ]
        kinds = {kind: sum(s.kind == kind for s in stages) for kind in dict.fromkeys(s.kind for s in stages)}
        listed = [{"key": s.key, "kind": s.kind, "title": s.title, "done": there[s.key]} for s in stages]
        totals = {"stages": len(stages), "done": sum(there.values()), "missing": len(stages) - sum(there.values())}
        _print_json({"cells": cells, "totals": totals, "kinds": kinds, "stages": listed, "notes": _notes(planned)})
        return
    table = Table("cell", "stages", "there", "pairs", "steps a fit", "steps in all", box=None)
    for id, total, done, trains in rows:
        table.add_row(id, str(total), str(done), *(("", "", "") if trains is None else trains.told()))
    Console().print(table)
    typer.echo(f"{len(rows)} cells, {len(stages)} distinct stages, {sum(there.values())} there already")
    for note in _notes(planned):
        typer.echo(note)


def _effort(planned: Plan, cell: CellPlan) -> Effort | None:
    """What the cell trains; None where it trains no language model."""
    from harness.planning.effort import effort

    trains = cell.algorithm is not None and isinstance(cell.cell.policy, str)
    return effort(planned.config, cell.cell.trainer, cell.algorithm) if trains and cell.algorithm else None


def _notes(planned: Plan) -> list[str]:
    """What a user may not expect: answers of another length than in training, prompts that are drawn repeatedly, and
    what the leaderboards and judges say of themselves.
    """
    return [
        *_trials(planned),
        *_answer_lengths(planned),
        *_repeated_prompts(planned),
        *_of_boards(planned),
        *_of_judges(planned),
    ]


def _trials(planned: Plan) -> list[str]:
    """How many trials there are, whose stages are no cell's."""
    tune, choices = planned.config.tune, {c.choice.key for c in planned.cells if c.choice is not None}
    if tune is None or not choices:
        return []
    told = f"tune: {tune.trials} trials of each of {len(choices)} pairs of a trainer and a judge"
    return [f"{told}, ranked on {tune.prompts} of the training prompts; their stages are counted with no cell"]


def _answer_lengths(planned: Plan) -> list[str]:
    """The boards whose answers may have another length than responses in training."""
    trained = planned.config.sampling.max_tokens
    tokens = {board: s.sampling.max_tokens for c in planned.cells for (board, _, _), s in c.answers.items()}
    return [
        f"{board}: answers have up to {most} tokens, responses in training {trained} (sampling.max_tokens); the "
        f"board's option max_tokens sets another number"
        for board, most in tokens.items()
        if most != trained
    ]


def _of_boards(planned: Plan) -> list[str]:
    """The leaderboards' own notes; those whose questions a stage has yet to make have none."""
    from harness.registry import make

    specs = [rated.stage.board for cell in planned.cells for rated in cell.rated if rated.stage.board.source is None]
    boards = {spec.label: make("leaderboards", spec.name, spec.options) for spec in specs}
    return [note for board in boards.values() for note in board.notes()]


def _of_judges(planned: Plan) -> list[str]:
    """The judges' own notes, such as the day on which a hosted model is shut down."""
    from harness.run.endpoints import judges_of

    return list(dict.fromkeys(note for judge in judges_of(planned.stages) for note in judge.notes()))


def _repeated_prompts(planned: Plan) -> list[str]:
    """A file of prompts from which a cell draws more than there are."""
    from harness.prompts import read_prompts
    from harness.stages.sample import Sample

    config = planned.config
    drawn = config.iterations * config.prompts_per_iteration
    draws = any(isinstance(stage, Sample) for stage in planned.stages)
    if config.prompts in (None, "pocket") or not draws:
        return []
    there = sum(record.split == "train" for record in read_prompts(config.prompts, seed=0))
    said = f"prompts are drawn repeatedly: {config.prompts} has {there} for training, and a cell draws {drawn}"
    return [f"{said} (iterations x prompts_per_iteration), {drawn / there:.1f} times each"] if drawn > there else []


@app.command()
def status(folder: Annotated[Path, typer.Argument(metavar="DIR")], json: Json = False) -> None:
    """Each cell of a sweep: done, running, failed (with the reason) or missing.

    [bold]Example[/bold]

    nashbench status runs/quickstart
    """
    cells = _read_cells(folder)
    if json:
        _print_json(cells)
        return
    table = Table("cell", "state", "stages", "reason", box=None)
    for cell in cells:
        done = sum(stage["state"] == "done" for stage in cell["stages"])
        table.add_row(cell["cell"], cell["state"], f"{done}/{len(cell['stages'])}", cell["reason"])
    Console().print(table)


def _read_cells(folder: Path) -> list[dict[str, Any]]:
    path = folder / "cells.json"
    if not path.is_file():
        raise ValueError(f"{folder} is no sweep's folder: it has no cells.json; give one such as runs/quickstart")
    return list(json.loads(path.read_text(encoding="utf-8")))


@app.command()
def report(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...")],
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Default: DIR/report of the first.")] = None,
) -> None:
    """Render the pages again; several sweeps are shown side by side.

    [bold]Example[/bold]

    nashbench report runs/quickstart runs/stories --out runs/both
    """
    import reports

    for folder in folders:
        _read_cells(folder)
    typer.echo(reports.build(folders, out or folders[0] / "report"))


app.command()(rate)


@app.command(name="list")
def list_names(
    kind: Annotated[str, typer.Argument(metavar="trainers|judges|leaderboards|protocols|transports")],
    verbose: Annotated[bool, typer.Option("--verbose", help="Options, equations and sources.")] = False,
    json: Json = False,
) -> None:
    """What the registry knows, third-party plug-ins included.

    [bold]Example[/bold]

    nashbench list trainers --verbose
    """
    from harness.cli.listing import describe

    kinds = ("trainers", "judges", "leaderboards", "protocols", "transports")
    if kind not in kinds:
        raise ValueError(f"there is no list of {shortened(kind)}; choose one of {', '.join(kinds)}")
    described = describe(kind)  # type: ignore[arg-type]
    if json:
        _print_json(described)
        return
    for item in described:
        typer.echo(f"{item['name']:<16} {item['summary']}")
        if verbose:
            details = {k: v for k, v in item.items() if k not in ("name", "summary") and v not in (None, "", {})}
            for key, value in details.items():
                typer.echo(f"{'':<16}{key}: {value}")


app.command()(judge_commands.judge)
app.command(name="judge-train")(judge_commands.judge_train)
app.command()(judge_commands.audit)
app.add_typer(store_commands.app, name="store")
