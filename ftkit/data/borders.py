"""Where words begin in many texts at once: the expressions of `ftkit.data.words` as operations on whole arrays.

A regular expression makes an object of each of some hundred words a row, and looks each up. Here a block of rows is
one array of bytes, and what decides where a word begins is asked of all its bytes together: what kind of character
each is, and of what kind its neighbours are.

Texts stand between separators, at which every rule begins anew. A stretch between spaces that is not ASCII stays
whole; see `ftkit.data.words` for why it may be cut off there.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import numpy as np
import pyarrow

SEPARATOR = b"\xff"  # no UTF-8 holds it

# Kinds of characters, in an order by which white space is what is not less than _BREAK, and all that is white space
# but no line break what is not less than _BLANK.
_BORDER, _LETTER, _DIGIT, _OTHER, _BREAK, _BLANK, _SPACE = range(7)
_APOSTROPHE = ord("'")
_LOWER = 0x20  # the bit by which small letters differ from capitals


def _kind(byte: int) -> int:
    character = chr(byte)
    if byte >= 0x80:
        return _BORDER if byte == SEPARATOR[0] else _OTHER
    if character in "\r\n":
        return _BREAK
    if character in "\t\v\f ":
        return _SPACE if character == " " else _BLANK
    return _LETTER if character.isalpha() else _DIGIT if character.isdigit() else _OTHER


_KINDS = bytes(map(_kind, range(256)))


def cut_into_words(data: bytes, starts: Callable[[bytes], np.ndarray]) -> tuple[list[str], np.ndarray]:
    """The distinct words of many texts, and which of them stands where.

    Args:
        data: The texts in UTF-8, a separator before, between and behind them.
        starts: One of `STARTS`.

    Returns:
        The distinct words, and for each word of the data, in order, its index among them. A separator is a word too,
        and thus the first one.
    """
    begins = starts(data)
    if not data.translate(None, SEPARATOR).isascii():
        _keep_whole(np.frombuffer(data, np.uint8), begins)
    offsets = np.append(np.flatnonzero(begins), len(data)).astype(np.int32)
    buffers = [None, pyarrow.py_buffer(offsets), pyarrow.py_buffer(data)]
    encoded = pyarrow.Array.from_buffers(pyarrow.binary(), len(offsets) - 1, buffers).dictionary_encode()
    # Not to_pylist, which imports pandas where that is installed: half a second and 30 MB a process.
    _, ends, letters = encoded.dictionary.buffers()
    places = np.frombuffer(ends, np.int32, len(encoded.dictionary) + 1).tolist()
    text = letters.to_pybytes().decode("latin-1")
    words = [text[begin:end] for begin, end in pairwise(places)]
    others = (index for index, word in enumerate(words) if index and not word.isascii())
    for index in others:
        words[index] = words[index].encode("latin-1").decode()
    return words, encoded.indices.to_numpy()


def _starts_gpt2(data: bytes, *, digits_apart: bool) -> np.ndarray:
    """Runs of letters, digits and others, each with the space before it; of white space, all but that space."""
    fine = np.frombuffer(data.translate(_KINDS), np.uint8)
    kinds = np.minimum(fine, _BREAK)
    visible = (kinds > _BORDER) & (kinds < _BREAK)
    starts: np.ndarray = _changes(kinds) & ~_before(fine == _SPACE)
    if digits_apart:
        # Each is cut off before anything else is looked at, so that white space before it is at the end of a text.
        starts |= kinds == _DIGIT
        visible &= kinds != _DIGIT
    starts |= (kinds == _BREAK) & _after(visible)
    starts |= kinds == _BORDER
    _mark_short_forms(data, kinds, starts, fold=0)
    return starts


def _starts_caseless(data: bytes, *, most_digits: int) -> np.ndarray:
    """Letters with the one character before them; digits in groups; others with the space before and the line breaks
    behind; white space up to its last line break, and from there on."""
    fine = np.frombuffer(data.translate(_KINDS), np.uint8)
    kinds = np.minimum(fine, _BLANK)
    letter, digit, other = kinds == _LETTER, kinds == _DIGIT, kinds == _OTHER
    broken, blank = kinds == _BREAK, kinds == _BLANK
    changes = _changes(kinds)
    alone = other & changes & ~_before(fine == _SPACE)
    starts: np.ndarray = alone | (kinds == _BORDER)
    starts |= letter & changes & ~_before(blank | alone)
    starts |= digit & (changes if most_digits > 1 else digit)
    starts |= broken & changes & ~_before(blank | other)
    starts |= blank & ((changes & ~_before(broken)) | _after(letter | digit | other))
    _mark_after_breaks(kinds, changes, starts)
    if most_digits > 1:
        places = np.flatnonzero(digit)
        starts[places] = (places - _latest(digit & changes, places)) % most_digits == 0
    _mark_short_forms(data, kinds, starts, fold=_LOWER)
    return starts


def _mark_after_breaks(kinds: np.ndarray, changes: np.ndarray, starts: np.ndarray) -> None:
    """Blanks behind line breaks begin a word where no more breaks follow, and where these breaks end a word that
    began with visible characters."""
    blank, broken = kinds == _BLANK, kinds == _BREAK
    places = np.flatnonzero(blank & changes & _before(broken))
    ends = np.flatnonzero(blank & _after(~blank))
    last = kinds[ends[np.searchsorted(ends, places)] + 1] != _BREAK
    closing = kinds[_latest(broken & changes, places) - 1] == _OTHER
    starts[places[last | closing]] = True


def _mark_short_forms(data: bytes, kinds: np.ndarray, starts: np.ndarray, *, fold: int) -> None:
    """'s, 't, 'm, 'd, 're, 've, 'll: words where a word begins with the apostrophe, whatever letters follow."""
    raw = np.frombuffer(data, np.uint8)
    places = np.flatnonzero(raw == _APOSTROPHE)
    places = places[starts[places] & (kinds[places + 1] == _LETTER)]
    first, second = (raw[places + 1] | fold), (raw[places + 2] | fold)
    long = ((first == ord("r")) | (first == ord("v"))) & (second == ord("e"))
    long |= (first == ord("l")) & (second == ord("l"))
    short = np.isin(first, np.frombuffer(b"stmd", np.uint8))
    starts[places[short | long] + 1] = False
    starts[places[short] + 2] = True
    starts[places[long] + 3] = True


