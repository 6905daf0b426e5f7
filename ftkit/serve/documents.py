"""What clients are answered, in OpenAI's words."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ftkit.evaluate.generation import Answer
from ftkit.serve.cited import CitedReply, CitedRequest
from ftkit.serve.wire import ApiError, Asked

STREAM_END = "data: [DONE]\n\n"


@dataclass(frozen=True, kw_only=True)
class Documents:
    """The documents of one answer.

    Attributes:
        asked: The request.
        chat: Whether it is a chat's, else a plain completion's.
        answer_id: Of the answer.
        created: Seconds since 1970.
    """

    asked: Asked | CitedRequest
    chat: bool
    answer_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def response_id(self) -> str:
        """The answer's id as clients see it."""
        return f"{'chatcmpl' if self.chat else 'cmpl'}-{self.answer_id}"

    def whole(self, answer: Answer) -> dict[str, Any]:
        """The answer at once."""
        content: dict[str, Any] = {"text": answer.text, "logprobs": None}
        if self.chat:
            message = {"role": "assistant", "content": answer.text, **_sources(answer)}
            content = {"message": message, "logprobs": None}
        choice = {"index": 0, **content, "finish_reason": answer.finish_reason}
        kind = "chat.completion" if self.chat else "text_completion"
        return {**self._head(kind), "choices": [choice], "usage": self.usage(answer), **_details(answer)}

    def first(self) -> list[str]:
        """What a stream begins with."""
        return [self._chunk({"role": "assistant", "content": ""}, None)] if self.chat else []

    def piece(self, text: str) -> str:
        """A piece of a stream."""
        return self._chunk({"content": text} if self.chat else text, None)

    def last(self, answer: Answer) -> list[str]:
        """What a stream ends with; sources stand in the last chunk that has a choice."""
        chunks = [self._chunk(_sources(answer) if self.chat else "", answer.finish_reason, _details(answer))]
        if self.asked.include_usage:
            chunks.append(event({**self._head(self._chunk_kind), "choices": [], "usage": self.usage(answer)}))
        return [*chunks, STREAM_END]

    @property
    def _chunk_kind(self) -> str:
        return "chat.completion.chunk" if self.chat else "text_completion"

    def _chunk(self, said: dict[str, Any] | str, reason: str | None, details: Mapping[str, Any] | None = None) -> str:
        choice = {"index": 0, "delta" if self.chat else "text": said, "logprobs": None, "finish_reason": reason}
        usage = {"usage": None} if self.asked.include_usage else {}
        return event({**self._head(self._chunk_kind), "choices": [choice], **usage, **(details or {})})

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.response_id, "object": kind, "created": self.created, "model": self.asked.name}

    def usage(self, answer: Answer) -> dict[str, int]:
        """Tokens of prompt and answer."""
        prompt = answer.cited.prompt_tokens if isinstance(answer, CitedReply) else 0
        if isinstance(self.asked, Asked):
            prompt = len(self.asked.ids)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": answer.tokens,
            "total_tokens": prompt + answer.tokens,
        }


def _sources(answer: Answer) -> dict[str, Any]:
    return answer.sources if isinstance(answer, CitedReply) else {}


def _details(answer: Answer) -> dict[str, Any]:
    return {"rag": answer.details} if isinstance(answer, CitedReply) else {}


def event(document: dict[str, Any]) -> str:
    """One server-sent event."""
    return f"data: {json.dumps(document, ensure_ascii=False)}\n\n"


def error_document(error: ApiError) -> dict[str, Any]:
    """What a client is told instead of an answer."""
    kind = "authentication_error" if error.status == 401 else "invalid_request_error"
    return {
        "error": {
            "message": str(error),
            "type": "server_error" if error.status >= 500 else kind,
            "param": error.param,
            "code": error.code,
        }
    }
