"""File systems of a test's own: a mount namespace in which a small disk fills up and folders turn read-only."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from types import TracebackType

import pytest


class Mounts:
    """A process with mounts of its own, for `tests.faults.line.Setting.namespace`.

    Args:
        folder: Where a small disk is mounted; seen by nobody else.
        size_mib: Of the disk.
    """

    def __init__(self, folder: Path, size_mib: int = 96) -> None:
        self.folder = folder
        if shutil.which("unshare") is None:
            pytest.skip("unshare is not installed, so there is no disk to fill")
        command = ["unshare", "--user", "--map-root-user", "--mount", "sh"]
        self._shell = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.pid = self._shell.pid
        try:
            self.do(f"mount -t tmpfs -o size={size_mib}m tmpfs '{folder}'")
        except (AssertionError, OSError) as error:
            self.__exit__(None, None, None)
            pytest.skip(f"mounting is not permitted here, so there is no disk to fill: {error}")

    def __enter__(self) -> Mounts:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._shell.kill()
        self._shell.communicate()

    def do(self, command: str) -> None:
        """Run a command inside."""
        assert self._shell.stdin is not None and self._shell.stdout is not None
        self._shell.stdin.write(f"{command}; echo ended $?\n")
        self._shell.stdin.flush()
        said = []
        for text in self._shell.stdout:
            if text.startswith("ended "):
                assert text == "ended 0\n", "".join(said)
                return
            said.append(text)
        raise AssertionError("".join(said) or "the shell ended")

    def seen(self, path: Path) -> Path:
        """A path inside, as it is reached from here."""
        return Path(f"/proc/{self.pid}/root{path}")
