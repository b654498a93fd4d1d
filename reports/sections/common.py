"""What several sections share: figures in prose, names of cells, marks of significance."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from reports.boards import Group
from reports.charts import Line, Point
from reports.numbers import MetricDisplay, show, show_p
from reports.series_style import JUDGES, TRAINERS, assign_slots
from reports.tables import Row, Sweep, grouped, is_control


class Figure(NamedTuple):
    """A figure in prose or in a cell: the full value of the table, and how it is written."""

    value: float | None
    text: str


class Strong(NamedTuple):
    """A piece of prose that is set strong."""

    text: str


Prose = list[Any]  # str, Strong and Figure, in reading order


def figure(value: float | None, metric: MetricDisplay | None = None, *, signed: bool = False) -> Figure:
    """A value in its metric's decimals."""
    return Figure(value, show(value, metric.decimals if metric else None, signed=signed))


def p_figure(value: float | None, *, equals: bool = False) -> Figure:
    """A p-value; `equals`: with a sign before it, as in prose."""
    text = show_p(value)
    return Figure(value, f"= {text}" if equals and value is not None and not text.startswith("<") else text)


def interval(row: Row, metric: MetricDisplay, *, signed: bool = False) -> Prose:
    """'low to high' of a row, or nothing where it has no interval."""
    if row["ci_low"] is None or row["ci_high"] is None:
        return []
    return [figure(row["ci_low"], metric, signed=signed), " to ", figure(row["ci_high"], metric, signed=signed)]


def p_note(row: Row, tests: int | None = None) -> Prose:
    """', adjusted p = ...' of a comparison and for how many tests; ', p = ...' where it has no adjusted one, nothing
    where it has neither.
    """
    name = "p_value" if row["p_adjusted"] is None else "p_adjusted"
    words = {"p_value": ", p ", "p_adjusted": ", adjusted p "}[name]
    family = [f" in {counted(tests, 'test')}"] if tests and name == "p_adjusted" else []
    return [] if row[name] is None else [words, p_figure(row[name], equals=True), *family]


def settling(row: Row, metric: MetricDisplay) -> Prose:
    """What would settle a comparison that is not separable, where the table says: 'a difference of 0.1 would have shown
    (power 80%), and this one would take about 900 prompts or 7 seeds'.
    """
    if row.get("detectable") is None:
        return []
    needed = [(row.get(f"{what}_needed"), what) for what in ("prompts", "seeds")]
    numbers = [[figure(number), f" {what}"] for number, what in needed if number is not None and math.isfinite(number)]
    ways = [part for number in numbers for part in (" or ", *number)][1:]
    none = any(number is not None for number, _ in needed) and not ways
    tail: Prose = [", and this one would take about ", *ways] if ways else []
    tail = [", and no number of prompts or seeds alone would show this one"] if none else tail
    return ["a difference of ", figure(row["detectable"], metric), " would have shown (power 80%)", *tail]


def kinds(group: Group, number: int) -> str:
    """What is ranked: policies, or algorithms where several seeds make one."""
    singular, plural = ("algorithm", "algorithms") if len(group.seeds) > 1 else ("policy", "policies")
    return singular if number == 1 else plural


def listed(names: Sequence[str], most: int = 4) -> str:
    """'a, b and c', or 'a, b, c, d and 3 more'."""
    shown = list(names[:most])
    if len(names) > most:
        return f"{', '.join(shown)} and {len(names) - most} more"
    return " and ".join(filter(None, [", ".join(shown[:-1]), *shown[-1:]]))


def counted(number: int, noun: str) -> str:
    """'1 cell', '2 cells'."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def seeds_of(sweeps: Iterable[Sweep]) -> list[int]:
    """The seeds of trained cells, sorted."""
    rows = (row for sweep in sweeps for row in sweep.info.values())
    return sorted({row["seed"] for row in rows if row["seed"] is not None and not is_control(row)})


def tags(sweep: Sweep, row: Row) -> dict[str, Any]:
    """What the page's filters look at."""
    values = {"sweep": sweep.name, "trainer": row["trainer"], "judge": row["judge"], "seed": row["seed"]}
    return {**values, "grader": row.get("grader", "")}


def spread(values: Sequence[float], metric: MetricDisplay | None = None) -> list[Figure]:
    """One figure, or the lowest and the highest of several seeds."""
    ends = sorted({min(values), max(values)})
    return [figure(value, metric) for value in ends]


def cell_lines(sweep: Sweep, rows: Sequence[Row], key: str, point: Callable[[Row], Point]) -> list[Line]:
    """A line a cell, named and coloured by its `arm` or `judge`; of several with one name the first has the label."""
    slot = _slots(sweep, key)
    lines: list[Line] = []
    for cell, members in grouped(rows, lambda row: row["cell"]).items():
        info = sweep.info[cell]
        label = "" if info[key] in {line.name for line in lines} else info[key]
        points = sorted(map(point, members), key=lambda p: p[0])
        lines.append(Line(name=info[key], label=label, slot=slot[info[key]], points=points, data=tags(sweep, info)))
    return lines


def _slots(sweep: Sweep, key: str) -> dict[str, int]:
    """The colours of a sweep's arms or judges."""
    of, own_styles = ("trainer", TRAINERS) if key == "arm" else ("judge", JUDGES)
    trained = [row for row in sweep.info.values() if row["judge"]]
    return assign_slots({row[key]: row[of].partition("(")[0] for row in trained}, own_styles)


def where(group: Group, several: bool) -> str:
    """'board, graded by grader'; the start policy and the sweep where there are several."""
    graded = f", graded by {group.grader}" if group.grader else ""
    policies = group.policy and len({row["policy"] for row in group.sweep.info.values()}) > 1
    return (
        " · ".join(filter(None, (group.board.name, group.board.lead.category)))
        + graded
        + (f", {group.policy}" if policies else "")
        + (f" ({group.sweep.name})" if several else "")
    )


def side(group: Group, standing: int) -> str:
    """The side of a value on which the better (+1) or the worse (-1) lie."""
    return "above" if standing * group.board.lead.sign > 0 else "below"


def is_game(sweep: Sweep) -> bool:
    """Whether every cell plays an exact game, which is its own judge: nothing is drawn, and nothing is answered."""
    return {row["judge"] for row in sweep.info.values() if row["judge"]} == {"game"}
