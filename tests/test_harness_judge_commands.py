"""judge, judge-train and audit as a user types them: what they write, print and refuse."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import PANEL, Ended, check_refused

from harness import registry
from judges import Answer, EnsembleJudge, PanelJudge, Question, RewardModelJudge
from judges.files import read_verdicts

Command = Callable[..., Ended]
ROOT = Path(__file__).resolve().parents[1]
LLMBAR = ROOT.parent / "shared" / "data" / "judge_agreement" / "llmbar_natural"
TEXTS = ("red cat runs", "blue dog", "bird sleeps and jumps", "the it a", "green big cat cat", "dog dog dog")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A panel, and labelled pairs: all of three responses to each of two prompts."""
    (tmp_path / "panel.yaml").write_text(PANEL)
    rows = []
    for prompt, texts in (("first", TEXTS[:3]), ("second", TEXTS[3:])):
        for a, b in ((0, 1), (1, 2), (0, 2)):
            label = ["first", "second", ["first", "tie"]][len(rows) % 3]
            row = {"id": len(rows), "prompt": prompt, "first": texts[a], "second": texts[b], "label": label}
            rows.append(row)
    (tmp_path / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


@pytest.fixture
def panel(folder: Path) -> list[str]:
    return ["panel", "--option", f"panel={folder / 'panel.yaml'}"]


# --- judge ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_a_judge_alone_writes_what_the_judge_says(
    folder: Path, panel: list[str], nashbench: Command, suffix: str
) -> None:
    out = folder / "new" / f"verdicts.{suffix}"
    arguments = ["judge", *panel, "--pairs", str(folder / "labels.jsonl"), "--out", str(out)]
    ended = nashbench(*arguments, "--json")
    assert ended.code == 0, ended.err
    figures = json.loads(ended.out)
    assert (figures["questions"], figures["pairs"], figures["coverage"], figures["flips"]) == (12, 6, 1.0, 0)
    judge = PanelJudge(folder / "panel.yaml")
    rows = [json.loads(line) for line in (folder / "labels.jsonl").read_text().splitlines()]
    expected = judge.compare(*([row[key] for row in rows] for key in ("prompt", "first", "second")))
    found = read_verdicts(out)
    np.testing.assert_allclose([v.preference for v in found], np.repeat(expected, 2), atol=1e-15)
    frame = pd.read_parquet(out) if suffix == "parquet" else pd.read_json(out, lines=True)
    wanted = ["id", "order", "preference", "status", "input_tokens", "output_tokens", "latency", "cost"]
    assert [name for name in frame.columns if name in wanted] == wanted
    before = out.read_bytes()
    assert "12 questions about 6 pairs, coverage 1.000" in nashbench(*arguments).out
    assert out.read_bytes() == before


def test_failed_questions_are_exit_1_null_and_counted(folder: Path, nashbench: Command) -> None:
    labels, pairs, out = folder / "labels.jsonl", folder / "pairs.jsonl", folder / "v.jsonl"
    pairs.write_text('{"id": "x", "prompt": "unknown", "first": "a", "second": "b"}\n' + labels.read_text())
    option = f"labels={labels}"
    ended = nashbench("judge", "human", "--option", option, "--pairs", str(pairs), "--out", str(out), "--one-order")
    assert ended.code == 1
    assert "coverage 0.857 (failed: 1 unlabelled)" in ended.out
    assert json.loads(out.read_text().splitlines()[0]) | {"key": ""} == {
        "id": "x",
        "order": "original",
        "preference": None,
        "status": "unlabelled",
        "input_tokens": 0,
        "output_tokens": 0,
        "latency": 0.0,
        "cost": 0.0,
        "key": "",
    }


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["pannel"], ["no judge is called 'pannel'", "did you mean 'panel'?"]),
        (["panel"], ["needs the option 'panel'; write --option panel=VALUE\n"]),
        (["panel", "--option", "panel"], ["--option 'panel' is not K=V"]),
        (["panel", "--option", "panel=["], ["the value is not YAML"]),
        (["panel", "--option", "panel=a", "--option", "panel=b"], ["--option panel is given twice"]),
        (["panel", "--option", "panel=nowhere.yaml"], ["panel file not found: nowhere.yaml"]),
        (["ensemble", "--option", "judges=panel"], ["judges must be a list of judges", "got 'panel'"]),
        (["ensemble", "--option", "judges=[{panel: x}]"], ["judges must be a list of judges", "got {'panel': 'x'}"]),
        (
            ["ensemble", "--option", "judges=[panel, panel]"],
            ["judge 'panel' needs", "write {name: panel, panel: VALUE}\n"],
        ),
    ],
)
def test_a_wrong_judge_is_refused_before_anything_starts(
    folder: Path, nashbench: Command, arguments: list[str], parts: list[str]
) -> None:
    out = folder / "v.jsonl"
    check_refused(nashbench("judge", *arguments, "--pairs", str(folder / "labels.jsonl"), "--out", str(out)), *parts)
    assert not out.exists()


