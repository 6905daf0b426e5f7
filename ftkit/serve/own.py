"""ftkit's own server, from names to the end of the process."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from typing import Any

import uvicorn

from ftkit.pipeline.adapters import open_targets
from ftkit.serve.app import build_app
from ftkit.serve.listen import BACKLOG, Address

# For an answer under way when the server is told to end; then it is cut off.
GRACE_S = 5
INTERRUPTED = 130


def run_own(names: Mapping[str, str], address: Address, bound: socket.socket, *, ready: Callable[[], None]) -> int:
    """Load the models and answer until a signal ends it.

    Args:
        names: Places by name.
        address: Whose key is asked for.
        bound: A socket that has the port.
        ready: Called once, when requests are answered.

    Returns:
        The exit code.
    """
    app = build_app(open_targets(names), key=address.key, is_private=address.is_private)
    config = uvicorn.Config(
        app, log_config=None, access_log=False, timeout_graceful_shutdown=GRACE_S, backlog=BACKLOG, lifespan="on"
    )  # fmt: skip
    try:
        _Server(config, ready).run(sockets=[bound])
    except KeyboardInterrupt:  # uvicorn raises Ctrl-C again when it is done
        return INTERRUPTED
    return 0


class _Server(uvicorn.Server):
    """Says when it is there."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[Any] | None = None) -> None:
        """Listen, then say so."""
        await super().startup(sockets=sockets)
        if not self.should_exit:
            self._ready()
