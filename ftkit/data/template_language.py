"""Jinja as transformers sets it up for chat templates, without transformers."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Iterator
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.utils import Namespace

from ftkit.template_limits import LimitedEnvironment


class Generation(Extension):
    """``{% generation %}``, transformers' mark around what the assistant writes.

    A block is a scope of its own there (a Jinja call block), so it must be one here: a variable that is set inside
    one is unknown behind it.
    """

    tags = {"generation"}  # noqa: RUF012 - Jinja's own declaration

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        self._follows = False
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
        if self._follows:
            self._marked.append((self._written, body))
        return body

    def follow(self, pieces: Iterator[str]) -> tuple[str, list[tuple[int, str]]]:
        """Join a template's output, and give with it the blocks that were noted on the way."""
        self._written, self._marked = 0, []
        written = []
        self._follows = True
        try:
            for piece in pieces:  # lazy: a block is noted when all that stands before it has been counted
                written.append(piece)
                self._written += len(piece)
        finally:
            self._follows = False
        return "".join(written), self._marked


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


class Environment(LimitedEnvironment):
    """Jinja's bounded sandbox, made quicker at what templates do all the time: ``message.role``, ``text.strip()``.

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


def environment(now: datetime.datetime) -> Environment:
    """Jinja as transformers sets it up. The sandbox also bounds ranges."""
    environment = Environment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"]
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
