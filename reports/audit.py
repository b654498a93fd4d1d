"""An audit of a judge as one page: agreement with people, biases, calibration, cost, and where the two disagree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reports.build import assets, template_environment
from reports.charts import Line, Point, panel, whisker, whisker_axis
from reports.numbers import MetricDisplay
from reports.sections.common import Figure, Prose, Strong, counted, figure
from reports.series_style import COLOURS

Row = Mapping[str, Any]
SHARE = MetricDisplay(name="share", decimals=3)
NATS = MetricDisplay(name="nats", decimals=4)
FEW_PROMPTS = 20  # fewer give a bootstrap over prompts too little to draw from
LONGEST = 4000  # characters of a text that are shown
# Title, key among the figures and their intervals, what it means.
TABLES = {
    "agreement": (
        ("accuracy", "accuracy", "the class of the verdict (first, second, tie) over both orders is the label's"),
        ("in the original order", "accuracy_original", "this order by itself"),
        ("in the swapped order", "accuracy_swapped", "this order by itself"),
        ("without ties", "accuracy_without_ties", "where neither the judge nor people call a tie"),
        ("Cohen's kappa", "kappa", "agreement beyond chance: 0 is chance, 1 is perfect"),
    ),
    "place": (
        ("order agreement", "order_agreement", "one class in both orders"),
        ("flip rate", "flip_rate", "opposite winners in the two orders"),
        ("position bias", "position_bias", "mean preference for the response placed first, less 1/2: 0 is none"),
    ),
    "length": (("length bias", "length_bias", "preference for the longer response beyond people's: 0 is none"),),
}
BIN = ("low", "high", "n", "preference", "share")


def audit_page(audit: Row, out: Path) -> Path:
    """Writes `audit.html` into `out`, which is created, and returns its path. The page needs no network and no script.

    Args:
        audit: `about` (`judge`, `options`, `labels`, `verdicts`), `figures` as `nashbench audit --json` prints them,
            and `disagreements` ({id, prompt as chat messages, first, second, label, votes, preference, original,
            swapped}).
    """
    content = _content(audit["about"], audit["figures"], audit["disagreements"])
    page = {"sweeps": [{"name": f"audit of {audit['about']['judge']}"}], "pages": (), "filters": (), "page": "audit"}
    text = template_environment().get_template("audit.html").render(**assets(), **page, **content)
    out.mkdir(parents=True, exist_ok=True)
    path = out / "audit.html"
    path.write_text(text, encoding="utf-8", errors="replace", newline="\n")
    return path


def _content(about: Row, figures: Row, disagreements: Sequence[Row]) -> dict[str, Any]:
    consistency, curve, table = figures["self_consistency"], figures["length_curve"], figures["reliability"]
    return {
        "about": about,
        "headline": _headline(figures),
        "caveats": _caveats(figures),
        "counts": _cells(figures, ("n", "prompts", "judged", "coverage", "one_order_failed")),
        "failures": [(kind, figure(count)) for kind, count in figures["failures"].items()],
        "tables": {name: _table(figures, rows) for name, rows in TABLES.items()},
        "matched": _cells(figures["matched_length"], ("accuracy", "n")),
        "within": f"{100 * figures['matched_length']['within']:g}%",
        "length_rows": [_cells(row, BIN) for row in curve],
        "length_chart": _chart("first wins, %", curve, lambda row: (row["low"] + row["high"]) / 2, null=50),
        "errors": _cells(figures, ("calibration_error", "log_loss")),
        "reliability_rows": [_cells(row, BIN) for row in table],
        "reliability_chart": _reliability(table),
        "consistency": _cells(consistency, ("questions", "agreement", "spread")),
        "once": consistency.get("reason"),
        "transitivity": {who: _transitivity(estimate) for who, estimate in figures["transitivity"].items()},
        "work": [
            (name.replace("_", " "), figure(value)) for name, value in figures["work"].items() if value is not None
        ],
        "disagreements": [_disagreement(case) for case in disagreements],
    }


def _headline(figures: Row) -> Prose:
    if figures["accuracy"] is None:
        return [f"No verdict to hold against {counted(figures['n'], 'label')}."]
    low, high = figures["intervals"]["accuracy"]
    agreed = ["The judge gives people’s verdict on ", Strong(_percent(figures["accuracy"]))]
    return [*agreed, f" of {counted(figures['judged'], 'pair')} ({_percent(low)} to {_percent(high)})."]


def _caveats(figures: Row) -> list[Prose]:
    caveats: list[Prose] = []
    if figures["prompts"] == 1:
        caveats.append(["The pairs are of 1 prompt: drawn again it is the same one, so the intervals say nothing."])
    elif figures["prompts"] < FEW_PROMPTS:
        few = ["The pairs are of ", figure(figures["prompts"]), " prompts"]
        caveats.append([*few, f": intervals over fewer than {FEW_PROMPTS} are too narrow to rely on."])
    if figures["coverage"] < 1:
        caveats.append(["Not every question has a verdict: coverage is ", figure(figures["coverage"], SHARE), "."])
    if figures["one_order_failed"]:
        failed = figure(figures["one_order_failed"])
        caveats.append(
            [failed, " pairs count by one order alone, because the other failed; it carries the bias of place."]
        )
    if figures["order_agreement"] is None:
        caveats.append(["No pair was judged in both orders: what place does to this judge is not known."])
    return caveats


def _table(figures: Row, rows: Sequence[tuple[str, str, str]]) -> list[dict[str, Any]]:
    """Rows of figures with their intervals on one axis."""
    values = {key: _value(figures, key) for _, key, _ in rows}
    intervals = {key: figures["intervals"][key] for key in values}
    axis = whisker_axis([v for key, value in values.items() for v in (value, *intervals[key])], None)
    return [
        {
            "title": title,
            "means": means if values[key] is not None else f"{means}; cannot be computed from these pairs",
            "value": figure(values[key], SHARE),
            "ends": None if intervals[key][0] is None else [figure(end, SHARE) for end in intervals[key]],
            "whisker": whisker(axis, values[key], *intervals[key]),
        }
        for title, key, means in rows
    ]


def _value(figures: Row, key: str) -> float | None:
    order = key.removeprefix("accuracy_")
    value: float | None = figures["accuracy_by_order"].get(order, figures.get(key))
    return value


def _cells(row: Row, names: Sequence[str]) -> dict[str, Figure]:
    """Figures by name, whole numbers whole."""
    return {name: figure(row[name], None if isinstance(row[name], int) else SHARE) for name in names}


def _chart(title: str, rows: Sequence[Row], x: Any, **options: Any) -> dict[str, Any]:
    """The judge's and people's mean preference for the first response, in per cent."""
    lines = [
        Line(name=name, label=name, slot=slot, points=[(x(row), 100 * row[key], None, None) for row in rows])
        for slot, (name, key) in enumerate((("judge", "preference"), ("people", "share")))
    ]
    return panel(lines, title=title, size=(420, 230), y=(0, 100), **options) | {"tags": {}}


def _reliability(rows: Sequence[Row]) -> dict[str, Any]:
    points: list[Point] = [(100 * row["preference"], 100 * row["share"], None, None) for row in rows]
    lines = [
        Line(
            name="calibrated", label="calibrated", slot=6 + COLOURS, points=[(0, 0, None, None), (100, 100, None, None)]
        ),
        Line(name="judge", label="judge", slot=0, points=points),
    ]
    title = "people's share of votes for the first, %, against the judge's preference, %"
    return panel(lines, title=title, size=(420, 230), x=(0, 100), y=(0, 100)) | {"tags": {}}


def _transitivity(estimate: Row) -> dict[str, Any]:
    low, high = estimate["interval"]
    return {
        "reason": estimate.get("reason"),
        "ends": None if low is None else [figure(low, NATS), figure(high, NATS)],
        **_cells(estimate, ("triples", "cycle_rate", "prompts", "comparisons")),
        "excess": figure(estimate["bradley_terry_excess"], NATS),
    }


def _disagreement(case: Row) -> dict[str, Any]:
    texts = {side: (case[side][:LONGEST], max(0, len(case[side]) - LONGEST)) for side in ("first", "second")}
    orders = [(order, figure(case[order], SHARE)) for order in ("original", "swapped")]
    prompt = [{"role": turn["role"], "content": turn["content"][:LONGEST]} for turn in case["prompt"]]
    shown = {"id": case["id"], "label": case["label"], "votes": case["votes"], "prompt": prompt}
    return {**shown, **texts, "orders": orders, "preference": figure(case["preference"], SHARE)}


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"
