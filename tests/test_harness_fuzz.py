"""Mutated configs and data files: read, or refused by one short message that names the file; never anything else."""

from __future__ import annotations

import json
import random
import re
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import PANEL

from harness.cli.judges import audit
from harness.cli.rate import rate
from harness.config import load_config
from harness.planning.plan import make_plan
from harness.prompts import read_prompts
from harness.registry import make
from judges import HumanJudge, PanelJudge, RecordedJudge
from judges.files import read_labels, read_pairs, read_verdicts
from trainers.games import load_game

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.yaml"))
SECONDS = 60
"""What no case takes, on a machine with others at work."""
LONGEST = 300
TEXT = "a very long text " * 300
VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1, 2, 3, 7, 10**9, 2**63, 10**40, -(10**25), 0.0, 0.5, -0.5, 1e-300, 1e308),
    *(float("nan"), float("inf"), [], {}, [[]], [{}], {"a": 1}, {1: 2}, [None], "", " ", "0", "x", "nan", "pocket"),
    *("dpo", "onpo", "panel", "llm", "head-to-head", "~nobody/", "~", "~/", "../..", "/", "/dev/null/x", ".", "a\nb"),
    *("a\0b", "\ud800", "é", "é" * 200, "x" * 5000, TEXT, "x/" * 3000, "prompts.jsonl", "panel.yaml", "game.csv"),
    *("http://", "http://h/v1", "http://[", "http://h:99999999/", "random(actions=1e9)", "random(a=1)", "condorcet()"),
    *({"name": "dpo"}, {"name": "dpo", "beta": [1, 2]}, {"name": 3}, {"name": "panel", "panel": "panel.yaml"}),
    *({"game": "cyc3"}, {"game": "game.csv", "label": "g"}, {"endpoint": "http://h/v1", "model": "m"}),
    *({"name": "llm", "labels": [["A", "B"]]}, {"name": "ensemble", "judges": [["panel", "llm"]]}, ["dpo", "dpo"]),
]
SNIPPETS = [
    *(
        "!!timestamp x",
        "2024-01-01",
        "2024-13-45",
        "!!binary x",
        "!!set {a}",
        "!x y",
        "!!int x",
        "!!float x",
        "!!bool x",
    ),
    *("&a [*a]", "*a", "<<: 3", "{a: 1, a: 2}", "? [a]\n: b", ".nan", "-.inf", "1e999", "0x" + "f" * 5000, "9" * 5000),
    *(
        "[" * 3000,
        "{a: " * 200,
        "- - - -",
        "'",
        '"\\0"',
        '"\\ud800"',
        "\t",
        "\0",
        "=",
        "1:2:3:4",
        "yes",
        "---\na: 1\n---",
    ),
    *(
        "&b {<<: *b}",
        '"\\x00"',
        "%YAML 9",
        "@",
        "`",
        "{",
        "]",
        ": :",
        "a: b: c",
        "\ufeff",
        "!!python/object:os.system x",
    ),
    "[&c [x,x,x,x,x,x,x,x], " + "".join(f"&{b} [{f'*{a},' * 8}], " for a, b in pairwise("cdefgh")) + "*h]",
]
KEYS = [
    "name",
    "label",
    "options",
    "place",
    "_place",
    "game",
    "endpoint",
    "model",
    "panel",
    "limit",
    "",
    "x" * 4000,
    "é",
]
RICH = [
    """\
name: rich
policy: [MODEL, {endpoint: "http://localhost:1/v1", model: served, label: theirs}]
prompts: prompts.jsonl
matrix:
  trainer: [{name: dpo, beta: [0.1, 1], label: dpo}, {name: nash-md, tau: 0.1, mixture: 0.125}, egpo, slic-hf, onpo]
  judge:
    - {name: panel, panel: panel.yaml}
    - {name: ensemble, judges: [[{name: panel, panel: panel.yaml}, {name: human, labels: labels.jsonl}]]}
  seed: [0, 1]
iterations: 2
prompts_per_iteration: 8
sampling: {k: 4, temperature: 0.7, top_p: 0.9, max_tokens: 8, batch_size: 16}
pairs: {protocol: iid, label: soft, orders: both}
training: {lr: 1.0e-3, epochs: 2, batch_size: 4, lora: {r: 4, alpha: 8, targets: [q_proj]}, precision: fp32}
graders: [{name: human, labels: labels.jsonl}, {name: recorded, verdicts_file: verdicts.jsonl, pairs_file: pairs.jsonl}]
leaderboards:
  - {name: head-to-head, limit: 4, curve_limit: 2}
  - {name: alpaca-eval, data: alpaca, orders: both}
  - {name: mt-bench, data: mt}
exclude: [{policy: theirs}, {trainer: slic-hf, seed: 1}]
include: [{trainer: {name: ipo, tau: 0.5}, seed: 7}]
""",
    """\
name: judged
policy: MODEL
prompts: prompts.jsonl
matrix:
  trainer: [{name: inpo, eta: 1.0, tau: 0.5}, rl, self-play]
  judge:
    - {name: llm, base_url: "http://localhost:1/v1", model: m, protocol: custom, repeat: 2, text_verdicts: true}
    - {name: llm, base_url: "http://localhost:1/v1", model: m, protocol: mt-bench, label: mt, prices: prices.yaml}
leaderboards: [{name: arena-hard, data: arena, curve_limit: 0}]
""",
    """\
name: games
policy: [{game: game.csv, label: mine}, {game: "random(actions=4, seed=1)"}]
matrix: {trainer: [{name: omd, eta: 0.5}, {name: egpo, tau: 0.1}], judge: [game], seed: [0, 3]}
iterations: 8
training: {lr: 0.2}
leaderboards: [duality-gap]
""",
]


