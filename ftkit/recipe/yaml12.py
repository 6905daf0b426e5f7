"""Strict YAML 1.2 with the line of every value kept, so that an error can point at it."""

from __future__ import annotations

from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import CollectionEndEvent, CollectionStartEvent
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from ftkit.errors import Problem, RecipeError

MAX_BYTES = 1 << 20
MAX_VALUES = 50_000  # a kilobyte of aliases to aliases unfolds to more values than memory holds
MAX_DEPTH = 100
MAX_INT_BITS = 64
KeyPath = tuple[str | int, ...]


_NAME_ONE = "Name a recipe file; `ftkit recipes` lists those that ship with ftkit."


@dataclass
class Document:
    """A parsed file: plain values, and the line on which each stands (counted from 1)."""

    values: Any
    lines: dict[KeyPath, int] = field(default_factory=dict)


def read_yaml(path: Path) -> Document:
    """Read a recipe file.

    Raises:
        RecipeError: It is missing, too large, not UTF-8, not YAML, repeats a key, refers to itself, or is not a
            mapping.
    """
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):  # a pipe is waited for, a device has no end
            raise RecipeError(f"{path}: is not a file", fix=_NAME_ONE)
        with path.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # a ValueError: of a zero byte in its name
        what = error.strerror if isinstance(error, OSError) else error
        raise RecipeError(f"{path}: {what}", fix=_NAME_ONE) from None
    if len(raw) > MAX_BYTES:
        raise RecipeError(f"{path}: is larger than {MAX_BYTES} bytes, so it is hardly a recipe")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise RecipeError(f"{path}:{line}: is not UTF-8 text") from None
    document = parse_yaml(text, str(path))
    if document.values is None:
        document.values = {}
    if not isinstance(document.values, dict):
        raise RecipeError(f"{path}: is not a mapping of keys to values", fix="Begin with `recipe: lora`.")
    return document


def parse_yaml(text: str, name: str) -> Document:
    """Parse one YAML document; ``name`` stands before the line in errors."""
    parser = YAML(typ="safe", pure=True)
    try:
        _require_modest(text, name)
        node = parser.compose(StringIO(text))
        if node is None:
            return Document(values=None)
        lines: dict[KeyPath, int] = {}
        return Document(values=_plain(node, (), lines, parser, name, open_nodes=()), lines=lines)
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise RecipeError(
            Problem(where=f"{name}:{line}", what=f"not YAML: {error.problem or error.context}")
        ) from None
    except RecursionError:
        raise RecipeError(Problem(where=name, what="is nested too deeply to be a recipe")) from None
    except (YAMLError, ValueError) as error:
        raise RecipeError(Problem(where=name, what=f"not YAML: {error}")) from None


def _require_modest(text: str, name: str) -> None:
    """Refuse what the parser would take minutes for, by its events, which come before anything is built of them."""
    depth = 0
    for count, event in enumerate(YAML(typ="safe", pure=True).parse(StringIO(text))):
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise RecipeError(Problem(where=name, what="is nested too deeply to be a recipe"))
        if count > 2 * MAX_VALUES:
            where = f"{name}:{event.start_mark.line + 1}"
            raise RecipeError(Problem(where=where, what=f"more than {MAX_VALUES} values, so hardly a recipe"))


def _plain(
    node: Node, path: KeyPath, lines: dict[KeyPath, int], parser: YAML, name: str, *, open_nodes: tuple[int, ...]
) -> Any:
    line = node.start_mark.line + 1
    lines[path] = line
    if id(node) in open_nodes:
        raise RecipeError(Problem(where=f"{name}:{line}", what="an anchor that contains itself"))
    if len(lines) > MAX_VALUES:
        raise RecipeError(Problem(where=f"{name}:{line}", what=f"more than {MAX_VALUES} values, so hardly a recipe"))
    inner = (*open_nodes, id(node))
    if isinstance(node, ScalarNode):
        # YAML 1.2 has no dates; the parser's are a leftover of 1.1.
        value = node.value if str(node.tag).endswith(":timestamp") else parser.constructor.construct_object(node)
        if isinstance(value, int) and value.bit_length() > MAX_INT_BITS:
            raise RecipeError(Problem(where=f"{name}:{line}", what=f"a number of more than {MAX_INT_BITS} bits"))
        return value
    if isinstance(node, SequenceNode):
        return [
            _plain(item, (*path, index), lines, parser, name, open_nodes=inner)
            for index, item in enumerate(node.value)
        ]
    if not isinstance(node, MappingNode):
        raise RecipeError(Problem(where=f"{name}:{line}", what="a kind of value that recipes do not use"))
    values: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = parser.constructor.construct_object(key_node) if isinstance(key_node, ScalarNode) else None
        key_line = key_node.start_mark.line + 1
        if not isinstance(key, str):
            raise RecipeError(Problem(where=f"{name}:{key_line}", what="keys must be words"))
        if key in values:
            raise RecipeError(
                Problem(where=f"{name}:{key_line}", what=f"the key {key!r} stands twice", fix="Delete one of them.")
            )
        values[key] = _plain(value_node, (*path, key), lines, parser, name, open_nodes=inner)
        lines[(*path, key)] = key_line
    return values


def parse_value(text: str) -> Any:
    """The value of an override, read as YAML: ``1e-4`` is a number, ``[adapter]`` a list."""
    return parse_yaml(text, "override").values


def to_yaml(values: dict[str, Any]) -> str:
    """Write plain values as YAML that reads back the same."""
    writer = YAML()
    writer.default_flow_style = False
    writer.width = 120
    stream = StringIO()
    writer.dump(values, stream)
    return stream.getvalue()
