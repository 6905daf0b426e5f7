"""Hostile files: a pickle that leaves a mark when it is opened, safetensors headers, exports with changed files."""

from __future__ import annotations

import json
import pickle
import struct
from pathlib import Path
from typing import Any

from ftkit.export.manifest import list_files


class Payload:
    """Unpickled, it writes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (f"open({str(self.mark)!r}, 'w').close()",)


def write_pickle(path: Path, mark: Path) -> Path:
    path.write_bytes(pickle.dumps(Payload(mark)))
    return path


def header_of(header: bytes | object, data: bytes = b"") -> bytes:
    """A safetensors file with this header and these bytes behind it."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def entry(begin: Any = 0, end: Any = 4, *, dtype: Any = "F32", shape: Any = (1,)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape) if isinstance(shape, tuple) else shape, "data_offsets": [begin, end]}


def change_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def agree(export: Path) -> None:
    """Let an export's manifest list its files as they now are, as whoever changed them would."""
    change_json(export / "manifest.json", files=list_files(export))
