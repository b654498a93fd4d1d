"""What each kind of stage computes. A stage reads artifacts, writes files into its folder, and returns facts.

Facts go into the manifest; those under `work` (samples, queries, steps) are what a score cost.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.asking import RememberingJudge, compare_with
from harness.prompts import iteration_rows, read_prompts
from harness.registry import make
from harness.stage import Stage
from harness.store import Store

if TYPE_CHECKING:
    import pandas as pd

    from judges.judge import Judge
    from trainers.algorithm import Algorithm
    from trainers.pairs import Pairs
    from trainers.policies.causal_lm import CausalLM
    from trainers.stream import StreamState

Facts = dict[str, Any]
Report = Callable[[int, int], None]


@dataclass
class ModelCache:
    """Frozen policies kept in memory between stages; fitting empties it, so that only the trained policy is held."""

    models: dict[str, CausalLM] = field(default_factory=dict)

    def get(self, path: str, precision: str) -> CausalLM:
        from trainers.policies.causal_lm import CausalLM

        key = f"{path} {precision}"
        model = self.models.pop(key, None)
        if model is None and len(self.models) >= 2:
            self.models.pop(next(iter(self.models)))
        self.models[key] = model or CausalLM.load(path, precision)  # last in, so that the least used is dropped
        return self.models[key]


@dataclass(frozen=True)
class Context:
    """What a stage function is given."""

    stage: Stage
    store: Store
    out: Path
    report: Report
    models: ModelCache

    @property
    def options(self) -> Mapping[str, Any]:
        return self.stage.options

    def input(self, name: str) -> Path:
        """The folder of an input artifact."""
        return self.store.path(self.stage.inputs[name])

    def policy_path(self, name: str) -> str:
        """A checkpoint: an input artifact's, or a path or hub id given from outside."""
        return str(self.input(name) / "model") if name in self.stage.inputs else str(self.stage.where[name])

    def policy(self, name: str) -> CausalLM:
        return self.models.get(self.policy_path(name), self.options["precision"])

    def judge(self) -> Judge:
        chosen = self.stage.where["judge"]
        return RememberingJudge(make("judges", chosen["name"], chosen["options"]), self.store.verdicts)

    def algorithm(self) -> Algorithm:
        chosen = self.options["algorithm"]
        return make("trainers", chosen["name"], chosen["options"])


def run_stage(stage: Stage, store: Store, models: ModelCache, report: Report) -> None:
    """Compute a stage and put its artifact into the store; nothing where it is there already."""
    import time

    if store.has(stage):
        return
    with store.writing(stage) as (out, facts):
        started = time.perf_counter()
        facts.update(FUNCTIONS[stage.kind](Context(stage, store, out, report, models)))
        facts["seconds"] = round(time.perf_counter() - started, 3)


def pocket(context: Context) -> Facts:
    """The pocket world's base policy, trained from scratch."""
    from harness.pocket.base_policy import build_base_policy

    def report(step: int, steps: int, loss: float) -> None:
        context.report(step, steps)

    return dict(build_base_policy(context.out / "model", seed=context.options["seed"], report=report))


def prompts(context: Context) -> Facts:
    """The prompts, rendered to tokens, split and checked against the context length."""
    import pandas as pd

    policy = context.policy("policy")
    records = read_prompts(context.stage.where["prompts"], context.options["seed"])
    tokens = [policy.encode(record.prompt) for record in records]
    longest, room = max(map(len, tokens)), policy.context_length
    needed = longest + context.options["max_tokens"]
    if room is not None and needed > room:
        worst = records[max(range(len(tokens)), key=lambda i: len(tokens[i]))].id
        raise ValueError(
            f"prompt {worst!r} has {longest} tokens and sampling.max_tokens is {context.options['max_tokens']}; the "
            f"policy's context holds {room}. Shorten the prompt or lower sampling.max_tokens"
        )
    rows = [{"id": r.id, "prompt": json.dumps(r.prompt), "split": r.split} for r in records]
    pd.DataFrame(rows).assign(tokens=pd.Series(tokens)).to_parquet(context.out / "prompts.parquet")
    continued = policy.tokenizer.chat_template is None
    return {
        "prompts": len(records),
        "heldout": sum(r.split == "heldout" for r in records),
        "first": {"tokens": tokens[0], "text": policy.tokenizer.decode(tokens[0])},
        "warnings": ["the tokenizer has no chat template: prompts are continued as text after one BOS"] * continued,
    }


