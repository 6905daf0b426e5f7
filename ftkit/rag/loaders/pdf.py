"""PDF: one document a file, its pages' text divided by form feeds."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ftkit.errors import Problem
from ftkit.notices import log
from ftkit.rag.document import PAGE_BREAK, Document, Value
from ftkit.rag.loaders.reading import missing_part, normalised, read_bytes

if TYPE_CHECKING:
    from pypdf import PdfReader

# Mostly pictures, so far more than of text.
MAX_BYTES = 256 << 20
# pypdf bounds one stream (75 MB unpacked, two million operators) and one page (5,000 forms), but not their product.
# A book of 1,000 pages draws with one or two million; five million take minutes.
MAX_OPERATORS = 5_000_000
# Damaged files end in whatever the code that reads them did not foresee.
_DAMAGED = (
    ArithmeticError, AssertionError, AttributeError, LookupError, NotImplementedError, OSError, RecursionError,
    TypeError, ValueError, struct.error, zlib.error,
)  # fmt: skip


class _TooMuchError(Exception):
    """A document that draws without end."""


def load_pdf(path: Path, name: str) -> Iterator[Document | Problem]:
    """The text of all pages, ``\\n\\f\\n`` between two, so that `Document.page` can tell the page of a character.

    Metadata: ``pages``, how many; ``title`` where the file has one; ``pages_without_text`` where only some have any.

    Raises:
        MissingPartError: pypdf is not installed.
    """
    try:
        from pypdf import PdfReader
        from pypdf.errors import DependencyError, FileNotDecryptedError, PyPdfError
    except ImportError:
        raise missing_part("PDF", "pypdf") from None
    raw = read_bytes(path, MAX_BYTES)
    if isinstance(raw, Problem):
        yield raw
        return
    try:
        reader = PdfReader(io.BytesIO(raw))
        texts, title = _texts(reader), _title(reader)
    except DependencyError:
        fix = "Run: pip install cryptography; or save a copy without encryption."
        yield Problem(where=str(path), what="is encrypted in a way that needs another package", fix=fix)
    except FileNotDecryptedError:
        yield Problem(where=str(path), what="is encrypted", fix="Save a copy without a password.")
    except _TooMuchError:
        what = f"draws with more than {MAX_OPERATORS:,} operators"
        yield Problem(where=str(path), what=what, fix="Split it, or leave it out if you do not trust it.")
    except (PyPdfError, *_DAMAGED) as error:
        what = f"is damaged, or no PDF: {str(error) or type(error).__name__}"
        yield Problem(where=str(path), what=what, fix="Get it again, or print it to a new PDF.")
    else:
        yield _document(texts, title, path, name)


def _texts(reader: PdfReader) -> list[str]:
    drawn = 0

    def count(*_: object) -> None:
        # pypdf takes no error from inside a form for one, but the next operator outside raises it again.
        nonlocal drawn
        drawn += 1
        if drawn > MAX_OPERATORS:
            raise _TooMuchError

    texts = []
    for page in reader.pages:
        text = page.extract_text(visitor_operand_before=count)
        # Half a surrogate pair comes of a broken font table and can be written nowhere.
        clean = text.encode("utf-8", "replace").decode()
        texts.append(normalised(clean).replace(PAGE_BREAK, "\n").replace("\0", "").strip("\n"))
    return texts


def _title(reader: PdfReader) -> str:
    title = reader.metadata.title if reader.metadata else None
    return (title or "").encode("utf-8", "replace").decode().strip()


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
