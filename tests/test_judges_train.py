"""Training judges: losses by hand, learning, held-out prompts, soft labels, checkpoints that the judges load."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_judges import deberta, save_chat_model, save_encoder, tokenizer
from transformers import MambaConfig, MambaForCausalLM

from judges import LLMJudge, PairPreferenceJudge, PairRMJudge, Question, RewardModelJudge
from judges.audit.agreement import accuracy, calibration_error, length_bias, log_loss
from judges.files import LabelledPair
from judges.judge import Judge
from judges.training.train import JUDGES, RECIPES, measure, split_by_prompt, train_judge
from judges.verdicts import Answer

KINDS = ["reward-model", "pairrm", "pair-preference", "llm"]
TEMPLATE = "{{ first }} or {{ second }} ?"


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bases")
    save_chat_model(root / "causal")
    save_encoder(root / "encoder")
    save_recurrent(root / "recurrent")
    empty = root / "empty-encoder"
    tokenizer(encoder=True, chat=False).save_pretrained(empty)
    deberta(len(tokenizer(encoder=True))).save_pretrained(empty)
    return root


def save_recurrent(folder: Path) -> None:
    """A model that no mask can make read what is behind a token."""
    made = tokenizer(chat=False)
    config = MambaConfig(vocab_size=len(made), hidden_size=16, state_size=4, num_hidden_layers=1)
    MambaForCausalLM(config).save_pretrained(folder)
    made.save_pretrained(folder)


def base_of(bases: Path, kind: str) -> Path:
    return bases / ("encoder" if kind == "pairrm" else "causal")


def labelled(n: int, seed: int = 0) -> list[LabelledPair]:
    """Whoever says "good" beats whoever says "bad", at either place and in sentences of all lengths."""
    generator = np.random.default_rng(seed)
    pairs = []
    for i in range(n):
        words = [" ".join(generator.choice(["the", "cat", "owl", "mat"], size=generator.integers(1, 4))) for _ in "ab"]
        first_wins = bool(generator.random() < 0.5)
        first, second = (
            (f"{words[0]} good", f"{words[1]} bad") if first_wins else (f"{words[0]} bad", f"{words[1]} good")
        )
        votes = ("first",) if first_wins else ("second",)
        pairs.append(LabelledPair(str(i), f"which {i // 2}", first, second, votes))
    return pairs


@pytest.mark.parametrize("kind", KINDS)
def test_a_trained_judge_learns_what_separates_the_pairs_and_loads_as_an_ordinary_judge(
    bases: Path, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
):
    options = {"template": TEMPLATE} if kind == "llm" else {}
    data = labelled(160)
    figures = train_judge(
        kind,
        data,
        base_of(bases, kind),
        tmp_path / kind,
        epochs=16,
        lr=5e-3,
        batch_size=16,
        holdout=0.2,
        options=options,
    )
    assert capsys.readouterr().out == ""
    assert (figures["train_pairs"], figures["heldout_pairs"], figures["left_out"], figures["steps"]) == (
        128,
        32,
        0,
        128,
    )
    assert figures["coverage"] == 1.0
    assert figures["accuracy"] >= 0.9
    assert figures["log_loss"] < 0.4 < np.log(2)
    judge = JUDGES[kind](tmp_path / kind, **options)
    assert (tmp_path / kind / "model.safetensors").is_file()
    heldout = split_by_prompt(data, 0.2, 0)[1]
    columns = [[getattr(p, name) for p in heldout] for name in ("prompt", "first", "second")]
    preference = judge.verdicts(*columns, both_orders=True).mean()
    share = np.array([p.share for p in heldout])
    assert np.mean((preference > 0.5) == (share > 0.5)) == pytest.approx(figures["accuracy"])
    assert -np.mean(np.log(np.where(share == 1, preference, 1 - preference))) == pytest.approx(figures["log_loss"])


@pytest.mark.parametrize("kind", KINDS)
def test_the_margin_trained_on_is_the_log_odds_the_judge_reports(bases: Path, tmp_path: Path, kind: str):
    options = {"template": TEMPLATE} if kind == "llm" else {}
    torch.manual_seed(0)
    network, recipe = RECIPES[kind](base_of(bases, kind), options)
    network.eval()
    texts = [("which", "a cat", "the good owl"), ("the mat", "wise and wise", "b"), ("x", "a b c d", "e")]
    questions = [Question(*each) for each in texts]
    with torch.no_grad():
        margin = recipe.margin(network, [recipe.encode(question) for question in questions]).numpy()
    recipe.save(tmp_path / kind)
    preference = JUDGES[kind](tmp_path / kind, **options).compare(*zip(*texts, strict=True))
    np.testing.assert_allclose(np.log(preference / (1 - preference)), margin, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_every_weight_that_the_margin_depends_on(bases: Path, kind: str):
    network, recipe = RECIPES[kind](base_of(bases, kind), {})
    network.train()
    recipe.margin(network, [recipe.encode(Question("p", "a cat", "an owl"))]).sum().backward()
    touched = [name for name, weight in network.named_parameters() if weight.grad is not None and weight.grad.any()]
    assert any("layers" in name or "layer." in name for name in touched)
    assert any("score" in name or "head" in name for name in touched)


def test_soft_labels_are_learnt_as_shares_of_votes(bases: Path, tmp_path: Path):
    votes = ("first", "first", "first", "second")
    data = [LabelledPair(str(i), f"which {i}", "the good cat", "the bad owl", votes) for i in range(60)]
    train_judge("reward-model", data, bases / "causal", tmp_path, epochs=12, lr=5e-3, batch_size=8)
    preference = RewardModelJudge(tmp_path).compare(["which 3"], ["the good cat"], ["the bad owl"])[0]
    assert preference == pytest.approx(0.75, abs=0.05)


@pytest.mark.parametrize("kind", ["pairrm", "reward-model"])
def test_the_same_seed_trains_the_same_weights(bases: Path, tmp_path: Path, kind: str):
    from safetensors.torch import load_file

    runs = []
    for name in ("one", "two"):
        train_judge(kind, labelled(24), base_of(bases, kind), tmp_path / name, lr=1e-3, batch_size=8, seed=5)
        runs.append(load_file(tmp_path / name / "model.safetensors"))
    assert runs[0].keys() == runs[1].keys()
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])


def test_a_base_of_config_and_tokenizer_alone_starts_from_random_weights(bases: Path, tmp_path: Path):
    figures = train_judge("pairrm", labelled(24), bases / "empty-encoder", tmp_path, lr=1e-3, batch_size=8)
    assert figures["heldout_pairs"] == 2
    assert 0 <= PairRMJudge(tmp_path).compare(["p"], ["a"], ["b"])[0] <= 1


def test_long_pairs_are_left_out_and_counted(bases: Path, tmp_path: Path):
    data = [*labelled(20), LabelledPair("long", "which 0", "x y z " * 60, "a", ("first",))]
    figures = train_judge("pair-preference", data, bases / "causal", tmp_path, max_length=120, lr=1e-3, seed=1)
    assert (figures["left_out"], figures["train_pairs"]) == (1, 18)
    with pytest.raises(ValueError, match="no training pair fits into max_length = 3"):
        train_judge("llm", data, bases / "causal", tmp_path, max_length=3)


def test_no_prompt_is_both_trained_on_and_held_out():
    data = labelled(40)
    for seed in range(5):
        train, heldout = split_by_prompt(data, 0.3, seed)
        assert len(train) + len(heldout) == 40
        assert len({pair.prompt for pair in heldout}) == 6
        assert not {pair.prompt for pair in train} & {pair.prompt for pair in heldout}
    chat = [{"role": "user", "content": "which 0"}]
    same = [LabelledPair("a", "which 0", "x", "y", ("tie",)), LabelledPair("b", chat, "x", "y", ("tie",))]
    with pytest.raises(ValueError, match="1 distinct prompts: training needs at least 2"):
        split_by_prompt(same, 0.5, 0)


@dataclass
class EvenJudge(Judge):
    """Prefers neither."""

    def answer(self, questions: Any, advance: Any) -> list[Answer]:
        return [Answer(0.5) for _ in questions]


def test_held_out_pairs_are_kept_with_their_prompts_number_and_without_their_texts(tmp_path: Path):
    prompts = ["which cat", "which owl", [{"role": "user", "content": "which cat"}]]
    pairs = [LabelledPair(str(i), prompt, "good", "bad", ("first",)) for i, prompt in enumerate(prompts)]
    measure(EvenJudge(), pairs, tmp_path / "heldout.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "heldout.jsonl").read_text().splitlines()]
    assert [row["prompt"] for row in rows] == [0, 1, 0]  # a text is one turn of a chat
    assert set(rows[0]) == {"id", "prompt", "preference", "share"}


def test_a_ranker_may_start_from_a_causal_model_whose_prefixes_then_see_what_is_behind_them(
    bases: Path, tmp_path: Path
):
    from judges.training.ranker import encode_pair, load_ranker

    shutil.copytree(bases / "causal", tmp_path / "base")
    settings = tmp_path / "base" / "tokenizer_config.json"
    unpadded = {name: value for name, value in json.loads(settings.read_text()).items() if name != "pad_token"}
    settings.write_text(json.dumps(unpadded))
    train_judge("pairrm", labelled(24), tmp_path / "base", tmp_path, lr=1e-3, batch_size=8)
    ranker, made = load_ranker(tmp_path)
    ids, (_, first, second), _ = encode_pair(made, "which ?", "the cat", "the owl", (64, 64))
    encoder = ranker.pretrained_model
    with torch.no_grad():
        here, there = (encoder(torch.tensor([[*ids[:-1], end]])).last_hidden_state[0] for end in ids[-2:])
    assert first < second < len(ids) - 1
    assert not torch.allclose(here[first], there[first])
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == ["LlamaPairRM"]


def test_a_labels_file_is_read(bases: Path, tmp_path: Path):
    rows = [
        {"id": i, "prompt": f"p{i}", "first": "good", "second": "bad", "label": ["first", "first", "tie"]}
        for i in range(8)
    ]
    (tmp_path / "labels.jsonl").write_text("\n".join(map(json.dumps, rows)))
    figures = train_judge("reward-model", tmp_path / "labels.jsonl", bases / "causal", tmp_path / "out", holdout=0.5)
    assert (figures["train_pairs"], figures["heldout_pairs"]) == (4, 4)


@pytest.mark.parametrize(
    ("kind", "base", "options", "message"),
    [
        ("ranker", "causal", {}, "there is no kind of judge 'ranker' to train; choose among reward-model"),
        ("pairrm", "recurrent", {}, "cannot become a ranker: it reads one way only"),
        ("pair-preference", "encoder", {}, "cannot be trained as ...ForCausalLM"),
        ("reward-model", "nowhere", {}, "has no tokenizer that loads"),
        (
            "llm",
            "causal",
            {"options": {"labels": ("A", "certainly not one token")}},
            "tokens to this judge's",
        ),
        ("llm", "causal", {"options": {"template": "{{ first }}"}}, "template never shows second"),
        ("llm", "causal", {"epochs": 0}, "epochs must be above 0, got 0"),
        ("llm", "causal", {"holdout": 1.0}, "holdout must be between 0 and 1"),
        ("llm", "causal", {"batch_size": 0}, "batch_size must be a whole number"),
    ],
)
def test_bad_requests_are_refused_with_a_clear_message(
    bases: Path, tmp_path: Path, kind: str, base: str, options: dict, message: str
):
    with pytest.raises(ValueError, match=message):
        train_judge(kind, labelled(8), bases / base, tmp_path, **options)  # type: ignore[arg-type]


# Figures


def test_accuracy_leaves_ties_of_the_votes_and_missing_verdicts_out_and_counts_a_judges_tie_as_wrong():
    preference = np.array([0.9, 0.1, 0.5, 0.7, np.nan])
    assert accuracy(preference, np.array([1.0, 1.0, 1.0, 0.5, 0.0])) == pytest.approx(1 / 3)


def test_log_loss_of_a_perfect_share_is_its_entropy():
    share = np.array([0.25, 0.5, 1.0])
    entropy = -(0.25 * np.log(0.25) + 0.75 * np.log(0.75)) + np.log(2)
    assert log_loss(share, share) == pytest.approx(entropy / 3, abs=1e-9)
    assert log_loss(np.array([0.5, np.nan]), np.array([1.0, 0.0])) == pytest.approx(np.log(2))


def test_calibration_error_by_hand():
    preference, share = np.array([0.05, 0.08, 0.95, 1.0, np.nan]), np.array([0.0, 1.0, 1.0, 0.5, 1.0])
    expected = (abs(0.13 - 1.0) + abs(1.95 - 1.5)) / 4
    assert calibration_error(preference, share) == pytest.approx(expected)
    assert calibration_error(np.array([0.5] * 4), np.array([0.0, 1.0, 1.0, 0.0])) == pytest.approx(0)


def test_length_bias_is_the_preference_for_the_longer_beyond_the_votes():
    first, second = ["long text", "x", "same"], ["short", "longer", "size"]
    assert length_bias(np.array([1.0, 0.0, 1.0]), np.array([0.5, 0.5, 0.0]), first, second) == pytest.approx(0.5)
    assert length_bias(np.array([0.2, 0.3, 0.1]), np.array([0.2, 0.3, 0.9]), first, second) == pytest.approx(0)


def test_figures_of_nothing_are_missing():
    nothing = np.array([np.nan])
    assert np.isnan([accuracy(nothing, nothing), log_loss(nothing, nothing), calibration_error(nothing, nothing)]).all()


def test_the_public_classes_are_the_ones_trained():
    assert {
        "reward-model": RewardModelJudge,
        "pairrm": PairRMJudge,
        "pair-preference": PairPreferenceJudge,
        "llm": LLMJudge,
    } == JUDGES