def sample(context: Context) -> Facts:
    """k responses to each prompt of an iteration, from the policy or its mixture with the reference."""
    import pandas as pd
    import torch

    from trainers.options import Sampling

    frame = _training_prompts(context)
    policy, sampling = context.policy("policy"), Sampling.model_validate(context.options["sampling"])
    share = context.options["mixture"]
    mix = (context.policy("reference"), share) if share else None
    generator = torch.Generator(device=policy.model.device).manual_seed(context.stage.seed)
    drawn = policy.sample(frame["tokens"].tolist(), sampling.k, sampling, generator, mix)
    rows = [
        {"draw": draw, "prompt": int(row), "tokens": r.tokens, "text": r.text, "finished": r.finished}
        for draw, (row, responses) in enumerate(zip(frame.index, drawn, strict=True))
        for r in responses
    ]
    pd.DataFrame(rows).to_parquet(context.out / "responses.parquet")
    figures = text_figures([r.text for responses in drawn for r in responses])
    return {"work": {"samples": len(rows)}, "figures": figures}


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
    compare = compare_with(context.judge(), [json.loads(listed["prompt"].iloc[row]) for row in prompt_rows])
    pairing = context.options["pairing"]
    made = protocols[pairing["protocol"]](
        compare,
        texts,
        np.random.default_rng(context.stage.seed),
        label=pairing["label"],
        orders=pairing["orders"],
    )
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
    return {"work": {"queries": made.queries}, "pairs": len(made), **counts}


def score(context: Context) -> Facts:
    """A frozen policy's log-probabilities of both responses of every pair."""
    from trainers.pairs import score as score_pairs

    pairs, _ = _pairs(context)
    np.save(context.out / "log_probs.npy", score_pairs(context.policy("policy"), pairs, context.options["batch_size"]))
    return {}


def fit(context: Context) -> Facts:
    """One phase of a refit: train from a start on the pairs."""
    from trainers.fit import fit as fit_policy
    from trainers.options import Training
    from trainers.policies.causal_lm import CausalLM

    training = Training.model_validate(context.options["training"])
    pairs, truncated = _pairs(context)
    frozen = {name: np.load(context.input(f"score:{name}") / "log_probs.npy") for name in context.options["frozen"]}
    context.models.models.clear()
    policy = CausalLM.load(context.policy_path("start"), training.precision)
    steps = fit_policy(
        policy, pairs, frozen, context.algorithm(), training, seed=context.stage.seed, report=context.report
    )
    _finish(context, policy, steps)
    return {"work": {"steps": len(steps)}, "truncated": truncated}


def stream(context: Context) -> Facts:
    """One iteration of a stream: fresh samples for every gradient step."""
    from trainers.options import Sampling, Training
    from trainers.policies.causal_lm import CausalLM
    from trainers.stream import stream as stream_policy

    options = context.options
    training, algorithm = Training.model_validate(options["training"]), context.algorithm()
    frame = _training_prompts(context)
    compare = _StreamCompare(context, [json.loads(p) for p in frame["prompt"]])
    frozen = {name: context.policy(name) for name in options["frozen"]}
    policy = CausalLM.load(context.policy_path("start"), training.precision)
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
    _finish(context, policy, result.dynamics)
    _write_state(context, result.state)
    work = {"samples": result.samples, "steps": options["steps"], "queries": compare.queries}
    return {"work": work, "failed": result.failed, "truncated": result.truncated}


