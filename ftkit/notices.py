"""One-line notices for the person, on stderr, so that stdout stays free for answers and JSON."""

from __future__ import annotations

import logging
import sys
from typing import Any

log = logging.getLogger("ftkit")


class _StderrNow(logging.StreamHandler[Any]):
    """Writes to whatever ``sys.stderr`` is at the moment, as notebooks and test runners replace it."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> object:
        return sys.stderr


def show_notices(*, quiet: bool = False) -> None:
    """Show ftkit's notices on stderr (warnings only if ``quiet``), unless the application handles them itself."""
    log.setLevel(logging.WARNING if quiet else logging.INFO)
    if not log.handlers:
        handler = _StderrNow()
        handler.setFormatter(logging.Formatter("%(message)s"))
        log.addHandler(handler)
        log.propagate = False
