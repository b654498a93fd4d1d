"""`nashbench rate`: a leaderboard's official figures from published annotation or judgment files."""

from __future__ import annotations

import json as json_module
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from judges.reading import shortened

BOARDS = ("alpaca-eval", "arena-hard", "mt-bench")
Figures = dict[str, Any]


def rate(
    board: Annotated[str, typer.Argument(metavar="alpaca-eval|arena-hard|mt-bench")],
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="Annotations or judgments, JSON or JSON lines, plain or .gz.")
    ],
    files: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="alpaca-eval: where instruction_difficulty.csv and df_gamed*.csv are, at any depth; "
            "the length-controlled win rate needs them.",
        ),
    ] = None,
    questions: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="mt-bench: the question file, for sets other than the official 80."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")] = False,
) -> None:
    """Recompute a leaderboard's figures from published files, with intervals and coverage.

    [bold]Examples[/bold]

    nashbench rate alpaca-eval annotations.json --files lc/

    nashbench rate arena-hard model_judgment/gpt-4-1106-preview/

    nashbench rate mt-bench model_judgment/gpt-4_single.jsonl.gz --json
    """
    rated = _rated(board, path, files, questions)
    if json:
        typer.echo(json_module.dumps(rated, indent=1, allow_nan=False))
        return
    by_model = {str(rated["model"]): rated} if board == "alpaca-eval" else rated
    console = Console()
    console.print(_table(by_model, COLUMNS[board]))
    if any(figures.get("categories") for figures in by_model.values()):
        console.print(_categories(by_model))
    if rated.get("length_controlled_note"):
        typer.echo(f"length-controlled win rate: {rated['length_controlled_note']}")


def _rated(board: str, path: Path, files: Path | None, questions: Path | None) -> Figures:
    """What the board's own function says. Raises ValueError for a board or an option that is not there."""
    if board not in BOARDS:
        raise ValueError(f"there is no board {shortened(board)} to rate; choose {', '.join(BOARDS)}")
    for option, value, of in (("--files", files, "alpaca-eval"), ("--questions", questions, "mt-bench")):
        if value is not None and board != of:
            raise ValueError(f"{option} is for {of}; leave it out for {board}")
    if board == "alpaca-eval":
        from leaderboards.boards.alpaca_eval import rate_alpaca_eval

        return rate_alpaca_eval(path, files)
    if board == "arena-hard":
        from leaderboards.boards.arena_hard import rate_arena_hard

        return dict(rate_arena_hard(path))
    from leaderboards.boards.mt_bench import rate_mt_bench

    return dict(rate_mt_bench(path, questions))


COLUMNS: Mapping[str, Mapping[str, str]] = {
    "alpaca-eval": {
        "win rate": "win_rate",
        "95% CI": "ci",
        "LC win rate": "length_controlled_winrate",
        "LC 95% CI": "intervals.length_controlled_winrate",
        "SE": "standard_error",
        "discrete": "discrete_win_rate",
        "characters": "avg_length",
        "n": "n_total",
        "coverage": "coverage",
    },
    "arena-hard": {"win rate": "win_rate", "95% CI": "ci", "n": "n", "coverage": "coverage", "failed": "failed_games"},
    "mt-bench": {
        "score": "score",
        "95% CI": "ci",
        "turn 1": "turn_1",
        "turn 2": "turn_2",
        "n": "n",
        "coverage": "coverage",
    },
}
"""Heading -> key of a model's figures, a.b for b in a."""


def _table(by_model: Mapping[str, Figures], columns: Mapping[str, str]) -> Table:
    """A row a model, or for one model a row a figure."""
    shown = {model: [_shown(_at(figures, key)) for key in columns.values()] for model, figures in by_model.items()}
    if len(shown) == 1:
        table = Table("model", *map(escape, shown), box=None)
        for name, (value,) in zip(columns, zip(*shown.values(), strict=True), strict=True):
            table.add_row(name, value)
        return table
    table = Table("model", *columns, box=None)
    for model, values in shown.items():
        table.add_row(escape(model), *values)
    return table


def _at(figures: Figures, key: str) -> Any:
    group, _, name = key.rpartition(".")
    return figures[group].get(name) if group else figures[name]


def _categories(by_model: Mapping[str, Figures]) -> Table:
    names = list(dict.fromkeys(name for figures in by_model.values() for name in figures["categories"]))
    table = Table("category", *map(escape, by_model), box=None)
    for name in names:
        table.add_row(escape(name), *(_shown(figures["categories"].get(name)) for figures in by_model.values()))
    return table


def _shown(value: float | Sequence[float | None] | None) -> str:
    """A number with two decimals, counts without, an interval as low..high, and a dash for none."""
    if value is None:
        return "-"
    if isinstance(value, Sequence):
        return "..".join(map(_shown, value))
    return str(value) if isinstance(value, int) else f"{value:.2f}"
