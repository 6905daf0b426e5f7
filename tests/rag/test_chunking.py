from __future__ import annotations

import itertools
import time
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftkit.rag.chunking import chunk
from ftkit.rag.document import Document


def words(text: str) -> int:
    return len(text.split())


def rough_tokens(text: str) -> int:
    """Four characters a token, and two more around every text: adds up to more than the whole, or to less."""
    return 2 + -(-len(text.strip()) // 4)


def passages(text: str, *, limit: int, measure=words, overlap: int = 0, **metadata) -> list[tuple[str, str]]:
    """Context and slice of each passage."""
    document = Document(id="d", text=text, metadata=metadata)
    found = chunk(document, limit=limit, measure=measure, overlap=overlap)
    return [(one.context, text[one.start : one.end]) for one in found]


PIECES = st.sampled_from(
    ["# Top\n", "## Below it\n", "### deeper still #\n", "```\n", "~~~~py\n", "\n", "\n\n", " ", "  \n", "\f",
     "| a | b |\n", "| - | - |\n", "x | y\n", "One sentence. ", "Is it? ", "no end ", "1. item\n", "- item\n",
     "wörd ", "e\u0301" * 3, "longlonglonglonglong", "\U0001f469\u200d\U0001f52c", "。", "\u3000", "\u200b", "#", "|"]
)  # fmt: skip
TEXTS = st.lists(PIECES | st.text(max_size=8), max_size=60).map("".join)
MEASURES = st.sampled_from([words, len, rough_tokens, lambda text: len(text.encode("utf-8", "replace"))])
TITLES = st.sampled_from(["", "Top", "A title of some length that does not fit everywhere"])


@settings(deadline=None, max_examples=400)
@given(text=TEXTS, limit=st.integers(7, 60), measure=MEASURES, title=TITLES)
def test_passages_hold_every_character_once_in_order_and_never_exceed_the_limit(text, limit, measure, title):
    document = Document(id="d", text=text, metadata={"title": title})

    found = chunk(document, limit=limit, measure=measure)

    assert found == chunk(document, limit=limit, measure=measure)
    at = 0
    for one in found:
        assert at <= one.start < one.end <= len(text)
        assert not text[at : one.start].strip()  # only space is left out
        assert text[one.start : one.end].strip()
        assert measure(f"{one.context}\n{text[one.start : one.end]}") <= limit
        at = one.end
    assert not text[at:].strip()


@settings(deadline=None, max_examples=300)
@given(text=TEXTS, limit=st.integers(8, 60), measure=MEASURES, share=st.floats(0, 0.5))
def test_passages_that_overlap_lose_nothing_move_on_and_keep_to_the_limit(text, limit, measure, share):
    found = chunk(Document(id="d", text=text), limit=limit, measure=measure, overlap=int(limit * share))

    kept = {at for one in found for at in range(one.start, one.end)}
    assert all(at in kept for at, character in enumerate(text) if not character.isspace())
    for before, after in itertools.pairwise(found):
        assert before.start < after.start
        assert before.end < after.end
    assert all(measure(f"{one.context}\n{text[one.start : one.end]}") <= limit for one in found)


def test_headings_stand_in_front_of_the_passages_below_them():
    text = "# Pump\n\nAbout it.\n\n## Care\n\nOil it.\n\nDry it.\n\n# Valve\n\nTurn."

    assert passages(text, limit=8) == [
        ("", "# Pump\n\nAbout it."),
        ("Pump", "## Care\n\nOil it.\n\nDry it."),  # 1 + 2 + 2 + 2 words
        ("", "# Valve\n\nTurn."),
    ]


def test_a_passage_that_begins_below_a_heading_has_that_heading_as_context():
    # "Pump > Care" and a paragraph are 3 + 4 words; the heading's own line fits beside the first.
    text = "# Pump\n\n## Care\n\nOil it each week.\n\nDry it each day."

    assert passages(text, limit=8) == [
        ("", "# Pump\n\n## Care\n\nOil it each week."),
        ("Pump > Care", "Dry it each day."),
    ]


def test_the_title_is_the_outermost_heading_unless_the_text_begins_with_it():
    assert passages("## Care\n\nOil.", limit=9, title="Pump") == [("Pump", "## Care\n\nOil.")]
    assert passages("# Pump\n\n## Care\n\nOil.", limit=9, title="Pump") == [("", "# Pump\n\n## Care\n\nOil.")]


def test_whole_paragraphs_are_packed_up_to_the_limit_and_not_beyond():
    # "\n" and 2 + 2 + 2 characters with two line feeds between: 1 + 2 + 2 + 2 + 2 + 2 = 11.
    assert passages("aa\n\nbb\n\ncc\n\ndd", limit=11, measure=len) == [("", "aa\n\nbb\n\ncc"), ("", "dd")]
    assert passages("aa\n\nbb\n\ncc\n\ndd", limit=10, measure=len) == [("", "aa\n\nbb"), ("", "cc\n\ndd")]


def test_a_long_paragraph_is_cut_at_the_ends_of_sentences_then_at_words_then_within_one():
    assert passages("One two. Is it so? Yes, it is.", limit=5) == [("", "One two. Is it so?"), ("", "Yes, it is.")]
    assert passages("a b c d e f g", limit=3) == [("", "a b c"), ("", "d e f"), ("", "g")]
    assert passages("abcdefgh", limit=4, measure=len) == [("", "abc"), ("", "def"), ("", "gh")]


def test_no_sentence_ends_before_a_lower_case_letter():
    assert passages("Oil it. Pumps, e.g. the small one.", limit=5) == [
        ("", "Oil it."),
        ("", "Pumps, e.g. the small one."),
    ]


def test_items_of_a_list_are_cut_between_them():
    assert passages("- one thing\n- other thing\n- third thing", limit=7) == [
        ("", "- one thing\n- other thing"),
        ("", "- third thing"),
    ]


def test_a_table_is_cut_between_rows_and_its_header_stands_in_front_of_the_rest():
    table = "| part | price |\n|---|---|\n| pump one | 10 |\n| valve two | 20 |\n| hose three | 30 |"

    # The header row has 5 words, the dashes 1, each row 6.
    assert passages(f"# Parts\n\n{table}", limit=14) == [
        ("", "# Parts\n\n| part | price |\n|---|---|\n| pump one | 10 |"),
        ("Parts\n| part | price |", "| valve two | 20 |"),
        ("Parts\n| part | price |", "| hose three | 30 |"),
    ]


def test_the_first_row_below_a_header_has_it_in_front_too():
    table = "| part | price |\n|---|---|\n| pump one | 10 |"

    # The heading, the header row and the dashes are 2 + 5 + 1 words, the row with its context 6 + 6.
    assert passages(f"# Parts\n\n{table}", limit=12) == [
        ("", "# Parts\n\n| part | price |\n|---|---|"),
        ("Parts\n| part | price |", "| pump one | 10 |"),
    ]


def test_a_table_that_fits_a_passage_of_its_own_is_not_cut():
    table = "a | b\n--- | ---\n1 | 2\n3 | 4"  # 3 + 3 + 3 + 3 words

    assert passages(f"One two three.\n\n{table}", limit=12) == [("", "One two three."), ("", table)]


def test_code_is_kept_whole_where_it_fits_and_its_hashes_are_no_headings():
    code = "```\n# not a heading\nrun\n\nstop\n```"  # 8 words

    assert passages(f"Before it.\n\n{code}\n\nAfter it.", limit=8) == [
        ("", "Before it."),
        ("", code),
        ("", "After it."),
    ]
    assert passages(code, limit=5) == [("", "```\n# not a heading"), ("", "run\n\nstop\n```")]


def test_headings_that_would_take_half_of_a_passage_are_shortened_from_the_left():
    text = "# one two three\n\n## four five\n\na b c\n\nd e f"

    # Of 8 words, context may have 4: "one two three > four five" has 6, "four five" 2.
    assert passages(text, limit=8) == [("", "# one two three\n\n## four five"), ("four five", "a b c\n\nd e f")]
    # Of 5, it may have 2.
    assert passages("# one two three\n\na b c\n\nd e f", limit=5)[1:] == [
        ("two three", "a b c"),
        ("two three", "d e f"),
    ]


def test_a_heading_does_not_stand_alone_where_a_sentence_fits_beside_it():
    text = "# Care\n\nOil it now. Dry it soon after that."  # 2 words, and 3 + 5

    # The paragraph would fit below its heading as context (1 + 8), but not beside the heading itself (2 + 8).
    assert passages(text, limit=9) == [("", "# Care\n\nOil it now."), ("Care", "Dry it soon after that.")]


def test_the_end_of_a_passage_is_repeated_in_whole_sentences():
    text = "A one. B two. C three. D four. E five."

    # Three words may be repeated, so one sentence of two.
    assert passages(text, limit=6, overlap=3) == [
        ("", "A one. B two. C three."),
        ("", "C three. D four. E five."),
    ]


def test_no_letter_is_parted_from_its_accents_and_no_family_from_its_members():
    accents = "e\u0301" * 4
    scientist = "\U0001f469\u200d\U0001f52c"

    assert [passage for _, passage in passages(accents, limit=4, measure=len)] == ["e\u0301"] * 4
    assert [passage for _, passage in passages(scientist * 2, limit=6, measure=len)] == [scientist] * 2
    assert not any(unicodedata.combining(passage[0]) for _, passage in passages(accents, limit=6, measure=len))


def test_a_limit_without_room_for_one_character_is_refused():
    with pytest.raises(ValueError, match="limit: 1 has no room for 'a'"):
        passages("abc", limit=1, measure=len)
    with pytest.raises(ValueError, match="overlap: 6 is not between 0 and half of the limit, 5"):
        passages("abc", limit=10, overlap=6)


def test_a_blank_text_has_no_passages():
    assert passages(" \n\n\f\n", limit=10) == []


@pytest.mark.parametrize(
    "text",
    ["Some words of a sentence. " * 40_000, "x" * 1_000_000, "word " * 200_000, "a | b\n" * 170_000,
     "\n" * 1_000_000 + "x", "# H\n\ntext\n\n" * 90_000, "```\n" * 250_000],
    ids=["sentences", "one word", "no sentence", "rows", "blank lines", "headings", "fences"],
)  # fmt: skip
def test_a_million_characters_are_measured_a_few_times_and_not_once_for_each_passage(text):
    measured = 0

    def measure(piece: str) -> int:
        nonlocal measured
        measured += len(piece)
        return len(piece)

    begun = time.perf_counter()
    chunk(Document(id="d", text=text), limit=1000, measure=measure)

    assert measured < 20 * len(text)
    assert time.perf_counter() - begun < 20  # about one; were it quadratic, minutes
