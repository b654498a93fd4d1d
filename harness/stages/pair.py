"""Labelled pairs from the responses of an iteration."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from harness.errors import UserError
from harness.identity import Artifact
from harness.specs import ComponentSpec
from harness.stage import Facts, Stage, fact
from harness.stages.context import Context
from harness.stages.prompts import Prompts, check_training_length
from harness.stages.sample import Sample
from harness.store.cached_judge import compare_with
from trainers.algorithm import Pairing

if TYPE_CHECKING:
    from trainers.fitting.pairs import Pairs


@dataclass(frozen=True, kw_only=True, eq=False)
class Pair(Stage):
    """`pairs.parquet`: tokens of prompt, chosen and rejected, P(chosen beats rejected), and win rates where they are
    known.

    Attributes:
        training_length: the longest sequence that is trained on, tokens.
    """

    kind = "pair"
    version = 4

    responses: Sample
    prompts: Prompts
    judge: ComponentSpec
    pairing: Pairing
    cell_seed: int
    training_length: int | None = fact(None)

    def run(self, context: Context) -> Facts:
        import pandas as pd

        from judges.tournament import best_worst, iid, tournament
        from judges.verdicts import empty_outcome

        protocols = {"tournament": tournament, "iid": iid, "best-worst": best_worst}
        responses = pd.read_parquet(context.read(self.responses) / "responses.parquet")
        groups = list(responses.groupby("draw").indices.values())
        texts = [[responses["text"].iloc[i] for i in rows] for rows in groups]
        listed = pd.read_parquet(context.read(self.prompts) / "prompts.parquet")
        prompt_rows = [int(responses["prompt"].iloc[rows[0]]) for rows in groups]
        asked = listed.iloc[prompt_rows]
        check_training_length(zip(asked["id"], asked["tokens"], strict=True), self.training_length)
        judge = context.judge(self.judge)
        compared = protocols[self.pairing.protocol](
            compare_with(judge, [json.loads(listed["prompt"].iloc[row]) for row in prompt_rows]),
            texts,
            np.random.default_rng(self.seed),
            label=self.pairing.label,  # type: ignore[arg-type]
            orders=self.pairing.orders,  # type: ignore[arg-type]
        )
        judge.check_losses()
        if compared.failed and not len(compared):
            raise UserError(f"the judge failed on all {compared.failed} comparisons; there is no pair to train on")
        chosen = [groups[p][i] for p, i in zip(compared.prompt, compared.chosen, strict=True)]
        rejected = [groups[p][i] for p, i in zip(compared.prompt, compared.rejected, strict=True)]
        frame = pd.DataFrame(
            {
                "prompt_tokens": [listed["tokens"].iloc[prompt_rows[p]] for p in compared.prompt],
                "chosen": [responses["tokens"].iloc[i] for i in chosen],
                "rejected": [responses["tokens"].iloc[i] for i in rejected],
                "preference": compared.preference,
            }
        )
        if compared.win_rates is not None:
            frame[["reward_chosen", "reward_rejected"]] = compared.win_rates
        frame.to_parquet(context.out / "pairs.parquet")
        counts = {name: getattr(compared, name) for name in ("failed", "dropped", "ties")}
        sides = zip(responses["text"].iloc[chosen], responses["text"].iloc[rejected], strict=True)
        counts["empty"] = sum(empty_outcome(*texts) is not None for texts in sides)
        work = {"queries": compared.queries}
        return {"work": work, "pairs": len(compared), **counts, "failures": dict(judge.failures)}


def read_pairs(
    context: Context, pairs: Stage | Artifact, max_length: int, opponents: tuple[str, ...] = ()
) -> tuple[Pairs, int]:
    """The pairs of a `Pair`, cut to `max_length` tokens, and how many responses were cut."""
    import pandas as pd

    from trainers.fitting.pairs import Pairs

    frame = pd.read_parquet(context.read(pairs) / "pairs.parquet")
    prompts, chosen, rejected = (
        [list(map(int, tokens)) for tokens in frame[name]] for name in ("prompt_tokens", "chosen", "rejected")
    )
    # Where all responses met all others, the win rates are the rewards against whoever sampled them.
    rewards = {name: frame[["reward_chosen", "reward_rejected"]].to_numpy() for name in opponents}
    return Pairs(prompts, chosen, rejected, frame["preference"].to_numpy(), rewards).truncated(max_length)
