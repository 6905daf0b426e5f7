"""The process that PDFs are parsed in, bounded in time and memory: a file may come from anybody.

A small file can keep pypdf busy for hours or make it ask for all memory there is, and nothing but the end of its
process stops it then. One process reads many files, as starting it takes longer than most files do; where one was
too much for it, the next file gets a new process.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

PROCESS = Path(__file__).with_name("pdf_process.py")
# Of one file. pypdf read ten thousand operators a second on a busy core, so a book of 1,000 pages with a million of
# them is read in time even there; one with two million has to be split there.
MAX_SECONDS = 120.0
# Of the process's addresses. A small file was read in 56 MiB, one with 200 MiB of page content in 660 MiB.
MAX_MEMORY_BYTES = 2 << 30
# pypdf bounds one stream (75 MB unpacked, two million operators) and one page (5,000 forms), but not their product.
MAX_OPERATORS = 5_000_000


class PdfParser:
    """A process that is started with the first file and goes on to the next; threads take turns."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0  # a fork of this process must not write into its parent's pipes
        self._lock = threading.Lock()
        self.started = 0

    def parse(self, raw: bytes) -> dict[str, Any]:
        """The texts of a PDF's pages and its title, or its fault; see ``pdf_process.py``.

        Further faults are ``time`` and ``memory``, for a file that went beyond a limit, and ``died``.
        """
        with self._lock:
            process = self._running()
            late = threading.Event()

            def stop() -> None:
                late.set()
                process.kill()

            timer = threading.Timer(MAX_SECONDS, stop)
            timer.daemon = True
            timer.start()
            try:
                answer = self._ask(process, raw)
            except BaseException:  # such as Ctrl-C: what it says next would be taken for the next file's
                self._end()
                raise
            finally:
                timer.cancel()
                timer.join()
            if answer is None or late.is_set() or answer.get("fault") == "memory":
                self._end()
            if answer is not None:
                return answer
            return {"fault": "time" if late.is_set() else "died"}

    def close(self) -> None:
        """End the process; a further file starts another."""
        with self._lock:
            self._end()

    def _ask(self, process: subprocess.Popen[bytes], raw: bytes) -> dict[str, Any] | None:
        """Its answer; None where it ended without one."""
        assert process.stdin is not None and process.stdout is not None, "both are pipes"
        # The process ends itself a little later than it is ended, for the case that this one is gone by then.
        limits = {"operators": MAX_OPERATORS, "seconds": MAX_SECONDS + 1, "memory": MAX_MEMORY_BYTES}
        try:
            process.stdin.write(json.dumps({"size": len(raw), **limits}).encode() + b"\n")
            process.stdin.write(raw)
            process.stdin.flush()
        except BrokenPipeError:
            return None
        line = process.stdout.readline(MAX_MEMORY_BYTES)
        if not line.endswith(b"\n"):
            return None
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._owner == os.getpid() and self._process.poll() is None:
            return self._process
        if self._owner == os.getpid():
            self._end()
        # Not -E as for exports: the process reads PDFs with the pypdf that this one would.
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(PROCESS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # pypdf tells of every oddity there
        )
        self._owner = os.getpid()
        self.started += 1
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None or self._owner != os.getpid():
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(BrokenPipeError):
                if pipe is not None:
                    pipe.close()


PARSER = PdfParser()
atexit.register(PARSER.close)
