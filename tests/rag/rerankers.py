"""Cross-encoders for the tests: of random weights, and one whose score can be told without running it."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from transformers import BertForSequenceClassification

from tests.rag.encoders import TOKENS, letter_config, letter_tokenizer

WIDTH = 16
# What the rigged one gives a pair with "#" and no "$" in it, and the negative of it the other way round. The two
# numbers that stand for "#" leave the layer norm as the root of half the width, the pooler as its hyperbolic tangent.
MARKED = 10 * math.tanh(math.sqrt(WIDTH / 2))


def reranker_folder(folder: Path, *, seed: int = 0, max_tokens: int = 64, labels: int = 1) -> Path:
    """A BERT of one layer over letters, as transformers saves it."""
    torch.manual_seed(seed)
    model = BertForSequenceClassification(letter_config(WIDTH, max_tokens, num_labels=labels))
    return _save(model, folder, max_tokens)


def rigged_folder(folder: Path, *, max_tokens: int = 64) -> Path:
    """One that gives `MARKED` to a pair with ``#``, ``-MARKED`` to one with ``$``, and 0 to one with neither.

    Every token but the two is nothing. Attention is the same to all tokens and hands their mean on; the layer norm
    makes the same of any share of marks.
    """
    model = BertForSequenceClassification(letter_config(WIDTH, max_tokens, num_labels=1))
    layer = model.bert.encoder.layer[0]
    with torch.no_grad():
        for name, value in model.named_parameters():
            value.fill_(1.0 if name.endswith("LayerNorm.weight") else 0.0)
        for token, sign in (("#", 1.0), ("$", -1.0)):
            model.bert.embeddings.word_embeddings.weight[TOKENS.index(token), :2] = torch.tensor([sign, -sign])
        for dense in (layer.attention.self.value, layer.attention.output.dense, model.bert.pooler.dense):
            dense.weight.copy_(torch.eye(WIDTH))
        model.classifier.weight[0, 0] = 10.0
    return _save(model, folder, max_tokens)


def _save(model: BertForSequenceClassification, folder: Path, max_tokens: int) -> Path:
    folder.mkdir(parents=True)
    model.save_pretrained(folder)
    letter_tokenizer(max_tokens).save_pretrained(folder)
    return folder
