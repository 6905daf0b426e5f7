"""Text encoders of random weights, in the folder layout of sentence-transformers."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,:;!?'()#|$-"


TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *LETTERS, *[f"##{letter}" for letter in LETTERS]]


def letter_tokenizer(max_tokens: int) -> PreTrainedTokenizerFast:
    """BERT's over letters; each punctuation mark is a token of its own."""
    raw = Tokenizer(models.WordPiece({token: index for index, token in enumerate(TOKENS)}, unk_token="[UNK]"))
    raw.normalizer = normalizers.BertNormalizer(lowercase=True)
    raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    raw.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=raw, model_max_length=max_tokens, **special)


def letter_config(width: int, max_tokens: int, **changes) -> BertConfig:
    """One layer, without dropout, over `TOKENS`."""
    return BertConfig(
        vocab_size=len(TOKENS),
        hidden_size=width,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=2 * width,
        max_position_embeddings=max_tokens,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=0.5,
        **changes,
    )


def encoder_folder(folder: Path, *, seed: int = 0, width: int = 16, max_tokens: int = 64) -> Path:
    """A BERT of one layer over letters, mean-pooled and normalised. Words that share letters lie near each other."""
    tokenizer, config = letter_tokenizer(max_tokens), letter_config(width, max_tokens)
    torch.manual_seed(seed)
    model = BertModel(config, add_pooling_layer=False)
    folder.mkdir(parents=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    parts = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (path, kind) in enumerate(parts)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "sentence_bert_config.json").write_text(
        json.dumps({"max_seq_length": max_tokens, "do_lower_case": False})
    )
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": width, "pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    (folder / "2_Normalize").mkdir()
    return folder
