"""What may be an answer, by rules, and in which order it is tried."""

from __future__ import annotations

import pytest

from ftkit.rag.drawing import draw_spans
from ftkit.rag.passage import Passage
from ftkit.rag.spans import answer_spans


def spans(text, **given):
    return [(span.text, span.kind) for span in answer_spans(text, **given)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("It opened on 4 May 1901.", [("4 May 1901", "date")]),
        ("It opened on May 4, 1901, in spring.", [("May 4, 1901", "date")]),
        ("It is open from 08:05 to 12:55.", [("08:05", "time"), ("12:55", "time")]),
        ("Letters carry J-72937.", [("J-72937", "code")]),
        ("It costs 1,200.50 crowns, 3 million in all.", [("1,200.50", "number"), ("3 million", "number")]),
        ("Ada Berg is mayor of Oum.", [("Ada Berg", "name"), ("Oum", "name")]),
        ("She heads the Ministry of Works.", [("Ministry of Works", "name")]),
        ("It is caused by a defective gene on one chromosome.", [("defective gene", "phrase")]),
    ],
)
def test_names_numbers_dates_and_noun_phrases_are_found(text, found):
    assert spans(text) == found


def test_a_word_is_no_name_because_a_sentence_begins_with_it():
    assert spans("Letters arrive. Today nothing does.") == []
    assert spans("Letters arrive at Vek. Vek is far.") == [("Vek", "name")]


def test_what_a_passage_is_about_is_no_answer():
    assert spans("Ada Berg leads Oum.", context="Oum") == [("Ada Berg", "name")]
    assert spans("# Oum\n\nAda Berg leads Oum.") == [("Ada Berg", "name")]


def test_every_span_stands_where_it_says_and_none_twice():
    text = "Ada Berg came in 1901. In 1901 Ada Berg met Uli Vos near the old stone bridge."
    found = answer_spans(text)

    assert [text[span.start : span.end] for span in found] == [span.text for span in found]
    assert [span.text for span in found] == ["Ada Berg", "1901", "Uli Vos", "old stone bridge"]


def passage(document, text, start=0):
    return Passage(id=1, document=document, version=1, start=start, end=start + len(text), text=text, context="")


PASSAGES = [passage("a", "Ada Berg came in 1901 with Uli Vos."), passage("b", "In 1950 it was 17 metres."),
            passage("c", "Of the red iron bridge nothing is left since 1777.")]  # fmt: skip


def test_each_document_gives_one_in_turn_and_phrases_come_last():
    drawn = draw_spans(PASSAGES, seed=0)

    assert sorted(one.passage.document for one in drawn[:3]) == ["a", "b", "c"]
    assert [one.span.text for one in drawn if one.passage.document == "c"] == ["1777", "red iron bridge"]
    assert len(drawn) == 3 + 2 + 2


def test_a_document_that_is_added_does_not_shuffle_the_others():
    def of_old(passages):
        return [(one.passage.document, one.span.text) for one in draw_spans(passages, seed=0)
                if one.passage.document != "d"]  # fmt: skip

    assert of_old([*PASSAGES, passage("d", "Lir grew to 99 in 1600.")]) == of_old(PASSAGES)
    assert of_old(PASSAGES[::-1]) == of_old(PASSAGES)
    orders = {tuple(one.start for one in draw_spans(PASSAGES, seed=seed)) for seed in range(8)}
    assert len(orders) > 1


def test_offsets_count_in_the_document_and_equal_passages_are_tried_once():
    drawn = draw_spans([passage("a", "It fell in 1777.", start=40), passage("b", "It fell in 1777.")], seed=0)

    assert [(one.passage.document, one.start, one.end) for one in drawn] == [("a", 51, 55)]
