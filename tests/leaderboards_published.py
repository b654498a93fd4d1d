"""Published files in small: synthetic annotations and judgments in upstream formats, and where the shared ones are."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared published files are not beside the checkout")


def write(path, records, *, lines=False, packed=False):
    """Records as a JSON array or as lines, plain or gzip."""
    text = "".join(json.dumps(r) + "\n" for r in records) if lines else json.dumps(records)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    return path


def annotations(preferences, *, model="new", seed=0):
    """One row a preference, as alpaca-eval writes them, lengths drawn at random."""
    generator = np.random.default_rng(seed)
    return [
        {
            "instruction": f"question {i}",
            "output_1": "b" * int(generator.integers(50, 900)),
            "generator_1": "base",
            "output_2": "m" * int(generator.integers(50, 900)),
            "generator_2": model,
            "annotator": "judge",
            "preference": p,
        }
        for i, p in enumerate(preferences)
    ]


def length_files(folder, n, *, seed=0):
    """`instruction_difficulty.csv` and `df_gamed.csv` of n instructions, in folders of their own."""
    generator = np.random.default_rng(seed)
    difficulty = generator.normal(0, 1, n)
    rows = ["index,model,preference,std_delta_len,instruction_difficulty,not_gamed_baseline"]
    for name, shift in (("verbose", -1.0), ("concise", 1.0)):
        for i, d in enumerate(difficulty):
            delta = shift + generator.normal(0, 0.5)
            p = 1 / (1 + np.exp(-(-1.2 * np.tanh(delta) + 0.3 * generator.normal())))
            rows.append(f"{i},{name},{p:.12f},{delta:.12f},{d:.12f},False")
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "df_gamed.csv").write_text("\n".join(rows) + "\n")
    table = [",instruction_difficulty", *(f"{i},{d:.12f}" for i, d in enumerate(difficulty))]
    (folder / "instruction_difficulty.csv").write_text("\n".join(table) + "\n")
    return folder


def judgments(scores, *, model="m", judge=("gpt-4", "single-v1")):
    """MT-Bench rows of {(question, turn): score}."""
    return [
        {"question_id": q, "model": model, "judge": list(judge), "turn": t, "score": s, "judgment": "..."}
        for (q, t), s in scores.items()
    ]


def game(label):
    return None if label == "lost" else {"score": label, "judgment": "..."}


def games(prompt, first, second, *, model="m"):
    """An Arena-Hard judgment in the format of v0.1."""
    return {"question_id": prompt, "model": model, "judge": "gpt-4", "games": [game(first), game(second)]}
