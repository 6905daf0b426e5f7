"""ftkit's own server: OpenAI's chat completions and completions over whatever `open_target` loads."""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException

from ftkit.evaluate.generation import Answer
from ftkit.pipeline.target import Target
from ftkit.serve.desk import Desk
from ftkit.serve.documents import Documents, error_document, event
from ftkit.serve.gate import Gate
from ftkit.serve.wire import ApiError, Asked, choose_model, read_chat, read_completion, read_tokenize

MAX_BODY_BYTES = 16 << 20
CLIENT_GONE = 499  # nobody reads it; the log does
log = logging.getLogger("ftkit")


def build_app(targets: Mapping[str, Target], *, key: str | None = None, is_private: bool = True) -> Gate:
    """Make the ASGI app.

    Args:
        targets: Ready to answer, by the name that clients use.
        key: That clients must send; None for none.
        is_private: Whether only this machine is to reach it.
    """
    desk, started = Desk(), int(time.time())

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        desk.close()

    # The pages that document an API load their scripts from elsewhere; this works without a network.
    app = FastAPI(title="ftkit", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_exception_handler(ApiError, _as_document)
    app.add_exception_handler(HTTPException, _as_document)
    app.add_exception_handler(Exception, _as_document)

    def card(name: str) -> dict[str, Any]:
        length = targets[name].context_length
        return {"id": name, "object": "model", "created": started, "owned_by": "ftkit", "max_model_len": length}

    @app.get("/health")
    async def health() -> Response:
        return JSONResponse({"status": "ok"})

    @app.get("/v1/models")
    async def models() -> Response:
        return JSONResponse({"object": "list", "data": [card(name) for name in targets]})

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> Response:
        return JSONResponse(card(choose_model({"model": name}, targets)[0]))

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        return await _answer(request, desk, read_chat(await _body(request), targets), chat=True)

    @app.post("/v1/completions")
    async def completion(request: Request) -> Response:
        return await _answer(request, desk, read_completion(await _body(request), targets), chat=False)

    @app.post("/tokenize")
    async def tokenize(request: Request) -> Response:
        target, ids = read_tokenize(await _body(request), targets)
        return JSONResponse(
            {"tokens": ids, "count": len(ids), "max_model_len": target.context_length, "token_strs": None}
        )

    return Gate(app, key=key, is_private=is_private)


async def _answer(request: Request, desk: Desk, asked: Asked, *, chat: bool) -> Response:
    documents = Documents(asked=asked, chat=chat)
    if asked.stream:
        return StreamingResponse(_stream(desk, documents), media_type="text/event-stream")
    async with contextlib.aclosing(desk.answer(asked)) as pieces:
        async for piece in pieces:
            if isinstance(piece, Answer):
                return JSONResponse(documents.whole(piece))
            if await request.is_disconnected():
                break
    return Response(status_code=CLIENT_GONE)


async def _stream(desk: Desk, documents: Documents) -> AsyncIterator[str]:
    for chunk in documents.first():
        yield chunk
    async with contextlib.aclosing(desk.answer(documents.asked)) as pieces:
        try:
            async for piece in pieces:
                if isinstance(piece, Answer):
                    for chunk in documents.last(piece):
                        yield chunk
                else:
                    yield documents.piece(piece)
        except Exception as error:
            log.error("answering failed: %s", error, exc_info=error)
            yield event(error_document(_broken()))


async def _body(request: Request) -> dict[str, Any]:
    """The request's JSON object.

    Raises:
        ApiError: It is none, or too long. Another content type is refused, as a web page could send a plain text here
            without asking the browser's leave.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ApiError(415, f"content-type: must be application/json, not {kind or 'nothing'}")
    raw = bytearray()
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > MAX_BODY_BYTES:
            raise ApiError(413, f"the request has more than {MAX_BODY_BYTES} bytes")
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"the request is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise ApiError(400, "the request is not a JSON object")
    return body


def _broken() -> ApiError:
    return ApiError(500, "answering failed; the server's log says why", code="internal_error")


async def _as_document(_: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException):  # an unknown path or method
        error = ApiError(error.status_code, str(error.detail), code="not_found")
    if not isinstance(error, ApiError):
        log.error("answering failed: %s", error, exc_info=error)
        error = _broken()
    return JSONResponse(error_document(error), status_code=error.status)
