"""The grammar of the pocket world: prompts, and answers in three styles that are more or less true.

Sixteen nouns have four true adjectives each: the `truth` facts of `panel.yaml`, where the annotators hold them. A
prompt asks for a description, a comparison, a story, a one-line summary of two sentences, or a second turn. An answer
is plain, rich or warm, and each of its adjectives, actions and places is right with a probability that differs from
answer to answer, else wrong or vague, so that there is something to learn. README.md beside this file has the whole
world.
"""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import yaml

Message = dict[str, str]
Record = dict[str, Any]

PANEL = Path(__file__).with_name("panel.yaml")
FACTS: dict[str, list[str]] = yaml.safe_load(PANEL.read_text())["features"]["truth"]["facts"]
NOUNS = tuple(FACTS)
ADJECTIVES = tuple(sorted({adjective for facts in FACTS.values() for adjective in facts}))
VAGUE = ("nice", "odd", "some")
"""What an answer says in place of an adjective when it has nothing to say."""
VERBS = ("sleeps", "sings", "runs", "hides", "waits", "eats", "plays", "jumps")
PLACES = (
    "in the barn",
    "in the forest",
    "in the garden",
    "in the snow",
    "by the river",
    "by the lake",
    "by the road",
    "on the hill",
    "on the roof",
    "on the bridge",
)
TIMES = ("at dawn", "at noon", "at dusk", "at night")
STYLES = ("plain", "rich", "warm")
KINDS = ("describe", "compare", "story", "summary", "follow-up")

# Slots: n and m are nouns, a and b adjectives of n, c an adjective of m, v what n does, w what m does.
PROMPTS = {
    "describe": (
        "describe the {n} {place} {time}",
        "what is the {n} like {place} {time} ?",
        "picture the {n} {place} {time}",
    ),
    "compare": ("compare the {n} and the {m} {place}", "how do the {n} and the {m} differ {time} ?"),
    "story": (
        "tell a story of the {n} and the {m} {place} {time}",
        "the {n} meets the {m} {place} {time} . what now ?",
    ),
    "summary": (
        "sum up : the {a} {n} {v} {place} . the {c} {m} {w} {time} .",
        "sum up : the {n} is {a} and {v} . {time} the {c} {m} {w} .",
    ),
    "follow-up": ("now the {n} {place} {time}", "and the {n} {place} {time} ?"),
}
ABOUT_ONE = {
    "plain": ("the {n} is {a} and {b} .", "the {a} {n} is {b} and {v} {place} .", "a {a} and {b} {n} {v} {place} ."),
    "rich": (
        "like silver mist the {a} {n} drifts {place} , {b} and golden .",
        "under golden stars the {a} {b} {n} glows {place} .",
        "the {a} {n} , {b} like a silver dream , glows {place} .",
    ),
    "warm": (
        "oh dear friend , the {n} is so {a} and {b} !",
        "you will love the sweet {n} , so {a} and {b} !",
        "dear friend , such a lovely {a} {b} {n} {place} !",
    ),
}
ABOUT_TWO = {
    "plain": ("the {a} {n} {v} and the {c} {m} {w} .", "the {n} is {a} and {v} , the {m} is {c} and {w} ."),
    "rich": (
        "like silver mist the {a} {n} {v} while the golden {c} {m} {w} .",
        "under golden stars the {a} {n} {v} , the {c} {m} drifts and {w} .",
    ),
    "warm": (
        "oh dear friend , the {a} {n} {v} and the sweet {c} {m} {w} !",
        "you will love how the {a} {n} {v} and the lovely {c} {m} {w} !",
    ),
}
RESPONSES = {kind: ABOUT_TWO if kind in ("compare", "story", "summary") else ABOUT_ONE for kind in KINDS}


def vocabulary() -> list[str]:
    """Every word and mark of the grammar, sorted: what a word-level tokenizer of this world must know."""
    texts = [*NOUNS, *ADJECTIVES, *VAGUE, *VERBS, *PLACES, *TIMES]
    texts += [template for templates in PROMPTS.values() for template in templates]
    texts += [template for family in (ABOUT_ONE, ABOUT_TWO) for templates in family.values() for template in templates]
    return sorted({word for text in texts for word in re.sub(r"\{\w+\}", " ", text).split()})


