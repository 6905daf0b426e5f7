"""The process of its own in which exports are read as their users will read them."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ftkit.errors import ModelError, ResourceError

PROCESS = Path(__file__).with_name("verify_process.py")
TIMEOUT_S = 1800


def run_alone(words: Sequence[str | Path], timeout_s: float) -> subprocess.CompletedProcess[str]:
    """Run a script with its arguments by this Python, and keep what it prints.

    Raises:
        TimeoutExpired: It did not end.
    """
    # -P -E: neither the script's folder nor PYTHONPATH can slip a module in.
    command = [sys.executable, "-P", "-E", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout_s)


def read_found(out: Path) -> dict[str, Any]:
    """What a reader wrote, its answers to a token contract under ``contract``."""
    found: dict[str, Any] = json.loads((out / "found.json").read_text(encoding="utf-8"))
    if (out / "contract.json").is_file():
        found["contract"] = json.loads((out / "contract.json").read_text(encoding="utf-8"))
    return found


@contextlib.contextmanager
def read_alone(job: dict[str, Any], script: Path = PROCESS) -> Iterator[Path]:
    """Run ``verify_process.py`` or another reader; they have nothing of ftkit and no network.

    Args:
        job: What to read and to measure; see that file.
        script: The reader.

    Yields:
        The folder with what it found; gone afterwards.

    Raises:
        ModelError: It ended with an error.
        ResourceError: The disk with the temporary files is full, or memory did not suffice.
        TimeoutExpired: It did not end.
    """
    with tempfile.TemporaryDirectory(prefix="ftkit-verify-") as scratch:
        written = Path(scratch) / "job.json"
        written.write_text(json.dumps(job), encoding="utf-8")
        done = run_alone([script, written, scratch], TIMEOUT_S)
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            _require_machine(done.returncode, done.stderr, scratch)
            raise ModelError(lines[-1] if lines else f"the process ended with status {done.returncode}")
        yield Path(scratch)


def _require_machine(code: int, errors: str, scratch: str) -> None:
    """What the machine is short of says nothing about the export, which would else count as one that fails."""
    if os.strerror(errno.ENOSPC) in errors or os.strerror(errno.EDQUOT) in errors:
        raise ResourceError(
            f"{Path(scratch).parent}: the disk is full while an export is verified",
            fix="Free some space, or name a folder on another disk in TMPDIR.",
        )
    if code == -signal.SIGKILL or "MemoryError" in errors or "can't allocate memory" in errors:
        raise ResourceError("memory did not suffice to verify an export", fix="Free some memory.")
