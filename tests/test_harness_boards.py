"""Four leaderboards through a whole sweep on a tiny chat model, graded by the panel; answers, turns and controls."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from boards_world import lm_eval
from conftest import PANEL, WORDS, InlineExecutor, Workspace, write_prompts
from fake_stages import fake
from leaderboards_published import write
from rich.console import Console

from harness.config import load_config
from harness.planning.plan import Plan, make_plan
from harness.planning.records import CellPlan
from harness.run.sweep import Outcome, run_sweep
from harness.specs import Checkpoint, ComponentSpec
from harness.stages import answer
from harness.stages.answer import Answer
from harness.stages.context import Context, ModelCache
from harness.stages.text_metrics import text_figures
from harness.store.artifacts import Store
from judges import PanelJudge
from leaderboards.records import BoardQuestion
from trainers.engines.randomness import response_seeds
from trainers.options import Sampling
from trainers.policies.causal_lm import CausalLM

QUESTIONS = [f"the {a} {b}" for a in WORDS[:5] for b in WORDS[5:8]]
REFERENCES = ("the red cat runs", "a big dog jumps and sleeps")
PAIRWISE, ALL = {"alpaca-eval", "arena-hard"}, {"alpaca-eval", "arena-hard", "mt-bench", "lm-eval"}


def write_sets(folder: Path) -> dict[str, Path]:
    """Question sets over the tiny model's words, in the official files' formats."""
    said = [{"instruction": q, "output": f"{q} runs", "generator": "base", "dataset": "d"} for q in QUESTIONS]
    write(folder / "alpaca" / "model_outputs.json", said)
    asked = [{"uid": f"q{i}", "category": "hard_prompt", "prompt": q} for i, q in enumerate(QUESTIONS)]
    write(folder / "arena" / "question.jsonl", asked, lines=True)
    told = [
        {"uid": f"q{i}", "messages": [{"role": "assistant", "content": f"{q} sleeps"}]} for i, q in enumerate(QUESTIONS)
    ]
    write(folder / "arena" / "model_answer" / "base.jsonl", told, lines=True)
    kinds = ("math", "writing")
    turns = [{"question_id": i, "category": kinds[i % 2], "turns": [q, "and it"]} for i, q in enumerate(QUESTIONS[:6])]
    write(folder / "mt" / "question.jsonl", turns, lines=True)
    answers = [{"question_id": i, "choices": [{"turns": list(REFERENCES)}]} for i in range(6)]
    write(folder / "mt" / "reference_answer" / "gpt-4.jsonl", answers, lines=True)
    return {
        "alpaca-eval": folder / "alpaca",
        "arena-hard": folder / "arena",
        "mt-bench": folder / "mt",
        "lm-eval": lm_eval(folder / "lm", QUESTIONS),
    }


@dataclass
class Swept:
    """A sweep that ended, and what it left."""

    outcome: Outcome
    plan: Plan
    store: Store
    out: Path
    model: Path
    run: Callable[[], Outcome]

    @property
    def results(self) -> pd.DataFrame:
        return pd.read_parquet(self.out / "results.parquet")

    def cell(self, trainer: str) -> CellPlan:
        (found,) = (c for c in self.plan.cells if c.cell.trainer.name == trainer)
        return found

    def samples(self, trainer: str, board: str) -> pd.DataFrame:
        frame = pd.read_parquet(self.out / "samples" / f"{self.cell(trainer).cell.id}.parquet")
        return frame[frame["leaderboard"] == board]

    def answers(self, trainer: str, board: str) -> tuple[Answer, pd.DataFrame]:
        """The stage of the curve's part, and the answers of both parts."""
        stages = [s for (name, _, _), s in self.cell(trainer).answers.items() if name == board]
        assert [stage.part for stage in stages] == ["curve", "rest"]
        return stages[0], pd.concat([pd.read_parquet(self.store.path(s) / "answers.parquet") for s in stages])


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, tiny_chat_model: Path) -> Swept:
    folder = tmp_path_factory.mktemp("boards")
    (folder / "panel.yaml").write_text(PANEL)
    write_prompts(folder / "prompts.jsonl", QUESTIONS)
    workspace = Workspace(folder, tiny_chat_model)
    parts = {"arena-hard": {"curve_limit": 8}}  # the others are asked everything in every iteration
    short = {name: {"max_tokens": 6} for name in ("alpaca-eval", "arena-hard", "mt-bench")}
    boards = [
        {"name": name, "data": str(data)} | parts.get(name, {}) | short.get(name, {})
        for name, data in write_sets(folder).items()
    ]
    path = workspace.config(leaderboards=boards, sampling={"k": 4, "max_tokens": 6})
    config = load_config(path, [])

    def run() -> Outcome:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("harness.run.sweep.LocalExecutor", InlineExecutor)
            console = Console(file=io.StringIO())
            return run_sweep(config, workspace.out, Store(workspace.store), command="test", console=console)

    return Swept(run(), make_plan(config), Store(workspace.store), workspace.out, tiny_chat_model, run)


