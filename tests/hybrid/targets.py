"""Models of random weights that say different things, and passages for them."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModelForCausalLM

from ftkit.pipeline.target import Target
from ftkit.rag.passage import Hit, Passage
from tests.tiny import tiny_config, tiny_tokenizer

TEXTS = {
    "oum.md": "Oum has a mayor, Ada Berg.",
    "vek.md": "Vek has a bridge of red iron over the river, and a mill that nobody uses.",
    "lir.md": "Lir makes paper.",
}
QUESTION = "Who is mayor of Oum, of Vek and of Lir?"


def random_target(seed: int, family: str = "llama", **changes: Any) -> Target:
    """With weights spread so that logits differ, and what it says depends on all that it reads."""
    tokenizer = tiny_tokenizer()
    torch.manual_seed(seed)
    config = tiny_config(family, len(tokenizer), **changes)
    config.tie_word_embeddings = False  # tied, random weights say the last token again and again, whatever was asked
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)
    return Target(model=model.eval(), tokenizer=tokenizer, stop_token_ids=[2], compute=torch.float32)


def hits(*scores: float) -> list[Hit]:
    """The passages of `TEXTS`, of different lengths, with these scores."""
    pairs = zip(TEXTS.items(), scores, strict=False)
    return [
        Hit(
            passage=Passage(
                id=number, document=name, version=1, start=0, end=len(text), text=text, context="", metadata={}
            ),
            score=score,
            ranks={},
        )
        for number, ((name, text), score) in enumerate(pairs, start=1)
    ]


@torch.no_grad()
def next_probs(target: Target, ids: list[int]) -> torch.Tensor:
    """Of the token behind some ids, read in one piece, without a cache or company."""
    probs: torch.Tensor = target.model(input_ids=torch.tensor([ids])).logits[0, -1].double().softmax(dim=0)
    return probs
