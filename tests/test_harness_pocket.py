"""The pocket world: prompts never leak, answers follow the grammar, the panel cycles, the base policy is ordinary."""

import math
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from harness.pocket import base_policy, grammar
from judges import PanelJudge

ASK = [{"role": "user", "content": "describe the cat"}]
PLAIN = "a soft and quiet cat sleeps in the barn ."
RICH = "under golden stars the soft quiet cat glows in the barn ."
WARM = "dear friend , such a lovely soft quiet cat in the barn !"


def topic_of(kind: str) -> dict[str, str]:
    slots = {"n": "cat", "m": "owl", "a": "soft", "b": "proud", "c": "wise", "v": "runs", "w": "sings"}
    return {"kind": kind, "place": "in the snow", "time": "", **slots}


def grammatical(text: str) -> str | None:
    """The style of the template that a text fills, found by regular expressions of its own, or None."""
    slots = {"n": grammar.NOUNS, "m": grammar.NOUNS, "place": grammar.PLACES}
    slots |= dict.fromkeys("abc", (*grammar.ADJECTIVES, *grammar.VAGUE)) | dict.fromkeys("vw", grammar.VERBS)
    for family in (grammar.ABOUT_ONE, grammar.ABOUT_TWO):
        for style, templates in family.items():
            for template in templates:
                parts = re.split(r"\{(\w+)\}", template)
                literal = [re.escape(part) for part in parts[::2]]
                filled = ["(" + "|".join(slots[name]) + ")" for name in parts[1::2]]
                if re.fullmatch("".join(a + b for a, b in zip(literal, [*filled, ""], strict=True)), text):
                    return style
    return None


def test_splits_are_disjoint_balanced_and_large_enough() -> None:
    made = grammar.prompts(0)
    texts = {split: {str(record["prompt"]) for record in records} for split, records in made.items()}
    assert len(texts["train"]) == len(made["train"]) == 4096
    assert len(texts["heldout"]) == len(made["heldout"]) >= 1500
    assert not texts["train"] & texts["heldout"]
    assert len({record["id"] for records in made.values() for record in records}) == 4096 + 2048
    for records in made.values():
        counts = [sum(record["kind"] == kind for record in records) for kind in grammar.KINDS]
        assert max(counts) - min(counts) <= 1


def test_the_same_seed_gives_the_same_prompts_and_another_seed_never_trains_on_held_out_ones() -> None:
    one, two = grammar.prompts(1, train=500, heldout=500), grammar.prompts(2, train=500, heldout=500)
    assert one == grammar.prompts(1, train=500, heldout=500)
    trained = [str(record["prompt"]) for record in one["train"]]
    assert trained != [str(record["prompt"]) for record in two["train"]]
    assert not set(trained) & {str(record["prompt"]) for record in two["heldout"]}


def test_prompts_end_with_the_users_turn_and_follow_ups_have_two() -> None:
    for record in grammar.prompts(0, train=50, heldout=50)["heldout"]:
        roles = [message["role"] for message in record["prompt"]]
        assert roles == (["user", "assistant", "user"] if record["kind"] == "follow-up" else ["user"])


@pytest.mark.parametrize("sizes", [{"train": 0}, {"heldout": 100_000}])
def test_more_prompts_than_there_are_is_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"1\.\.8000 train and 1\.\.2500 heldout"):
        grammar.prompts(0, **sizes)


def test_the_corpus_holds_no_held_out_prompt_and_only_short_grammatical_answers_in_three_styles() -> None:
    pairs = list(grammar.corpus(3000, seed=0))
    assert len(pairs) == 3000
    assert not any(grammar.held_out(messages) for messages, _ in pairs)
    assert max(len(answer.split()) for _, answer in pairs) <= 15
    styles = [grammatical(answer) for _, answer in pairs]
    # Three binomial shares of 3,000 draws at 1/3: standard deviation .0086.
    assert all(abs(styles.count(style) / 3000 - 1 / 3) < 0.035 for style in grammar.STYLES)


@pytest.mark.parametrize("kind", grammar.KINDS)
@pytest.mark.parametrize("style", grammar.STYLES)
def test_an_accurate_answer_says_only_what_is_true(kind: str, style: str) -> None:
    true = {*grammar.FACTS["cat"], *grammar.FACTS["owl"]}
    for seed in range(20):
        answer = grammar.answer(topic_of(kind), style, 1.0, Random(seed))
        assert set(answer.split()) & set(grammar.ADJECTIVES) <= true
        assert grammatical(answer) == style


