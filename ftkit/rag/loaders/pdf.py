"""PDF: one document a file, its pages' text divided by form feeds."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

from ftkit.errors import Problem
from ftkit.notices import log
from ftkit.rag.document import PAGE_BREAK, Document, Value
from ftkit.rag.loaders import parser
from ftkit.rag.loaders.reading import missing_part, normalised, read_bytes
from ftkit.units import format_bytes

# Mostly pictures, so far more than of text.
MAX_BYTES = 256 << 20
_MISTRUST = "Split it, or leave it out if you do not trust it."


def load_pdf(path: Path, name: str) -> Iterator[Document | Problem]:
    """The text of all pages, ``\\n\\f\\n`` between two, so that `Document.page` can tell the page of a character.

    Metadata: ``pages``, how many; ``title`` where the file has one; ``pages_without_text`` where only some have any.

    It is parsed in another process, which ends where a file takes too long or too much memory
    (`ftkit.rag.loaders.parser`): such a file is a `Problem`.

    Raises:
        MissingPartError: pypdf is not installed.
    """
    if importlib.util.find_spec("pypdf") is None:
        raise missing_part("PDF", "pypdf")
    raw = read_bytes(path, MAX_BYTES)
    if isinstance(raw, Problem):
        yield raw
        return
    found = parser.PARSER.parse(raw)
    if "fault" not in found:
        yield _document(list(map(_clean, found["texts"])), _whole(found["title"]).strip(), path, name)
        return
    if found["fault"] == "not installed":
        raise missing_part("PDF", "pypdf")
    what, fix = _fault(found)
    yield Problem(where=str(path), what=what, fix=fix)


def _fault(found: dict[str, str]) -> tuple[str, str]:
    """What is wrong with a file, and what to do about it."""
    faults = {
        "needs a package": (
            "is encrypted in a way that needs another package",
            "Run: pip install cryptography; or save a copy without encryption.",
        ),
        "encrypted": ("is encrypted", "Save a copy without a password."),
        "operators": (f"draws with more than {parser.MAX_OPERATORS:,} operators", _MISTRUST),
        "time": (f"takes more than {parser.MAX_SECONDS:g} s to read", _MISTRUST),
        "memory": (f"takes more than {format_bytes(parser.MAX_MEMORY_BYTES)} of memory to read", _MISTRUST),
        "died": ("ended the process that read it", _MISTRUST),
        "damaged": (
            f"is damaged, or no PDF: {found.get('detail', '')}",
            "Get it again, or print it to a new PDF.",
        ),
    }
    return faults[found["fault"]]


def _clean(text: str) -> str:
    return normalised(_whole(text)).replace(PAGE_BREAK, "\n").replace("\0", "").strip("\n")


def _whole(text: str) -> str:
    """Without half surrogate pairs, which come of a broken font table and can be written nowhere."""
    return text.encode("utf-8", "replace").decode()


def _document(texts: list[str], title: str, path: Path, name: str) -> Document | Problem:
    silent = [number for number, text in enumerate(texts, 1) if not text.strip()]
    if len(silent) == len(texts):
        what = f"has no text on its pages ({page_ranges(silent) or 'it has none'})"
        return Problem(where=str(path), what=what, fix="If it is scanned, run OCR over it (such as ocrmypdf) first.")
    metadata: dict[str, Value] = {"pages": len(texts)}
    if title:
        metadata["title"] = title
    if silent:
        metadata["pages_without_text"] = page_ranges(silent)
        log.warning("%s: no text on pages %s; if they are scanned, run OCR over them", path, page_ranges(silent))
    return Document(id=name, text=f"\n{PAGE_BREAK}\n".join(texts), metadata=metadata)


def page_ranges(numbers: list[int]) -> str:
    """``[1, 2, 3, 7]`` -> ``1-3, 7``."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)