# --- the files ---------------------------------------------------------------------------------------------------


def lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


PAIRS = [{"id": i, "prompt": f"the {i}", "first": "red cat", "second": "big dog"} for i in range(4)]
LABELS = [p | {"label": v} for p, v in zip(PAIRS, ("first", "tie", ["first", "second"], "second"), strict=True)]
VERDICTS = [
    {"id": i, "order": order, "preference": 0.25 * i, "status": "ok", "latency": 0.1, "input_tokens": 3}
    for i in range(4)
    for order in ("original", "swapped")
]
PROMPTS = [
    {"prompt": [{"role": "user", "content": f"the {i}"}] if i % 3 else f"the {i}", "id": i, "split": split}
    for i, split in enumerate(("train", "train", "heldout", "train", "heldout"))
]
ANNOTATIONS = [
    {
        "instruction": f"do {i}",
        "output_1": "one",
        "output_2": "two words",
        "generator_1": "base",
        "generator_2": "m",
        "annotator": "a",
        "preference": 1.25 + i / 10,
    }
    for i in range(5)
]
GAME = {"score": "A>B"}
BATTLES = [{"question_id": f"q{i}", "model": "m", "judge": "j", "games": [GAME, {"score": "B>>A"}]} for i in range(4)]
JUDGMENTS = [
    {"question_id": 81 + i, "model": "m", "judge": ["j", "single-v1"], "turn": t, "score": 5 + i}
    for i in range(3)
    for t in (1, 2)
]
QUESTIONS = [{"question_id": 81 + i, "category": "writing", "turns": ["one?", "two?"]} for i in range(3)]
ARENA = [{"uid": f"q{i}", "category": "hard_prompt", "prompt": f"the {i}"} for i in range(3)]
ANSWERS = [
    {"uid": f"q{i}", "model": "b", "messages": [{"role": "assistant", "content": {"answer": "x"}}]} for i in range(3)
]
FILES: dict[str, str] = {
    "prompts.jsonl": lines(PROMPTS),
    "pairs.jsonl": lines(PAIRS),
    "labels.jsonl": lines(LABELS),
    "verdicts.jsonl": lines(VERDICTS),
    "panel.yaml": PANEL,
    "game.csv": "0.5,0.9,0.2\n0.1,0.5,0.7\n0.8,0.3,0.5\n",
    "annotations.json": json.dumps(ANNOTATIONS),
    "battles.jsonl": lines(BATTLES),
    "judgments.jsonl": lines(JUDGMENTS),
    "questions.jsonl": lines(QUESTIONS),
    "prices.yaml": "m: {input: 1.0, output: 2.0}\n",
    "alpaca/model_outputs.json": json.dumps(
        [{"instruction": f"do {i}", "output": "x", "generator": "b"} for i in range(3)]
    ),
    "mt/question.jsonl": lines(QUESTIONS),
    "arena/question.jsonl": lines(ARENA),
    "arena/model_answer/b.jsonl": lines(ANSWERS),
}


def board(name: str, folder: str) -> Callable[[Path], Any]:
    """Make a leaderboard over the questions beside a file and look at them, as planning and the first stage do."""

    def check(path: Path) -> None:
        root = path.parent if path.parent.name == folder else path.parent.parent
        made = make("leaderboards", name, {"data": str(root)})
        made.check()
        made.requests([], 0.0, "rest")

    return check


