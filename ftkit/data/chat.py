"""Chat templates, rendered character for character as transformers renders them, without transformers.

Worker processes render every row several times, and importing transformers would cost each of them seconds and
hundreds of megabytes.
"""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from jinja2 import Template, TemplateSyntaxError, nodes

from ftkit.data.linear import message_loop, read_signs, with_signs
from ftkit.data.sample import Turn
from ftkit.data.template_language import Generation, environment

Spans = list[tuple[int, int]]
MARKS = Generation.identifier

# Names that a message's reasoning goes by; transformers gives templates the first two, whichever the row has.
_ANY = (Turn(role="user", content="aquamarine"),)
_REASONING = ("reasoning_content", "thinking", "reasoning")


class RenderFault(ValueError):  # noqa: N818 - collected into a DataError, never shown by itself
    """Why a sample cannot become a training sequence.

    Attributes:
        what: The fault.
        fix: How to mend it.
        field: The part of the row, such as ``turn 3``; empty where the whole row is meant.
    """

    def __init__(self, what: str, fix: str = "", field: str = "") -> None:
        super().__init__(what)
        self.what, self.fix, self.field = what, fix, field


@dataclass(frozen=True, slots=True)
class Written:
    """What a template made of a conversation.

    Attributes:
        text: All of it.
        marks: Start and end in it of each ``{% generation %}`` block, if they were followed.
        begins: Of a linear template: where each message begins, and where the last one ends.
    """

    text: str
    marks: Spans = field(default_factory=list)
    begins: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Compiled:
    """A template, ready to be rendered.

    Attributes:
        template: As it is.
        marks: Whether it has ``{% generation %}`` marks.
        signing: A linear one, made to say where messages and marks begin and end; None for others.
        asks: What a linear one writes behind any conversation to have it answered; None for others.
    """

    template: Template
    marks: bool
    signing: Template | None = None
    asks: str | None = None


class ChatTemplate:
    """A tokenizer's chat template.

    Args:
        text: The template, or several by name, of which ``tool_use`` serves conversations with tools.
        special_tokens: ``bos_token``, ``eos_token`` and the like, as templates read them.
        today: What ``strftime_now`` tells, so that a run that is resumed tomorrow renders the same.
    """

    def __init__(
        self, text: str | Mapping[str, str], special_tokens: Mapping[str, str], today: datetime.date
    ) -> None:
        self._texts = {"default": text} if isinstance(text, str) else dict(text)
        self._special_tokens = dict(special_tokens)
        self._environment = environment(datetime.datetime.combine(today, datetime.time()))
        self._compiled: dict[str, _Compiled] = {}

    @cached_property
    def reads_today(self) -> bool:
        """Whether any of the texts asks for the date."""
        return any(
            name.name == "strftime_now"
            for text in self._texts.values()
            for name in self._parse(text).find_all(nodes.Name)
        )

    def render(
        self, turns: Sequence[Turn], tools: Sequence[Mapping[str, Any]] = (), *, ask: bool, follow_marks: bool = True
    ) -> tuple[str, Spans]:
        """Render a conversation.

        Args:
            turns: At least one.
            tools: JSON schemas, handed to the template as they are.
            ask: End with the words that make the model answer, as a server does.
            follow_marks: Whether the places of ``{% generation %}`` blocks are wanted; several times slower.

        Returns:
            The text, and the start and end in it of each ``{% generation %}`` block.

        Raises:
            RenderFault: The template refuses this conversation, or its marks cannot be followed.
        """
        compiled = self._template(tools)
        written = self._write(compiled, _values(turns, tools, ask=ask), follow=compiled.marks and follow_marks)
        return written.text, written.marks

    def has_marks(self, tools: Sequence[Mapping[str, Any]] = ()) -> bool:
        """Whether the text that serves such a conversation has ``{% generation %}`` marks."""
        return self._template(tools).marks

    def beginnings(self, turns: Sequence[Turn], tools: Sequence[Mapping[str, Any]] = ()) -> Beginnings:
        """A conversation and its beginnings, to be rendered.

        Raises:
            RenderFault: There is no template for such a conversation.
        """
        compiled = self._template(tools)
        if compiled.asks is None:
            return Beginnings(self, turns, tools)
        whole = self._write(compiled, _values(turns, tools, ask=False), follow=True)
        return _Linear(self, turns, tools, whole, compiled.asks)

    def _write(self, compiled: _Compiled, values: dict[str, Any], *, follow: bool) -> Written:
        values |= self._special_tokens
        try:
            if follow and compiled.signing is not None:
                return Written(*read_signs(compiled.signing.generate(values)))
            if follow and compiled.marks:
                return self._followed(compiled.template, values)
            return Written(compiled.template.render(values))
        except RenderFault:
            raise
        except Exception as error:  # noqa: BLE001 - templates raise whatever they like; every kind becomes one message
            raise RenderFault(
                f"the chat template refuses this conversation: {error or type(error).__name__}"
            ) from None

    def _template(self, tools: Sequence[Mapping[str, Any]]) -> _Compiled:
        """The compiled text for a conversation; compiled when first needed."""
        name = "tool_use" if tools and "tool_use" in self._texts else "default"
        if name not in self._compiled:
            if name not in self._texts:
                names = ", ".join(sorted(self._texts))
                raise RenderFault(
                    f"the tokenizer has several chat templates ({names}), and none is named default",
                    "Choose one with model.chat_template.",
                )
            self._compiled[name] = self._compile(self._texts[name])
        return self._compiled[name]

    def _compile(self, text: str) -> _Compiled:
        tree = self._parse(text)
        marks = any(node.identifier == MARKS for node in tree.find_all(nodes.ExtensionAttribute))
        plain = _Compiled(self._executable(tree), marks)
        tree = self._parse(text)  # once more, as compiling may have changed it
        loop = message_loop(tree, MARKS)
        if loop is not None:
            signing = replace(plain, signing=self._executable(with_signs(tree, loop)))
            with contextlib.suppress(RenderFault):  # it wants more than a question
                asked = self._write(signing, _values(_ANY, (), ask=True), follow=True)
                return replace(signing, asks=asked.text[asked.begins[-1] :])
        return plain

    def _executable(self, tree: nodes.Template) -> Template:
        template = self._environment.from_string(tree)
        # Jinja keeps them in a chain of mappings, which it copies key by key for every text.
        template.globals = dict(template.globals)
        return template

    def _parse(self, text: str) -> nodes.Template:
        try:
            return self._environment.parse(text)
        except TemplateSyntaxError as error:
            raise RenderFault(
                f"the chat template is not valid Jinja: {error.message} (line {error.lineno})",
                "Choose another model.chat_template.",
            ) from None

    def _followed(self, template: Template, values: Mapping[str, Any]) -> Written:
        tracker = self._environment.extensions[MARKS]
        assert isinstance(tracker, Generation)
        text, marked = tracker.follow(template.generate(values))
        for start, body in marked:
            if not text.startswith(body, start):
                raise RenderFault(
                    "a {% generation %} block of the chat template stands inside a macro or a {% set %} block, so "
                    "its place in the text cannot be known",
                    "Move the marks out of it, or choose another model.chat_template.",
                )
        return Written(text, [(start, start + len(body)) for start, body in marked if body])


