"""The processes of a selftest: started, waited for, killed on purpose, and never left behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, TextIO

from ftkit import errors
from ftkit.errors import Problem, ResourceError
from ftkit.notices import log
from ftkit.train.checkpoint import step_of

POLL_S = 0.002  # a step of the smallest model takes ten times as long
TELL_EVERY_S = 0.1
LINES_OF_A_CRASH = 15
MODULE = ["-m", "ftkit.pipeline.selftest_process"]


class Runs(Protocol):
    """Where the pieces of a selftest are done."""

    def call(self, verb: str, path: Path) -> dict[str, Any]:
        """Do one piece; see `ftkit.pipeline.selftest_process.work`."""
        ...

    def kill_after(self, recipe: Path, checkpoints: Path, step: int) -> None:
        """Begin a run, and end it without warning once its checkpoint after ``step`` steps is there.

        Args:
            recipe: File.
            checkpoints: Where the run keeps them.
            step: May be passed before the run is dead, and so may the run's end.
        """
        ...


class Processes:
    """Each piece in a new process.

    Args:
        folder: For answers, logs, and whatever the processes would put into the system's temporary folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started = 0

    def call(self, verb: str, path: Path) -> dict[str, Any]:
        """See `Runs.call`."""
        with self._process(verb, path) as child, self._file("log").open(encoding="utf-8", errors="replace") as told:
            while child.poll() is None:
                _pass_on(told)
                time.sleep(TELL_EVERY_S)
            _pass_on(told)
            return self._answer(child)

    def kill_after(self, recipe: Path, checkpoints: Path, step: int) -> None:
        """See `Runs.kill_after`."""
        with self._process("run", recipe) as child:
            while child.poll() is None:
                if any(step_of(checkpoint) >= step for checkpoint in checkpoints.glob("step-*")):
                    return  # leaving the block kills it
                time.sleep(POLL_S)
            self._answer(child)

    @contextlib.contextmanager
    def _process(self, verb: str, path: Path) -> Iterator[subprocess.Popen[bytes]]:
        """A running piece; dead when the block ends, however it ends, with all that it started."""
        self.started += 1
        scratch = self.folder / "tmp"
        scratch.mkdir(exist_ok=True)
        command = [sys.executable, *MODULE, verb, str(path), str(self._file("json"))]
        with self._file("log").open("wb") as output:
            # A session of its own: Ctrl-C is for this process, which then ends the others at once.
            child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
                env=os.environ | {"TMPDIR": str(scratch)},
            )  # fmt: skip
        try:
            yield child
        finally:
            if child.returncode is None:
                with contextlib.suppress(ProcessLookupError):  # it has ended just now
                    os.killpg(child.pid, signal.SIGKILL)
                child.wait()

    def _file(self, ending: str) -> Path:
        return self.folder / f"process-{self.started}.{ending}"

    def _answer(self, child: subprocess.Popen[bytes]) -> dict[str, Any]:
        """What the piece came to.

        Raises:
            FtkitError: That it ended with.
            ResourceError: It was killed.
            RuntimeError: It crashed.
        """
        if child.returncode < 0:
            name = signal.Signals(-child.returncode).name
            raise ResourceError(
                f"a run of the selftest was ended by {name}",
                fix="If the system ended it for lack of memory: close other programs, or lower train.batch_size.",
            )
        if child.returncode > 0:
            lines = self._file("log").read_text(encoding="utf-8", errors="replace").splitlines()
            raise RuntimeError("\n".join(["a run of the selftest crashed:", *lines[-LINES_OF_A_CRASH:]]))
        document = json.loads(self._file("json").read_text(encoding="utf-8"))
        if (fault := document.get("error")) is not None:
            raise getattr(errors, fault["kind"])([Problem(**problem) for problem in fault["problems"]])
        value: dict[str, Any] = document["value"]
        return value


def _pass_on(told: TextIO) -> None:
    """Say what a process has said since, so that minutes do not pass in silence."""
    for line in told:
        if line.strip():
            log.info("  %s", line.rstrip())
