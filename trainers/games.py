"""Symmetric preference games in plain numpy: named games, duality gap, maximum-entropy Nash policy.

A game is a matrix P, [n, n] or [games, n, n] in float64, with P[i, j] = P(action i beats action j), entries in [0, 1]
and P + P^T = 1.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

NAMED: dict[str, list[list[float]]] = {
    "rock-paper-scissors": [[0.5, 0.0, 1.0], [1.0, 0.5, 0.0], [0.0, 1.0, 0.5]],
    "cyc3": [[0.5, 0.9, 0.2], [0.1, 0.5, 0.7], [0.8, 0.3, 0.5]],
    "comal3": [[0.5, 0.1, 0.8], [0.9, 0.5, 0.1], [0.2, 0.9, 0.5]],
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
    """The preference matrix [n, n] of a named game, of a generated one or of a CSV file without header.

    Args:
        game: a name of `NAMED`; `random(actions=10, seed=0)` or `condorcet(actions=6, intransitivity=0.5, seed=0)`
            (see the functions of these names; what is left out has its default); or a path.

    Raises:
        ValueError: neither a known name nor a readable file, not a table of numbers, or not a preference matrix.
    """
    if str(game) in NAMED:
        return check_preference(NAMED[str(game)])
    call = re.fullmatch(r"(\w+)\((.*)\)", str(game))
    if call is not None and call[1] in GENERATED:
        return _generate(str(game), GENERATED[call[1]], call[2])
    if not os.path.isfile(game):
        generated = (f"{name}(...)" for name in sorted(GENERATED))
        raise ValueError(
            f"no game and no file is called {_shown(game)}; the games are {', '.join([*sorted(NAMED), *generated])}"
        )
    try:
        return check_preference(_read_csv(Path(game)))
    except ValueError as error:
        raise ValueError(f"{game}: {error}") from error


def _shown(text: object) -> str:
    return repr(str(text)) if len(str(text)) <= 60 else f"{str(text)[:57]!r}..."


def _read_csv(path: Path) -> Array:
    rows = [line.split(",") for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    if not rows:
        raise ValueError("the file is empty; write one row of the preference matrix a line, entries between commas")
    for number, row in enumerate(rows, 1):
        if len(row) != len(rows[0]):
            raise ValueError(f"row {number} has {len(row)} entries and row 1 has {len(rows[0])}")
        for cell in row:
            try:
                float(cell)
            except ValueError:
                raise ValueError(f"row {number} has {_shown(cell.strip())}, which is not a number") from None
    return np.array(rows, dtype=np.float64)


def _generate(game: str, generator: Callable[..., Array], arguments: str) -> Array:
    try:
        given = (argument.partition("=") for argument in arguments.replace(" ", "").split(",") if argument)
        return generator(**{name: float(value) if "." in value else int(value) for name, _, value in given})
    except (TypeError, ValueError) as error:
        raise ValueError(f"the game {_shown(game)} cannot be made: {str(error)[:120]}") from error


def random_game(actions: int = 10, seed: int = 0) -> Array:
    """A game whose upper entries are .5 + uniform(-.5, .5), [actions, actions]."""
    _check_actions(actions)
    upper = np.triu(np.random.default_rng(seed).uniform(-0.5, 0.5, (actions, actions)), 1)
    return 0.5 + upper - upper.T


def condorcet_game(actions: int = 6, intransitivity: float = 1.0, seed: int = 0) -> Array:
    """A panel of three annotators whose majority is transitive at intransitivity 0 and cycles at 1, [actions, actions].

    Each annotator prefers i to j with probability sigma(u_i - u_j). At 0 all three share one utility, so P is a
    Bradley-Terry model; at 1 their utilities are one ranking rotated by thirds, as in Condorcet's paradox. Between, an
    annotator's utility is the weighted sum of both.

    Raises:
        ValueError: fewer than 3 actions, or `intransitivity` outside [0, 1].
    """
    _check_actions(actions, least=3)
    if not 0 <= intransitivity <= 1:
        raise ValueError(f"intransitivity is {intransitivity}; it must be in [0, 1]")
    generator = np.random.default_rng(seed)
    shared, ranking = generator.normal(0, 1, actions), np.linspace(3, -3, actions)[generator.permutation(actions)]
    order = np.argsort(-ranking)
    panel = np.zeros((actions, actions))
    for annotator in range(3):
        rotated = np.empty(actions)
        rotated[order] = np.roll(ranking[order], round(annotator * actions / 3))
        utility = (1 - intransitivity) * shared + intransitivity * rotated
        panel += 1 / (1 + np.exp(utility[None, :] - utility[:, None])) / 3
    return panel


def _check_actions(actions: int, least: int = 2) -> None:
    if not isinstance(actions, int) or actions < least:
        raise ValueError(f"actions is {actions}; it must be a whole number of at least {least}")


GENERATED: dict[str, Callable[..., Array]] = {"random": random_game, "condorcet": condorcet_game}


def win_rates(preference: ArrayLike, policy: ArrayLike) -> Array:
    """(P pi)_y, the probability that each action beats a draw from the policy, [..., n]."""
    return np.einsum("...ij,...j->...i", np.asarray(preference, np.float64), np.asarray(policy, np.float64))


def duality_gap(preference: ArrayLike, policy: ArrayLike) -> Array:
    """max_i (P pi)_i - min_j (pi^T P)_j of the unregularised game, [...]; 0 exactly at a Nash policy.

    On a symmetric game this is 2 max_i (P pi)_i - 1 (arXiv 2502.16852, section 2).
    """
    return 2 * win_rates(preference, policy).max(-1) - 1


def regularised_gap(preference: ArrayLike, policy: ArrayLike, reference: ArrayLike, tau: float) -> Array:
    """The duality gap of the game regularised by tau KL(policy || reference) for both players, [...].

    2 tau (log sum_y ref_y exp((P pi)_y / tau) + KL(pi || ref)) - 1; 0 exactly at the regularised Nash policy
    (arXiv 2407.00617, section 2). At tau 0 it is the unregularised gap.
    """
    if tau == 0:
        return duality_gap(preference, policy)
    rates = win_rates(preference, policy)
    best = rates.max(-1)
    reply = best + tau * np.log((np.asarray(reference) * np.exp((rates - best[..., None]) / tau)).sum(-1))
    return 2 * (reply + tau * kl_divergence(policy, reference)) - 1


def kl_divergence(policy: ArrayLike, other: ArrayLike) -> Array:
    """KL(policy || other), nats, [...]; infinite where the other never does what the policy does."""
    policy, other = np.broadcast_arrays(np.asarray(policy, np.float64), np.asarray(other, np.float64))
    with np.errstate(divide="ignore"):
        ratios = np.log(np.where(policy > 0, policy, 1)) - np.log(np.where(policy > 0, other, 1))
    return np.where(policy > 0, policy * ratios, 0).sum(-1)


def entropy(policy: ArrayLike) -> Array:
    """Entropy, nats, [...]."""
    policy = np.asarray(policy, np.float64)
    return -(policy * np.log(np.where(policy > 0, policy, 1))).sum(-1)


def reward_change(preference: ArrayLike, policies: ArrayLike) -> Array:
    """max_y |r_t(y) - r_(t-1)(y)| with r_t = P pi_t, [iterations] or [iterations, games] from [iterations + 1, ..., n].

    What ONPO's analysis calls predictability: the gap of its average is bounded by the sum of these squares.
    """
    return np.abs(np.diff(win_rates(preference, policies), axis=0)).max(-1)


def log_log_slope(values: ArrayLike, first: int = 1) -> Array:
    """The least-squares slope of log values[t] against log(t + 1) for t + 1 >= first, [...] from [iterations + 1, ...].

    t + 1 counts the policies up to there, so that it is -1 where an average gap falls as one over their number. Points
    are evenly spaced in log(t + 1). NaN where fewer than two values are positive.
    """
    values = np.asarray(values, np.float64)
    counts = np.unique(np.geomspace(max(first, 1), len(values), 64).round().astype(int))
    columns = values[counts - 1].reshape(len(counts), -1).T
    slopes = [_slope(np.log(counts[column > 0]), np.log(column[column > 0])) for column in columns]
    return np.array(slopes).reshape(values.shape[1:])


def _slope(x: Array, y: Array) -> float:
    if len(x) < 2:
        return float("nan")
    return float(((x - x.mean()) * y).sum() / ((x - x.mean()) ** 2).sum())


def nash_policy(preference: ArrayLike) -> Array:
    """The Nash policy of greatest entropy, [n], its duality gap below 1e-6.

    Where many policies are Nash, this one treats clones alike and gives every action that some Nash policy plays a
    positive probability, so KL to it is meaningful. It is the limit of the Nash policies of the game regularised
    towards uniform as tau falls to 0, followed down to tau = 1e-9 by Newton's method.

    Raises:
        ValueError: not one preference matrix, or the path is lost (the gap is then in the message).
    """
    matrix = check_preference(preference)
    if matrix.ndim != 2:
        raise ValueError(f"nash_policy takes one game [n, n]; its shape is {matrix.shape}")
    log_policy = np.full(len(matrix), -np.log(len(matrix)))
    for tau in np.geomspace(1, 1e-9, 61):
        log_policy = _regularised_nash(matrix - 0.5, log_policy, tau)
    policy = np.exp(log_policy)
    gap = float(duality_gap(matrix, policy))
    if not gap < 1e-6:
        raise ValueError(f"the Nash policy of this game was not found: the best policy has a duality gap of {gap:.3g}")
    return policy


def _regularised_nash(skew: Array, log_policy: Array, tau: float) -> Array:
    """The log-policy [n] at which A pi - tau log pi is constant, by damped Newton from a nearby solution."""
    slope, size = _slope_of_regularised(skew, log_policy, tau)
    for _ in range(100):
        if size <= 1e-13 * tau * np.abs(log_policy).max() + 1e-15:
            break
        policy, ones = np.exp(log_policy), np.ones((len(skew), 1))
        system = np.block([[skew * policy - tau * np.eye(len(skew)), -ones], [policy, np.zeros((1, 1))]])
        step = np.linalg.solve(system, np.append(-slope, 0))[:-1]
        share, bound = 1.0, size
        while share > 1e-9:
            moved = _log_softmax(log_policy + share * step)
            slope, size = _slope_of_regularised(skew, moved, tau)
            if size < bound:
                break
            share /= 2
        log_policy = moved
    return log_policy


def _slope_of_regularised(skew: Array, log_policy: Array, tau: float) -> tuple[Array, float]:
    policy = np.exp(log_policy)
    value = skew @ policy - tau * log_policy
    slope = value - policy @ value
    return slope, float(np.abs(slope).max())


def _log_softmax(logits: Array) -> Array:
    shifted = logits - logits.max()
    return shifted - np.log(np.exp(shifted).sum())
