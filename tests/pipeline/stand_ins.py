"""Small stand-ins for servers: each speaks one kind's API and renders with a real tokenizer, faults included."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# Gives the answer to a request's body; (status, document) where it is not a plain 200.
Route = Callable[[dict[str, Any]], Any]


@dataclass
class Running:
    """A stand-in that is up, and what it was asked: (path, body, headers)."""

    url: str
    asked: list[tuple[str, dict[str, Any], dict[str, str]]] = field(default_factory=list)

    @property
    def paths(self) -> set[str]:
        return {path for path, _, _ in self.asked}


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):  # a client that gave up is what some tests are about
            super().handle_error(request, client_address)


@contextlib.contextmanager
def serving(
    routes: dict[str, Route], write: Callable[[BaseHTTPRequestHandler, str], bool] | None = None
) -> Iterator[Running]:
    """Serve on a free port of this machine.

    Args:
        routes: By path; any other path is a 404.
        write: Writes a raw answer by itself and returns True, for what no proper server would send.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = json.loads(raw) if raw else {}
            running.asked.append((self.path, body, dict(self.headers)))
            if write is not None and write(self, self.path):
                return
            answer = routes[self.path](body) if self.path in routes else (404, {"detail": "Not Found"})
            status, document = answer if isinstance(answer, tuple) else (200, answer)
            payload = document if isinstance(document, bytes) else json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        do_GET = do_POST  # noqa: N815 - the names that the library calls

        def log_message(self, *_: Any) -> None:
            pass

    server = _Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    running = Running(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield running
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass(frozen=True)
class Engine:
    """What a server's insides make of a prompt.

    Attributes:
        tokenizer: Its own.
        asks: Whether it adds the generation prompt.
        takes_tools: Whether the template is given the tools.
        adds_special: Whether it lets the tokenizer add special tokens to what the template wrote.
    """

    tokenizer: Any
    asks: bool = True
    takes_tools: bool = True
    adds_special: bool = False

    def rendered(self, body: dict[str, Any]) -> str:
        messages = json.loads(json.dumps(body["messages"]))
        for message in messages:
            for call in message.get("tool_calls", []):  # a text on the wire, an object in templates
                call["function"]["arguments"] = json.loads(call["function"]["arguments"])
        tools = body.get("tools") if self.takes_tools else None
        return str(
            self.tokenizer.apply_chat_template(messages, tools=tools, tokenize=False, add_generation_prompt=self.asks)
        )

    def chat(self, body: dict[str, Any]) -> list[int]:
        return list(self.tokenizer(self.rendered(body), add_special_tokens=self.adds_special)["input_ids"])

    def text(self, text: str, *, special: bool = True) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=special)["input_ids"])


def refusing(route: Route, status: int = 400) -> Route:
    """Answer a template's refusal as servers do."""

    def guarded(body: dict[str, Any]) -> Any:
        try:
            return route(body)
        except Exception as error:  # noqa: BLE001 - whatever the template raises
            return status, {"error": {"message": str(error), "code": status}}

    return guarded


def models(*names: str) -> dict[str, Route]:
    return {"/v1/models": lambda _: {"object": "list", "data": [{"id": name, "object": "model"} for name in names]}}


def vllm(engine: Engine, *names: str) -> dict[str, Route]:
    def tokenize(body: dict[str, Any]) -> Any:
        ids = engine.chat(body) if "messages" in body else engine.text(body["prompt"])
        return {"tokens": ids, "count": len(ids), "max_model_len": 512, "token_strs": None}

    return {**models(*(names or ("tuned",))), "/tokenize": refusing(tokenize)}


def llama_cpp(engine: Engine) -> dict[str, Route]:
    bos = engine.tokenizer.bos_token

    def apply_template(body: dict[str, Any]) -> Any:
        text = engine.rendered(body)
        if bos is not None and not engine.adds_special and engine.text("a")[:1] == engine.text(bos, special=False):
            text = text.removeprefix(bos)  # as its tokenizer will put it there
        return {"prompt": text}

    def tokenize(body: dict[str, Any]) -> Any:
        if "content" not in body:
            return {"tokens": []}
        assert body["parse_special"] is True
        return {"tokens": engine.text(body["content"], special=body["add_special"])}

    return {**models("m.gguf"), "/apply-template": refusing(apply_template, 500), "/tokenize": tokenize}


def tgi(engine: Engine) -> dict[str, Route]:
    def listed(ids: list[int]) -> list[dict[str, Any]]:
        return [{"id": token, "text": "", "start": 0, "stop": 0} for token in ids]

    def chat(body: dict[str, Any]) -> Any:
        return {"tokenize_response": listed(engine.chat(body)), "templated_text": engine.rendered(body)}

    def tokenize(body: dict[str, Any]) -> Any:
        return listed(engine.text(body["inputs"])) if "inputs" in body else (422, {"error": "missing field `inputs`"})

    return {**models("tuned"), "/chat_tokenize": refusing(chat, 422), "/tokenize": tokenize}


def completions(engine: Engine, *, tells_ids: str = "", strict: bool = False, plain: bool = True) -> dict[str, Route]:
    """A server with completions alone.

    Args:
        engine: Its insides.
        tells_ids: ``answer`` as vLLM or ``choice`` as SGLang, where it tells the prompt's ids at all.
        strict: Refuses fields that OpenAI's API does not have.
        plain: Whether it has completions of plain texts too.
    """

    def answer(body: dict[str, Any], ids: list[int]) -> Any:
        assert body["max_tokens"] == 1
        wanted = "return_token_ids" in body
        if strict and wanted:
            return 400, {"error": {"message": "Unrecognized request argument supplied: return_token_ids"}}
        usage = {"prompt_tokens": len(ids), "completion_tokens": 1, "total_tokens": len(ids) + 1}
        document: dict[str, Any] = {"choices": [{"index": 0, "finish_reason": "length"}], "usage": usage}
        if wanted and tells_ids == "answer":
            document["prompt_token_ids"] = ids
        if wanted and tells_ids == "choice":
            document["choices"][0]["prompt_token_ids"] = ids
        return document

    routes = {**models("tuned"), "/v1/chat/completions": refusing(lambda body: answer(body, engine.chat(body)))}
    if plain:
        routes["/v1/completions"] = lambda body: answer(body, engine.text(body["prompt"]))
    return routes
