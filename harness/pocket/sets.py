"""The pocket world's own benchmark sets, in the official files' formats, so that one code reads both.

Every prompt is held out in the grammar's sense, so no policy and no judge of this world trains on it. The baseline is
the base policy; the reference answers of MT-Bench and the targets of the lm-eval tasks come from the grammar's facts.
README.md beside this file says what each set asks.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from numpy.typing import NDArray

from harness.pocket.grammar import (
    ADJECTIVES,
    FACTS,
    PANEL,
    STYLES,
    VERBS,
    Message,
    Record,
    answer,
    draw_prompt,
    held_out,
    prompts,
)

if TYPE_CHECKING:
    from trainers.policies.causal_lm import CausalLM

BASELINE, REFERENCE = "pocket-base", "pocket-truth"
INSTRUCTIONS, HARD_PROMPTS, QUESTIONS, CHOICES, SUMMARIES = 1600, 250, 80, 200, 64
OTHERS = 6
"""Samples beside the baseline's own output, for the gamed baselines and the difficulty."""
TWO_NOUNS = ("compare", "story", "summary")
FIRST_TURNS = ("describe", *TWO_NOUNS)
MAX_TOKENS = 24

Topic = dict[str, str]


def write_sets(policy: CausalLM, out: Path, *, seed: int) -> dict[str, Any]:
    """Write the sets of AlpacaEval, Arena-Hard, MT-Bench and lm-eval into folders of these names below `out`.

    Returns how many instructions, questions and documents each has. `policy` is the base policy, sampled at
    temperature 1; same policy and seed, same bytes. No prompt is in two of AlpacaEval's and Arena-Hard's sets.

    Raises:
        ValueError: the policy has fewer than two answers to a prompt that are not empty.
    """
    single = [r for r in prompts(seed, train=1, heldout=2500)["heldout"] if r["kind"] != "follow-up"]
    hard = [r for r in single[INSTRUCTIONS:] if r["kind"] in TWO_NOUNS][:HARD_PROMPTS]
    for name in ("alpaca-eval", "arena-hard", "mt-bench", "lm-eval"):
        (out / name).mkdir(parents=True)
    return {
        "alpaca-eval": _write_alpaca_eval(policy, single[:INSTRUCTIONS], out / "alpaca-eval", seed),
        "arena-hard": _write_arena_hard(policy, hard, out / "arena-hard", seed),
        "mt-bench": _write_mt_bench(out / "mt-bench", Random(f"mt-bench {seed}")),
        "lm-eval": {
            "pocket_truth": _write_truth(out / "lm-eval", Random(f"truth {seed}")),
            "pocket_summary": _write_summary(out / "lm-eval", Random(f"summary {seed}")),
        },
    }


def _write_alpaca_eval(policy: CausalLM, records: Sequence[Record], out: Path, seed: int) -> int:
    """The baseline's outputs, and what length control needs: difficulties and two baselines that game the length."""
    import pandas as pd

    asked = [record["prompt"] for record in records]
    drawn = _samples(policy, asked, 1 + OTHERS, seed)
    baseline, others = [row[0] for row in drawn], [row[1:] for row in drawn]
    outputs = [
        {"dataset": r["kind"], "instruction": _text(r["prompt"]), "output": text, "generator": BASELINE}
        for r, text in zip(records, baseline, strict=True)
    ]
    (out / "model_outputs.json").write_text(json.dumps(outputs, indent=1) + "\n", encoding="utf-8")
    wins = _win_probabilities(asked, others, baseline)
    difficulty = _difficulty(wins)
    pd.DataFrame({"instruction_difficulty": difficulty}).to_csv(out / "instruction_difficulty.csv", index_label="index")
    gamed = [
        _gamed(name, picks, others, baseline, wins).assign(instruction_difficulty=difficulty, not_gamed_baseline=False)
        for name, picks in _length_gamers(others).items()
    ]
    pd.concat(gamed).to_csv(out / "df_gamed.csv", index_label="index")
    return len(outputs)


def _samples(policy: CausalLM, asked: Sequence[list[Message]], k: int, seed: int) -> list[list[str]]:
    """Up to k answers to each prompt, in the order drawn; empty ones are left out, so the next takes their place."""
    from trainers.engines.randomness import response_seeds
    from trainers.options import Sampling

    seeds = response_seeds(seed, map(_text, asked))
    drawn = policy.sample([policy.encode(prompt) for prompt in asked], k, Sampling(max_tokens=MAX_TOKENS), seeds)
    texts = [[response.text for response in row if response.text.strip()] for row in drawn]
    short = next((prompt for prompt, row in zip(asked, texts, strict=True) if len(row) < 2), None)
    if short:
        raise ValueError(f"fewer than 2 of {k} answers to {_text(short)!r} say anything; train the base policy longer")
    return texts


