"""Secrets and personal data in a text: keys, tokens, passwords, addresses, telephone and account numbers.

`find_private` runs on every row, and nearly every row holds nothing. So nothing is searched with a pattern before a
plain substring search, which is far cheaper, found what every match must contain. What is found is never repeated
whole: a report that lists passwords would be one more place to steal them from.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

PRIVATE_CODES = {
    "secret": "Holds what looks like a key, token or password: take it out and revoke it, a model can recite it.",
    "e-mail": "Holds an e-mail address: replace it where it belongs to a person who did not agree to it.",
    "phone": "Holds a telephone number: replace it where it belongs to a person who did not agree to it.",
    "bank-account": "Holds an IBAN whose check digits are right: replace it with an invented one.",
    "card-number": "Holds a payment card number whose check digit is right: replace it with an invented one.",
}


@dataclass(frozen=True, slots=True)
class Match:
    """Something private: its code, and what it is with all but its beginning masked."""

    code: str
    shown: str


@dataclass(frozen=True, kw_only=True)
class _Key:
    """A kind of credential: a literal that each one contains, and its pattern, which begins with a literal."""

    name: str
    needle: str
    pattern: re.Pattern[str]
    shown: int = 5  # characters that are shown of it


def _key(name: str, needle: str, pattern: str, shown: int = 5) -> _Key:
    return _Key(name=name, needle=needle, pattern=re.compile(pattern), shown=shown)


# Every repetition is bounded, and no two of its parts can match the same character: hostile rows cost no more time.
_KEYS = (
    _key("AWS access key", "AKIA", r"AKIA[0-9A-Z]{16}(?![0-9A-Za-z])"),
    _key("AWS access key", "ASIA", r"ASIA[0-9A-Z]{16}(?![0-9A-Za-z])"),
    _key("Slack token", "xox", r"xox[abeoprs]-[0-9A-Za-z-]{10,250}"),
    _key("API key", "sk-", r"sk-[0-9A-Za-z_-]{20,250}"),
    _key("Google API key", "AIza", r"AIza[0-9A-Za-z_-]{35}"),
    _key("private key", "PRIVATE KEY-----", r"-----BEGIN (?:[A-Z0-9]{1,16} ){0,3}PRIVATE KEY-----", shown=0),
    _key(
        "JSON web token",
        "eyJ",
        r"(?<![0-9A-Za-z_-])eyJ[0-9A-Za-z_-]{8,2000}\.eyJ[0-9A-Za-z_-]{8,8000}\.[0-9A-Za-z_-]{8}",
    ),
    _key("GitLab token", "glpat-", r"glpat-[0-9A-Za-z_-]{20,250}", shown=6),
)
# Those with an underscore stand behind one search for it: most prose has none.
_UNDERSCORED = (
    _key("GitHub token", "gh", r"gh[oprsu]_[0-9A-Za-z]{36,250}"),
    _key("GitHub token", "github_pat_", r"github_pat_[0-9A-Za-z_]{22,250}", shown=11),
    _key("Stripe key", "k_live_", r"[rs]k_live_[0-9A-Za-z]{16,250}", shown=8),
    _key("Hugging Face token", "hf_", r"hf_[0-9A-Za-z]{34,250}"),
)

_ASSIGNED_WORDS = (b"passw", b"pwd", b"secret", b"token", b"api_key", b"apikey", b"api-key", b"access_key")
_ASSIGNED_BEGINNINGS = (b"passw", b"pwd", b"secret", b"token", b"api_key", b"apikey", b"api-key", b"access")
_ASSIGNED = re.compile(
    r"(?i)(password|passwd|pwd|secret|token|api[_-]?key|access[_-]?key)[\"']?\s{0,3}(?::=|[:=])\s{0,3}[\"']?"
    r"([^\s\"'`,;<>(){}\[\]]{8,200}+)(?![(\[{])"
)
_URL_PASSWORD = re.compile(r"://[^\s:/@?#]{1,64}:([^\s:/@?#]{3,64})@")
_PLACEHOLDERS = re.compile(
    r"(?i)x{4}|\*{3}|\.{3}|…|^[$%]|^your|example|placeholder|change_?me|redacted|dummy|environ|^pass(?:word|wd)?$|^pwd$"
)

_BEFORE_AT = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._%+-"
_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,62}(?:\.[A-Za-z0-9][A-Za-z0-9-]{0,62}){1,8}")
# RFC 2606: names that belong to nobody.
_NOBODY = re.compile(r"(?i)(?:^|\.)(?:example\.(?:com|net|org|edu)|example|test|invalid|localhost)$")
_FILE_ENDINGS = frozenset({"png", "jpg", "jpeg", "gif", "svg", "webp", "js", "css", "py", "json"})  # icon@2x.png

# These begin with a set of characters, which `re` skips to; what may not stand before them is asked afterwards.
_PHONE_INTERNATIONAL = re.compile(r"\+[1-9](?:[ ()./-]{0,2}\d){7,14}(?![\w]|[.,/-]\d)")
_PHONE_AMERICAN = re.compile(r"[(2-9]\d{2,3}(?:(\)) ?|([-.]))[2-9]\d\d(?(2)\2|[-. ])\d{4}(?![\w]|[-.,/]\d)")
_NOT_BEFORE = frozenset("$€£.+#-_")
_FICTION = re.compile(r"555\D?01\d\d$")  # set aside for films and novels

_IBAN_START = re.compile(r"[A-Z]{2}\d\d(?= ?[A-Z0-9])")
_IBAN_LENGTHS = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BR": 29, "CH": 21,
    "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DK": 18, "DO": 28, "EE": 20, "EG": 29, "ES": 24, "FI": 18, "FO": 18,
    "FR": 27, "GB": 22, "GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28, "HR": 21, "HU": 28, "IE": 22, "IL": 23,
    "IS": 26, "IT": 27, "JO": 30, "KW": 30, "KZ": 20, "LB": 28, "LI": 21, "LT": 20, "LU": 20, "LV": 21, "MC": 27,
    "MD": 24, "ME": 22, "MK": 19, "MT": 31, "NL": 18, "NO": 15, "PK": 24, "PL": 28, "PS": 29, "PT": 25, "QA": 29,
    "RO": 24, "RS": 22, "SA": 24, "SE": 24, "SI": 19, "SK": 24, "SM": 27, "TN": 24, "TR": 26, "UA": 29, "XK": 20,
}  # fmt: skip
_CARD = re.compile(r"[2-6]\d{3}(?:([ -])\d{4,6}\1\d{4,5}(?:\1\d{3,4})?|\d{9,15})(?![\w]|[.-]\d)")
_CARD_ISSUERS = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}|3[47]\d{13}"
    r"|6(?:011|4[4-9]\d|5\d\d)\d{12}|3(?:0[0-5]|[68]\d)\d{11}|35(?:2[89]|[3-8]\d)\d{12}"
)
# Digits become 0 and what may stand between them is left out: a run of zeros is a number worth a closer look.
_TO_ZERO = bytes(ord("0") if 48 <= byte <= 57 else byte for byte in range(256))
_BETWEEN = b" -./()"
_NO_DIGITS = bytes(byte for byte in range(256) if not 48 <= byte <= 57)
_PHONE_DIGITS = b"0" * 7
# Hyphens and spaces that typography puts into numbers; one character for one, so that positions stay.
_TYPOGRAPHY = (("\u2011", "-"), ("\u2010", "-"), ("\u2013", "-"), ("\xa0", " "), ("\u202f", " "))


def find_private(text: str, data: bytes) -> list[Match]:
    """Secrets and personal data of a text, in order of kind.

    Args:
        text: Any text.
        data: The same as UTF-8, which the caller has at hand.
    """
    found: list[Match] = []
    for key in _KEYS:
        if key.needle in text:
            found += _keys(key, text)
    if "_" in text:
        for key in _UNDERSCORED:
            if key.needle in text:
                found += _keys(key, text)
    if ":" in text or "=" in text:
        lowered = data.lower()  # of bytes: only ASCII, and so ten times as fast
        if any(word in lowered for word in _ASSIGNED_WORDS):
            found += _assigned(text, lowered)
    if "@" in text:
        found += _url_passwords(text)
        found += _addresses(text)
    digits = data.translate(_TO_ZERO, _BETWEEN)
    # Where other signs than ASCII's stand between the digits, their number alone decides.
    enough = _PHONE_DIGITS in digits or (not text.isascii() and len(data.translate(None, _NO_DIGITS)) >= 7)
    if enough:
        found += _numbers(text)
    return found


def mask(text: str, shown: int) -> str:
    """The first characters and an ellipsis; never more than a third of it."""
    return text[: min(shown, len(text) // 3)] + "…"


def entropy(text: str) -> float:
    """Shannon's entropy of its characters, in bits a character."""
    counts = Counter(text).values()
    return -sum(count / len(text) * math.log2(count / len(text)) for count in counts)


