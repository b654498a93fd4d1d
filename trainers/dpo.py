"""Direct preference optimisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainers.algorithm import Algorithm, PairBatch, Phase, Scalar, Schedule, number

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class DPO(Algorithm):
    """Iterative DPO (arXiv 2305.18290, equation 7), measured against the policy at the iteration's start.

    Args:
        beta: strength of the KL towards that policy.
    """

    beta: Scalar = number(0.1, above=0)

    name = "dpo"
    schedule = Schedule.REFIT
    phases = (Phase(start="policy", frozen=("previous",), writes="policy"),)
    equation = "−log σ(β·(log π/πₜ(w) − log π/πₜ(l)))"
    source = "arXiv 2305.18290, equation 7; reference = the previous policy"

    def loss(self, pair: PairBatch) -> Tensor:
        from torch.nn.functional import logsigmoid

        return -logsigmoid(self.beta * pair.log_ratio("previous"))
