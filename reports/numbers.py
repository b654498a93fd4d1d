"""The one formatter of figures, and what metrics.json says about how to read them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

MINUS = "\N{MINUS SIGN}"
THIN = "\N{NARROW NO-BREAK SPACE}"
NONE = "\N{EN DASH}"
SCALES = {"probability": [0, 1], "share": [0, 1], "percent": [0, 100], "rating": [1, 10]}  # of units that imply one
SPELLED = {"length_controlled_winrate": "length-controlled win rate", "acc": "accuracy", "log_loss": "log-loss"}


@dataclass(frozen=True, kw_only=True)
class MetricDisplay:
    """A metric as metrics.json describes it; one that is not described has no direction and no scale.

    decimals: digits after the point, None for four significant digits. null: the value of a policy as good as what it
    is compared with; None on a log axis, whose zero is out of sight. category: the task that the metric is of, on a
    board without an overall score.
    """

    name: str
    unit: str = ""
    better: str = "neither"
    estimates: str = ""
    official: bool = False
    log: bool = False
    low: float | None = None
    high: float | None = None
    null: float | None = None
    decimals: int | None = None
    category: str = ""

    @property
    def sign(self) -> int:
        """+1 where higher is better, -1 where lower is, 0 where neither."""
        return {"higher": 1, "lower": -1}.get(self.better, 0)

    @property
    def label(self) -> str:
        """The name for people: spelled out, spaces for underscores, after the task where it is of one."""
        spelled = SPELLED.get(self.name, self.name.replace("_", " "))
        return f"{self.category} · {spelled}" if self.category else spelled


def metric(name: str, meta: dict[str, Any], category: str = "") -> MetricDisplay:
    """The MetricDisplay that an entry of metrics.json describes."""
    scale = meta.get("scale") or SCALES.get(str(meta.get("unit")))
    low, high = scale if isinstance(scale, list) and len(scale) == 2 else (None, None)
    log = meta.get("axis") == "log"
    span = None if low is None or high is None or log else high - low
    decimals = None if span is None else 3 if span <= 2 else 2 if span <= 20 else 1 if span <= 200 else 0
    return MetricDisplay(
        name=name,
        unit=str(meta.get("unit") or ""),
        better=str(meta.get("better") or "neither"),
        estimates=str(meta.get("estimates") or ""),
        official=bool(meta.get("official")),
        log=log,
        low=low,
        high=high,
        null=None if log else meta.get("null_value"),
        decimals=decimals,
        category=category,
    )


def show(value: float | None, decimals: int | None = None, *, signed: bool = False) -> str:
    """A figure as text: fixed decimals, or four significant digits with whole numbers whole; a dash for none."""
    if value is None or math.isnan(value):
        return NONE
    if math.isinf(value):
        return MINUS * (value < 0) + "\N{INFINITY}"
    text = _digits(abs(value), decimals)
    sign = MINUS if value < 0 else "+" if signed else ""
    return sign + text if any(digit in "123456789" for digit in text) else text


def show_p(value: float | None) -> str:
    """A p-value as text: three decimals, or a bound below .001."""
    if value is None or math.isnan(value):
        return NONE
    return "<" + THIN + "0.001" if value < 0.001 else f"{value:.3f}"


def exact(value: float | None) -> str:
    """The full value for data-value, so that float(exact(x)) == x; '' for none."""
    return "" if value is None else repr(value)


def _digits(size: float, decimals: int | None) -> str:
    if decimals is not None:
        return f"{size:,.{decimals}f}".replace(",", THIN)
    if float(size).is_integer() and size < 1e15:
        return f"{int(size):,}".replace(",", THIN)
    if 1e-3 <= size < 1e6:
        # Rounded before its digits are counted: 9.99996 is 10.00, not 10.000.
        places = max(0, 3 - math.floor(math.log10(float(f"{size:.3e}"))))
        return f"{size:,.{places}f}".replace(",", THIN)
    mantissa, _, power = f"{size:.2e}".partition("e")
    return f"{mantissa}e{int(power)}".replace("-", MINUS)
