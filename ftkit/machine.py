"""What this machine has, read from the operating system; no torch here."""

from __future__ import annotations

import ctypes
import os
import threading
from pathlib import Path
from types import TracebackType

import psutil


def available_memory_bytes() -> int:
    """Memory that a new process can take, the container's limit considered (cgroup v2 and v1)."""
    available = int(psutil.virtual_memory().available)
    for limit_file, used_file in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        try:
            limit, used = Path(limit_file).read_text().strip(), Path(used_file).read_text().strip()
        except OSError:
            continue
        if limit.isdigit():
            available = min(available, max(0, int(limit) - int(used)))
    return available


def give_back_freed_memory() -> None:
    """Let the C library return what is free on its heap to the system; does nothing elsewhere than on glibc.

    It keeps freed blocks of some megabytes; where each is of another size than the last, none is ever used again.
    """
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):
        return


def cpu_has_fast_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 matrices natively (x86: AVX512-BF16 or AMX; Arm: BF16).

    Without it bfloat16 is emulated and slower than float32.
    """
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    flags = next((line for line in text.splitlines() if line.startswith(("flags", "Features"))), "")
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(flags.split()))


class PeakMemory:
    """Samples the resident memory of this process and its children while a block runs.

    Children are workers and verification processes; memory they share with their parent is counted twice,
    so the figure errs upwards.
    """

    INTERVAL_S = 0.2

    def __init__(self) -> None:
        self.bytes = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="ftkit-peak-memory")

    def __enter__(self) -> PeakMemory:
        self._sample()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()
        self._sample()

    def _watch(self) -> None:
        while not self._done.wait(self.INTERVAL_S):
            self._sample()

    def _sample(self) -> None:
        me = psutil.Process(os.getpid())
        total = me.memory_info().rss
        for child in me.children(recursive=True):
            try:
                total += child.memory_info().rss
            except psutil.Error:
                continue  # it ended between the listing and the look
        self.bytes = max(self.bytes, total)
