"""Prepare data from rows or raw text, and show which tokens count."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

from ftkit.data.example import IGNORED, TokenizedExample
from ftkit.data.prepare import PreparedData, prepare
from ftkit.data.settings import encoder_settings
from ftkit.models.tokenizer import template_names
from ftkit.recipe import DataSection
from tests.tiny import tiny_tokenizer

TODAY = datetime.date(2026, 1, 1)


def chat(*contents: str) -> dict[str, Any]:
    """A messages row whose roles alternate between user and assistant."""
    roles = ["user", "assistant"] * len(contents)
    return {"messages": [{"role": role, "content": text} for role, text in zip(roles, contents, strict=False)]}


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def prepare_path(
    path: Path,
    *,
    tokenizer: Any = None,
    validation: Any = None,
    progress: Any = None,
    takes_pairs: bool = False,
    **settings: Any,
) -> PreparedData:
    tokenizer = tokenizer or tiny_tokenizer()
    section = DataSection(train=str(path), validation=validation, **settings)
    encoder = encoder_settings(
        tokenizer,
        train_on=section.train_on,
        allow_control_tokens=section.allow_control_tokens,
        today=TODAY,
        known_templates=template_names(),
    )
    return prepare(section, encoder, progress=progress, takes_pairs=takes_pairs)


def prepare_rows(folder: Path, rows: list[dict[str, Any]], **settings: Any) -> PreparedData:
    return prepare_path(write_jsonl(folder / "rows.jsonl", rows), **settings)


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
