"""Jinja for chat templates, which come with somebody else's model: sandboxed, and bounded in time and memory.

Jinja's sandbox keeps a template from Python's insides, but lets it ask for ten gigabytes of spaces or loop for years.
Here loops, calls and the texts that are made are counted, and a rendering that goes beyond a limit ends there. The
limits are far above what any conversation needs.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from jinja2 import Template, nodes
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

MAX_STEPS = 300_000  # turns of loops and calls in one rendering
MAX_LETTERS = 1 << 27  # in all texts that one rendering makes
ITEM_LETTERS = 32  # what an item of a list counts as
MAX_WIDTH = 1000  # of padding, indentation and numbers
# In what `format` and `%` take: a width of a thousand and more, or one that an argument gives.
_WIDE = re.compile(r"\d{4,}|%[^a-zA-Z%]*\*|:[^{}]*\{")
_PADDING = frozenset({"center", "ljust", "rjust", "zfill", "expandtabs", "to_bytes"})
_PADDING_FILTERS = ("center", "indent", "wordwrap", "batch", "slice", "round")
_COUNTED, _JOINED, _MEASURED, _NARROW = "_counted", "_joined", "_measured", "_narrow"


class TemplateLimitError(SecurityError):
    """A template that would take endless time or memory."""


class LimitedTemplate(Template):
    """A template whose every rendering begins with a full allowance."""

    def render(self, *args: Any, **kwargs: Any) -> str:
        """See `jinja2.Template.render`."""
        self.environment.begin()  # type: ignore[attr-defined]
        return super().render(*args, **kwargs)

    def generate(self, *args: Any, **kwargs: Any) -> Iterator[str]:
        """See `jinja2.Template.generate`."""
        self.environment.begin()  # type: ignore[attr-defined]
        return super().generate(*args, **kwargs)


class LimitedEnvironment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox with an allowance of steps and letters for each rendering."""

    template_class = LimitedTemplate
    # Also keeps the compiler from working such an expression out by itself.
    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"finalize": self._measured, **options})
        self.begin()
        self.filters["join"] = self._joining_filter(self.filters["join"])
        self.filters["replace"] = _checked(self.filters["replace"], self._replacing)
        self.filters["format"] = _checked(self.filters["format"], _formatting)
        for name in ("indent", "wordwrap"):
            self.filters[name] = _checked(self.filters[name], self._widening)
        self.filters |= {
            _COUNTED: self._counted, _JOINED: self._joined, _MEASURED: self._measured, _NARROW: _narrow,
        }  # fmt: skip
        self.globals.pop("lipsum", None)

    def begin(self) -> None:
        """Give a new rendering its allowance."""
        self._steps = self._letters = 0

    def call(self, context: Any, called: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Count a call, and what it makes."""
        self._step(1 + sum(len(arg) for arg in args if isinstance(arg, (list, tuple, dict))))
        name, owner = getattr(called, "__name__", ""), getattr(called, "__self__", None)
        if isinstance(owner, (str, bytes, int)):
            if name in _PADDING:
                for width in (*args, *kwargs.values()):
                    _narrow(width)
                self._spend(MAX_WIDTH * len(owner) if name == "expandtabs" and isinstance(owner, str) else 0)
            elif name == "translate":
                raise TemplateLimitError("a chat template may not use translate")
            elif name == "replace" and len(args) > 1:
                self._replacing(None, owner, *args)
            elif name == "join" and args:
                args = (list(args[0]), *args[1:])
                self._joining(args[0], owner)
        return self._measured(super().call(context, called, *args, **kwargs))

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """``str.format`` as the sandbox has it, without wide fields."""
        wrapped = super().wrap_str_format(value)
        if wrapped is not None:
            _formatting(value.__self__)
        return wrapped

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Arithmetic whose result can be larger than what goes in."""
        if operator == "+":
            return self._measured(left + right)  # by far the most frequent
        if operator == "**":
            if isinstance(left, int) and isinstance(right, int) and left.bit_length() * max(right, 0) > 4096:
                raise TemplateLimitError("a chat template raises a number to a power that is too large")
        elif operator == "*":
            for one, times in ((left, right), (right, left)):
                if isinstance(times, int):
                    if isinstance(one, (str, bytes)):
                        self._spend(len(one) * times)
                    elif isinstance(one, (list, tuple)):
                        self._spend(ITEM_LETTERS * len(one) * times)
                    elif isinstance(one, int) and one.bit_length() + times.bit_length() > 4096:
                        raise TemplateLimitError("a chat template multiplies numbers that are too large")
        elif operator == "%" and isinstance(left, (str, bytes)):
            _formatting(left)
        made = super().call_binop(context, operator, left, right)
        return made if type(made) is int else self._measured(made)

    def _generate(self, source: nodes.Template, name: Any, filename: Any, defer_init: bool = False) -> str:
        return str(super()._generate(_Metered().visit(source), name, filename, defer_init))

    def _step(self, steps: int) -> None:
        self._steps += steps
        if self._steps > MAX_STEPS:
            raise TemplateLimitError(f"a chat template takes more than {MAX_STEPS:,} steps")

    def _spend(self, letters: int) -> None:
        self._letters += max(letters, 0)
        if self._letters > MAX_LETTERS:
            raise TemplateLimitError(f"a chat template makes more than {MAX_LETTERS >> 20} million letters")

    def _measured(self, value: Any) -> Any:
        if isinstance(value, (str, bytes)):
            self._spend(len(value))
        elif isinstance(value, (list, tuple)):
            self._spend(ITEM_LETTERS * len(value))
        return value

    def _counted(self, values: Iterable[Any], letters: int) -> Iterator[Any]:
        """The values of a loop, whose body holds so many letters of the template's own."""
        for value in values:
            self._step(1)
            self._spend(letters)
            yield value

    def _joined(self, parts: list[Any]) -> str:
        return str(self._measured("".join(map(str, parts))))

    def _joining(self, values: list[Any], separator: Any) -> None:
        self._spend(sum(len(value) for value in values if isinstance(value, str)))
        self._spend(len(values) * len(str(separator)))

    def _joining_filter(self, wrapped: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(wrapped)
        def call(context: Any, values: Any, d: Any = "", attribute: Any = None) -> Any:  # named by Jinja
            values = list(values)  # what `map` gives can be gone through once
            self._joining(values, d)
            return wrapped(context, values, d, attribute)

        return call

    def _replacing(self, _context: Any, text: Any, old: Any, new: Any, *_: Any, **__: Any) -> None:
        text, old, new = str(text), str(old), str(new)
        self._spend(len(text) + len(new) * (text.count(old) if old else len(text) + 1))

    def _widening(self, *args: Any, **kwargs: Any) -> None:
        given = [value for value in (*args, *kwargs.values()) if isinstance(value, (str, int))]
        text = next((value for value in given if isinstance(value, str)), "")
        widths = [value if isinstance(value, int) else len(value) for value in given if value is not text]
        self._spend((text.count("\n") + 1) * max([*widths, 4]))


def _checked(wrapped: Callable[..., Any], check: Callable[..., None]) -> Callable[..., Any]:
    """A filter that is checked before it is called; what Jinja notes on it, such as what to pass, stays."""

    @functools.wraps(wrapped)
    def call(*args: Any, **kwargs: Any) -> Any:
        check(*args, **kwargs)
        return wrapped(*args, **kwargs)

    return call


def _formatting(text: Any, *_: Any, **__: Any) -> None:
    if _WIDE.search(text.decode("latin-1") if isinstance(text, bytes) else str(text)):
        raise TemplateLimitError("a chat template formats to a width of a thousand or more")


def _narrow(width: Any) -> Any:
    if isinstance(width, int) and abs(width) > MAX_WIDTH:
        raise TemplateLimitError(f"a chat template asks for a width of {width:,}")
    return width


def _filter(name: str, value: Any, *args: nodes.Expr, lineno: int) -> nodes.Filter:
    return nodes.Filter(value, name, list(args), [], None, None, lineno=lineno)


class _Metered(NodeTransformer):
    """Sends loops, joined texts, blocks that are kept and widths through the environment's counters."""

    def visit_For(self, loop: nodes.For) -> nodes.For:  # noqa: N802 - named by Jinja
        self.generic_visit(loop)
        letters = sum(len(data.data) for data in loop.find_all(nodes.TemplateData))
        loop.iter = _filter(_COUNTED, loop.iter, nodes.Const(letters, lineno=loop.lineno), lineno=loop.lineno)
        return loop

    def visit_Concat(self, concat: nodes.Concat) -> nodes.Filter:  # noqa: N802 - named by Jinja
        self.generic_visit(concat)
        return _filter(_JOINED, nodes.List(concat.nodes, lineno=concat.lineno), lineno=concat.lineno)

    def visit_AssignBlock(self, block: nodes.AssignBlock) -> nodes.AssignBlock:  # noqa: N802 - named by Jinja
        self.generic_visit(block)
        block.filter = _filter(_MEASURED, block.filter, lineno=block.lineno)
        return block

    def visit_Filter(self, filtered: nodes.Filter) -> nodes.Filter:  # noqa: N802 - named by Jinja
        self.generic_visit(filtered)
        if filtered.name in (*_PADDING_FILTERS, "map", "tojson"):
            filtered.args = [_filter(_NARROW, arg, lineno=filtered.lineno) for arg in filtered.args]
            for keyword in filtered.kwargs:
                keyword.value = _filter(_NARROW, keyword.value, lineno=filtered.lineno)
        return filtered
