"""python isolated.py SCRIPT JOB: run a script with every socket but loopback's closed.

A network namespace is entered where the system allows it; an audit hook refuses other addresses besides, in this
process and in each Python that it starts.
"""

from __future__ import annotations

import fcntl
import os
import runpy
import socket
import struct
import sys

_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1


def loopback_up() -> None:
    """In a new namespace even the loopback is down; engines talk to their own workers through it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plug:
        request = struct.pack("16sh", b"lo", 0)
        (flags,) = struct.unpack("16xh", fcntl.ioctl(plug, _SIOCGIFFLAGS, request)[:18])
        fcntl.ioctl(plug, _SIOCSIFFLAGS, struct.pack("16sh", b"lo", flags | _IFF_UP))


def refuse_others(event: str, arguments: tuple[object, ...]) -> None:
    """The audit hook."""
    if event not in ("socket.connect", "socket.sendto"):
        return
    address = arguments[1]
    local = not isinstance(address, tuple) or str(address[0]) in ("localhost", "::1") or str(address[0])[:4] == "127."
    # Engines ask for a route to learn this machine's own address: a datagram socket, over which nothing is sent.
    own = arguments[0].type == socket.SOCK_DGRAM and event == "socket.connect"  # type: ignore[attr-defined]
    if not local and not own:
        raise PermissionError(f"{event} to {address} while the network is closed")


if __name__ == "__main__":
    if os.environ.get("FTKIT_IN_NAMESPACE"):
        loopback_up()
    sys.addaudithook(refuse_others)
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")
