"""Symmetric preference games in plain numpy: named games, duality gap, maximum-entropy Nash policy.

A game is a matrix P, [n, n] or [games, n, n] in float64, with P[i, j] = P(action i beats action j), entries in [0, 1]
and P + P^T = 1.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

NAMED: dict[str, list[list[float]]] = {
    "rock-paper-scissors": [[0.5, 0.0, 1.0], [1.0, 0.5, 0.0], [0.0, 1.0, 0.5]],
    "cyc3": [[0.5, 0.9, 0.2], [0.1, 0.5, 0.7], [0.8, 0.3, 0.5]],
}


def check_preference(preference: ArrayLike) -> Array:
    """The preference matrix as float64, [..., n, n].

    Raises:
        ValueError: it is not square, has an entry outside [0, 1] or NaN, or P + P^T is not 1.
    """
    matrix = np.asarray(preference, dtype=np.float64)
    if matrix.ndim not in (2, 3) or matrix.shape[-1] != matrix.shape[-2] or matrix.shape[-1] < 2:
        raise ValueError(f"a preference matrix must be square with at least 2 actions; its shape is {matrix.shape}")
    if not ((matrix >= 0) & (matrix <= 1)).all():
        worst = matrix[~((matrix >= 0) & (matrix <= 1))][0]
        raise ValueError(f"a preference matrix holds probabilities in [0, 1]; it has {worst}")
    error = np.abs(matrix + np.swapaxes(matrix, -1, -2) - 1)
    if error.max() > 1e-9:
        row, column = (int(i) for i in np.unravel_index(error.argmax(), error.shape)[-2:])
        raise ValueError(
            f"a preference matrix must satisfy P + P^T = 1; entries ({row}, {column}) and ({column}, {row}) "
            f"miss it by {error.max():.3g}"
        )
    return matrix


def load_game(game: str | Path) -> Array:
    """The preference matrix [n, n] of a named game (see `NAMED`) or of a CSV file without header.

    Raises:
        ValueError: neither a known name nor a readable file, or not a preference matrix.
    """
    if str(game) in NAMED:
        return check_preference(NAMED[str(game)])
    if not Path(game).is_file():
        raise ValueError(f"no game and no file is called {str(game)!r}; the games are {', '.join(sorted(NAMED))}")
    try:
        matrix = np.loadtxt(game, delimiter=",", ndmin=2)
    except ValueError as error:
        raise ValueError(f"{game} is not a CSV table of numbers: {error}") from error
    return check_preference(matrix)


def random_game(actions: int, seed: int) -> Array:
    """A game whose upper entries are .5 + uniform(-.5, .5), [actions, actions]."""
    upper = np.triu(np.random.default_rng(seed).uniform(-0.5, 0.5, (actions, actions)), 1)
    return 0.5 + upper - upper.T


def win_rates(preference: ArrayLike, policy: ArrayLike) -> Array:
    """(P pi)_y, the probability that each action beats a draw from the policy, [..., n]."""
    return np.einsum("...ij,...j->...i", np.asarray(preference, np.float64), np.asarray(policy, np.float64))


def duality_gap(preference: ArrayLike, policy: ArrayLike) -> Array:
    """max_i (P pi)_i - min_j (pi^T P)_j of the unregularised game, [...]; 0 exactly at a Nash policy.

    On a symmetric game this is 2 max_i (P pi)_i - 1 (arXiv 2502.16852, section 2).
    """
    return 2 * win_rates(preference, policy).max(-1) - 1
