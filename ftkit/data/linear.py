"""Chat templates that write one message after the other, told by their syntax tree.

Of most templates it can be proven without rendering anything that what they write for a message depends on nothing
that comes after it: a loop over the messages, in whose body stand only the message, its number, what is the same for
every conversation, and functions without memory. Then one rendering of a whole conversation holds the rendering of
every beginning of it. Anything that is not recognised here counts as not proven.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator

from jinja2 import nodes
from jinja2.visitor import NodeTransformer

MESSAGES, ASK = "messages", "add_generation_prompt"
# Signs in the output of a template that `with_signs` prepared. They are drawn anew in each process, so that no row
# can hold one.
_BEGINS, _OPENS, _CLOSES = (secrets.token_hex(16) for _ in range(3))
_SIGNS, _LENGTH = {_BEGINS, _OPENS, _CLOSES}, 32
# Of the loop only what is known when a message is reached: not `last`, `length`, `nextitem` or `revindex`.
_KNOWN_OF_LOOP = {"first", "index", "index0"}
# Jinja's own functions with memory or chance, and names with a meaning of their own.
_ODD_NAMES = {"cycler", "joiner", "lipsum", "namespace", "self", "super", "caller", "varargs", "kwargs"}
_FILTERS = {
    "trim", "upper", "lower", "tojson", "string", "length", "count", "default", "d", "replace", "join", "first",
    "last", "list", "int", "float", "safe", "title", "capitalize", "items", "indent",
}  # fmt: skip
_TESTS = {
    "defined", "undefined", "none", "string", "mapping", "iterable", "sequence", "number", "integer", "boolean",
    "true", "false", "in", "equalto", "eq", "==", "ne", "!=", "even", "odd", "lt", "gt", "le", "ge",
}  # fmt: skip
_PLAIN = (
    nodes.Output, nodes.TemplateData, nodes.If, nodes.Assign, nodes.Const, nodes.List, nodes.Tuple, nodes.Dict,
    nodes.Pair, nodes.Keyword, nodes.Slice, nodes.Concat, nodes.Compare, nodes.Operand, nodes.BinExpr,
    nodes.UnaryExpr, nodes.CondExpr, nodes.Getattr, nodes.Getitem, nodes.Continue,
)  # fmt: skip


def message_loop(tree: nodes.Template, marks: str) -> nodes.For | None:
    """The loop that writes the messages, if all that a template writes is proven to be linear.

    Args:
        tree: As parsed; the loop is one of its own statements.
        marks: Identifier of the extension of ``{% generation %}``.
    """
    aliases = {MESSAGES} | {
        node.target.name
        for node in tree.body
        if isinstance(node, nodes.Assign) and isinstance(node.target, nodes.Name) and _is_name(node.node, MESSAGES)
    }
    loops = [
        node
        for node in tree.body
        if isinstance(node, nodes.For) and isinstance(node.iter, nodes.Name) and node.iter.name in aliases
    ]
    if len(loops) != 1:
        return None
    (loop,) = loops
    at = tree.body.index(loop)
    plain = isinstance(loop.target, nodes.Name) and not (loop.test or loop.else_ or loop.recursive)
    reading = _Reading(aliases, marks)
    head = all(reading.fits(node) or _is_alias(node, aliases) for node in tree.body[:at])
    body = all(map(reading.fits, loop.body))
    # Behind the loop nothing may depend on the conversation, so that it is the same for every one.
    own = {name.name for name in tree.find_all(nodes.Name) if name.ctx != "load"}
    behind = _Behind(aliases | own | {"tools", "documents"}, marks)
    return loop if plain and head and body and all(map(behind.fits, tree.body[at + 1 :])) else None


def with_signs(tree: nodes.Template, loop: nodes.For) -> nodes.Template:
    """Let a linear template say where each message begins, where the last one ends, and where its marks are.

    Args:
        tree: Of the template; it is changed.
        loop: That `message_loop` found in it.
    """
    loop.body.insert(0, _sign(_BEGINS))
    tree.body.insert(tree.body.index(loop) + 1, _sign(_BEGINS))
    changed = _MarksBySigns().visit(tree)
    assert isinstance(changed, nodes.Template)
    return changed


def read_signs(pieces: Iterator[str]) -> tuple[str, list[tuple[int, int]], list[int]]:
    """The output of such a template without its signs; the marks that are not empty; where the messages begin."""
    written: list[str] = []
    marks: list[tuple[int, int]] = []
    begins: list[int] = []
    at, opened = 0, 0
    for piece in pieces:
        if len(piece) != _LENGTH or piece not in _SIGNS:
            written.append(piece)
            at += len(piece)
        elif piece == _BEGINS:
            begins.append(at)
        elif piece == _OPENS:
            opened = at
        elif at > opened:
            marks.append((opened, at))
    return "".join(written), marks, begins


class _MarksBySigns(NodeTransformer):
    """``{% generation %}`` as signs around its body, which stays a scope of its own."""

    def visit_CallBlock(self, node: nodes.CallBlock) -> nodes.Node:  # noqa: N802 - as Jinja calls it
        """A linear template has no other call blocks."""
        return nodes.Scope([_sign(_OPENS), *node.body, _sign(_CLOSES)])


def _sign(sign: str) -> nodes.Output:
    return nodes.Output([nodes.TemplateData(sign)])


class _Reading:
    """What may stand before the loop and in it: what depends on the conversation only up to where it stands.

    Args:
        conversation: Names of the messages.
        marks: See `message_loop`.
    """

    def __init__(self, conversation: set[str], marks: str) -> None:
        self._conversation, self._marks = conversation, marks

    def fits(self, node: nodes.Node) -> bool:
        """Whether a part may stand there."""
        match node:
            case nodes.Name():
                return self.may_name(node.name)
            case nodes.Getattr(node=nodes.Name(name="loop")):
                return node.attr in _KNOWN_OF_LOOP
            case nodes.Getitem(node=nodes.Name(name=name), arg=nodes.Const(value=0)):
                return self.may_take_first(name)
            case nodes.Filter() | nodes.Test():
                known = _FILTERS if isinstance(node, nodes.Filter) else _TESTS
                return node.name in known and self._children(node)
            case nodes.Call():
                # A method of a value, which the sandbox keeps from being changed, or one of a template's functions.
                named = isinstance(node.node, nodes.Name) and node.node.name in ("raise_exception", "strftime_now")
                return (named or isinstance(node.node, nodes.Getattr)) and self._children(node)
            case nodes.CallBlock(call=nodes.Call(node=nodes.ExtensionAttribute(identifier=self._marks))):
                nested = any(True for part in node.body for _ in part.find_all(nodes.CallBlock))
                return not (node.args or node.defaults or nested) and all(map(self.fits, node.body))
            case nodes.For():
                return not node.recursive and self._children(node)
            case _:
                return isinstance(node, _PLAIN) and self._children(node)

    def may_name(self, name: str) -> bool:
        """Whether a name may be read or given."""
        return name not in self._conversation and name not in ("loop", ASK) and name not in _ODD_NAMES

    def may_take_first(self, name: str) -> bool:
        """Whether the first of a list may be read: of the messages, that one stands in every beginning."""
        return name in self._conversation or self.may_name(name)

    def _children(self, node: nodes.Node) -> bool:
        return all(map(self.fits, node.iter_child_nodes()))


class _Behind(_Reading):
    """What may stand behind the loop: what asks for an answer, and depends on no conversation."""

    def may_name(self, name: str) -> bool:
        """See `_Reading`."""
        return name == ASK or super().may_name(name)

    def may_take_first(self, name: str) -> bool:
        """See `_Reading`."""
        return self.may_name(name)


def _is_alias(node: nodes.Node, aliases: set[str]) -> bool:
    return (
        isinstance(node, nodes.Assign)
        and isinstance(node.target, nodes.Name)
        and node.target.name in aliases - {MESSAGES}
        and _is_name(node.node, MESSAGES)
    )


def _is_name(node: nodes.Node, name: str) -> bool:
    return isinstance(node, nodes.Name) and node.name == name
