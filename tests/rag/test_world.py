"""The closed world: what is asked has one right answer in the documents, and edits change what they say."""

from __future__ import annotations

import json
import re
import string
import time
from collections import Counter, defaultdict

import pytest

from ftkit.errors import OutputError
from ftkit.files import files_in
from ftkit.rag.world import ClosedWorld, closed_world, world_summary
from ftkit.rag.world.kinds import KINDS, MAX_PARAPHRASES
from ftkit.rag.world.names import GIVEN, PAIRS, SHAPES, TRADES
from ftkit.rag.world.values import VALUES
from ftkit.rag.world.write import folder_digest

# Of closed_world(subjects=40, seed=7); another one means that every published comparison has to be made again.
PINNED = "715c13cfbbed6d55d3b26e236bd09b84f9488b8b642e0d4cba9df856aca15241"
RELATIONS = [(name, relation) for name, kind in KINDS.items() for relation in kind.relations]
# Words that say nothing of what is asked.
EMPTY_WORDS = {
    "a", "an", "and", "any", "are", "at", "by", "can", "did", "do", "does", "for", "from", "get", "has", "have",
    "how", "in", "into", "is", "it", "its", "many", "much", "must", "of", "on", "or", "the", "their", "to", "up",
    "was", "what", "when", "where", "which", "who", "whom", "whose", "with", "company", "town", "person",
}  # fmt: skip


@pytest.fixture(scope="module")
def world() -> ClosedWorld:
    return closed_world(subjects=240, seed=3, distractors=0.6, two_hop=0.5)


@pytest.fixture(scope="module")
def texts(world) -> dict[str, str]:
    return {document.id: document.text for document in world.documents}


def normal(text: str) -> str:
    """As SQuAD compares answers: lower case, without punctuation and articles."""
    bare = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())


def statements(world: ClosedWorld) -> dict[tuple[str, str], list[tuple[str, str]]]:
    """What the texts say, read without the recorded facts: (subject, relation) to values and their documents."""
    name = r"(?:[Tt]he )?(?P<it>[A-Z][a-z]+(?: [A-Za-z]+)?)"
    value = r"(?P<value>\d+\.\d+ crowns|[^.\n]+?)"
    patterns = [
        (relation.name, re.compile(r"(?:(?<=\. )|(?<=\n))" + "".join(
            {"{it}": name, "{value}": value}.get(part, re.escape(part))
            for part in re.split(r"(\{it\}|\{value\})", sentence)
        ) + r"(?=\s)"))
        for _, relation in RELATIONS for sentence in relation.sentences
    ]  # fmt: skip
    said = defaultdict(list)
    for document in world.documents:
        title = document.metadata["title"].removeprefix("The ")
        for relation, pattern in patterns:
            for match in pattern.finditer(document.text):
                about = match.groupdict().get("it") or title
                said[about, relation].append((match["value"], document.id))
    return said


def one_difference(before: str, after: str, old: str, new: str) -> bool:
    """Whether two documents differ in one value and in the date alone."""
    date = re.compile(r"Last updated: .*")
    return date.sub("", before).replace(old, new) == date.sub("", after) and date.findall(before) != date.findall(
        after
    )


# What a world is made of


def test_a_small_world_has_the_pinned_digest(tmp_path):
    closed_world(subjects=40, seed=7).write(tmp_path / "world")

    assert json.loads((tmp_path / "world" / "world.json").read_text())["sha256"] == PINNED


def test_another_seed_makes_another_world():
    first, second = closed_world(subjects=30, seed=1), closed_world(subjects=30, seed=2)

    assert not {subject.name for subject in first.subjects} & {subject.name for subject in second.subjects}


def test_a_larger_world_begins_like_a_smaller_one():
    small, large = closed_world(subjects=30), closed_world(subjects=60)

    assert large.subjects[: len(small.subjects)] == small.subjects
    assert (
        set(small.documents) < set(large.documents)
        if False
        else all(one in large.documents for one in small.documents)
    )
    assert set(small.questions) < set(large.questions)


def test_more_paraphrases_ask_for_the_same_facts():
    one, four = (closed_world(subjects=40, paraphrases=count) for count in (1, 4))

    assert one.subjects == four.subjects
    assert 4 * len(one.questions) == len(four.questions)


def test_no_name_stands_inside_another(world):
    names = {subject.name for subject in world.subjects}
    for subject in world.subjects:
        kind = KINDS[subject.kind]
        links = [one.name for one in kind.relations if one.value in ("person", "town", "company")]
        names |= {subject.values[name].text for name in links if name in subject.values}

    assert len({subject.name for subject in world.subjects}) == len(world.subjects)
    assert [(one, other) for one in names for other in names if one != other and one in other] == []


