"""Iterative Nash policy optimisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainers.algorithm import Algorithm, PairBatch, Phase, Scalar, Schedule, number

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class INPO(Algorithm):
    """Iterative Nash policy optimisation (arXiv 2407.00617, Algorithm 1, equation 8).

    Mirror descent on the game regularised towards the reference: the exact step is
    pi proportional to exp(p(y > pi_t) / eta) ref^(tau/eta) pi_t^(1 - tau/eta).

    Args:
        eta: inverse step size, larger is more timid.
        tau: strength of the KL towards the reference; None is the paper's choice eta / 3.
    """

    eta: Scalar = number(0.005, above=0)
    tau: Scalar | None = number(None, at_least=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.tau, int | float) and isinstance(self.eta, int | float) and self.tau > self.eta:
            raise ValueError(
                f"inpo: tau is {self.tau} and eta {self.eta}; tau must be at most eta: their ratio is a share"
            )

    name = "inpo"
    schedule = Schedule.REFIT
    phases = (Phase(start="policy", frozen=("previous", "reference"), writes="policy"),)
    equation = "(log-ratio of π to πₜ^(1−τ/η)·π_ref^(τ/η), (w) − (l), − 1/(2η))²"
    source = "arXiv 2407.00617, equation 8"

    def loss(self, pair: PairBatch) -> Tensor:
        share = 1 / 3 if self.tau is None else self.tau / self.eta
        ratio = share * pair.log_ratio("reference") + (1 - share) * pair.log_ratio("previous")
        return (ratio - 1 / (2 * self.eta)).square()

    def target_nats(self) -> float:
        return 1 / (2 * self.eta)