def test_an_inaccurate_answer_is_vague_half_of_the_time_and_else_right_only_by_chance() -> None:
    answers = [grammar.answer(topic_of("describe"), "warm", 0.0, Random(seed)) for seed in range(4000)]
    words = [word for answer in answers for word in _claims(answer)]
    vague = sum(word in grammar.VAGUE for answer in answers for word in answer.split())
    share = sum(word in grammar.FACTS["cat"] for word in words) / len(words)
    assert len(words) + vague == 8000
    assert vague == pytest.approx(4000, abs=200)  # standard deviation 45
    assert share == pytest.approx(4 / len(grammar.ADJECTIVES), abs=0.02)


def _claims(answer: str) -> list[str]:
    return [word for word in answer.split() if word in grammar.ADJECTIVES]


def test_every_noun_has_four_facts_and_the_vocabulary_is_small_and_closed() -> None:
    assert all(len(set(facts)) == 4 for facts in grammar.FACTS.values())
    known = set(grammar.vocabulary())
    said = {word for messages, answer in grammar.corpus(2000, seed=1) for word in answer.split()}
    asked = {word for messages, _ in grammar.corpus(2000, seed=1) for m in messages for word in m["content"].split()}
    assert said | asked == known
    assert 50 <= len(known) <= 120


def test_the_style_features_are_one_on_their_own_style_and_zero_on_the_others() -> None:
    panel = PanelJudge(panel=grammar.PANEL)
    pairs = list(grammar.corpus(1000, seed=2))
    features = panel.features([messages for messages, _ in pairs], [answer for _, answer in pairs])
    for name in ("rich", "warm"):
        column = features[:, panel.feature_names.index(name)]
        assert (column == [grammatical(answer) == name for _, answer in pairs]).all()


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_the_exact_preference_is_the_weighted_sigmoid_worked_by_hand_and_the_majority_cycles() -> None:
    panel = PanelJudge(panel=grammar.PANEL)
    # All three are true and name the cat; RICH says "the" twice among 11 words and loses .3/11 of variety.
    loss = 0.3 / 11
    by_hand = {
        (PLAIN, RICH): [1.0 + loss, -2.8 + loss, 1.8 + loss],
        (RICH, WARM): [-1.0 + 2.8 - loss, 2.8 - 1.8 - loss, -1.8 - 1.0 - loss],
        (WARM, PLAIN): [-2.8, 1.8, 1.0],
    }
    for (first, second), gains in by_hand.items():
        expected = sum(w * sigmoid(4 * gain) for w, gain in zip((0.40, 0.35, 0.25), gains, strict=True))
        assert panel.compare([ASK], [first], [second])[0] == pytest.approx(expected, abs=1e-12)
        assert expected > 0.55


def test_every_annotator_prefers_truth_in_every_style() -> None:
    panel = PanelJudge(panel=grammar.PANEL)
    for text in (PLAIN, RICH, WARM):
        lie = text.replace("soft", "loud")
        assert (panel.utilities([ASK], [text]) > panel.utilities([ASK], [lie])).all()


def test_the_tokenizer_knows_every_word_and_decodes_what_it_encoded() -> None:
    tokenizer = base_policy.build_tokenizer()
    for messages, answer in grammar.corpus(300, seed=3):
        ids: Any = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        assert tokenizer.unk_token_id not in ids
        assert len(ids) + 24 <= base_policy.CONTEXT
        assert tokenizer.decode(tokenizer(answer, add_special_tokens=False)["input_ids"]) == answer