def answer(context: Context) -> Facts:
    """A policy's answers to a leaderboard's requests."""
    import pandas as pd
    import torch

    from trainers.options import Sampling

    policy = context.policy("policy")
    requests = _requests(context)
    sampling = Sampling.model_validate(context.options["sampling"])
    generator = torch.Generator(device=policy.model.device).manual_seed(context.stage.seed)
    encoded = [policy.encode(r.prompt) for r in requests]
    responses = [r[0] for r in policy.sample(encoded, 1, sampling, generator)]
    rows = [
        {"id": q.id, "text": r.text, "tokens": r.tokens, "finished": r.finished}
        for q, r in zip(requests, responses, strict=True)
    ]
    pd.DataFrame(rows).to_parquet(context.out / "answers.parquet")
    return {"figures": text_figures([r.text for r in responses]) | _start_nll(context, encoded, responses)}


def grade(context: Context) -> Facts:
    """A grader's verdicts on a policy's answers against the untrained policy's, and the scores they make."""
    import pandas as pd

    board = make("leaderboards", **context.options["leaderboard"])
    answers, baseline = (_answers(context.input(name)) for name in ("answers", "baseline"))
    verdicts = board.grade(_requests(context), answers, baseline, context.judge())
    if verdicts and all(v["preference"] is None for v in verdicts):
        kinds = ", ".join(sorted({v["status"] for v in verdicts}))
        raise ValueError(f"the grader failed on all {len(verdicts)} answers ({kinds}); no score can be given")
    scores = board.rate(verdicts, context.stage.seed)
    frame = pd.DataFrame([v | {"prompt": json.dumps(v["prompt"])} for v in verdicts])
    frame.astype({"preference": "float64"}).to_parquet(context.out / "verdicts.parquet")
    (context.out / "scores.json").write_text(json.dumps([asdict(s) for s in scores], indent=1), encoding="utf-8")
    return {}