def _keys(key: _Key, text: str) -> Iterator[Match]:
    for match in key.pattern.finditer(text):
        value, before = match.group(), text[match.start() - 1 : match.start()]
        # The vendors' own documentation ends its invented keys in EXAMPLE.
        if before.isalnum() or before == "_" or value.endswith("EXAMPLE"):
            continue
        if key.name != "API key" or _looks_random(value):
            yield Match("secret", f"{key.name} {mask(value, key.shown)}")


def _looks_random(value: str) -> bool:
    """Whether it has a long part of letters and digits; "sk-" also begins names of files and parts of addresses."""
    return any(
        len(part) >= 16 and any(map(str.isdigit, part)) and any(map(str.isalpha, part)) and entropy(part) >= 3
        for part in re.split("[_-]", value)
    )


def _assigned(text: str, lowered: bytes) -> Iterator[Match]:
    for match in _assignments(text, lowered):
        value = match.group(2).rstrip(".:!?")
        if len(value) >= 8 and not _PLACEHOLDERS.search(value) and _is_password(value):
            yield Match("secret", f"{match.group(1).lower()} {mask(value, 2)}")


def _assignments(text: str, lowered: bytes) -> Iterator[re.Match[str]]:
    """What `_ASSIGNED` finds in a text: its words are looked for first, which takes a seventh of the time."""
    if len(lowered) != len(text):  # other letters than ASCII: places in bytes are not places in the text
        yield from _ASSIGNED.finditer(text)
        return
    end = 0
    for start in sorted({place for word in _ASSIGNED_BEGINNINGS for place in _places(lowered, word)}):
        if start >= end and (match := _ASSIGNED.match(text, start)):
            end = match.end()
            yield match


