"""Samples side by side: the policy's response and what it was compared with, with what each grader said."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Any, NamedTuple

from reports.numbers import show
from reports.sections.common import Figure, tags
from reports.tables import Row, Sweep, game_verdicts, grouped

PER_BOARD = 40
IN_ALL = 900
CLIP = 4000  # characters of a text that are shown
DIFF_WORDS = 400  # longer texts are shown without marks
DIFF_LEAST = 0.3  # texts that share less than this are different texts, not edits of one another


class Piece(NamedTuple):
    """A run of text; `changed` where the other side has something else."""

    text: str
    changed: bool


def samples(sweeps: Sequence[Sweep]) -> list[dict[str, Any]]:
    """The first prompts (by id) of each cell's last iteration and board, at most PER_BOARD and IN_ALL in all.

    Only what a grader saw: benchmark records with a metric of their own are left out.
    """
    by_cell = _by_cell(sweeps)
    blocks = sum(len({row["leaderboard"] for row in rows}) for _, _, rows in by_cell)
    most = max(1, min(PER_BOARD, IN_ALL // max(1, blocks)))
    return [_cell(sweep, cell, rows, most) for sweep, cell, rows in by_cell]


def contents(sweeps: Sequence[Sweep]) -> list[dict[str, Any]]:
    """The cells that have samples, in the order of `samples`: sweep, label and what filters look at."""
    return [
        {"sweep": sweep.name, "label": sweep.display_name(cell), "tags": tags(sweep, _info(sweep, cell))}
        for sweep, cell, _ in _by_cell(sweeps)
    ]


def _by_cell(sweeps: Sequence[Sweep]) -> list[tuple[Sweep, str, list[Row]]]:
    """Each cell's rows of what a grader saw, in the sweep's order, controls last."""
    by_cell = []
    for sweep in sweeps:
        order = list(sweep.info)
        cells = grouped((row for row in sweep.samples if not row["metric"]), lambda row: row["cell"])
        place = {cell: (not _info(sweep, cell)["judge"], order.index(cell) if cell in order else -1) for cell in cells}
        by_cell += [(sweep, cell, cells[cell]) for cell in sorted(cells, key=place.__getitem__)]
    return by_cell


def _info(sweep: Sweep, cell: str) -> Row:
    return {**sweep.info.get(cell, {"trainer": "", "judge": "", "seed": None}), "cell": cell}


def _cell(sweep: Sweep, cell: str, rows: Sequence[Row], most: int) -> dict[str, Any]:
    last = max(row["iteration"] or 0 for row in rows)
    final = (row for row in rows if (row["iteration"] or 0) == last)
    info = _info(sweep, cell)
    return {
        "sweep": sweep.name,
        "cell": cell,
        "label": sweep.display_name(cell),
        "control": not info["judge"],
        "tags": tags(sweep, info),
        "iteration": last,
        "boards": [
            _board(name, members, most) for name, members in grouped(final, lambda row: row["leaderboard"]).items()
        ],
    }


def _board(name: str, rows: Sequence[Row], most: int) -> dict[str, Any]:
    by_prompt = grouped(rows, lambda row: (row["prompt_id"], row["response"]))
    chosen = sorted(by_prompt.items(), key=lambda item: _by_id(item[0][0]))
    items = [_item(prompt_id, members) for (prompt_id, _), members in chosen[:most]]
    return {"name": name, "of": len(by_prompt), "items": items}


def _by_id(name: str) -> list[tuple[int, int, str]]:
    """Sorts p2 before p10."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]


def _item(prompt_id: str, rows: Sequence[Row]) -> dict[str, Any]:
    first = rows[0]
    before, after = marked(first["baseline_response"][:CLIP], first["response"][:CLIP])
    verdicts = [_verdict(row) for row in rows if row["grader"] or row["status"] or row["preference"] is not None]
    rated = any(row["rating"] is not None for row in rows)
    return {
        "id": prompt_id,
        "about": _about(first),
        "beside": "reference answer" if rated else "baseline",
        "prompt": messages(first["prompt"]),
        "before": before if first["baseline_response"] else [],
        "after": after,
        "cut": [max(0, len(first[key]) - CLIP) for key in ("baseline_response", "response")],
        "verdicts": verdicts,
        "outcomes": sorted({verdict["outcome"] for verdict in verdicts}),
    }


def _about(row: Row) -> list[str]:
    """What tells a sample from others of its board: its category, its turn, that thinking was taken out of it."""
    turn = f"turn {row['turn']}" if row["turn"] is not None and row["turn"] > 1 else ""
    stripped = "thinking left out" if row["stripped"] else ""
    return [text for text in (row["category"], turn, stripped) if text]


def _verdict(row: Row) -> dict[str, Any]:
    value, rating = row["preference"], row["rating"]
    outcome = "failed" if value is None else "win" if value > 0.5 else "loss" if value < 0.5 else "tie"
    shown = Figure(value, show(value, 3)) if rating is None else Figure(rating, show(rating, 2))
    return {
        "grader": row["grader"],
        "value": shown,
        "outcome": outcome if rating is None else "rated",
        "status": row["status"],
        "games": ", then ".join(game_verdicts(row)),
    }


def messages(prompt: str) -> list[dict[str, str]]:
    """A prompt as messages of role and content: those of a JSON chat, else one without role for a text."""
    try:
        parsed = json.loads(prompt)
    except ValueError:
        parsed = prompt
    if isinstance(parsed, list) and parsed and all(isinstance(m, dict) and "content" in m for m in parsed):
        return [{"role": str(m.get("role", "")), "content": str(m["content"])[:CLIP]} for m in parsed]
    return [{"role": "", "content": (parsed if isinstance(parsed, str) else prompt)[:CLIP]}]


def marked(before: str, after: str) -> tuple[list[Piece], list[Piece]]:
    """Both texts in pieces, the words that the other one lacks marked.

    Texts longer than DIFF_WORDS, or with too little in common to be edits of one another, come back unmarked.
    """
    words: list[list[str]] = [re.findall(r"\S+\s*|\s+", text) for text in (before, after)]
    bare = [[word.strip() for word in side] for side in words]
    matcher = SequenceMatcher(None, bare[0], bare[1], autojunk=False)
    if max(map(len, words)) > DIFF_WORDS or matcher.ratio() < DIFF_LEAST:
        return [Piece(before, False)], [Piece(after, False)]
    left, right = [], []
    for kind, i1, i2, j1, j2 in matcher.get_opcodes():
        left += _pieces("".join(words[0][i1:i2]), kind != "equal")
        right += _pieces("".join(words[1][j1:j2]), kind != "equal")
    return left, right


def _pieces(text: str, changed: bool) -> list[Piece]:
    """A run of text, the blanks at its end apart: marks end with the word."""
    word = text.rstrip()
    return [piece for piece in (Piece(word, changed), Piece(text[len(word) :], False)) if piece.text]