def _keep_whole(raw: np.ndarray, starts: np.ndarray) -> None:
    """Make one word of each stretch that is not ASCII."""
    visible = (raw > ord(" ")) & (raw < 0x7F)
    separator = raw == SEPARATOR[0]
    borders = np.flatnonzero(((raw == ord(" ")) & _before(visible) & _after(visible)) | separator)
    foreign = np.unique(np.searchsorted(borders, np.flatnonzero((raw >= 0x80) & ~separator)))
    begins = borders[foreign - 1] + separator[borders[foreign - 1]]
    for begin, end in zip(begins.tolist(), borders[foreign].tolist(), strict=True):
        starts[begin:end] = False
    starts[begins] = True


def _before(mask: np.ndarray) -> np.ndarray:
    """For each byte, whether it is so of the one before."""
    return np.concatenate((mask[:1] & False, mask[:-1]))


def _after(mask: np.ndarray) -> np.ndarray:
    """For each byte, whether it is so of the one behind."""
    return np.concatenate((mask[1:], mask[:1] & False))


def _changes(kinds: np.ndarray) -> np.ndarray:
    """For each byte, whether the one before is of another kind."""
    return np.concatenate((kinds[:1] == kinds[:1], kinds[1:] != kinds[:-1]))


def _latest(mask: np.ndarray, places: np.ndarray) -> np.ndarray:
    """For each place, the last one up to it where something is so."""
    where = np.flatnonzero(mask)
    return where[np.searchsorted(where, places, "right") - 1]


gpt2 = partial(_starts_gpt2, digits_apart=False)
digits_first = partial(_starts_gpt2, digits_apart=True)
llama3 = partial(_starts_caseless, most_digits=3)
qwen2 = partial(_starts_caseless, most_digits=1)
