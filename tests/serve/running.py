"""A server on a free port of this machine, asked with the standard library alone."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import uvicorn


@contextlib.contextmanager
def running(app: Any) -> Iterator[str]:
    """Serve an ASGI app; gives the URL."""
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="on"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def ask(url: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    """Status and document; a GET without a body."""
    status, raw = ask_raw(url, path, body, **headers)
    return status, json.loads(raw)


def ask_raw(url: str, path: str, body: Any = None, **headers: str) -> tuple[int, bytes]:
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {"Content-Type": "application/json", **{key.replace("_", "-"): value for key, value in headers.items()}}
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url + path, data=data, headers=named), timeout=60
        ) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def events(url: str, path: str, body: dict[str, Any]) -> list[Any]:
    """The documents of a stream, whose end mark is checked and left out."""
    status, raw = ask_raw(url, path, {**body, "stream": True})
    assert status == 200, raw
    lines = [line.removeprefix("data: ") for line in raw.decode().split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def said(messages: str | list[dict[str, Any]], **fields: Any) -> dict[str, Any]:
    """A chat request; a text is one user turn."""
    turns = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
    return {"messages": turns, **fields}
