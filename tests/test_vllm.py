"""vLLM itself, on a processor: what the stand-ins of other tests only shape.

Runs in an environment with vLLM's CPU build: that of `NASHBENCH_VLLM_PYTHON`, or one that is built here (minutes, from
the package registry) by the script beside this checkout.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
WORDS = ["a cat", "the little dog", "one day Lily", "Tom and his mom", "a big red ball", "the sun", "in the park"]
JUDGE = {"name": "llm", "transport": {"name": "vllm", "dtype": "float32", "max_model_len": 256}}
TEMPLATE = "{{ first }} or {{ second }}? {{ labels[0] }} or {{ labels[1] }}"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (SHARED / "models" / "stories260k").is_dir(), reason="no trained tiny model beside this"),
]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    if given := os.environ.get("NASHBENCH_VLLM_PYTHON"):
        return given
    folder = tmp_path_factory.mktemp("vllm") / "env"
    subprocess.run([sys.executable, SHARED / "tools" / "vllm_cpu_env.py", folder, ROOT], check=True)
    return str(folder / "bin" / "python")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained tiny model with heads that vLLM's kernel takes, and a chat template."""
    out = tmp_path_factory.mktemp("model") / "head32"
    script = SHARED / "tools" / "stories_head32.py"
    subprocess.run([sys.executable, script, SHARED / "models" / "stories260k", out], check=True)
    return out.with_name("head32-chat")


def run(python: str, arguments: Sequence[Any], cwd: Path) -> str:
    env = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    ended = subprocess.run([python, *map(str, arguments)], env=env, cwd=cwd, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-4000:]
    return ended.stdout + ended.stderr


LAW = """
import json, sys
from collections import Counter
import torch
from trainers.options import Sampling
from trainers.policies.causal_lm import CausalLM

if __name__ == "__main__":
    policy = CausalLM.load(sys.argv[1])
    prompts = [policy.tokenizer.encode(text) for text in ("Once upon a time", "The dog")]
    found = []
    for scale in (1.0, 0.9):  # the second time with other weights, in the engine that is there
        with torch.no_grad():
            for weight in policy.parameters():
                weight.mul_(scale)
        drawn = policy.sample(prompts, 2048, Sampling(k=2048, engine="vllm", max_tokens=1), [1, 2])
        for prompt, responses in zip(prompts, drawn):
            with torch.inference_mode():
                law = policy.model(torch.tensor([prompt])).logits[0, -1].softmax(-1).double()
            counts = Counter(r.tokens[0] for r in responses)
            found.append([[float(p), counts[i]] for i, p in enumerate(law.tolist())])
    print("LAWS", json.dumps(found))
"""


def test_first_tokens_follow_the_models_law_before_and_after_new_weights_are_handed_over(
    python: str, model: Path, tmp_path: Path
) -> None:
    """The log-probabilities of the hand-over are checked by the engine itself, which fails where they differ."""
    from scipy.stats import chisquare

    (tmp_path / "law.py").write_text(LAW)
    said = run(python, [tmp_path / "law.py", model], tmp_path)
    laws = json.loads(said.partition("LAWS ")[2].splitlines()[0])
    assert len(laws) == 4
    for law in laws:
        likely = [(p, n) for p, n in law if p * 2048 >= 5]
        rest = (1 - sum(p for p, _ in likely), 2048 - sum(n for _, n in likely))
        cells = [*likely, rest] if rest[0] * 2048 >= 1 else likely
        share = sum(n for _, n in cells)
        expected = [p / sum(p for p, _ in cells) * share for p, _ in cells]
        assert chisquare([n for _, n in cells], expected).pvalue > 1e-3
    assert laws[0] != laws[2]


def likely_labels(model: Path) -> list[str]:
    """The two words that the model most likely begins a reply with: the labels of a judge that has no opinion."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    chat = [{"role": "user", "content": "a cat or the little dog? "}]
    text = str(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))
    with torch.inference_mode():
        ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
        ranked = AutoModelForCausalLM.from_pretrained(model)(ids).logits[0, -1].argsort(descending=True)
    words = [tokenizer.decode([int(token)]) for token in ranked[:20]]
    return [word for word in words if word.strip().isalpha()][:2]


def test_a_sweep_samples_and_is_graded_by_vllm_whose_judge_starts_once(
    python: str, model: Path, tmp_path: Path
) -> None:
    lines = [{"prompt": f"{word} {i}"} for i in range(4) for word in WORDS]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    protocol = {"name": "custom", "template": TEMPLATE, "labels": likely_labels(model), "min_label_mass": 0.0}
    judge = JUDGE | {"model": str(model), "protocol": protocol}
    config = {
        "name": "vllm",
        "policy": str(model),
        "prompts": "prompts.jsonl",
        "matrix": {
            "trainer": ["dpo", "onpo"],
            "judge": [{"name": "panel", "panel": str(ROOT / "examples" / "stories" / "panel.yaml")}],
        },
        "graders": [judge],
        "iterations": 2,
        "prompts_per_iteration": 8,
        "sampling": {"k": 2, "max_tokens": 8, "engine": "vllm"},
        "training": {"lr": 1e-4, "batch_size": 4, "precision": "fp32", "max_length": 64},
        "leaderboards": ["head-to-head"],
    }
    (tmp_path / "sweep.yaml").write_text(json.dumps(config))
    said = run(
        python, ["-m", "harness", "sweep", "sweep.yaml", "--jobs", "1", "--store", "store", "--out", "out"], tmp_path
    )
    cells = json.loads((tmp_path / "out" / "cells.json").read_text())
    assert {cell["state"] for cell in cells} == {"done"}, said[-3000:]
    import pandas as pd

    results = pd.read_csv(tmp_path / "out" / "results.csv")
    rates = results[results.metric == "win_rate"]
    assert len(rates) > 4
    assert rates.coverage.min() > 0.5
    assert len(list((tmp_path / "store" / "grade").glob("*/*"))) >= 4
    # the policies' engine and the judge's, for any number of stages
    assert said.count("Initializing a V1 LLM engine") <= 3
