"""Readers that are played: they find the answer in a passage about what is asked, and nowhere else."""

from __future__ import annotations

import re
from typing import Any

from ftkit.evaluate.generation import Answer
from ftkit.rag.answering import RagSystem
from ftkit.rag.reader import REFUSAL
from tests.hybrid.conftest import TOOLS, TOWNS
from tests.rag.worlds import passages_in, question_in


def read(prompt: str) -> str:
    asked = next(thing for thing in (*TOWNS, *TOOLS) if re.search(rf"\b{thing}\b", question_in(prompt)))
    stated = re.search(rf"\b{asked} is (\w+)\.", passages_in(prompt))
    return stated[1] if stated else REFUSAL


def play(monkeypatch: Any) -> None:
    """Let every system answer what `read` says of its prompt."""

    def generate_all(system: RagSystem, ids: list[list[int]], _most: int | None) -> list[Answer]:
        texts = [read(system.generator.tokenizer.decode(one)) for one in ids]
        return [Answer(text=text, tokens=3, finish_reason="stop", wall_s=0.01) for text in texts]

    monkeypatch.setattr(RagSystem, "_generate_all", generate_all)
