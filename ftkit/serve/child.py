"""An engine's server as a child process: started, waited for, stopped with us, and its exit code passed on."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from ftkit.errors import MissingPartError, UsageError
from ftkit.pipeline.http_server import HttpServer, Refused
from ftkit.serve.engines import Command

POLL_S = 0.25
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run_engine(command: Command, url: str, *, ready: Callable[[], None]) -> int:
    """Run an engine's server until it ends.

    Args:
        command: That starts it; what it prints goes to stderr.
        url: Where it will answer.
        ready: Called once, when it does.

    Returns:
        Its exit code; 128 and the signal's number where a signal ended it.
    """
    env = {**os.environ, **command.env}
    # In a session of its own: a Ctrl-C would else reach it twice, from the terminal and from here.
    with (
        subprocess.Popen(
            command.argv, env=env, stdin=subprocess.DEVNULL, stdout=sys.stderr.fileno(), start_new_session=True
        ) as child,
        _passing_signals_to(child),
    ):
        if _wait_until_healthy(child, HttpServer(url, timeout_s=5.0)):
            ready()
        code = child.wait()
    return code if code >= 0 else 128 - code


def _wait_until_healthy(child: subprocess.Popen[Any], server: HttpServer) -> bool:
    """Wait as long as it takes to load; False where it ended before."""
    while child.poll() is None:
        try:
            server.get("/health")
        except MissingPartError:  # nobody listens yet, or it says that it is loading
            time.sleep(POLL_S)
        except (Refused, UsageError):  # vLLM's health has no body, and a server may want its key here
            return True
        else:
            return True
    return False


@contextlib.contextmanager
def _passing_signals_to(child: subprocess.Popen[Any]) -> Iterator[None]:
    def pass_on(number: int, _frame: Any) -> None:
        if child.poll() is None:
            child.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in FORWARDED}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
