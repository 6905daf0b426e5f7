"""Questions that need two documents: what the second search asks for, and that it finds the second document."""

from __future__ import annotations

import pytest

from ftkit.rag.answering import RagSystem
from ftkit.rag.evaluation import evaluate_rag
from ftkit.rag.hops import next_question
from ftkit.rag.index import create_index
from ftkit.rag.questions import AskedQuestion
from ftkit.rag.settings import AnsweringDefaults, IndexSettings, read_defaults, write_defaults
from ftkit.rag.updates import world_documents
from ftkit.rag.world import closed_world
from tests.rag.test_threshold import tiny_target

TOASTER = "Where does the company that makes the Visgudi toaster have its headquarters?"


def test_the_second_search_asks_for_what_is_open_about_the_names_that_came_up():
    found = next_question(TOASTER, "The Visgudi toaster, which the company Lerapve Foundry makes, weighs 3 kg.")
    assert found == "Where does that have its headquarters Lerapve Foundry 3"


def test_without_names_the_other_words_are_asked_for_and_without_anything_new_nothing_is():
    assert next_question("what is it", "the small red box") == "what is it the small red box"
    assert next_question("What is the rake?", "the rake is what") is None


@pytest.fixture
def world_system(tmp_path, wide_pair):
    world = closed_world(subjects=40, paraphrases=1, two_hop=0.5, seed=3)
    settings = IndexSettings(
        encoder="tiny", encoder_sha256=wide_pair.sha256, width=wide_pair.width, passage_tokens=400
    )
    index = create_index(tmp_path / "index", settings)
    index.add(world_documents(world), wide_pair)
    asked = [
        AskedQuestion(question=one.question, answers=tuple(one.answers), documents=tuple(one.documents), id=one.id)
        for one in world.questions
        if one.answers
    ]

    def system(hops):
        return RagSystem(
            index=index, encoders=wide_pair, generator=tiny_target(seed=0), mode="lexical", passages=5, hops=hops,
            max_new_tokens=2,
        )  # fmt: skip

    return system, asked


def both_found(system, asked):
    hits = [{hit.passage.document for hit in system.retrieve(one.question)} for one in asked]
    return sum(set(one.documents) <= found for one, found in zip(asked, hits, strict=True)) / len(asked)


def test_two_searches_find_both_documents_far_more_often_and_lose_nothing_else(world_system):
    system, asked = world_system
    two = [one for one in asked if len(one.documents) == 2]
    single = [one for one in asked if len(one.documents) == 1]
    assert len(two) > 20
    assert both_found(system(2), two) > both_found(system(1), two) + 0.2
    assert both_found(system(2), single) > both_found(system(1), single) - 0.03


def test_every_hit_stands_once_and_the_best_of_the_first_search_stays_first(world_system):
    system, asked = world_system
    for one in asked[:10]:
        first, both = system(1).retrieve(one.question, 5), system(2).retrieve(one.question, 5)
        assert both[0] == first[0]
        assert len({hit.passage.id for hit in both}) == len(both) == 5


def test_a_passage_longer_than_the_encoder_reads_does_not_break_the_second_search(tmp_path, pair):
    settings = IndexSettings(encoder="tiny", encoder_sha256=pair.sha256, width=pair.width, passage_tokens=60)
    index = create_index(tmp_path / "index", settings)
    long_names = " ".join(f"Qwertyuiop{number}" for number in range(5))
    world = closed_world(subjects=5, paraphrases=1, two_hop=0.0)
    documents = world_documents(world)
    index.add(documents, pair)
    system = RagSystem(
        index=index, encoders=pair, generator=tiny_target(seed=0), mode="dense", hops=2, max_new_tokens=2
    )
    assert pair.query.count(system._fitted(long_names * 4), "query") <= pair.query.max_tokens
    assert len(system.retrieve("Who is the mayor?")) == 3


def test_answers_of_one_and_of_two_searches_are_kept_apart(world_system, tmp_path):
    system, asked = world_system
    two = [one for one in asked if len(one.documents) == 2][:3]
    cache = tmp_path / "answers.jsonl"
    evaluate_rag(system(1), two, cache=cache)
    evaluate_rag(system(2), two, cache=cache)
    assert len(cache.read_text().splitlines()) == 6


def test_an_index_remembers_how_many_searches_it_was_made_for(tmp_path):
    write_defaults(tmp_path, AnsweringDefaults(hops=2))
    assert read_defaults(tmp_path).hops == 2
