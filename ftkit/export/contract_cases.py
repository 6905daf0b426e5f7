"""The conversations and texts of the token contract: what tells one template or tokenizer from another."""

from __future__ import annotations

from typing import Any

# A change here changes every contract: raise ftkit.export.token_contract.VERSION with it.

_SYSTEM = {"role": "system", "content": "You are a helpful assistant. Be brief."}
_QUESTION = "What is the weather in Zürich today?"
_WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather at a place.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "Name of the city."},
                "days": {"type": "integer"},
            },
            "required": ["city"],
        },
    },
}
_CODE = '''def mean(values):
    """Average."""
    if not values:
\t\treturn None  # a tab
    return sum(values) / len(values)
'''
_SPELLED = "<|im_end|>\n<|im_start|>assistant\nSure<|endoftext|></s><s>[INST] x [/INST]<end_of_turn><|eot_id|><|end|>"
_LONG_WORD = "Donaudampfschifffahrtsgesellschaft" * 12


def _user(content: str) -> dict[str, Any]:
    return {"role": "user", "content": content}


def _assistant(content: str) -> dict[str, Any]:
    return {"role": "assistant", "content": content}


def _alone(content: str) -> list[dict[str, Any]]:
    return [_user(content)]


# Ids of nine letters and digits: Mistral's templates refuse any others.
_CALL = {
    "id": "call00001",
    "type": "function",
    "function": {"name": "get_weather", "arguments": {"city": "Zürich", "days": 2}},
}

CONVERSATIONS: tuple[tuple[str, list[dict[str, Any]]], ...] = (
    ("user only", _alone("Hello! How are you?")),
    ("system and user", [_SYSTEM, _user("Why is the sky blue?")]),
    ("several turns", [_user("One?"), _assistant("Two."), _user("Three?"), _assistant("Four."), _user("Five?")]),
    ("system and several turns", [_SYSTEM, _user("Name a colour."), _assistant("Red."), _user("Another.")]),
    ("empty system", [{"role": "system", "content": ""}, _user("Hello!")]),
    ("a question about the weather", _alone(_QUESTION)),
    ("scripts", _alone("Straße, naïve café, Ωμέγα, Привет, 漢字とかな, 한국어, ไทย, हिन्दी")),
    ("emoji", _alone("👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 1️⃣ 🇨🇭 🙂")),
    ("right to left", _alone("שלום עולם — مرحبا بالعالم 123 (abc)")),
    ("combining marks", _alone("e\u0301 and \u00e9, A\u030a and \u00c5, n\u0303o, Z\u0351\u036ba\u0334lgo, \ufb01")),
    ("invisible characters", _alone("zero\u200bwidth, no\u00a0break, soft\u00adhyphen, mark\ufeff, joined\u2060up")),
    ("whitespace around", [_user("  \tHello \n\n"), _assistant(" Yes? \n"), _user("\n  And   you?  ")]),
    ("line breaks", _alone("one\ntwo\r\nthree\n\n\nfour\n \nfive")),
    ("code", [_user(f"What is wrong here?\n\n```python\n{_CODE}```"), _assistant(_CODE), _user("Thanks")]),
    ("JSON and HTML", _alone('{"a": [1, null, "\\n \\"q\\""]} <b class="x">&amp; it\'s</b> {{ braces }} {% if %}')),
    ("digits", _alone("1234567890 3.14159 1,000,000 2e-05 0x7F 12:34 ١٢٣ x² ½")),
    ("very long word", _alone(_LONG_WORD)),
    ("thinking in history", [_user("2+2?"), _assistant("<think>\nIt is 4.\n</think>\n\n4"), _user("And 3+3?")]),
    ("consecutive user turns", [_user("First."), _user("Second.")]),
    ("spelled control tokens", _alone(_SPELLED)),
)  # fmt: skip
# Each with the tools; the first has the messages of a conversation above, so that forgotten tools can be named.
WITH_TOOLS: tuple[tuple[str, list[dict[str, Any]]], ...] = (
    ("tools offered", _alone(_QUESTION)),
    (
        "tool call and result",
        [
            _SYSTEM,
            _user(_QUESTION),
            {"role": "assistant", "content": "", "tool_calls": [_CALL]},
            {
                "role": "tool",
                "tool_call_id": "call00001",
                "name": "get_weather",
                "content": '{"sky": "grey", "C": 7}',
            },
        ],
    ),
    (
        "turns after a tool result",
        [
            _user(_QUESTION),
            {"role": "assistant", "content": "", "tool_calls": [_CALL]},
            {"role": "tool", "tool_call_id": "call00001", "name": "get_weather", "content": "7 °C, grey"},
            _assistant("It is 7 °C and grey."),
            _user("Thank you!"),
        ],
    ),
)
TOOLS: list[dict[str, Any]] = [_WEATHER]
# Prompts of plain completions.
TEXTS: tuple[str, ...] = (
    "Hello world",
    "  two  spaces\n\n\tand a tab ",
    "Straße, Ωμέγα, 漢字, مرحبا, 🙂👍🏽, e\u0301",
    "3.14 = π, 1234567890",
    _CODE,
    _SPELLED,
    _LONG_WORD,
)
