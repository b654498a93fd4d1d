"""A local language model as judge: labels in their context, end tokens, decoding, and templates that refuse turns."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_judges import llama, save_chat_model, save_parrot
from tokenizers import Tokenizer, decoders, models, normalizers, trainers
from transformers import AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerFast

from judges import LLMJudge
from judges.kinds.checkpoint import label_ids
from judges.protocols.custom import chat_text, without_system
from judges.transports.local_chat import label_tokens

CHAT = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + CHAT
)
NO_CAT = "{% if 'cat' in messages[-1]['content'] %}{{ raise_exception('no cats') }}{% endif %}" + CHAT
PAIR = ["p", "q"], ["the cat sat", "an owl"], ["a mat", "was wise"]


def pieces() -> Any:
    """A tokenizer of SentencePiece's kind: a text by itself begins with a space of its own, so "A" alone is "▁A"."""
    made = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    special = ["<pad>", "<s>", "</s>", "<|user|>", "<|assistant|>", "<|end|>", "<unk>"]
    special += [f"<0x{byte:02X}>" for byte in range(256)]
    alphabet = [*string.printable, "▁"]
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(["which is better A B the cat A B A B"] * 20, trainer)
    spec = json.loads(made.to_str())
    for letter in "AB":
        if f"▁{letter}" not in spec["model"]["vocab"]:
            spec["model"]["vocab"][f"▁{letter}"] = len(spec["model"]["vocab"])
            spec["model"]["merges"].append(["▁", letter])
    named = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "<|end|>", "unk_token": "<unk>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(spec)), **named)
    tokenizer.chat_template, tokenizer.model_max_length = CHAT, 4096
    return tokenizer


def save_saying(folder: Path, tokenizer: Any, logits: dict[int, float]) -> Path:
    """A model whose next token has these logits, whatever comes before, and 0 for every other."""
    config = llama(len(tokenizer))
    config.max_position_embeddings = 4096
    network = LlamaForCausalLM(config)
    with torch.no_grad():
        for layer in network.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        network.model.embed_tokens.weight.zero_()[:, 0] = 1
        network.lm_head.weight.zero_()
        for token, logit in logits.items():
            network.lm_head.weight[token, 0] = logit / 32**0.5
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_label_is_the_token_that_follows_this_prompt_with_all_its_spellings_summed(tmp_path: Path) -> None:
    tokenizer = pieces()
    bare, spaced = ([tokenizer.convert_tokens_to_ids(f"{space}{x}") for x in "AB"] for space in ("", "▁"))
    assert label_ids(tokenizer, ("A", "B")) == spaced  # what the labels are by themselves, and not what is written
    text = chat_text(tokenizer, [{"role": "user", "content": "which is better"}])
    assert text is not None
    assert [label_tokens(tokenizer, text, x) for x in "AB"] == [sorted(each) for each in zip(bare, spaced, strict=True)]
    logits = {bare[0]: 9.0, bare[1]: 8.0, spaced[0]: 1.0, spaced[1]: 5.0}
    judge = LLMJudge(save_saying(tmp_path / "model", tokenizer, logits))
    first, second = (torch.tensor([logits[bare[i]], logits[spaced[i]]]).exp().sum() for i in (0, 1))
    verdicts = judge.verdicts(*PAIR)
    assert verdicts.status == ["ok"] * 2
    assert verdicts.preference.tolist() == pytest.approx([float(first / (first + second))] * 2, abs=1e-5)


def test_two_labels_that_the_model_would_hardly_write_are_no_verdict_but_of_a_judge_trained_on_these(
    tmp_path: Path,
) -> None:
    tokenizer = pieces()
    ids = label_ids(tokenizer, ("A", "B"))
    folder = save_saying(tmp_path / "model", tokenizer, {ids[0]: 1.0})
    assert LLMJudge(folder).verdicts(*PAIR).status == ["labels-unlikely"] * 2
    assert LLMJudge(folder, min_label_mass=0).verdicts(*PAIR).status == ["ok"] * 2
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"judge_labels": dict(zip("AB", ids, strict=True))}))
    verdicts = LLMJudge(folder).verdicts(*PAIR)
    assert verdicts.preference.tolist() == pytest.approx([1 / (1 + torch.tensor(-1.0).exp().item())] * 2, abs=1e-5)
    assert LLMJudge(folder, labels=("B", "C")).verdicts(*PAIR).status == ["labels-unlikely"] * 2


@pytest.mark.parametrize(
    "settings",
    [
        {"repetition_penalty": 1.3, "no_repeat_ngram_size": 2},
        {"min_new_tokens": 6},
        {"num_beams": 4, "num_return_sequences": 2},
        {"stop_strings": ["["]},
        {"do_sample": True, "temperature": 3.0, "top_k": 20, "top_p": 0.8},
        {"suppress_tokens": "said"},
        {"max_length": 4, "forced_eos_token_id": 7, "bad_words_ids": [["said"]]},
    ],
)
def test_nothing_of_a_checkpoints_generation_config_changes_a_reply(tmp_path: Path, settings: dict[str, Any]) -> None:
    folder = save_parrot(tmp_path / "model", "[[A>>B]]")
    said = AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids("[[A>>B]]")
    text = (
        json.dumps({"eos_token_id": 2, **settings}).replace('[["said"]]', f"[[{said}]]").replace('"said"', f"[{said}]")
    )
    (folder / "generation_config.json").write_text(text)
    verdicts = LLMJudge(folder, "arena-hard", max_tokens=8).verdicts(*PAIR)
    assert (verdicts.raw, verdicts.preference.tolist()) == (["[[A>>B]]"] * 2, [1.0, 1.0])


@pytest.mark.parametrize("configured", [7, [7, 3], None])
def test_a_reply_ends_at_the_tokenizers_end_token_whatever_the_generation_config_says(
    tmp_path: Path, configured: Any
) -> None:
    folder = save_parrot(tmp_path / "model", "[[A>B]]")
    for name in ("generation_config.json", "config.json"):
        written = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(written | {"eos_token_id": configured}))
    verdicts = LLMJudge(folder, "arena-hard", max_tokens=8).verdicts(*PAIR)
    assert (verdicts.status, verdicts.output_tokens.tolist()) == (["ok"] * 2, [1, 1])


def test_a_template_that_refuses_the_systems_turn_has_its_words_in_the_users(tmp_path: Path) -> None:
    folder = save_parrot(tmp_path / "model", "[[A>B]]")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = NO_SYSTEM
    tokenizer.save_pretrained(folder)
    chat = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}]
    assert chat_text(tokenizer, chat) == "<|user|>\nbe brief\n\nhello<|end|>\n<|assistant|>\n"
    assert without_system(chat[1:]) == chat[1:]
    for protocol in ("arena-hard", "mt-bench"):
        status = LLMJudge(folder, protocol, max_tokens=8).verdicts(*PAIR).status
        assert status == (["ok"] * 2 if protocol == "arena-hard" else ["no-verdict"] * 2)


def test_a_chat_that_the_template_refuses_fails_alone(tmp_path: Path) -> None:
    folder = save_chat_model(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = NO_CAT
    tokenizer.save_pretrained(folder)
    assert LLMJudge(folder, min_label_mass=0).verdicts(*PAIR).status == ["template-refuses", "ok"]