def test_no_other_word_of_a_name_can_be_a_stem():
    shape = {"c": "[b-df-hj-np-tv-z]", "v": "[aeiou]", "p": f"(?:{'|'.join(PAIRS)})"}
    stems = re.compile("|".join("".join(shape[letter] for letter in one) for one in SHAPES))
    nouns = {noun.lower() for kind in KINDS.values() for noun in kind.nouns}

    assert [word for word in {*nouns, *map(str.lower, GIVEN), *map(str.lower, TRADES)} if stems.search(word)] == []


def test_no_value_of_a_relation_stands_inside_another_of_it(world):
    values = defaultdict(set)
    for fact in world.facts:
        values[fact.relation].add(normal(fact.value))

    assert len(values) == 17
    assert all(len(ones) > 20 for ones in values.values())
    assert [(one, two) for ones in values.values() for one in ones for two in ones if one != two and one in two] == []


def test_distractors_have_nearly_the_name_of_their_subject_and_other_values():
    # So many that some would have the same year or warranty by chance.
    large = closed_world(subjects=1500, distractors=1, noise=0)
    known = {subject.name: subject for subject in large.subjects}
    pairs = [(subject, known[subject.twin]) for subject in large.subjects if subject.role == "distractor"]

    assert len(pairs) == 1500
    for distractor, subject in pairs:
        assert sum(a != b for a, b in zip(distractor.name, subject.name, strict=True)) == 1
        assert all(distractor.values[name].text != value.text for name, value in subject.values.items())


def test_documents_read_as_pages(world):
    for document in world.documents:
        assert re.fullmatch(r"# .+\n\nLast updated: \d{1,2} [A-Z][a-z]+ 202[23]\n\n.+\n\n.+\n", document.text)
        assert document.text.startswith(f"# {document.metadata['title']}\n")
        assert not re.search(r"[{}]|  |\.\.| \.|(?:^|\. )[a-z]", document.text, re.MULTILINE)
    assert len({document.id for document in world.documents}) == len(world.documents)
    assert Counter(document.role for document in world.documents).keys() == {"subject", "distractor", "noise"}


# Facts and questions


def test_every_fact_stands_at_its_offsets_and_nowhere_else_in_its_document(world, texts):
    for fact in world.facts:
        assert texts[fact.document][fact.start : fact.end] == fact.value
        assert texts[fact.document].count(fact.value) == 1


def test_every_question_has_exactly_one_right_answer_in_the_corpus(world):
    said = statements(world)
    names = {subject.key: subject.name for subject in world.subjects}

    assert sum(map(len, said.values())) == len(world.facts)
    for question in world.questions:
        stated = said[names[question.fact.split(".")[0]], question.fact.split(".")[1]]
        if question.answers:
            assert stated == [(question.answers[0], question.document)]
        elif question.hops == 1:
            assert stated == []
        else:
            first, _, link = question.id.rpartition(".")[0].rpartition(".")
            subject, relation = first.split(".")
            assert stated == [] or said[names[subject], relation] == [], link


def test_a_persons_name_stands_in_no_document_but_the_gold_one(world, texts):
    people = {"founder", "mayor", "curator"}
    asked = [one for one in world.questions if one.answers and one.fact.split(".")[1] in people]

    assert len(asked) > 100
    for question in asked:
        assert [name for name, text in texts.items() if question.answers[0] in text] == [question.document]


def test_a_subject_is_named_in_another_document_only_as_the_value_of_a_fact(world):
    subjects = {subject.name.split()[0]: subject.document for subject in world.subjects}
    values = {(fact.document, fact.start) for fact in world.facts}

    strays = [
        (document.id, match[0])
        for document in world.documents
        for match in re.finditer(r"[A-Z][a-z]{6}\b", document.text)
        if subjects.get(match[0], document.id) != document.id and (document.id, match.start()) not in values
    ]
    assert strays == []


def test_two_hops_need_two_documents_and_do_not_name_what_is_between(world, at_least=100):
    facts = {fact.id: fact for fact in world.facts}
    asked = [question for question in world.questions if question.hops == 2 and question.answers]

    assert len(asked) > at_least
    for question in asked:
        first, second = (facts[name] for name in question.facts)
        assert (first.value, second.value) == (question.bridge, question.answers[0])
        assert second.subject == question.bridge
        assert question.documents == (first.document, second.document) and first.document != second.document
        assert question.document == second.document
        assert question.bridge not in question.question
        assert question.bridge.split()[0] not in question.question
        assert first.subject in question.question
        assert question.as_of == max(first.date, second.date)


