"""Blocks of rows through several processes, in order, with little in memory."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from queue import SimpleQueue
from types import TracebackType
from typing import BinaryIO, cast

from ftkit.data.arrays import TokenArrays
from ftkit.data.block import BlockReader, BlockSettings
from ftkit.data.encode import Encoder, EncoderSettings
from ftkit.data.sources import Block
from ftkit.data.worker import receive, send
from ftkit.errors import FtkitError

AHEAD = 2  # blocks a worker: one that it reads and one that waits for it


class WorkerError(FtkitError):
    """A data worker died or failed."""


class Pool:
    """Worker processes for one encoder, started when they are first needed.

    Args:
        settings: Of the encoder.
        workers: Processes; 0 does the work in this one.
    """

    def __init__(self, settings: EncoderSettings, workers: int) -> None:
        self.settings = settings
        self.workers = workers
        self._encoder: Encoder | None = None
        self._idle: SimpleQueue[_Worker] = SimpleQueue()
        self._all: list[_Worker] = []
        self._threads: ThreadPoolExecutor | None = None

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._all:
            worker.stop()
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)

    @property
    def encoder(self) -> Encoder:
        """In this process; made on first use."""
        if self._encoder is None:
            self._encoder = Encoder(self.settings)
        return self._encoder

    def read(
        self, blocks: Iterable[Block], settings: BlockSettings, name: str, *, small: bool
    ) -> Iterator[tuple[Block, TokenArrays]]:
        """Tokenise blocks of one file.

        Args:
            blocks: In file order.
            settings: Of the file.
            name: Of the file, for messages.
            small: Not worth the start of processes.

        Yields:
            Each block with its rows, in the order given.

        Raises:
            WorkerError: A worker died, or failed in a way that is no fault of a row.
        """
        if self.workers == 0 or (small and not self._all):
            reader = BlockReader(settings, self.encoder)
            for block in blocks:
                yield block, reader.read(block.lines, block.numbers, name, block.style)
            return
        threads = self._start()
        list(threads.map(lambda worker: worker.tell({"settings": _plain(settings)}), self._all))
        waiting: deque[tuple[Block, Future[TokenArrays]]] = deque()
        for block in blocks:
            waiting.append((block, threads.submit(self._ask, block, name)))
            if len(waiting) > AHEAD * self.workers:
                first, answer = waiting.popleft()
                yield first, answer.result()
        for block, answer in waiting:
            yield block, answer.result()

    def _ask(self, block: Block, name: str) -> TokenArrays:
        worker = self._idle.get()
        try:
            order: dict[str, object] = {"numbers": block.numbers, "name": name, "style": block.style}
            return TokenArrays.from_bytes(worker.ask(order, block.lines))
        finally:
            self._idle.put(worker)

    def _start(self) -> ThreadPoolExecutor:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self.workers, thread_name_prefix="ftkit-data")
            for _ in range(self.workers):
                self._all.append(_Worker())  # one by one: where the system refuses the next, these are known and end
            # All at once: starting takes most of a second, and one need not wait for another.
            list(self._threads.map(lambda worker: worker.tell({"encoder": asdict(self.settings)}), self._all))
            for worker in self._all:
                self._idle.put(worker)
        return self._threads


class _Worker:
    """One process."""

    def __init__(self) -> None:
        # One thread each: the workers are the parallelism. No -I: an editable install must still be found.
        environment = os.environ | {"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "ftkit.data.worker"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        self._input, self._output = cast(BinaryIO, self._process.stdin), cast(BinaryIO, self._process.stdout)

    def tell(self, order: dict[str, object]) -> None:
        """Give an order that has no answer worth keeping."""
        self.ask(order, b"")

    def ask(self, order: dict[str, object], body: bytes) -> bytes:
        """Give an order and wait for its answer."""
        answer = None
        with contextlib.suppress(OSError):  # a broken pipe; the missing answer says it
            send(self._input, json.dumps(order).encode(), b"\n", body)
            answer = receive(self._output)
        if answer is None:
            code = self._process.wait()
            raise WorkerError(
                f"a data worker ended with exit code {code}",
                fix="If the system killed it for memory, set data.workers lower (0 uses no processes).",
            )
        if answer[:1] == b"\0":
            raise WorkerError(f"a data worker failed:\n{answer[1:].decode()}")
        return answer

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        for stream in (self._input, self._output):
            with contextlib.suppress(OSError):
                stream.close()
        self._process.wait()


def _plain(settings: BlockSettings) -> dict[str, object]:
    return {"format": settings.format, "columns": settings.columns, "group_by": settings.group_by}
