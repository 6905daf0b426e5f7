"""Each wrong answer is blamed on the step that lost it: faults are planted one kind at a time and must be found."""

from __future__ import annotations

import itertools

import pytest

from ftkit.rag.answering import RagSystem
from ftkit.rag.blame import BLAMES, Evidence, Wanted, blame, comparable, is_right, searchable, stands_in
from ftkit.rag.evaluation import evaluate_rag
from ftkit.rag.reader import REFUSAL
from ftkit.rag.world import closed_world
from tests.rag.worlds import asked, finds, passages_in, question_in, says, tiny_target, world_index

ENOUGH = 40


@pytest.fixture(scope="module")
def world():
    return closed_world(subjects=24, seed=5, paraphrases=1)


@pytest.fixture
def system(tmp_path, wide_encoder, wide_pair, world, monkeypatch):
    """Finds the right document for every question, and its reader says the right answer."""
    index = world_index(tmp_path / "index", wide_encoder, wide_pair, world)
    questions = {one.question: one for one in asked(world) + asked(world, answerable=False)}
    home = {one.question: one.fact.rpartition(".")[0] + ".md" for one in world.questions}
    finds(monkeypatch, lambda question: [home[question]])
    says(monkeypatch, lambda prompt: next(iter(questions[question_in(prompt)].answers), REFUSAL))
    with index:
        yield RagSystem(index=index, encoders=wide_pair, generator=tiny_target(), passages=1, max_new_tokens=8)


def blamed(system, questions, expected):
    """Share of the questions that are blamed on that class; all classes sum to the questions."""
    found = evaluate_rag(system, questions)
    assert len(questions) >= ENOUGH or expected == "unsupported"
    assert sum(found.blame.values()) == len(questions)
    assert tuple(found.blame) == BLAMES
    assert sum(found.to_dict()["blame_percent"].values()) == pytest.approx(100)
    return found.blame[expected] / len(questions)


def test_a_system_without_a_fault_is_not_blamed(system, world):
    assert blamed(system, asked(world) + asked(world, answerable=False), "correct") == 1


def test_documents_that_are_gone_are_blamed_on_the_index(system, world, monkeypatch):
    questions = asked(world)
    system.index.remove(sorted({one.documents[0] for one in questions}))
    says(monkeypatch, lambda _: "Something else")

    assert blamed(system, questions, "not_indexed") >= 0.95


def test_an_answer_that_its_document_lost_is_blamed_on_the_index(system, world, wide_pair, monkeypatch):
    from ftkit.rag.updates import world_documents

    questions = asked(world)
    values = {answer for one in questions for answer in one.answers}
    for document in world_documents(world):
        text = document.text
        for value in sorted(values, key=len, reverse=True):
            text = text.replace(value, "...")
        system.index.add([type(document)(id=document.id, text=text)], wide_pair)
    says(monkeypatch, lambda _: REFUSAL)

    assert blamed(system, questions, "not_indexed") >= 0.95


@pytest.mark.parametrize("answer", ["A made up thing", REFUSAL])
def test_a_search_that_finds_other_documents_is_blamed_on_retrieval(system, world, monkeypatch, answer):
    questions = asked(world)
    others = itertools.cycle(system.index.documents)
    right = {one.question: one.documents for one in questions}
    finds(monkeypatch, lambda question: [next(name for name in others if name not in right[question])])
    says(monkeypatch, lambda _: answer)

    assert blamed(system, questions, "not_retrieved") >= 0.95


def test_another_span_of_the_right_passage_is_blamed_on_reading(system, world, monkeypatch):
    questions = asked(world)
    facts = {fact.id: fact for fact in world.facts}

    def another(prompt):
        one = next(one for one in questions if one.question == question_in(prompt))
        values = (
            fact.value
            for fact in facts.values()
            if fact.document == one.documents[0] and fact.value not in one.answers
        )
        return next(values)

    says(monkeypatch, another)

    assert blamed(system, questions, "not_read") >= 0.95


def test_a_refusal_with_the_answer_in_view_is_blamed_on_reading(system, world, monkeypatch):
    says(monkeypatch, lambda _: REFUSAL)

    assert blamed(system, asked(world), "not_read") >= 0.95


def test_an_invented_answer_is_blamed_on_no_passage(system, world, monkeypatch):
    says(monkeypatch, lambda prompt: "Zyxomma Quellborough" if "Zyxomma" not in passages_in(prompt) else "")

    assert blamed(system, asked(world), "unsupported") >= 0.95


def test_an_answer_to_what_no_document_answers_is_blamed_on_no_passage(system, world, monkeypatch):
    says(monkeypatch, lambda prompt: passages_in(prompt).split()[-1])

    assert blamed(system, asked(world, answerable=False), "unsupported") >= 0.95


