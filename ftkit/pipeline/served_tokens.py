"""Ways to learn from a server which tokens it makes of a prompt: one class a kind of server, and their table."""

from __future__ import annotations

import abc
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ftkit.errors import MissingPartError, UsageError
from ftkit.export.token_contract import Prompt
from ftkit.pipeline.http_server import HttpServer, Refused


@dataclass(frozen=True, kw_only=True)
class Served:
    """What a server made of a prompt.

    Attributes:
        count: Number of tokens.
        ids: The tokens; None where the server tells their number only.
    """

    count: int
    ids: list[int] | None


class Way(abc.ABC):
    """One way to ask.

    Args:
        server: To ask.
        model: Its name for the model; None where it has none.
    """

    title: ClassVar[str]
    counts_only: ClassVar[bool] = False

    def __init__(self, server: HttpServer, model: str | None) -> None:
        self._server = server
        self._model = {} if model is None else {"model": model}

    def ask(self, prompt: Prompt) -> Served:
        """The tokens of a conversation with the generation prompt, or of a plain text.

        Raises:
            Refused: The server does not answer in this way, or refuses the prompt.
        """
        if prompt.messages is None:
            return self.text(prompt.text or "")
        tools = {} if prompt.tools is None else {"tools": prompt.tools}
        return self.chat({"messages": as_sent(prompt.messages), **tools, **self._model})

    @abc.abstractmethod
    def chat(self, body: dict[str, Any]) -> Served:
        """Ask for a conversation; ``body`` has messages, tools and model as in a chat completion."""

    @abc.abstractmethod
    def text(self, text: str) -> Served:
        """Ask for a plain text."""


class Tokenize(Way):
    """vLLM, and SGLang where it is new enough.

    Source:
        vllm/entrypoints/serve/tokenize/protocol.py; sglang/srt/entrypoints/openai/protocol.py.
    """

    title = "POST /tokenize (vLLM, SGLang)"

    def chat(self, body: dict[str, Any]) -> Served:
        """The template alone writes special tokens; SGLang would add its own unless told."""
        # llama.cpp has a path of this name too: it looks for "content", finds none, and gives no tokens at all.
        return self._tokens({**body, "add_generation_prompt": True, "add_special_tokens": False})

    def text(self, text: str) -> Served:
        """As a completion's prompt."""
        return self._tokens({"prompt": text, "add_special_tokens": True, **self._model})

    def _tokens(self, body: dict[str, Any]) -> Served:
        return _tokens(_field(self._server.post("/tokenize", body), "tokens"))


class LlamaCpp(Way):
    """llama.cpp's server: the rendered text, then its tokens, as its chat completion takes them.

    Where its tokenizer puts BOS itself, it cuts BOS off the rendered text first.

    Source:
        llama.cpp tools/server: post_apply_template, post_tokenize, and tokenize_mixed(vocab, prompt, true, true).
    """

    title = "POST /apply-template and /tokenize (llama.cpp)"

    def chat(self, body: dict[str, Any]) -> Served:
        """Render, then cut into tokens."""
        rendered = _field(self._server.post("/apply-template", body), "prompt")
        if not isinstance(rendered, str):
            raise Refused("its answer's 'prompt' is not a text")
        return self.text(rendered)

    def text(self, text: str) -> Served:
        """With the special tokens that the text spells and those that the tokenizer adds."""
        body = {"content": text, "add_special": True, "parse_special": True, **self._model}
        return _tokens(_field(self._server.post("/tokenize", body), "tokens"))


class TextGenerationInference(Way):
    """Hugging Face's text-generation-inference.

    Source:
        text-generation-inference router/src/server.rs: get_chat_tokenize, tokenize.
    """

    title = "POST /chat_tokenize (text-generation-inference)"

    def chat(self, body: dict[str, Any]) -> Served:
        """Template and tokens at once."""
        return self._tokens(_field(self._server.post("/chat_tokenize", body), "tokenize_response"))

    def text(self, text: str) -> Served:
        """As a prompt of ``/generate``."""
        return self._tokens(self._server.post("/tokenize", {"inputs": text}))

    def _tokens(self, listed: Any) -> Served:
        if not isinstance(listed, list):
            raise Refused("its answer is not a list of tokens")
        return _tokens([entry.get("id") if isinstance(entry, dict) else None for entry in listed])


