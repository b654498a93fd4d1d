"""Prompts: read, split into training and held-out, and dealt out to iterations."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from judges.judge import Prompt
from judges.reading import UNREADABLE, clipped, parse_json, read_text, shortened

HELDOUT_SHARE = 0.2
SPLITS = ("train", "heldout")


@dataclass(frozen=True)
class PromptRecord:
    """One prompt: text or chat messages, and the split it belongs to (`train` or `heldout`)."""

    id: str
    prompt: Prompt
    split: str


def read_prompts(source: str, seed: int) -> list[PromptRecord]:
    """The prompts of a JSONL file, or of the pocket world.

    A record has "prompt" (text or chat messages), and optionally "id" and "split" ("train" or "heldout"). Where no
    record has a split, the fifth with the lowest hash is held out.

    Raises:
        ValueError: the file is missing, empty or malformed (with the line), ids or prompts repeat, or a split is empty.
    """
    if source == "pocket":
        from harness.pocket.grammar import prompts as pocket_prompts

        made = pocket_prompts(seed)
        return [PromptRecord(r["id"], r["prompt"], split) for split in SPLITS for r in made[split]]
    path = Path(source)
    if not os.path.isfile(source):
        raise ValueError(f'no prompts file {shortened(source, 200)}; give a .jsonl with a "prompt" on each line')
    lines = read_text(path).split("\n")  # not splitlines: a JSON text may hold other separators
    records = [_record(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not records:
        raise ValueError(f"{path} holds no prompts")
    _refuse_repeats(path, records)
    if all(not r.split for r in records):
        records = _split(records)
    for split in SPLITS:
        if not any(r.split == split for r in records):
            raise ValueError(
                f"{path} has no prompt with split {split!r}; mark some, or mark none and a fifth is held out"
            )
    return records


def iteration_rows(available: int, count: int, iteration: int, seed: int) -> list[int]:
    """Row numbers of an iteration's prompts (iterations from 1): shuffled passes over all, cut into runs of `count`."""
    first, last = (iteration - 1) * count, iteration * count
    passes = range(last // available + 1)
    order = np.concatenate([np.random.default_rng([seed, p]).permutation(available) for p in passes])
    return [int(i) for i in order[first:last]]


def _record(path: Path, number: int, line: str) -> PromptRecord:
    record = parse_json(line, f"{path}:{number}")
    prompt = record.get("prompt") if isinstance(record, dict) else None
    is_chat = isinstance(prompt, list) and prompt and all(map(_is_message, prompt))
    if not (is_chat or (isinstance(prompt, str) and prompt.strip())):
        raise ValueError(
            f'{path}:{number}: "prompt" must be a text or a list of {{role, content}}; it is {shortened(prompt)}'
        )
    if UNREADABLE.search(json.dumps(prompt, ensure_ascii=False)):
        raise ValueError(f"{path}:{number}: the prompt holds half a character, which no tokenizer reads; take it out")
    split = record.get("split", "")
    if not isinstance(split, str) or split not in ("", *SPLITS):
        raise ValueError(f'{path}:{number}: "split" must be "train" or "heldout"; it is {shortened(split)}')
    id = record.get("id", number)
    if not isinstance(id, str | int | float):
        raise ValueError(f'{path}:{number}: "id" must be a text or a number; it is {shortened(id)}')
    return PromptRecord(str(id), record["prompt"], split)


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(name), str) for name in ("role", "content"))


def _refuse_repeats(path: Path, records: list[PromptRecord]) -> None:
    seen: set[str] = set()
    for record in records:
        for what, value in (("id", record.id), ("prompt", json.dumps(record.prompt))):
            if f"{what} {value}" in seen:
                raise ValueError(
                    f"{path}: the {what} {clipped(value, 80)} occurs twice; a held-out prompt must not be a training "
                    "one"
                )
            seen.add(f"{what} {value}")


def _split(records: list[PromptRecord]) -> list[PromptRecord]:
    def rank(record: PromptRecord) -> str:
        return hashlib.sha256(json.dumps(record.prompt).encode()).hexdigest()

    held = {r.id for r in sorted(records, key=rank)[: max(1, round(HELDOUT_SHARE * len(records)))]}
    return [PromptRecord(r.id, r.prompt, "heldout" if r.id in held else "train") for r in records]
