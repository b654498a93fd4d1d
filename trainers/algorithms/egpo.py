"""Extragradient preference optimisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainers.algorithm import Algorithm, PairBatch, Pairing, Phase, Scalar, Schedule, choice, number

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class EGPO(Algorithm):
    """EGPO (arXiv 2503.08942): a look-ahead step, then the same step against the look-ahead's responses.

    Both steps start at the policy and fit log-ratios to win-rate differences over tau, both responses of a pair against
    one response of the opponent, as the official code does. On pairs drawn uniformly (temperature infinite) a gradient
    step s on n actions is the paper's closed form with eta tau = 4 s / n; pairs drawn from the policy weigh the same
    step by the policy.

    Args:
        tau: strength of the KL towards the reference (the paper's beta).
        temperature: of the sampled pairs; the opponents are sampled at the sweep's own.
        log_prob: a response's log-probability is the `mean` over its tokens, as in the official code
            (`normalize_logprobs`), or their `sum`, as in the paper. In a game they are the same.
    """

    tau: Scalar = number(0.1, above=0)
    temperature: Scalar = number(2.0, above=0, infinite=True)
    log_prob: str = choice("mean", "sum")

    name = "egpo"
    schedule = Schedule.STREAM
    phases = (
        Phase(start="policy", frozen=("reference",), writes="auxiliary", opponents=("policy",), shared=True),
        Phase(start="policy", frozen=("reference",), writes="policy", opponents=("auxiliary",), shared=True),
    )
    pairing = Pairing(protocol="iid", label="none")
    equation = (
        "(h − (P(y ≻ y″) − P(y′ ≻ y″))/τ)²,  h = log π/π_ref(y) − log π/π_ref(y′),  y″ ~ π, then ~ the look-ahead"
    )
    source = "arXiv 2503.08942 and its official code"

    def loss(self, pair: PairBatch) -> Tensor:
        (reward,) = pair.rewards.values()
        scored = pair.per_token() if self.log_prob == "mean" else pair
        return (scored.log_ratio("reference") - reward.margin / self.tau).square()
