"""Who is let in: the key, and for a server of this machine alone the name by which it was reached."""

from __future__ import annotations

import hmac
import json
from typing import Any

from ftkit.pipeline.http_server import is_loopback
from ftkit.serve.documents import error_document
from ftkit.serve.wire import ApiError

OPEN = ("/health",)


class Gate:
    """An ASGI layer in front of the app.

    Args:
        app: Behind it.
        key: That clients must send as ``Authorization: Bearer KEY``; None for none.
        is_private: Whether the server is for this machine alone. A web page that makes its own name point here must
            not read the answers (DNS rebinding), so only this machine's names are let in.
    """

    def __init__(self, app: Any, *, key: str | None, is_private: bool) -> None:
        self._app, self._is_private = app, is_private
        self._key = None if key is None else f"Bearer {key}".encode()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request on, or refuse it."""
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        if refusal is None:
            await self._app(scope, receive, send)
            return
        body = json.dumps(error_document(refusal)).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        if refusal.status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _refusal(self, scope: Any) -> ApiError | None:
        headers = dict(scope["headers"])
        if self._is_private and not is_loopback(_host(headers.get(b"host", b"").decode("latin-1"))):
            return ApiError(403, "this server is for its own machine alone", code="forbidden")
        if self._key is not None and scope["path"] not in OPEN:
            given = headers.get(b"authorization", b"")
            # In constant time, so that a wrong key does not tell how much of it is right.
            if not hmac.compare_digest(given, self._key):
                return ApiError(401, "the API key is missing or wrong", code="invalid_api_key")
        return None


def _host(header: str) -> str:
    """A Host header without the port."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0]
