"""What in a stage's key differs from the nearest artifact that is there."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from harness.stage import Stage
from harness.store.artifacts import Store
from judges.reading import shortened

ABSENT = "(absent)"
LISTED = 20


def answer_why(stages: Sequence[Stage], name: str, store: Store) -> str:
    """What `explain` says of the stage that is named; where several match, these with their keys.

    Raises:
        ValueError: none matches.
    """
    matches = matching(stages, name)
    if len(matches) == 1:
        return explain(matches[0], store)
    lines = [f"{len(matches)} stages match {shortened(name)}; name one by its key:"]
    lines += [f"  {stage.key[:12]}  {stage.kind}: {stage.title}" for stage in matches[:LISTED]]
    return "\n".join(lines + [f"  and {len(matches) - LISTED} more"] * (len(matches) > LISTED))


def matching(stages: Sequence[Stage], name: str) -> list[Stage]:
    """The stages whose key begins so; else those of this title; else those with all these words in kind and title.

    Raises:
        ValueError: there is none, with the nearest title.
    """
    text, words = name.strip().lower(), name.lower().split()
    if words:
        by_key = [stage for stage in stages if stage.key.startswith(text)]
        by_title = [stage for stage in stages if stage.title.lower() == text]
        by_words = [s for s in stages if all(word in f"{s.kind} {s.title}".lower() for word in words)]
        if matches := by_key or by_title or by_words:
            return matches
    raise ValueError(f"no stage of the sweep is {shortened(name)}{_nearest_title(text, stages)}")


def _nearest_title(text: str, stages: Sequence[Stage]) -> str:
    titles = {stage.title.lower(): stage.title for stage in stages}
    near = difflib.get_close_matches(text, titles, n=1, cutoff=0)
    hint = f"; the nearest title is {titles[near[0]]!r}" if near else ""
    return f"{hint}; give the beginning of a key or words of a title, as `nashbench plan CONFIG --json` lists them"


def explain(stage: Stage, store: Store) -> str:
    """One paragraph: whether the stage's artifact is there and, where it is not, how its key differs from that of the
    artifact of the same kind with the fewest differences.
    """
    name = f"{stage.kind} {stage.key} ({stage.title or stage.kind})"
    if store.has(stage):
        return f"{name} is there"
    wanted = dict(_leaves(stage.identity))
    others = [(differences(wanted, dict(_leaves(identity))), key) for key, identity in store.identities(stage.kind)]
    if not others:
        return f"{name} is missing, and the store has no artifact of its kind"
    fewest, key = min(others, key=lambda other: (len(other[0]), other[1]))
    lines = [f"{name} is missing; the nearest artifact of its kind is {key}, with"]
    return "\n".join(lines + [f"  {path}: {there} there, {here} here" for path, there, here in fewest])


def differences(wanted: Mapping[str, Any], there: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """(path, value there, value wanted) of every leaf in which two identities differ."""
    paths = sorted(wanted.keys() | there.keys())
    pairs = [(path, there.get(path, ABSENT), wanted.get(path, ABSENT)) for path in paths]
    return [(path, other, own) for path, other, own in pairs if other != own]


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _leaves(item, f"{path}.{name}" if path else str(name))
    else:
        yield path, value
