"""Everything that can be known of a hybrid before its members are asked."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ftkit.data.example import IGNORED
from ftkit.hybrid.course import hybrid_questions
from ftkit.hybrid.kinds import KINDS
from ftkit.hybrid.members import MARK, is_closed_book, members_of, open_members
from ftkit.hybrid.remembered import examples_of
from ftkit.hybrid.remembering import remembered_of
from ftkit.rag.answering import RagSystem
from ftkit.rag.audit import Faults
from ftkit.rag.beginning import leaked_questions
from ftkit.rag.checking import encoder_facts, output_warnings
from ftkit.rag.encoder import load_encoder
from ftkit.rag.measuring import require_readable
from ftkit.rag.questions import AskedQuestion, document_groups
from ftkit.recipe import HybridRecipe

FEW = 50
BYTES = {"float16": 2, "float32": 4}
TOKEN_BYTES = 4
SOURCE_BYTES = 80  # of a digest and what stands around it


def check_hybrid(recipe: HybridRecipe) -> dict[str, Any]:
    """Check members, questions and their lengths; nothing is asked, trained or written.

    Returns:
        ``kind``, ``encoder`` (None for a kind without), ``members`` (each with documents, passages given and longest
        answer), ``memory`` (what would be remembered; None for a kind without), ``questions`` and ``warnings``.

    Raises:
        FtkitError: Of the kind of the first part that fails, listing the faults of all parts.
    """
    recipe = recipe.resolved()
    faults = Faults()
    asked = faults.of(lambda: hybrid_questions(recipe))
    kind = KINDS[recipe.kind]
    encoder = faults.of(lambda: load_encoder(recipe.router.encoder)) if kind.has_encoder else None
    members: dict[str, dict[str, Any]] = {}
    memory = None
    if encoder is not None or not kind.has_encoder:
        with tempfile.TemporaryDirectory(prefix="ftkit-check-") as scratch:
            systems = faults.of(lambda: open_members(Path(scratch), members_of(recipe), encoder)) or {}
            if systems:
                faults.of(lambda: kind.require(systems))
            if systems and recipe.kind == "memory" and asked is not None:
                memory = faults.of(lambda: _memory(recipe, systems, *asked))
            for name, system in systems.items():
                every = [] if asked is None else [*asked[0], *asked[1]]
                faults.of(lambda system=system, every=every: require_readable(system, every))  # type: ignore[misc]
                members[name] = _facts(system)
                system.index.close()
    faults.raise_any()
    assert asked is not None, "what fails is raised"
    train, held = asked
    return {
        "recipe": recipe.model_dump(mode="json"),
        "kind": recipe.kind,
        "encoder": None if encoder is None else encoder_facts(encoder),
        "members": members,
        "memory": memory,
        "questions": {"train": _side(train), "validation": _side(held)},
        "warnings": [
            *_warnings(recipe.kind, train, held, members),
            *output_warnings(Path(recipe.output or ""), goes_on=MARK),
        ],
    }


def _facts(system: RagSystem) -> dict[str, Any]:
    closed = is_closed_book(system)
    return {
        "documents": 0 if closed else len(system.index.documents),
        "retrieval": "none" if not system.passages else system.mode,
        "passages": system.passages,
        "max_new_tokens": system.max_new_tokens,
        "parameters": sum(value.numel() for value in system.generator.model.parameters()),
        "threshold": system.threshold,
    }


def _side(asked: list[AskedQuestion]) -> dict[str, int]:
    answerable = sum(bool(one.answers) for one in asked)
    return {
        "questions": len(asked),
        "answerable": answerable,
        "unanswerable": len(asked) - answerable,
        "naming_documents": sum(bool(one.documents) for one in asked),
        "groups": len(set(document_groups(asked))),
    }


def _memory(
    recipe: HybridRecipe, systems: Mapping[str, RagSystem], train: list[AskedQuestion], held: list[AskedQuestion]
) -> dict[str, Any]:
    ((name, system),) = systems.items()
    remembered, target = remembered_of(recipe, name, system, train, held), system.generator
    entries, named = 0, 0
    for source, example in examples_of(target, remembered.contents):
        entries += sum(label != IGNORED for label in example.labels)
        named += SOURCE_BYTES * (1 + len(source.rests_on))
    width = target.model.config.get_text_config().hidden_size
    return {
        "texts": len(remembered.texts),
        "answers": len(remembered.pairs),
        "dev": len(remembered.dev),
        "entries": entries,
        "bytes": entries * (width * BYTES[recipe.memory.precision] + TOKEN_BYTES) + named,
    }


def _warnings(
    kind: str, train: list[AskedQuestion], held: list[AskedQuestion], members: dict[str, dict[str, Any]]
) -> list[str]:
    warnings = []
    if len(train) < FEW and kind == "router":
        warnings.append(
            f"{len(train)} questions are few to learn a choice from; a gain smaller than chance is not promoted"
        )
    elif len(train) < FEW:
        warnings.append(f"{len(train)} questions are few to choose a weight by")
    if kind != "router":
        warnings += [
            f"{name}: its threshold was chosen for its own confidences, and this {kind} gives every answer"
            for name, one in members.items()
            if one["threshold"] is not None and (kind == "memory" or one["passages"])
        ]
    if leaks := leaked_questions(train, held):
        warnings.append(f"{len(leaks)} held-back questions are also learnt from, so validation figures flatter")
    if all(not one["passages"] for one in members.values()):
        warnings.append("no member is given passages, so no answer has a citation")
    return warnings
