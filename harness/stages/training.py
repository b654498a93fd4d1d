"""Stages of training: sample, pair, score, fit; or a stream, which does all of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.prompts import iteration_rows
from harness.stages.context import Context, Facts
from harness.store.cached_judge import compare_with

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from trainers.fitting.pairs import Pairs
    from trainers.policies.causal_lm import CausalLM


def sample(context: Context) -> Facts:
    """k responses to each prompt of an iteration, from the policy or its mixture with the reference."""
    import pandas as pd

    from trainers.engines.randomness import response_seeds
    from trainers.options import Sampling

    frame = _training_prompts(context)
    policy, sampling = context.policy("policy"), Sampling.model_validate(context.options["sampling"])
    share = context.options["mixture"]
    mix = (_beside(policy, context, "reference"), share) if share else None
    seeds = response_seeds(context.stage.seed, frame["id"])
    drawn = policy.sample(frame["tokens"].tolist(), sampling.k, sampling, seeds, mix)
    rows = [
        {"draw": draw, "prompt": int(row), "tokens": r.tokens, "text": r.text, "finished": r.finished}
        for draw, (row, responses) in enumerate(zip(frame.index, drawn, strict=True))
        for r in responses
    ]
    pd.DataFrame(rows).to_parquet(context.out / "responses.parquet")
    return {"work": {"samples": len(rows)}}


def pair(context: Context) -> Facts:
    """Labelled pairs from the responses of an iteration."""
    import pandas as pd

    from judges.tournament import best_worst, iid, tournament

    protocols = {"tournament": tournament, "iid": iid, "best-worst": best_worst}
    responses = pd.read_parquet(context.input("responses") / "responses.parquet")
    groups = list(responses.groupby("draw").indices.values())
    texts = [[responses["text"].iloc[i] for i in rows] for rows in groups]
    listed = pd.read_parquet(context.input("prompts") / "prompts.parquet")
    prompt_rows = [int(responses["prompt"].iloc[rows[0]]) for rows in groups]
    judge = context.judge()
    compare = compare_with(judge, [json.loads(listed["prompt"].iloc[row]) for row in prompt_rows])
    pairing = context.options["pairing"]
    made = protocols[pairing["protocol"]](
        compare,
        texts,
        np.random.default_rng(context.stage.seed),
        label=pairing["label"],
        orders=pairing["orders"],
    )
    judge.check_losses()
    if made.failed and not len(made):
        raise ValueError(f"the judge failed on all {made.failed} comparisons; there is no pair to train on")
    chosen = [groups[p][i] for p, i in zip(made.prompt, made.chosen, strict=True)]
    rejected = [groups[p][i] for p, i in zip(made.prompt, made.rejected, strict=True)]
    frame = pd.DataFrame(
        {
            "prompt_tokens": [listed["tokens"].iloc[prompt_rows[p]] for p in made.prompt],
            "chosen": [responses["tokens"].iloc[i] for i in chosen],
            "rejected": [responses["tokens"].iloc[i] for i in rejected],
            "preference": made.preference,
        }
    )
    if made.win_rates is not None:
        frame[["reward_chosen", "reward_rejected"]] = made.win_rates
    frame.to_parquet(context.out / "pairs.parquet")
    counts = {name: getattr(made, name) for name in ("failed", "dropped", "ties")}
    return {"work": {"queries": made.queries}, "pairs": len(made), **counts, "failures": dict(judge.failures)}


def score(context: Context) -> Facts:
    """A frozen policy's log-probabilities of both responses of every pair."""
    from trainers.fitting.pairs import score as score_pairs

    pairs, _ = _pairs(context)
    np.save(context.out / "log_probs.npy", score_pairs(context.policy("policy"), pairs, context.options["batch_size"]))
    return {}


def fit(context: Context) -> Facts:
    """One phase of a refit: train from a start on the pairs."""
    import pandas as pd

    from trainers.fitting.distributed import launch
    from trainers.fitting.job import Job
    from trainers.options import Training

    training = Training.model_validate(context.options["training"])
    pairs, truncated = _pairs(context)
    frozen = {name: np.load(context.input(f"score:{name}") / "log_probs.npy") for name in context.options["frozen"]}
    context.models.models.clear()
    start, seed = context.policy_path("start"), context.stage.seed
    job = Job(pairs, frozen, context.algorithm(), training, seed, start, context.out / "model", context.unfinished)
    file = context.stage.where.get("accelerate")
    steps = job.run(context.report) if file is None else launch(job, Path(file), context.report)
    pd.DataFrame(steps).to_parquet(context.out / "dynamics.parquet")
    return {"work": {"steps": len(steps)}, "truncated": truncated}


