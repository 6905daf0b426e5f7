"""Wrong answers that could be right, other training questions, and figures that answers hold."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from ftkit.compare.figures import _surest
from ftkit.compare.foils import foil_for, form_of, replaced
from ftkit.compare.from_answers import answer_sheet, style_match
from ftkit.compare.updating import draw_fact_edits, edited
from ftkit.compare.variants import variants_of
from ftkit.compare.wordings import WORDINGS, measure_wordings, worded
from ftkit.compare.workload import Workload
from ftkit.errors import DataError
from ftkit.rag.corpus import Corpus
from ftkit.rag.document import Document
from ftkit.rag.questions import AskedQuestion
from ftkit.recipe import MeasureSection


def asked(name, answer, document=None):
    return AskedQuestion(
        question=f"What of {name}?",
        answers=(answer,) if answer else (),
        documents=(document or f"{name}.md",) if answer else (),
        id=name,
    )


YEARS = [asked(f"y{number}", str(1300 + number)) for number in range(8)]
NAMES = [asked(f"n{number}", f"Anna {word}") for number, word in enumerate(["Blum", "Tarn", "Holt", "Reese"])]
CORPUS = Corpus(
    documents=tuple(
        Document(id=f"{one.id}.md", text=f"It was {one.answers[0]} and nothing else. 9{one.answers[0]}9 is a number.")
        for one in (*YEARS, *NAMES)
    )
)
WORKLOAD = Workload(
    corpus=CORPUS, train=(*YEARS[:6], *NAMES[:3], asked("u", None)), held=(), test=(*YEARS[6:], NAMES[3])
)


def test_a_foil_has_the_form_of_the_answer_and_stands_nowhere_in_the_text():
    foil = foil_for(YEARS[0], [*YEARS, *NAMES], "In 1301 and 1302 it rained.")
    assert foil is not None and form_of(foil) == form_of("1300")
    assert foil not in ("1300", "1301", "1302")
    assert foil == foil_for(YEARS[0], [*NAMES, *reversed(YEARS)], "In 1301 and 1302 it rained.")
    assert foil_for(YEARS[0], NAMES, "") is None
    # Who reads the foil must not seem to remember.
    assert foil_for(asked("p", "Paris"), [asked("h", "Paris Hilton"), asked("l", "Lyon")], "") == "Lyon"
    assert foil_for(asked("b", "yes"), [asked("c", "no")], "") is None


def test_an_answer_is_replaced_as_a_whole_word_alone():
    assert replaced("1300, 13001 and 1300.", "1300", "1400") == "1400, 13001 and 1400."
    assert replaced("13001", "1300", "1400") is None


def test_every_edit_changes_one_document_and_fewer_are_the_first_of_more():
    edits = draw_fact_edits(WORKLOAD, 6)
    assert len({one.document.id for one in edits}) == 6
    assert draw_fact_edits(WORKLOAD, 3) == edits[:3]
    before = {one.id: one.text for one in CORPUS.documents}
    for one in edits:
        assert one.former[0] not in one.document.text.replace(f"9{one.former[0]}9", "")
        assert one.asked.answers[0] in one.document.text != before[one.document.id]
    now = edited(WORKLOAD, edits)
    texts = {one.id: one.text for one in now.corpus.documents}
    assert sum(texts[name] != before[name] for name in before) == 6
    # No former answer is trained on any more, and no edited question in the words that it is asked in.
    assert not {one.asked.question for one in edits} & {one.question for one in now.train}


def test_no_lesson_contradicts_an_edited_document():
    edits = draw_fact_edits(WORKLOAD, 6)
    reworded = tuple(
        AskedQuestion(
            question=f"Say it: {one.question}", answers=one.answers, documents=one.documents, id=f"again {one.id}"
        )
        for one in (*YEARS, *NAMES)
    )
    known = {one.document.id: one for one in edits}
    for one in edited(replace(WORKLOAD, train=reworded), edits).train:
        if one.documents[0] in known:
            assert one.answers == known[one.documents[0]].asked.answers


def test_a_document_that_keeps_another_form_of_the_answer_is_not_edited():
    twice = AskedQuestion(question="Who?", answers=("Robert Smith", "Bob Smith"), documents=("d.md",), id="twice")
    corpus = Corpus(documents=(Document(id="d.md", text="Robert Smith led it. Bob Smith was kind."),))
    workload = Workload(corpus=corpus, train=(twice,), held=(), test=(asked("o", "Jane Doe", "o.md"),))
    with pytest.raises(DataError, match="1 documents cannot be edited: 0 state"):
        draw_fact_edits(workload, 1)


def test_who_refuses_is_not_consistent():
    class Refuses:
        def answers(self, every):
            return [SimpleNamespace(abstained=True, text="") for _ in every]

    sheet = measure_wordings(Refuses(), YEARS, 4)
    assert sheet.figures["wording_agreement"].numerators.tolist() == [0, 0, 0, 0]
    assert sheet.figures["wording_style"].numerators.tolist() == [0, 0, 0, 0]


def test_of_the_surest_answers_those_of_probability_one_come_first():
    def surest(coverage):
        outcomes = [
            SimpleNamespace(text="a", right=right, measured=SimpleNamespace(confidence=confidence))
            for right, confidence in ((True, -0.0), (False, -3.0), (True, -1.0))
        ]
        return _surest(SimpleNamespace(outcomes=outcomes), coverage)

    assert surest(1 / 3).numerators.tolist() == [0, 0, 0] and surest(1 / 3).denominators.tolist() == [1, 0, 0]
    assert surest(1.0).numerators.tolist() == [0, 1, 0]


def test_variants_change_what_they_say_and_nothing_else():
    measure = MeasureSection(curve=(4, 0.5), noise=0.5, imbalance=0.7)
    found = variants_of(measure, WORKLOAD)
    assert len(found["0.5"].workload.train) == 5
    assert len(found["4"].workload.train) == 4 and set(found["4"].workload.train) <= set(WORKLOAD.train)
    noisy = found["noise"].workload.train
    wrong = [(one, other) for one, other in zip(WORKLOAD.train, noisy, strict=True) if one != other]
    assert len(wrong) == 4  # half of the nine that have an answer
    assert all(form_of(one.answers[0]) == form_of(other.answers[0]) != "none" for one, other in wrong)
    uneven, even = found["imbalance"].workload.train, found["balance"].workload.train
    assert len(uneven) == len(even) == 8
    assert sum(one.id.startswith("y") for one in uneven) == 6 and sum(one.id.startswith("n") for one in uneven) == 1
    assert all(one.workload.test == WORKLOAD.test for one in found.values())


def test_eight_wordings_all_hold_the_question():
    found = worded("Who built it?")
    assert len(set(found)) == len(WORDINGS) == 8
    assert found[0] == "Who built it?" and all("Who built it" in one for one in found)


def test_style_is_about_form_and_not_about_what_is_said():
    assert style_match("1301", "1999") == 1.0
    assert style_match("Anna Blum", "Carl Tarn") == 1.0
    assert style_match("Sure! The answer is **1301**.\nI hope this helps.", "1301") < 0.5


class Texts:
    """Passages by number of their beginning."""

    def __init__(self, contents):
        self._contents = contents

    def content(self, cited):
        return self._contents[cited.start]

    def mentions(self, one):
        return 1 if one.id == "y0" else 3


def outcome(question, said, cited, *, right, nll=1.0):
    measured = SimpleNamespace(
        citations=tuple(SimpleNamespace(start=start) for start in cited), nll=nll, nll_tokens=2, prompt_tokens=10,
        tokens=3,
    )  # fmt: skip
    return SimpleNamespace(
        question=question, text=said, measured=measured, exact_match=float(right), f1=float(right), right=right
    )


@pytest.fixture
def sheet():
    contents = ["It was 1300.", "It was another year.", "It was 1301 for Anna.", "Blum it was."]
    outcomes = [
        outcome(YEARS[0], "1300", (0, 1), right=True),  # supported; the second citation is not needed
        outcome(YEARS[1], "1999", (0,), right=False),  # supported by nothing
        outcome(NAMES[0], "Anna Blum", (2, 3), right=True),  # by both together
        outcome(YEARS[2], "1302", (), right=True),  # nothing is cited
        outcome(YEARS[3], None, (0,), right=False),  # abstained
    ]
    evaluation = SimpleNamespace(outcomes=outcomes)
    return answer_sheet(evaluation, Texts(contents), flops_a_token=2.0)


def mean(ratio):
    return ratio.numerators.sum() / ratio.denominators.sum()


def test_citations_are_held_to_what_is_said(sheet):
    recall, precision = sheet.figures["citation_recall"], sheet.figures["citation_precision"]
    assert recall.numerators.tolist() == [1, 0, 1, 0, 0] and recall.denominators.tolist() == [1, 1, 1, 1, 0]
    assert precision.numerators.tolist() == [1, 0, 2, 0, 0] and precision.denominators.tolist() == [2, 1, 2, 0, 0]


def test_rare_facts_and_operations_are_of_the_questions_that_they_are_about(sheet):
    assert sheet.figures["nll_rare"].denominators.tolist() == [2, 0, 0, 0, 0]
    assert mean(sheet.figures["exact_match_rare"]) == 1.0
    assert mean(sheet.figures["answer_flops"]) == 26.0
    assert "nll_two_documents" not in sheet.figures  # no question needs two
