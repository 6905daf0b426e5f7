"""The small Jinja templates of ``data.columns``, rendered within bounds.

A recipe is data that people pass on, so a template in it can neither reach beyond the row nor exhaust the machine:

* Jinja's own sandbox keeps it from Python's insides.
* Of statements there are ``{% if %}`` and ``{% for %}``: without ``set`` and ``macro`` nothing can be doubled again
  and again, so text grows at most with the length of the template.
* Filters, functions and methods are the listed ones; what those make that can make much out of little, a repetition
  or a replacement, is counted, and so are the turns of all loops: a rendering that goes beyond a limit ends there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from jinja2 import StrictUndefined, TemplateError, Undefined, meta, nodes
from jinja2.exceptions import SecurityError, TemplateSyntaxError, UndefinedError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

MAX_TEMPLATE = 20_000
MAX_TEXT = 4_000_000
MAX_TURNS = 10_000

_FILTERS = (
    "abs", "capitalize", "count", "d", "default", "dictsort", "first", "float", "int", "items", "join", "last",
    "length", "list", "lower", "map", "max", "min", "reject", "rejectattr", "replace", "reverse", "round", "select",
    "selectattr", "sort", "sum", "title", "trim", "truncate", "unique", "upper", "wordcount",
)  # fmt: skip
_METHODS = {
    str: (
        "capitalize", "casefold", "count", "endswith", "find", "index", "isalnum", "isalpha", "isdecimal", "isdigit",
        "islower", "isnumeric", "isspace", "istitle", "isupper", "lower", "lstrip", "partition", "removeprefix",
        "removesuffix", "rfind", "rindex", "rpartition", "rsplit", "rstrip", "split", "splitlines", "startswith",
        "strip", "swapcase", "title", "upper",
    ),
    dict: ("get", "items", "keys", "values"),
    list: ("count", "index"),
}  # fmt: skip
_PLAIN = (str, int, float, bool)


class TemplateFault(ValueError):  # noqa: N818 - becomes a RowFault, never shown by itself
    """What a template cannot do, or cannot do with this row.

    Args:
        what: The fault.
        fix: How to mend it.
    """

    def __init__(self, what: str, fix: str = "") -> None:
        super().__init__(what)
        self.what, self.fix = what, fix


class ColumnTemplate:
    """One template over the columns of a row, which are its variables; ``row`` holds them all.

    Args:
        source: Its text.

    Raises:
        TemplateFault: It is no template, or uses what templates of columns do not have.
    """

    def __init__(self, source: str) -> None:
        if len(source) > MAX_TEMPLATE:
            raise TemplateFault(f"is a template of {len(source)} characters; {MAX_TEMPLATE} are allowed")
        self._environment = _Environment()
        try:
            tree = self._environment.parse(source)
            _require_small_language(tree)
            self.columns = frozenset(meta.find_undeclared_variables(tree)) - self._environment.globals.keys()
            code = self._environment.compile(_Metered().visit(tree))
        except TemplateSyntaxError as error:
            raise TemplateFault(f"is not a valid template: {error.message} (line {error.lineno})") from None
        except (TemplateError, RecursionError) as error:
            raise TemplateFault(f"is not a valid template: {error}") from None
        self._template = self._environment.template_class.from_code(
            self._environment, code, self._environment.make_globals(None)
        )

    def render(self, row: Mapping[str, Any]) -> str:
        """The text for one row.

        Raises:
            TemplateFault: The row lacks a column, or the template fails or grows without bound on it.
        """
        self._environment.begin()
        pieces, length = [], 0
        try:
            for piece in self._template.generate({"row": row, **row}):
                length += len(piece)
                if length > MAX_TEXT:
                    raise TemplateFault(f"the template makes more than {MAX_TEXT:,} characters")
                pieces.append(piece)
        except UndefinedError as error:
            raise self._undefined(row, error) from None
        except SecurityError as error:
            raise TemplateFault(f"the template may not do this: {error}") from None
        except (ValueError, TypeError, ArithmeticError, LookupError, AttributeError, TemplateError) as error:
            if isinstance(error, TemplateFault):
                raise
            raise TemplateFault(f"the template fails: {type(error).__name__}: {error}") from None
        except (RecursionError, MemoryError) as error:
            raise TemplateFault(f"the template fails: {type(error).__name__}") from None
        return "".join(pieces)

    def _undefined(self, row: Mapping[str, Any], error: UndefinedError) -> TemplateFault:
        missing = sorted(self.columns - row.keys() - {"row"})
        lacks = ", ".join(map(repr, missing))
        what = f"the template reads {lacks}, which this row lacks" if missing else f"the template fails: {error}"
        return TemplateFault(what, f"Its columns: {', '.join(map(str, row))}.")


class _Environment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox with the listed filters, methods and functions alone, and a meter on what they make."""

    intercepted_binops = frozenset({"*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(undefined=StrictUndefined, finalize=_printable)
        known = dict(self.filters)
        self.filters.clear()
        self.filters |= {name: known[name] for name in _FILTERS}
        self.filters |= {"join": self._join, "replace": self._replace, "string": _string, "tojson": _tojson}
        self.filters[_COUNTED] = self._counted
        self.globals.clear()
        self.globals["range"] = self._range
        self.begin()

    def begin(self) -> None:
        """Set the meter back for a new rendering."""
        self._turns = self._counted_to = self._letters = 0

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Whether ``obj.attr`` may be read: of texts, lists and mappings the listed methods."""
        listed = next((names for kind, names in _METHODS.items() if isinstance(obj, kind)), None)
        if listed is not None and callable(value):
            return attr in listed
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> None:
        """No ``str.format``, which Jinja allows before it asks for safety: a width in it makes text without bound."""

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Arithmetic whose result can be far larger than what goes in."""
        whole = isinstance(left, int) and isinstance(right, int)
        if operator == "**" and whole and left.bit_length() * max(right, 0) > 4096:
            raise TemplateFault("the template raises a number to a power that is too large")
        if operator == "*" and whole and left.bit_length() + right.bit_length() > 4096:
            raise TemplateFault("the template multiplies numbers that are too large")
        if operator == "*" and not whole:
            for one, times in ((left, right), (right, left)):
                if isinstance(one, str) and isinstance(times, int):
                    self._spend(len(one) * times)
                elif isinstance(one, (list, tuple)):
                    raise TemplateFault("the template repeats a list with *")
        if operator == "%" and not isinstance(left, (int, float)):
            raise TemplateFault("the template formats text with %", "Join texts with ~ or write several {{ }}.")
        return super().call_binop(context, operator, left, right)

    def _spend(self, letters: int) -> None:
        self._letters += max(letters, 0)
        if self._letters > MAX_TEXT:
            raise TemplateFault(f"the template makes more than {MAX_TEXT:,} characters")

    def _counted(self, values: Iterable[Any]) -> Iterator[Any]:
        for value in values:
            self._turns += 1
            if self._turns > MAX_TURNS:
                raise TemplateFault(f"the template's loops take more than {MAX_TURNS:,} turns")
            yield value

    def _range(self, *bounds: int) -> range:
        values = range(*bounds)
        try:
            self._counted_to += len(values)
        except OverflowError:  # more than fits a machine word
            self._counted_to = MAX_TURNS + 1
        if self._counted_to > MAX_TURNS:
            raise TemplateFault(f"the template counts to more than {MAX_TURNS:,}")
        return values

    def _join(self, values: Iterable[Any], separator: str = "", attribute: str | None = None) -> str:
        texts = [_string(value if attribute is None else self.getitem(value, attribute)) for value in values]
        self._spend(sum(map(len, texts)) + len(separator) * len(texts))
        return separator.join(texts)

    def _replace(self, text: str, old: str, new: str) -> str:
        self._spend(len(text) + len(new) * (text.count(old) if old else len(text) + 1))
        return text.replace(old, new)


_COUNTED = "_counted"


def _require_small_language(tree: nodes.Template) -> None:
    for node in tree.find_all(nodes.Stmt):
        if not isinstance(node, (nodes.Output, nodes.If, nodes.For)) or getattr(node, "recursive", False):
            name = type(node).__name__
            raise TemplateFault(
                f"uses a statement that templates of columns do not have ({name}, line {node.lineno})",
                "There are {{ }}, {% if %} and {% for %}.",
            )


class _Metered(NodeTransformer):
    """Sends every loop through the counter, and ``~`` through ``join``, which refuses to print a null."""

    def visit_For(self, loop: nodes.For) -> nodes.For:  # noqa: N802 - named by Jinja
        self.generic_visit(loop)
        loop.iter = nodes.Filter(loop.iter, _COUNTED, [], [], None, None, lineno=loop.lineno)
        return loop

    def visit_Concat(self, concat: nodes.Concat) -> nodes.Filter:  # noqa: N802 - named by Jinja
        self.generic_visit(concat)
        parts = nodes.List(concat.nodes, lineno=concat.lineno)
        return nodes.Filter(parts, "join", [], [], None, None, lineno=concat.lineno)


def _printable(value: Any) -> Any:
    """Refuse to print what would come out as Python writes it, ``None`` or ``['a']``."""
    if isinstance(value, (*_PLAIN, Undefined)):
        return value
    if value is None:
        raise TemplateFault(
            "the template prints a column that is null in this row", "Write {{ column or '' }}, or remove the row."
        )
    if isinstance(value, (list, tuple, dict)):
        raise TemplateFault(
            f"the template prints a {type(value).__name__} as Python writes it", "Write | join(', ') or | tojson."
        )
    raise TemplateFault(f"the template prints a {type(value).__name__}, which is no text")


def _string(value: Any) -> str:
    return str(_printable(value))


def _tojson(value: Any) -> str:
    # Jinja's own writes < > & ' as escapes for web pages, which has no place in training text.
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
