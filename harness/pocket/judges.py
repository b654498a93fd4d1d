"""The pocket world's trained judges: ordinary checkpoints, fitted to the panel's votes on the base policy's samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

PANEL = Path(__file__).with_name("panel.yaml")
PAIRS, VOTES_A_PAIR, HOLDOUT = 8192, 49, 0.2
MAX_TOKENS = 24
TEMPLATE = "{{ prompt }} first : {{ first }} second : {{ second }} better ?"
OPTIONS: dict[str, dict[str, Any]] = {
    "reward-model": {"batch_size": 256},
    "pairrm": {"batch_size": 256},
    "llm": {"batch_size": 256, "labels": ("first", "second"), "template": TEMPLATE},
}
"""The judges that are trained here, with the options they are used with."""
RECIPES: dict[str, dict[str, float]] = {
    "reward-model": {"epochs": 1.0, "lr": 1e-3, "batch_size": 32},
    "pairrm": {"epochs": 1.8, "lr": 8e-4, "batch_size": 16},
    "llm": {"epochs": 1.6, "lr": 1.5e-3, "batch_size": 16},
}
"""How they are trained. A judge that reads two responses starts to learn only after some hundred steps, so small
batches serve it better.
"""


def write_votes(policy: Any, out: Path, *, seed: int, pairs: int = PAIRS) -> dict[str, Any]:
    """Write `labels.jsonl`: two samples of the base policy to each of `pairs` training prompts, and the panel's votes.

    Returns how many pairs were written; pairs of equal texts are left out.
    """
    import torch

    from harness.pocket.grammar import prompts
    from judges.panel import PanelJudge
    from trainers.options import Sampling

    training = prompts(seed)["train"]
    records = [training[i % len(training)] for i in range(pairs)]
    generator = torch.Generator(device=policy.model.device).manual_seed(seed)
    encoded = [policy.encode(record["prompt"]) for record in records]
    drawn = policy.sample(encoded, 2, Sampling(max_tokens=MAX_TOKENS), generator)
    rows = [(r["prompt"], a.text, b.text) for r, (a, b) in zip(records, drawn, strict=True) if a.text != b.text]
    votes = PanelJudge(PANEL).simulate_votes(*map(list, zip(*rows, strict=True)), votes=VOTES_A_PAIR, seed=seed)
    with (out / "labels.jsonl").open("w", encoding="utf-8") as file:
        for i, ((prompt, first, second), won) in enumerate(zip(rows, votes, strict=True)):
            label = np.where(won, "first", "second").tolist()
            row = {"id": str(i), "prompt": prompt, "first": first, "second": second, "label": label}
            file.write(json.dumps(row) + "\n")
    return {"pairs": len(rows)}


def train(name: str, labels: Path, base_policy: Path, out: Path, *, seed: int, progress: Any = None) -> dict[str, Any]:
    """Train a judge of `OPTIONS` and save it; the figures of `judges.train.train_judge` on held-out prompts.

    The reward model and the language-model judge start from the base policy's weights; the ranker is an encoder with
    the policy's word embeddings and random weights.
    """
    from judges.train import train_judge

    base = _encoder(base_policy, out.with_name("encoder")) if name == "pairrm" else base_policy
    options = {key: value for key, value in OPTIONS[name].items() if key != "batch_size"}
    recipe: dict[str, Any] = {"max_length": 128, "holdout": HOLDOUT, "seed": seed, **RECIPES[name]}
    return dict(train_judge(name, labels, base, out, options=options, progress=progress, **recipe))  # type: ignore[arg-type]


def _encoder(base_policy: Path, folder: Path) -> Path:
    """A folder with a small DeBERTa to start from: the base policy's word embeddings, all else random.

    The initial weights are those of a narrow network (1 / sqrt(hidden size)), and positions are relative only: so the
    prefix tokens find their own response within the budget.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer, DebertaV2Config, DebertaV2Model, set_seed

    tokenizer = AutoTokenizer.from_pretrained(base_policy)
    config = DebertaV2Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=256,
        relative_attention=True,
        max_relative_positions=48,
        pos_att_type=["c2p"],
        position_biased_input=False,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=128**-0.5,
        pad_token_id=tokenizer.pad_token_id,
    )
    set_seed(0)
    encoder = DebertaV2Model(config)
    base: Any = AutoModelForCausalLM.from_pretrained(base_policy)
    words = base.get_input_embeddings().weight.detach()
    encoder.get_input_embeddings().weight.data.copy_(words / words.std() * config.initializer_range)
    encoder.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
