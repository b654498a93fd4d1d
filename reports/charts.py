"""Geometry of the charts: values in, SVG coordinates out. Drawing itself is in templates/charts.html."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from reports.series_style import COLOURS, DASHES

WHISKER = 180  # width of a table's whisker, in pixels
LABEL_GAP = 12.0  # least distance between two labels at the lines' ends, in pixels
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
LARGE = ((1e6, 1e6, "M"), (1e4, 1e3, "k"))  # from this on, in this unit, with this letter
LABEL_WIDTH = 110.0  # of the chart's own width that labels may take; longer ones widen it

Point = tuple[float, float, float | None, float | None]  # x, y, and the interval's ends or None


@dataclass(frozen=True, kw_only=True)
class Axis:
    """Maps values in [low, high] to pixels in [start, end], linearly or in log10; values outside are clamped."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = (math.log10(v) if self.log else v for v in (self.low, self.high, self.clamp(value)))
        share = (at - low) / (high - low) if high > low else 0.5
        return round(self.start + share * (self.end - self.start), 1)

    def clamp(self, value: float) -> float:
        return min(max(value, self.low), self.high)

    def ticks(self, count: int) -> list[float]:
        """About `count` round values inside the axis."""
        if self.log:
            first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
            stride = max(1, math.ceil((last - first) / count))
            return [10.0**power for power in range(first, last + 1, stride)]
        if self.high <= self.low:
            return [self.low]
        rough = (self.high - self.low) / count
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [round(i * step, 12) for i in range(first, last + 1)]


@dataclass(frozen=True, kw_only=True)
class Line:
    """A series of one panel: name, label at its end ('' for none), colour slot, what the page's filters look at."""

    name: str
    label: str
    slot: int
    points: list[Point]
    data: dict[str, Any] = field(default_factory=dict)


def finite(values: Iterable[float | None]) -> list[float]:
    """The values that can be drawn."""
    return [value for value in values if value is not None and math.isfinite(value)]


def extent(
    values: Iterable[float | None],
    *,
    log: bool = False,
    margin: float = 0.04,
    limits: tuple[float, float] | None = None,
) -> tuple[float, float]:
    """The drawn range of some values, a little wider than they are; (0, 1) without any, (1, 10) on a log axis.

    `limits`: the ends of a scale, which the margin does not pass.
    """
    shown = [value for value in finite(values) if value > 0 or not log]
    if not shown:
        return (1.0, 10.0) if log else (0.0, 1.0)
    low, high = min(shown), max(shown)
    if log:
        return (low / 1.15, high * 1.15)
    pad = (high - low) * margin or abs(high) * 0.1 or 0.5
    floor, ceiling = limits or (-math.inf, math.inf)
    return (min(low, max(low - pad, floor)), max(high, min(high + pad, ceiling)))


def whisker(axis: Axis, value: float | None, low: float | None, high: float | None) -> dict[str, Any] | None:
    """x positions of an interval's ends and its point, and the side on which the point leaves the axis (-1, 0, 1).

    None where there is nothing to draw.
    """
    if value is None or not math.isfinite(value):
        return None
    ends = {"x1": axis(value if low is None else low), "x2": axis(value if high is None else high)}
    return {"x": axis(value), **ends, "beyond": (value > axis.high) - (value < axis.low)}


def whisker_axis(values: Iterable[float | None], null: float | None, *, log: bool = False) -> Axis:
    """The common axis of a column of whiskers, the null value inside unless it is far away."""
    ends = list(values)
    low, high = extent([*ends, near(null, ends)], log=log)
    return Axis(low=low, high=high, start=5, end=WHISKER - 5, log=log)


def near(null: float | None, values: Iterable[float | None]) -> float | None:
    """The null value if the values lie around it or no further from it than they are apart, else None."""
    shown = finite(values)
    if null is None or not shown:
        return null
    low, high = min(shown), max(shown)
    return null if 2 * low - high <= null <= 2 * high - low else None


