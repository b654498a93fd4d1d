"""Wrong input: exit 2, one clear line on stderr that names place, value and fix, and nothing started."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Ended, Workspace, check_refused, write_prompts

from harness.config import load_config
from harness.errors import UserError
from harness.planning.plan import make_plan
from harness.run.worker import failure_message
from harness.stages.context import ModelCache
from harness.stages.running import run_stage
from harness.store.artifacts import Store
from judges.errors import JudgeError
from leaderboards.leaderboard import BoardError
from trainers.errors import TrainingError

Command = Callable[..., Ended]

CONFIG = """\
name: small
policy: MODEL
prompts: prompts.jsonl
matrix:
  trainer: [dpo]
  judge: [{name: panel, panel: panel.yaml}]
sampling: {max_tokens: 6}
leaderboards: [head-to-head]
"""


@pytest.fixture
def sweep(workspace: Workspace, nashbench: Command) -> Callable[..., Ended]:
    """Sweep with lines of the config replaced, lines added, and `--set`s; checks that nothing was left behind."""

    def run(*settings: str, replace: tuple[str, str] = ("", ""), add: str = "") -> Ended:
        text = CONFIG.replace("MODEL", str(workspace.model)).replace(*replace) + add
        arguments = workspace.arguments(workspace.write("sweep.yaml", text))
        ended = nashbench(*arguments, *[part for setting in settings for part in ("--set", setting)])
        assert not workspace.out.exists()
        assert not workspace.store.exists()
        return ended

    return run


# --- the file ----------------------------------------------------------------------------------------------------


def test_a_missing_config_is_named(nashbench: Command, tmp_path: Path) -> None:
    check_refused(nashbench("sweep", str(tmp_path / "none.yaml")), "none.yaml", "No such file")


@pytest.mark.parametrize(
    ("content", "fact"),
    [
        (b"a: [1\nb: {", "is not YAML"),
        (b"- 1", "it holds list"),
        (b"", "it holds NoneType"),
        (b"\xff\xfe", "not UTF-8"),
    ],
    ids=["broken", "list", "empty", "binary"],
)
def test_a_config_that_is_no_yaml_mapping_is_refused_in_one_line(
    nashbench: Command, tmp_path: Path, content: bytes, fact: str
) -> None:
    (tmp_path / "bad.yaml").write_bytes(content)
    check_refused(nashbench("sweep", str(tmp_path / "bad.yaml")), "bad.yaml", fact)


# --- keys and values ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("iteratons: 3", ["sweep.yaml:9", "'iteratons'", "did you mean 'iterations'?"]),
        ("training: {lrr: 3}", ["sweep.yaml:9", "'training.lrr'", "did you mean 'lr'?"]),
        ("training: {lora: {r: 0}}", ["sweep.yaml:9", "training.lora.r", "greater than or equal to 1"]),
        ("training: {lora: {rank: 8}}", ["sweep.yaml:9", "training.lora.rank"]),
        ("iterations: many", ["sweep.yaml:9", "iterations", "'many'"]),
        ("iterations: 0", ["sweep.yaml:9", "iterations", "greater than or equal to 1", "0"]),
        ("iterations: 1.5", ["iterations", "integer", "1.5"]),
        ("iterations: true", ["iterations", "integer", "True"]),
        ("prompts_per_iteration: -4", ["prompts_per_iteration", "-4"]),
        ("training: {lr: 0}", ["training.lr", "greater than 0"]),
        ("training: {precision: int4}", ["training.precision", "'bf16' or 'fp32'", "int4"]),
        ("pairs: {protocol: league}", ["pairs.protocol", "'tournament', 'iid' or 'best-worst'", "league"]),
        ("training: 3", ["sweep.yaml:9", "training", "group of keys"]),
        ("exclude: [{trainer: slic}]", ["exclude", "slic", "matches no cell"]),
        ("exclude: [{trainr: dpo}]", ["exclude", "did you mean 'trainer'?"]),
        ("exclude: [{trainer: dpo}]", ["no cell", "exclude less"]),
        ("include: [{policy: zz}]", ["include", "'zz'", "tiny"]),
        ("include: [{seed: zz}]", ["include", "'zz'", "whole number"]),
        ("include: [{trainer: dppo}]", ["include", "did you mean 'dpo'?"]),
        ("include: [{trainer: {name: dpo, beta: [1, 2]}}]", ["include", "list of options"]),
    ],
)
def test_a_wrong_key_or_value_names_its_line_and_the_way_out(
    sweep: Callable[..., Ended], line: str, parts: list[str]
) -> None:
    check_refused(sweep(add=line + "\n"), *parts)


@pytest.mark.parametrize(
    ("trainer", "parts"),
    [
        ("dpoo", ["no trainer is called 'dpoo'", "did you mean 'dpo'?"]),
        ("{name: dpo, betaa: 1}", ["no option 'betaa'", "did you mean 'beta'?"]),
        ("{name: dpo, beta: -1}", ["beta is -1", "greater than 0"]),
        ("{name: dpo, beta: high}", ["beta is 'high'", "must be a number"]),
        ("{name: dpo, beta: []}", ["the list of 'beta' is empty"]),
        ("{beta: 1}", ["'matrix.trainer.0.name' is missing"]),
    ],
)
def test_a_wrong_trainer_names_its_line_and_the_nearest_word(
    sweep: Callable[..., Ended], trainer: str, parts: list[str]
) -> None:
    check_refused(sweep(replace=("[dpo]", f"[{trainer}]")), "sweep.yaml:5", *parts)


@pytest.mark.parametrize("trainers", ["[dpo, dpo]", "[{name: dpo, beta: [0.5, 0.5]}]"])
def test_duplicate_cells_are_refused_by_name(sweep: Callable[..., Ended], trainers: str) -> None:
    check_refused(sweep(replace=("[dpo]", trainers)), "tiny~dpo", "twice")


@pytest.mark.parametrize("key", ["name", "matrix", "leaderboards"])
def test_a_missing_key_is_named(workspace: Workspace, nashbench: Command, key: str) -> None:
    check_refused(nashbench("sweep", str(workspace.config(**{key: None}))), f"the key '{key}' is missing")


# --- --set -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "parts"),
    [
        ("iterations", ["'iterations' is not KEY=VALUE"]),
        ("=1", ["'=1' is not KEY=VALUE"]),
        ("iterations=[1", ["'iterations=[1'", "not YAML"]),
        ("iterations.x=1", ["--set iterations.x"]),
        ("matrix.trainer.0=1", ["'trainer' is not a group of keys"]),
        ("name=a/b", ["--set name", "'a/b' cannot name a folder"]),
        ("name=..", ["--set name", "'..' cannot name a folder"]),
        ("matrix.judge=[]", ["--set matrix.judge", "the list is empty"]),
        ("matrix.seed=[]", ["--set matrix.seed", "the list is empty"]),
        ("matrix.seed=1", ["--set matrix.seed", "must be a list", "1"]),
        ("matrix.seed=[-1]", ["--set matrix.seed", "-1"]),
        ("matrix.seed=[0, 0]", ["tiny~dpo~panel~s0", "twice"]),
        ("leaderboards=[]", ["--set leaderboards", "the list is empty"]),
        ("graders=[]", ["--set graders", "the list is empty"]),
        ("matrix.judge=[pannel]", ["--set matrix.judge", "'pannel'", "did you mean 'panel'?"]),
        ("matrix.judge=[panel]", ["needs the option 'panel'; write {name: panel, panel: VALUE}\n"]),
        ("matrix.judge=[{name: panel, panel: none.yaml}]", ["none.yaml", "not found"]),
        ("graders=[pannel]", ["--set graders", "did you mean 'panel'?"]),
        ("leaderboards=[head2head]", ["--set leaderboards", "did you mean 'head-to-head'?"]),
        ("leaderboards=[duality-gap]", ["'duality-gap' rates an exact game"]),
        ("leaderboards=[{name: head-to-head, limit: 1}]", ["limit is 1", "at least 2"]),
        ("sampling.k=1", ["--set sampling.k", "greater than or equal to 2"]),
        ("sampling.k=6", ["sampling.k is 6", "power of two"]),
        ("policy=[]", ["--set policy", "list of policies is empty"]),
        ("policy=3", ["--set policy", "string", "3"]),
        ("policy=/nope/model", ["'/nope/model'", "no such folder"]),
        ("policy={endpoint: 'http://localhost', model: x}", ["'dpo' cannot train the policy 'x'", "never trained"]),
        ("policy={game: cyc3, foo: 1}", ["--set policy", "unknown key", "foo", "game"]),
        ("policy={game: cyc3}", ["rates a language model"]),
        ("prompts=null", ["prompts is missing"]),
        ("prompts=none.jsonl", ["no prompts file", "none.jsonl"]),
        ("prompts=someone/prompts", ["someone/prompts", "not built yet"]),
    ],
)
def test_a_wrong_override_is_named_as_such(sweep: Callable[..., Ended], setting: str, parts: list[str]) -> None:
    check_refused(sweep(setting), *parts)


@pytest.mark.parametrize(
    ("trainer", "found", "part"),
    [
        ("dpo", None, "not installed: pip install"),
        ("ipo-md", "vllm", "ipo-md samples from a mixture"),
        ("nash-md", "vllm", "nash-md samples from a mixture"),
    ],
)
def test_an_engine_that_cannot_do_the_work_is_refused_before_anything_starts(
    sweep: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch, trainer: str, found: str | None, part: str
) -> None:
    monkeypatch.setattr("trainers.engines.selection.find_spec", lambda name: found)
    check_refused(sweep("sampling.engine=vllm", f"matrix.trainer=[{trainer}]"), "sampling.engine is 'vllm'", part)


# --- the command line --------------------------------------------------------------------------------------------


def test_what_is_not_built_yet_is_refused_by_name(workspace: Workspace, nashbench: Command) -> None:
    check_refused(nashbench("sweep", str(workspace.config()), "--executor", "ray"), "--executor ray", "use local")


@pytest.mark.parametrize("place", ["--out", "--store"])
def test_a_folder_that_cannot_be_written_is_named(workspace: Workspace, nashbench: Command, place: str) -> None:
    blocked = workspace.write("a-file", "")
    folders = {"--out": str(workspace.out), "--store": str(workspace.store)} | {place: str(blocked)}
    arguments = [part for pair in folders.items() for part in pair]
    check_refused(nashbench("sweep", str(workspace.config()), *arguments), "a-file", "cannot be written")


@pytest.mark.parametrize("arguments", [["sweep"], ["swep"], ["sweep", "x.yaml", "--foo"], ["list"]])
def test_wrong_usage_is_exit_2_with_the_usage_on_stderr(nashbench: Command, arguments: list[str]) -> None:
    ended = nashbench(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert "Usage" in ended.err


def test_a_folder_without_a_sweep_has_no_status_and_no_report(nashbench: Command, tmp_path: Path) -> None:
    check_refused(nashbench("status", str(tmp_path)), "no cells.json")
    check_refused(nashbench("report", str(tmp_path)), "no cells.json")


# --- games -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("csv", "fact"),
    [
        ("0.5,0.5\n", "square"),
        ("0.5,1.5\n-0.5,0.5\n", "[0, 1]"),
        ("0.5,0.9\n0.3,0.5\n", "P + P^T = 1"),
        ("0.5,nan\nnan,0.5\n", "nan"),
        ("a,b\nc,d\n", "not a number"),
        ("", "empty"),
    ],
    ids=["shape", "range", "sum", "nan", "text", "empty"],
)
def test_a_matrix_that_is_no_preference_matrix_is_refused(
    workspace: Workspace, nashbench: Command, csv: str, fact: str
) -> None:
    workspace.write("game.csv", csv)
    config = workspace.config(
        policy={"game": "game.csv"},
        matrix={"trainer": ["omd"], "judge": ["game"]},
        leaderboards=["duality-gap"],
        prompts=None,
    )
    check_refused(nashbench("sweep", str(config)), "game.csv", fact)


def test_a_game_is_judged_by_itself_only(workspace: Workspace, nashbench: Command) -> None:
    config = workspace.config(policy={"game": "cyc3"}, leaderboards=["duality-gap"], prompts=None)
    check_refused(nashbench("sweep", str(config)), "a game judges itself", "'game'")


# --- prompts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b"", ["holds no prompts"]),
        (b"\n \n", ["holds no prompts"]),
        (b"x\n", ["jsonl:1", "not JSON"]),
        (b'{"prompt": "a"}\n{"text": "a"}\n', ["jsonl:2", '"prompt"', "None"]),
        (b'{"prompt": "  "}\n', ["jsonl:1", '"prompt"']),
        (b'{"prompt": []}\n', ["jsonl:1", '"prompt"']),
        (b'{"prompt": [{"role": "user"}]}\n', ["jsonl:1", "role, content"]),
        (b'{"prompt": "a", "split": "test"}\n', ["jsonl:1", '"train" or "heldout"', "'test'"]),
        (b'{"prompt": "a"}\n{"prompt": "a"}\n', ["twice"]),
        (b'{"prompt": "a", "id": 1}\n{"prompt": "b", "id": 1}\n', ["id 1", "twice"]),
        (b'{"prompt": "a"}\n', ["no prompt with split 'train'"]),
        (b'{"prompt": "\xff"}\n', ["not UTF-8"]),
    ],
)
def test_a_wrong_prompts_file_is_refused_with_its_line(
    workspace: Workspace, sweep: Callable[..., Ended], content: bytes, parts: list[str]
) -> None:
    (workspace.folder / "other.jsonl").write_bytes(content)
    check_refused(sweep(replace=("prompts.jsonl", "other.jsonl")), "other.jsonl", *parts)


def look_at_prompts(config: Path, store: Path) -> dict[str, Any]:
    """Run the checks of a sweep in this process; the manifest of the last."""
    artifacts, checks = Store(store), make_plan(load_config(config)).checks
    for stage in checks:
        run_stage(stage, artifacts, ModelCache(), lambda done, total: None)
    return artifacts.manifest(checks[-1])


def test_a_prompt_longer_than_the_context_is_refused_with_both_lengths(workspace: Workspace) -> None:
    write_prompts(workspace.folder / "long.jsonl", ["the cat", "the dog", "cat " * 42])
    with pytest.raises(ValueError, match=r"prompt '3' has 43 tokens and sampling.max_tokens is 6.* context holds 48"):
        look_at_prompts(workspace.config(prompts="long.jsonl"), workspace.store)


def test_chat_messages_need_a_chat_template_and_text_without_one_is_warned_of(
    workspace: Workspace, tiny_chat_model: Path
) -> None:
    write_prompts(workspace.folder / "chat.jsonl", [[{"role": "user", "content": text}] for text in ("cat", "dog")])
    with pytest.raises(ValueError, match="no chat template"):
        look_at_prompts(workspace.config(prompts="chat.jsonl"), workspace.store)
    assert "no chat template" in look_at_prompts(workspace.config(), workspace.store)["warnings"][0]
    config = workspace.config(prompts="chat.jsonl", policy=str(tiny_chat_model))
    manifest = look_at_prompts(config, workspace.store)
    assert manifest["warnings"] == []
    assert manifest["first"]["text"] == "<s> user cat assistant"


def test_the_look_at_the_prompts_ends_a_sweep_with_exit_2_and_one_line(
    workspace: Workspace, nashbench: Command
) -> None:
    write_prompts(workspace.folder / "long.jsonl", ["the cat", "the dog", "cat " * 42])
    ended = nashbench(*workspace.arguments(workspace.config(prompts="long.jsonl")))
    check_refused(ended, "prompt '3' has 43 tokens", "Shorten the prompt or lower sampling.max_tokens")
    assert [p.name for p in workspace.store.iterdir() if p.is_dir()] == ["tmp"]


def test_a_boards_question_longer_than_the_context_is_refused_before_training_with_its_id(
    workspace: Workspace, nashbench: Command, tiny_chat_model: Path
) -> None:
    turns = [["the cat", "a dog"], ["the cat " * 10, "a dog " * 12]]
    rows = [{"question_id": 81 + i, "category": "math", "turns": two} for i, two in enumerate(turns)]
    (workspace.folder / "bench").mkdir()
    workspace.write("bench/question.jsonl", "\n".join(map(json.dumps, rows)))
    boards = ["head-to-head", {"name": "mt-bench", "data": "bench"}]
    config = workspace.config(policy=str(tiny_chat_model), leaderboards=boards)
    ended = nashbench(*workspace.arguments(config))
    # Of the second turn: <s> user, 20 words, assistant; an answer not known yet; user, 24 words, assistant: 49 tokens.
    error = ended.err.splitlines()[-1]
    assert ended.code == 2
    assert "mt-bench: questions: the policy's context of 48 tokens leaves 0 for the answer to question '82/2'" in error
    assert "the board's max_tokens is 1024. Take the question out" in error
    assert {p.name for p in workspace.store.iterdir() if p.is_dir()} == {"tmp", "prompts"}


def test_a_look_at_the_questions_counts_them_and_is_made_once_a_board(workspace: Workspace) -> None:
    rows = [{"instruction": text, "output": "a", "generator": "b", "dataset": "d"} for text in ("the cat", "a big dog")]
    (workspace.folder / "outputs").mkdir()
    workspace.write("outputs/model_outputs.json", json.dumps(rows))
    boards = ["head-to-head", {"name": "alpaca-eval", "data": "outputs"}]
    config = workspace.config(leaderboards=boards)
    assert [stage.kind for stage in make_plan(load_config(config)).checks] == ["prompts", "questions"]
    manifest = look_at_prompts(config, workspace.store)
    assert manifest["questions"] == 2
    # 48 tokens less <s> and three words leave 44; less than a step of lengths is left as it is.
    assert manifest["warnings"] == [
        "alpaca-eval: max_tokens is 2048, and the policy's context leaves 2 of 2 answers less, 44 the least"
    ]


# --- a model's folder --------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("inline")
def test_weights_that_cannot_be_read_are_the_users_and_told_in_one_line(
    workspace: Workspace, nashbench: Command
) -> None:
    folder = shutil.copytree(workspace.model, workspace.folder / "cut")
    (folder / "model.safetensors").write_bytes((workspace.model / "model.safetensors").read_bytes()[:1000])
    ended = nashbench(*workspace.arguments(workspace.config(policy=str(folder))))
    check_refused(ended, f"policy {folder} cannot be loaded", "give a Hugging Face checkpoint")


@pytest.mark.parametrize("error", [UserError, TrainingError, JudgeError, BoardError])
def test_what_a_package_calls_the_users_is_told_by_its_text_and_any_other_value_error_is_a_bug(
    error: type[ValueError],
) -> None:
    assert failure_message(error("lower it")) == ("failed", "lower it")
    assert failure_message(ValueError("lower it"))[0] == "bug"


@pytest.mark.parametrize(
    ("gone", "fact"),
    [
        ("config.json", "no config.json"),
        ("model.safetensors", "no *.safetensors in the folder; it has no weights"),
        ("tokenizer*", "no tokenizer"),
    ],
)
def test_a_model_folder_that_lacks_a_part_is_refused_by_that_part(
    workspace: Workspace, nashbench: Command, gone: str, fact: str
) -> None:
    broken = workspace.folder / "broken"
    shutil.copytree(workspace.model, broken)
    for file in broken.glob(gone):
        file.unlink()
    check_refused(nashbench("sweep", str(workspace.config(policy="broken"))), "broken", fact)


def test_weights_of_another_format_are_named(workspace: Workspace, nashbench: Command) -> None:
    broken = workspace.folder / "broken"
    shutil.copytree(workspace.model, broken)
    (broken / "model.safetensors").rename(broken / "pytorch_model.bin")
    ended = nashbench("sweep", str(workspace.config(policy="broken")))
    check_refused(ended, "pytorch_model.bin", "convert it to safetensors")


# --- paths -------------------------------------------------------------------------------------------------------


def test_paths_in_a_config_are_relative_to_its_folder_wherever_one_stands(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    shutil.copytree(workspace.model, workspace.folder / "model")
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    config = load_config(workspace.config(policy=["model", "./model", "some-hub-id", "someone/some-model"]))
    inside = str(workspace.folder / "model")
    assert config.policy == (inside, inside, "some-hub-id", "someone/some-model")
    assert config.prompts == str(workspace.folder / "prompts.jsonl")
    assert config.matrix.judge[0].options["panel"] == str(workspace.folder / "panel.yaml")


def test_a_bare_name_in_an_option_that_is_a_path_lies_beside_the_config(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    (workspace.folder / "mine").mkdir()
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    grader = {"name": "llm", "model": "some-hub-id", "cache": "replies", "labels": ["A", "B"]}
    members = [{"name": "pairrm", "model": "mine"}, {"name": "llm", "model": "gpt-4", "cache": "c/d"}]
    boards = [{"name": "mt-bench", "data": "mt_bench"}, {"name": "lm-eval", "tasks": "mine"}]
    judges = [{"name": "pairrm", "model": ["mine", "other"]}, {"name": "panel", "panel": "panel"}, {"name": "nobody"}]
    config = load_config(
        workspace.config(
            matrix={"trainer": ["dpo"], "judge": judges},
            graders=[grader, {"name": "ensemble", "judges": members}],
            leaderboards=boards,
        )
    )
    beside, (llm, ensemble) = str(workspace.folder), config.graders or ()
    assert llm.options == {"model": "some-hub-id", "cache": f"{beside}/replies", "labels": ["A", "B"]}
    assert [m["model"] for m in ensemble.options["judges"]] == [f"{beside}/mine", "gpt-4"]
    assert ensemble.options["judges"][1]["cache"] == f"{beside}/c/d"
    assert [board.options for board in config.leaderboards] == [{"data": f"{beside}/mt_bench"}, {"tasks": "mine"}]
    assert [judge.options for judge in config.matrix.judge] == [
        {"model": [f"{beside}/mine", "other"]},
        {"panel": f"{beside}/panel"},
        {},
    ]


def test_paths_of_an_override_are_relative_to_the_working_directory(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    here = tmp_path_factory.mktemp("here")
    shutil.copytree(workspace.model, here / "mine")
    monkeypatch.chdir(here)
    settings = ["policy=mine", "prompts=more/p.jsonl", "matrix.judge=[{name: panel, panel: ../p.yaml}]"]
    settings.append("leaderboards=[{name: mt-bench, data: questions}]")
    config = load_config(workspace.config(), settings)
    assert config.leaderboards[0].options["data"] == str(here / "questions")
    assert config.policy == (str(here / "mine"),)
    assert config.prompts == str(here / "more" / "p.jsonl")
    assert config.matrix.judge[0].options["panel"] == str(here.parent / "p.yaml")


def test_a_folder_called_like_a_trainer_does_not_turn_the_trainer_into_a_path(workspace: Workspace) -> None:
    for name in ("dpo", "panel", "small"):
        (workspace.folder / name).mkdir()
    config = load_config(workspace.config(matrix={"trainer": ["dpo", {"name": "dpo", "beta": 1}], "judge": ["panel"]}))
    assert [entry.name for entry in (*config.matrix.trainer, *config.matrix.judge)] == ["dpo", "dpo", "panel"]
    assert config.name == "small"


def test_an_override_may_set_what_the_file_lacks_and_numbers_like_5e_7_are_numbers(workspace: Workspace) -> None:
    config = load_config(workspace.config(training=None), ["training.lr=5e-7", "training.epochs=2", "pairs.label=soft"])
    assert (config.training.lr, config.training.epochs, config.pairs.label) == (5e-7, 2, "soft")


def test_a_json_text_may_hold_line_separators(workspace: Workspace) -> None:
    from harness.prompts import read_prompts

    lines = [json.dumps({"prompt": text}, ensure_ascii=False) for text in ("a\u2028b", "c\x85d", "e")]
    path = workspace.write("separators.jsonl", "\n".join(lines))
    assert {record.prompt for record in read_prompts(str(path), 0)} == {"a\u2028b", "c\x85d", "e"}
