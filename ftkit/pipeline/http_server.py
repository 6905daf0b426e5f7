"""A running server, asked over HTTP with the standard library alone."""

from __future__ import annotations

import http.client
import ipaddress
import json
import os
import time
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlsplit

from ftkit.cache import is_offline
from ftkit.errors import MissingPartError, UsageError

MAX_ANSWER_BYTES = 16 << 20
CHUNK_BYTES = 1 << 16
# What people copy from other clients' settings; everything is asked for below the root.
_ENDINGS = ("/chat/completions", "/completions", "/v1")


class Refused(Exception):  # noqa: N818 - an answer like any other, judged by the caller
    """The server answered, but not with what was asked for: its status and words, or what its answer lacks."""


class HttpServer:
    """An HTTP server that speaks JSON.

    Args:
        url: Its root, or an OpenAI client's base URL (``http://localhost:8000/v1``).
        api_key_env: Environment variable with the key to send; None for none.
        timeout_s: For each request as a whole.

    Raises:
        UsageError: The URL, the variable or the time is of no use, or ``FTKIT_OFFLINE`` forbids the host.
    """

    def __init__(self, url: str, *, api_key_env: str | None = None, timeout_s: float = 60.0) -> None:
        self.root, host = _root(url)
        here = is_loopback(host)
        if is_offline() and not here:
            raise UsageError(
                f"--endpoint {self.root}: FTKIT_OFFLINE is set, and {host} is not this machine",
                fix="Name a server on this machine (http://127.0.0.1:PORT), or unset FTKIT_OFFLINE.",
            )
        self._headers = {"Content-Type": "application/json", "User-Agent": "ftkit"}
        if api_key_env is not None:
            self._headers["Authorization"] = f"Bearer {_key(api_key_env)}"
        if not 0 < timeout_s < float("inf"):
            raise UsageError(f"--timeout {timeout_s:g}: must be more than 0", fix="Give seconds: --timeout 60.")
        self.timeout_s = timeout_s
        # A proxy of this machine's settings knows nothing of servers on this machine itself.
        proxies = urllib.request.ProxyHandler({} if here else None)
        self._opener = urllib.request.build_opener(proxies, _NoRedirect())

    def get(self, path: str) -> Any:
        """Ask for a document; see `post`."""
        return self._ask(urllib.request.Request(self.root + path, headers=self._headers))

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """Send a document and give the one that comes back.

        Raises:
            Refused: The server's status is not of success, or its answer is not JSON.
            MissingPartError: No server answers, or not in time, or it is not ready.
            UsageError: It wants a key, or another one.
        """
        data = json.dumps(body).encode()
        return self._ask(urllib.request.Request(self.root + path, data=data, headers=self._headers))

    def _ask(self, request: urllib.request.Request) -> Any:
        try:
            raw = self._bytes(request)
        except urllib.error.HTTPError as error:
            raise self._refusal(error) from None
        except TimeoutError:
            raise self._silent() from None
        except urllib.error.URLError as error:
            if isinstance(error.reason, TimeoutError):
                raise self._silent() from None
            raise self._absent(error.reason) from None
        except (OSError, http.client.HTTPException) as error:
            raise self._absent(error) from None
        try:
            return json.loads(raw)
        except (ValueError, RecursionError):
            raise Refused(f"the answer is not JSON: {_shorten(raw)!r}") from None

    def _bytes(self, request: urllib.request.Request) -> bytes:
        deadline = time.monotonic() + self.timeout_s
        with self._opener.open(request, timeout=self.timeout_s) as response:
            raw = b""
            # read1 gives what is there: a server that sends a byte now and then must not keep us beyond the deadline.
            while chunk := response.read1(CHUNK_BYTES):
                raw += chunk
                if len(raw) > MAX_ANSWER_BYTES:
                    raise Refused(f"the answer has more than {MAX_ANSWER_BYTES} bytes")
                if time.monotonic() > deadline:
                    raise TimeoutError
            return raw

    def _refusal(self, error: urllib.error.HTTPError) -> Exception:
        with error:
            if error.code == 401:
                return UsageError(
                    f"{self.root}: answers HTTP 401: it wants a key, or another one",
                    fix="Put the key into an environment variable and name that with --api-key-env.",
                )
            if error.code in (301, 302, 303, 307, 308):
                return Refused(f"HTTP {error.code}, a redirect to {error.headers.get('Location')!r}")
            try:
                words = _words(error.read(CHUNK_BYTES))
            except (OSError, http.client.HTTPException):
                words = ""
        status = f"HTTP {error.code}" + (f": {words}" if words else "")
        if error.code in (429, 502, 503, 504):  # says nothing about the prompt
            return MissingPartError(f"{self.root}: is not ready: {status}", fix="Wait until it is, and ask again.")
        return Refused(status)

    def _silent(self) -> MissingPartError:
        return MissingPartError(
            f"{self.root}: gave no answer within {self.timeout_s:g} s",
            fix="See whether the server is still loading or busy, or give it longer with --timeout.",
        )

    def _absent(self, reason: object) -> MissingPartError:
        return MissingPartError(
            f"{self.root}: no server answers there: {str(reason) or type(reason).__name__}",
            fix="Start the server, or correct the address.",
        )


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Redirects are shown, not followed: they could lead off this machine, and would take the key along."""

    def redirect_request(self, *_: Any) -> None:
        """Leave the redirect as it came: an error."""


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, told from the name alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _root(url: str) -> tuple[str, str]:
    fault = ""
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname or ""
    except ValueError as error:
        raise UsageError(f"--endpoint {url}: {error}", fix="Write it like http://127.0.0.1:8000.") from None
    if parts.scheme not in ("http", "https") or not host:
        fault = "is not the URL of an HTTP server"
    elif parts.username is not None or parts.password is not None:
        # The URL is printed, and stands in the shell's history.
        url, fault = host, "has a name or password in the URL; use --api-key-env"
    elif parts.query or parts.fragment:
        fault = "has more than a host, a port and a path"
    elif any(character.isspace() or not character.isprintable() for character in url):
        fault = "has white space in it"
    if fault:
        raise UsageError(f"--endpoint {url}: {fault}", fix="Write it like http://127.0.0.1:8000.")
    path = parts.path.rstrip("/")
    for ending in _ENDINGS:
        path = path.removesuffix(ending)
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}{'' if port is None else f':{port}'}{path}", host


def _key(variable: str) -> str:
    key = os.environ.get(variable, "")
    if not key or not key.isascii() or not key.isprintable():
        what = "is not set" if not key else "holds what no HTTP header can"
        raise UsageError(f"--api-key-env {variable}: the environment variable {what}", fix=f"export {variable}=...")
    return key


def _words(raw: bytes) -> str:
    """What an error's body says, of the shapes that servers use."""
    try:
        found: Any = json.loads(raw)
    except (ValueError, RecursionError):
        return _shorten(raw)
    for key in ("error", "message", "detail"):
        if isinstance(found, dict) and key in found:
            found = found[key]
    return _shorten((found if isinstance(found, str) else json.dumps(found)).encode())


def _shorten(raw: bytes) -> str:
    text = " ".join(raw[:2000].decode("utf-8", errors="replace").split())
    return text if len(text) <= 200 else text[:200] + "…"
