"""The pocket world's benchmark sets: official formats, held-out prompts, facts that decide, the same bytes twice."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml

from harness.pocket import base_policy, grammar, sets
from judges import PanelJudge
from leaderboards.boards.alpaca_eval import rate_alpaca_eval
from leaderboards.boards.arena_hard import rate_arena_hard
from leaderboards.boards.mt_bench import rate_mt_bench
from leaderboards.sources import read_records
from leaderboards.statistics.length_control import read_length_control
from trainers.policies.policy import Response


def tiny_policy() -> Any:
    """Random weights, hidden size 16, over the words of the pocket world."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from trainers.policies.causal_lm import CausalLM

    tokenizer = base_policy.build_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=base_policy.CONTEXT,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
        return CausalLM(LlamaForCausalLM(config).eval(), tokenizer)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All sets at full size, the answers by a random policy and short, to spare time."""
    out = tmp_path_factory.mktemp("sets")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sets, "MAX_TOKENS", 5)
        counts = sets.write_sets(tiny_policy(), out, seed=0)
    tasks = {"pocket_truth": 200, "pocket_summary": 64}
    assert counts == {"alpaca-eval": 1600, "arena-hard": 250, "mt-bench": 80, "lm-eval": tasks}
    return out


def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sets, "INSTRUCTIONS", 8)
    monkeypatch.setattr(sets, "HARD_PROMPTS", 4)


def conversations(out: Path) -> list[list[str]]:
    """The user's turns of every prompt in any set."""
    asked = [[row["instruction"]] for row in read_records(out / "alpaca-eval" / "model_outputs.json")]
    asked += [[row["prompt"]] for row in read_records(out / "arena-hard" / "question.jsonl")]
    for row in read_records(out / "mt-bench" / "question.jsonl"):
        asked += [row["turns"][:1], row["turns"]]
    return asked + [[row["question"]] for file in (out / "lm-eval").glob("*.jsonl") for row in read_records(file)]


def test_every_prompt_is_held_out_and_none_is_a_training_prompt_of_three_seeds(written: Path) -> None:
    asked = conversations(written)
    assert len(asked) == 1600 + 250 + 2 * 80 + 200 + 64
    assert all(grammar.held_out([{"role": "user", "content": turn} for turn in turns]) for turns in asked)
    trained = {
        tuple(message["content"] for message in record["prompt"] if message["role"] == "user")
        for seed in range(3)
        for record in grammar.prompts(seed, heldout=1)["train"]
    }
    assert not trained & set(map(tuple, asked))


def test_no_set_asks_twice_and_kinds_are_even(written: Path) -> None:
    outputs = read_records(written / "alpaca-eval" / "model_outputs.json")
    hard = read_records(written / "arena-hard" / "question.jsonl")
    questions = read_records(written / "mt-bench" / "question.jsonl")
    assert len({row["instruction"] for row in outputs} | {row["prompt"] for row in hard}) == 1850
    assert len({row["uid"] for row in hard}) == 250
    assert len({row["turns"][0] for row in questions}) == len({row["question_id"] for row in questions}) == 80
    assert set(Counter(row["dataset"] for row in outputs).values()) == {400}
    assert set(Counter(row["category"] for row in hard).values()) == {83, 84}
    assert set(Counter(row["category"] for row in questions).values()) == {20}
    for file in (written / "lm-eval").glob("*.jsonl"):
        asked = [row["question"] for row in read_records(file)]
        assert len(set(asked)) == len(asked)


def test_the_length_control_reader_and_rate_take_the_alpaca_eval_files(written: Path, tmp_path: Path) -> None:
    folder = written / "alpaca-eval"
    control = read_length_control(folder)
    assert list(control.difficulty) == list(range(1600))
    assert control.gamed_features.shape == (3200, 3)
    assert (control.gamed_preferences > 0).all()
    assert (control.gamed_preferences < 1).all()
    assert np.array_equal(control.gamed_features[:1600, 1], list(control.difficulty.values()))
    assert np.mean(list(control.difficulty.values())) == pytest.approx(0, abs=1e-12)
    annotations = [
        {"preference": 1 + i % 2, "output_1": row["output"], "output_2": row["output"] + " ." * (i % 3)}
        | {"generator_1": row["generator"], "generator_2": "other"}
        for i, row in enumerate(read_records(folder / "model_outputs.json"))
    ]
    (tmp_path / "annotations.json").write_text(json.dumps(annotations))
    rated = rate_alpaca_eval(tmp_path / "annotations.json", folder)
    assert rated["length_controlled_note"] == ""
    assert rated["length_controlled_winrate"] == pytest.approx(50, abs=3)
    assert rated["baseline"] == "pocket-base"


