"""Who may reach a server: the address, and the key."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, replace

from ftkit.errors import UsageError
from ftkit.pipeline.http_server import is_loopback

BACKLOG = 128


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where a server listens.

    Attributes:
        host: Name or number of an interface of this machine.
        port: 0 for any free one.
        key: That clients must send; None for none.
    """

    host: str
    port: int
    key: str | None = None

    @property
    def is_private(self) -> bool:
        """Whether only this machine reaches it."""
        return is_loopback(self.host)


def choose_address(host: str, port: int, *, api_key_env: str | None, no_api_key: bool) -> Address:
    """Decide where to listen, and refuse to stand open by accident.

    Args:
        host: To bind to.
        port: 0 for any free one.
        api_key_env: Environment variable with the key.
        no_api_key: That other machines may ask without one.

    Raises:
        UsageError: Other machines could ask without a key, or the variable holds none.
    """
    if api_key_env is not None and no_api_key:
        raise UsageError("--api-key-env and --no-api-key contradict each other", fix="Give one of them.")
    key = None if api_key_env is None else os.environ.get(api_key_env, "")
    if key is not None and not (key and key.isascii() and key.isprintable() and key == key.strip()):
        what = "holds what no HTTP header can" if key else "is not set"
        raise UsageError(
            f"--api-key-env {api_key_env}: the environment variable {what}", fix=f"export {api_key_env}=..."
        )
    address = Address(host=host, port=port, key=key)
    if not address.is_private and key is None and not no_api_key:
        raise UsageError(
            f"--host {host}: other machines could ask this server, and it has no key",
            fix="Give a key with --api-key-env VARIABLE, or say --no-api-key if everybody who reaches it may ask.",
        )
    return address


def bind(address: Address) -> socket.socket:
    """Take the port before anything is loaded.

    Raises:
        UsageError: It is taken, or is no address of this machine.
    """
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(place)
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"cannot listen on {address.host}, port {address.port}: {error}",
            fix="Choose another with --host and --port; --port 0 takes any free one.",
        ) from None
    return bound


def at_port(address: Address, bound: socket.socket) -> Address:
    """The address with the port that was found free, given up so that an engine can take it."""
    port = bound.getsockname()[1]
    bound.close()
    return replace(address, port=port)


def url_of(host: str, port: int) -> str:
    """The root for clients on this machine."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)
    return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"
