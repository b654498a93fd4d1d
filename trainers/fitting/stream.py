"""The stream schedule: fresh samples, comparisons and one gradient step, again and again.

No algorithm is named here. One call is one iteration (a stage); the optimiser's state is passed to the next, and with
it the number of steps done, which the learning rate and all randomness are functions of: a stream split between two
passes over its prompts equals the unsplit stream.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainers.algorithm import Algorithm, Phase, Player
from trainers.engines.randomness import response_seeds
from trainers.errors import TrainingError
from trainers.fitting.fit import Report
from trainers.fitting.movement import Watch
from trainers.fitting.optimise import Optimiser, StepMetrics
from trainers.fitting.pairs import Pairs, score
from trainers.options import Sampling, Training
from trainers.policies.policy import Policy, Response, Tokens

Compare = Callable[[Sequence[int], Sequence[str], Sequence[str]], NDArray[np.float64]]
"""(prompt numbers, first texts, second texts) -> P(first beats second), NaN where the judge failed."""
Turn = tuple[int, int]
"""The number of a step, counted through all iterations, and of its phase."""


@dataclass(frozen=True)
class StreamResult:
    """Metrics of each step, counts (`tokens`: of all samples), the optimiser's state to resume from, and how far the
    policy moved on the first step's pairs (`trainers.fitting.movement`).
    """

    dynamics: list[StepMetrics]
    samples: int
    tokens: int
    failed: int
    truncated: int
    state: dict[str, Tensor]
    movement: StepMetrics


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
    state: Mapping[str, Tensor] | None = None,
    report: Report | None = None,
) -> StreamResult:
    """Train `policy` in place for `steps` optimiser steps on pairs it has just sampled.

    A step draws `training.batch_size` prompts (passes over all of them, shuffled) and goes through the algorithm's
    phases: two responses each from the player, one preference a pair, fresh responses of the opponents where rewards
    are earned against some (one a response, or one a pair where the phase says `shared`), the frozen policies' scores,
    one optimiser step. A failed comparison drops its pair from the step and is counted.

    Args:
        frozen: the policies the loss is measured against, `reference` among them where the player is a mixture.
        label: what a preference becomes: `soft` (kept), `sampled` (Bernoulli) or `argmax`; `none` asks for none.
        total_steps: steps of all iterations together, for the learning-rate schedule.
        seed: of all draws. A response's is a function of it, the number of the step in all iterations, the phase, the
            use (player or opponent), the prompt's number and the response's.
        state: the `StreamResult.state` of the iteration before.

    Raises:
        ValueError: every comparison of a step failed.
        FloatingPointError: the loss is not finite.
    """
    optimiser = Optimiser(policy, training, total_steps, state)
    done = optimiser.steps_done
    collector = PairCollector({**frozen, "policy": policy}, compare, algorithm, sampling, label, seed)
    order = _passes(len(prompts), steps * training.batch_size, seed, done * training.batch_size)
    dynamics: list[StepMetrics] = []
    truncated, size = 0, training.micro_batch_size or training.batch_size
    watch: Watch | None = None
    for step in range(steps):
        rows = order[step * training.batch_size : (step + 1) * training.batch_size]
        for number, phase in enumerate(algorithm.phases):
            drawn = collector.pairs((done + step, number), phase, rows, [prompts[i] for i in rows])
            pairs, cut = drawn.truncated(training.max_length)
            scores = {name: score(frozen[name], pairs, size) for name in phase.frozen}
            watch = watch or Watch.at(policy, pairs, size)
            learner, with_optimiser = policy, optimiser
            if phase.writes != "policy":  # a look-ahead: a step of a copy, which later phases may play against
                learner = policy.copy()
                with_optimiser = Optimiser(learner, training, total_steps, optimiser.state())
            figures = with_optimiser.step(learner, algorithm, pairs, scores)
            collector.policies[phase.writes] = learner
            truncated += cut
        dynamics.append(figures | collector.response_figures)
        if report is not None:
            report(step + 1, steps)
    moved = watch.figures(policy, algorithm) if watch else {}
    counts = (collector.samples, collector.tokens, collector.failed, truncated)
    return StreamResult(dynamics, *counts, optimiser.state(), moved)


@dataclass
class PairCollector:
    """Samples of a step's players and opponents, compared, labelled and counted."""

    policies: dict[str, Policy]
    compare: Compare
    algorithm: Algorithm
    sampling: Sampling
    label: str
    seed: int
    samples: int = 0
    tokens: int = 0
    failed: int = 0
    response_figures: StepMetrics = field(default_factory=dict)

    def pairs(self, turn: Turn, phase: Phase, rows: Sequence[int], prompts: Sequence[Tokens]) -> Pairs:
        """A pair of the player's responses to each prompt, with its label and its rewards against each opponent.

        Args:
            turn: unique to this call.
            rows: the prompts' numbers.

        Raises:
            ValueError: a comparison failed for every prompt.
        """
        temperature = self.algorithm.temperature or self.sampling.temperature
        responses = self._sample(self.algorithm.player.value, prompts, temperature, self._seeds(turn, "player", rows))
        self.response_figures = _describe(responses)
        first, second = [r[0] for r in responses], [r[1] for r in responses]
        preference = np.ones(len(rows))
        if self.label != "none":
            labeller = np.random.default_rng([self.seed, 1, *turn])
            preference = _label(self.compare(rows, _texts(first), _texts(second)), self.label, labeller)
        rewards = {name: self._rewards(turn, phase, name, rows, prompts, first, second) for name in phase.opponents}
        pairs = Pairs(list(prompts), [r.tokens for r in first], [r.tokens for r in second], preference, rewards)
        answered = np.logical_and.reduce([~np.isnan(preference), *(~np.isnan(r).any(1) for r in rewards.values())])
        if not answered.any():
            raise TrainingError(f"all {len(rows)} comparisons of a step failed; look at the judge's failures")
        self.failed += int((~answered).sum())
        return pairs.select(np.flatnonzero(answered).tolist())

    def _rewards(
        self,
        turn: Turn,
        phase: Phase,
        opponent: str,
        rows: Sequence[int],
        prompts: Sequence[Tokens],
        first: Sequence[Response],
        second: Sequence[Response],
    ) -> NDArray[np.float64]:
        """What each response of a pair earns against a fresh response of the opponent, [pairs, 2]."""
        seeds = self._seeds(turn, f"opponent {opponent}", rows)
        theirs = self._sample(opponent, prompts, self.sampling.temperature, seeds, 1 if phase.shared else 2)
        # One response a prompt where the pair shares it, else the first response meets the first and so on.
        wins = [
            self.compare(rows, _texts(own), _texts([r[side % len(r)] for r in theirs]))
            for side, own in enumerate((first, second))
        ]
        rewards = self.algorithm.reward(torch.from_numpy(np.stack(wins, -1))).numpy()
        if np.isinf(rewards).any():
            raise TrainingError(
                f"{self.algorithm.name}: the judge is certain (0 or 1) of a comparison, which has no finite reward; "
                "set the trainer's reward_limit, or take a judge whose preferences lie inside (0, 1)"
            )
        return rewards

    def _seeds(self, turn: Turn, use: str, rows: Sequence[int]) -> list[int]:
        step, phase = turn
        return response_seeds(self.seed, [f"step {step}, phase {phase}, {use}, prompt {row}" for row in rows])

    def _sample(
        self, name: str, prompts: Sequence[Tokens], temperature: float, seeds: Sequence[int], count: int = 2
    ) -> list[list[Response]]:
        """`count` responses a prompt from the policy of this name, or from the mixture of policy and reference."""
        options = self.sampling.model_copy(update={"temperature": temperature})
        if name == Player.MIXTURE:
            mix = (self.policies["reference"], self.algorithm.mixture)  # type: ignore[attr-defined]
            drawn = self.policies["policy"].sample(prompts, count, options, seeds, mix=mix)
        else:
            drawn = self.policies[name].sample(prompts, count, options, seeds)
        self.samples += count * len(prompts)
        self.tokens += sum(len(response.tokens) for responses in drawn for response in responses)
        return drawn


def _label(preference: NDArray[np.float64], label: str, generator: np.random.Generator) -> NDArray[np.float64]:
    """P(first beats second) as the label asks; a hard label is 1 or 0."""
    if label == "soft":
        return preference
    threshold = generator.random(len(preference)) if label == "sampled" else np.full(len(preference), 0.5)
    return np.where(np.isnan(preference), np.nan, preference >= threshold)


def _texts(responses: Sequence[Response]) -> list[str]:
    return [response.text for response in responses]


def _passes(count: int, draws: int, seed: int, before: int = 0) -> list[int]:
    """Row numbers 0..count-1 in shuffled passes, as many as `draws`; the first pass is the next new one after `before`
    draws."""
    first = -(-before // count)
    passes = range(first, first + -(-draws // count))
    order = np.concatenate([np.random.default_rng([seed, 2, number]).permutation(count) for number in passes])
    return order[:draws].tolist()


def _describe(responses: Sequence[Sequence[Response]]) -> StepMetrics:
    """Mean response length (tokens) and share that ended with an end token."""
    flat = [r for row in responses for r in row]
    return {
        "response_length": float(np.mean([len(r.tokens) for r in flat])),
        "finished": float(np.mean([r.finished for r in flat])),
    }
