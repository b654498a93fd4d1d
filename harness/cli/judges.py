"""The commands around judges: one alone over a file of pairs, training one, and auditing one against human labels."""

from __future__ import annotations

import json as json_
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from judges.files import LabelledPair, Verdict
    from judges.judge import Judge, Progress

RECORDED = "recorded"
QUIET = {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
"""Keeps libraries' own bars away; they read it when they are imported."""

Options = Annotated[
    list[str] | None,
    typer.Option("--option", metavar="K=V", help="An option of the judge; the value is YAML. Repeatable."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
Labels = Annotated[
    Path, typer.Option(metavar="labels.jsonl", help='Pairs with "label": first, second, tie, or a list of these.')
]


def judge(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A judge, see `nashbench list judges`.")],
    pairs: Annotated[Path, typer.Option(metavar="pairs.jsonl", help="{id, prompt, first, second} a line.")],
    out: Annotated[Path, typer.Option(metavar="verdicts.jsonl", help="A .jsonl, or a .parquet.")],
    option: Options = None,
    both_orders: Annotated[
        bool, typer.Option("--both-orders/--one-order", help="Ask each pair both ways round, or as it stands.")
    ] = True,
    json: Json = False,
) -> None:
    """Ask a judge about the pairs of a file. Verdicts are written as they come; what is there is not asked again.

    A line of the verdicts is {id, order, preference, status, ...}: the preference is P(first beats second) in the
    pair's own naming, or null where the question failed. The same command asks failures again that may have passed
    (timeout, connection, rate-limit, budget, a refused key, http-5xx); delete the lines of others to ask them again.
    Ends with exit code 1 where some questions failed.

    [bold]Examples[/bold]

    nashbench judge panel --option panel=panel.yaml --pairs pairs.jsonl --out verdicts.jsonl

    nashbench judge pairrm --option model=llm-blender/PairRM-hf --pairs pairs.jsonl --out verdicts.parquet --one-order
    """
    from judges.runs import judge_file, summary

    made = _judge(name, option)
    began = time.monotonic()
    with _bar("questions") as progress:
        verdicts = judge_file(made, pairs, out, both_orders=both_orders, progress=progress)
    figures = summary(verdicts) | {"seconds": time.monotonic() - began}
    _show(figures, json, _judge_lines(figures))
    raise typer.Exit(1 if figures["failures"] else 0)


def judge_train(
    kind: Annotated[str, typer.Argument(metavar="reward-model|pairrm|pair-preference|llm")],
    data: Annotated[Path, typer.Option(metavar="labels.jsonl", help="Labelled pairs; see `nashbench audit`.")],
    base: Annotated[
        str, typer.Option(metavar="MODEL", help="A folder or hub id: a causal LM; for pairrm also an encoder.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="A new folder for the checkpoint.")],
    option: Options = None,
    epochs: Annotated[float, typer.Option(help="Passes over the data.")] = 1.0,
    lr: Annotated[float, typer.Option(help="Peak learning rate.")] = 1e-5,
    batch_size: Annotated[int, typer.Option(help="Pairs a step.")] = 32,
    max_length: Annotated[int, typer.Option(help="Pairs of more tokens are left out.")] = 2048,
    holdout: Annotated[float, typer.Option(help="Share of the prompts kept for the figures.")] = 0.1,
    seed: Annotated[int, typer.Option()] = 0,
    json: Json = False,
) -> None:
    """Train a judge on labelled pairs; ends with its figures on held-out prompts.

    [bold]Examples[/bold]

    nashbench judge-train reward-model --data labels.jsonl --base path/to/model --out my-reward-model

    nashbench judge-train pairrm --data labels.jsonl --base path/to/encoder --out my-ranker --epochs 3 --lr 2e-5
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"--out {out} is there already and not empty; give a new folder")
    from judges.files import read_labels
    from judges.kinds.checkpoint import check_training

    check_training(epochs, lr, batch_size, holdout)
    pairs = read_labels(data)
    os.environ |= QUIET
    from judges.training.train import train_judge  # after the cheap checks: it imports torch

    with _bar("steps") as progress:
        figures = train_judge(
            kind,  # type: ignore[arg-type]
            pairs,
            base,
            out,
            epochs=epochs,
            lr=lr,
            batch_size=batch_size,
            seed=seed,
            max_length=max_length,
            holdout=holdout,
            options=_options(option),
            progress=progress,
        )
    _show(_without_nan(figures), json, _training_lines(figures, out))


def audit(
    name: Annotated[str, typer.Argument(metavar="NAME|recorded", help="A judge, or `recorded` verdicts.")],
    labels: Labels,
    verdicts: Annotated[
        Path | None, typer.Option(metavar="verdicts.jsonl", help="The verdicts that are `recorded`.")
    ] = None,
    option: Options = None,
    repeats: Annotated[int, typer.Option(min=1, help="Put each question N times, for self-consistency.")] = 1,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write audit.html, audit.json and what was asked there.")
    ] = None,
    json: Json = False,
) -> None:
    """Hold a judge, or verdicts recorded earlier, against human labels.

    Accuracy with and without ties, Cohen's kappa, both orders, position and length bias, calibration, repeats, cycles,
    cost; 95% intervals by prompt. With --out a stopped audit goes on where it stopped.

    [bold]Examples[/bold]

    nashbench audit recorded --labels labels.jsonl --verdicts verdicts.jsonl --out audit

    nashbench audit panel --option panel=panel.yaml --labels labels.jsonl --json
    """
    from judges.audit.audit import audit as figures_of
    from judges.files import read_labels
    from judges.reading import naming

    pairs = read_labels(labels)
    if name == RECORDED:
        given: Sequence[Verdict] = _recorded(verdicts, option, repeats)
    elif verdicts is not None:
        raise ValueError(f"--verdicts goes with `recorded`; the judge {name!r} is asked anew, so leave it out")
    else:
        given = _asked(_judge(name, option), pairs, labels, repeats, out)
    with naming(labels):
        figures = figures_of(pairs, given)
    page = _write_audit(out, name, _options(option), labels, verdicts, pairs, given, figures) if out else None
    _show(figures, json, [*_audit_lines(figures), *([str(page)] if page else [])])


def _recorded(path: Path | None, option: Sequence[str] | None, repeats: int) -> list[Verdict]:
    from judges.files import read_verdicts

    if path is None:
        raise ValueError("`recorded` needs --verdicts verdicts.jsonl")
    if option or repeats != 1:
        raise ValueError("--option and --repeats are for a judge that is asked; `recorded` verdicts are as they are")
    return read_verdicts(path)


def _asked(
    judge: Judge, pairs: Sequence[LabelledPair], labels: Path, repeats: int, out: Path | None
) -> Sequence[Verdict]:
    from judges.audit.audit import ask
    from judges.runs import judge_file

    with _bar("questions") as progress:
        if out is None:
            return ask(judge, pairs, repeats=repeats, progress=progress)
        return judge_file(judge, labels, out / "verdicts.jsonl", repeats=repeats, progress=progress)


def _write_audit(
    out: Path,
    name: str,
    options: Mapping[str, Any],
    labels: Path,
    verdicts: Path | None,
    pairs: Sequence[LabelledPair],
    given: Sequence[Verdict],
    figures: Mapping[str, Any],
) -> Path:
    import reports
    from judges.audit.audit import disagreements

    shown = {
        key: re.sub(r"//[^/@\s]+@", "//", str(value)) for key, value in options.items()
    }  # no user:password in URLs
    about = {"judge": name, "options": shown, "labels": str(labels), "verdicts": str(verdicts or "")}
    out.mkdir(parents=True, exist_ok=True)
    (out / "audit.json").write_text(json_.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return reports.audit_page({"about": about, "figures": figures, "disagreements": disagreements(pairs, given)}, out)


def _judge(name: str, option: Sequence[str] | None) -> Judge:
    from harness.registry import make

    os.environ |= QUIET
    made: Judge = make("judges", name, _options(option), "--option {option}=VALUE")
    return made


def _options(given: Sequence[str] | None) -> dict[str, Any]:
    """Options of `--option K=V`, values as YAML. Raises ValueError for what is not, or is given twice."""
    from judges.reading import clipped, parse_yaml, shortened

    options: dict[str, Any] = {}
    for each in given or ():
        key, equals, text = each.partition("=")
        if not equals or not key:
            raise ValueError(f"--option {shortened(each)} is not K=V, for example --option batch_size=8")
        if key in options:
            raise ValueError(f"--option {clipped(key, 60)} is given twice; give a list as KEY=[a, b]")
        options[key] = parse_yaml(text, f"--option {shortened(each)}: the value", numbered=False)
    return options


@contextmanager
def _bar(what: str) -> Iterator[Progress]:
    """A progress bar on stderr, where that is a terminal."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        task = bars.add_task(what, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


def _show(figures: Mapping[str, Any], json: bool, lines: Sequence[str]) -> None:
    typer.echo(json_.dumps(figures, indent=1) if json else "\n".join(lines))


def _without_nan(figures: Mapping[str, float]) -> dict[str, float | None]:
    return {name: None if value != value else value for name, value in figures.items()}


def _judge_lines(figures: Mapping[str, Any]) -> list[str]:
    failed = ", ".join(f"{n} {kind}" for kind, n in figures["failures"].items())
    return [
        f"{figures['questions']} questions about {figures['pairs']} pairs, coverage {_text(figures['coverage'])}"
        + (f" (failed: {failed})" if failed else ""),
        f"{figures['flips']} flips among {figures['both_orders']} pairs answered in both orders",
        f"{figures['input_tokens']} tokens read, {figures['output_tokens']} written, US$ {figures['cost']:.4f}, "
        f"{figures['seconds']:.1f} s",
    ]


def _training_lines(figures: Mapping[str, float], out: Path) -> list[str]:
    return [
        f"trained on {figures['train_pairs']} pairs in {figures['steps']} steps, {figures['left_out']} left out as too "
        f"long; mean loss {figures['train_loss']:.3f} nats",
        f"on {figures['heldout_pairs']} held-out pairs, both orders (coverage {_text(figures['coverage'])}):",
        f"  accuracy           {_text(figures['accuracy'])}",
        f"  log-loss           {_text(figures['log_loss'])} nats",
        f"  calibration error  {_text(figures['calibration_error'])}",
        f"  length bias        {_text(figures['length_bias'])}",
        str(out),
    ]


def _audit_lines(figures: Mapping[str, Any]) -> list[str]:
    intervals, by_order = figures["intervals"], figures["accuracy_by_order"]
    rows = [
        ("accuracy", figures["accuracy"], intervals["accuracy"]),
        ("  original order", by_order["original"], intervals["accuracy_original"]),
        ("  swapped order", by_order["swapped"], intervals["accuracy_swapped"]),
        *(
            (name.replace("_", " "), figures[name], intervals[name])
            for name in (
                "accuracy_without_ties",
                "kappa",
                "order_agreement",
                "flip_rate",
                "position_bias",
                "length_bias",
            )
        ),
        ("accuracy at matched length", figures["matched_length"]["accuracy"], None),
        ("log-loss (nats)", figures["log_loss"], None),
        ("calibration error", figures["calibration_error"], None),
    ]
    consistency, cycles = figures["self_consistency"], figures["transitivity"]["judge"]
    rows += [] if "reason" in consistency else [("self-consistency", consistency["agreement"], None)]
    if "reason" not in cycles:
        rows.append(("cycle rate", cycles["cycle_rate"], None))
        rows.append(("Bradley-Terry excess (nats)", cycles["bradley_terry_excess"], cycles["interval"]))
    reasons = [("self-consistency", consistency), ("transitivity", cycles)]
    units = {"input_tokens": "tokens read", "output_tokens": "tokens written", "cost": "US$", "latency": "s"}
    work = [f"{value:g} {units[name]}" for name, value in figures["work"].items() if value is not None]
    return [
        f"{figures['n']} labelled pairs, {figures['judged']} with a verdict, coverage {_text(figures['coverage'])}",
        *(f"{name:<28}{_text(value):>7}{_between(ends)}" for name, value, ends in rows),
        *(f"{name}: not computable, {found['reason']}" for name, found in reasons if "reason" in found),
        *([", ".join(work)] if work else []),
    ]


def _text(value: float | None) -> str:
    return "-" if value is None or value != value else f"{value:.3f}"


def _between(ends: Sequence[float | None] | None) -> str:
    return "" if ends is None or None in ends else f"   {_text(ends[0])} to {_text(ends[1])}"
