"""The refit schedule: fit a policy to one batch of labelled pairs whose frozen log-probabilities are known.

No algorithm is named here. A frozen policy enters only through `frozen`, computed once by
`trainers.fitting.pairs.score`, so the policy being trained is the only model in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from trainers.algorithm import Algorithm
from trainers.errors import TrainingError
from trainers.fitting.optimise import Optimiser, StepMetrics
from trainers.fitting.pairs import FrozenLogProbs, Pairs
from trainers.fitting.ranks import Ranks
from trainers.options import Training
from trainers.policies.policy import Policy

if TYPE_CHECKING:
    from trainers.fitting.resume import FitCheckpointer

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
    ranks: Ranks | None = None,
    checkpointer: FitCheckpointer | None = None,
) -> list[StepMetrics]:
    """Train `policy` in place for `training.epochs` passes over the pairs, or for `training.steps_per_iteration` steps.

    Pairs are shuffled every pass. The last batch of an epoch may be smaller; a given number of steps has full batches,
    which go on into the next pass, so that a pair is used as often as any other or once more. Pairs must already be cut
    to `training.max_length`, as those the frozen policies scored.

    Args:
        ranks: the processes that share each step; every one of them calls this.
        checkpointer: gives the state to resume from, and saves later ones.

    Returns:
        One dict of metrics for each optimiser step: loss, margins (nats), gradient norm, learning rate.

    Raises:
        TrainingError: there are no pairs.
        FloatingPointError: the loss is not finite.
    """
    if len(pairs) == 0:
        raise TrainingError("there are no pairs to fit; every comparison failed, tied or lost its final check")
    batches = list(_batches(len(pairs), training, seed))
    dynamics, state = ([], None) if checkpointer is None else checkpointer.read()
    optimiser = Optimiser(policy, training, len(batches), state, ranks)
    for rows in batches[len(dynamics) :]:
        part = {name: values[rows] for name, values in frozen.items()}
        dynamics.append(optimiser.step(policy, algorithm, pairs.select(rows.tolist()), part))
        if report is not None:
            report(len(dynamics), len(batches))
        if checkpointer is not None:
            checkpointer.maybe_save(optimiser, dynamics)
    return dynamics


def _batches(count: int, training: Training, seed: int) -> Iterator[NDArray[np.int64]]:
    """The rows of every step: passes over all, each reshuffled."""
    generator, size, steps = np.random.default_rng(seed), training.batch_size, training.steps_per_iteration
    if steps is not None:
        passes = [generator.permutation(count) for _ in range(-(-steps * size // count))]
        yield from np.concatenate(passes)[: steps * size].reshape(steps, size)
        return
    for _ in range(training.epochs):
        yield from np.array_split(generator.permutation(count), range(size, count, size))
