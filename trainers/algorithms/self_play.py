"""Self-play on the regularised preference game."""

from __future__ import annotations

from dataclasses import dataclass

from trainers.algorithms.policy_gradient import PolicyGradient


@dataclass(frozen=True, kw_only=True)
class SelfPlay(PolicyGradient):
    """Policy gradient on P(y beats the policy itself) - tau KL, the opponent held fixed (arXiv 2312.00886).

    Its expected gradient is -tau/4 times that of online IPO (arXiv 2403.08635, proposition 4.2).

    Args:
        tau: strength of the KL towards the reference.
    """

    name = "self-play"
    opponent = "policy"
    equation = "−log π(y)·sg[P(y ≻ y″) − 1/2 − τ·log π/π_ref(y)],  y″ ~ π"
    source = "arXiv 2312.00886, section 7 (SP)"
