"""The stream schedule: fresh samples, comparisons and one gradient step, again and again.

No algorithm is named here. One call is one iteration (a stage); optimiser, learning-rate schedule and generators
travel in `StreamState` to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainers.algorithm import Algorithm, Player
from trainers.fit import Report
from trainers.optimise import Figures, Optimiser
from trainers.options import Sampling, Training
from trainers.pairs import Pairs, score
from trainers.policies.policy import Policy, Response, Tokens

Compare = Callable[[Sequence[int], Sequence[str], Sequence[str]], NDArray[np.float64]]
"""(prompt numbers, first texts, second texts) -> P(first beats second), NaN where the judge failed."""


@dataclass
class StreamState:
    """What a stream carries from one iteration to the next, besides the weights."""

    optimiser: dict[str, Tensor] = field(default_factory=dict)
    sampler: Tensor | None = None


@dataclass(frozen=True)
class StreamResult:
    """Figures of each step, what was asked of the judge, and the state to go on from."""

    dynamics: list[Figures]
    samples: int
    failed: int
    truncated: int
    state: StreamState


def stream(
    policy: Policy,
    frozen: Mapping[str, Policy],
    prompts: Sequence[Tokens],
    compare: Compare,
    algorithm: Algorithm,
    training: Training,
    sampling: Sampling,
    *,
    label: str,
    steps: int,
    total_steps: int,
    seed: int,
    state: StreamState | None = None,
    report: Report | None = None,
) -> StreamResult:
    """Train `policy` in place for `steps` optimiser steps on pairs it has just sampled.

    A step draws `training.batch_size` prompts (passes over all of them, shuffled), two responses each from the
    algorithm's player, one preference a pair, and scores the frozen policies as the samples come. A failed comparison
    drops its pair from the step and is counted.

    Args:
        frozen: the policies the loss is measured against, `reference` among them where the player is a mixture.
        label: what a preference becomes: `soft` (kept), `sampled` (Bernoulli) or `argmax`.
        total_steps: steps of all iterations together, for the learning-rate schedule.

    Raises:
        ValueError: every comparison of a step failed.
        FloatingPointError: the loss is not finite.
    """
    optimiser = Optimiser(policy, training, total_steps, None if state is None else state.optimiser)
    sampler = torch.Generator(device=next(iter(policy.parameters())).device).manual_seed(seed)
    if state is not None:
        assert state.sampler is not None
        sampler.set_state(state.sampler)
    labeller = np.random.default_rng(seed)
    order = _passes(len(prompts), steps * training.batch_size, seed)
    dynamics: list[Figures] = []
    samples = failed = truncated = 0
    for step in range(steps):
        rows = order[step * training.batch_size : (step + 1) * training.batch_size]
        chosen = [prompts[i] for i in rows]
        responses = _play(policy, frozen, chosen, algorithm, sampling, sampler)
        pairs, lost = _compared(rows, chosen, responses, compare)
        pairs = replace(pairs, preference=_label(pairs.preference, label, labeller))
        pairs, cut = pairs.truncated(training.max_length)
        scores = {name: score(frozen[name], pairs, training.batch_size) for name in algorithm.phases[0].frozen}
        dynamics.append(optimiser.step(policy, algorithm, pairs, scores) | _describe(responses))
        samples, failed, truncated = samples + 2 * len(rows), failed + lost, truncated + cut
        if report is not None:
            report(step + 1, steps)
    return StreamResult(dynamics, samples, failed, truncated, StreamState(optimiser.state(), sampler.get_state()))


def _play(
    policy: Policy,
    frozen: Mapping[str, Policy],
    prompts: Sequence[Tokens],
    algorithm: Algorithm,
    sampling: Sampling,
    generator: torch.Generator,
) -> list[list[Response]]:
    """Two responses a prompt from the algorithm's player."""
    if algorithm.player is Player.POLICY:
        return policy.sample(prompts, 2, sampling, generator)
    share = 1.0 if algorithm.player is Player.REFERENCE else algorithm.mixture  # type: ignore[attr-defined]
    return policy.sample(prompts, 2, sampling, generator, mix=(frozen["reference"], share))


def _compared(
    rows: Sequence[int], prompts: Sequence[Tokens], responses: Sequence[Sequence[Response]], compare: Compare
) -> tuple[Pairs, int]:
    """One soft-labelled pair a prompt, less those whose comparison failed, and how many failed."""
    first, second = [r[0] for r in responses], [r[1] for r in responses]
    preference = compare(rows, [r.text for r in first], [r.text for r in second])
    kept = np.flatnonzero(~np.isnan(preference)).tolist()
    if not kept:
        raise ValueError(f"all {len(rows)} comparisons of a step failed; look at the judge's failures")
    pairs = Pairs(list(prompts), [r.tokens for r in first], [r.tokens for r in second], preference)
    return pairs.select(kept), len(rows) - len(kept)


def _label(preference: NDArray[np.float64], label: str, generator: np.random.Generator) -> NDArray[np.float64]:
    """P(first beats second) as the label asks; a hard label is 1 or 0."""
    if label == "soft":
        return preference
    threshold = generator.random(len(preference)) if label == "sampled" else np.full(len(preference), 0.5)
    return (preference >= threshold).astype(np.float64)


def _passes(count: int, draws: int, seed: int) -> list[int]:
    """Row numbers 0..count-1 in shuffled passes, as many as `draws`."""
    generator = np.random.default_rng(seed)
    passes = [generator.permutation(count) for _ in range(-(-draws // count))]
    return [int(i) for i in np.concatenate(passes)[:draws]]


def _describe(responses: Sequence[Sequence[Response]]) -> Figures:
    """Mean response length (tokens) and share that ended by themselves."""
    flat = [r for row in responses for r in row]
    return {
        "response_length": float(np.mean([len(r.tokens) for r in flat])),
        "finished": float(np.mean([r.finished for r in flat])),
    }
