"""Tiny random checkpoints in Hugging Face format for tests of the judges."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    DebertaV2Config,
    DebertaV2Model,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)

CHAT = (
    "{{ bos_token }}{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
SPECIAL = ["<pad>", "<s>", "</s>", "<|end|>", "<|user|>", "<|assistant|>", "[CLS]", "[SEP]", "<unk>"]
TEXT = "the cat sat on a mat and an owl was wise A B response prompt which is better first second good bad"


def tokenizer(*, encoder: bool = False, chat: bool = True) -> Any:
    """A byte-level tokenizer that writes one BOS, or [CLS] and [SEP] for an encoder."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([TEXT] * 20, trainer)
    frame = "[CLS] $A [SEP]" if encoder else "<s> $A"
    ids = [(token, backend.token_to_id(token)) for token in ("[CLS]", "[SEP]", "<s>")]
    backend.post_processor = processors.TemplateProcessing(single=frame, special_tokens=ids)
    made = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        cls_token="[CLS]",
        sep_token="[SEP]",
        additional_special_tokens=["<|end|>", "<|user|>", "<|assistant|>"],
        model_max_length=256,
    )
    made.chat_template = CHAT if chat else None
    return made


def llama(words: int, **options: Any) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=words,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        initializer_range=0.5,
        **options,
    )


def save_chat_model(folder: Path, *, chat: bool = True, seed: int = 0) -> Path:
    made = tokenizer(chat=chat)
    torch.manual_seed(seed)
    LlamaForCausalLM(llama(len(made))).save_pretrained(folder)
    made.save_pretrained(folder)
    return folder


def save_classifier(folder: Path, *, labels: int = 1, chat: bool = True, seed: int = 0) -> Path:
    made = tokenizer(chat=chat)
    torch.manual_seed(seed)
    LlamaForSequenceClassification(llama(len(made), num_labels=labels)).save_pretrained(folder)
    made.save_pretrained(folder)
    return folder


def deberta(words: int) -> DebertaV2Config:
    return DebertaV2Config(
        vocab_size=words,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=256,
        relative_attention=True,
        pos_att_type=["p2c", "c2p"],
        position_biased_input=False,
        type_vocab_size=0,
        pad_token_id=0,
        initializer_range=0.5,
    )


def save_encoder(folder: Path, seed: int = 0) -> Path:
    made = tokenizer(encoder=True, chat=False)
    torch.manual_seed(seed)
    DebertaV2Model(deberta(len(made))).save_pretrained(folder)
    made.save_pretrained(folder)
    return folder


def save_pairrm(folder: Path, seed: int = 0) -> Path:
    """A random PairRM in the layout of `llm-blender/PairRM-hf`."""
    from judges.training.ranker import new_ranker

    made = tokenizer(encoder=True, chat=False)
    torch.manual_seed(seed)
    encoder = DebertaV2Model(deberta(len(made)))
    new_ranker(encoder, made).save(folder, made)
    return folder


def save_parrot(folder: Path, word: str) -> Path:
    """A chat model whose every reply is `word`, which becomes one token: any other token leads to it, it to the end."""
    made = tokenizer()
    made.add_tokens([word])
    made.model_max_length = 4096
    config = llama(len(made))
    config.max_position_embeddings = 4096
    network = LlamaForCausalLM(config)
    said = made.convert_tokens_to_ids(word)
    with torch.no_grad():
        for layer in network.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        network.model.embed_tokens.weight.zero_()[:, 0] = 1
        network.model.embed_tokens.weight[said] = torch.eye(32)[1]
        network.lm_head.weight.zero_()[said, 0] = 1
        network.lm_head.weight[made.eos_token_id, 1] = 1
    network.save_pretrained(folder)
    made.save_pretrained(folder)
    return folder
