"""The pocket world's trained judges: ordinary checkpoints, fitted to the panel's votes on the base policy's samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

PANEL = Path(__file__).with_name("panel.yaml")
PAIRS, PAIRS_A_PROMPT, VOTES_A_PAIR, HOLDOUT = 8192, 2, 49, 0.25
MAX_TOKENS = 24
TEMPLATE = "{{ prompt }} first : {{ first }} second : {{ second }} better ?"
OPTIONS: dict[str, dict[str, Any]] = {
    "reward-model": {"batch_size": 256},
    "pairrm": {"batch_size": 256},
    "llm": {"batch_size": 256, "labels": ("first", "second"), "template": TEMPLATE},
}
"""The judges that are trained here, with the options they are used with."""
RECIPES: dict[str, dict[str, float]] = {
    "reward-model": {"epochs": 1.0, "lr": 1e-3},
    "pairrm": {"epochs": 3.2, "lr": 1.2e-3},
    "llm": {"epochs": 1.7, "lr": 1.2e-3},
}
"""How they are trained. A judge that reads two responses starts to learn only after some hundred steps, so it has more
of them.
"""


def write_votes(policy: Any, out: Path, *, seed: int, pairs: int = PAIRS) -> dict[str, Any]:
    """Write `labels.jsonl`: pairs of samples of the base policy, two pairs a training prompt, and the panel's votes.

    Returns how many pairs were written; pairs of equal texts are left out.
    """
    from harness.pocket.grammar import prompts
    from judges.kinds.panel import PanelJudge
    from trainers.engines.randomness import response_seeds
    from trainers.options import Sampling

    training = [record["prompt"] for record in prompts(seed)["train"][: pairs // PAIRS_A_PROMPT]]
    seeds = response_seeds(seed, range(len(training)))
    encoded = [policy.encode(prompt) for prompt in training]
    drawn = policy.sample(encoded, 2 * PAIRS_A_PROMPT, Sampling(max_tokens=MAX_TOKENS), seeds)
    pairs_of = [zip(texts[::2], texts[1::2], strict=True) for texts in ([r.text for r in each] for each in drawn)]
    rows = [(prompt, a, b) for prompt, texts in zip(training, pairs_of, strict=True) for a, b in texts if a != b]
    votes = PanelJudge(PANEL).simulate_votes(*map(list, zip(*rows, strict=True)), votes=VOTES_A_PAIR, seed=seed)
    with (out / "labels.jsonl").open("w", encoding="utf-8") as file:
        for i, ((prompt, first, second), won) in enumerate(zip(rows, votes, strict=True)):
            label = np.where(won, "first", "second").tolist()
            row = {"id": str(i), "prompt": prompt, "first": first, "second": second, "label": label}
            file.write(json.dumps(row) + "\n")
    return {"pairs": len(rows)}


def train(name: str, labels: Path, base_policy: Path, out: Path, *, seed: int, progress: Any = None) -> dict[str, Any]:
    """Train a judge of `OPTIONS` and save it; the figures of `judges.training.train.train_judge` on held-out prompts.

    All three start from the base policy's weights; the ranker opens its attention to both sides.
    """
    from judges.training.train import train_judge

    options = {key: value for key, value in OPTIONS[name].items() if key != "batch_size"}
    common = {"max_length": 128, "batch_size": 32, "beta2": 0.95, "holdout": HOLDOUT, "seed": seed}
    recipe: dict[str, Any] = common | RECIPES[name]
    return dict(train_judge(name, labels, base_policy, out, options=options, progress=progress, **recipe))  # type: ignore[arg-type]
