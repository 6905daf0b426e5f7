"""One answer at a time: the model computes in one thread, and whoever asks waits in line."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor

from ftkit.evaluate.generation import Answer
from ftkit.serve.wire import Request


class Desk:
    """Where requests are answered, first come first served.

    Adapters that share a base are chosen for the model as a whole, so two of them cannot answer at once.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="answers")

    async def answer(self, asked: Request) -> AsyncGenerator[str | Answer, None]:
        """The pieces of an answer as they come, and at last the answer; closing this ends it after the next token."""
        loop = asyncio.get_running_loop()
        pieces: asyncio.Queue[str | None] = asyncio.Queue()
        gone = threading.Event()

        def say(piece: str) -> None:
            loop.call_soon_threadsafe(pieces.put_nowait, piece)

        def work() -> Answer | None:
            if gone.is_set():
                return None
            return asked.answer(say, gone.is_set)

        future = loop.run_in_executor(self._thread, work)
        future.add_done_callback(lambda _: pieces.put_nowait(None))
        try:
            while (piece := await pieces.get()) is not None:
                yield piece
            answer = await future
            assert answer is not None, "only who has gone gets no answer"
            yield answer
        finally:
            gone.set()

    def close(self) -> None:
        """Take no more requests, and do not wait for the one that is being answered."""
        self._thread.shutdown(wait=False, cancel_futures=True)