def test_no_question_holds_its_answer(world):
    assert [one for one in world.questions if one.answers and normal(one.answers[0]) in normal(one.question)] == []


def test_questions_without_an_answer_name_no_document(world):
    without = [question for question in world.questions if not question.answers]

    assert {question.hops for question in without} == {1, 2}
    assert all((one.document, one.documents, one.facts) == (None, (), ()) for one in without)
    assert all(len(one.answers) == 1 for one in world.questions if one.document)


def test_splits_share_no_fact_and_no_subject(world):
    facts, subjects, documents = defaultdict(set), defaultdict(set), defaultdict(set)
    titles = {document.id: document.metadata["title"].removeprefix("The ") for document in world.documents}
    for question in world.questions:
        asked = {question.fact, *question.facts, question.id.rpartition(".")[0]}
        facts[question.split] |= asked
        subjects[question.split] |= {fact.split(".")[0] for fact in asked}
        documents[question.split] |= {*question.documents}

    for one, other in (("train", "dev"), ("train", "test"), ("dev", "test")):
        assert subjects[one] and subjects[other]
        for parts in (facts, subjects, documents):
            assert not parts[one] & parts[other]
    # Not even by name: no text about a subject of one split mentions a subject of another.
    splits = {subject.document: subject.split for subject in world.subjects if subject.role == "subject"}
    for document in world.documents:
        if document.id in splits:
            named = [other for other, title in titles.items() if title in document.text and other in splits]
            assert {splits[other] for other in named} == {splits[document.id]}


def test_most_questions_are_for_training_and_a_fifth_for_testing():
    counts = Counter(subject.split for subject in closed_world(subjects=2000, distractors=0, noise=0).subjects)

    assert {split: round(count / 200) for split, count in counts.items()} == {"train": 7, "dev": 1, "test": 2}


def test_paraphrases_differ_from_each_other_and_from_every_sentence(world):
    wordings = defaultdict(list)
    for question in world.questions:
        wordings[question.id.rpartition(".")[0]].append(question.question)

    assert {len(ones) for ones in wordings.values()} == {3}
    assert all(len(set(ones)) == 3 for ones in wordings.values())
    assert len({question.id for question in world.questions}) == len(world.questions)
    sentences = {one for document in world.documents for one in re.split(r"(?<=[.]) |\n", document.text)}
    assert not {question.question for question in world.questions} & sentences


@pytest.mark.parametrize(("kind", "relation"), RELATIONS, ids=lambda one: getattr(one, "name", one))
def test_one_wording_shares_no_word_of_meaning_with_any_sentence(kind, relation):
    def meaning(text: str) -> set[str]:
        # Four letters stand for a word, so that "makes" meets "maker".
        bare = re.sub(r"\{\w+\}", " ", text)
        return {word[:4] for word in re.findall(r"[a-z]+", bare.lower()) if word not in EMPTY_WORDS}

    stated = set().union(*map(meaning, relation.sentences))

    assert len(set(relation.questions)) == MAX_PARAPHRASES
    assert meaning(relation.questions[-1]) & stated == set()
    assert meaning(relation.questions[0]) & stated


def test_every_relation_has_a_kind_of_value_and_leads_to_that_kind():
    assert {relation.value for _, relation in RELATIONS} <= VALUES.keys()
    for _, relation in RELATIONS:
        assert relation.leads_to in ("", relation.value)
        assert bool(relation.bridges) == bool(relation.leads_to)
        assert all("{it}" in text for text in (*relation.questions, *relation.bridges))
        assert all(text.count("{value}") == 1 for text in relation.sentences)


# Edits


def different(before: ClosedWorld, after: ClosedWorld) -> set[str]:
    """Ids of questions that are new or not as they were."""
    old = {question.id: question for question in before.questions}
    return {question.id for question in after.questions if old.get(question.id) != question}


def test_a_change_alters_one_value_and_the_date_of_one_document(world, texts):
    edits = world.edit(40, seed=1)
    edited = world.apply(edits)
    after = {document.id: document for document in edited.documents}

    assert len(edits) == len({edit.document for edit in edits}) == 40
    assert {name for name in texts if after[name].text != texts[name]} == {edit.document for edit in edits}
    for edit in edits:
        assert after[edit.document].text == edit.text
        assert one_difference(texts[edit.document], edit.text, edit.old, edit.new)
        assert after[edit.document].metadata["date"] == edit.date > "2024"