def test_wrong_files_are_refused_before_anything_starts(folder: Path, panel: list[str], nashbench: Command) -> None:
    out = folder / "v.jsonl"
    check_refused(nashbench("judge", *panel, "--pairs", "none.jsonl", "--out", str(out)), "file not found: none.jsonl")
    (folder / "latin").write_bytes(b'{"id": "\xe9"}')
    check_refused(nashbench("judge", *panel, "--pairs", str(folder / "latin"), "--out", str(out)), "latin:1: not UTF-8")
    check_refused(
        nashbench("judge", *panel, "--pairs", str(folder / "labels.jsonl"), "--out", "v.csv"), "not to 'v.csv'"
    )
    assert not out.exists()


def test_an_ensemble_is_made_from_names_and_keeps_what_its_members_said(folder: Path, nashbench: Command) -> None:
    other = folder / "other.yaml"
    other.write_text(PANEL.replace("scale: 4", "scale: 1"))
    members = f"[{{name: panel, panel: {folder / 'panel.yaml'}}}, {{name: panel, panel: {other}}}]"
    options = ["--option", f"judges={members}", "--option", "weights=[3, 1]"]
    files = ["--pairs", str(folder / "labels.jsonl"), "--out", str(folder / "v.jsonl")]
    assert nashbench("judge", "ensemble", *options, *files, "--one-order").code == 0
    for verdict in read_verdicts(folder / "v.jsonl"):
        said = json.loads(verdict.raw)
        assert verdict.preference == pytest.approx(0.75 * said[0] + 0.25 * said[1])
        assert said[0] != said[1]
    assert registry.load("judges", "ensemble") is EnsembleJudge


