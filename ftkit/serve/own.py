"""ftkit's own server, from names to the end of the process."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import uvicorn

from ftkit.files import sha256_json
from ftkit.hybrid.kinds import HybridSystem
from ftkit.hybrid.opening import is_hybrid_place, open_hybrid
from ftkit.hybrid.router import RouterSystem
from ftkit.improve.identity import digest_of
from ftkit.notices import log
from ftkit.pipeline.adapters import open_targets
from ftkit.rag.exported import is_rag_export
from ftkit.rag.opening import is_rag_place, open_system
from ftkit.serve.app import build_app
from ftkit.serve.journal import Journal
from ftkit.serve.listen import BACKLOG, Address

# For an answer under way when the server is told to end; then it is cut off.
GRACE_S = 5
INTERRUPTED = 130


def run_own(
    names: Mapping[str, str],
    address: Address,
    bound: socket.socket,
    *,
    ready: Callable[[], None],
    log_file: Path | None = None,
) -> int:
    """Load the models and answer until a signal ends it.

    Args:
        names: Places by name.
        address: Whose key is asked for.
        bound: A socket that has the port.
        ready: Called once, when requests are answered.
        log_file: Where chats are logged; None for nowhere.

    Returns:
        The exit code.
    """
    systems = {
        name: open_live(place) for name, place in names.items() if is_rag_place(place) or is_hybrid_place(place)
    }
    others = {name: place for name, place in names.items() if name not in systems}
    targets = open_targets(others) if others else {}
    journal = None
    if log_file is not None:
        digests = {name: digest_of(place) for name, place in others.items()}
        digests |= {name: _digest(system) for name, system in systems.items()}
        journal = Journal(log_file, digests)
    app = build_app(targets, systems=systems, key=address.key, is_private=address.is_private, journal=journal)
    config = uvicorn.Config(
        app, log_config=None, access_log=False, timeout_graceful_shutdown=GRACE_S, backlog=BACKLOG, lifespan="on"
    )  # fmt: skip
    try:
        _Server(config, ready).run(sockets=[bound])
    except KeyboardInterrupt:  # uvicorn raises Ctrl-C again when it is done
        return INTERRUPTED
    return 0


def _digest(system: HybridSystem) -> str:
    """Of what answers: a system's generators, by name where there are several."""
    if isinstance(system, RouterSystem):
        return sha256_json({name: one.identity for name, one in system.members.items()})
    return system.identity


def open_live(place: str) -> HybridSystem:
    """An index, or a hybrid over several, to be asked while others may write to it."""
    if is_hybrid_place(place):
        return open_hybrid(place)
    system = open_system(place)
    if system.index.read_only and not is_rag_export(Path(place)):
        log.warning(
            "%s: cannot be written to by this account, so it is answered from as it is now; what others add is seen "
            "after a new start", place,
        )  # fmt: skip
    return system


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