def test_a_change_alters_the_fact_that_it_names_and_no_other(world):
    edits = world.edit(40, seed=1)
    old, new = ({fact.id: fact for fact in one.facts} for one in (world, world.apply(edits)))
    changed = {name: (old[name].value, new[name].value) for name in old if old[name].value != new[name].value}

    assert changed == {edit.fact: (edit.old, edit.new) for edit in edits}
    assert {name for name in old if old[name].date != new[name].date} == changed.keys()


def test_a_change_names_exactly_the_questions_that_it_alters(world):
    edits = world.edit(40, seed=1)
    edited = world.apply(edits)
    named = {name for edit in edits for name in edit.questions}

    assert [question.id for question in edited.questions if question.id in named]
    assert different(world, edited) == named
    # The same questions are asked in the same words.
    assert [(one.id, one.question) for one in world.questions] == [(one.id, one.question) for one in edited.questions]
    # Questions of two hops that pass through the fact are among them.
    assert any(not name.startswith(f"{edit.document}.") for edit in edits for name in edit.questions)


@pytest.mark.parametrize("change", ["edit", "add", "remove"])
def test_an_edited_world_is_as_sound_as_a_new_one(world, change):
    edited = world.apply(getattr(world, change)(40, seed=2))
    texts = {document.id: document.text for document in edited.documents}

    test_every_fact_stands_at_its_offsets_and_nowhere_else_in_its_document(edited, texts)
    test_no_name_stands_inside_another(edited)
    test_every_question_has_exactly_one_right_answer_in_the_corpus(edited)
    test_two_hops_need_two_documents_and_do_not_name_what_is_between(edited)
    test_no_question_holds_its_answer(edited)
    test_splits_share_no_fact_and_no_subject(edited)


def test_an_addition_brings_a_document_and_its_questions(world):
    edits = world.add(12)
    edited = world.apply(edits)
    came = {document.id: document.text for document in edited.documents if document not in world.documents}

    assert came == {edit.document: edit.text for edit in edits}
    assert different(world, edited) == {name for edit in edits for name in edit.questions}
    assert all(edit.questions and edit.before is None for edit in edits)
    assert set(world.questions) < set(edited.questions)


def test_a_removal_leaves_questions_without_an_answer(world):
    edits = world.remove(30)
    edited = world.apply(edits)
    gone = {edit.document for edit in edits}
    named = {name for edit in edits for name in edit.questions}

    assert {document.id for document in world.documents} - {document.id for document in edited.documents} == gone
    assert different(world, edited) == named
    assert [one.id for one in world.questions] == [one.id for one in edited.questions]
    assert [one.id for one in edited.questions if one.id in named and one.answers] == []
    dates = {name: edit.date for edit in edits for name in edit.questions if name.startswith(edit.document)}
    assert all(one.as_of >= dates[one.id] for one in edited.questions if one.id in dates)
    assert any(not name.startswith(f"{edit.document}.") for edit in edits for name in edit.questions)
    answered = {one.id for one in world.questions if one.answers and gone.isdisjoint(one.documents)}
    assert {one.id for one in edited.questions if one.answers} == answered


def test_edits_can_follow_edits(world):
    once = world.apply(world.edit(40, seed=1))
    edits = once.edit(40, seed=1)

    assert all(edit.before.date < edit.date for edit in edits)
    assert different(once, once.apply(edits)) == {name for edit in edits for name in edit.questions}


def test_after_many_edits_of_few_subjects_no_question_holds_its_answer():
    few = closed_world(subjects=24, distractors=1, two_hop=1)
    for seed in range(30):
        edits = few.edit(12, seed)
        edited = few.apply(edits)
        twins = {subject.twin: subject for subject in few.subjects if subject.twin}
        for edit in edits:
            relation = edit.fact.split(".")[1]
            assert edit.new not in (edit.old, twins[edit.after.name].values[relation].text)
        test_no_question_holds_its_answer(edited)
        test_two_hops_need_two_documents_and_do_not_name_what_is_between(edited, at_least=0)
        few = edited


def test_an_edit_is_refused_where_its_subject_is_no_longer_the_same(world):
    edits = world.edit(3)

    with pytest.raises(ValueError, match="another state"):
        world.apply([*edits, edits[0]])
    with pytest.raises(ValueError, match="another state"):
        world.apply([*world.add(1), *world.add(1)])


def test_edits_are_the_same_for_one_seed_and_other_for_another(world):
    assert world.edit(5, seed=4) == world.edit(5, seed=4)
    assert {edit.fact for edit in world.edit(5, seed=4)} != {edit.fact for edit in world.edit(5, seed=5)}


def test_more_edits_than_a_world_has_subjects_are_refused():
    small = closed_world(subjects=3)

    with pytest.raises(ValueError, match="cannot change 4: this world has only 3"):
        small.edit(4)
    with pytest.raises(ValueError, match="cannot remove 4: this world has only 3"):
        small.remove(4)


