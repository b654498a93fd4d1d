"""Direct preference optimisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainers.algorithm import PairBatch, Scalar, number
from trainers.algorithms.contrastive import Contrastive

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class DPO(Contrastive):
    """DPO (arXiv 2305.18290, equation 7): iterative by default, or offline, or online (arXiv 2403.08635).

    Its solution is a Bradley-Terry fit, so on an intransitive game it depends on the law of the pairs and need not be
    near a Nash policy. On a preference of exactly 0 or 1 the offline and iterative losses have no finite minimiser.

    Args:
        beta: strength of the KL towards the anchor.
    """

    beta: Scalar = number(0.1, above=0)

    name = "dpo"
    equation = "−log σ(β·(log π/π_anchor(w) − log π/π_anchor(l))),  anchor πₜ (iterative) or π_ref"
    source = "arXiv 2305.18290, equation 7; online: arXiv 2403.08635, appendix F"

    def loss(self, pair: PairBatch) -> Tensor:
        from torch.nn.functional import logsigmoid

        return -logsigmoid(self.beta * self.log_ratio(pair))
