"""The refit schedule: fit a policy to one batch of labelled pairs whose frozen log-probabilities are known.

No algorithm is named here. A frozen policy enters only through `frozen`, computed once by `trainers.pairs.score`, so
the policy being trained is the only model in memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from trainers.algorithm import Algorithm
from trainers.optimise import Figures, Optimiser
from trainers.options import Training
from trainers.pairs import FrozenLogProbs, Pairs
from trainers.policies.policy import Policy

Report = Callable[[int, int], None]
"""Called with steps done and steps in all."""


def fit(
    policy: Policy,
    pairs: Pairs,
    frozen: FrozenLogProbs,
    algorithm: Algorithm,
    training: Training,
    *,
    seed: int,
    report: Report | None = None,
) -> list[Figures]:
    """Train `policy` in place for `training.epochs` passes over the pairs.

    Pairs are shuffled every epoch; the last batch of an epoch may be smaller. Pairs must already be cut to
    `training.max_length`, as those the frozen policies scored.

    Returns:
        One dict of figures an optimiser step: loss, margins (nats), gradient norm, learning rate.

    Raises:
        ValueError: there are no pairs.
        FloatingPointError: the loss is not finite.
    """
    if len(pairs) == 0:
        raise ValueError("there are no pairs to fit; every comparison failed, tied or lost its final check")
    generator = np.random.default_rng(seed)
    batches = math.ceil(len(pairs) / training.batch_size)
    optimiser = Optimiser(policy, training, training.epochs * batches)
    dynamics: list[Figures] = []
    for _ in range(training.epochs):
        order = generator.permutation(len(pairs))
        for rows in np.array_split(order, range(training.batch_size, len(pairs), training.batch_size)):
            part = {name: values[rows] for name, values in frozen.items()}
            dynamics.append(optimiser.step(policy, algorithm, pairs.select(rows.tolist()), part))
            if report is not None:
                report(len(dynamics), training.epochs * batches)
    return dynamics