def test_rows_have_the_official_fields(written: Path) -> None:
    outputs = read_records(written / "alpaca-eval" / "model_outputs.json")
    assert {tuple(row) for row in outputs} == {("dataset", "instruction", "output", "generator")}
    with (written / "alpaca-eval" / "df_gamed.csv").open() as file:
        names = ["index", "model", "preference", "std_delta_len", "instruction_difficulty", "not_gamed_baseline"]
        assert next(csv.reader(file)) == names
    questions = read_records(written / "arena-hard" / "question.jsonl")
    assert {tuple(row) for row in questions} == {("uid", "category", "subcategory", "prompt")}
    answers = read_records(written / "arena-hard" / "model_answer" / "pocket-base.jsonl")
    assert {tuple(row) for row in answers} == {("uid", "ans_id", "model", "messages", "tstamp", "metadata")}
    for question, answer in zip(questions, answers, strict=True):
        user, assistant = answer["messages"]
        assert (answer["uid"], user) == (question["uid"], {"role": "user", "content": question["prompt"]})
        assert assistant["content"]["answer"].strip()


def test_the_rates_know_the_categories_of_the_questions(written: Path, tmp_path: Path) -> None:
    questions = written / "mt-bench" / "question.jsonl"
    asked = [(row["question_id"], turn) for row in read_records(questions) for turn in (1, 2)]
    judgments = [{"question_id": i, "model": "m", "turn": turn, "score": 4 + turn} for i, turn in asked]
    (tmp_path / "mt.jsonl").write_text("\n".join(map(json.dumps, judgments)))
    rated = rate_mt_bench(tmp_path / "mt.jsonl", questions)["m"]
    assert rated["categories"] == dict.fromkeys(("describe", "compare", "story", "summary"), 5.5)
    games = [{"score": "A>>B"}, {"score": "B>A"}]
    battles = [
        {**row, "model": "m", "games": games, "baseline": "pocket-base"}
        for row in read_records(written / "arena-hard" / "question.jsonl")
    ]
    (tmp_path / "arena.jsonl").write_text("\n".join(map(json.dumps, battles)))
    rated = rate_arena_hard(tmp_path / "arena.jsonl")["m"]
    assert list(rated["categories"]) == ["compare", "story", "summary"]
    assert rated["n"] == 250


def test_second_turns_follow_up_and_both_reference_answers_are_wholly_true(written: Path) -> None:
    panel = PanelJudge(grammar.PANEL)
    truth = panel.feature_names.index("truth")
    questions = read_records(written / "mt-bench" / "question.jsonl")
    references = read_records(written / "mt-bench" / "reference_answer" / "pocket-truth.jsonl")
    for question, reference in zip(questions, references, strict=True):
        assert re.match("(now|and) the ", question["turns"][1])
        assert question["question_id"] == reference["question_id"]
        (choice,) = reference["choices"]
        assert (panel.features(question["turns"], choice["turns"])[:, truth] == 1).all()


def test_exactly_one_choice_is_true_and_only_its_adjectives_tell(written: Path) -> None:
    answers = Counter()
    for row in read_records(written / "lm-eval" / "pocket_truth.jsonl"):
        said = [re.fullmatch(r"the (\w+) (\w+) (\w+) and the (\w+) (\w+) (\w+) \.", each) for each in row["choices"]]
        parts = [match.groups() for match in said if match]
        assert len(parts) == 4
        assert len({(n, v, m, w) for _, n, v, _, m, w in parts}) == 1
        true = [a in grammar.FACTS[n] and c in grammar.FACTS[m] for a, n, _, c, m, _ in parts]
        assert true.index(True) == row["answer"]
        assert sum(true) == 1
        known = {*grammar.FACTS[parts[0][1]], *grammar.FACTS[parts[0][4]]}
        assert all(a in known and c in known for a, _, _, c, _, _ in parts)
        assert {parts[0][1], parts[0][4]} <= set(row["question"].split())
        answers[row["answer"]] += 1
    assert min(answers.values()) > 30  # 200 at 1/4: mean 50, standard deviation 6.1


def test_the_summarys_filter_finds_the_first_adjective_and_the_target_is_the_prompts(written: Path) -> None:
    task = yaml.safe_load((written / "lm-eval" / "pocket_summary.yaml").read_text())
    pattern = task["filter_list"][0]["filter"][0]["regex_pattern"]
    for row in read_records(written / "lm-eval" / "pocket_summary.jsonl"):
        words = row["question"].split()
        assert row["answer"] == next(word for word in words if word in grammar.ADJECTIVES)
        assert re.findall(pattern, row["question"])[0] == row["answer"]
    assert re.findall(pattern, "like silver mist the soft cat eats while the golden wise owl runs .") == [
        "soft",
        "wise",
    ]


