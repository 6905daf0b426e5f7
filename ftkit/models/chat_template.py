"""What a chat template writes and reads, found in its syntax tree, and defaults written into its text."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeAlias

from jinja2 import TemplateSyntaxError, meta, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser

from ftkit.errors import Problem, RecipeError
from ftkit.nearest import nearest
from ftkit.recipe import ModelSection
from ftkit.template_limits import LimitedEnvironment

# One template, or several by name ("default", "tool_use"), as tokenizers keep them.
ChatTemplate: TypeAlias = str | dict[str, str]
Variable: TypeAlias = str | bool | int | float | None

# `<word>` may be XML that the model is meant to read as text, so of that shape only the known turn marks count.
_CONTROL = re.compile(
    r"<[|｜][^\s<>|｜]+[|｜]>"  # <|im_start|>, and DeepSeek's wide bars
    r"|<(?:start|end)_of_turn>"  # Gemma 1 to 3
    r"|<\|turn>|<turn\|>"  # Gemma 4
)
# '<|' + role + '|>' in pieces: the marks that it makes are in nobody's vocabulary, so they are plain text.
_OPEN_MARK = re.compile(r"<[|｜][^<>|｜]*$")
_ROLE_MARK = re.compile(r"<[|｜](?:system|developer|user|assistant|tool|function)[|｜]>")
# Methods and filters whose arguments are looked for in a text, not written.
_SEARCHES = frozenset({
    "split", "rsplit", "partition", "rpartition", "startswith", "endswith", "find", "rfind", "index", "count",
    "replace", "strip", "lstrip", "rstrip", "trim", "removeprefix", "removesuffix",
})  # fmt: skip
# Our own line and nobody else's: one default, its value a JSON literal (so without a line break).
_DEFAULT = re.compile(r"\{%- if (\w+) is not defined %\}\{%- set \1 = (.*) %\}\{%- endif %\}\n")


class _Generation(Extension):
    """Lets Jinja read ``{% generation %}``, transformers' mark around what the assistant writes."""

    tags = {"generation"}  # noqa: RUF012 - Jinja's own declaration

    def parse(self, parser: Parser) -> nodes.Node:
        """Take the tag's body for what it is without the tag."""
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


_ENVIRONMENT = LimitedEnvironment(
    trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
)


def each_text(template: ChatTemplate, change: Callable[[str], str]) -> ChatTemplate:
    """The template with every one of its texts changed."""
    if isinstance(template, str):
        return change(template)
    return {name: change(text) for name, text in template.items()}


def control_tokens(template: ChatTemplate) -> list[str]:
    """Control tokens that the template writes as literals, in order of first appearance.

    Those that it only compares with, or looks for in a message, do not count, nor do those that it takes from
    variables (``eos_token``). Where it puts role marks together from pieces, as zephyr does with
    ``'<|' + role + '|>'``, a literal role mark is plain text like the others: half of them as tokens would be worst.

    Raises:
        RecipeError: It is not valid Jinja.
    """
    found: dict[str, None] = {}
    for text in _texts(template):
        literals = list(_written(_parse(text)))
        pieced = any(_OPEN_MARK.search(literal) for literal in literals)
        marks = [mark for literal in literals for mark in _CONTROL.findall(literal)]
        found |= dict.fromkeys(mark for mark in marks if not (pieced and _ROLE_MARK.fullmatch(mark)))
    return list(found)


def template_variables(template: ChatTemplate) -> set[str]:
    """Names that the template reads and that no engine sets by itself.

    Raises:
        RecipeError: It is not valid Jinja.
    """
    read: set[str] = set()
    for text in _texts(template):
        try:
            read |= meta.find_undeclared_variables(_parse(text))
        except TemplateSyntaxError as error:  # an unknown filter, which only compiling finds
            raise not_jinja(error) from None
    return read - ModelSection.RESERVED_VARIABLES


def set_defaults(template: ChatTemplate, values: Mapping[str, Variable]) -> ChatTemplate:
    """Write values of the template's variables into its text, so that every engine renders the same untold.

    A request that sets a variable itself still wins. Values that were written before under the same names are
    replaced, so that doing it twice is doing it once.

    Raises:
        RecipeError: The template never reads one of the names, or is not valid Jinja.
    """
    read = template_variables(template)
    strangers = [name for name in values if name not in read]
    if strangers:
        raise RecipeError([_never_read(name, read) for name in strangers])

    def with_defaults(text: str) -> str:
        own = template_variables(text)
        before, body = split_defaults(text)
        kept = {name: literal for name, literal in _DEFAULT.findall(before) if name not in values}
        new = {name: _literal(value) for name, value in values.items() if name in own}
        return "".join(_default_line(name, literal) for name, literal in (new | kept).items()) + body

    return each_text(template, with_defaults)


def split_defaults(text: str) -> tuple[str, str]:
    """The defaults that `set_defaults` wrote in front of a template's text, and the rest."""
    end = 0
    while (line := _DEFAULT.match(text, end)) is not None:
        end = line.end()
    return text[:end], text[end:]


def not_jinja(error: TemplateSyntaxError) -> RecipeError:
    """The error of a template that Jinja cannot read."""
    return RecipeError(f"the chat template is not valid Jinja: {error.message} (line {error.lineno})")


def _default_line(name: str, literal: str) -> str:
    # A line of its own: trim_blocks drops its break, and lstrip_blocks treats what follows as the first line still.
    return f"{{%- if {name} is not defined %}}{{%- set {name} = {literal} %}}{{%- endif %}}\n"


def _literal(value: Variable) -> str:
    """A Jinja literal: JSON's are, but for null. It stays readable to engines that know only JSON's escapes."""
    return "none" if value is None else json.dumps(value, ensure_ascii=False)


def _never_read(name: str, read: Iterable[str]) -> Problem:
    names = sorted(read)
    reads = f"It reads {', '.join(names)}." if names else "It reads no variables of its own."
    match = nearest(name, names)
    return Problem(
        where=f"model.chat_template_kwargs.{name}",
        what="the chat template never reads this variable",
        fix=f"Did you mean {match!r}? {reads}" if match else reads,
    )


def _texts(template: ChatTemplate) -> list[str]:
    return [template] if isinstance(template, str) else list(template.values())


def _parse(text: str) -> nodes.Template:
    try:
        return _ENVIRONMENT.parse(text)
    except TemplateSyntaxError as error:
        raise not_jinja(error) from None


def _written(node: nodes.Node) -> Iterator[str]:
    """Literals that can reach the output, in source order."""
    if isinstance(node, nodes.TemplateData):
        yield node.data
    elif isinstance(node, nodes.Const) and isinstance(node.value, str):
        yield node.value
    elif not isinstance(node, (nodes.Compare, nodes.Test)):
        for child in node.iter_child_nodes(exclude=_unwritten_fields(node)):
            yield from _written(child)


def _unwritten_fields(node: nodes.Node) -> tuple[str, ...]:
    called = node.node if isinstance(node, nodes.Call) else None
    complains = isinstance(called, nodes.Name) and called.name == "raise_exception"
    searches = isinstance(called, nodes.Getattr) and called.attr in _SEARCHES
    searches = searches or (isinstance(node, nodes.Filter) and node.name in _SEARCHES)
    # `test`: the condition of an if, of a conditional expression, and of a for.
    return ("test", "args", "kwargs") if complains or searches else ("test",)
