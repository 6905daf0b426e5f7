"""Encode conversations and show which tokens count."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

from ftkit.data.encode import Encoder, example_of
from ftkit.data.example import IGNORED, TokenizedExample
from ftkit.data.sample import Content, Sample, Turn
from ftkit.data.settings import encoder_settings

TODAY = datetime.date(2031, 7, 4)


def conversation(*contents: str | Turn, kind: Any = "chat", tools: tuple[Mapping[str, Any], ...] = ()) -> Sample:
    """Turns that alternate between user and assistant, but for those that are given whole."""
    roles = ["user", "assistant"] * len(contents)
    turns = tuple(
        text if isinstance(text, Turn) else Turn(role=role, content=text)
        for role, text in zip(roles, contents, strict=False)
    )
    return Sample(content=Content(turns=turns, tools=tools), kind=kind, place="rows.jsonl:1")


def encoder(tokenizer: Any, *, train_on: Any = "assistant", allow: bool = False) -> Encoder:
    return Encoder(encoder_settings(tokenizer, train_on=train_on, allow_control_tokens=allow, today=TODAY))


def examples(
    sample: Sample, tokenizer: Any, *, train_on: Any = "assistant", allow: bool = False
) -> list[TokenizedExample]:
    encoded = encoder(tokenizer, train_on=train_on, allow=allow).encode(sample)
    return [example_of(one, sample) for one in encoded]


def tokenize(sample: Sample, tokenizer: Any, *, train_on: Any = "assistant", allow: bool = False) -> TokenizedExample:
    """The only sequence of a sample."""
    (example,) = examples(sample, tokenizer, train_on=train_on, allow=allow)
    return example


def marked(example: TokenizedExample, tokenizer: Any) -> str:
    """All tokens as text, those that count between ⟦ and ⟧; fails where a label is not its own token."""
    text, counting, run = "", False, []
    for token, label in zip(example.input_ids, example.labels, strict=True):
        assert label in (IGNORED, token)
        if (label != IGNORED) != counting:
            text += tokenizer.decode(run) + ("⟧" if counting else "⟦")
            counting, run = not counting, []
        run.append(token)
    return text + tokenizer.decode(run) + ("⟧" if counting else "")
