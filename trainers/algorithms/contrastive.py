"""What DPO, IPO, SLiC and SimPO share: a loss of one log-ratio, and three ways to come by the pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainers.algorithm import Algorithm, PairBatch, Pairing, Phase, Player, Schedule, choice

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Contrastive(Algorithm):
    """A loss of each pair's log-ratio to an anchor.

    Args:
        regime: `offline`: pairs of a fixed law (the reference's responses, or a data set), refitted against the
            reference; `iterative`: the policy's own pairs, refitted against the policy at the iteration's start;
            `on-policy`: the same pairs, refitted against the fixed reference; `online`: a gradient step for every fresh
            batch of the policy's own pairs, against the reference.
        log_prob: a response's log-probability is the `sum` over its tokens, or their `mean`.
    """

    regime: str = choice("iterative", "offline", "on-policy", "online")
    log_prob: str = choice("sum", "mean")

    @property
    def schedule(self) -> Schedule:
        return Schedule.STREAM if self.regime == "online" else Schedule.REFIT

    @property
    def player(self) -> Player:
        return Player.REFERENCE if self.regime == "offline" else Player.POLICY

    @property
    def anchor(self) -> str:
        """The frozen policy that log-ratios are taken to."""
        return "previous" if self.regime == "iterative" else "reference"

    @property
    def phases(self) -> tuple[Phase, ...]:
        return (Phase(start="policy", frozen=(self.anchor,), writes="policy"),)

    @property
    def pairing(self) -> Pairing:
        return Pairing(protocol="iid", label="soft") if self.regime == "online" else Pairing()

    def log_ratio(self, pair: PairBatch) -> Tensor:
        """log pi/anchor (chosen) - log pi/anchor (rejected), nats (nats a token for means), [pairs]."""
        return self.scored(pair).log_ratio(self.anchor)

    def scored(self, pair: PairBatch) -> PairBatch:
        """The pairs with log-probabilities as `log_prob` says."""
        return pair.per_token() if self.log_prob == "mean" else pair
