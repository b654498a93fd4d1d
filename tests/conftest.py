"""What many tests share: tiny random language models with word tokenizers, a panel, prompts, and a command line."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if TYPE_CHECKING:
    from harness.run.executor import Listener
    from harness.stage import Stage
    from harness.store.artifacts import Store
    from trainers.policies.causal_lm import CausalLM

WORDS = (
    "red",
    "blue",
    "green",
    "big",
    "small",
    "cat",
    "dog",
    "bird",
    "runs",
    "jumps",
    "sleeps",
    "and",
    "the",
    "a",
    "it",
)
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {% endfor %}"
    "{% if add_generation_prompt %}assistant {% endif %}"
)
CONTEXT = 48
PANEL = """\
features:
  colour: {lexicon: [red, blue, green]}
  animal: {lexicon: [cat, dog, bird]}
  verb: {lexicon: [runs, jumps, sleeps]}
annotators:
  - {name: painter, weight: 0.4, utility: {colour: 2, animal: 1}}
  - {name: zoologist, weight: 0.35, utility: {animal: 2, verb: 1}}
  - {name: runner, weight: 0.25, utility: {verb: 2, colour: 1}}
scale: 4
"""


def write_tiny_model(folder: Path, *, chat: bool = False, seed: int = 0) -> Path:
    """A random Llama of 2 layers and hidden 32 over a few words, as an ordinary checkpoint."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    vocabulary = ("<s>", "</s>", "<unk>", "user", "assistant", *WORDS)
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", model_max_length=CONTEXT
    )
    fast.chat_template = CHAT_TEMPLATE if chat else None
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        initializer_range=0.3,  # a peaked, context-dependent law: an untrained model of the usual range is near uniform
        bos_token_id=0,
        eos_token_id=1,
        tie_word_embeddings=False,
    )
    torch.manual_seed(seed)
    LlamaForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose tokenizer has no chat template."""
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def tiny_chat_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose tokenizer has a chat template."""
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny-chat", chat=True)


@pytest.fixture(scope="session")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Other weights over the same words."""
    return write_tiny_model(tmp_path_factory.mktemp("models") / "other", seed=1)


@pytest.fixture
def policy(tiny_model: Path) -> CausalLM:
    from trainers.policies.causal_lm import CausalLM

    return CausalLM.load(tiny_model)


@pytest.fixture
def reference(other_model: Path) -> CausalLM:
    from trainers.policies.causal_lm import CausalLM

    return CausalLM.load(other_model)


def write_prompts(path: Path, prompts: Sequence[Any]) -> Path:
    """A JSONL file of prompts."""
    path.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts), encoding="utf-8")
    return path


@pytest.fixture
def workspace(tmp_path: Path, tiny_model: Path) -> Workspace:
    """A folder with prompts, a panel, and a small config of a language-model sweep."""
    write_prompts(tmp_path / "prompts.jsonl", [f"the {a} {b}" for a in WORDS[:5] for b in WORDS[5:8]])
    (tmp_path / "panel.yaml").write_text(PANEL, encoding="utf-8")
    return Workspace(tmp_path, tiny_model)


@dataclass
class Workspace:
    """Writes configs and calls the command line in this process, as a user would from this folder."""

    folder: Path
    model: Path

    def config(self, file: str = "sweep.yaml", /, **changes: Any) -> Path:
        """A small sweep of one trainer under the panel, with these top-level keys changed (None takes a key out)."""
        import yaml

        content: dict[str, Any] = {
            "name": "small",
            "policy": str(self.model),
            "prompts": "prompts.jsonl",
            "matrix": {"trainer": [{"name": "dpo"}], "judge": [{"name": "panel", "panel": "panel.yaml"}]},
            "iterations": 1,
            "prompts_per_iteration": 4,
            "sampling": {"k": 2, "max_tokens": 6},
            "training": {"lr": 0.001, "batch_size": 4, "precision": "fp32", "max_length": 40},
            "leaderboards": ["head-to-head"],
        } | changes
        path = self.folder / file
        path.write_text(yaml.safe_dump({k: v for k, v in content.items() if v is not None}), encoding="utf-8")
        return path

    def write(self, name: str, text: str) -> Path:
        (self.folder / name).write_text(text, encoding="utf-8")
        return self.folder / name

    @property
    def store(self) -> Path:
        return self.folder / "store"

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def arguments(self, config: Path, *more: str, out: Path | None = None, store: Path | None = None) -> list[str]:
        return ["sweep", str(config), "--out", str(out or self.out), "--store", str(store or self.store), *more]


@pytest.fixture
def nashbench(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """The command line in this process: `nashbench("plan", "x.yaml")` gives exit code, stdout and stderr."""
    from harness import cli

    def call(*arguments: str) -> Ended:
        monkeypatch.setattr("sys.argv", ["nashbench", *arguments])
        capsys.readouterr()
        try:
            cli.main()
            code: Any = 0
        except SystemExit as end:
            code = end.code or 0
        said = capsys.readouterr()
        return Ended(code, said.out, said.err)

    return call


def install(folder: Path, name: str, entries: str, module: str = "") -> Path:
    """A package as `pip install --target` leaves it: the module and its metadata."""
    metadata = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(entries)
    if module:
        (folder / f"{name.replace('-', '_')}.py").write_text(module)
    return folder


class InlineExecutor:
    """Runs stages in this process, to spare a worker's start; how a worker behaves is tested with a real one."""

    def __init__(self, store: Store, jobs: int = 1) -> None:
        self.store = store

    def __enter__(self) -> InlineExecutor:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def execute(self, stages: Sequence[Stage], listener: Listener) -> None:
        from harness.run.worker import failure_message
        from harness.stages.context import ModelCache
        from harness.stages.running import run_stage

        failed: dict[str, str] = {}
        models = ModelCache()
        for stage in stages:
            needed = [source.key for source in stage.inputs.values() if source.key not in stage.optional]
            reason = next((failed[key] for key in needed if key in failed), None)
            computed = not self.store.has(stage)
            if reason is None:
                listener.started(stage)
                try:
                    run_stage(stage, self.store, models, lambda done, total: None)
                    listener.finished(stage, computed)
                    continue
                except Exception as error:
                    kind, text, *_ = failure_message(error)
                    if kind != "failed":  # a bug shows itself in the test
                        raise
                    reason = f"{stage.title}: {text}"
            failed[stage.key] = reason
            listener.failed(stage, reason, "")


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sweeps of this test run in this process."""
    monkeypatch.setattr("harness.run.sweep.LocalExecutor", InlineExecutor)


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


def check_refused(ended: Ended, *parts: str) -> None:
    """Exit 2, nothing on stdout, one line on stderr that holds these parts."""
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("error: ")
    assert ended.err.count("\n") == 1, ended.err
    for part in parts:
        assert part in ended.err