def _win_probabilities(
    asked: Sequence[list[Message]], others: Sequence[Sequence[str]], baseline: Sequence[str]
) -> list[NDArray[np.float64]]:
    """For each prompt, the panel's exact P(an other answer beats the baseline's), [others]."""
    from judges.kinds.panel import PanelJudge

    rows = [(prompt, text, own) for prompt, row, own in zip(asked, others, baseline, strict=True) for text in row]
    preferences = PanelJudge(PANEL).compare(*map(list, zip(*rows, strict=True)))
    return np.split(preferences, np.cumsum([len(row) for row in others])[:-1])


def _difficulty(wins: Iterable[NDArray[np.float64]]) -> NDArray[np.float64]:
    """The logit of how often other samples beat the baseline's own, shrunken by one win and one loss, standardised.

    Upstream's difficulties are fitted jointly over all models of its leaderboard; here there is one.
    """
    shares = np.array([(row.sum() + 1) / (len(row) + 2) for row in wins])
    logits = np.log(shares / (1 - shares))
    return (logits - logits.mean()) / logits.std(ddof=1)


def _length_gamers(others: Sequence[Sequence[str]]) -> dict[str, list[int]]:
    """Which sample a baseline takes that is told to be verbose, and one told to be concise."""
    return {
        f"{BASELINE}_{name}": [choose(range(len(row)), key=lambda i: len(row[i])) for row in others]
        for name, choose in (("verbose", max), ("concise", min))
    }


def _gamed(
    model: str,
    picks: Sequence[int],
    others: Sequence[Sequence[str]],
    baseline: Sequence[str],
    wins: Sequence[NDArray[np.float64]],
) -> Any:
    """A gamed baseline's preferences (0..1, P it wins) and length differences in characters, in their deviations."""
    import pandas as pd

    delta = np.array([len(own) - len(row[i]) for own, row, i in zip(baseline, others, picks, strict=True)])
    preference = [float(row[i]) for row, i in zip(wins, picks, strict=True)]
    return pd.DataFrame({"model": model, "preference": preference, "std_delta_len": delta / delta.std(ddof=1)})


def _write_arena_hard(policy: CausalLM, records: Sequence[Record], out: Path, seed: int) -> int:
    """Prompts about two nouns, and the baseline's answers, in the layout of v2.0."""
    drawn = _samples(policy, [record["prompt"] for record in records], 4, seed)
    questions, answers = [], []
    for record, (text, *_) in zip(records, drawn, strict=True):
        prompt = _text(record["prompt"])
        uid = _digest(prompt)[:16]
        questions.append({"uid": uid, "category": record["kind"], "subcategory": "two nouns", "prompt": prompt})
        turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": {"answer": text}}]
        row = {"uid": uid, "ans_id": _digest(f"{BASELINE} {uid}")[:22], "model": BASELINE, "messages": turns}
        answers.append(row | {"tstamp": 0.0, "metadata": _style(text)})
    _write_lines(out / "question.jsonl", questions)
    _write_lines(out / "model_answer" / f"{BASELINE}.jsonl", answers)
    return len(questions)


def _style(text: str) -> dict[str, Any]:
    """Upstream's style counts; the grammar has no mark-up, and its words and marks are its tokens."""
    return {
        "token_len": len(text.split()),
        "header_count": {f"h{level}": 0 for level in range(1, 7)},
        "list_count": {"ordered": 0, "unordered": 0},
        "bold_count": {"**": 0, "__": 0},
    }


def _write_mt_bench(out: Path, rng: Random) -> int:
    """Two-turn questions, by kind of first turn, and a reference answer to each turn that says only what is true."""
    questions, references = [], []
    for number, (first, topic) in enumerate(islice(_held_out(FIRST_TURNS, rng), QUESTIONS), 1):
        second, next_topic = _second_turn(first, rng)
        turns = [_text(first), second["content"]]
        questions.append({"question_id": number, "category": topic["kind"], "turns": turns})
        true = [answer(each, rng.choice(STYLES), 1.0, rng) for each in (topic, next_topic)]
        row = {"question_id": number, "answer_id": _digest(f"{REFERENCE} {number} {turns}")[:22]}
        references.append(row | {"model_id": REFERENCE, "choices": [{"index": 0, "turns": true}], "tstamp": 0.0})
    _write_lines(out / "question.jsonl", questions)
    _write_lines(out / "reference_answer" / f"{REFERENCE}.jsonl", references)
    return len(questions)


