"""The pairs of cells that a config names under `compare`."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence

from harness.config import ConfigError
from harness.matrix import Cell
from judges.plugins import nearest
from judges.reading import shortened


def named_pairs(cells: Sequence[Cell], compare: Sequence[tuple[str, str]] | str) -> list[tuple[str, str]] | None:
    """The ids of the cells of every pair, None where all are to be compared.

    A name is a cell's id or label, or either without the seed, which stands for all seeds: these are paired by seed.

    Raises:
        ConfigError: a name that no cell has, or a pair without two different cells of one seed.
    """
    if compare == "all":
        return None
    by_name: dict[str, list[Cell]] = defaultdict(list)
    for cell in cells:
        for name in dict.fromkeys((cell.id, cell.label, cell.algorithm, cell.label.rpartition(" · seed ")[0])):
            by_name[name].append(cell)
    pairs: list[tuple[str, str]] = []
    for names in compare:
        for name in names:
            if name not in by_name or not name:
                raise ConfigError(
                    f"compare: no cell is called {shortened(name)}{nearest(name, filter(None, by_name))}; give ids or "
                    "labels of cells, with or without the seed"
                )
        first, second = (by_name[name] for name in names)
        found = [(a.id, b.id) for a, b in itertools.product(first, second) if a.id != b.id and _same_seed(a, b)]
        if not found and len(first) == len(second) == 1 and first != second:
            found = [(first[0].id, second[0].id)]
        if not found:
            raise ConfigError(f"compare: {shortened(list(names))} are no two different cells of one seed; name others")
        pairs += found
    return pairs


def _same_seed(a: Cell, b: Cell) -> bool:
    return a.seed == b.seed or None in (a.seed, b.seed)