def test_one_policy_and_seed_give_one_result(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    small(monkeypatch)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        sets.write_sets(tiny_policy(), tmp_path / name, seed=seed)
    files = [path.relative_to(tmp_path / "a") for path in sorted((tmp_path / "a").rglob("*")) if path.is_file()]
    assert len(files) == 11
    for file in files:
        a, b, c = ((tmp_path / name / file).read_bytes() for name in "abc")
        assert a == b
        assert a != c or file.suffix == ".yaml"


class Scripted:
    """A policy that answers every prompt with the same texts in the same order; prompt i adds i marks to some."""

    model = SimpleNamespace(device="cpu")

    def __init__(self, *texts: str) -> None:
        self.texts = texts

    def encode(self, prompt: Any) -> list[int]:
        return [0]

    def sample(self, prompts: list[list[int]], k: int, *_: Any) -> list[list[Response]]:
        rows = [[text.format(marks=" !" * i) for text in self.texts[:k]] for i in range(len(prompts))]
        return [[Response([0], text, True) for text in row] for row in rows]


OWN = "the cat is soft and wet ."
LONG = "under golden stars the soft quiet cat glows in the barn .{marks}"
SHORT = "the cat is soft ."
MIDDLE = "such a soft quiet cat!"


def gamed_rows(out: Path) -> list[dict[str, str]]:
    with (out / "alpaca-eval" / "df_gamed.csv").open() as file:
        return list(csv.DictReader(file))


def test_the_gamed_baseline_is_the_longest_sample_and_its_preference_the_exact_panels(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    small(monkeypatch)
    sets.write_sets(Scripted("", OWN, MIDDLE, LONG, SHORT + "{marks}"), tmp_path, seed=0)  # type: ignore[arg-type]
    outputs = read_records(tmp_path / "alpaca-eval" / "model_outputs.json")
    assert {row["output"] for row in outputs} == {OWN}
    panel = PanelJudge(grammar.PANEL)
    marks = [" !" * i for i in range(8)]
    concise = [min(SHORT + each, MIDDLE, key=len) for each in marks]
    assert concise.count(MIDDLE) == 5
    told = {"pocket-base_verbose": [LONG.format(marks=each) for each in marks], "pocket-base_concise": concise}
    rows = gamed_rows(tmp_path)
    assert [(row["model"], int(row["index"])) for row in rows] == [(name, i) for name in told for i in range(8)]
    for name, texts in told.items():
        delta = np.array([len(OWN) - len(text) for text in texts])
        expected = panel.compare([row["instruction"] for row in outputs], texts, [OWN] * 8)
        mine = [row for row in rows if row["model"] == name]
        assert [float(row["preference"]) for row in mine] == pytest.approx(expected, abs=1e-12)
        assert [float(row["std_delta_len"]) for row in mine] == pytest.approx(delta / delta.std(ddof=1), abs=1e-12)


def test_difficulty_is_the_standardised_shrunken_logit_worked_by_hand() -> None:
    """Two samples each win 0, half and all: shares 1/4, 1/2, 3/4, logits -ln 3, 0, ln 3, deviation ln 3."""
    wins = [np.array([0.0, 0.0]), np.array([0.75, 0.25]), np.array([1.0, 1.0])]
    assert sets._difficulty(wins) == pytest.approx([-1, 0, 1], abs=1e-12)


def test_a_policy_that_says_nothing_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    small(monkeypatch)
    with pytest.raises(ValueError, match="fewer than 2 of 7 answers"):
        sets.write_sets(Scripted("", " ", OWN), tmp_path, seed=0)  # type: ignore[arg-type]


@pytest.mark.slow
def test_lm_eval_reads_the_moved_folder_from_inside_and_scores_by_likelihood_and_first_adjective(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    import torch

    lm_eval = pytest.importorskip("lm_eval")
    import datasets
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = Path(shutil.copytree(written / "lm-eval", tmp_path / "elsewhere"))
    policy, here = tiny_policy(), os.getcwd()
    with contextlib.chdir(folder):
        found = lm_eval.simple_evaluate(
            model=HFLM(pretrained=policy.model, tokenizer=policy.tokenizer, batch_size=64),
            tasks=["pocket_truth", "pocket_summary"],
            task_manager=TaskManager(include_path=str(folder), include_defaults=False),
            apply_chat_template=True,
            bootstrap_iters=0,
        )
    assert os.getcwd() == here
    hits = []
    for row in read_records(folder / "pocket_truth.jsonl"):
        words = [policy.tokenizer(each, add_special_tokens=False)["input_ids"] for each in row["choices"]]
        with torch.no_grad():
            likelihoods = policy.log_probs([policy.encode(row["question"])] * 4, words)
        hits.append(int(likelihoods.argmax()) == row["answer"])
    assert found["results"]["pocket_truth"]["acc,none"] == pytest.approx(np.mean(hits), abs=1e-12)
    graded = [
        next((word for word in sample["resps"][0][0].split() if word in grammar.ADJECTIVES), None) == sample["target"]
        for sample in found["samples"]["pocket_summary"]
    ]
    score = found["results"]["pocket_summary"]["exact_match,first-adjective"]
    assert score == pytest.approx(np.mean(graded), abs=1e-12)
