"""Write prompts.jsonl: story openings made of hand-written parts, 512 to train on and 256 held out.

python examples/stories/make_prompts.py
"""

import json
import random
from pathlib import Path

CHARACTERS = (
    "a little girl named Mia",
    "a small boy named Tom",
    "a brave dog named Max",
    "a shy cat named Luna",
    "a big bear named Bo",
    "a happy bird named Pip",
    "a kind old man named Joe",
    "a funny frog named Gus",
    "a tiny mouse named Nell",
    "a silly duck named Dot",
    "a red fox named Finn",
    "a soft bunny named Clover",
    "a boy named Sam who liked to dig",
    "a girl named Ann who loved to sing",
    "a slow turtle named Moss",
    "a pony named Star",
)
PLACES = (
    "in the park",
    "near the river",
    "in a small house",
    "by the sea",
    "on a farm",
    "in the garden",
    "at the top of a hill",
    "in the forest",
    "at school",
    "in her room",
    "next to a big tree",
    "on the beach",
)
EVENTS = (
    "found a shiny box",
    "saw a big red ball",
    "heard a loud sound",
    "wanted to bake a cake",
    "lost a favorite toy",
    "met a new friend",
    "saw a rainbow in the sky",
    "found a little key",
    "wanted to fly a kite",
    "saw a sad bee",
    "made a tall tower",
    "got a new hat",
    "saw smoke far away",
    "wanted to help mom",
    "found a map",
    "fell in the mud",
)
FORMS = (
    "Once upon a time, there was {who}. One day, they {what} {where}.",
    "One day, {who} {what} {where}. Then",
    "{Who} went to play {where}. It was a sunny day. After lunch, they {what} and",
    "It was a cold morning. {Who} {what} {where}, so",
    "Once there lived {who}. Every day they played {where}. But today they {what}.",
    "{Who} was sad. Yesterday they {what} {where}. Now",
)
TRAIN, HELDOUT = 512, 256


def openings(count: int, seed: int) -> list[str]:
    """Distinct openings in a random order."""
    rng, made = random.Random(seed), set()
    while len(made) < count:
        who = rng.choice(CHARACTERS)
        parts = {"who": who, "Who": who[0].upper() + who[1:], "what": rng.choice(EVENTS), "where": rng.choice(PLACES)}
        made.add(rng.choice(FORMS).format(**parts))
    return rng.sample(sorted(made), count)


def main() -> None:
    lines = [
        json.dumps({"id": f"story-{i:03}", "prompt": text, "split": "train" if i < TRAIN else "heldout"})
        for i, text in enumerate(openings(TRAIN + HELDOUT, seed=0))
    ]
    Path(__file__).with_name("prompts.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
