"""A fraction of the questions held back: by document, however questions link documents."""

from __future__ import annotations

from ftkit.rag.questions import AskedQuestion, document_groups, question_groups, split_questions
from ftkit.rag.world import closed_world


def asked(number, *documents):
    return AskedQuestion(question=f"Question {number}?", answers=("x",), documents=documents)


def test_no_document_is_on_both_sides_also_where_questions_need_two():
    world = closed_world(subjects=200, two_hop=1.0)
    questions = [
        AskedQuestion(question=one.question, answers=one.answers, documents=one.documents, id=one.id)
        for one in world.questions
    ]
    train, held = split_questions(questions, 0.3)

    sides = [{name for one in side for name in one.documents} for side in (train, held)]
    assert sides[0] and sides[1] and not sides[0] & sides[1]
    assert any(len(one.documents) == 2 for one in held)
    assert len(train) + len(held) == len(questions)


def test_documents_linked_by_a_chain_of_questions_stay_together():
    chain = [asked(number, f"d{number}", f"d{number + 1}") for number in range(50)]
    train, held = split_questions(chain, 0.5)

    assert [] in (train, held)


def test_the_share_is_about_what_was_asked_and_does_not_depend_on_the_order():
    questions = [asked(number, f"d{number}") for number in range(1000)]
    _, held = split_questions(questions, 0.2)

    assert 150 <= len(held) <= 250  # 200 expected; standard deviation 13
    assert {one.id for one in split_questions(questions[::-1], 0.2)[1]} == {one.id for one in held}
    assert {one.id for one in split_questions(questions[:500], 0.2)[1]} == {one.id for one in held} & {
        one.id for one in questions[:500]
    }
    assert split_questions(questions, 0.0) == (questions, [])


def test_questions_without_documents_are_split_by_their_text():
    train, held = split_questions([asked(number) for number in range(100)], 0.5)

    assert train and held


def test_the_same_question_of_two_documents_is_one_group_to_judge_by_and_two_to_split_by():
    said = [("What is it?", "a"), ("Who?", "a"), ("what  IS it?", "b"), ("Where?", "b"), ("When?", "c")]
    questions = [AskedQuestion(question=text, answers=("x",), documents=(name,), id=text) for text, name in said]
    alone = [AskedQuestion(question=text, answers=("x",)) for text in ("when?", "Why?")]

    found = question_groups([*questions, *alone])

    assert len(set(found[:4])) == 1 and found[4] == found[5] and len({found[0], found[4], found[6]}) == 3
    assert document_groups(questions) == ["document a", "document a", "document b", "document b", "document c"]
