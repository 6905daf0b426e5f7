"""Chat templates, rendered character for character as transformers renders them, without transformers.

Worker processes render every row several times, and importing transformers would cost each of them seconds and
hundreds of megabytes.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from jinja2 import Template, TemplateError, TemplateSyntaxError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from ftkit.data.sample import Turn

Spans = list[tuple[int, int]]

# Names that a message's reasoning goes by; transformers gives templates the first two, whichever the row has.
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
        self._environment = _environment(datetime.datetime.combine(today, datetime.time()))
        self._compiled: dict[str, tuple[Template, bool]] = {}

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
        template, marks = self._template(tools)
        values = {
            "messages": [_message(turn) for turn in turns],
            "tools": list(tools) or None,
            "documents": None,
            "add_generation_prompt": ask,
            **self._special_tokens,
        }
        try:
            return self._with_marks(template, values) if marks and follow_marks else (template.render(values), [])
        except RenderFault:
            raise
        except Exception as error:  # noqa: BLE001 - templates raise whatever they like; every kind becomes one message
            raise RenderFault(
                f"the chat template refuses this conversation: {error or type(error).__name__}"
            ) from None

    def has_marks(self, tools: Sequence[Mapping[str, Any]] = ()) -> bool:
        """Whether the text that serves such a conversation has ``{% generation %}`` marks."""
        return self._template(tools)[1]

    def _template(self, tools: Sequence[Mapping[str, Any]]) -> tuple[Template, bool]:
        """The compiled text for a conversation, and whether it has marks; compiled when first needed."""
        name = "tool_use" if tools and "tool_use" in self._texts else "default"
        if name not in self._compiled:
            if name not in self._texts:
                names = ", ".join(sorted(self._texts))
                raise RenderFault(
                    f"the tokenizer has several chat templates ({names}), and none is named default",
                    "Choose one with model.chat_template.",
                )
            tree = self._parse(self._texts[name])
            marks = any(node.identifier == _MARKS for node in tree.find_all(nodes.ExtensionAttribute))
            template = self._environment.from_string(tree)
            # Jinja keeps them in a chain of mappings, which it copies key by key for every text.
            template.globals = dict(template.globals)
            self._compiled[name] = template, marks
        return self._compiled[name]

    def _parse(self, text: str) -> nodes.Template:
        try:
            return self._environment.parse(text)
        except TemplateSyntaxError as error:
            raise RenderFault(
                f"the chat template is not valid Jinja: {error.message} (line {error.lineno})",
                "Choose another model.chat_template.",
            ) from None

    def _with_marks(self, template: Template, values: Mapping[str, Any]) -> tuple[str, Spans]:
        tracker = self._environment.extensions[_MARKS]
        assert isinstance(tracker, _Generation)
        text, marked = tracker.follow(template.generate(values))
        for start, body in marked:
            if not text.startswith(body, start):
                raise RenderFault(
                    "a {% generation %} block of the chat template stands inside a macro or a {% set %} block, so "
                    "its place in the text cannot be known",
                    "Move the marks out of it, or choose another model.chat_template.",
                )
        return text, [(start, start + len(body)) for start, body in marked if body]


class _Generation(Extension):
    """``{% generation %}``, transformers' mark around what the assistant writes.

    A block is a scope of its own there (a Jinja call block), so it must be one here: a variable that is set inside
    one is unknown behind it.
    """

    tags = {"generation"}  # noqa: RUF012 - Jinja's own declaration

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        self._written = 0
        self._marked: list[tuple[int, str]] = []

    def parse(self, parser: Parser) -> nodes.Node:
        """Turn a block into a call of `note` with the block's text."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("note"), [], [], body, lineno=line)

    def note(self, caller: Callable[[], str]) -> str:
        """Remember a block's text, and where it will stand if it goes straight into the output."""
        body = caller()
        self._marked.append((self._written, body))
        return body

    def follow(self, pieces: Iterator[str]) -> tuple[str, list[tuple[int, str]]]:
        """Join a template's output, and give with it the blocks that were noted on the way."""
        self._written, self._marked = 0, []
        written = []
        for piece in pieces:  # lazy: a block is noted when all that stands before it has been counted
            written.append(piece)
            self._written += len(piece)
        return "".join(written), self._marked


_MARKS = _Generation.identifier


class _Namespace(Namespace):
    """Jinja's namespace without private names, through which templates have climbed out of the sandbox."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        instance, *rest = args  # not by the name of self, which a template may give to a value
        values = dict(*rest, **kwargs)
        for name in values:
            _require_public(name)
        Namespace.__init__(instance, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _require_public(name)
        super().__setitem__(name, value)


class _Dict:
    """``dict`` as templates may use it: to call, not to climb its class."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


def _require_public(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a chat template cannot keep {name!r} in a namespace")


class _Environment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, made quicker at what templates do all the time: ``message.role``, ``text.strip()``.

    Jinja looks for an attribute before it looks for a key, and a plain dict answers each such question with an
    exception. And it asks anew, in dozens of questions about the type, whether ``strip`` of a text is safe.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._safe: dict[tuple[type, str], bool] = {}

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """As Jinja has it, which decides by the object's type and the attribute's name."""
        key = type(obj), attr
        if key not in self._safe:
            self._safe[key] = super().is_safe_attribute(obj, attr, value)
        return self._safe[key]

    def getattr(self, obj: Any, attribute: str) -> Any:
        """As Jinja has it; a key that no attribute of dicts hides is taken at once."""
        if type(obj) is dict and attribute in obj and attribute not in _OF_DICTS:
            return obj[attribute]
        return super().getattr(obj, attribute)


_OF_DICTS = frozenset(dir(dict))


def _environment(now: datetime.datetime) -> _Environment:
    """Jinja as transformers sets it up. The sandbox also bounds ranges."""
    environment = _Environment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _to_json
    environment.globals |= {
        "raise_exception": _raise,
        "strftime_now": now.strftime,
        "dict": _Dict(),
        "namespace": _Namespace,
    }
    return environment


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own filter escapes HTML and sorts keys."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise(message: str) -> None:
    raise TemplateError(message)


def _message(turn: Turn) -> dict[str, Any]:
    """As transformers hands a message to a template: keys that are null left out, reasoning under both its names."""
    if not turn.fields:
        return {"role": turn.role, "content": turn.content}
    message = {key: value for key, value in turn.message.items() if value is not None}
    reasoning = next((message[key] for key in _REASONING if key in message), None)
    if reasoning is not None:
        message = {"thinking": reasoning, **message, "reasoning_content": reasoning}
    return message