def test_all_four_boards_are_there_for_every_policy_and_replies_are_graded_by_comparison_alone(swept: Swept) -> None:
    assert swept.outcome.states == {"done": 4}
    graded = swept.results.groupby("trainer")["leaderboard"].agg(set).to_dict()
    assert graded == {"sft": ALL, "dpo": ALL, "constant": PAIRWISE, "longest": PAIRWISE}
    compared = pd.read_parquet(swept.out / "comparisons.parquet")
    assert set(compared["leaderboard"]) == ALL
    replies = compared[compared["a"].str.contains("constant|longest")]
    assert set(replies["leaderboard"]) == PAIRWISE
    metrics = json.loads((swept.out / "metrics.json").read_text())
    assert {f"{row.leaderboard}/{row.metric}" for row in swept.results.itertuples()} <= set(metrics)


def test_every_score_has_its_interval_its_n_and_its_coverage(swept: Swept) -> None:
    results = swept.results
    assert results["value"].notna().all()
    assert results["coverage"].between(0, 1).all()
    several = results[results["n"] > 1]
    assert set(several["leaderboard"]) == ALL
    varied = several.dropna(subset=["ci_low", "ci_high"])  # lengths that are all equal tell nothing of their spread
    assert set(several["metric"]) - set(varied["metric"]) <= {"average_length", "n_wins", "n_draws"}
    assert (varied["ci_low"] <= varied["value"]).all()
    assert (varied["value"] <= varied["ci_high"]).all()
    assert set(results.loc[results["leaderboard"] != "lm-eval", "grader"]) == {"panel"}
    assert set(results.loc[results["leaderboard"] == "lm-eval", "grader"]) == {""}


@pytest.mark.parametrize("trainer", ["sft", "dpo", "constant", "longest"])
def test_pairwise_scores_are_the_panels_exact_preferences(swept: Swept, trainer: str) -> None:
    """The panel is the same in both orders, so an order drawn for a prompt changes nothing."""
    panel = PanelJudge(swept.out.parent / "panel.yaml")
    samples = swept.samples(trainer, "alpaca-eval")
    prompts, ours, theirs = (samples[name].tolist() for name in ("prompt", "response", "baseline_response"))
    exact = panel.compare([json.loads(p) for p in prompts], ours, theirs)
    empty = samples["response"].str.strip() == ""
    expected = np.where(empty, 0.0, exact)  # an empty answer loses to the baseline's, which have text
    assert samples["preference"].tolist() == pytest.approx(expected.tolist())
    row = swept.results.set_index(["trainer", "leaderboard", "metric"]).loc[trainer, "alpaca-eval", "win_rate"]
    assert row["value"] == pytest.approx(100 * expected.mean())
    assert (row["n"], row["coverage"]) == (len(samples), 1)


@pytest.mark.parametrize("trainer", ["sft", "dpo"])
def test_ratings_are_one_to_ten_by_the_panels_preference_over_the_reference(swept: Swept, trainer: str) -> None:
    panel = PanelJudge(swept.out.parent / "panel.yaml")
    samples = swept.samples(trainer, "mt-bench").dropna(subset=["rating"])
    references = [REFERENCES[int(turn) - 1] for turn in samples["turn"]]
    exact = panel.compare([json.loads(p) for p in samples["prompt"]], samples["response"].tolist(), references)
    assert samples["rating"].tolist() == pytest.approx((1 + 9 * exact).tolist())
    overall = swept.results.query("trainer == @trainer and metric == 'score' and category == ''")
    assert overall["value"].tolist() == pytest.approx([samples["rating"].mean()])


