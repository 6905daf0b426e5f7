"""What clients ask, in OpenAI's words: read, checked, and never ignored in part."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from ftkit.errors import DataError, UsageError
from ftkit.evaluate.generation import Answer
from ftkit.evaluate.speaking import Speech
from ftkit.pipeline.prompting import chat_ids, text_ids
from ftkit.pipeline.target import Target

Served = TypeVar("Served")
DEFAULT_COMPLETION_TOKENS = 16  # OpenAI's own; a plain text has no end that a model knows
UNKNOWN_CONTEXT = 2048  # tokens of a chat's answer where the model does not say how long it can be
MAX_STOP_TEXTS = 16
_SHARED = {"model", "max_tokens", "temperature", "top_p", "seed", "stop", "stream", "stream_options", "user"}
CHAT = _SHARED | {"messages", "tools", "max_completion_tokens"}
COMPLETION = _SHARED | {"prompt"}
# Values that ask for nothing beyond what happens anyway; clients send them unasked.
NEUTRAL: Mapping[str, Any] = {
    "n": 1, "best_of": 1, "presence_penalty": 0, "frequency_penalty": 0, "logit_bias": {}, "logprobs": False,
    "echo": False, "suffix": "", "response_format": {"type": "text"}, "tool_choice": "auto",
    "parallel_tool_calls": True, "store": False, "continue_final_message": False, "return_token_strs": False,
}  # fmt: skip


class ApiError(Exception):
    """What a client is told instead of an answer.

    Attributes:
        status: Of HTTP.
        param: The field at fault; None for none.
        code: For programs.
    """

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str = "invalid_value") -> None:
        super().__init__(message)
        self.status, self.param, self.code = status, param, code


class Request(Protocol):
    """Whatever can be answered."""

    def answer(self, say: Callable[[str], None], ended: Callable[[], bool]) -> Answer:
        """Answer; called in one thread, one after the other.

        Args:
            say: Takes pieces as they come.
            ended: Whether nobody waits for more.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request that can be answered.

    Attributes:
        name: Of the model.
        target: That model.
        ids: Of the prompt.
        speech: How to answer.
        stream: Whether piece by piece.
        include_usage: Whether a stream ends with the counts.
    """

    name: str
    target: Target
    ids: list[int]
    speech: Speech
    stream: bool
    include_usage: bool

    def answer(self, say: Callable[[str], None], ended: Callable[[], bool]) -> Answer:
        """Answer, piece by piece."""
        return self.target.speak(self.ids, self.speech, say=say, ended=ended)


def read_chat(body: Mapping[str, Any], targets: Mapping[str, Target]) -> Asked:
    """Read ``POST /v1/chat/completions``.

    Raises:
        ApiError: With the field at fault.
    """
    values = known_fields(body, CHAT)
    name, target = choose_model(values, targets)
    ids = _chat_ids(values, target)
    most = values.get("max_completion_tokens", values.get("max_tokens"))
    return _asked(values, name, target, ids, most=most, usual=None)


def read_completion(body: Mapping[str, Any], targets: Mapping[str, Target]) -> Asked:
    """Read ``POST /v1/completions``; see `read_chat`."""
    values = known_fields(body, COMPLETION)
    name, target = choose_model(values, targets)
    ids = _text_ids(values, target)
    most = values.get("max_tokens")
    return _asked(values, name, target, ids, most=most, usual=DEFAULT_COMPLETION_TOKENS)


def read_tokenize(body: Mapping[str, Any], targets: Mapping[str, Target]) -> tuple[Target, list[int]]:
    """Read ``POST /tokenize`` in vLLM's form: a conversation or a prompt, as the completions read it.

    Source:
        vllm/entrypoints/serve/tokenize/protocol.py.
    """
    chat = "messages" in body
    own = {"messages", "tools", "add_generation_prompt"} if chat else {"prompt"}
    values = known_fields(body, {"model", "add_special_tokens"} | own)
    _, target = choose_model(values, targets)
    special = values.get("add_special_tokens", not chat)
    if not isinstance(special, bool) or (chat and special):
        raise ApiError(
            400, "add_special_tokens: the chat template alone writes special tokens", param="add_special_tokens"
        )
    if values.get("add_generation_prompt", True) is not True:
        raise ApiError(400, "add_generation_prompt: an answer is always asked for", param="add_generation_prompt")
    return target, _chat_ids(values, target) if chat else _text_ids(values, target, special=special)


def choose_model(values: Mapping[str, Any], targets: Mapping[str, Served]) -> tuple[str, Served]:
    """The model that a request names; the only one there is where it names none.

    Raises:
        ApiError: 404 for an unknown name, 400 for none among several.
    """
    name = values.get("model")
    if name is None and len(targets) == 1:
        return next(iter(targets.items()))
    known = ", ".join(targets)
    if name is None:
        raise ApiError(400, f"model: choose one of {known}", param="model", code="missing_required_parameter")
    if not isinstance(name, str) or name not in targets:
        raise ApiError(
            404, f"model: {name!r} is not served here; there is {known}", param="model", code="model_not_found"
        )
    return name, targets[name]


def known_fields(body: Mapping[str, Any], known: set[str]) -> dict[str, Any]:
    """The fields that were set, and all of them can be followed."""
    values = {key: value for key, value in body.items() if value is not None}
    refused = [
        key
        for key, value in values.items()
        if key not in known and not (key in NEUTRAL and _same(value, NEUTRAL[key]))
    ]
    if refused:
        shown = ", ".join(f"{key}={_short(values[key])}" for key in refused)
        raise ApiError(
            400,
            f"this server cannot follow {shown}; leave it out (it follows {', '.join(sorted(known))})",
            param=refused[0],
            code="unsupported_parameter",
        )
    return {key: value for key, value in values.items() if key in known}


def _same(value: Any, neutral: Any) -> bool:
    """Equality without Python's ``0 == False``: a completion's ``logprobs=0`` does ask for something."""
    return isinstance(value, bool) == isinstance(neutral, bool) and bool(value == neutral)


def _asked(
    values: Mapping[str, Any], name: str, target: Target, ids: list[int], *, most: Any, usual: int | None
) -> Asked:
    context = target.context_length
    room = UNKNOWN_CONTEXT if context is None else context - len(ids)
    wanted = read_integer("max_tokens", most, least=1) if most is not None else min(usual or room, room)
    if room < 1 or (context is not None and wanted > room):
        raise ApiError(
            400,
            f"the prompt has {len(ids)} tokens and the answer may have {max(wanted, 1)}; this model takes {context} "
            "together",
            param="messages" if "messages" in values else "prompt",
            code="context_length_exceeded",
        )
    stream, include_usage = read_stream(values)
    return Asked(
        name=name,
        target=target,
        ids=ids,
        speech=_speech(values, wanted, strip="messages" in values),
        stream=stream,
        include_usage=include_usage,
    )


def read_stream(values: Mapping[str, Any]) -> tuple[bool, bool]:
    """Whether an answer is wanted piece by piece, and whether the stream is to end with the counts."""
    options = values.get("stream_options", {})
    stream = _boolean("stream", values.get("stream", False))
    if not isinstance(options, dict) or set(options) - {"include_usage"} or (options and not stream):
        raise ApiError(400, "stream_options: takes include_usage, and only with stream", param="stream_options")
    return stream, _boolean("include_usage", options.get("include_usage", False))


def _speech(values: Mapping[str, Any], max_new_tokens: int, *, strip: bool) -> Speech:
    top_p = read_number("top_p", values.get("top_p", 1.0), 0, 1)
    if top_p == 0:
        raise ApiError(400, "top_p: must be more than 0", param="top_p")
    if top_p < 1 and "temperature" not in values:
        raise ApiError(400, "top_p: answers are greedy without a temperature; give both", param="top_p")
    seed = values.get("seed")
    stop = values.get("stop", [])
    texts = [stop] if isinstance(stop, str) else stop
    if (
        not isinstance(texts, list)
        or len(texts) > MAX_STOP_TEXTS
        or not all(isinstance(one, str) and one for one in texts)
    ):
        raise ApiError(400, f"stop: must be a text or up to {MAX_STOP_TEXTS} of them, none empty", param="stop")
    return Speech(
        max_new_tokens=max_new_tokens,
        temperature=read_number("temperature", values.get("temperature", 0.0), 0, 2),
        top_p=top_p,
        seed=None if seed is None else read_integer("seed", seed, least=-(2**63), most=2**63 - 1),
        stop=tuple(texts),
        strip=strip,
    )


def _chat_ids(values: Mapping[str, Any], target: Target) -> list[int]:
    messages, tools = values.get("messages"), values.get("tools", [])
    if not isinstance(messages, list) or not messages:
        raise ApiError(400, "messages: must be a list of at least one message", param="messages")
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise ApiError(400, "tools: must be a list of functions", param="tools")
    read = [read_message(message, f"messages[{index}]") for index, message in enumerate(messages)]
    try:
        return chat_ids(target.tokenizer, read, tools)
    except (DataError, UsageError) as error:
        raise ApiError(400, str(error), param="messages") from None


def _text_ids(values: Mapping[str, Any], target: Target, *, special: bool = True) -> list[int]:
    prompt = values.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str):
        prompt = prompt[0]
    if not isinstance(prompt, str):
        raise ApiError(400, "prompt: must be one text", param="prompt")
    ids = text_ids(target.tokenizer, prompt, special=special)
    if not ids:
        raise ApiError(400, "prompt: is empty", param="prompt")
    return ids


def read_message(message: Any, where: str) -> dict[str, Any]:
    """A message as chat templates take it: text in place of parts, objects in place of JSON in a text."""
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise ApiError(400, f"{where}: must be an object with a role", param=where)
    read = {key: value for key, value in message.items() if value is not None}
    read["content"] = _content(read.get("content", ""), where)
    if "tool_calls" in read:
        read["tool_calls"] = _tool_calls(read["tool_calls"], f"{where}.tool_calls")
    return read


def _content(content: Any, where: str) -> str:
    if isinstance(content, str):
        return content
    parts: Sequence[Any] = content if isinstance(content, list) else [None]
    if not all(
        isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str) for part in parts
    ):
        raise ApiError(400, f"{where}.content: must be a text, or parts of type text", param=f"{where}.content")
    return "".join(part["text"] for part in parts)


def _tool_calls(calls: Any, where: str) -> list[dict[str, Any]]:
    try:
        return [
            {**call, "function": {**call["function"], "arguments": _arguments(call["function"]["arguments"])}}
            for call in calls
        ]
    except (TypeError, KeyError, ValueError) as error:
        raise ApiError(
            400, f"{where}: must be calls of functions with arguments as JSON: {error}", param=where
        ) from None


def _arguments(arguments: Any) -> Any:
    return json.loads(arguments) if isinstance(arguments, str) else arguments


def read_number(name: str, value: Any, least: float, most: float) -> float:
    """A field's number, both ends allowed."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
        raise ApiError(400, f"{name}: must be a number from {least} to {most}, not {_short(value)}", param=name)
    return float(value)


def read_integer(name: str, value: Any, *, least: int, most: int = 2**31 - 1) -> int:
    """A field's whole number, both ends allowed."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ApiError(400, f"{name}: must be a whole number from {least} to {most}, not {_short(value)}", param=name)
    return value


def _boolean(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ApiError(400, f"{name}: must be true or false, not {_short(value)}", param=name)
    return value


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:59] + "…"
