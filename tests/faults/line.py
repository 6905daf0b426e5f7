"""Runs of `ftkit` in processes of their own that cost a second, not ten.

A server process imports torch, transformers, peft and ftkit once and starts no thread; each run is a fork of it. The
process that verifies an export is a fork as well. Everything else is as `ftkit` does it: arguments in, exit code,
stdout and stderr out, signals to a process of its own.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import random
import runpy
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tests.faults.places import Fault, Places

TIMEOUT_S = 120
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Ended:
    """How a run ended.

    Attributes:
        code: Exit code; negative for a signal.
        out: What it printed on stdout.
        err: And on stderr.
        wall_s: From its start to its end.
    """

    code: int
    out: str
    err: str
    wall_s: float


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is around a run.

    Attributes:
        fault: What goes wrong at a place in it.
        environment: Further variables.
        clock_s: How far its clock is from the real one, in seconds, one entry a reading; the last one stays.
        namespace: Process whose mounts it sees.
        memory_steps: The forward passes, from 1, in which memory is short.
    """

    fault: Fault | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    clock_s: tuple[float, ...] = ()
    namespace: int | None = None
    memory_steps: tuple[int, ...] = ()
    memory_error: str = "MemoryError"


class Started:
    """A run under way."""

    def __init__(self, process: BaseProcess, out: Path, err: Path) -> None:
        self.process, self._out, self._err, self._began = process, out, err, time.monotonic()
        assert process.pid is not None, "it was started"
        self.pid = process.pid

    def send(self, number: int) -> None:
        """A signal, if it still runs."""
        if self.process.exitcode is None:
            os.kill(self.pid, number)

    def wait(self, timeout_s: float = TIMEOUT_S) -> Ended:
        """Until it ends; one that does not is killed and fails the test."""
        self.process.join(timeout_s)
        if self.process.exitcode is None:
            self.send(signal.SIGKILL)
            self.process.join()
            raise AssertionError(f"did not end within {timeout_s} s:\n{_text(self._err)}")
        return Ended(self.process.exitcode, _text(self._out), _text(self._err), time.monotonic() - self._began)

    def wait_for(self, path: Path, timeout_s: float = TIMEOUT_S) -> None:
        """Until a file or folder appears, or the run ends."""
        deadline = time.monotonic() + timeout_s
        while not path.exists() and self.process.exitcode is None:
            assert time.monotonic() < deadline, f"{path} did not appear"
            time.sleep(0.002)

    def wait_to_say(self, words: str, timeout_s: float = TIMEOUT_S) -> None:
        """Until words appear on its stderr, or the run ends."""
        deadline = time.monotonic() + timeout_s
        while words not in self.said() and self.process.exitcode is None:
            assert time.monotonic() < deadline, f"{words!r} was not said"
            time.sleep(0.005)

    def said(self) -> str:
        """Its stderr so far."""
        return _text(self._err)


def _text(path: Path) -> str:
    """What was printed; a run that was killed at once had not even begun to."""
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


class Line:
    """The server and its runs.

    Args:
        scratch: Where their output is kept.
    """

    def __init__(self, scratch: Path) -> None:
        self.scratch, self._count = scratch, 0
        self.temporary = scratch / "tmp"
        self.temporary.mkdir()
        self._context: Any = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["tests.faults.preloaded"])

    def start(self, *words: str | Path, **setting: Any) -> Started:
        """Start ``ftkit`` with these arguments; keywords as in `Setting`."""
        self._count += 1
        places = {"TMPDIR": str(self.temporary), "FTKIT_CACHE": str(self.scratch / "cache")}
        places["FTKIT_TOKEN_CACHE"] = str(self.scratch / "tokens")
        setting["environment"] = places | dict(setting.get("environment", {}))
        out, err = self.scratch / f"{self._count}.out", self.scratch / f"{self._count}.err"
        arguments = ([str(word) for word in words], out, err, Setting(**setting))
        process = self._context.Process(target=_run, args=arguments)
        process.start()
        return Started(process, out, err)

    def run(self, *words: str | Path, **setting: Any) -> Ended:
        """Run it to its end."""
        return self.start(*words, **setting).wait()


def _run(words: list[str], out: Path, err: Path, setting: Setting) -> None:
    """In the fork: become that run."""
    sys.stdin.close()
    for target, path in ((1, out), (2, err)):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        os.dup2(handle, target)
        os.close(handle)
    if setting.namespace is not None:
        enter(setting.namespace)
    os.environ.update(setting.environment)
    tempfile.tempdir = None
    _scramble_generators()
    subprocess.run = _run_or_fork(subprocess.run)  # type: ignore[assignment]
    if setting.clock_s:
        from tests.faults.clock import turn

        turn(setting.clock_s)
    if setting.memory_steps:
        from tests.faults.memory import run_short

        run_short(setting.memory_steps, setting.memory_error)
    if setting.fault is not None:
        Places(setting.fault).watch()
    from ftkit.cli.app import main

    try:
        main(words)
    except SystemExit:
        raise
    except BaseException:  # noqa: BLE001 - shown as the interpreter would
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


def _scramble_generators() -> None:
    """What a new process would have: other random states than the one before."""
    import numpy as np
    import torch

    torch.set_num_threads(1)
    seed = int.from_bytes(os.urandom(4), "little")
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


def _run_or_fork(real: Any) -> Any:
    """``subprocess.run`` that forks for the readers of exports: they would import torch anew."""

    def run(command: Any, **options: Any) -> Any:
        if not str(command[3] if len(command) > 3 else "").endswith("verify_process.py"):
            return real(command, **options)
        with tempfile.TemporaryFile("w+") as errors:
            pid = os.fork()
            if pid == 0:
                _read(command[3:], errors.fileno())
            _, status = os.waitpid(pid, 0)
            errors.seek(0)
            text = errors.read()
        return subprocess.CompletedProcess(command, os.waitstatus_to_exitcode(status), "", text)

    return run


def _read(argv: list[str], errors: int) -> None:
    """Be the reader: nothing of the parent's faults, and gone when the parent goes."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.dup2(errors, 2)
    Places.stop_watching()
    sys.argv = argv
    code = 0
    try:
        runpy.run_path(argv[0], run_name="__main__")
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:  # noqa: BLE001 - shown as the interpreter would
        traceback.print_exc()
        code = 1
    sys.stderr.flush()
    os._exit(code)


def enter(pid: int) -> None:
    """See the mounts of another process, as its user."""
    libc = ctypes.CDLL(None, use_errno=True)
    for kind in ("user", "mnt"):
        handle = os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY)
        same = Path(f"/proc/{pid}/ns/{kind}").samefile(f"/proc/self/ns/{kind}")
        if not same and libc.setns(handle, 0):
            raise OSError(ctypes.get_errno(), f"cannot enter the {kind} namespace of {pid}")
        os.close(handle)