def test_the_chat_template_marks_the_turns_and_closes_the_assistants() -> None:
    tokenizer = base_policy.build_tokenizer()
    messages = [*ASK, {"role": "assistant", "content": PLAIN}, {"role": "user", "content": "now the owl"}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert (
        text.split() == f"<s> <user> describe the cat <assistant> {PLAIN} </s> <user> now the owl <assistant>".split()
    )


def test_labels_are_the_answer_and_its_end_and_nothing_else() -> None:
    tokenizer = base_policy.build_tokenizer()
    ids, labels = base_policy.encode_corpus(tokenizer, 50, seed=4)
    for row, kept, (_, answer) in zip(ids, labels, grammar.corpus(50, seed=4), strict=True):
        assert tokenizer.decode(row[kept != -100]) == f"{answer} </s>"
        assert (kept[kept != -100] == row[kept != -100]).all()


def shorten(monkeypatch: pytest.MonkeyPatch, *, steps: int) -> None:
    monkeypatch.setattr(base_policy, "BATCH_SIZE", 16)
    monkeypatch.setattr(base_policy, "PAIRS", 16 * steps)


def test_one_seed_gives_one_checkpoint_and_leaves_the_global_generator_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import torch

    shorten(monkeypatch, steps=2)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    base_policy.build_base_policy(tmp_path / "a", seed=0)
    assert torch.equal(torch.rand(3), expected)
    base_policy.build_base_policy(tmp_path / "b", seed=0)
    base_policy.build_base_policy(tmp_path / "c", seed=1)
    a, b, c = ((tmp_path / name / "model.safetensors").read_bytes() for name in "abc")
    assert a == b != c


def test_parts_on_threads_have_the_gradient_of_the_whole_batch_to_the_last_bit_on_any_number_of_them() -> None:
    import torch

    tokenizer = base_policy.build_tokenizer()
    ids, labels = base_policy.encode_corpus(tokenizer, 40, seed=1)
    torch.manual_seed(0)
    model = base_policy.build_model(tokenizer)
    gradients = []
    for threads in (1, 2):
        with ThreadPoolExecutor(threads) as pool:
            loss = base_policy._backward(model, ids, labels, pool)
        gradients.append([weight.grad.clone() for weight in model.parameters()])
    assert all(map(torch.equal, *gradients))
    model.zero_grad()
    whole = model(input_ids=ids, labels=labels).loss
    whole.backward()
    assert loss == pytest.approx(whole.item(), rel=1e-6)
    for weight, parts in zip(model.parameters(), gradients[0], strict=True):
        torch.testing.assert_close(weight.grad, parts, rtol=1e-4, atol=1e-7)


def test_the_checkpoint_is_ordinary_and_training_is_reported_and_lowers_the_loss(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    shorten(monkeypatch, steps=12)
    seen: list[tuple[int, int, float]] = []
    metrics = base_policy.build_base_policy(tmp_path, seed=0, report=lambda *each: seen.append(each))
    assert [step for step, _, _ in seen] == list(range(1, 13))
    assert {steps for _, steps, _ in seen} == {12}
    assert seen[0][2] == pytest.approx(math.log(110), abs=0.3)  # untrained: about uniform over the 110 tokens
    assert metrics["loss"] == seen[-1][2] < seen[0][2] - 0.5
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert 400_000 < metrics["parameters"] == model.num_parameters() < 460_000
    assert AutoTokenizer.from_pretrained(tmp_path).chat_template == base_policy.CHAT_TEMPLATE


@pytest.mark.slow
def test_the_base_policy_is_grammatical_diverse_cyclic_and_has_something_to_learn(tmp_path: Path) -> None:
    base_policy.build_base_policy(tmp_path, seed=0)
    prompts = [record["prompt"] for record in grammar.prompts(0, train=1, heldout=150)["heldout"]]
    samples = sample(tmp_path, prompts, k=16)
    styles = [[grammatical(text) for text in texts] for texts in samples]
    flat = [style for row in styles for style in row]
    assert flat.count(None) / len(flat) < 0.06
    assert all(flat.count(style) / len(flat) > 0.2 for style in grammar.STYLES)

    panel = PanelJudge(panel=grammar.PANEL)
    matrices = np.array([matrix(panel, p, texts) for p, texts in zip(prompts, samples, strict=True)])
    distinct = [cycles(m, s) for m, s in zip(matrices, styles, strict=True)]
    assert np.mean([each for row in distinct for each in row]) > 0.1
    best = [row[:8, :8].mean(1).argmax() for row in matrices]
    assert np.mean([m[b, 8:].mean() for m, b in zip(matrices, best, strict=True)]) > 0.58


def sample(path: Path, prompts: list[Any], k: int) -> list[list[str]]:
    from trainers.engines.randomness import response_seeds
    from trainers.options import Sampling
    from trainers.policies.causal_lm import CausalLM

    policy = CausalLM.load(path)
    tokens = [policy.encode(prompt) for prompt in prompts]
    made = policy.sample(tokens, k, Sampling(k=k, max_tokens=24), response_seeds(0, range(len(tokens))))
    return [[response.text for response in row] for row in made]


def matrix(panel: PanelJudge, prompt: Any, texts: list[str]) -> np.ndarray:
    n = len(texts)
    first, second = [a for a in texts for _ in texts], texts * n
    return panel.compare([prompt] * n * n, first, second).reshape(n, n)


def cycles(preference: np.ndarray, styles: list[str | None]) -> list[bool]:
    """For each triple of a plain, a rich and a warm answer: do their majorities go in a circle?"""
    plain, rich, warm = ([i for i, style in enumerate(styles) if style == wanted] for wanted in grammar.STYLES)
    edges = [(preference[a, b], preference[b, c], preference[c, a]) for a in plain for b in rich for c in warm]
    return [min(edge) > 0.5 or max(edge) < 0.5 for edge in edges]