def test_an_interrupted_run_is_130_and_goes_on(
    folder: Path, panel: list[str], nashbench: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["judge", *panel, "--pairs", str(folder / "labels.jsonl"), "--out", str(folder / "v.jsonl")]
    asked: list[int] = []
    answer = PanelJudge.answer

    def interrupted(judge: PanelJudge, questions: Sequence[Question], advance: Callable[[int], None]) -> list[Answer]:
        if len(asked) == 1:
            asked.append(0)
            raise KeyboardInterrupt
        asked.append(len(questions))
        return answer(judge, questions, advance)

    monkeypatch.setattr(PanelJudge, "answer", interrupted)
    monkeypatch.setattr(PanelJudge, "chunk_size", 5)
    ended = nashbench(*arguments)
    assert (ended.code, "goes on from here" in ended.err) == (130, True)
    assert nashbench(*arguments).code == 0
    assert asked == [5, 0, 5, 2]


def test_the_commands_of_the_readme_work_on_the_shipped_labels(tmp_path: Path, nashbench: Command) -> None:
    panel = ["panel", "--option", f"panel={ROOT / 'harness' / 'pocket' / 'panel.yaml'}"]
    labels, verdicts = str(ROOT / "examples" / "labels.jsonl"), str(tmp_path / "verdicts.jsonl")
    assert nashbench("judge", *panel, "--pairs", labels, "--out", verdicts).code == 0
    assert nashbench("audit", *panel, "--labels", labels, "--out", str(tmp_path / "audit")).code == 0
    ended = nashbench("audit", "recorded", "--labels", labels, "--verdicts", verdicts, "--json")
    assert json.loads(ended.out)["transitivity"]["labels"]["triples"] == 3


# --- audit ---------------------------------------------------------------------------------------------------------


def test_an_audit_of_a_judge_and_of_its_recorded_verdicts_are_the_same(
    folder: Path, panel: list[str], nashbench: Command
) -> None:
    labels, out = ["--labels", str(folder / "labels.jsonl")], folder / "audit"
    asked = nashbench("audit", *panel, *labels, "--json")
    assert asked.code == 0, asked.err
    figures = json.loads(asked.out)
    assert (figures["n"], figures["coverage"], figures["position_bias"]) == (6, 1.0, pytest.approx(0, abs=1e-12))
    assert figures["transitivity"]["judge"]["triples"] == 2
    with_page = nashbench("audit", *panel, *labels, "--json", "--out", str(out))
    assert json.loads(with_page.out) == figures == json.loads((out / "audit.json").read_text())
    recorded = ["recorded", "--verdicts", str(out / "verdicts.jsonl")]
    assert json.loads(nashbench("audit", *recorded, *labels, "--json").out) == figures
    text = nashbench("audit", *recorded, *labels).out
    assert f"{'order agreement':<28}  1.000" in text
    assert "self-consistency: not computable" in text
    assert "cycle rate" in text
    assert sorted(p.name for p in out.iterdir()) == ["audit.html", "audit.json", "verdicts.jsonl"]


def test_repeats_of_an_exact_judge_agree(folder: Path, panel: list[str], nashbench: Command) -> None:
    arguments = [*panel, "--labels", str(folder / "labels.jsonl"), "--repeats", "3", "--json"]
    for more in ([], ["--out", str(folder / "audit")]):
        figures = json.loads(nashbench("audit", *arguments, *more).out)
        assert figures["self_consistency"] == {"questions": 12, "agreement": 1.0, "spread": pytest.approx(0, abs=1e-9)}


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["recorded"], "`recorded` needs --verdicts"),
        (["recorded", "--verdicts", "none.jsonl"], "file not found: none.jsonl"),
        (["recorded", "--verdicts", "v", "--repeats", "2"], "--option and --repeats are for a judge that is asked"),
        (["panel", "--option", "panel=p", "--verdicts", "v"], "--verdicts goes with `recorded`"),
        (["nobody"], "no judge is called 'nobody'"),
    ],
)
def test_a_wrong_audit_is_refused(folder: Path, nashbench: Command, arguments: list[str], part: str) -> None:
    check_refused(nashbench("audit", *arguments, "--labels", str(folder / "labels.jsonl")), part)
    check_refused(nashbench("audit", *arguments, "--labels", "none.jsonl"), "none.jsonl")


@pytest.mark.skipif(not LLMBAR.is_dir(), reason="LLMBar's files are not beside this checkout")
def test_gpt_4s_published_figures_on_llmbar_come_out_of_the_command(tmp_path: Path, nashbench: Command) -> None:
    files = [str(LLMBAR / name) for name in ("dataset.json", "GPT-4.Swap.result.json")]
    subprocess.run([sys.executable, ROOT / "examples" / "llmbar.py", *files, "--out", tmp_path], check=True)
    given = ["--verdicts", str(tmp_path / "verdicts.jsonl"), "--labels", str(tmp_path / "labels.jsonl")]
    figures = json.loads(nashbench("audit", "recorded", *given, "--json").out)
    published = json.loads((LLMBAR / "GPT-4.Swap.statistics.json").read_text())
    percent = {name: float(text.split("=")[-1].rstrip("%")) for name, text in published.items() if "%" in str(text)}
    found = {
        "correct_False": figures["accuracy_by_order"]["original"],
        "correct_True": figures["accuracy_by_order"]["swapped"],
        "correct_average": np.mean(list(figures["accuracy_by_order"].values())),
        "correct_both": figures["accuracy"],
        "equal": figures["order_agreement"],
    }
    assert {name: round(100 * value, 9) for name, value in found.items()} == percent
    assert (figures["n"], figures["coverage"]) == (100, 1.0)


