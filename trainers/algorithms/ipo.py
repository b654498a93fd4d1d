"""Identity preference optimisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainers.algorithm import PairBatch, Scalar, choice, number
from trainers.algorithms.contrastive import Contrastive

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class IPO(Contrastive):
    """IPO: offline (arXiv 2310.12036), online (arXiv 2403.08635, equation 11) or iterative.

    The offline optimum is ref exp(p(y > data) / tau); the online fixed point is the Nash policy of the game
    regularised with tau (IPO-MD at mixture 0).

    Args:
        tau: strength of the KL towards the anchor.
        log_prob: `sum` is the papers'; with `mean`, which TRL uses, tau means a strength smaller by about the length.
    """

    regime: str = choice("offline", "iterative", "on-policy", "online")
    tau: Scalar = number(1.0, above=0)

    name = "ipo"
    equation = "(log π/π_anchor(w) − log π/π_anchor(l) − 1/(2τ))²,  anchor π_ref or πₜ (iterative)"
    source = "arXiv 2310.12036, equation 17; online: arXiv 2403.08635, equation 11"

    def loss(self, pair: PairBatch) -> Tensor:
        return (self.log_ratio(pair) - 1 / (2 * self.tau)).square()

    def target_nats(self) -> float:
        return 1 / (2 * self.tau)
