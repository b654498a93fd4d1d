"""Nash-MD-PG: policy gradient against a mixture with the reference."""

from __future__ import annotations

from dataclasses import dataclass

from trainers.algorithm import Scalar, number
from trainers.algorithms.policy_gradient import PolicyGradient


@dataclass(frozen=True, kw_only=True)
class NashMD(PolicyGradient):
    """Nash-MD-PG (arXiv 2312.00886, section 7): the opponent is policy^(1-mixture) reference^mixture.

    The mixture is taken token by token. Nash-EMA-PG and the mirror-descent Nash-MD of the paper's theorem 1 are not
    covered.

    Args:
        tau: strength of the KL towards the reference.
        mixture: share of the reference in the opponent.
    """

    tau: Scalar = number(0.008, at_least=0)
    mixture: Scalar = number(0.125, at_least=0, at_most=1)

    name = "nash-md"
    opponent = "mixture"
    equation = "−log π(y)·sg[P(y ≻ y″) − 1/2 − τ·log π/π_ref(y)],  y″ ~ π^(1−m)·π_ref^m"
    source = "arXiv 2312.00886, section 7; arXiv 2403.08635 for tau and mixture"
