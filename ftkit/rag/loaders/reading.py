"""The bytes and the text of one file, with every fault naming the file."""

from __future__ import annotations

from pathlib import Path

from ftkit.errors import MissingPartError, Problem
from ftkit.units import format_bytes

_BOM = b"\xef\xbb\xbf"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


def missing_part(what: str, package: str) -> MissingPartError:
    """The error for a format whose library is not installed."""
    return MissingPartError(
        f"reading {what} needs {package}, which is not installed", fix="Run: pip install 'ftkit[rag]'"
    )


def read_bytes(path: Path, max_bytes: int) -> bytes | Problem:
    """A file's content if it has at most ``max_bytes``, else what is wrong with it."""
    try:
        with path.open("rb") as stream:
            raw = stream.read(max_bytes + 1)
    except OSError as error:
        return Problem(
            where=str(path), what=f"cannot be read: {error.strerror or error}", fix="Mend it, or leave it out."
        )
    if len(raw) > max_bytes:
        what = f"is larger than {format_bytes(max_bytes)}, too much for one document"
        return Problem(where=str(path), what=what, fix="Split it into several files.")
    return raw


def read_text(path: Path, max_bytes: int) -> str | Problem:
    """A file's text without a byte order mark, its lines ended by line feeds, or what is wrong with it."""
    raw = read_bytes(path, max_bytes)
    if isinstance(raw, Problem):
        return raw
    if raw.startswith(_UTF16):
        return Problem(where=str(path), what="is UTF-16, not UTF-8 text", fix="Save the file as UTF-8.")
    zero = raw.find(b"\0")
    if zero >= 0:
        fix = "Give it the ending of its kind, or leave it out."
        return Problem(where=str(path), what=f"is not text: a zero byte at byte {zero}", fix=fix)
    try:
        return normalised(raw.removeprefix(_BOM).decode())
    except UnicodeDecodeError as error:
        at = error.start + len(_BOM) * raw.startswith(_BOM)
        line = raw.count(b"\n", 0, at) + 1
        return Problem(
            where=f"{path}:{line}",
            what=f"not UTF-8 text (0x{raw[at]:02x} at byte {at})",
            fix="Save the file as UTF-8.",
        )


def normalised(text: str) -> str:
    """The text with every line ended by a line feed alone; all other characters stay."""
    return text.replace("\r\n", "\n").replace("\r", "\n")