def test_a_second_run_computes_nothing_and_leaves_the_same_tables(
    swept: Swept, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (swept.out / "results.csv").read_bytes()
    for kind in {type(stage) for stage in swept.plan.stages}:
        monkeypatch.setattr(kind, "run", None)
    again = swept.run()
    assert (again.executed, again.states) == ([], {"done": 4})
    assert (swept.out / "results.csv").read_bytes() == before


# --- controls ----------------------------------------------------------------------------------------------------


def test_the_constant_control_says_one_thing_to_everything(swept: Swept) -> None:
    for board in PAIRWISE:
        _, answers = swept.answers("constant", board)
        assert len(answers) == len(QUESTIONS)
        assert answers["text"].nunique() == 1
        assert answers["id"].nunique() == len(QUESTIONS)


@pytest.mark.parametrize("board", sorted(PAIRWISE))
def test_the_longest_control_is_the_longest_of_k_of_the_untrained_policy(swept: Swept, board: str) -> None:
    stage, answers = swept.answers("longest", board)
    policy = CausalLM.load(swept.model)
    seeds = response_seeds(stage.seed, answers["id"])
    drawn = policy.sample([policy.encode(q) for q in QUESTIONS], 4, Sampling(max_tokens=6), seeds)
    for text, responses in zip(answers["text"], drawn, strict=True):
        assert text in [r.text for r in responses]
        assert all(len(text) >= len(r.text) for r in responses)
    once = swept.answers("sft", board)[1]["text"].str.len().mean()
    assert answers["text"].str.len().mean() > once


# --- answers -----------------------------------------------------------------------------------------------------


def greedy(policy: CausalLM, tokens: Sequence[int], count: int) -> str:
    """The likeliest next token, again and again, without a cache."""
    said: list[int] = []
    with torch.no_grad():
        while len(said) < count and (not said or said[-1] not in policy.end_tokens):
            said.append(int(policy.model(torch.tensor([[*tokens, *said]])).logits[0, -1].argmax()))
    return str(policy.tokenizer.decode(said, skip_special_tokens=True))


def test_temperature_zero_takes_the_likeliest_token_and_a_second_turn_goes_on_from_the_first_answer(
    swept: Swept,
) -> None:
    """Questions of mathematics are asked at temperature 0: both turns are recomputed token by token."""
    policy = CausalLM.load(swept.model)
    answers = swept.answers("sft", "mt-bench")[1].set_index("id")["text"]
    for number in (0, 2, 4):
        first = f"<s> user {QUESTIONS[number]} assistant"
        one = greedy(policy, policy.tokenizer(first)["input_ids"], 6)
        second = f"{first} {one} user and it assistant"
        two = greedy(policy, policy.tokenizer(second)["input_ids"], 6)
        assert (answers[f"{number}/1"], answers[f"{number}/2"]) == (one, two)


def test_the_entropy_of_the_answers_is_their_mean_negative_log_likelihood_a_token(swept: Swept) -> None:
    stage, answers = swept.answers("sft", "alpaca-eval")
    policy, total = CausalLM.load(swept.model), 0.0
    for question, said in zip(QUESTIONS, answers["tokens"], strict=True):
        asked, said = policy.encode(question), [int(token) for token in said]
        with torch.no_grad():
            law = policy.model(torch.tensor([asked + said])).logits[0].double().log_softmax(-1)
        total -= sum(float(law[len(asked) - 1 + i, token]) for i, token in enumerate(said))
    figures = swept.store.manifest(stage)["figures"]
    assert figures["entropy"] == pytest.approx(total / answers["tokens"].str.len().sum(), rel=1e-4)
    assert figures["start_nll"] == figures["entropy"]  # the untrained policy is its own start
    trained = swept.store.manifest(swept.answers("dpo", "alpaca-eval")[0])["figures"]
    assert trained["start_nll"] != trained["entropy"]


def test_the_constant_control_does_not_say_nothing_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"a": " ", "b": "", "c": "a cat", "d": "no"}

    def drawn(stage: Any, context: Any, requests: Sequence[BoardQuestion]) -> list[Any]:
        return [(r, [1], [SimpleNamespace(text=said[r.id])]) for r in requests]

    monkeypatch.setattr(answer, "_by_policy", drawn)
    requests = [BoardQuestion(id=id, prompt=id, temperature=1.0) for id in said]
    parts = {"curve": requests[:1], "rest": requests[1:]}  # the one answer is the same in both parts
    stage: Any = SimpleNamespace(requests=lambda context, part: parts[part], constant=None)
    answered = [row for part in parts.values() for row in answer._constant(stage, SimpleNamespace(), part)]  # type: ignore[arg-type]
    assert [(r.id, responses[0].text) for r, _, responses in answered] == [(id, "a cat") for id in said]


