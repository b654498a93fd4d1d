"""lm-eval on local tasks and a tiny random model: figures recomputed from the model's own log-probabilities."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
import yaml
from boards_world import CHOICE, reread, write_tasks
from conftest import WORDS
from leaderboards_published import write

from leaderboards import GradedItem, LMEval
from leaderboards.boards.lm_eval import _items

GENERATE = {
    "task": "tiny_generation",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"test": "files/generate.jsonl"}},
    "test_split": "test",
    "output_type": "generate_until",
    "doc_to_text": "{{question}}",
    "doc_to_target": "{{answer}}",
    "generation_kwargs": {"until": ["\n"], "max_gen_toks": 3, "do_sample": False},
    "metric_list": [{"metric": "exact_match"}],
}
QUESTIONS = [f"the {a} {b}" for a in WORDS[:5] for b in WORDS[5:8]]
CHOICES = ["runs", "jumps and sleeps", "sleeps"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = write_tasks(tmp_path_factory.mktemp("tasks"), CHOICE, GENERATE)
    rows = [{"question": q, "choices": CHOICES, "answer": i % 3} for i, q in enumerate(QUESTIONS)]
    write(folder / "files" / "choice.jsonl", rows, lines=True)
    told = [{"question": q, "answer": "cat"} for q in QUESTIONS]
    write(folder / "files" / "generate.jsonl", told, lines=True)
    return folder


@pytest.fixture(scope="module")
def records(data, tiny_model):
    return LMEval(data=data, batch_size=4).evaluate(tiny_model)


def log_prob(model, tokenizer, context, continuation):
    """log P(continuation | context), token by token; this tokenizer writes no BOS, so lm-eval reads none."""
    import torch

    before, after = (tokenizer(text).input_ids for text in (context, continuation))
    with torch.no_grad():
        logits = model(torch.tensor([before + after])).logits[0].double().log_softmax(-1)
    return sum(float(logits[len(before) - 1 + i, token]) for i, token in enumerate(after))


def loaded(folder):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


def test_accuracy_is_that_of_the_models_own_log_probabilities(records, tiny_model):
    model, tokenizer = loaded(tiny_model)
    for row, question in enumerate(QUESTIONS):
        found = [log_prob(model, tokenizer, question, choice) for choice in CHOICES]
        right = {
            "acc": int(np.argmax(found)) == row % 3,
            "acc_norm": int(np.argmax(np.array(found) / [len(choice) for choice in CHOICES])) == row % 3,
        }
        told = {r.metric: r for r in records if r.id == f"tiny_choice/{row}"}
        assert {metric: record.value for metric, record in told.items()} == {k: float(v) for k, v in right.items()}
        assert told["acc"].response.strip() == CHOICES[int(np.argmax(found))]
        assert told["acc"].prompt == question


def test_generations_are_the_models_own_greedy_words(records, tiny_model):
    import torch

    model, tokenizer = loaded(tiny_model)
    for row, question in enumerate(QUESTIONS):
        tokens = tokenizer(question).input_ids
        for _ in range(3):
            with torch.no_grad():
                tokens.append(int(model(torch.tensor([tokens])).logits[0, -1].argmax()))
            if tokens[-1] == tokenizer.eos_token_id:
                break
        said = tokenizer.decode(tokens[len(question.split()) :], skip_special_tokens=True)
        record = next(r for r in records if r.id == f"tiny_generation/{row}")
        assert record.response == said
        assert record.value == float(said == "cat")


def test_scores_are_means_over_documents_with_an_interval_a_task_and_metric(records, tmp_path):
    board = LMEval(tasks=["x"])
    scores = {(s.category, s.metric): s for s in board.rate(records, seed=0)}
    assert set(scores) == {("tiny_choice", "acc"), ("tiny_choice", "acc_norm"), ("tiny_generation", "exact_match")}
    for (task, metric), score in scores.items():
        values = [r.value for r in records if (r.category, r.metric) == (task, metric)]
        assert score.value == pytest.approx(np.mean(values))
        assert (score.n, score.coverage) == (15, 1)
        assert score.ci_low <= score.value <= score.ci_high
    compared = board.by_prompt(records)
    assert {metric: len(values) for metric, values in compared.items()} == {"acc": 15, "exact_match": 15}
    assert set(compared) <= set(board.metrics)
    assert {s.metric for s in scores.values()} <= set(board.metrics)
    assert reread(records, tmp_path) == records


def test_a_value_that_is_no_number_lowers_the_coverage():
    rows = [
        GradedItem(id=f"t/{i}", category="t", metric="acc", value=value) for i, value in enumerate([1.0, None, 0.0])
    ]
    score = LMEval(tasks=["t"]).rate(rows, seed=0)[0]
    assert (score.value, score.n, score.coverage) == (0.5, 2, pytest.approx(2 / 3))
    assert LMEval(tasks=["t"]).by_prompt(rows) == {"acc": {"t/0": 1.0, "t/1": None, "t/2": 0.0}}


def test_several_filters_of_a_task_are_told_apart_and_the_first_is_compared():
    rows = [
        GradedItem(id="t/0", category=f"t,{filter}", metric="exact_match", value=value)
        for filter, value in (("strict", 0.0), ("flexible", 1.0))
    ]
    board = LMEval(tasks=["t"])
    assert {s.category: s.value for s in board.rate(rows, seed=0)} == {"t,strict": 0, "t,flexible": 1}
    assert board.by_prompt(rows) == {"exact_match": {"t/0": 0.0}}


def test_it_runs_quietly_and_offline_from_any_folder_and_leaves_that_as_it_was(
    data, records, tiny_model, tmp_path, monkeypatch, capfd
):
    def refuse(*address):
        raise AssertionError(f"a connection to {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.chdir(tmp_path)
    board = LMEval(data=os.path.relpath(data, tmp_path), tasks="tiny_choice", limit=4)
    capfd.readouterr()
    again = board.evaluate(os.path.relpath(tiny_model, tmp_path))
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "")
    assert again == [r for r in records if r.category == "tiny_choice" and int(r.id.rpartition("/")[2]) < 4]
    assert (os.getcwd(), list(tmp_path.iterdir())) == (str(tmp_path), [])
    assert logging.root.manager.disable == logging.NOTSET


def test_a_chat_template_is_applied_where_asked(data, tiny_chat_model):
    plain, chat = (
        LMEval(data=data, limit=2, apply_chat_template=asked).evaluate(tiny_chat_model) for asked in (False, True)
    )
    assert {r.prompt for r in plain} == set(QUESTIONS[:2])
    assert {r.prompt for r in chat} == {f"<s>user {question} assistant " for question in QUESTIONS[:2]}


def test_groups_and_tags_run_their_tasks(data, tmp_path, tiny_model):
    for file in data.glob("*.yaml"):
        content = yaml.safe_load(file.read_text())
        write_tasks(tmp_path, content | {"tag": "tiny"} if content["task"] == "tiny_choice" else content)
    (tmp_path / "files").symlink_to(data / "files")
    write_tasks(tmp_path, {"group": "both", "task": ["tiny_choice", "tiny_generation"]})
    tagged = LMEval(data=tmp_path, tasks=["tiny"], limit=2).evaluate(tiny_model)
    assert {r.category for r in tagged} == {"tiny_choice"}
    grouped = LMEval(data=tmp_path, tasks=["both"], limit=2).evaluate(tiny_model)
    assert {r.category for r in grouped} == {"tiny_choice", "tiny_generation"}


def test_a_metric_that_is_no_mean_over_documents_is_kept_as_a_figure_without_an_interval(tmp_path, tiny_model):
    """lm-eval's f1 and mcc of a multiple choice are computed from all pairs of right and chosen answer."""
    write_tasks(tmp_path, CHOICE | {"metric_list": [{"metric": name} for name in ("f1", "mcc", "acc")]})
    rows = [{"question": q, "choices": CHOICES[:2], "answer": i % 2} for i, q in enumerate(QUESTIONS)]
    write(tmp_path / "files" / "choice.jsonl", rows, lines=True)
    board = LMEval(data=tmp_path)
    items = board.evaluate(tiny_model)
    right = {int(i.id.rpartition("/")[2]): i.value for i in items if i.metric == "acc"}
    chosen = [i % 2 if right[i] else 1 - i % 2 for i in range(len(rows))]
    hits, ours = sum(c and i % 2 for i, c in enumerate(chosen)), sum(chosen)
    scores = {score.metric: score for score in board.rate(items, seed=0)}
    assert scores["f1"].value == pytest.approx(2 * hits / (ours + len(rows) // 2))
    for metric in ("f1", "mcc"):
        assert (scores[metric].n, np.isnan(scores[metric].ci_low)) == (len(rows), True)
    assert scores["acc"].ci_low < scores["acc"].ci_high
    assert set(board.by_prompt(items)) == {"acc"}
    assert reread(items, tmp_path) == items
    (note,) = board.notes()
    assert note.startswith("lm-eval: mcc is one number of all documents")


def test_ifeval_has_its_instruction_figures_beside_shares_of_prompts():
    followed = [[True, False], [True], [True, True, True]]
    samples = [
        {
            "filter": "none",
            "doc_id": i,
            "arguments": [("say hi", {})],
            "resps": [["hi"]],
            "metrics": ["prompt_level_strict_acc", "inst_level_strict_acc"],
            "prompt_level_strict_acc": all(each),
            "inst_level_strict_acc": each,
        }
        for i, each in enumerate(followed)
    ]
    figures = {
        "alias": "ifeval",
        "prompt_level_strict_acc,none": 2 / 3,
        "prompt_level_strict_acc_stderr,none": "N/A",
        "inst_level_strict_acc,none": 5 / 6,
        "inst_level_strict_acc_stderr,none": 0.1,
    }
    board, items = LMEval(tasks="ifeval"), list(_items("ifeval", samples, figures))
    scores = {s.metric: (s.value, s.n) for s in board.rate(items, seed=0)}
    assert scores == {"prompt_level_strict_acc": (2 / 3, 3), "inst_level_strict_acc": (5 / 6, 3)}
    assert board.by_prompt(items) == {"prompt_level_strict_acc": {"ifeval/0": 0.0, "ifeval/1": 1.0, "ifeval/2": 1.0}}


def test_a_task_leads_with_its_own_metric():
    def compared(task):
        rows = [GradedItem(id=f"{task}/0", category=task, metric=m, value=0.5) for m in ("acc_norm", "acc")]
        return set(LMEval(tasks=task).by_prompt(rows))

    leads = {task: compared(task) for task in ("hellaswag", "arc_challenge", "arc_easy", "mmlu_virology")}
    assert leads == {
        "hellaswag": {"acc_norm"},
        "arc_challenge": {"acc_norm"},
        "arc_easy": {"acc"},
        "mmlu_virology": {"acc"},
    }


@pytest.mark.slow
def test_a_plan_tells_which_figures_of_ifeval_have_no_interval():
    (note,) = LMEval(tasks="ifeval, arc_easy").notes()
    assert "inst_level_loose_acc, inst_level_strict_acc" in note
    assert LMEval(tasks="arc_easy").notes() == []


def test_what_is_wrong_with_the_files_is_told_before_anything_is_loaded(data, tmp_path):
    with pytest.raises(ValueError, match="lm-eval needs the option data"):
        LMEval()
    with pytest.raises(ValueError, match="is not there"):
        LMEval(data=tmp_path / "nowhere")
    with pytest.raises(ValueError, match="holds no task file"):
        LMEval(data=tmp_path)
    with pytest.raises(ValueError, match="no task 'tiny'; there is tiny_choice, tiny_generation"):
        LMEval(data=data, tasks="tiny_choice, tiny")
    for option in ({"limit": 1}, {"batch_size": 0}, {"num_fewshot": -1}, {"tasks": []}, {"tasks": ""}):
        with pytest.raises(ValueError, match=next(iter(option))):
            LMEval(data=data, **option)
    write_tasks(tmp_path, CHOICE | {"metric_list": [{"metric": "fame"}]})
    with pytest.raises(ValueError, match="metric 'fame' of task tiny_choice is not known; there is acc"):
        LMEval(data=tmp_path)
    (tmp_path / "tiny_choice.yaml").write_text("task: x\ndoc_to_text: !function utils.text\n")
    assert LMEval(data=tmp_path)._names == ["x"]
    (tmp_path / "again.yaml").write_text("task: x\n")
    with pytest.raises(ValueError, match="two files define the task 'x'"):
        LMEval(data=tmp_path)
    (tmp_path / "again.yaml").write_text("task: [x\n")
    with pytest.raises(ValueError, match=r"again\.yaml is no YAML"):
        LMEval(data=tmp_path)


@pytest.mark.slow
def test_lm_evals_own_tasks_are_known_without_a_connection_and_a_misspelt_one_is_refused(monkeypatch, capfd):
    def refuse(*address):
        raise AssertionError(f"a connection to {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    LMEval(tasks="arc_easy, mmlu, ai2_arc").check()  # a task, a group and a tag
    with pytest.raises(ValueError, match=r"'hellaswagg' \(did you mean .*'hellaswag'.*`lm-eval ls tasks`"):
        LMEval(tasks=["mmlu", "hellaswagg"]).check()
    assert capfd.readouterr() == ("", "")


def test_importing_the_board_loads_no_lm_eval():
    loaded = "'lm_eval' in sys.modules or 'torch' in sys.modules"
    code = f"import sys, leaderboards.boards.lm_eval as m; m.LMEval; sys.exit({loaded})"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_adapter_is_opened_over_its_base(data, records, tiny_model, tmp_path):
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(0)
    config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model), config).save_pretrained(tmp_path / "adapter")
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.save_pretrained(tmp_path / "adapter")
    merged = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), tmp_path / "adapter")
    merged.merge_and_unload().save_pretrained(tmp_path / "merged")
    tokenizer.save_pretrained(tmp_path / "merged")
    adapted, whole = (LMEval(data=data, batch_size=4).evaluate(tmp_path / name) for name in ("adapter", "merged"))
    assert [r.value for r in adapted] == [r.value for r in whole]
    assert [r.response for r in adapted] != [r.response for r in records]
