"""The control: the supervised policy as it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainers.algorithm import Algorithm, PairBatch, Pairing, Schedule

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class SFT(Algorithm):
    """The policy as it is: no phase, so nothing is fitted. Every sweep has it as its control."""

    name = "sft"
    schedule = Schedule.REFIT
    phases = ()
    pairing = Pairing(protocol="iid", label="none")
    equation = "0"
    source = "the start policy"

    def loss(self, pair: PairBatch) -> Tensor:
        return 0 * pair.margin
