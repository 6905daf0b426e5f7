"""Reads data sets from a hub on this machine, in a process of its own: its libraries look for a hub once, on import.

Run as a script with a JSON list of requests; prints one JSON line: an answer a request, and what the hub was asked.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "a" * 40
FILES = {
    "train.jsonl": b'{"prompt":"hi","completion":"yo"}\n{"prompt":"b","completion":"c"}\n',
    "test.jsonl": b'{"prompt":"t","completion":"u"}\n',
}


class Hub(BaseHTTPRequestHandler):
    """One data set, ``owner/name``, with two splits."""

    asked: list[str] = []  # noqa: RUF012 - shared by every request on purpose

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.asked.append(f"{self.command} {path}")
        files = [
            {
                "type": "file",
                "path": name,
                "rfilename": name,
                "size": len(text),
                "oid": hashlib.sha1(text).hexdigest(),
            }
            for name, text in FILES.items()
        ]
        if "/revision/none" in path:
            self.answer(404, headers={"X-Error-Code": "RevisionNotFound"})
        elif path.startswith("/api/datasets/owner/name/tree"):
            self.answer(200, json.dumps(files).encode())
        elif path.startswith("/api/datasets/owner/name"):
            self.answer(200, json.dumps({"id": "owner/name", "sha": COMMIT, "siblings": files}).encode())
        elif path.startswith("/datasets/owner/name/resolve/"):
            text = FILES.get(path.rpartition("/")[2])
            headers = {"X-Repo-Commit": COMMIT, "X-Error-Code": "EntryNotFound"}
            if text is not None:
                headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha1(text).hexdigest()}"'}
            self.answer(404 if text is None else 200, text or b"", headers)
        else:
            self.answer(404, headers={"X-Error-Code": "RepoNotFound"})

    def do_HEAD(self) -> None:
        self.do_GET()

    def answer(self, code: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing: stderr belongs to the process under test."""


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """What a request came to: the lines of its rows, or the error."""
    from ftkit.data.sources import Source, open_files, read_blocks
    from ftkit.errors import FtkitError

    os.environ |= request.pop("environment", {})
    Hub.asked.clear()
    try:
        files = open_files(Source(**request))
    except FtkitError as error:
        return {"error": str(error), "exit_code": error.exit_code, "asked": len(Hub.asked)}
    return {
        "lines": b"".join(block.lines for file in files for block in read_blocks(file)).decode(),
        "parts": [file.part for file in files],
        "names": [file.name for file in files],
        "asked": len(Hub.asked),
    }


def main() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    os.environ["HF_ENDPOINT"] = f"http://127.0.0.1:{server.server_port}"
    os.environ.pop("HF_HUB_OFFLINE", None)
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    requests = json.loads(sys.argv[1])
    answers = [answer(request) for request in requests if request != "stop the hub"]
    if "stop the hub" in requests:
        server.shutdown()
        server.server_close()
        answers.append(answer({"path": "owner/name"}))
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
