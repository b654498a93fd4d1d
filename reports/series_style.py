"""Which colour a series has: a trainer's first setting has the same one in every report."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

COLOURS = 8  # of the palette
DASHES = ("", "dashed", "dotted")  # of a slot's line: the first eight are drawn through
SLOTS = COLOURS * len(DASHES)
# Places in the palette. New names are appended: one that moves changes its colour in every report.
TRAINERS = (
    *("onpo", "inpo", "ipo-md", "dpo", "slic", "ipo", "slic-hf", "simpo"),
    *("sppo", "self-play", "nash-md", "rl", "egpo", "omd", "omwu"),
)
JUDGES = ("pairrm", "llm", "reward-model", "panel", "pair-preference", "ensemble", "human", "recorded", "game")


def assign_slots(kinds: Mapping[str, str], own_slots: Sequence[str]) -> dict[str, int]:
    """A slot for each series; `kinds` maps a series' name to the trainer or judge that it is of.

    The first series of a known kind has the kind's own slot. Any other, a further setting of the same trainer or a
    name from elsewhere, has the first free slot from its name's checksum on, colours before dashes: the same one in
    every report where no other series holds it. Beyond SLOTS series, slots repeat.
    """
    slot_of: dict[str, int] = {}
    for name, kind in kinds.items():
        if kind in own_slots and own_slots.index(kind) not in slot_of.values():
            slot_of[name] = own_slots.index(kind)
    for name in sorted(kinds.keys() - slot_of.keys()):
        start = zlib.crc32(name.encode(errors="replace")) % COLOURS
        order = sorted(range(SLOTS), key=lambda slot: (slot // COLOURS, (slot - start) % COLOURS))
        slot_of[name] = next((slot for slot in order if slot not in slot_of.values()), start)
    return slot_of
