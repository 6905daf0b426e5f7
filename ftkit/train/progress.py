"""A progress bar in a terminal, a line now and then elsewhere; always on stderr."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ftkit.notices import log

LINE_EVERY_S = 15.0


class ProgressBar:
    """Shows how far a long piece of work is.

    Args:
        title: What is going on.
        total: Units of work in all.
        done: Units already done (after a resume).
    """

    def __init__(self, title: str, total: int, *, done: int = 0) -> None:
        self.title, self.total, self.done = title, total, done
        self._last_line = time.monotonic()
        self._started, self._first = time.monotonic(), done
        shown = sys.stderr.isatty() and log.isEnabledFor(20)
        columns = (
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
            TextColumn("{task.fields[facts]}"), TimeRemainingColumn(),
        )  # fmt: skip
        self._bar = Progress(*columns, console=Console(stderr=True), disable=not shown, transient=True)
        self._task = self._bar.add_task(title, total=total, completed=done, facts="")
        self._lines = not shown

    def __enter__(self) -> ProgressBar:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def update(self, done: int, facts: str = "") -> None:
        """Show that ``done`` units are done, with a few words about them."""
        self.done = done
        self._bar.update(self._task, completed=done, facts=facts)
        now = time.monotonic()
        if self._lines and now - self._last_line >= LINE_EVERY_S:
            self._last_line = now
            rate = (done - self._first) / (now - self._started)
            left = f", {(self.total - done) / rate:.0f} s left" if rate > 0 else ""
            log.info("%s %d/%d %s%s", self.title, done, self.total, facts, left)

    def __call__(self, done: int, total: int) -> None:
        """As a callback of library functions."""
        if total != self.total:
            self.total = total
            self._bar.update(self._task, total=total)
        self.update(done)
