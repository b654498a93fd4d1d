"""The pocket world's base policy."""

from __future__ import annotations

from dataclasses import dataclass

from harness.pocket.judges import PANEL
from harness.specs import Checkpoint
from harness.stage import Facts, Stage, not_in_seed
from harness.stages.context import Context
from judges.code_identity import code_identity
from judges.code_syntax import file_digest
from judges.judge import Judge
from judges.kinds.panel import PanelJudge


@dataclass(frozen=True, kw_only=True, eq=False)
class PocketPolicy(Stage):
    """A causal language model trained from scratch on the grammar's sentences.

    Attributes:
        seed_option: of the sentences and of the training.
        world: changes with the code and the panel that make it.
    """

    kind = "pocket"
    version = 3

    seed_option: int = 0
    world: str = not_in_seed()

    def run(self, context: Context) -> Facts:
        from harness.pocket.base_policy import build_base_policy

        def report(step: int, steps: int, loss: float) -> None:
            context.report(step, steps)

        return dict(build_base_policy(context.out / "model", seed=self.seed_option, report=report))


def pocket_policy() -> Checkpoint:
    """The pocket world's base policy as a sweep reads it."""
    return Checkpoint(stage=PocketPolicy(world=world_hash(), title="the pocket world's base policy"))


def world_hash() -> str:
    """Changes with whatever makes the pocket world's prompts and base policy."""
    return " ".join(pocket_content(name) for name in ("grammar.py", "base_policy.py", "panel.yaml"))


def pocket_content(name: str) -> str:
    """Changes with the code or the data of a file of the pocket world."""
    return file_digest(PANEL.with_name(name))[:16]


def panel_code() -> str:
    """Changes with the code of the panel, which votes and makes references."""
    return code_identity(PanelJudge, Judge)[:16]
