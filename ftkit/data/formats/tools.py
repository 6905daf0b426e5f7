"""Tools and tool calls in OpenAI's shape, as serving engines hand them to chat templates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ftkit.data.formats.fields import (
    RowFault,
    parse_json,
    require_json,
    require_known_keys,
    require_text,
    text_field,
)

_CALL_SHAPE = 'Write {"type": "function", "function": {"name": "...", "arguments": {...}}}.'
_TOOL_SHAPE = 'Write {"type": "function", "function": {"name": "...", "description": "...", "parameters": {...}}}.'


def read_tools(value: Any, field: str = "tools") -> tuple[Mapping[str, Any], ...]:
    """A row's function schemas: a list of them, or that list as JSON text.

    A schema without OpenAI's wrapping (``{"name": ..., "parameters": ...}``) gets it, for that is how a server's
    client has to send it. Beyond that, schemas reach the template as they are.

    Raises:
        RowFault: It is no list of function schemas, or names one function twice.
    """
    if isinstance(value, str):
        value = parse_json(value, field) if value.strip() else None
    if value is None:
        return ()
    if not isinstance(value, list):
        raise RowFault(field, "is not a list of tools", _TOOL_SHAPE)
    tools = tuple(_read_tool(tool, f"{field}[{index}]") for index, tool in enumerate(value))
    names = [tool["function"]["name"] for tool in tools]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise RowFault(f"{field}[{index}]", f"{name!r} is the name of an earlier tool", "Keep one of them.")
    return tools


def _read_tool(tool: Any, place: str) -> dict[str, Any]:
    if not isinstance(tool, dict):
        raise RowFault(place, f"is a {type(tool).__name__}, not a function's schema", _TOOL_SHAPE)
    if tool.get("function") is None and "name" in tool:
        tool = {"type": "function", "function": {key: value for key, value in tool.items() if key != "type"}}
    function = tool.get("function")
    if tool.get("type") not in (None, "function"):
        raise RowFault(f"{place}.type", f"{tool['type']!r} is not 'function', the one kind of tool", _TOOL_SHAPE)
    if not isinstance(function, dict):
        raise RowFault(f"{place}.function", "is missing, or no object", _TOOL_SHAPE)
    text_field(function, "name", place=f"{place}.function.")
    if function.get("description") is not None:
        require_text(function["description"], f"{place}.function.description")
    if not isinstance(function.get("parameters", {}), dict | None):
        raise RowFault(f"{place}.function.parameters", "is not an object: a JSON schema", _TOOL_SHAPE)
    require_json(tool, place)
    return {"type": "function", **tool, "function": function} if tool.get("type") is None else tool


def read_tool_calls(value: Any, field: str) -> list[dict[str, Any]]:
    """The calls of one assistant's turn, their arguments as objects; null and an empty list are none.

    Raises:
        RowFault: A call has another shape, or its arguments are no JSON object.
    """
    if value is None:
        return []
    if not isinstance(value, list):
        raise RowFault(field, "is not a list of tool calls", _CALL_SHAPE)
    return [_read_call(call, f"{field}[{index}]") for index, call in enumerate(value)]


def _read_call(call: Any, place: str) -> dict[str, Any]:
    if not isinstance(call, dict):
        raise RowFault(place, f"is a {type(call).__name__}, not a tool call", _CALL_SHAPE)
    function = call.get("function")
    if not isinstance(function, dict):
        raise RowFault(f"{place}.function", "is missing, or no object", _CALL_SHAPE)
    require_known_keys(call, ("id", "type", "function"), place, "tool call")
    if call.get("type") not in (None, "function"):
        raise RowFault(f"{place}.type", f"{call['type']!r} is not 'function', the one kind of tool", _CALL_SHAPE)
    called: dict[str, Any] = {"type": "function", "function": read_function(function, f"{place}.function")}
    if call.get("id") is not None:
        called = {"id": require_text(call["id"], f"{place}.id"), **called}
    return called


def read_function(function: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Name and arguments of a called function; absent and empty arguments are ``{}``, as servers read them.

    Raises:
        RowFault: The name is missing, the arguments are no JSON object, or there is more.
    """
    require_known_keys(function, ("name", "arguments"), place, "called function")
    name, arguments, field = text_field(function, "name", place=f"{place}."), function.get("arguments"), "arguments"
    if isinstance(arguments, str):
        arguments = parse_json(arguments, f"{place}.{field}") if arguments.strip() else None
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, dict):
        raise RowFault(f"{place}.{field}", f"is a {type(arguments).__name__}, not an object of named arguments")
    require_json(arguments, f"{place}.{field}")
    return {"name": name, "arguments": arguments}
