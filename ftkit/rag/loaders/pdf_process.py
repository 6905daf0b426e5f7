"""Runs in a process of its own: takes PDFs by their bytes, gives back their texts, one after the other.

    python -P pdf_process.py

A request is a line of JSON, {"size", "operators", "seconds", "memory"}, and that many bytes. The answer is a line of
JSON: {"texts", "title"}, or {"fault"} with a ``detail``. See `ftkit.rag.loaders.parser`; it has nothing of ftkit, so
that it starts quickly.
"""

from __future__ import annotations

import io
import json
import signal
import struct
import sys
import zlib
from typing import Any

# Damaged files end in whatever the code that reads them did not foresee.
DAMAGED = (
    ArithmeticError, AssertionError, AttributeError, LookupError, NotImplementedError, OSError, RecursionError,
    TypeError, ValueError, struct.error, zlib.error,
)  # fmt: skip


class TooMuchError(Exception):
    """A document that draws without end."""


def read_pdf(raw: bytes, max_operators: int) -> dict[str, Any]:
    """The text of each page as pypdf gives it, and the title; or which fault it is."""
    try:
        from pypdf import PdfReader
        from pypdf.errors import DependencyError, FileNotDecryptedError, PyPdfError
    except ImportError:
        return {"fault": "not installed"}
    try:
        reader = PdfReader(io.BytesIO(raw))
        texts = page_texts(reader, max_operators)
        title = reader.metadata.title if reader.metadata else None
        return {"texts": texts, "title": title if isinstance(title, str) else ""}
    except DependencyError:
        return {"fault": "needs a package"}
    except FileNotDecryptedError:
        return {"fault": "encrypted"}
    except TooMuchError:
        return {"fault": "operators"}
    except (PyPdfError, *DAMAGED) as error:
        return {"fault": "damaged", "detail": str(error) or type(error).__name__}


def page_texts(reader: Any, max_operators: int) -> list[str]:
    """Each page's, as long as all of them together draw with at most that many operators."""
    drawn = 0

    def count(*_: object) -> None:
        # pypdf takes no error from inside a form for one, but the next operator outside raises it again.
        nonlocal drawn
        drawn += 1
        if drawn > max_operators:
            raise TooMuchError

    return [page.extract_text(visitor_operand_before=count) for page in reader.pages]


def limit(seconds: float, memory: int) -> None:
    """Bound this process, where the platform can: whoever started it may be gone when it runs away."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (memory, resource.getrlimit(resource.RLIMIT_AS)[1]))
    except (ImportError, ValueError, OSError):
        return  # Windows has none, and macOS refuses this one: there the time alone is bounded


def main() -> None:
    """Answer until there are no more requests."""
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    while head := requests.readline():
        asked = json.loads(head)
        raw = requests.read(asked["size"])
        limit(asked["seconds"], asked["memory"])
        try:
            # ASCII: half a surrogate pair comes of a broken font table, and is told by its number.
            said = json.dumps(read_pdf(raw, asked["operators"])).encode("ascii")
        except MemoryError:
            said = b'{"fault": "memory"}'
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, 0)
        del raw
        answers.write(said + b"\n")
        answers.flush()


if __name__ == "__main__":
    main()
