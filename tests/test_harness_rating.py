"""`nashbench rate`: published files in, the published figures out, in words or as JSON."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable

import pytest
from conftest import Ended
from leaderboards_published import SHARED, annotations, games, judgments, needs_shared, write

Command = Callable[..., Ended]
ALPACA_KEYS = {
    "win_rate",
    "standard_error",
    "discrete_win_rate",
    "length_controlled_winrate",
    "avg_length",
    "n_total",
    "coverage",
    "ci",
}
MODELS = ("FuseChat-Llama-3.1-8B-Instruct", "claude-2.1", "gemma-7b-it", "alpaca-farm-ppo-human")


@needs_shared
@pytest.mark.parametrize("model", MODELS)
def test_the_published_alpaca_eval_rows_come_out_of_the_command(nashbench: Command, model: str) -> None:
    with open(SHARED / "alpacaeval" / "leaderboard.csv") as file:
        published = next(row for row in csv.DictReader(file) if row[""] == model)
    found = next((SHARED / "alpacaeval" / "results" / model).rglob("annotations.json.gz"))
    ended = nashbench("rate", "alpaca-eval", str(found), "--files", str(SHARED), "--json")
    assert (ended.code, ended.err) == (0, "")
    rated = json.loads(ended.out)
    assert rated.keys() >= ALPACA_KEYS
    for key in ("win_rate", "standard_error", "discrete_win_rate"):
        assert rated[key] == pytest.approx(float(published[key]), abs=1e-9)
    assert rated["length_controlled_winrate"] == pytest.approx(float(published["length_controlled_winrate"]), abs=1e-5)


@needs_shared
def test_the_published_mt_bench_turns_come_out_of_the_command(nashbench: Command) -> None:
    path = str(SHARED / "mt_bench" / "model_judgment" / "gpt-4_single.phi-3-dpo.jsonl.gz")
    rated = json.loads(nashbench("rate", "mt-bench", path, "--json").out)
    assert list(rated) == ["phi-3-dpo"]
    assert rated["phi-3-dpo"].keys() >= {"turn_1", "turn_2", "score", "categories", "n", "coverage", "ci"}
    assert (rated["phi-3-dpo"]["turn_1"], rated["phi-3-dpo"]["turn_2"]) == (8.3625, 8.0375)
    questions = str(SHARED / "mt_bench" / "question.jsonl")
    assert json.loads(nashbench("rate", "mt-bench", path, "--questions", questions, "--json").out) == rated
    shown = nashbench("rate", "mt-bench", path)
    assert shown.code == 0
    for figure in ("phi-3-dpo", "8.20", "8.36", "8.04", "humanities", "9.95"):
        assert figure in shown.out


def test_words_have_every_figure_and_say_why_one_is_missing(nashbench: Command, tmp_path) -> None:
    path = write(tmp_path / "a.json.gz", annotations([1.0, 2.0, 2.0, None]), packed=True)
    ended = nashbench("rate", "alpaca-eval", str(path))
    assert ended.code == 0
    lines = dict(line.split(maxsplit=2)[:2] for line in ended.out.splitlines()[:10] if "rate" not in line)
    assert (lines["n"], lines["coverage"], lines["discrete"]) == ("3", "0.75", "66.67")
    assert "length-controlled win rate: needs instruction_difficulty.csv" in ended.out.replace("\n", " ")


def test_several_models_are_rows_and_hostile_names_stay_text(nashbench: Command, tmp_path) -> None:
    rows = [games(i, "B>A", "A>B", model=model) for i in range(3) for model in ("good", "[red]bad[/red]")]
    rows[1]["games"] = [None, None]
    path = write(tmp_path / "j.jsonl", rows, lines=True)
    shown = nashbench("rate", "arena-hard", str(path))
    assert shown.code == 0
    assert [line.split()[0] for line in shown.out.splitlines()] == ["model", "[red]bad[/red]", "good"]
    rated = json.loads(nashbench("rate", "arena-hard", str(path), "--json").out)
    assert {model: (r["win_rate"], r["n"], r["failed_games"]) for model, r in rated.items()} == {
        "good": (100, 3, 0),
        "[red]bad[/red]": (100, 2, 2),
    }


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["alpaca", "FILE"], "there is no board 'alpaca' to rate; choose alpaca-eval, arena-hard, mt-bench"),
        (["mt-bench", "nowhere.jsonl"], "nowhere.jsonl cannot be read"),
        (["mt-bench", "FILE", "--files", "."], "--files is for alpaca-eval"),
        (["arena-hard", "FILE", "--questions", "q"], "--questions is for mt-bench"),
        (["alpaca-eval", "FILE"], "record 0 has no 'generator_1'"),
        (["alpaca-eval", "FILE", "--json"], "record 0 has no 'generator_1'"),
        (["arena-hard", "FILE"], "record 0 has no 'games'"),
    ],
)
def test_wrong_input_is_one_line_and_exit_2(nashbench: Command, tmp_path, arguments: list[str], told: str) -> None:
    file = write(tmp_path / "j.jsonl", judgments({(81, 1): 5, (81, 2): 7}), lines=True)
    ended = nashbench("rate", *(str(file) if word == "FILE" else word for word in arguments))
    assert (ended.code, ended.out) == (2, "")
    assert told in ended.err
    assert len(ended.err.strip().splitlines()) == 1


def test_help_has_examples(nashbench: Command) -> None:
    ended = nashbench("rate", "--help")
    assert ended.code == 0
    for word in ("--files", "--questions", "--json", "nashbench rate mt-bench"):
        assert word in ended.out
