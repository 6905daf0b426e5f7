"""What stands in document after document is not asked about; what many have in common otherwise is."""

from __future__ import annotations

import pytest

from ftkit.rag.boilerplate import PAGE_DATE, REPEATED_LINE, REPEATED_VALUE
from ftkit.rag.drawing import draw_spans, first_asked
from ftkit.rag.passage import Passage

TOWNS = ("Oum", "Vek", "Lir", "Zed", "Tam", "Pol", "Kap", "Nub")
HEADER = "The site of the Lowland Archive, seen on 3 May 2024."


def passage(number, text):
    return Passage(
        id=number, document=f"{number:02}.md", version=1, start=0, end=len(text), text=text, context=TOWNS[number]
    )


def faults(texts, value):
    drawn = draw_spans([passage(number, text) for number, text in enumerate(texts)], seed=0)
    return {one.fault for one in drawn if one.span.text == value}


def towns(line, count=8):
    return [f"{line}\n\nThe bridge is {20 + n} metres long since 19{n}1." for n in range(count)]


def test_a_header_s_date_and_name_are_never_asked_about_and_the_rest_is():
    drawn = draw_spans([passage(number, text) for number, text in enumerate(towns(HEADER))], seed=0)
    asked = {one.span.text for one in drawn if one.fault is None}

    assert {one.span.text: one.fault for one in drawn if one.fault} == {
        "3 May 2024": REPEATED_LINE, "Lowland Archive": REPEATED_LINE,
    }  # fmt: skip
    assert asked == {*(f"{20 + n}" for n in range(8)), *(f"19{n}1" for n in range(8))}


def test_a_value_in_many_documents_is_not_asked_about_in_whatever_line_it_stands():
    texts = [f"The town of {town} has the mark of Bo Lund." for town in TOWNS]

    assert faults(texts, "Bo Lund") == {REPEATED_VALUE}
    assert faults(texts[:4], "Bo Lund") == {None}


def test_small_numbers_stand_everywhere_and_say_something_each_time():
    assert faults([f"The bridge of {town} has 12 arches." for town in TOWNS], "12") == {None}
    assert faults([f"The bridge of {town} fell in 1777." for town in TOWNS], "1777") == {REPEATED_VALUE}


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("Last updated: 3 May 2024", PAGE_DATE),
        ("This page was last reviewed on 3 May 2024.", PAGE_DATE),
        ("* Published: 3 May 2024", PAGE_DATE),
        ("© Lowland Archive 3 May 2024", PAGE_DATE),
        ("The book was published on 3 May 2024.", None),
        ("The charter was last seen on 3 May 2024.", None),
        ("The text is last updated. The mill burned on 3 May 2024.", None),
    ],
)
def test_a_date_that_a_page_gives_of_itself_is_known_by_its_label(line, fault):
    assert faults([f"{line}\nThe bridge is long."], "3 May 2024") == {fault}


def test_what_is_not_asked_for_takes_nobody_s_place():
    drawn = draw_spans([passage(number, text) for number, text in enumerate(towns(HEADER))], seed=0)
    first = first_asked(drawn, 5)

    assert sum(one.fault is None for one in first) == 5 and first == drawn[: len(first)]
    assert list(first_asked(drawn, 1000)) == drawn
