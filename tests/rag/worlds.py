"""A closed world in an index, and readers that are played: what they say is known, so what went wrong is too."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from ftkit.evaluate.generation import Answer
from ftkit.pipeline.target import Target
from ftkit.rag.answering import RagSystem
from ftkit.rag.index import create_index
from ftkit.rag.questions import AskedQuestion
from ftkit.rag.settings import IndexSettings
from ftkit.rag.updates import world_documents
from tests.tiny import tiny_config, tiny_tokenizer

CONTEXT = 8192


def tiny_target(seed: int = 0) -> Target:
    """A model of random weights: it gives likelihoods, and what it would say is never asked."""
    tokenizer = tiny_tokenizer()
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(
        tiny_config("llama", len(tokenizer), num_hidden_layers=1, max_position_embeddings=CONTEXT)
    )
    return Target(model=model.eval(), tokenizer=tokenizer, stop_token_ids=[2], compute=torch.float32)


def world_index(folder: Any, encoder: Any, pair: Any, world: Any) -> Any:
    settings = IndexSettings(encoder=str(encoder), encoder_sha256=pair.sha256, width=16, passage_tokens=1200)
    index = create_index(folder, settings)
    index.add(world_documents(world), pair)
    return index


def asked(world: Any, *, answerable: bool = True) -> list[AskedQuestion]:
    """One-hop questions of a world, one of each fact."""
    return [
        AskedQuestion(question=one.question, answers=one.answers, documents=one.documents, id=one.id)
        for one in world.questions
        if one.hops == 1 and bool(one.answers) == answerable and one.id.endswith(".1")
    ]


def says(monkeypatch: Any, reader: Callable[[str], str]) -> None:
    """Let every system answer what a function of its prompt says."""

    def generate(system: RagSystem, ids: list[int], _most: int | None = None) -> Answer:
        text = reader(system.generator.tokenizer.decode(ids))
        return Answer(text=text, tokens=3, finish_reason="stop", wall_s=0.01)

    monkeypatch.setattr(RagSystem, "_generate", generate)


def question_in(prompt: str) -> str:
    return re.search(r"Question: (.*)\n", prompt)[1]


def passages_in(prompt: str) -> str:
    return prompt.partition("Question: ")[0]


def finds(monkeypatch: Any, documents_of: Callable[[str], list[str]]) -> None:
    """Let every search find the documents that a function of the question names."""

    def retrieve(system: RagSystem, question: str, count: int | None = None) -> list[Any]:
        from ftkit.rag.passage import Hit

        passages = [one for name in documents_of(question) for one in system.index.passages_of(name)]
        return [Hit(passage=one, score=1 / rank, ranks={}) for rank, one in enumerate(passages, start=1)][:count]

    monkeypatch.setattr(RagSystem, "retrieve", retrieve)