def held_out(messages: list[Message]) -> bool:
    """Whether a prompt belongs to the held-out quarter: a digest of its user turns decides, whatever the seed."""
    text = " | ".join(message["content"] for message in messages if message["role"] == "user")
    return hashlib.sha256(text.encode()).digest()[0] < 64


def prompts(seed: int, *, train: int = 4096, heldout: int = 2048) -> dict[str, list[Record]]:
    """Distinct prompts, the kinds in turn: `{"train": [...], "heldout": [...]}` of records `{id, prompt, kind}`.

    `prompt` is a list of chat messages that ends with the user's turn. No prompt of one split is in the other, nor any
    held-out one in `corpus`. Raises ValueError where a split asks for more prompts than the grammar surely has.
    """
    if not (0 < train <= 8000 and 0 < heldout <= 2500):
        raise ValueError(
            f"the pocket world has 1..8000 train and 1..2500 heldout prompts, asked for {train}, {heldout}"
        )
    counts = {"train": train, "heldout": heldout}
    return {split: _split(split, count, Random(f"{split} {seed}")) for split, count in counts.items()}


def _split(split: str, count: int, rng: Random) -> list[Record]:
    records: dict[str, Record] = {}
    while len(records) < count:
        kind = KINDS[len(records) % len(KINDS)]
        messages, _ = draw_prompt(kind, rng)
        if held_out(messages) == (split == "heldout") and str(messages) not in records:
            records[str(messages)] = {"id": f"{split}-{len(records):05d}", "prompt": messages, "kind": kind}
    return list(records.values())


def corpus(n: int, seed: int) -> Iterator[tuple[list[Message], str]]:
    """Yield `n` pairs (chat messages, answer) to pre-train on, without any held-out prompt.

    The style is drawn uniformly; a number in [0, 1], drawn for each answer, is the probability that each of its words
    about the world is right.
    """
    rng = Random(f"corpus {seed}")
    while n > 0:
        messages, topic = draw_prompt(rng.choice(KINDS), rng)
        if not held_out(messages):
            n -= 1
            yield messages, answer(topic, rng.choice(STYLES), rng.random(), rng)


def draw_prompt(kind: str, rng: Random) -> tuple[list[Message], dict[str, str]]:
    """A prompt of a kind, held out or not, and its topic: the true value of every slot, for `answer`."""
    n, m = rng.sample(NOUNS, 2)
    a, b = rng.sample(FACTS[n], 2)
    topic = {"kind": kind, "n": n, "m": m, "a": a, "b": b, "c": rng.choice(FACTS[m])}
    topic |= dict(zip("vw", rng.sample(VERBS, 2), strict=True))
    # A description may leave out where and when; a summary needs both, so that there is something to leave out.
    optional = ("",) if kind != "summary" else ()
    topic |= {"place": rng.choice(PLACES + optional), "time": rng.choice(TIMES + optional)}
    turn = {"role": "user", "content": _fill(rng.choice(PROMPTS[kind]), topic)}
    if kind != "follow-up":
        return [turn], topic
    first, earlier = draw_prompt("describe", rng)
    return [*first, {"role": "assistant", "content": answer(earlier, rng.choice(STYLES), 1.0, rng)}, turn], topic


def answer(topic: dict[str, str], style: str, accuracy: float, rng: Random) -> str:
    """One answer to a topic, at most 15 words and marks.

    Each slot but the nouns is right with probability `accuracy`, else drawn at random; an adjective that is not right
    is vague half of the time.
    """
    a, b = rng.sample(FACTS[topic["n"]], 2) if topic["kind"] != "summary" else (topic["a"], topic["b"])
    right = topic | {"a": a, "b": b, "place": topic["place"] or rng.choice(PLACES)}
    adjectives = [rng.choice((word, rng.choice(VAGUE))) for word in rng.sample(ADJECTIVES, 3)]
    wrong = dict(zip("abcvw", adjectives + rng.sample(VERBS, 2), strict=True))
    wrong["place"] = rng.choice(PLACES)
    mistakes = {slot: word for slot, word in wrong.items() if rng.random() >= accuracy}
    return _fill(rng.choice(RESPONSES[topic["kind"]][style]), right | mistakes)


def _fill(template: str, slots: dict[str, str]) -> str:
    return " ".join(template.format_map(slots).split())