def priced(path: Path) -> None:
    make("judges", "llm", {"base_url": "http://localhost:1/v1", "model": "m", "prices": str(path)})


READERS: list[tuple[str, Callable[[Path], Any]]] = [
    ("prompts.jsonl", lambda path: read_prompts(str(path), 0)),
    ("pairs.jsonl", read_pairs),
    ("labels.jsonl", read_labels),
    ("labels.jsonl", HumanJudge),
    ("labels.jsonl", lambda path: audit("recorded", path, path.with_name("verdicts.jsonl"), None, 1, None, True)),
    ("verdicts.jsonl", read_verdicts),
    ("verdicts.jsonl", lambda path: RecordedJudge(path, path.with_name("pairs.jsonl"))),
    ("verdicts.jsonl", lambda path: audit("recorded", path.with_name("labels.jsonl"), path, None, 1, None, True)),
    ("panel.yaml", lambda path: PanelJudge(path).compare(["the red"], ["red cat"], ["dog"])),
    ("game.csv", load_game),
    ("annotations.json", lambda path: rate("alpaca-eval", path, json=True)),
    ("battles.jsonl", lambda path: rate("arena-hard", path, json=True)),
    ("judgments.jsonl", lambda path: rate("mt-bench", path, None, path.with_name("questions.jsonl"), json=True)),
    ("questions.jsonl", lambda path: rate("mt-bench", path.with_name("judgments.jsonl"), None, path, json=True)),
    ("prices.yaml", priced),
    ("alpaca/model_outputs.json", board("alpaca-eval", "alpaca")),
    ("mt/question.jsonl", board("mt-bench", "mt")),
    ("arena/question.jsonl", board("arena-hard", "arena")),
    ("arena/model_answer/b.jsonl", board("arena-hard", "arena")),
]


def fill(folder: Path) -> Path:
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    model = folder / "model"
    model.mkdir()
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (model / name).write_text("{}")
    shutil.copytree(EXAMPLES[0].parent / "stories", folder / "stories")
    shutil.copytree(model, folder / "stories260k")
    return folder


# --- mutations ---------------------------------------------------------------------------------------------------


def mutated_value(chance: random.Random, value: Any) -> Any:
    """A value of the document replaced, taken out, doubled, or given a key; somewhere in it."""
    if isinstance(value, dict) and value and chance.random() < 0.85:
        return _mutated_mapping(chance, value)
    if isinstance(value, list) and value and chance.random() < 0.8:
        place = chance.randrange(len(value))
        kind = chance.random()
        if kind < 0.7:
            return [mutated_value(chance, v) if i == place else v for i, v in enumerate(value)]
        return [*value, value[place]] if kind < 0.85 else value[:place] + value[place + 1 :]
    return chance.choice(VALUES)


def _mutated_mapping(chance: random.Random, value: dict[Any, Any]) -> dict[Any, Any]:
    key = chance.choice(list(value))
    kind = chance.random()
    if kind < 0.8:
        return value | {key: mutated_value(chance, value[key])}
    if kind < 0.9:
        return {k: v for k, v in value.items() if k != key}
    new = chance.choice([*KEYS, f"{key}s", *value])
    return value | {new: chance.choice(VALUES)}


def mutated_text(chance: random.Random, text: str) -> bytes:
    """A text with a piece put in, taken out or moved, or bytes that are no text."""
    start, end = sorted(chance.choices(range(len(text) + 1), k=2))
    kind = chance.randrange(7)
    if kind == 0:
        return text[:start].encode("utf-8", "surrogatepass")
    if kind == 1:
        return (text[:start] + chance.choice(SNIPPETS) + text[start:]).encode("utf-8", "surrogatepass")
    if kind == 2:
        return (text[:start] + text[min(end, start + 20) :]).encode()
    if kind == 3:
        values = list(re.finditer(r"(?<=: )[^\s,{}\[\]]+", text)) or list(re.finditer(r"\w+", text))
        match = chance.choice(values)
        return (text[: match.start()] + chance.choice(SNIPPETS) + text[match.end() :]).encode("utf-8", "surrogatepass")
    if kind == 4:
        broken = bytearray(text.encode())
        for _ in range(chance.randint(1, 8)):
            broken[chance.randrange(len(broken))] = chance.randrange(256)
        return bytes(broken)
    if kind == 5:
        piece = chance.choice(text.splitlines(keepends=True))
        return (text + piece * chance.randint(1, 3)).encode()
    return chance.choice([b"\xef\xbb\xbf" + text.encode(), text.encode("utf-16"), b"", b"\0" * 100, text.encode() * 2])