def _places(data: bytes, word: bytes) -> Iterator[int]:
    at = data.find(word)
    while at >= 0:
        yield at
        at = data.find(word, at + 1)


def _is_password(value: str) -> bool:
    """Digits among letters; with capitals or signs as well, less disorder is enough."""
    if not any(map(str.isdigit, value)) or not any(map(str.isalpha, value)) or "://" in value:
        return False
    signs = any(not character.isalnum() and character not in "-_./" for character in value)
    kinds = signs + any(map(str.islower, value)) + any(map(str.isupper, value))
    return entropy(value) >= (2.5 if kinds >= 2 else 3.2)


def _url_passwords(text: str) -> Iterator[Match]:
    for match in _URL_PASSWORD.finditer(text):
        if not _PLACEHOLDERS.search(match.group(1)):
            yield Match("secret", f"password in a URL {mask(match.group(1), 2)}")


def _addresses(text: str) -> Iterator[Match]:
    at = text.find("@")
    while at >= 0:
        before = text[max(0, at - 64) : at]
        name = before[len(before.rstrip(_BEFORE_AT)) :].lstrip(".%+-")
        found = _HOST.match(text, at + 1) if name else None
        host = found.group() if found else ""
        last = host.rpartition(".")[2].lower()
        in_url = "://" in before.rpartition(" ")[2] or name == "git"  # https://me@host/, git@host:repository
        if last.isalpha() and len(last) > 1 and last not in _FILE_ENDINGS and not _NOBODY.search(host) and not in_url:
            yield Match("e-mail", f"{mask(name, 2)}@{host}")
        at = text.find("@", at + 1)


