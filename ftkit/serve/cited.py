"""Questions to an index, asked as chats: what of a request can be followed, and what is answered.

The last user message is the question, and the search and the generator are given nothing else: readers are trained on
single questions. Earlier turns and system messages are counted in the answer, so that nobody takes them for read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ftkit.errors import DataError
from ftkit.evaluate.generation import Answer
from ftkit.hybrid.kinds import HybridSystem
from ftkit.hybrid.router import RoutedAnswer, RouterSystem, routed
from ftkit.rag.cited import CitedAnswer
from ftkit.rag.reader import REFUSAL
from ftkit.serve.wire import ApiError, known_fields, read_integer, read_message, read_number, read_stream

CITED = {
    "model", "messages", "max_tokens", "max_completion_tokens", "temperature", "top_p", "seed", "stream",
    "stream_options", "user",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class CitedReply(Answer):
    """An answer with its sources.

    Attributes:
        cited: As the system gave it.
        details: What stands under ``rag`` in the response.
    """

    cited: CitedAnswer
    details: dict[str, Any]

    @property
    def sources(self) -> dict[str, Any]:
        """Fields of the message beside its text."""
        cited = self.cited
        member = {"member": cited.member} if isinstance(cited, RoutedAnswer) else {}
        return {"citations": [asdict(one) for one in cited.citations], "abstained": cited.abstained, **member}


@dataclass(frozen=True, kw_only=True)
class CitedRequest:
    """A question that can be answered.

    Attributes:
        name: Of the system, as clients use it.
        system: That system.
        question: The last user message.
        unread: Messages before it.
        max_new_tokens: Longest answer, at most the system's own.
        stream: Whether in the form of a stream.
        include_usage: Whether a stream ends with the counts.
    """

    name: str
    system: HybridSystem
    question: str
    unread: int
    max_new_tokens: int
    stream: bool
    include_usage: bool

    def answer(self, say: Callable[[str], None], ended: Callable[[], bool]) -> Answer:  # noqa: ARG002 - not in pieces
        """Answer at once: whether an answer is given at all is known when all of it is there.

        Raises:
            ApiError: The question is longer than encoder or generator read.
        """
        system, member = self.system, None
        try:
            if isinstance(system, RouterSystem):
                member = system.choose(self.question)
                system = system.members[member]
            hits, seconds = system.timed_hits(self.question)
            most = min(self.max_new_tokens, system.max_new_tokens)
            cited = system.read(self.question, hits, seconds, max_new_tokens=most)
            cited = cited if member is None else routed(cited, member)
        except DataError as error:
            raise ApiError(400, str(error), param="messages") from None
        return CitedReply(
            text=REFUSAL if cited.abstained else cited.text,
            tokens=cited.tokens,
            finish_reason="length" if cited.finish_reason == "length" else "stop",
            wall_s=cited.latency_s.retrieve + cited.latency_s.generate,
            cited=cited,
            details={
                "mode": system.mode,
                "passages": system.passages,
                "confidence": cited.confidence,
                "threshold": system.threshold,
                "latency_s": asdict(cited.latency_s),
                "unread_messages": self.unread,
                **({} if member is None else {"member": member}),
            },
        )


def read_question(body: Mapping[str, Any], name: str, system: HybridSystem) -> CitedRequest:
    """Read ``POST /v1/chat/completions`` to a system.

    Raises:
        ApiError: With the field at fault.
    """
    values = known_fields(body, CITED)
    _require_greedy(values)
    question, unread = _question(values)
    most = values.get("max_completion_tokens", values.get("max_tokens", system.max_new_tokens))
    stream, include_usage = read_stream(values)
    return CitedRequest(
        name=name,
        system=system,
        question=question,
        unread=unread,
        # More than usual would take the passages' room.
        max_new_tokens=min(read_integer("max_tokens", most, least=1), system.max_new_tokens),
        stream=stream,
        include_usage=include_usage,
    )


def refuse_other_forms(name: str, path: str) -> ApiError:
    """What a client is told that does not ask a question."""
    return ApiError(
        400,
        f"{name} answers questions from documents, so {path} has no use for it; ask POST /v1/chat/completions",
        param="model",
        code="unsupported_endpoint",
    )


def _require_greedy(values: Mapping[str, Any]) -> None:
    """A threshold and a citation belong to the one answer that the generator finds likeliest."""
    for name, neutral, most in (("temperature", 0.0, 2.0), ("top_p", 1.0, 1.0)):
        if read_number(name, values.get(name, neutral), 0, most) != neutral:
            raise ApiError(
                400, f"{name}: answers from documents are greedy; leave it out or send {neutral:g}", param=name
            )
    read_integer("seed", values.get("seed", 0), least=-(2**63), most=2**63 - 1)


def _question(values: Mapping[str, Any]) -> tuple[str, int]:
    """The last message, which must be the user's, and how many stand before it."""
    messages = values.get("messages")
    if not isinstance(messages, list) or not messages:
        raise ApiError(400, "messages: must be a list of at least one message", param="messages")
    read = [read_message(message, f"messages[{index}]") for index, message in enumerate(messages)]
    where = f"messages[{len(read) - 1}]"
    if read[-1]["role"] != "user":
        raise ApiError(
            400, f"{where}.role: the last message must be the user's question, not {read[-1]['role']!r}", param=where
        )
    if not read[-1]["content"].strip():
        raise ApiError(400, f"{where}.content: the question is empty", param=where)
    return read[-1]["content"], len(read) - 1