def compare(context: Context) -> Facts:
    """Paired comparisons between policies on the prompts they share."""
    import pandas as pd

    from harness.comparing import Graded, aligned, compare_all

    board = make("leaderboards", **context.options["leaderboard"])
    by_metric: dict[str, dict[str, dict[str, float | None]]] = {}
    for cell in context.stage.inputs:
        frame = pd.read_parquet(context.input(cell) / "verdicts.parquet").astype({"preference": object})
        verdicts = frame.where(frame.notna(), None).to_dict("records")
        for metric, values in board.by_prompt(verdicts).items():
            by_metric.setdefault(metric, {})[cell] = values
    rows = []
    for metric, cells in by_metric.items():
        values = aligned(cells)
        graded = [Graded(**known, values=values[known["cell"]]) for known in context.options["cells"]]
        rows += [{"metric": metric, **row} for row in compare_all(graded, context.stage.seed)]
    (context.out / "comparisons.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return {}


def play(context: Context) -> Facts:
    """An algorithm on an exact game."""
    from trainers.policies.tabular import play as play_game

    options = context.options
    matrix = np.array(options["preference"], dtype=np.float64)
    run = play_game(context.algorithm(), matrix, options["iterations"], step_size=options["lr"])
    np.save(context.out / "policies.npy", run.policies)
    return {"work": {"steps": options["iterations"]}}


def gap(context: Context) -> Facts:
    """The duality gap of every policy of a game; the untrained policy is uniform."""
    matrix = np.array(context.options["preference"], dtype=np.float64)
    board = make("leaderboards", **context.options["leaderboard"])
    policies = np.full((1, len(matrix)), 1 / len(matrix))
    if "run" in context.stage.inputs:
        policies = np.load(context.input("run") / "policies.npy")
    rows = [{"iteration": t} | asdict(s) for t, s in board.rate(matrix, policies, context.options["tau"])]
    (context.out / "scores.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return {}


FUNCTIONS: dict[str, Callable[[Context], Facts]] = {
    f.__name__: f for f in (pocket, prompts, sample, pair, score, fit, stream, answer, grade, compare, play, gap)
}


def text_figures(texts: Sequence[str]) -> dict[str, float]:
    """Signs of collapse in the first 256 texts (shares of distinct things depend on how many there are).

    distinct_2: share of distinct word pairs; repeated: share of texts seen before; words: mean length.
    """
    texts = texts[:256]
    words = [text.split() for text in texts]
    bigrams = [pair for w in words for pair in itertools.pairwise(w)]
    return {
        "distinct_2": len(set(bigrams)) / max(1, len(bigrams)),
        "repeated": 1 - len(set(texts)) / max(1, len(texts)),
        "words": float(np.mean([len(w) for w in words])),
    }


class _StreamCompare:
    """The stream's comparisons: one pair a prompt, in the order drawn (or both), equal texts without a query."""

    def __init__(self, context: Context, prompts: Sequence[Any]) -> None:
        self.compare = compare_with(context.judge(), prompts)
        self.orders = context.options["pairing"]["orders"]
        self.generator = np.random.default_rng(context.stage.seed)
        self.queries = 0

    def __call__(self, rows: Sequence[int], first: Sequence[str], second: Sequence[str]) -> np.ndarray:
        from judges.tournament import iid

        def compare(positions: Any, a: Sequence[str], b: Sequence[str]) -> np.ndarray:
            return self.compare([rows[int(i)] for i in positions], a, b)

        responses = [list(two) for two in zip(first, second, strict=True)]
        made = iid(compare, responses, self.generator, label="soft", orders=self.orders)
        self.queries += made.queries
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

    from trainers.pairs import Pairs

    frame = pd.read_parquet(context.input("pairs") / "pairs.parquet")
    prompts, chosen, rejected = (
        [list(map(int, tokens)) for tokens in frame[name]] for name in ("prompt_tokens", "chosen", "rejected")
    )
    # Where all responses met all others, the win rates are the rewards against whoever sampled them.
    rewards = {name: frame[["reward_chosen", "reward_rejected"]].to_numpy() for name in context.options["opponents"]}
    pairs = Pairs(prompts, chosen, rejected, frame["preference"].to_numpy(), rewards)
    return pairs.truncated(context.options["max_length"])


def _finish(context: Context, policy: CausalLM, steps: Sequence[Mapping[str, float]]) -> None:
    import pandas as pd

    policy.save(context.out / "model")
    pd.DataFrame(steps).to_parquet(context.out / "dynamics.parquet")


def _read_state(context: Context) -> StreamState | None:
    from safetensors.torch import load_file

    from trainers.stream import StreamState

    if context.options["iteration"] == 1:
        return None
    tensors = load_file(context.input("start") / "state.safetensors")
    return StreamState(sampler=tensors.pop("sampler"), optimiser=tensors)


def _write_state(context: Context, state: StreamState) -> None:
    from safetensors.torch import save_file

    assert state.sampler is not None
    save_file({**state.optimiser, "sampler": state.sampler}, context.out / "state.safetensors")


def _requests(context: Context) -> list[Any]:
    import pandas as pd

    board = make("leaderboards", **context.options["leaderboard"])
    frame = pd.read_parquet(context.input("prompts") / "prompts.parquet")
    held = frame[frame["split"] == "heldout"]
    prompts = [(id, json.loads(text)) for id, text in zip(held["id"], held["prompt"], strict=True)]
    return list(board.requests(prompts, context.options["temperature"], last=context.options["last"]))


def _answers(folder: Path) -> dict[str, list[str]]:
    import pandas as pd

    frame = pd.read_parquet(folder / "answers.parquet")
    return {id: [text] for id, text in zip(frame["id"], frame["text"], strict=True)}


def _start_nll(context: Context, prompts: Sequence[list[int]], responses: Sequence[Any]) -> dict[str, float]:
    """Mean negative log-likelihood of the answers under the untrained policy, nats a token."""
    import torch

    start, size = context.policy("reference"), 64
    total = 0.0
    with torch.no_grad():
        for i in range(0, len(prompts), size):
            tokens = [r.tokens for r in responses[i : i + size]]
            total -= float(start.log_probs(prompts[i : i + size], tokens).double().sum())
    return {"start_nll": total / max(1, sum(len(r.tokens) for r in responses))}
