"""A hub on this machine that takes uploads, and what came of pushing to it.

Run as a script with a JSON list of requests, in a process of its own, as the hub's client looks for its hub once, on
import; prints one JSON line.
"""

from __future__ import annotations

import base64
import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "b" * 40


class Hub(BaseHTTPRequestHandler):
    """Repositories as {id: {"private": bool, "files": {name: bytes}}}; takes every file as a plain one."""

    repositories: dict[str, Any] = {}  # noqa: RUF012 - shared by every request on purpose
    asked: list[str] = []  # noqa: RUF012

    def do_GET(self) -> None:
        self.asked.append(f"GET {self.path}")
        repository = self.repositories.get(self.repository_id())
        if repository is None:
            self.answer(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
            return
        siblings = [{"rfilename": name} for name in repository["files"]]
        self.answer(
            200, {"id": self.repository_id(), "sha": COMMIT, "private": repository["private"], "siblings": siblings}
        )

    def do_POST(self) -> None:
        self.asked.append(f"POST {self.path}")
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        url = f"http://127.0.0.1/{self.repository_id()}"
        if self.headers.get("Authorization") != "Bearer hf_writer":
            self.answer(401, {"error": "Invalid username or password."})
        elif self.path == "/api/repos/create":
            wanted = json.loads(raw)
            name = f"{wanted['organization']}/{wanted['name']}"
            private = wanted.get("private", wanted.get("visibility") == "private")
            code = 409 if name in self.repositories else 200
            self.repositories.setdefault(name, {"private": private, "files": {".gitattributes": b""}})
            self.answer(code, {"url": f"http://127.0.0.1/{name}", "name": name, "id": "1"})
        elif self.path == "/api/validate-yaml":
            self.answer(200, {"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            files = json.loads(raw)["files"]
            modes = [{"path": one["path"], "uploadMode": "regular", "shouldIgnore": False} for one in files]
            self.answer(200, {"files": modes})
        elif "/commit/" in self.path:
            lines = [json.loads(line) for line in raw.splitlines() if line]
            for line in lines:
                if line["key"] == "file":
                    text = base64.b64decode(line["value"]["content"])
                    self.repositories[self.repository_id()]["files"][line["value"]["path"]] = text
            self.answer(200, {"success": True, "commitOid": COMMIT, "commitUrl": f"{url}/commit/{COMMIT}"})
        else:
            self.answer(404, {"error": f"no {self.path}"})

    def repository_id(self) -> str:
        return "/".join(self.path.partition("?")[0].split("/")[3:5])

    def answer(self, code: int, body: Any, headers: dict[str, str] | None = None) -> None:
        text = json.dumps(body).encode()
        self.send_response(code)
        content = {"Content-Type": "application/json", "Content-Length": str(len(text))}
        for name, value in {**content, **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: Any) -> None:
        """Nothing: stderr belongs to the process under test."""


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """What a request came to: what the command printed, and what then stands on the hub."""
    from tests.cli.running import ftkit

    if "stands there" in request:
        Hub.repositories = {
            name: {"private": one["private"], "files": dict.fromkeys(one["files"], b"")}
            for name, one in request["stands there"].items()
        }
    Hub.asked.clear()
    os.environ["HF_TOKEN"] = request.get("token", "hf_writer")
    outcome = ftkit("export", *request["words"])
    return {
        "code": outcome.code,
        "out": outcome.out,
        "err": outcome.err,
        "asked": list(Hub.asked),
        "repositories": {
            name: {
                "private": one["private"],
                "files": {file: base64.b64encode(text).decode() for file, text in one["files"].items()},
            }
            for name, one in Hub.repositories.items()
        },
    }


def main() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    os.environ["HF_ENDPOINT"] = f"http://127.0.0.1:{server.server_port}"
    os.environ.pop("HF_HUB_OFFLINE", None)
    print(json.dumps([answer(request) for request in json.loads(sys.argv[1])]))


if __name__ == "__main__":
    main()
