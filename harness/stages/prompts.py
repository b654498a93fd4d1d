"""The prompts of a sweep: rendered to tokens, split, checked against the context length."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import UserError, users_input
from harness.identity import Artifact
from harness.prompts import PromptRecord, cut_tuning, iteration_rows, read_prompts
from harness.specs import Checkpoint
from harness.stage import Facts, Stage, fact
from harness.stages.context import Context
from judges.judge import Prompt
from trainers.errors import TrainingError

if TYPE_CHECKING:
    import pandas as pd

    from trainers.policies.causal_lm import CausalLM


@dataclass(frozen=True, kw_only=True, eq=False)
class Prompts(Stage):
    """`prompts.parquet`: id, prompt (JSON), split and tokens of every prompt.

    Attributes:
        policy: whose template and tokenizer render them.
        contents: changes with the prompts.
        source: a file, or the name of a world.
        max_tokens: the longest response for which a prompt must leave room.
        precision: in which the policy is opened; None behind an endpoint.
        training_length: the longest training sequence, tokens, where policies are trained.
        tuning: how many training prompts are cut off as the split `tune`, on which trials are ranked.
    """

    kind = "prompts"
    version = 2

    policy: Checkpoint
    contents: str
    max_tokens: int
    precision: str | None
    seed_option: int = 0
    source: str = fact()
    training_length: int | None = fact(None)
    tuning: int = 0

    def run(self, context: Context) -> Facts:
        import pandas as pd

        with users_input():
            records = cut_tuning(read_prompts(self.source, self.seed_option), self.tuning)
        tokens, facts = self._tokens(context, records)
        trained = [(r.id, t) for r, t in zip(records, tokens, strict=True) if r.split == "train"]
        check_training_length(trained, self.training_length)
        rows = [{"id": r.id, "prompt": json.dumps(r.prompt), "split": r.split} for r in records]
        pd.DataFrame(rows).assign(tokens=pd.Series(tokens)).to_parquet(context.out / "prompts.parquet")
        return {"prompts": len(records), "heldout": sum(r.split == "heldout" for r in records), **facts}

    def _tokens(self, context: Context, records: Sequence[PromptRecord]) -> tuple[list[list[int]], Facts]:
        """The prompts' tokens, checked against the context length, and what a reader should know of them."""
        if endpoint := self.policy.endpoint:
            lacks = "no entropy or likelihood of its answers, no lengths checked against its context"
            warning = f"{endpoint} is behind an endpoint, which gives texts alone: {lacks}"
            return [[] for _ in records], {"first": {"text": json.dumps(records[0].prompt)}, "warnings": [warning]}
        policy = context.policy(self.policy, str(self.precision))
        tokens = [_encoded(policy, record) for record in records]
        longest, room = max(map(len, tokens)), policy.context_length
        if room is not None and longest + self.max_tokens > room:
            worst = records[max(range(len(tokens)), key=lambda i: len(tokens[i]))].id
            raise UserError(
                f"prompt {worst!r} has {longest} tokens and sampling.max_tokens is {self.max_tokens}; the "
                f"policy's context holds {room}. Shorten the prompt or lower sampling.max_tokens"
            )
        if self.training_length is not None:
            policy.check_savable()
        continued = policy.tokenizer.chat_template is None
        return tokens, {
            "first": {"tokens": tokens[0], "text": policy.tokenizer.decode(tokens[0])},
            "warnings": [
                *policy.notes,
                *["the tokenizer has no chat template: prompts are continued as text after one BOS"] * continued,
            ],
        }


def _encoded(policy: CausalLM, record: PromptRecord) -> list[int]:
    try:
        return policy.encode(record.prompt)
    except TrainingError as error:
        raise UserError(f"prompt {record.id!r}: {error}") from error


@dataclass(frozen=True, kw_only=True, eq=False)
class TuningPrompts(Stage):
    """`prompts.parquet` with the prompts of the split `tune` alone, held out: what a board asks of trials."""

    kind = "tuning-prompts"

    prompts: Prompts

    def run(self, context: Context) -> Facts:
        frame = _read(context.read(self.prompts))
        tuning = frame[frame["split"] == "tune"].assign(split="heldout")
        tuning.to_parquet(context.out / "prompts.parquet", index=False)
        return {"prompts": len(tuning)}


@dataclass(frozen=True)
class IterationPrompts:
    """Which of the training prompts an iteration draws: `count` of shuffled passes over all, from iteration 1 on."""

    iteration: int
    count: int
    seed: int


def check_training_length(prompts: Iterable[tuple[str, Sequence[int]]], training_length: int | None) -> None:
    """Refuse prompts that leave no room for a response, before anything is sampled or a judge is paid.

    Raises:
        UserError: one has as many tokens as `training.max_length`, or more.
    """
    too_long = [(id, len(t)) for id, t in prompts if training_length is not None and len(t) >= training_length]
    if too_long:
        id, longest = max(too_long, key=lambda prompt: prompt[1])
        raise UserError(
            f"prompt {id!r} has {longest} tokens and training.max_length is {training_length}, which leaves no room "
            f"for a response ({len(too_long)} training prompts are too long); raise training.max_length, or take "
            "them out"
        )


def training_prompts(
    context: Context, prompts: Stage | Artifact, chosen: IterationPrompts, training_length: int | None
) -> pd.DataFrame:
    """The prompts of an iteration: id, prompt (JSON), tokens (lists), by their row in the table of all prompts.

    Raises:
        UserError: see `check_training_length`: the table may be of a run with a longer `training.max_length`.
    """
    frame = _read(context.read(prompts))
    frame["tokens"] = [list(map(int, tokens)) for tokens in frame["tokens"]]
    train = frame[frame["split"] == "train"]
    check_training_length(zip(train["id"], train["tokens"], strict=True), training_length)
    return train.iloc[iteration_rows(len(train), chosen.count, chosen.iteration, chosen.seed)]


def heldout_prompts(context: Context, prompts: Stage | Artifact) -> Iterator[tuple[str, Prompt]]:
    """Id and prompt of every held-out prompt."""
    frame = _read(context.read(prompts))
    held = frame[frame["split"] == "heldout"]
    for id, text in zip(held["id"], held["prompt"], strict=True):
        yield str(id), json.loads(text)


def _read(folder: Path) -> pd.DataFrame:
    import pandas as pd

    return pd.read_parquet(folder / "prompts.parquet")