class Beginnings:
    """A conversation's first turns, as many as are asked for, rendered one by one.

    Args:
        chat: The template.
        turns: Of the conversation.
        tools: See `ChatTemplate.render`.
    """

    def __init__(self, chat: ChatTemplate, turns: Sequence[Turn], tools: Sequence[Mapping[str, Any]]) -> None:
        self._chat, self._turns, self._tools = chat, turns, tools

    def asked(self, count: int) -> str:
        """The first turns, with the words that make the model answer."""
        return self._chat.render(self._turns[:count], self._tools, ask=True, follow_marks=False)[0]

    def written(self, count: int, *, follow_marks: bool) -> tuple[str, Spans]:
        """The first turns, and the places of the ``{% generation %}`` blocks if they are to be followed."""
        return self._chat.render(self._turns[:count], self._tools, ask=False, follow_marks=follow_marks)


class _Linear(Beginnings):
    """Of a template that writes one message after the other, as `message_loop` proves: all from one rendering."""

    def __init__(
        self,
        chat: ChatTemplate,
        turns: Sequence[Turn],
        tools: Sequence[Mapping[str, Any]],
        whole: Written,
        asks: str,
    ) -> None:
        super().__init__(chat, turns, tools)
        self._whole, self._asks = whole, asks

    def asked(self, count: int) -> str:
        """See `Beginnings`."""
        if not count:  # not even the first message, which what stands before all messages may depend on
            return super().asked(count)
        return self._whole.text[: self._whole.begins[count]] + self._asks

    def written(self, count: int, *, follow_marks: bool) -> tuple[str, Spans]:
        """See `Beginnings`."""
        if not count:
            return super().written(count, follow_marks=follow_marks)
        whole, end = self._whole, self._whole.begins[count]
        marks = [mark for mark in whole.marks if mark[0] < end] if follow_marks else []
        return whole.text[:end] + whole.text[whole.begins[-1] :], marks


def _values(turns: Sequence[Turn], tools: Sequence[Mapping[str, Any]], *, ask: bool) -> dict[str, Any]:
    """What a template is given, besides the special tokens."""
    return {
        "messages": [_message(turn) for turn in turns],
        "tools": list(tools) or None,
        "documents": None,
        "add_generation_prompt": ask,
    }


def _message(turn: Turn) -> dict[str, Any]:
    """As transformers hands a message to a template: keys that are null left out, reasoning under both its names."""
    if not turn.fields:
        return {"role": turn.role, "content": turn.content}
    message = {key: value for key, value in turn.message.items() if value is not None}
    reasoning = next((message[key] for key in _REASONING if key in message), None)
    if reasoning is not None:
        message = {"thinking": reasoning, **message, "reasoning_content": reasoning}
    return message
