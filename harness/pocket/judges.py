"""The pocket world's trained judges: ordinary checkpoints, fitted to the panel's votes on the base policy's samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

PANEL = Path(__file__).with_name("panel.yaml")
VOTES_A_PAIR = 9
EPOCHS, LEARNING_RATE, BATCH_SIZE = 3, 1e-3, 64
TEMPLATE = "{{ prompt }} first : {{ first }} second : {{ second }} better ?"
OPTIONS: dict[str, dict[str, Any]] = {
    "reward-model": {"batch_size": 256},
    "pairrm": {"batch_size": 256},
    "llm": {"batch_size": 256, "labels": ["first", "second"], "template": TEMPLATE},
}
"""The judges that can be trained here, with the options they are used with."""


def write_votes(policy: Any, out: Path, *, pairs: int, seed: int) -> dict[str, Any]:
    """Write `labels.jsonl`: two samples of the base policy to each of `pairs` prompts, and nine votes of the panel.

    Returns how many pairs were written; pairs of equal texts are left out.
    """
    import torch

    from harness.pocket.grammar import prompts
    from judges.panel import PanelJudge
    from trainers.options import Sampling

    records = [prompts(seed)["train"][i % 4096] for i in range(pairs)]
    generator = torch.Generator(device=policy.model.device).manual_seed(seed)
    encoded = [policy.encode(record["prompt"]) for record in records]
    drawn = policy.sample(encoded, 2, Sampling(max_tokens=24), generator)
    rows = [(r["prompt"], a.text, b.text) for r, (a, b) in zip(records, drawn, strict=True) if a.text != b.text]
    votes = PanelJudge(PANEL).simulate_votes(*map(list, zip(*rows, strict=True)), votes=VOTES_A_PAIR, seed=seed)
    with (out / "labels.jsonl").open("w", encoding="utf-8") as file:
        for i, ((prompt, first, second), won) in enumerate(zip(rows, votes, strict=True)):
            label = np.where(won, "first", "second").tolist()
            row = {"id": str(i), "prompt": prompt, "first": first, "second": second, "label": label}
            file.write(json.dumps(row) + "\n")
    return {"pairs": len(rows)}


def train(name: str, labels: Path, base_policy: Path, out: Path, *, seed: int) -> dict[str, Any]:
    """Train a judge of `OPTIONS` and save it; the figures of `judges.train.train_judge` on held-out prompts.

    The reward model and the language-model judge start from the base policy's weights; the ranker is an encoder with
    random ones.
    """
    from judges.train import train_judge

    base = _encoder(base_policy, out.with_name("encoder")) if name == "pairrm" else base_policy
    options = {key: value for key, value in OPTIONS[name].items() if key != "batch_size"}
    recipe = {"epochs": EPOCHS, "lr": LEARNING_RATE, "batch_size": BATCH_SIZE, "max_length": 128, "seed": seed}
    return dict(train_judge(name, labels, base, out, options=options, **recipe))  # type: ignore[arg-type]


def _encoder(base_policy: Path, folder: Path) -> Path:
    """A folder with the config of a small DeBERTa and the world's tokenizer, to start from random weights."""
    from transformers import AutoTokenizer, DebertaV2Config

    tokenizer = AutoTokenizer.from_pretrained(base_policy)
    DebertaV2Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=256,
        relative_attention=True,
        pos_att_type=["p2c", "c2p"],
        pad_token_id=tokenizer.pad_token_id,
    ).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
