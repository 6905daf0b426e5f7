"""Tiny random models of several families, built from a config in memory; nothing is fetched."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer as RawTokenizer
from tokenizers import decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CORPUS = [
    "What colour is the sky? The sky is blue. What colour is grass? Grass is green.",
    "hello there, how are you today? One two three four five six seven eight nine ten.",
    'A customer writes: where is my order L1234? {"topic": "delivery", "urgent": false}',
    "the quick brown fox jumps over the lazy dog 0123456789 assistant user system tool",
]
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}


@cache
def _raw_tokenizer(bos: bool) -> str:
    raw = RawTokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    raw.train_from_iterator(CORPUS, trainer)
    if bos:
        raw.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", raw.token_to_id("<s>"))]
        )
    return raw.to_str()


def tiny_tokenizer(*, template: str | None = CHATML, bos: bool = False, pad_is_eos: bool = True) -> Any:
    """A byte-level BPE of 400 tokens with ChatML; eos is <|im_end|>, and the pad token equals it unless told."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=RawTokenizer.from_str(_raw_tokenizer(bos)),
        eos_token="<|im_end|>",
        pad_token="<|im_end|>" if pad_is_eos else "<|endoftext|>",
        bos_token="<s>" if bos else None,
    )
    tokenizer.chat_template = template
    return tokenizer


def tiny_config(family: str, vocabulary: int, **changes: Any) -> Any:
    """A config of the family with two narrow layers; ``changes`` to its sizes."""
    sizes = SIZES | changes
    ids = {"vocab_size": vocabulary, "bos_token_id": None, "eos_token_id": 2, "pad_token_id": 2}
    if family == "llama":
        return LlamaConfig(**sizes, **ids, tie_word_embeddings=True)
    if family == "qwen2":
        return Qwen2Config(**sizes, **ids, tie_word_embeddings=False)
    if family == "qwen3":
        return Qwen3Config(**({"head_dim": 16} | sizes), **ids, tie_word_embeddings=True)
    if family == "mistral":
        return MistralConfig(**sizes, **ids, sliding_window=None)
    if family == "gemma2":
        return Gemma2Config(**({"head_dim": 8} | sizes), **ids, query_pre_attn_scalar=8)
    if family == "gpt2":
        return GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=512, **ids)
    raise ValueError(family)


def tiny_model_folder(
    folder: Path,
    family: str = "llama",
    *,
    seed: int = 0,
    dtype: str = "float32",
    tokenizer: Any = None,
    **changes: Any,
) -> Path:
    """A complete model folder: weights, config, tokenizer with template, generation config."""
    tokenizer = tokenizer or tiny_tokenizer()
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(tiny_config(family, len(tokenizer), **changes))
    with torch.no_grad():  # transformers draws tiny weights whose logits hardly differ; spread them
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_rows(path: Path, count: int = 24) -> Path:
    """Chat rows about colours and numbers: each answer follows from its question."""
    colours = ["red", "green", "blue", "black", "white", "brown"]
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"What colour is thing {index}?"},
                {"role": "assistant", "content": f"{colours[index % 6]} {index}"},
            ]
        }
        for index in range(count)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