# --- judge-train ---------------------------------------------------------------------------------------------------


@pytest.fixture
def training(tmp_path: Path, tiny_chat_model: Path) -> list[str]:
    rows = [
        {"id": i, "prompt": f"the {p}", "first": f"{a} cat", "second": f"{b} dog", "label": "first" if i % 2 else "tie"}
        for i, (p, a, b) in enumerate(
            [(p, a, b) for p in TEXTS[0].split() for a in ("red", "blue") for b in ("big", "it")]
        )
    ]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    more = ["--epochs", "2", "--lr", "0.001", "--batch-size", "4", "--max-length", "40", "--holdout", "0.3"]
    return ["--data", str(tmp_path / "train.jsonl"), "--base", str(tiny_chat_model), *more]


def test_a_judge_is_trained_measured_and_can_be_asked(training: list[str], tmp_path: Path, nashbench: Command) -> None:
    out = tmp_path / "judge"
    ended = nashbench("judge-train", "reward-model", *training, "--out", str(out), "--json")
    assert ended.code == 0, ended.err
    figures = json.loads(ended.out)
    assert (figures["train_pairs"], figures["heldout_pairs"], figures["steps"], figures["coverage"]) == (8, 4, 4, 1.0)
    assert {"accuracy", "log_loss", "calibration_error", "length_bias"} <= figures.keys()
    assert 0 < RewardModelJudge(out).compare(["the red"], ["red cat"], ["big dog"])[0] < 1
    check_refused(
        nashbench("judge-train", "reward-model", *training, "--out", str(out)), "is there already and not empty"
    )


def test_the_figures_of_training_are_printed_for_people(
    training: list[str], tmp_path: Path, nashbench: Command
) -> None:
    (tmp_path / "empty").mkdir()
    options = ["--option", "labels=[cat, dog]", "--option", "template='{{ first }} or {{ second }}'"]
    ended = nashbench("judge-train", "llm", *training, *options, "--out", str(tmp_path / "empty"))
    assert ended.code == 0, ended.err
    for part in (
        "trained on 8 pairs in 4 steps",
        "on 4 held-out pairs",
        "accuracy",
        "calibration error",
        "length bias",
    ):
        assert part in ended.out


def test_wrong_training_is_refused(training: list[str], tmp_path: Path, nashbench: Command) -> None:
    out = ["--out", str(tmp_path / "judge")]
    check_refused(
        nashbench("judge-train", "panel", *training, *out), "no kind of judge 'panel' to train; choose among reward"
    )
    nowhere = [part if "models" not in part else "nowhere/at/all" for part in training]
    check_refused(nashbench("judge-train", "reward-model", *nowhere, *out), "'nowhere/at/all'")
    ended = nashbench("judge-train", "llm", *training, *out, "--epochs", "0")
    assert (ended.code, ended.out) == (2, "")
    assert "epochs must be above 0" in ended.err.splitlines()[-1]
    assert not (tmp_path / "judge").exists()


@pytest.mark.parametrize("command", ["judge", "judge-train", "audit"])
def test_help_has_an_example(nashbench: Command, command: str) -> None:
    ended = nashbench(command, "--help")
    assert ended.code == 0
    assert f"nashbench {command} " in " ".join(ended.out.split())