def panel(
    lines: Sequence[Line],
    *,
    title: str = "",
    size: tuple[int, int] = (300, 190),
    log: bool = False,
    x: tuple[float, float] | None = None,
    y: tuple[float, float] | None = None,
    null: float | None = None,
    whole: bool = True,
) -> dict[str, Any]:
    """One chart as coordinates: axes with ticks, lines with bands, and labels at the lines' ends that do not collide.

    `x` and `y` fix the ranges, so that panels side by side share them; `whole`: what lies along x is counted, and only
    whole numbers are marked. The size grows with labels that need more room.
    """
    labels = [line.label for line in lines if line.label]
    wanted = 6.4 * max(map(len, labels), default=0)
    width, height = size[0], max(size[1], math.ceil(34 + LABEL_GAP * len(labels)))
    right = 10 + min(LABEL_WIDTH, wanted)
    x_range = x or extent((p[0] for line in lines for p in line.points), log=log, margin=0)
    y_range = y or extent([v for line in lines for p in line.points for v in p[1:]] + ([] if log else [null]), log=log)
    x_axis = Axis(low=x_range[0], high=x_range[1], start=44, end=width - right, log=log)
    y_axis = Axis(low=y_range[0], high=y_range[1], start=height - 24, end=10, log=log)
    paths = [_line(line, x_axis, y_axis) for line in lines]
    _spread([line for line in paths if line["points"] and line["label"]], height - 24)
    return {
        "title": title,
        "width": round(width + max(0.0, wanted - LABEL_WIDTH), 1),
        "height": height,
        "left": 44,
        "right": round(width - right, 1),
        "bottom": height - 24,
        "x_ticks": [
            (x_axis(tick), tick_text(tick, log)) for tick in x_axis.ticks(5) if log or not whole or tick.is_integer()
        ],
        "y_ticks": [(y_axis(tick), tick_text(tick, log)) for tick in y_axis.ticks(4)],
        "null": None if null is None or log or not y_range[0] <= null <= y_range[1] else y_axis(null),
        "lines": paths,
    }


def tick_text(tick: float, log: bool) -> str:
    """A tick as text: powers of ten on a log axis, else the shortest form, from 10,000 on in thousands or millions."""
    if log and not 0.01 <= tick <= 100:
        return "10" + f"{math.log10(tick):.0f}".translate(SUPERSCRIPT)
    unit, letter = next(((unit, letter) for least, unit, letter in LARGE if abs(tick) >= least), (1, ""))
    return f"{tick / unit:.6g}{letter}".replace("-", "\N{MINUS SIGN}")


def _line(line: Line, x: Axis, y: Axis) -> dict[str, Any]:
    points = [p for p in line.points if math.isfinite(p[1]) and (not y.log or p[1] > 0) and (not x.log or p[0] > 0)]
    places = [(x(p[0]), y(p[1])) for p in points]
    band = [(x(p[0]), y(p[2]), y(p[3])) for p in points if p[2] is not None and p[3] is not None and not y.log]
    outline = [(px, high) for px, _, high in band] + [(px, low) for px, low, _ in reversed(band)]
    return {
        "name": line.name,
        "label": line.label,
        "slot": line.slot % COLOURS,
        "dash": DASHES[line.slot // COLOURS % len(DASHES)],
        "data": line.data,
        "path": path(places),
        "band": path(outline) if len(band) > 1 else "",
        "points": points,
        "label_y": places[-1][1] if places else 0,
    }


def path(places: Sequence[tuple[float, float]]) -> str:
    """An SVG path through places, with one decimal; all but the first relative to the one before, to be short."""
    moves = [places[0], *((b[0] - a[0], b[1] - a[1]) for a, b in pairwise(places))] if places else []
    marks = "M" + "l" * (len(moves) - 1)
    return "".join(f"{mark}{round(dx, 1):g},{round(dy, 1):g}" for mark, (dx, dy) in zip(marks, moves, strict=False))


def _spread(lines: list[dict[str, Any]], bottom: float) -> None:
    """Moves labels apart: downwards from the top, then back up where the last ones left the chart."""
    ordered = sorted(lines, key=lambda line: line["label_y"])
    limit = 8.0
    for line in ordered:
        line["label_y"] = limit = max(line["label_y"], limit)
        limit += LABEL_GAP
    limit = bottom
    for line in reversed(ordered):
        line["label_y"] = limit = round(min(line["label_y"], limit), 1)
        limit -= LABEL_GAP
