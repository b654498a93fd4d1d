"""Where the randomness of responses comes from: a seed for each prompt, and uniform numbers for each of its responses.

A response's numbers are a function of its prompt's seed and its own number alone, so that what is drawn does not depend
on the batch, the order or the process in which a prompt is answered, nor on how many responses are asked for.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray


def response_seeds(stage_seed: int, ids: Iterable[str | int]) -> list[int]:
    """A seed in [0, 2**63) for each prompt: a hash of the stage's seed, the prompt's id, and how often the same id
    occurs before it in `ids`, so that a repeated prompt gets draws of its own."""
    before = Counter[str | int]()
    seeds = []
    for id in ids:
        digest = hashlib.sha256(json.dumps([stage_seed, id, before[id]]).encode()).digest()
        seeds.append(int.from_bytes(digest[:8], "big") >> 1)
        before[id] += 1
    return seeds


def uniforms(seeds: Sequence[int], k: int, tokens: int, first: int = 0) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1), [len(seeds) * k, tokens], for the tokens from `first` (a multiple of 4) on.

    Row i * k + j is of response j to prompt i: the stream of Philox4x64-10 (Salmon et al., 2011) whose key is
    (seeds[i], j).
    """
    rows = np.empty((len(seeds) * k, tokens))
    keys = np.empty((len(seeds), k, 2), np.uint64)
    keys[..., 0], keys[..., 1] = np.array(seeds, np.uint64)[:, None], np.arange(k)
    philox = np.random.Philox(key=0, counter=first // 4)  # a counter stands for four numbers
    generator, state = np.random.Generator(philox), philox.state
    for key, row in zip(keys.reshape(-1, 2), rows, strict=True):
        state["state"]["key"] = key
        philox.state = state  # six times as quick as a generator for each row
        generator.random(out=row)
    return rows