def test_greedy_answers_have_no_entropy_and_only_sampled_ones_count_towards_it(swept: Swept) -> None:
    greedy_alone, answers = swept.answers("sft", "arena-hard")
    assert len(answers)
    figures = swept.store.manifest(greedy_alone)["figures"]
    assert "entropy" not in figures
    assert figures["start_nll"] > 0
    stage, _ = swept.answers("sft", "mt-bench")  # of both kinds
    figures = swept.store.manifest(stage)["figures"]
    assert figures["entropy"] > figures["start_nll"]  # which the likeliest tokens of greedy answers make small


def test_signs_of_collapse_are_counted_over_the_questions_that_every_iteration_has(
    swept: Swept, tmp_path: Path
) -> None:
    stage, answers = swept.answers("dpo", "alpaca-eval")
    board = replace(stage.board, options={**stage.board.options, "curve_limit": 2})
    stage = replace(stage, board=board, last=2)
    context = Context(stage, swept.store, tmp_path, lambda *_: None, ModelCache())
    figures = stage.run(context)["figures"]
    shorter = pd.read_parquet(tmp_path / "answers.parquet")
    assert shorter["text"].tolist() == answers["text"].tolist()[:2]  # drawn by their questions, whatever the part
    expected = text_figures(answers["text"].tolist()[:2])
    assert {name: figures[name] for name in expected} == expected
    assert expected != text_figures(answers["text"].tolist())


@dataclass
class Echo:
    """A policy that writes down what it is asked and answers with a number."""

    asked: list[Any] = field(default_factory=list)
    batches: list[tuple[int, int, float]] = field(default_factory=list)
    seeds: set[int] = field(default_factory=set)
    context_length: int | None = None

    def encode(self, prompt: Any) -> list[int]:
        self.asked.append(prompt)
        return [len(self.asked)]

    def sample(self, prompts: Sequence[list[int]], k: int, options: Sampling, seeds: Sequence[int]) -> list[list[Any]]:
        self.seeds.update(seeds)
        self.batches.append((len(prompts), k, options.temperature if options.top_p == 1 else 0.0))
        return [[SimpleNamespace(text=f"{tokens[0]}.{n}", tokens=tokens) for n in range(k)] for tokens in prompts]


def asking() -> Answer:
    """The stage of a policy's own answers to some board."""
    policy = Checkpoint(location="m", fingerprint="m")
    return Answer(
        board=ComponentSpec("leaderboards", "mt-bench", {}, "mt-bench", {}),
        policy=policy,
        reference=policy,
        prompts=fake("prompts"),  # type: ignore[arg-type]
        sampling=Sampling(k=2, max_tokens=6),
        draw="seed 0",
        part="curve",
        first=0,
        precision="fp32",
    )


def test_turns_are_asked_in_order_and_in_batches_of_one_temperature_and_answers_keep_the_requests_order() -> None:
    policy = Echo()
    context: Any = SimpleNamespace(policy=lambda checkpoint, precision: policy)
    stage = asking()
    requests = [
        BoardQuestion(id="b/2", prompt="more b", temperature=0.0, turn=2, follows="b/1"),
        BoardQuestion(id="a/1", prompt="a", temperature=0.7),
        BoardQuestion(id="b/1", prompt="b", temperature=0.0),
        BoardQuestion(id="c/1", prompt=[{"role": "user", "content": "c"}], temperature=0.7),
        BoardQuestion(id="d/1", prompt="d", temperature=0.7, answers=3),
    ]
    answered = answer._by_policy(stage, context, requests)
    said = {request.id: [r.text for r in responses] for request, _, responses in answered}
    assert list(said) == [request.id for request in requests]
    assert policy.batches == [(1, 1, 0.0), (2, 1, 0.7), (1, 3, 0.7), (1, 1, 0.0)]
    assert said["d/1"] == ["4.0", "4.1", "4.2"]
    assert policy.seeds == set(response_seeds(stage.seed, list(said)))
    assert policy.asked[-1] == [
        {"role": "user", "content": "b"},
        {"role": "assistant", "content": said["b/1"][0]},
        {"role": "user", "content": "more b"},
    ]
    assert policy.asked[:4] == ["b", "a", [{"role": "user", "content": "c"}], "d"]


# --- thinking ----------------------------------------------------------------------------------------------------