def mutated_config(chance: random.Random, text: str) -> bytes:
    if chance.random() < 0.4:
        return mutated_text(chance, text)
    content = yaml.safe_load(text)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        content = mutated_value(chance, content)
        content = content if isinstance(content, dict) else {"name": content}
    return yaml.safe_dump(content, allow_unicode=chance.random() < 0.5).encode("utf-8", "surrogatepass")


def mutated_file(chance: random.Random, name: str, text: str) -> bytes:
    if chance.random() < 0.4 or name.endswith(".csv"):
        return mutated_text(chance, text)
    if name.endswith(".jsonl"):
        rows = text.splitlines()
        place = chance.randrange(len(rows))
        rows[place] = json.dumps(mutated_value(chance, json.loads(rows[place])))
        return ("\n".join(rows) + "\n").encode()
    if name.endswith(".json"):
        return json.dumps(mutated_value(chance, json.loads(text))).encode()
    return yaml.safe_dump(mutated_value(chance, yaml.safe_load(text))).encode("utf-8", "surrogatepass")


# --- the rule ----------------------------------------------------------------------------------------------------


@contextmanager
def bounded() -> Iterator[None]:
    def ring(*_: Any) -> None:
        raise TimeoutError(f"not done in {SECONDS} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


NAMES = tuple(name.rpartition("/")[2] for name in FILES)


def fault(check: Callable[[], Any], folder: Path, names: Sequence[str]) -> str:
    """What is wrong with how a case ended; empty where it was read, or refused as it should be."""
    try:
        with bounded():
            check()
    except ValueError as error:
        message = str(error).replace(str(folder), "")
        if type(error).__module__ == "builtins" and type(error) is not ValueError:
            return f"{type(error).__name__}: {message[:300]}"
        if len(message) >= LONGEST:
            return f"{len(message)} characters: {message[:400]}"
        return "" if any(name in message for name in names) else f"without the file's name: {message}"
    except BaseException as error:
        return f"{type(error).__name__}: {str(error)[:300]}"
    return ""


def faults_of_configs(folder: Path, seeds: range) -> list[str]:
    texts = [path.read_text() for path in EXAMPLES] + [text.replace("MODEL", str(folder / "model")) for text in RICH]
    found = []
    for seed in seeds:
        chance = random.Random(seed)
        path = folder / "sweep.yaml"
        path.write_bytes(mutated_config(chance, texts[seed % len(texts)]))
        if wrong := fault(lambda path=path: make_plan(load_config(path)), folder, ("sweep.yaml",)):  # type: ignore[misc]
            found.append(f"config {seed}: {wrong}")
    return found


def faults_of_files(folder: Path, seeds: range) -> list[str]:
    found = []
    for seed in seeds:
        chance = random.Random(seed)
        name, read = READERS[seed % len(READERS)]
        path = folder / name
        path.write_bytes(mutated_file(chance, name, FILES[name]))
        if wrong := fault(lambda read=read, path=path: read(path), folder, NAMES):  # type: ignore[misc]
            found.append(f"file {seed} ({name}): {wrong}")
        path.write_text(FILES[name], encoding="utf-8")
    return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    return fill(tmp_path)


def test_what_is_mutated_is_valid_before(folder: Path) -> None:
    for text in RICH:
        (folder / "sweep.yaml").write_text(text.replace("MODEL", str(folder / "model")))
        assert make_plan(load_config(folder / "sweep.yaml")).cells
    for name, read in READERS:
        read(folder / name)


def test_a_mutated_config_is_planned_or_refused_in_one_short_message(folder: Path) -> None:
    assert faults_of_configs(folder, range(200)) == []


def test_a_mutated_data_file_is_read_or_refused_in_one_short_message(folder: Path, capsys: Any) -> None:
    assert faults_of_files(folder, range(100)) == []


@pytest.mark.slow
def test_ten_thousand_mutated_configs_are_planned_or_refused_in_one_short_message(folder: Path) -> None:
    assert faults_of_configs(folder, range(1000, 11_000)) == []


@pytest.mark.slow
def test_five_thousand_mutated_data_files_are_read_or_refused_in_one_short_message(folder: Path, capsys: Any) -> None:
    assert faults_of_files(folder, range(1000, 6_000)) == []
