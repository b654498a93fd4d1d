"""The duality gap of every policy of a game."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

import numpy as np

from harness.specs import ComponentSpec
from harness.stage import Facts, Stage
from harness.stages.context import Context
from harness.stages.play import Play


@dataclass(frozen=True, kw_only=True, eq=False)
class Gap(Stage):
    """`scores.json`, each score with its iteration; without a game that was played, those of the uniform policy.

    Attributes:
        tau: of the regularised game that the algorithm plays; 0 where it does not regularise.
    """

    kind = "gap"
    version = 4

    board: ComponentSpec
    preference: tuple[tuple[float, ...], ...]
    tau: float = 0.0
    game: Play | None = None

    def run(self, context: Context) -> Facts:
        matrix = np.array(self.preference, dtype=np.float64)
        policies = np.full((1, len(matrix)), 1 / len(matrix))
        if self.game is not None:
            policies = np.load(context.read(self.game) / "policies.npy")
        rows = [{"iteration": t} | asdict(s) for t, s in context.board(self.board).rate(matrix, policies, self.tau)]
        (context.out / "scores.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
        return {}
