"""Prompts: read, split into training and held-out, and dealt out to iterations."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
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

    A record has "prompt" (text, or chat messages that end with the user's turn; content in parts of text is joined),
    and optionally "id" and "split" ("train" or "heldout"). Where no record has a split, the fifth with the lowest hash
    is held out.

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


def cut_tuning(records: Sequence[PromptRecord], count: int) -> list[PromptRecord]:
    """The records with `count` of the training prompts, those of the lowest hash, in the split `tune`.

    Raises:
        ValueError: no training prompt would be left.
    """
    training = sorted((r for r in records if r.split == "train"), key=_rank)
    if count >= len(training):
        raise ValueError(
            f"tune.prompts is {count} and there are {len(training)} training prompts, of which they are cut; lower "
            "tune.prompts or give more training prompts"
        )
    cut = {record.id for record in training[:count]}
    return [PromptRecord(r.id, r.prompt, "tune") if r.id in cut else r for r in records]


def iteration_rows(available: int, count: int, iteration: int, seed: int) -> list[int]:
    """Row numbers of an iteration's prompts (iterations from 1): shuffled passes over all, cut into runs of `count`."""
    first, last = (iteration - 1) * count, iteration * count
    passes = range(last // available + 1)
    order = np.concatenate([np.random.default_rng([seed, p]).permutation(available) for p in passes])
    return [int(i) for i in order[first:last]]


def _record(path: Path, number: int, line: str) -> PromptRecord:
    record = parse_json(line, f"{path}:{number}")
    prompt = _prompt(record.get("prompt") if isinstance(record, dict) else None, f"{path}:{number}")
    split = record.get("split", "")
    if not isinstance(split, str) or split not in ("", *SPLITS):
        raise ValueError(f'{path}:{number}: "split" must be "train" or "heldout"; it is {shortened(split)}')
    id = record.get("id", number)
    if not isinstance(id, str | int | float):
        raise ValueError(f'{path}:{number}: "id" must be a text or a number; it is {shortened(id)}')
    return PromptRecord(str(id), prompt, split)


def _prompt(value: Any, place: str) -> Prompt:
    """A prompt as policies and judges take it: text, or chat messages that end with the user's turn.

    Raises:
        ValueError: it is neither, naming the place.
    """
    if isinstance(value, str) and value.strip():
        return _readable(value)
    if not (isinstance(value, list) and value and all(map(_is_message, value))):
        raise ValueError(f'{place}: "prompt" must be a text or a list of {{role, content}}; it is {shortened(value)}')
    messages = [{"role": message["role"], "content": _content(message["content"], place)} for message in value]
    if messages[-1]["role"] in ("assistant", "system"):
        raise ValueError(
            f"{place}: the chat ends with a turn of the {messages[-1]['role']}, which leaves nothing to answer; end it "
            "with the user's turn"
        )
    return messages


def _is_message(value: Any) -> bool:
    return (
        isinstance(value, dict) and isinstance(value.get("role"), str) and isinstance(value.get("content"), str | list)
    )


def _content(value: str | list[Any], place: str) -> str:
    """The text of a message; of one in parts, as multimodal chats have it, the parts' texts joined."""
    if isinstance(value, str):
        return _readable(value)
    others = [part for part in value if not (isinstance(part, dict) and isinstance(part.get("text"), str))]
    if others or not value:
        raise ValueError(
            f"{place}: a message's content is a list with {shortened(others[0]) if others else 'nothing'} in it; give "
            'text, or parts such as {"type": "text", "text": ...}'
        )
    return _readable("".join(part["text"] for part in value))


def _readable(text: str) -> str:
    """The text with each half of a character that JSON can spell and no tokenizer reads as U+FFFD."""
    return UNREADABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def _refuse_repeats(path: Path, records: list[PromptRecord]) -> None:
    seen: set[str] = set()
    for record in records:
        for what, value in (("id", record.id), ("prompt", _as_text(record.prompt))):
            if f"{what} {value}" in seen:
                raise ValueError(
                    f"{path}: the {what} {clipped(value, 80)} occurs twice; a held-out prompt must not be a training "
                    "one"
                )
            seen.add(f"{what} {value}")


def _as_text(prompt: Prompt) -> str:
    """Equal for a text and the one user message that says the same."""
    alone = not isinstance(prompt, str) and len(prompt) == 1 and prompt[0]["role"] == "user"
    return json.dumps(prompt[0]["content"] if alone else prompt)  # type: ignore[index]


def _rank(record: PromptRecord) -> str:
    return hashlib.sha256(json.dumps(record.prompt).encode()).hexdigest()


def _split(records: list[PromptRecord]) -> list[PromptRecord]:
    held = {r.id for r in sorted(records, key=_rank)[: max(1, round(HELDOUT_SHARE * len(records)))]}
    return [PromptRecord(r.id, r.prompt, "heldout" if r.id in held else "train") for r in records]
