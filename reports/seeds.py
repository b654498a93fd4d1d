"""Which seeds a sweep's arms are compared over; the harness and the reports choose them by the same rule."""

from __future__ import annotations

from collections.abc import Iterable


def seeds_of_most(seeds_by_arm: Iterable[Iterable[int]]) -> tuple[int, ...]:
    """The seeds over which arms are compared: those that most arms have, an arm with more of them counting too.

    That is the set of seeds that the greatest number of arms has; of several such the one that more arms have at least,
    then the larger one.
    """
    arms = [frozenset(seeds) for seeds in seeds_by_arm]
    key = {seeds: (arms.count(seeds), sum(seeds <= arm for arm in arms), len(seeds)) for seeds in arms if seeds}
    return tuple(sorted(max(key, key=lambda seeds: (key[seeds], sorted(seeds)), default=())))
