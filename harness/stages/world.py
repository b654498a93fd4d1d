"""Stages that come before training: the pocket world's models and sets, and the prompts."""

from __future__ import annotations

import json
from collections.abc import Sequence

from harness.prompts import PromptRecord, read_prompts
from harness.stages.context import Context, Facts


def pocket(context: Context) -> Facts:
    """The pocket world's base policy, trained from scratch."""
    from harness.pocket.base_policy import build_base_policy

    def report(step: int, steps: int, loss: float) -> None:
        context.report(step, steps)

    return dict(build_base_policy(context.out / "model", seed=context.options["seed"], report=report))


def votes(context: Context) -> Facts:
    """The panel's votes on pairs of the pocket world's base policy: what its judges are trained on."""
    from harness.pocket.judges import write_votes

    return write_votes(context.policy("policy"), context.out, seed=context.options["seed"])


def judge(context: Context) -> Facts:
    """A judge of the pocket world, trained on the votes, and its verdicts on the held-out ones."""
    from harness.pocket.judges import train

    model = context.out / "model"
    labels, base = context.input("votes") / "labels.jsonl", context.input("policy") / "model"
    options = context.options
    facts = train(options["name"], labels, base, model, seed=options["seed"], progress=context.report)
    return {"judge": facts}


def sets(context: Context) -> Facts:
    """The pocket world's benchmark sets, in the official files' formats."""
    from harness.pocket.sets import write_sets

    return write_sets(context.policy("policy"), context.out, seed=context.options["seed"])


def prompts(context: Context) -> Facts:
    """The prompts, rendered to tokens, split and checked against the context length."""
    import pandas as pd

    records = read_prompts(context.stage.where["prompts"], context.options["seed"])
    tokens, facts = _tokens(context, records)
    rows = [{"id": r.id, "prompt": json.dumps(r.prompt), "split": r.split} for r in records]
    pd.DataFrame(rows).assign(tokens=pd.Series(tokens)).to_parquet(context.out / "prompts.parquet")
    return {"prompts": len(records), "heldout": sum(r.split == "heldout" for r in records), **facts}


def _tokens(context: Context, records: Sequence[PromptRecord]) -> tuple[list[list[int]], Facts]:
    """The prompts' tokens, checked against the context length, and what a reader should know of them."""
    if endpoint := context.endpoint("policy"):
        lacks = "no entropy or likelihood of its answers, no lengths checked against its context"
        warning = f"{endpoint} is behind an endpoint, which gives texts alone: {lacks}"
        return [[] for _ in records], {"first": {"text": json.dumps(records[0].prompt)}, "warnings": [warning]}
    policy = context.policy("policy")
    tokens = [policy.encode(record.prompt) for record in records]
    longest, room = max(map(len, tokens)), policy.context_length
    needed = longest + context.options["max_tokens"]
    if room is not None and needed > room:
        worst = records[max(range(len(tokens)), key=lambda i: len(tokens[i]))].id
        raise ValueError(
            f"prompt {worst!r} has {longest} tokens and sampling.max_tokens is {context.options['max_tokens']}; the "
            f"policy's context holds {room}. Shorten the prompt or lower sampling.max_tokens"
        )
    continued = policy.tokenizer.chat_template is None
    return tokens, {
        "first": {"tokens": tokens[0], "text": policy.tokenizer.decode(tokens[0])},
        "warnings": ["the tokenizer has no chat template: prompts are continued as text after one BOS"] * continued,
    }
