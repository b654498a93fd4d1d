"""Prices of calls: a small dated table, `prices.yaml`, which a user's file extends."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from judges.reading import clipped, parse_yaml, read_text

DATED = re.compile(r"-\d{4}-?\d{2}-?\d{2}$")


@dataclass(frozen=True)
class Price:
    """US$ for a million tokens read and written."""

    input: float
    output: float

    def cost(self, input_tokens: int, output_tokens: int) -> float:
        """US$ of a call."""
        return (input_tokens * self.input + output_tokens * self.output) / 1e6


def price_of(model: str, table: Path | None = None) -> Price | None:
    """The price of a model, by its name or its name without the date at its end; None where no table has it.

    Args:
        table: YAML of {model: {input, output}} in US$ for a million tokens; it overrides the built-in table.

    Raises:
        ValueError: the user's table is missing or not in this form.
    """
    prices = _read((files("judges.transports") / "prices.yaml").read_text(encoding="utf-8"))
    if table is not None:
        try:
            prices |= _read(read_text(Path(table)))
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise ValueError(
                f"price table {table} must be YAML of {{model: {{input: US$, output: US$}}}} a million tokens: "
                f"{clipped(str(error), 120)}"
            ) from error
    return prices.get(model) or prices.get(DATED.sub("", model))


def _read(text: str) -> dict[str, Price]:
    return {str(model): Price(**_amounts(entry)) for model, entry in (parse_yaml(text, "the table") or {}).items()}


def _amounts(entry: Any) -> dict[str, float]:
    amounts = {name: float(entry[name]) for name in ("input", "output")}
    if not all(0 <= amount < float("inf") for amount in amounts.values()):
        raise ValueError(f"a price must be at least 0, got {entry}")
    return amounts