def _numbers(text: str) -> Iterator[Match]:
    if not text.isascii():
        for typographic, plain in _TYPOGRAPHY:
            text = text.replace(typographic, plain)
    taken: list[tuple[int, int]] = []
    for code, find in (("bank-account", _ibans), ("card-number", _cards)):
        for start, end in find(text):
            taken.append((start, end))
            yield Match(code, mask(text[start:end], 4))
    for start, end in _phones(text):
        if not any(start < last and end > first for first, last in taken):
            yield Match("phone", mask(text[start:end], 4))


def _phones(text: str) -> Iterator[tuple[int, int]]:
    for match in _PHONE_AMERICAN.finditer(text):
        start, end = match.span()
        bracketed = match.group(1) is not None
        area = text[start + bracketed : start + bracketed + 3]
        if text[start - 2 : start] in ("1-", "1.", "1 "):
            start -= 2
        right_area = bracketed == (text[match.start()] == "(") and area[0] in "23456789" and area[1:] != "11"
        right_size = match.start(1) == match.start() + 4 if bracketed else match.start(2) == match.start() + 3
        if right_area and right_size and _begins(text, start) and not _FICTION.search(match.group()):
            yield start, end
    for match in _PHONE_INTERNATIONAL.finditer(text):
        digits = "".join(filter(str.isdigit, match.group()))
        american = re.fullmatch(r"1[2-9]\d\d[2-9]\d{6}", digits) is not None and not _FICTION.search(match.group())
        if (american or digits[0] != "1") and _begins(text, match.start()):
            yield match.span()


def _begins(text: str, start: int) -> bool:
    """Whether a number begins there, and not the rest of a longer one, a price or an expression."""
    before = text[start - 1] if start else " "
    return not before.isalnum() and before not in _NOT_BEFORE


def _ibans(text: str) -> Iterator[tuple[int, int]]:
    for match in _IBAN_START.finditer(text):
        length = _IBAN_LENGTHS.get(match.group()[:2], 0)
        number, end = "", match.start()
        while len(number) < length and end < len(text) and (text[end] == " " or text[end].isalnum()):
            number += text[end].strip()
            end += 1
        whole = _begins(text, match.start()) and not text[end : end + 1].isalnum()
        if length and whole and valid_iban(number):
            yield match.start(), end


def _cards(text: str) -> Iterator[tuple[int, int]]:
    for match in _CARD.finditer(text):
        if _begins(text, match.start()) and valid_card(re.sub("[ -]", "", match.group())):
            yield match.span()


def valid_iban(number: str) -> bool:
    """Right length for its country, and check digits by ISO 7064 (mod 97)."""
    if _IBAN_LENGTHS.get(number[:2]) != len(number) or not re.fullmatch("[A-Z0-9]+", number):
        return False
    return int("".join(str(int(character, 36)) for character in number[4:] + number[:4])) % 97 == 1


def valid_card(number: str) -> bool:
    """An issuer's prefix and length, and Luhn's check digit (ISO/IEC 7812-1)."""
    if not _CARD_ISSUERS.fullmatch(number):
        return False
    doubled = [sum(divmod(2 * int(digit), 10)) for digit in number[-2::-2]]
    return (sum(doubled) + sum(int(digit) for digit in number[-1::-2])) % 10 == 0
