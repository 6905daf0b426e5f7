"""Exact places in a run at which something goes wrong: every write, rename and removal within its folder.

A place is counted from 1 and has a label, such as ``write checkpoints/*/state.json``. At the chosen one the process
is killed, the disk fills up, the folder turns read-only, or a signal arrives.
"""

from __future__ import annotations

import builtins
import ctypes
import io
import os
import re
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch

_BLOCK = 4096
_MS_RDONLY, _MS_REMOUNT, _MS_BIND = 1, 32, 4096


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What goes wrong, and where.

    Attributes:
        folder: Operations within it are counted.
        at: The number of the operation, from 1; 0 for none.
        label: Instead of a number, the first operation with this label.
        do: ``kill`` before it, ``kill-half`` in the middle of it, ``fill`` the disk, turn it ``read-only``, or
            ``signal``, and go on with it.
        log: Where the label of each operation is written; None for nowhere.
        ballast: The file that fills the disk.
        room: Bytes that are left on it.
        signals: Numbers that arrive one after another.
    """

    folder: Path
    at: int = 0
    label: str = ""
    do: str = "kill"
    log: Path | None = None
    ballast: Path | None = None
    room: int = 0
    signals: tuple[int, ...] = (signal.SIGINT,)


class Places:
    """Counts the operations of this process."""

    watching: Places | None = None

    def __init__(self, fault: Fault) -> None:
        self.fault, self.root, self.count = fault, str(fault.folder), 0
        self.log = None if fault.log is None else os.open(fault.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.real_open, self.write_raw = io.open, os.write

    @staticmethod
    def stop_watching() -> None:
        """Whatever this process does from now on is no place."""
        Places.watching = None

    def watch(self) -> None:
        """Count from now on."""
        Places.watching = self
        io.open = builtins.open = self._open  # type: ignore[assignment]
        for name in ("fsync", "mkdir", "unlink", "remove", "rmdir"):
            setattr(os, name, self._wrapped(name, getattr(os, name)))
        for name in ("replace", "rename"):
            setattr(os, name, self._wrapped("rename", getattr(os, name), named=1))
        os.open = self._opened(os.open)  # type: ignore[assignment]
        safetensors.torch.serialize_file = self._serialize(safetensors.torch.serialize_file)

    def place(self, kind: str, path: str | None, half: Callable[[], Any] | None = None) -> None:
        """One operation is about to happen."""
        if Places.watching is not self or path is None or not (path + "/").startswith(self.root + "/"):
            return
        self.count += 1
        name = f"{kind} {label(path[len(self.root) + 1 :])}"
        if self.log is not None:
            self.write_raw(self.log, f"{name}\n".encode())
        if self.fault.at == self.count or self.fault.label == name:
            self._go_wrong(half)

    def _go_wrong(self, half: Callable[[], Any] | None) -> None:
        do = self.fault.do
        if do == "kill-half" and half is not None:
            half()
        if do in ("kill", "kill-half"):
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(10)
        elif do == "fill":
            assert self.fault.ballast is not None, "a full disk needs ballast"
            fill(self.fault.ballast, self.fault.room)
        elif do == "read-only":
            make_read_only(self.fault.folder)
        elif do == "signal":
            for number in self.fault.signals:
                os.kill(os.getpid(), number)
        else:
            raise AssertionError(do)

    def _wrapped(self, kind: str, real: Any, *, named: int = 0) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            self.place(kind, whereabouts(args[named], options.get("dir_fd")))
            return real(*args, **options)

        return call

    def _opened(self, real: Any) -> Any:
        def call(path: Any, flags: int, *args: Any, **options: Any) -> Any:
            if flags & os.O_CREAT:
                self.place("create", whereabouts(path, options.get("dir_fd")))
            return real(path, flags, *args, **options)

        return call

    def _open(self, file: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
        if not set(mode) & set("wax+"):
            return self.real_open(file, mode, *args, **options)
        path = whereabouts(file, None)
        if not isinstance(file, int):
            self.place("create", path)
        stream = self.real_open(file, mode, *args, **options)
        real = stream.write

        def write(data: Any) -> Any:
            def half() -> None:
                real(data[: len(data) // 2])
                stream.flush()

            self.place("write", path, half)
            return real(data)

        stream.write = write
        return stream

    def _serialize(self, real: Any) -> Any:
        def call(tensors: Any, filename: Any, *args: Any, **options: Any) -> Any:
            def half() -> None:
                real(tensors, filename, *args, **options)
                os.truncate(filename, Path(filename).stat().st_size // 2)

            self.place("write", whereabouts(filename, None), half)
            return real(tensors, filename, *args, **options)

        return call


def whereabouts(path: Any, folder: int | None) -> str | None:
    """The absolute path behind a name or a descriptor."""
    if isinstance(path, int):
        return str(Path(f"/proc/self/fd/{path}").readlink())
    name = Path(os.fsdecode(path))
    return str(Path(f"/proc/self/fd/{folder}").readlink() / name if folder is not None else name.absolute())


def label(path: str) -> str:
    """A path within the run without what changes from run to run."""
    return re.sub(r"step-\d+", "step-N", re.sub(r"\.partial-[^/]*", ".partial", path)) or "."


def fill(ballast: Path, room: int) -> None:
    """Take all the space of a file system but ``room``."""
    handle = os.open(ballast, os.O_WRONLY | os.O_CREAT)
    size, step = os.fstat(handle).st_size, 1 << 20
    while step >= _BLOCK:
        try:
            os.posix_fallocate(handle, size, step)
            size += step
        except OSError:
            step //= 2
    os.ftruncate(handle, max(0, size - room))
    os.close(handle)


def make_read_only(folder: Path) -> None:
    """Put a read-only view of a folder over it; what is open already stays as it was."""
    libc = ctypes.CDLL(None, use_errno=True)
    name = os.fsencode(folder)
    for flags in (_MS_BIND, _MS_BIND | _MS_REMOUNT | _MS_RDONLY):
        if libc.mount(name, name, None, flags, None):
            raise OSError(ctypes.get_errno(), "cannot mount")
