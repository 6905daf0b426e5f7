"""ftkit's own server: OpenAI's chat completions and completions over whatever `open_target` loads."""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException

from ftkit.evaluate.generation import Answer
from ftkit.hybrid.kinds import HybridSystem
from ftkit.pipeline.target import Target
from ftkit.rag.answering import RagSystem
from ftkit.serve.cited import CitedRequest, read_question, refuse_other_forms
from ftkit.serve.desk import Desk
from ftkit.serve.documents import Documents, error_document, event
from ftkit.serve.gate import Gate
from ftkit.serve.journal import CONSENT_HEADER, Journal, read_remark, read_said, take_consent
from ftkit.serve.wire import ApiError, Asked, choose_model, read_chat, read_completion, read_tokenize
from ftkit.serve.wire import Request as CanBeAnswered

MAX_BODY_BYTES = 16 << 20
CHAT_PATH = "/v1/chat/completions"
EVENTS = "text/event-stream"
CLIENT_GONE = 499  # nobody reads it; the log does
Note = Callable[[Documents, Answer], None]
log = logging.getLogger("ftkit")


def build_app(
    targets: Mapping[str, Target],
    *,
    systems: Mapping[str, HybridSystem] | None = None,
    key: str | None = None,
    is_private: bool = True,
    journal: Journal | None = None,
) -> Gate:
    """Make the ASGI app.

    Args:
        targets: Ready to answer, by the name that clients use.
        systems: The same, that answer questions from documents.
        key: That clients must send; None for none.
        is_private: Whether only this machine is to reach it.
        journal: Where chats are logged; None for nowhere.
    """
    desk, started = Desk(), int(time.time())
    systems = systems or {}
    served: dict[str, Target | HybridSystem] = {**targets, **systems}

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
        one = served[name]
        length = (one.generator if isinstance(one, RagSystem) else one).context_length
        return {"id": name, "object": "model", "created": started, "owned_by": "ftkit", "max_model_len": length}

    @app.get("/health")
    async def health() -> Response:
        return JSONResponse({"status": "ok"} | ({} if journal is None else {"log": journal.state}))

    @app.get("/v1/models")
    async def models() -> Response:
        return JSONResponse({"object": "list", "data": [card(name) for name in served]})

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> Response:
        return JSONResponse(card(choose_model({"model": name}, served)[0]))

    _add_answers(app, desk, targets, systems, journal)
    if journal is not None:
        _add_feedback(app, journal)
    return Gate(app, key=key, is_private=is_private)


def _add_answers(
    app: FastAPI,
    desk: Desk,
    targets: Mapping[str, Target],
    systems: Mapping[str, HybridSystem],
    journal: Journal | None,
) -> None:
    """The paths by which models and systems are asked."""

    async def asked_body(request: Request) -> tuple[dict[str, Any], str]:
        """The request, and the name of what is to answer it."""
        body = await _body(request)
        name = choose_model({"model": body.get("model")}, {**targets, **systems})[0]
        if name in systems and request.url.path != CHAT_PATH:
            raise refuse_other_forms(name, request.url.path)
        return {**body, "model": name}, name

    @app.post(CHAT_PATH)
    async def chat(request: Request) -> Response:
        body, name = await asked_body(request)
        body, consent = take_consent(body, request.headers.get(CONSENT_HEADER))
        if name in systems:
            question = read_question(body, name, systems[name])
            return await _answer_cited(request, desk, question, _noting(journal, body, name, consent=consent))
        asked = read_chat(body, targets)
        return await _answer(request, desk, asked, _noting(journal, body, name, consent=consent), chat=True)

    @app.post("/v1/completions")
    async def completion(request: Request) -> Response:
        body, _ = await asked_body(request)
        return await _answer(request, desk, read_completion(body, targets), _unnoted, chat=False)

    @app.post("/tokenize")
    async def tokenize(request: Request) -> Response:
        body, _ = await asked_body(request)
        target, ids = read_tokenize(body, targets)
        return JSONResponse(
            {"tokens": ids, "count": len(ids), "max_model_len": target.context_length, "token_strs": None}
        )


def _add_feedback(app: FastAPI, journal: Journal) -> None:
    """The path by which people say what they think of an answer."""

    @app.post("/v1/feedback")
    async def feedback(request: Request) -> Response:
        remark = read_remark(await _body(request))
        journal.remark(remark)
        return JSONResponse({"object": "feedback", "id": remark.id, "recorded": True})


def _noting(journal: Journal | None, body: Mapping[str, Any], name: str, *, consent: bool) -> Note:
    """What logs the answer to a request, before the client has all of it: feedback may follow at once."""
    if journal is None:
        return _unnoted
    said = read_said(body, name, consent)

    def note(documents: Documents, answer: Answer) -> None:
        journal.record(documents.response_id, said, answer, documents.usage(answer))

    return note


def _unnoted(_documents: Documents, _answer: Answer) -> None:
    """Nothing is logged."""


async def _answer(request: Request, desk: Desk, asked: Asked, note: Note, *, chat: bool) -> Response:
    documents = Documents(asked=asked, chat=chat)
    if asked.stream:
        return StreamingResponse(_stream(desk, asked, documents, note), media_type=EVENTS)
    answer = await _whole(request, desk, asked)
    if answer is None:
        return Response(status_code=CLIENT_GONE)
    note(documents, answer)
    return JSONResponse(documents.whole(answer))


async def _answer_cited(request: Request, desk: Desk, asked: CitedRequest, note: Note) -> Response:
    """An answer with sources; a stream begins when all of it is there, so that a fault still has a status."""
    documents = Documents(asked=asked, chat=True)
    answer = await _whole(request, desk, asked)
    if answer is None:
        return Response(status_code=CLIENT_GONE)
    note(documents, answer)
    if not asked.stream:
        return JSONResponse(documents.whole(answer))
    chunks = [*documents.first(), documents.piece(answer.text), *documents.last(answer)]
    return StreamingResponse(iter(chunks), media_type=EVENTS)


async def _whole(request: Request, desk: Desk, asked: CanBeAnswered) -> Answer | None:
    """The answer, or None where nobody waits for it any more."""
    async with contextlib.aclosing(desk.answer(asked)) as pieces:
        async for piece in pieces:
            if isinstance(piece, Answer):
                return piece
            if await request.is_disconnected():
                break
    return None


async def _stream(desk: Desk, asked: Asked, documents: Documents, note: Note) -> AsyncIterator[str]:
    for chunk in documents.first():
        yield chunk
    async with contextlib.aclosing(desk.answer(asked)) as pieces:
        try:
            async for piece in pieces:
                if isinstance(piece, Answer):
                    note(documents, piece)
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
