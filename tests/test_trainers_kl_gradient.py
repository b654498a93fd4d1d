"""On responses of two tokens: the KL gradient of a whole response, from sums of token log-probabilities."""

from collections.abc import Callable
from itertools import product

import pytest
import torch
from torch import Tensor

from trainers import RL, NashMD
from trainers.algorithm import PairBatch, PairValues
from trainers.algorithms.policy_gradient import PolicyGradient

SYMBOLS, TAU = 3, 0.7
RESPONSES = list(product(range(SYMBOLS), repeat=2))


def token_log_probs(logits: tuple[Tensor, Tensor]) -> Tensor:
    """Log-probability of both tokens of every response, [responses, 2], of a model with one table for each token."""
    first, second = torch.log_softmax(logits[0], -1), torch.log_softmax(logits[1], -1)
    return torch.stack([torch.stack([first[a], second[a, b]]) for a, b in RESPONSES])


def tables(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def table(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return table(SYMBOLS).requires_grad_(), table(SYMBOLS, SYMBOLS).requires_grad_()


POLICY, REFERENCE = tables(1), token_log_probs(tables(2)).sum(-1).detach()
REWARD = torch.rand(len(RESPONSES), generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def gradient(value: Tensor) -> Tensor:
    return torch.cat([part.flatten() for part in torch.autograd.grad(value, POLICY)])


def enumerated() -> Tensor:
    """d/d logits of E reward - tau KL(policy || reference), every response weighed by its own probability."""
    log_probs = token_log_probs(POLICY).sum(-1)
    return gradient((log_probs.exp() * (REWARD - TAU * (log_probs - REFERENCE))).sum())


def expected_loss(algorithm: PolicyGradient) -> Tensor:
    """The loss of every pair of responses, weighed by how often the policy samples it."""
    log_probs = token_log_probs(POLICY).sum(-1)
    own, other = (index.flatten() for index in torch.meshgrid(*[torch.arange(len(RESPONSES))] * 2, indexing="ij"))

    def values(of: Tensor) -> PairValues:
        return PairValues(of[own], of[other])

    pair = PairBatch(values(log_probs), {"reference": values(REFERENCE)}, {algorithm.opponent: values(REWARD)})
    weights = (log_probs[own] + log_probs[other]).detach().exp()
    return (weights * algorithm.loss(pair)).sum()


@pytest.mark.parametrize("make", [NashMD, RL])
def test_the_expected_gradient_is_the_enumerated_one(make: Callable[..., PolicyGradient]) -> None:
    torch.testing.assert_close(-gradient(expected_loss(make(tau=TAU))), enumerated(), atol=1e-10, rtol=0)


def test_a_sum_of_token_log_ratios_times_token_log_probs_is_another_gradient() -> None:
    """The surrogate of TRL's Nash-MD trainer drops the KL that a token's choice causes later."""
    tokens = token_log_probs(POLICY)
    reference = token_log_probs(tables(2)).detach()
    weights = tokens.sum(-1).detach().exp()
    reward = (weights * (REWARD - 0.5) * tokens.sum(-1)).sum()
    surrogate = (weights * ((tokens.detach() - reference) * tokens).sum(-1)).sum()
    biased = gradient(reward - TAU * surrogate)
    assert (biased - enumerated()).norm() > 0.05 * enumerated().norm()
