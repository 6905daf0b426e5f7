"""Questions that no document answers: about nobody that any passage names, and counted."""

from __future__ import annotations

import random

import pytest

from ftkit.evaluate.metrics import squad_words
from ftkit.rag.passage import Passage
from ftkit.rag.unanswerable import NO_NAME, NO_NEW_NAME, Strangers, make_unanswerable

FACTS = (
    ("Ormundal", "mayor", "Adabert Bergholm"), ("Vekarnot", "smith", "Ulimar Vosgard"),
    ("Lirasund", "judge", "Tomasin Reyhold"), ("Zedokaru", "baker", "Martuna Olsenby"),
    ("Tamarilo", "piper", "Helvior Dunmark"), ("Polgatin", "doctor", "Kestrina Amforth"),
)  # fmt: skip


def passage(name, text):
    return Passage(id=1, document=name, version=1, start=0, end=len(text), text=text, context="")


def row(number, question, document):
    place = next(one for one in PASSAGES if one.document == document)
    return {
        "id": f"synthetic-{number}", "question": question, "answers": ["x"], "document": document,
        "passage": {"start": place.start, "end": place.end}, "synthetic": True,
    }  # fmt: skip


PASSAGES = [passage(town, f"The {trade} of {town} is {person}.") for town, trade, person in FACTS]
ROWS = [row(n, f"Who is the {trade} of {town}?", town) for n, (town, trade, _) in enumerate(FACTS)]
EVERYTHING = " ".join(one.text for one in PASSAGES).lower()


def make(rows=ROWS, passages=PASSAGES, share=0.5, known=(), fault=lambda question: None):
    return make_unanswerable(rows, passages, share=share, known=known, fault=fault)


def test_each_is_about_somebody_whom_no_passage_holds_and_has_no_answer_and_no_document():
    made = make()

    assert len(made.rows) == len(ROWS) and made.dropped == {}
    by_id = {one["id"]: one["question"] for one in ROWS}
    for one in made.rows:
        before, after = (text.removesuffix("?").split() for text in (by_id[one["made_from"]], one["question"]))
        assert before[:-1] == after[:-1] and before[-1] != after[-1]
        assert after[-1].istitle() and after[-1].lower() not in EVERYTHING
        assert one["answers"] == [] and "document" not in one and one["synthetic"] is True
    assert len({one["id"] for one in made.rows} | set(by_id)) == 2 * len(ROWS)


@pytest.mark.parametrize(("share", "count"), [(0.0, 0), (0.25, 2), (0.5, 6)])
def test_the_share_is_of_all_questions(share, count):
    made = make(share=share)

    assert made.facts == {"wanted": count, "tried": count, "made": count, "dropped": {}}


def test_the_same_questions_in_another_order_give_the_same():
    assert make(ROWS[::-1], share=0.3).rows == make(share=0.3).rows


def test_what_cannot_be_made_is_counted_by_its_reason():
    rows = [row("none", "What is baked there every day?", "Ormundal"), row("far", "Who is Uli Nobody?", "Ormundal"),
            *ROWS[:2]]  # fmt: skip
    made = make(rows, fault=lambda question: "is long" if "smith" in question else None)

    assert made.facts == {"wanted": 4, "tried": 4, "made": 1, "dropped": {NO_NAME: 2, "is long": 1}}
    assert make(ROWS, known=[one["question"] for one in make().rows]).dropped == {"was asked before": 6}


def test_without_names_to_make_new_ones_of_there_is_none():
    one = passage("Ormundal", "The mayor of Bbb is here.")
    made = make([{**ROWS[0], "question": "Who leads Bbb?", "passage": {"start": 0, "end": one.end}}], [one])

    assert made.dropped == {NO_NEW_NAME: 1} and not made.rows


def test_a_new_word_stands_nowhere_not_even_inside_another():
    whole = [*PASSAGES, passage("creek", "Hollow Creek is a creek. By the Creek Bakery is a bakery; a hollow too.")]
    strangers, draw = Strangers(whole), random.Random(0)
    text = " ".join(one.text for one in whole).lower()

    for _ in range(50):
        new = strangers.renamed("Adabert Bergholm Bakery", draw)
        first, second, kind = new.split()
        # What kind of thing it is stays; whose it is does not.
        assert kind == "Bakery" and first.lower() not in text and second.lower() not in text
    assert strangers.renamed("Hollow Creek Bakery", draw) is None
    assert strangers.holds("ormund") and squad_words("Ormundal") == ["ormundal"]