class CompletionIds(Way):
    """A completion of one token that tells the prompt's ids: what the model really was sent.

    Source:
        vLLM ``return_token_ids`` (beside the choices), SGLang ``return_prompt_token_ids`` (in each choice).
    """

    title = "the prompt's token ids in a completion of one token (vLLM, SGLang)"

    def chat(self, body: dict[str, Any]) -> Served:
        """Through the chat template."""
        return self._read(self._server.post("/v1/chat/completions", {**body, **_ONE_TOKEN, **self._wish}))

    def text(self, text: str) -> Served:
        """Plain."""
        body = {"prompt": text, **_ONE_TOKEN, **self._wish, **self._model}
        return self._read(self._server.post("/v1/completions", body))

    _wish: ClassVar[dict[str, Any]] = {"return_token_ids": True, "return_prompt_token_ids": True}

    def _read(self, answer: Any) -> Served:
        choices = answer.get("choices") if isinstance(answer, dict) else None
        places = [answer, *choices] if isinstance(choices, list) else [answer]
        found = [
            place["prompt_token_ids"] for place in places if isinstance(place, dict) and "prompt_token_ids" in place
        ]
        listed = next((ids for ids in found if ids is not None), None)
        if listed is None:
            raise Refused("its completions do not tell the prompt's token ids")
        return _tokens(listed)


class Counts(CompletionIds):
    """A completion of one token, for the number of tokens that it says the prompt had."""

    title = "counts only; this server shows no tokens"
    counts_only = True
    # Strict servers refuse what they do not know.
    _wish: ClassVar[dict[str, Any]] = {}

    def _read(self, answer: Any) -> Served:
        usage = _field(answer, "usage")
        count = _field(usage, "prompt_tokens")
        if not _is_count(count) or count == 0:
            raise Refused("its completions do not tell how many tokens the prompt had")
        return Served(count=count, ids=None)


# In the order of trying: those that cost nothing first, and what tells least last.
WAYS: tuple[type[Way], ...] = (Tokenize, LlamaCpp, TextGenerationInference, CompletionIds, Counts)
_ONE_TOKEN: dict[str, Any] = {"max_tokens": 1, "temperature": 0, "stream": False}


def find_way(server: HttpServer, model: str | None, probe: Prompt) -> Way:
    """The first way in which a server answers.

    Args:
        server: To ask.
        model: Its name for the model, or None.
        probe: A prompt that it must be able to render.

    Raises:
        MissingPartError: It answers in none; each with the reason.
    """
    reasons = []
    for kind in WAYS:
        way = kind(server, model)
        try:
            way.ask(probe)
        except Refused as refused:
            reasons.append(f"{kind.title}: {refused}")
        else:
            return way
    raise MissingPartError(
        f"{server.root}: shows neither the tokens that it makes of {probe.name!r} nor how many they are",
        fix="\n".join(["It was asked for:", *(f"  {reason}" for reason in reasons)]),
    )


def find_model(server: HttpServer, chosen: str | None) -> str | None:
    """The name of the model to ask for: the chosen one, else the only one there is; None where there is no list.

    Raises:
        UsageError: There are several.
    """
    if chosen is not None:
        return chosen
    try:
        listed = _field(server.get("/v1/models"), "data")
    except Refused:
        return None
    entries = listed if isinstance(listed, list) else []
    names = [entry["id"] for entry in entries if isinstance(entry, dict) and isinstance(entry.get("id"), str)]
    if len(names) > 1:
        raise UsageError(
            f"{server.root}: serves several models", fix=f"Choose with --model: {', '.join(sorted(names)[:20])}."
        )
    return names[0] if names else None


def as_sent(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Messages as clients send them: the arguments of tool calls are JSON in a text, not objects as in templates."""
    sent = []
    for message in messages:
        calls = [
            {**call, "function": {**call["function"], "arguments": json.dumps(call["function"]["arguments"])}}
            for call in message.get("tool_calls", ())
        ]
        sent.append({**message, "tool_calls": calls} if calls else message)
    return sent


def _field(answer: Any, key: str) -> Any:
    if not isinstance(answer, dict) or key not in answer:
        raise Refused(f"its answer has no {key!r}")
    return answer[key]


def _tokens(listed: Any) -> Served:
    if not isinstance(listed, list) or not listed or not all(_is_count(token) for token in listed):
        raise Refused("its answer has no list of token ids")
    return Served(count=len(listed), ids=listed)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
