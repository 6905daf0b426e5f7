"""Prepare data from rows or raw text, and show which tokens count."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ftkit.data.prepare import PreparedData, prepare
from ftkit.data.sample import Sample, Turn
from ftkit.data.tokenize import IGNORED, TokenizedExample, Tokenizer
from ftkit.models.tokenizer import template_names, wants_bos
from ftkit.recipe import DataSection
from tests.tiny import tiny_tokenizer


def chat(*contents: str) -> dict[str, Any]:
    """A messages row whose roles alternate between user and assistant."""
    roles = ["user", "assistant"] * len(contents)
    return {"messages": [{"role": role, "content": text} for role, text in zip(roles, contents, strict=False)]}


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def prepare_path(path: Path, *, tokenizer: Any = None, validation: Any = None, **settings: Any) -> PreparedData:
    tokenizer = tokenizer or tiny_tokenizer()
    section = DataSection(train=str(path), validation=validation, **settings)
    return prepare(section, tokenizer, bos_wanted=wants_bos(tokenizer), template_names=template_names())


def prepare_rows(folder: Path, rows: list[dict[str, Any]], **settings: Any) -> PreparedData:
    return prepare_path(write_jsonl(folder / "rows.jsonl", rows), **settings)


def conversation(*contents: str, kind: Any = "chat") -> Sample:
    """Turns that alternate between user and assistant."""
    roles = ["user", "assistant"] * len(contents)
    turns = tuple(Turn(role=role, content=text) for role, text in zip(roles, contents, strict=False))
    return Sample(turns=turns, kind=kind, place="rows.jsonl:1")


def tokenize(sample: Sample, tokenizer: Any, *, train_on: Any = "assistant") -> TokenizedExample:
    return Tokenizer(tokenizer, train_on=train_on, bos_wanted=wants_bos(tokenizer))(sample)


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
