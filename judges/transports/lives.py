"""How long hosted models live: a small dated table, `lives.yaml`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from functools import cache
from importlib.resources import files

from judges.reading import parse_yaml
from judges.transports.prices import DATED


@dataclass(frozen=True)
class Life:
    """The day on which a model is shut down, and the successor that its maker published; "" where none was seen."""

    ends: date
    successor: str = ""

    def told(self, model: str, today: date) -> str:
        """What a user of the model as judge should know, in a sentence."""
        when = f"is shut down on {self.ends}" if self.ends > today else f"was shut down on {self.ends}"
        heir = f" (published successor: {self.successor})" if self.successor else ""
        return f"the judge {model} {when}{heir}; scores under another judge are not comparable with those under it"


def life_of(model: str) -> Life | None:
    """The life of a model of OpenAI, by its name with or without the date at its end; None where no end is known."""
    return _lives().get(model) or _lives().get(DATED.sub("", model))


@cache
def _lives() -> dict[str, Life]:
    text = (files("judges.transports") / "lives.yaml").read_text(encoding="utf-8")
    entries = parse_yaml(text, "lives.yaml")
    return {
        str(model): Life(date.fromisoformat(str(entry["ends"])), entry.get("successor", ""))
        for model, entry in entries.items()
    }