def test_a_mixture_of_faults_is_told_apart(system, world, monkeypatch):
    """Planted in turn over the questions: of each class exactly as many are found."""
    questions = asked(world)
    kinds = dict(zip((one.question for one in questions), itertools.cycle(BLAMES), strict=False))
    by_text = {one.question: one for one in questions}
    homes = {one.documents[0] for one in questions if kinds[one.question] == "not_indexed"}
    questions = [one for one in questions if (one.documents[0] in homes) == (kinds[one.question] == "not_indexed")]
    system.index.remove(sorted(homes))
    spare = next(name for name in system.index.documents if name not in {one.documents[0] for one in questions})
    finds(
        monkeypatch,
        lambda question: [spare] if kinds[question] == "not_retrieved" else list(by_text[question].documents),
    )
    said = {"correct": None, "not_read": REFUSAL}
    says(
        monkeypatch,
        lambda prompt: said.get(kinds[question_in(prompt)], "Zyxomma") or by_text[question_in(prompt)].answers[0],
    )

    found = evaluate_rag(system, questions)

    assert [one.blame for one in found.outcomes] == [kinds[one.question] for one in questions]
    assert min(found.blame.values()) >= 2


# The rules by themselves


def evidence(*, indexed=True, given=True, in_passages=True):
    return Evidence(indexed=indexed, given=given, in_passages=in_passages)


@pytest.mark.parametrize(
    ("answers", "said", "seen", "expected"),
    [
        (["red"], "Red.", evidence(indexed=False, given=False), "correct"),  # known by heart, and right
        (["red"], "blue", evidence(indexed=False, given=False), "not_indexed"),
        (["red"], None, evidence(indexed=False, given=False), "not_indexed"),
        (["red"], "blue", evidence(given=False), "not_retrieved"),
        (["red"], "blue", evidence(), "not_read"),
        (["red"], None, evidence(in_passages=False), "not_read"),
        (["red"], "mauve", evidence(in_passages=False), "unsupported"),
        ([], None, evidence(indexed=False, given=False), "correct"),
        ([], "red", evidence(), "unsupported"),
    ],
)
def test_the_first_step_that_failed_is_blamed(answers, said, seen, expected):
    assert blame(answers, said, seen) == expected


@pytest.mark.parametrize(
    ("said", "answers", "right"),
    [
        ("The Red House", ["red house"], True),
        ("It is the red house.", ["red house"], True),
        ("It is a red and old house.", ["red house"], False),
        ("1,200", ["1200"], True),
        ("about 1200.0 crowns", ["1,200"], True),
        ("12", ["1200"], False),
        ("3.5", ["35"], False),
        ("two", ["2"], True),
        ("from 1985 to 1990", ["1990"], False),
        ("in 1990", ["1985", "1990"], True),
        ("1990 [2].", ["1990"], True),
        ("Yes, it is.", ["yes"], True),
        ("No, yes is wrong", ["yes"], False),
        ("公司成立于1990年。", ["1990年"], True),
        (None, ["red"], False),
        (None, [], True),
        ("red", [], False),
    ],
)
def test_an_answer_is_right_by_its_words_and_numbers(said, answers, right):
    assert is_right(said, answers) is right


def test_a_passage_holds_an_answer_as_whole_words():
    passage = searchable("The mayor of Oum is Ada Berg, since 1,850.")

    answers = ("Ada Berg", "ada", "Ada Ber", "1850", "850", "no")
    assert [Wanted([answer]).stands_in(passage) for answer in answers] == [True, True, False, True, False, True]


def test_a_script_without_spaces_is_searched_by_its_characters():
    assert Wanted(["1990年"]).stands_in(searchable("公司成立于 1990年。"))
    assert not Wanted(["1991年"]).stands_in(searchable("公司成立于 1990年。"))


def test_an_answer_stands_in_a_passage_whatever_sentence_it_is_in():
    passages = [comparable("Oum was founded in 1850 by Ada Berg."), comparable("Its mayor is Kim Holt.")]

    assert stands_in("The mayor was Ada Berg.", "Who is the mayor?", passages)
    assert not stands_in("The mayor was Ada Holt.", "Who is the mayor?", passages)  # two halves of two passages
    assert stands_in("According to passage [2], somebody by the name of Kim Holt.", "Who is the mayor?", passages)
    assert not stands_in("1851", "When?", passages)
    assert stands_in("mayor", "Who is Kim Holt?", passages)
    assert not stands_in("bridge", "Who is Kim Holt?", passages)
    assert not stands_in("Ada", "Who?", [])
