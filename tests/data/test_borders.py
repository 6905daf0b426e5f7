"""Words of many texts at once begin where the regular expressions say."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftkit.data.borders import SEPARATOR, cut_into_words
from ftkit.data.words import PATTERNS, TOGETHER

AT_ONCE = 50_000
# Every kind of character, both kinds of line break and of other white space, and all letters of short forms.
ALPHABETS = {
    "a'sre 1\n.\t": 5,
    "'s e1\n.\t": 6,
    " \n.\ta": 7,
    "'vlELes ": 5,
    "1a \t.": 7,
    "\r\n\v\f .x0'": 5,
}
NAMES = dict(zip(TOGETHER, ("GPT-2", "SmolLM", "Llama 3", "Qwen 2"), strict=True))
every_pattern = pytest.mark.parametrize("pattern", TOGETHER, ids=NAMES.get)


def words_of(texts: Sequence[str], pattern: str) -> list[str]:
    """All words in order, with the separators between the texts."""
    data = SEPARATOR.join([b"", *map(str.encode, texts), b""])
    words, indices = cut_into_words(data, TOGETHER[pattern])
    assert len(set(words)) == len(words)
    return [words[index] for index in indices.tolist()]


def matches(texts: Sequence[str], pattern: str) -> list[str]:
    """The same by the regular expression itself."""
    find = re.compile(pattern, re.ASCII).findall
    return ["ÿ", *(word for text in texts for word in (*find(text), "ÿ"))]


def test_there_is_a_rule_for_every_pattern():
    assert set(PATTERNS.values()) < set(TOGETHER)


@every_pattern
@pytest.mark.parametrize("alphabet", ALPHABETS)
def test_every_short_text_is_split_as_the_expression_does(alphabet: str, pattern: str):
    for length in range(ALPHABETS[alphabet] + 1):
        texts = map("".join, itertools.product(alphabet, repeat=length))
        while some := list(itertools.islice(texts, AT_ONCE)):
            assert words_of(some, pattern) == matches(some, pattern)


@every_pattern
@settings(max_examples=300, deadline=None)
@given(st.lists(st.text(st.characters(max_codepoint=127), max_size=60), max_size=8))
def test_any_ascii_text_is_split_as_the_expression_does(pattern: str, texts: list[str]):
    assert words_of(texts, pattern) == matches(texts, pattern)


@every_pattern
@settings(max_examples=300, deadline=None)
@given(st.lists(st.text("a'sSlLreE 12345\n\r.\t", max_size=200), max_size=8))
def test_long_texts_are_split_as_the_expression_does(pattern: str, texts: list[str]):
    assert words_of(texts, pattern) == matches(texts, pattern)


@every_pattern
def test_every_pair_of_ascii_characters_is_split_as_the_expression_does(pattern: str):
    texts = list(map("".join, itertools.product(map(chr, range(128)), repeat=2)))

    assert words_of(texts, pattern) == matches(texts, pattern)


@every_pattern
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("naïve", ["naïve"]),
        ("a naïve one", ["a", " naïve", " one"]),
        ("a b  naïve's x", ["a", " b  naïve's", " x"]),  # between two spaces nothing is cut off
        ("é", ["é"]),
        (" é\n\n中文 't.5 b", [" é\n\n中文 't.5", " b"]),  # not cut: what stands before the space is not ASCII
        ("x. é ü. it's", ["x. é ü.", " it", "'s"]),
    ],
)
def test_a_stretch_that_is_not_ascii_stays_whole(pattern: str, text: str, expected: list[str]):
    assert words_of([text, "", text], pattern) == ["ÿ", *expected, "ÿ", "ÿ", *expected, "ÿ"]
