"""From sweep directories to pages: the report, what happened in training, what it cost, comparisons, samples."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reports.numbers import exact, show, show_p
from reports.sections import (
    comparisons,
    cost,
    curves,
    judges,
    leaderboard,
    matrix,
    provenance,
    samples,
    training,
    tuning,
    verdict,
)
from reports.sections.common import Figure, Strong, seeds_of
from reports.tables import Sweep, grouped, is_control, read_sweeps, unique

if TYPE_CHECKING:
    from jinja2 import Environment

# Text that a browser would hide or act on is made visible: control characters, and marks that reorder a line.
HIDDEN = [*range(9), 11, 12, *range(14, 32), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
VISIBLE = {code: f"⟨U+{code:04X}⟩" for code in HIDDEN}
PAGES = (
    ("index", "Report"),
    ("training", "Training"),
    ("cost", "Cost"),
    ("comparisons", "Comparisons"),
    ("samples", "Samples"),
)
# The filters that would change nothing on a page.
WITHOUT = {
    "training": ("grader", "leaderboard"),
    "comparisons": ("trainer", "judge", "seed"),
    "samples": ("grader",),
}


def build(sweeps: Sequence[Path], out: Path) -> Path:
    """Writes the report on one or more sweep directories into `out` and returns the path of its index.html.

    Sweeps may be half finished: what is missing is said on the page. Equal tables give equal bytes. The pages need no
    network and no script; `out` is created where it is not there, other files in it are left alone.
    Raises ValueError where a path is no directory, or without any path.
    """
    read = read_sweeps(sweeps)
    environment = template_environment()
    several = {"several": len(read) > 1, "several_policies": not all(sweep.one_policy for sweep in read)}
    common = {"sweeps": read, "pages": _pages(read), **several, **assets()}
    contents = {
        "index": _index,
        "training": _training,
        "cost": _cost,
        "comparisons": _comparisons,
        "samples": _samples,
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        offered = filters(read, WITHOUT.get(name, ()))
        text = environment.get_template(f"{name}.html").render(**common, **content(read), filters=offered, page=name)
        (out / f"{name}.html").write_text(text, encoding="utf-8", errors="replace", newline="\n")
    return out / "index.html"


def _pages(sweeps: Sequence[Sweep]) -> list[tuple[str, str]]:
    """The pages of the menu: those with something on them."""
    held = {
        "index": True,
        "training": any(row["judge"] for sweep in sweeps for row in sweep.dynamics),
        "cost": cost.is_scored_on_the_way(sweeps),
        "comparisons": any(sweep.comparisons for sweep in sweeps),
        "samples": any(sweep.samples for sweep in sweeps),
    }
    return [page for page in PAGES if held[page[0]]]


def _index(sweeps: Sequence[Sweep]) -> dict[str, Any]:
    return {
        "verdict": verdict.verdict(sweeps),
        "boards": leaderboard.leaderboard(sweeps),
        "controls": leaderboard.controls(sweeps),
        "maps": matrix.trainer_by_judge(sweeps),
        "crossed": matrix.cross_judge(sweeps),
        "curves": curves.scores(sweeps),
        "trained": cost.trained(sweeps),
        "costs": cost.COSTS,
        "costed": cost.is_scored_on_the_way(sweeps),
        "key_comparisons": comparisons.key_comparisons(sweeps),
        "trials": tuning.trials(sweeps),
        "judges": judges.judges(sweeps),
        "held_out": judges.held_out(sweeps),
        "cells": provenance.cells(sweeps),
        "provenance": provenance.provenance(sweeps),
        "samples": samples.contents(sweeps),
    }


def _training(sweeps: Sequence[Sweep]) -> dict[str, Any]:
    return {
        "dynamics": training.dynamics(sweeps),
        "always_zero": training.always_zero(sweeps),
        "movements": training.movements(sweeps),
        "pairs": training.pairs(sweeps),
        "styles": training.styles(sweeps),
        "alarms": training.alarms(sweeps),
    }


def _cost(sweeps: Sequence[Sweep]) -> dict[str, Any]:
    return {"cost": cost.cost(sweeps)}


def _comparisons(sweeps: Sequence[Sweep]) -> dict[str, Any]:
    return {"every": comparisons.every(sweeps), "matrices": comparisons.matrices(sweeps)}


def _samples(sweeps: Sequence[Sweep]) -> dict[str, Any]:
    return {"samples": samples.samples(sweeps)}


def filters(sweeps: Sequence[Sweep], without: Sequence[str]) -> list[tuple[str, list[Any]]]:
    """The choices of a page's filters, without those that leave no choice."""
    rows = [(sweep, row) for sweep in sweeps for row in sweep.info.values()]
    choices = {
        "sweep": [sweep.name for sweep in sweeps],
        "leaderboard": unique(row["leaderboard"] for sweep in sweeps for row in sweep.results),
        "trainer": unique(row["trainer"] for _, row in rows if not is_control(row)),
        "judge": unique(row["judge"] for _, row in rows if row["judge"]),
        "grader": unique(row["grader"] for sweep in sweeps for row in sweep.results if row["grader"]),
        "seed": seeds_of(sweeps),
    }
    return [(name, values) for name, values in choices.items() if len(values) > 1 and name not in without]


def visible(value: Any) -> Any:
    """Text with control and reordering characters made visible; anything else, markup included, as it is."""
    return value.translate(VISIBLE) if type(value) is str else value


def template_environment() -> Environment:
    """Templates that escape what they show, make control characters visible, and refuse a name they do not know."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("reports"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # Jinja's own groupby sorts; the boards stay in their order.
    environment.globals["by_board"] = lambda maps: grouped(maps, lambda of: of["board"].name).items()
    environment.globals["by_metric"] = lambda maps: grouped(maps, lambda of: of["board"].lead.label).values()
    environment.filters |= {"exact": exact, "show": show, "show_p": show_p}
    environment.tests |= {
        "figure": lambda value: isinstance(value, Figure),
        "strong": lambda value: isinstance(value, Strong),
    }
    return environment


def assets() -> dict[str, Any]:
    """Style sheet and script as trusted markup, and the hash by which the pages' policy admits this script alone."""
    from markupsafe import Markup

    files = resources.files("reports") / "assets"
    style, script = ((files / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return {"style": Markup(style), "script": Markup(script), "script_hash": digest}
