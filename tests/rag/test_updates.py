"""The next answer follows an edit, and a rollback brings the former answers back exactly."""

from __future__ import annotations

import re

import pytest

from ftkit.rag.answering import RagSystem
from ftkit.rag.reader import REFUSAL
from ftkit.rag.updates import apply_edit, draw_edits, measure_updates, verdict_of, world_documents
from ftkit.rag.world import closed_world
from ftkit.rag.world.kinds import KINDS
from tests.rag.worlds import passages_in, question_in, says, tiny_target, world_index

EDITS = 50


@pytest.fixture(scope="module")
def world():
    return closed_world(subjects=60, seed=2, paraphrases=1, two_hop=0.0)


@pytest.fixture
def system(tmp_path, wide_encoder, wide_pair, world):
    with world_index(tmp_path / "index", wide_encoder, wide_pair, world) as index:
        yield RagSystem(
            index=index, encoders=wide_pair, generator=tiny_target(), mode="lexical", passages=3, max_new_tokens=8
        )


def patterns():
    """Each relation's questions and sentences, to read a page with."""
    value = r"(?P<value>\d+\.\d+ crowns|[^.\n]+?)"
    for kind in KINDS.values():
        for relation in kind.relations:
            for sentence in relation.sentences:
                parts = re.split(r"(\{it\}|\{value\})", sentence)
                pattern = "".join({"{it}": ".+?", "{value}": value}.get(part, re.escape(part)) for part in parts)
                yield relation.questions, re.compile(pattern + r"(?=\s)")


PATTERNS = list(patterns())


def extracts(prompt):
    """A reader that knows the language of the world: it looks up what the page of the subject states, or refuses."""
    question = question_in(prompt)
    for page in re.split(r"\[\d\] # ", passages_in(prompt))[1:]:
        title = page.partition("\n")[0]
        names = (title, title[:1].lower() + title[1:])
        for wordings, pattern in PATTERNS:
            if any(wording.replace("{it}", name) == question for wording in wordings for name in names):
                found = pattern.search(page)
                if found:
                    return found["value"]
    return REFUSAL


def test_fifty_edits_are_followed_at_once_and_rolled_back_exactly(system, world, monkeypatch):
    says(monkeypatch, extracts)
    edits = draw_edits(world, EDITS)
    assert [sum(edit.kind == kind for edit in edits) for kind in ("change", "addition", "removal")] == [26, 12, 12]
    documents = system.index.documents

    found = measure_updates(system, world, edits, asked=2, untouched=20)

    counts = found.counts()
    assert sum(counts.values()) == len(found.steps) >= EDITS
    assert counts["new"] >= 0.95 * len(found.steps)
    assert counts["old"] == 0
    assert {step.document for step in found.steps} == {edit.document for edit in edits}
    assert (found.untouched, found.harmed) == (20, ())
    assert found.restored == found.asked_again > 20
    assert found.right_before >= 0.95 * found.asked_again
    assert system.index.documents == documents


def test_an_index_that_ignores_edits_is_seen_as_old(system, world, monkeypatch):
    says(monkeypatch, extracts)
    edits = [edit for edit in draw_edits(world, 20) if edit.kind == "change"]
    monkeypatch.setattr("ftkit.rag.updates.apply_edit", lambda system, edit: None)

    counts = measure_updates(system, world, edits, asked=1, untouched=0).counts("change")

    assert counts["new"] == 0
    assert counts["old"] >= 0.9 * len(edits)


def test_a_reader_that_speaks_of_something_else_is_neither(system, world, monkeypatch):
    says(monkeypatch, lambda _: "Zyxomma")

    found = measure_updates(system, world, draw_edits(world, 4), asked=1, untouched=3)

    assert found.counts() == {"new": 0, "old": 0, "other": 4}
    assert found.harmed == ()  # they were wrong before too


def test_untouched_questions_that_turn_wrong_are_named(system, world, monkeypatch):
    version = system.index.version
    says(
        monkeypatch,
        lambda prompt: extracts(prompt) if system.index.version == version else REFUSAL,
    )

    found = measure_updates(system, world, draw_edits(world, 4), asked=1, untouched=5)

    assert found.harmed and len(found.harmed) <= 5
    assert found.restored == found.asked_again


def test_a_rollback_that_restores_nothing_is_seen(system, world, monkeypatch):
    says(monkeypatch, extracts)
    monkeypatch.setattr(type(system.index), "rollback", lambda self, version: None)

    found = measure_updates(system, world, draw_edits(world, 4), asked=1, untouched=3)

    assert found.restored < found.asked_again


def test_an_edited_index_equals_one_of_the_edited_world(system, world, tmp_path, wide_encoder, wide_pair):
    edits = draw_edits(world, 8)
    for edit in edits:
        apply_edit(system, edit)

    with world_index(tmp_path / "anew", wide_encoder, wide_pair, world.apply(edits)) as anew:
        assert system.index.documents == anew.documents
        for document in world_documents(world.apply(edits)):
            assert system.index.text(document.id) == anew.text(document.id)
            ours, theirs = (
                [(one.text, one.metadata) for one in index.passages_of(document.id)] for index in (system.index, anew)
            )
            assert ours == theirs


@pytest.mark.parametrize(
    ("said", "old", "new", "verdict"),
    [
        ("It is blue.", ["red"], ["blue"], "new"),
        ("red", ["red"], ["blue"], "old"),
        ("red and blue", ["red"], ["blue"], "other"),
        ("dark red", ["red"], ["dark red"], "new"),  # the old value is a part of the new one
        ("green", ["red"], ["blue"], "other"),
        (None, ["red"], ["blue"], "other"),
        (None, ["red"], [], "new"),  # removed, and the system says that it does not know
        ("red", ["red"], [], "old"),
        (None, [], ["blue"], "old"),  # added, and not known yet
    ],
)
def test_an_answer_is_new_old_or_other(said, old, new, verdict):
    assert verdict_of(said, old=old, new=new) == verdict