# Files and counts


def test_writing_twice_gives_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        closed_world(subjects=20).write(tmp_path / name)
    names = files_in(tmp_path / "one")

    assert names == files_in(tmp_path / "two")
    assert all((tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes() for name in names)


def test_the_files_hold_the_world(tmp_path):
    small = closed_world(subjects=20)
    small.write(tmp_path / "world")
    rows = {name: [json.loads(line) for line in (tmp_path / "world" / name).read_text().splitlines()] for name in (
        "documents.jsonl", "facts.jsonl", "questions_train.jsonl", "questions_dev.jsonl", "questions_test.jsonl",
    )}  # fmt: skip
    pages = {row["id"]: (tmp_path / "world" / "documents" / row["id"]).read_text() for row in rows["documents.jsonl"]}

    assert pages == {document.id: document.text for document in small.documents}
    assert all(pages[row["document"]][row["start"] : row["end"]] == row["value"] for row in rows["facts.jsonl"])
    questions = {row["id"]: row for split in ("train", "dev", "test") for row in rows[f"questions_{split}.jsonl"]}
    assert len(questions) == len(small.questions)
    for question in small.questions:
        row = questions[question.id]
        assert list(row)[:3] == ["question", "answers", "document"]
        assert (row["question"], tuple(row["answers"]), row["document"], row["split"]) == (
            question.question, question.answers, question.document, question.split,
        )  # fmt: skip
    summary = json.loads((tmp_path / "world" / "world.json").read_text())
    assert summary == {**world_summary(small), "sha256": folder_digest(tmp_path / "world")}


def test_the_digest_covers_every_page(tmp_path):
    closed_world(subjects=5).write(tmp_path / "world")
    before = folder_digest(tmp_path / "world")
    page = next((tmp_path / "world" / "documents").iterdir())
    page.write_text(page.read_text() + " ")

    assert folder_digest(tmp_path / "world") != before


def test_a_folder_that_holds_something_is_refused_and_left_alone(tmp_path):
    (tmp_path / "note.txt").write_text("mine")

    with pytest.raises(OutputError, match="not empty"):
        closed_world(subjects=5).write(tmp_path)
    assert files_in(tmp_path) == ["note.txt"]


def test_a_summary_counts_what_there_is(world):
    counts = world_summary(world)

    assert counts["settings"]["seed"] == 3
    assert counts["documents"]["subject"] == sum(counts["subjects"].values()) == 240
    assert counts["documents"]["all"] == len(world.documents)
    questions = counts["questions"]
    assert questions["all"] == questions["train"] + questions["dev"] + questions["test"]
    assert questions["all"] == questions["one_hop"] + questions["two_hops"] == len(world.questions)
    assert questions["unanswerable"] == len([one for one in world.questions if one.answers == ()])
    asked = [fact for fact in world.facts if fact.id in {one.fact for one in world.questions}]
    assert (counts["facts"]["all"], counts["facts"]["asked"]) == (len(world.facts), len(asked))


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"subjects": 0}, "subjects is 0"),
        ({"paraphrases": 0}, "paraphrases is 0"),
        ({"paraphrases": 5}, "1 to 4"),
        ({"distractors": 1.5}, "distractors is 1.5"),
        ({"two_hop": -0.1}, "two_hop is -0.1"),
    ],
)
def test_numbers_out_of_range_are_refused(fault, words):
    with pytest.raises(ValueError, match=words):
        closed_world(**{"subjects": 3} | fault)


def test_shares_of_none_and_all_are_kept():
    none = closed_world(subjects=40, distractors=0, two_hop=0, unanswerable=0, noise=0)
    every = closed_world(subjects=40, distractors=1, two_hop=1, unanswerable=1, noise=1)

    assert world_summary(none)["documents"] == {"all": 40, "subject": 40}
    assert all(one.answers and one.hops == 1 for one in none.questions)
    assert world_summary(every)["documents"] == {"all": 120, "distractor": 40, "noise": 40, "subject": 40}
    assert len({one.fact for one in every.questions if one.hops == 1 and not one.answers}) == 40


def test_ten_thousand_subjects_take_seconds():
    begin = time.process_time()
    large = closed_world(subjects=10_000)
    questions = len(large.questions)

    assert len(large.documents) > 15_000 and questions > 130_000
    # A thousand stems are drawn twice; no two subjects keep the same.
    assert len({subject.name.split()[0] for subject in large.subjects}) == len(large.subjects)
    assert time.process_time() - begin < 60