def _second_turn(first: Sequence[Message], rng: Random) -> tuple[Message, Topic]:
    """A follow-up with which the conversation is held out too."""
    while True:
        (*_, turn), topic = draw_prompt("follow-up", rng)
        if held_out([*first, turn]):
            return turn, topic


def _write_truth(out: Path, rng: Random) -> int:
    """The multiple-choice task: which noun is what. All choices use adjectives of the two nouns asked about."""
    asked = _held_out(("compare", "story"), rng)
    told_apart = ((messages, topic) for messages, topic in asked if len(_own(topic["n"], topic["m"])) > 1)
    documents = []
    for messages, topic in islice(told_apart, CHOICES):
        choices = _choices(topic["n"], topic["m"], rng)
        order = rng.sample(range(len(choices)), len(choices))
        shuffled = [choices[i] for i in order]
        documents.append({"question": _text(messages), "choices": shuffled, "answer": order.index(0)})
    scored = {"output_type": "multiple_choice", "doc_to_choice": "choices", "doc_to_target": "answer"}
    return _write_task(out, "pocket_truth", documents, scored | {"metric_list": [_mean("acc")]})


def _choices(n: str, m: str, rng: Random) -> list[str]:
    """Four sentences that differ in their adjectives alone: the true one, then both, the second and the first false."""
    (a, b), (c, d) = rng.sample(_own(n, m), 2), rng.sample(_own(m, n), 2)
    v, w = rng.sample(VERBS, 2)
    return [f"the {x} {n} {v} and the {y} {m} {w} ." for x, y in ((a, c), (c, a), (a, b), (d, c))]


def _own(n: str, m: str) -> list[str]:
    """The adjectives that are true of n and not of m; all nouns have equally many facts, so n and m have as many."""
    return [adjective for adjective in FACTS[n] if adjective not in FACTS[m]]


def _write_summary(out: Path, rng: Random) -> int:
    """The generation task: a summary must keep the first adjective of what it sums up."""
    drawn = islice(_held_out(("summary",), rng), SUMMARIES)
    documents = [{"question": _text(messages), "answer": topic["a"]} for messages, topic in drawn]
    first_adjective = {"function": "regex", "regex_pattern": rf"\b({'|'.join(ADJECTIVES)})\b", "group_select": 0}
    scored = {
        "output_type": "generate_until",
        "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": ["</s>"], "max_gen_toks": MAX_TOKENS, "do_sample": False},
        "filter_list": [{"name": "first-adjective", "filter": [first_adjective, {"function": "take_first"}]}],
        "metric_list": [_mean("exact_match")],
    }
    return _write_task(out, "pocket_summary", documents, scored)


def _mean(metric: str) -> dict[str, Any]:
    return {"metric": metric, "aggregation": "mean", "higher_is_better": True}


def _write_task(out: Path, name: str, documents: Sequence[Record], scored: Record) -> int:
    """An lm-eval task whose documents lie beside it; lm-eval reads them relative to the working directory."""
    task = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": f"{name}.jsonl"}},
        "test_split": "test",
        "num_fewshot": 0,
        "doc_to_text": "{{question}}",
    }
    text = yaml.safe_dump(task | scored | {"metadata": {"version": 1.0}}, sort_keys=False)
    (out / f"{name}.yaml").write_text(text, encoding="utf-8")
    _write_lines(out / f"{name}.jsonl", documents)
    return len(documents)


def _held_out(kinds: Sequence[str], rng: Random) -> Iterator[tuple[list[Message], Topic]]:
    """Distinct held-out prompts of these kinds in turn, with their topics, for as long as there are any."""
    seen = set()
    for kind in cycle(kinds):
        messages, topic = draw_prompt(kind, rng)
        while not held_out(messages) or str(messages) in seen:
            messages, topic = draw_prompt(kind, rng)
        seen.add(str(messages))
        yield messages, topic


def _text(messages: Sequence[Message]) -> str:
    """The last user's turn."""
    return messages[-1]["content"]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _write_lines(path: Path, records: Iterable[Record]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
