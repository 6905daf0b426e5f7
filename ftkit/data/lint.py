"""What is legal in a row and yet suspicious: faults of the data, not of its format.

Nothing here stops a run. `lint` runs on every row beside the tokeniser, so each check is a cheap test that almost
every row passes at once; only what fails it is looked at closely.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from ftkit.data.private import PRIVATE_CODES, find_private
from ftkit.data.sample import Sample, Turn

ROW_CODES = {
    "empty-answer": "An answer is white space or punctuation alone: delete the row, or the model learns silence.",
    "answer-repeats-prompt": "An answer is the same text as the turn before it: a column may be mapped twice.",
    "role-order": "Turns do not alternate as a conversation does: look whether rows were cut or merged wrongly.",
    "tool-order": "A tool's result without the call that it answers, or the reverse: mend the order of turns.",
    "mojibake": "UTF-8 that was read in another encoding (Ã© for é): read the source again as UTF-8.",
    "replacement-character": "U+FFFD stands where a character was lost: read the source again in its own encoding.",
    "control-character": "Control characters or lone surrogates, which no keyboard writes: strip them.",
    "hidden-character": "Invisible characters that can hide or reorder text: strip them unless they are meant.",
}
CODES = ROW_CODES | PRIVATE_CODES


@dataclass(frozen=True, slots=True)
class Finding:
    """One suspicious thing.

    Attributes:
        code: A key of `CODES`, or of ``ftkit.data.lint_dataset.DATASET_CODES``.
        where: The row, and the turn where only one is meant.
        detail: What was found; of anything private only the beginning.
    """

    code: str
    where: str
    detail: str


_LINE_CHARACTERS = b"\t\n\r"
_NO_CONTROLS = bytes(byte for byte in range(256) if byte >= 32 and byte != 127) + _LINE_CHARACTERS
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
# Zero-width spaces, byte order marks inside a text, forced directions, and tags: a whole alphabet that nobody sees.
# Joiners and the marks of right-to-left scripts are ordinary spelling.
_HIDDEN = re.compile("[\u200b\u2060\ufeff\u202d\u202e\U000e0000-\U000e007f]")
_HIDDEN_SINGLY = "\u200b\u2060\ufeff\u202d\u202e"
_TAGGED_FLAG = re.compile("\U0001f3f4[\U000e0020-\U000e007e]+\U000e007f")  # Scotland and Wales are spelt with tags

# How bytes 0x80 to 0xFF look in Windows-1252; the five that it leaves out as in Latin-1.
_SHOWN_AS = {byte: bytes([byte]).decode("cp1252", "ignore") or chr(byte) for byte in range(0x80, 0x100)}
_BYTE_OF = {shown: byte for byte, shown in _SHOWN_AS.items()} | {chr(byte): byte for byte in range(0x80, 0x100)}
_TAIL = "[" + "".join(re.escape(_SHOWN_AS[byte]) for byte in range(0x80, 0xC0)) + "\x80-\xbf]"
_TWICE_READ = re.compile(f"(?:[Â-ß]{_TAIL}|[à-ï]{_TAIL}{{2}}|[ð-ô]{_TAIL}{{3}})+")
# A lead and the first bytes of what may follow it, in UTF-8 (C2 is of U+0080 to U+00BF, the others of €, ‚, ƒ).
_TWICE_READ_BYTES = re.compile(b"\xc3[\x82-\xb4][\xc2\xc5\xc6\xcb\xe2]")
_ENDS_A_WORD = frozenset("\xa0»«“”‘’„‚…–—•")  # may follow a capital Ã or Â: «AMANHÃ»
_C1 = re.compile("[\x80-\x9f]")


def lint(sample: Sample) -> list[Finding]:
    """All that is suspicious in a row, at most one finding a code and turn."""
    found: list[Finding] = []
    turns = sample.turns
    if sample.kind != "text":
        found += [Finding(code, f"{sample.place}: turn {index}", detail) for code, index, detail in _order(turns)]
    found += [Finding(code, f"{sample.place}: turn {index}", detail) for code, index, detail in _answers(turns)]
    texts = [turn.content for turn in turns]
    texts += [json.dumps(dict(turn.fields), ensure_ascii=False, default=str) for turn in turns if turn.fields]
    # The rejected answer alone: its prompt stands in `turns` already.
    texts += [turn.content for turn in sample.content.rejected[-1:]]
    # All turns in one text first: most rows hold nothing, and one look is cheaper than six.
    if any(_texts("\n".join(texts))):
        for index, turn in enumerate(turns):
            whole = turn.content
            if turn.fields:
                whole += "\n" + json.dumps(dict(turn.fields), ensure_ascii=False, default=str)
            found += [Finding(*each) for each in _counted(whole, f"{sample.place}: turn {index}")]
        for turn in sample.content.rejected[-1:]:
            found += [Finding(*each) for each in _counted(turn.content, f"{sample.place}: rejected answer")]
    return found


def _counted(text: str, where: str) -> Iterator[tuple[str, str, str]]:
    """One finding a code: its first detail, and how many there are."""
    details: dict[str, list[str]] = {}
    for code, detail in _texts(text):
        details.setdefault(code, []).append(detail)
    for code, shown in details.items():
        more = f" and {len(shown) - 1} more" if len(shown) > 1 else ""
        # Without lone surrogates, which no file of a report could hold.
        yield code, where, shown[0].encode("utf-8", "replace").decode() + more


def _texts(text: str) -> Iterator[tuple[str, str]]:
    data = text.encode("utf-8", "surrogatepass")
    if data.translate(None, _NO_CONTROLS) or b"\xed" in data:  # surrogates begin with ED, as some Korean does
        yield from (("control-character", f"U+{ord(match.group()):04X}") for match in _CONTROLS.finditer(text))
    if not text.isascii():
        yield from _damaged(text, data)
    yield from ((match.code, match.shown) for match in find_private(text, data))


def _damaged(text: str, data: bytes) -> Iterator[tuple[str, str]]:
    if b"\xef\xbf\xbd" in data:
        yield from (("replacement-character", "U+FFFD") for _ in range(data.count(b"\xef\xbf\xbd")))
    # One by one first, which is much faster than a pattern over such ranges.
    if any(character in text for character in _HIDDEN_SINGLY) or b"\xf3\xa0" in data:
        plain = _TAGGED_FLAG.sub("", text) if b"\xf3\xa0" in data else text
        yield from (("hidden-character", f"U+{ord(match.group()):04X}") for match in _HIDDEN.finditer(plain))
    if _TWICE_READ_BYTES.search(data):
        for match in _TWICE_READ.finditer(text):
            meant = _read_again(text, match.start(), match.group())
            if meant is not None:
                yield "mojibake", f"{match.group()[:20]} for {meant[:10]}"
    if b"\xc2" in data:
        for match in _C1.finditer(text):
            meant = bytes([ord(match.group())]).decode("cp1252", "ignore")
            if not (match.start() and "Â" <= text[match.start() - 1] <= "ô") and meant:
                yield "mojibake", f"U+{ord(match.group()):04X} for {meant}"


def _read_again(text: str, start: int, shown: str) -> str | None:
    """What a run of characters was before it was read in the wrong encoding; None where it is plausibly meant."""
    try:
        meant = bytes(_BYTE_OF[character] for character in shown).decode("utf-8")
    except UnicodeDecodeError:
        return None
    if any(unicodedata.category(character) in ("Cn", "Co", "Cs", "Cc") for character in meant):
        return None
    if len(meant) > 1:
        return meant
    if len(shown) == 2:
        # «AMANHÃ» and the like: a capital at the end of a word in capitals, then what ends words.
        return None if shown[1] in _ENDS_A_WORD and text[start - 1 : start].isupper() else meant
    # A single letter of a far script in the midst of Latin is more likely quotes and dots after a letter: café»…
    return meant if len(shown) == 4 or "\u2000" <= meant <= "\u2bff" else None


def _answers(turns: tuple[Turn, ...]) -> Iterator[tuple[str, int, str]]:
    for index, turn in enumerate(turns):
        if turn.role not in ("assistant", "text"):
            continue
        if (
            not turn.content[:32].strip().isalnum()
            and _says_nothing(turn.content)
            and not turn.fields.get("tool_calls")
        ):
            yield "empty-answer", index, f"{turn.content[:20]!r}"
        elif index and turn.content.strip() and turn.content.strip() == turns[index - 1].content.strip():
            yield "answer-repeats-prompt", index, f"{turn.content.strip()[:40]!r}"


def _says_nothing(text: str) -> bool:
    """No letter, digit or symbol (an emoji is an answer, and so is +): marks, spaces and control characters alone."""
    return all(unicodedata.category(character)[0] in "PZC" for character in text)


def _order(turns: tuple[Turn, ...]) -> Iterator[tuple[str, int, str]]:
    previous, calls = "", 0
    for index, turn in enumerate(turns):
        role = turn.role
        if role == "system" and index:
            yield "role-order", index, "a system turn that is not the first"
        if role == previous and role in ("user", "assistant") and not calls:
            yield "role-order", index, f"two turns of the {role} in a row"
        if role == "tool":
            if not calls:
                yield "tool-order", index, "a tool's result without a call"
            calls = max(0, calls - 1)
        elif calls:
            yield "tool-order", index, "a call before this turn has no result"
            calls = 0
        if role == "assistant" and turn.fields.get("tool_calls"):
            calls = len(turn.fields["tool_calls"])
        previous = role
    if previous != "assistant":
        yield "role-order", len(turns) - 1, f"the last turn is the {previous}'s, so nothing of it is learnt"
