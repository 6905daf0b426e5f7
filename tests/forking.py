"""Lets exports be verified in forks of one process that has torch imported, which takes seconds each time otherwise.

What a script sees is the same: a process of its own, with nothing of ftkit, its own arguments, environment and audit
hook. The fixture ``own_process`` gives a test the product's way back.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

SERVER = Path(__file__).with_name("fork_server.py")
PYTHON = [sys.executable, "-P", "-E"]


class ForkedRuns:
    """Stands in for ``subprocess`` in a module that runs scripts by `PYTHON`."""

    TimeoutExpired = subprocess.TimeoutExpired

    def __init__(self) -> None:
        self._server: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()

    def run(
        self, command: list[str], *, capture_output: bool, text: bool, check: bool, timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """As ``subprocess.run``, of which it knows just the way that ftkit calls it."""
        assert command[:3] == PYTHON, f"not a script that stands alone: {command}"
        assert (capture_output, text, check) == (True, True, False)
        with tempfile.TemporaryDirectory(prefix="ftkit-test-fork-") as scratch:
            out, err = Path(scratch) / "out", Path(scratch) / "err"
            asked = {
                "argv": command[3:], "folder": str(Path.cwd()), "environment": dict(os.environ), "stdout": str(out),
                "stderr": str(err), "timeout_s": timeout,
            }  # fmt: skip
            status = self._ask(asked)
            printed = SimpleNamespace(out=_read(out), err=_read(err))
        if status is None:
            raise subprocess.TimeoutExpired(command, timeout, printed.out, printed.err)
        return subprocess.CompletedProcess(command, status, printed.out, printed.err)

    def _ask(self, asked: dict[str, Any]) -> int | None:
        with self._lock:
            if self._server is None:
                self._server = subprocess.Popen(
                    [*PYTHON, str(SERVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
                )
            assert self._server.stdin is not None and self._server.stdout is not None
            print(json.dumps(asked), file=self._server.stdin, flush=True)
            answer = self._server.stdout.readline()
        assert answer, "the fork server ended"
        status: int | None = json.loads(answer)
        return status

    def close(self) -> None:
        """End the server."""
        if self._server is not None:
            self._server.communicate()


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