def stream(context: Context) -> Facts:
    """One iteration of a stream: fresh samples for every gradient step."""
    import pandas as pd
    from safetensors.torch import save_file

    from trainers.fitting.stream import stream as stream_policy
    from trainers.options import Sampling, Training
    from trainers.policies.causal_lm import CausalLM

    options = context.options
    training, algorithm = Training.model_validate(options["training"]), context.algorithm()
    frame = _training_prompts(context)
    compare = _StreamCompare(context, [json.loads(p) for p in frame["prompt"]])
    policy = CausalLM.to_train(context.policy_path("start"), training, context.stage.seed)
    frozen = {name: _beside(policy, context, name) for name in options["frozen"]}
    result = stream_policy(
        policy,
        frozen,
        frame["tokens"].tolist(),
        compare,
        algorithm,
        training,
        Sampling.model_validate(options["sampling"]),
        label=options["pairing"]["label"],
        steps=options["steps"],
        total_steps=options["total_steps"],
        seed=context.stage.seed,
        state=_read_state(context),
        report=context.report,
    )
    policy.save(context.out / "model")
    pd.DataFrame(result.dynamics).to_parquet(context.out / "dynamics.parquet")
    save_file(result.state, context.out / "state.safetensors")
    work = {"samples": result.samples, "steps": options["steps"], "queries": compare.queries}
    lost = {"failed": result.failed, "failures": dict(compare.judge.failures)}
    return {"work": work, **lost, "truncated": result.truncated}


def _beside(policy: CausalLM, context: Context, name: str) -> CausalLM:
    """A frozen policy; the one that lies under the policy's adapter is not held twice."""
    if policy.adapted and policy.model.name_or_path == context.policy_path(name):
        return policy.without_adapter()
    return context.policy(name)


class _StreamCompare:
    """The stream's comparisons: one pair a prompt, in the order drawn (or both), equal texts without a query."""

    def __init__(self, context: Context, prompts: Sequence[Any]) -> None:
        self.judge = context.judge()
        self.compare = compare_with(self.judge, prompts)
        self.orders = context.options["pairing"]["orders"]
        self.planned = (
            context.options["steps"] * context.options["training"]["batch_size"] * (1 + (self.orders == "both"))
        )
        self.generator = np.random.default_rng(context.stage.seed)
        self.queries = 0

    def __call__(self, rows: Sequence[int], first: Sequence[str], second: Sequence[str]) -> np.ndarray:
        from judges.tournament import iid

        def compare(positions: Any, a: Sequence[str], b: Sequence[str]) -> np.ndarray:
            return self.compare([rows[int(i)] for i in positions], a, b)

        responses = [list(two) for two in zip(first, second, strict=True)]
        made = iid(compare, responses, self.generator, label="soft", orders=self.orders)
        self.queries += made.queries
        self.judge.check_losses(self.planned)  # at once: what comes after a lost pair is not what a rerun asks
        preference = np.full(len(rows), np.nan)
        preference[made.prompt] = made.preference
        return preference


def _training_prompts(context: Context) -> pd.DataFrame:
    """The prompts of the stage's iteration."""
    import pandas as pd

    frame = pd.read_parquet(context.input("prompts") / "prompts.parquet")
    frame["tokens"] = [list(map(int, tokens)) for tokens in frame["tokens"]]
    train = frame[frame["split"] == "train"]
    rows = iteration_rows(len(train), context.options["count"], context.options["iteration"], context.options["seed"])
    return train.iloc[rows]


def _pairs(context: Context) -> tuple[Pairs, int]:
    import pandas as pd

    from trainers.fitting.pairs import Pairs

    frame = pd.read_parquet(context.input("pairs") / "pairs.parquet")
    prompts, chosen, rejected = (
        [list(map(int, tokens)) for tokens in frame[name]] for name in ("prompt_tokens", "chosen", "rejected")
    )
    # Where all responses met all others, the win rates are the rewards against whoever sampled them.
    rewards = {name: frame[["reward_chosen", "reward_rejected"]].to_numpy() for name in context.options["opponents"]}
    pairs = Pairs(prompts, chosen, rejected, frame["preference"].to_numpy(), rewards)
    return pairs.truncated(context.options["max_length"])


def _read_state(context: Context) -> dict[str, Tensor] | None:
    from safetensors.torch import load_file

    if context.options["iteration"] == 1:
        return None
    return load_file(context.input("start") / "state.safetensors")
