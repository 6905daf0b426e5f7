r"""A world as files.

    documents/ID           one page each, ID ending in .md
    documents.jsonl        {"id", "title", "date", "role"} of each page
    facts.jsonl            {"id", "subject", "relation", "value", "date", "document", "start", "end"}
    questions_SPLIT.jsonl  {"question", "answers", "document", ...}: the fields of `Question`
    world.json             settings, counts, and a SHA-256 over all other files

Offsets count characters of the page as UTF-8 text with ``\n`` line ends.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ftkit.files import files_in, new_folder, require_empty, sha256_file, to_json
from ftkit.rag.world.parts import SPLITS, Document, Fact, Question

SUMMARY = "world.json"


def write_world(
    folder: Path,
    documents: Sequence[Document],
    facts: Sequence[Fact],
    questions: Sequence[Question],
    summary: Mapping[str, Any],
) -> None:
    """Write all files, or none.

    Raises:
        OutputError: The folder exists and is not empty.
    """
    require_empty(folder)
    with new_folder(folder) as partial:
        (partial / "documents").mkdir()
        for document in documents:
            _write(partial / "documents" / document.id, document.text)
        _write_lines(
            partial / "documents.jsonl",
            ({"id": document.id, **document.metadata, "role": document.role} for document in documents),
        )
        _write_lines(partial / "facts.jsonl", map(vars, facts))
        for split in SPLITS:
            _write_lines(
                partial / f"questions_{split}.jsonl",
                (_question_row(question) for question in questions if question.split == split),
            )
        _write(partial / SUMMARY, to_json({**summary, "sha256": folder_digest(partial)}))


def folder_digest(folder: Path) -> str:
    """Hex SHA-256 over the names and digests of a world's files, its summary aside."""
    digest = hashlib.sha256()
    for name in files_in(folder):
        if name != SUMMARY:
            digest.update(f"{sha256_file(folder / name)}  {name}\n".encode())
    return digest.hexdigest()


def _question_row(question: Question) -> dict[str, Any]:
    # What every reader of a question set looks for comes first.
    first = ("question", "answers", "document")
    fields = {name: value for name, value in vars(question).items() if name not in first}
    return {**{name: getattr(question, name) for name in first}, **fields}


def _write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    _write(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")
