"""The index: what it finds, and that it holds exactly what it was last told."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import sqlite3
import threading
import time

import numpy as np
import pytest

from ftkit.errors import DataError, OutputError
from ftkit.rag import growth
from ftkit.rag.document import Document
from ftkit.rag.encoder import EncoderPair, load_encoder
from ftkit.rag.index import Index, create_index
from ftkit.rag.settings import IndexSettings
from ftkit.rag.vectors import nearest
from tests.rag.encoders import encoder_folder

MODES = ("dense", "lexical", "hybrid")
TEXTS = {
    "apples": "Apples are red and sweet.\n\nThey grow on trees in autumn.",
    "boats": "Boats float on water.\n\nA boat with sails needs wind.",
    "clocks": "Clocks tell the time.\n\nA clock with a pendulum ticks.",
}


def document(name, text, **metadata):
    return Document(id=name, text=text, metadata=metadata)


def documents(texts=TEXTS):
    return [document(name, text) for name, text in texts.items()]


@pytest.fixture
def settings(tiny_encoder, pair):
    return IndexSettings(encoder=str(tiny_encoder), encoder_sha256=pair.sha256, width=16, passage_tokens=32)


@pytest.fixture
def index(tmp_path, settings, pair):
    with create_index(tmp_path / "index", settings) as made:
        made.add(documents(), pair)
        yield made


def seen(index, pair, *questions):
    """Everything that searches show, without the ids of passages, which are an index's own."""
    return [
        [(hit.passage.document, hit.passage.start, hit.passage.text, round(hit.score, 6)) for hit in hits]
        for question in questions or ("sweet red apples", "wind", "time ticks 7")
        for mode in MODES
        for hits in [index.search(question, pair, count=50, mode=mode)]
    ]


def test_a_passage_is_found_by_its_own_words_in_every_mode(index, pair):
    for mode in MODES:
        best = index.search("A boat with sails needs wind.", pair, count=1, mode=mode)[0].passage

        assert (best.document, best.text) == ("boats", "A boat with sails needs wind.")
        assert index.text("boats")[best.start : best.end] == best.text


def test_dense_search_is_exact(index, pair):
    passages = index.all_passages()
    query = pair.query.vectors(["needs sweet time"], "query")
    products = (index.vectors_of(passages).astype(np.float64) @ query[0].astype(np.float64)).tolist()
    expected = sorted(zip(products, passages, strict=True), key=lambda pair: -pair[0])

    hits = index.dense(query, 10, encoder_sha256=pair.sha256)[0]

    assert len(hits) == len(passages) == 6
    assert [hit.passage.text for hit in hits] == [passage.text for _, passage in expected]
    assert [hit.score for hit in hits] == pytest.approx([score for score, _ in expected], abs=1e-9)


def test_bm25_is_the_formula_of_the_paper(tmp_path, settings, pair):
    texts = {"one": "red apples", "two": "red boats and red clocks", "three": "green grass", "four": "blue water"}
    with create_index(tmp_path / "bm25", settings) as index:
        index.add(documents(texts), pair)
        hits = index.lexical("red", 10)
    # Two of four passages have the word, so idf = ln((4 - 2 + .5) / (2 + .5)) = 0, which FTS5 keeps just above 0:
    # 1e-6. Lengths 2 and 5, mean (2 + 5 + 2 + 2) / 4 = 2.75; tf (k + 1) / (tf + k (1 - b + b length / mean)).
    idf, mean = 1e-6, 2.75
    score = {
        "one": idf * 1 * 2.2 / (1 + 1.2 * (0.25 + 0.75 * 2 / mean)),
        "two": idf * 2 * 2.2 / (2 + 1.2 * (0.25 + 0.75 * 5 / mean)),
    }

    assert {hit.passage.document: hit.score for hit in hits} == pytest.approx(score)


def test_hybrid_adds_the_reciprocal_ranks(index, pair):
    hits = index.search("red apples", pair, count=6)
    dense = [hit.passage.id for hit in index.search("red apples", pair, count=6, mode="dense")]
    lexical = [hit.passage.id for hit in index.search("red apples", pair, count=6, mode="lexical")]

    for hit in hits:
        ranks = [found.index(hit.passage.id) + 1 for found in (dense, lexical) if hit.passage.id in found]
        assert hit.score == pytest.approx(sum(1 / (60 + rank) for rank in ranks))
        assert sorted(hit.ranks.values()) == sorted(ranks)


def test_an_index_that_grew_by_edits_equals_one_built_anew(tmp_path, settings, pair):
    final = {"apples": "Apples may be green.", "clocks": TEXTS["clocks"], "doors": "Doors open.\n\nDoors close."}
    with create_index(tmp_path / "grown", settings) as grown, create_index(tmp_path / "anew", settings) as anew:
        grown.add(documents(), pair)
        grown.add([document("apples", "Apples are blue."), document("doors", final["doors"])], pair)
        grown.remove(["boats"])
        grown.add([document("apples", final["apples"])], pair)
        anew.add(documents(final), pair)

        assert seen(grown, pair) == seen(anew, pair)
        assert grown.documents == anew.documents == ["apples", "clocks", "doors"]


def test_an_edit_is_seen_by_the_next_search_also_of_another_reader(index, pair):
    with Index(index.folder) as reader:
        assert reader.lexical("violins", 5) == []
        index.add([document("boats", "Violins are loud.")], pair)

        assert [hit.passage.text for hit in reader.lexical("violins", 5)] == ["Violins are loud."]
        assert reader.lexical("sails", 5) == []
        assert {hit.passage.document for hit in reader.search("Violins are loud.", pair, count=1, mode="dense")} == {
            "boats"
        }


def test_a_rollback_restores_exactly_what_was_found_before(index, pair):
    before, version = seen(index, pair), index.version
    index.add([document("boats", "Nothing floats."), document("zebras", "Zebras have stripes.")], pair)
    index.remove(["clocks"])
    after, newest = seen(index, pair), index.version
    assert after != before

    back = index.rollback(version)

    assert seen(index, pair) == before
    assert (index.version, back.version) == (version, version)
    assert (back.added, back.replaced, back.removed) == (("clocks",), ("boats",), ("zebras",))
    index.rollback(newest)
    assert seen(index, pair) == after


def test_what_follows_a_rollback_builds_on_it(index, pair):
    first = index.version
    index.remove(["apples"])
    index.rollback(first)
    change = index.add([document("doors", "Doors open.")], pair)

    assert change.version == first + 2
    assert index.documents == ["apples", "boats", "clocks", "doors"]
    assert [(info.number, info.parent) for info in index.versions()][-1] == (first + 2, first)


def test_versions_say_what_was_done(index):
    index.remove(["apples"])

    assert [(info.number, info.changed, info.note) for info in index.versions()] == [
        (0, 0, "empty"),
        (1, 3, "3 documents added or replaced"),
        (2, 1, "1 documents removed"),
    ]


def test_what_is_as_it_was_makes_no_version_and_is_not_embedded_again(index, pair):
    change = index.add([document("apples", TEXTS["apples"])], pair)

    assert (change.version, change.unchanged, change.added, change.embedded) == (1, ("apples",), (), 0)
    changed = index.add([document("apples", TEXTS["apples"] + "\n\nPears too.")], pair)
    assert (changed.version, changed.replaced, changed.embedded) == (2, ("apples",), 1)


def test_metadata_is_part_of_a_document(index, pair):
    change = index.add([document("apples", TEXTS["apples"], title="Fruit")], pair)

    assert change.replaced == ("apples",)
    assert index.lexical("autumn", 1)[0].passage.metadata == {"title": "Fruit"}


def test_equally_good_passages_come_in_order_of_their_names(tmp_path, settings, pair):
    names = [f"d{number:03d}" for number in range(80)]
    with create_index(tmp_path / "ties", settings) as index:
        index.add([document(name, "The very same words.") for name in reversed(names)], pair)
        for mode in MODES:
            hits = index.search("same words", pair, count=5, mode=mode)

            assert [hit.passage.document for hit in hits] == names[:5]


def test_searching_by_rows_gives_what_sorting_gives():
    draw = np.random.default_rng(0)
    matrix = draw.normal(size=(500, 8)).astype(np.float32)
    rows, queries = draw.permutation(500)[:300], draw.normal(size=(40, 8)).astype(np.float32)

    for (places, scores), query in zip(nearest(queries, matrix, rows, 7), queries, strict=True):
        exact = np.round(matrix[rows].astype(np.float64) @ query.astype(np.float64), 9)
        expected = np.argsort(-exact)[:7]
        assert places[:7].tolist() == expected.tolist()
        assert scores[:7].tolist() == exact[expected].tolist()


def test_a_question_is_words_and_never_query_language(index):
    for question in (
        'red" OR "wind',
        "NEAR(red wind)",
        "text:red",
        "-red",
        "*",
        "()",
        "AND",
        "",
        "'; drop table live",
    ):
        index.lexical(question, 5)
    assert index.lexical("NOT red", 1)[0].passage.document == "apples"


def test_rare_words_are_searched_where_all_would_cost_too_much(index, monkeypatch):
    monkeypatch.setattr("ftkit.rag.lexical.SCORED_AT_MOST", 2)  # of the six passages "a" has two, "wind" one

    assert {hit.passage.text for hit in index.lexical("a wind", 5)} == {"A boat with sails needs wind."}
    assert len(index.lexical("a", 5)) == 2


def test_no_passage_wanted_is_no_passage_found(index, pair):
    assert [index.search("apples", pair, count=0, mode=mode) for mode in MODES] == [[], [], []]


# What is refused


def test_a_query_of_another_encoder_is_refused(index, pair, tmp_path):
    other = EncoderPair(load_encoder(str(encoder_folder(tmp_path / "other", seed=1))))
    wider = EncoderPair(load_encoder(str(encoder_folder(tmp_path / "wider", width=32))))

    with pytest.raises(DataError, match="comes from another"):
        index.search("apples", other, count=1)
    with pytest.raises(DataError, match="comes from another"):
        index.add([document("x", "text")], other)
    with pytest.raises(DataError, match="holds vectors of 16 numbers; this encoder gives 32"):
        index.add([document("x", "text")], wider)
    with pytest.raises(DataError, match="comes from another"):
        index.search("apples", EncoderPair(pair.query, other.document), count=1)


def test_a_question_longer_than_the_encoder_reads_is_refused(index, pair):
    with pytest.raises(DataError, match=r"a query of \d+ tokens; tiny reads 64"):
        index.search("why " * 40, pair, count=1)


def test_every_unknown_id_is_named_and_nothing_removed(index):
    with pytest.raises(DataError) as caught:
        index.remove(["apples", "boat", "xylophones"])

    assert "no document 'boat'" in str(caught.value) and "Did you mean 'boats'?" in str(caught.value)
    assert "no document 'xylophones'" in str(caught.value)
    assert index.documents == ["apples", "boats", "clocks"]


def test_documents_that_cannot_be_kept_are_refused_all_at_once(index, pair):
    with pytest.raises(DataError) as caught:
        index.add([document("a", "one"), document("a", "two"), document("b", " \n")], pair)

    assert "a: two documents have this id" in str(caught.value) and "b: is empty" in str(caught.value)


def test_a_version_that_never_was_is_refused(index):
    with pytest.raises(DataError, match=r"has no version 7\n.*Versions: 0 to 1"):
        index.rollback(7)


def test_two_writers_do_not_meet(index, pair):
    with Index(index.folder) as other, index._writing(), pytest.raises(OutputError, match="another process"):
        other.add([document("x", "text")], pair)


def test_an_index_of_another_format_or_none_is_refused(index, tmp_path):
    values = json.loads((index.folder / "index.json").read_text())
    (index.folder / "index.json").write_text(json.dumps(values | {"format_version": 2}))
    with pytest.raises(DataError, match="is of format 2; this ftkit reads 1"):
        Index(index.folder)
    with pytest.raises(DataError, match="is no index"):
        Index(tmp_path / "nowhere")


@pytest.mark.parametrize("damage", ["database", "vectors", "settings", "gone"])
def test_a_damaged_index_is_named_as_one(index, pair, damage, tmp_path):
    index.close()
    copy = tmp_path / "copy"
    shutil.copytree(index.folder, copy)
    if damage == "database":
        (copy / "index.sqlite").write_bytes(b"x" * 100 + (copy / "index.sqlite").read_bytes()[100:])
    elif damage == "vectors":
        (copy / "vectors.f32").write_bytes((copy / "vectors.f32").read_bytes()[:-4])
    elif damage == "settings":
        (copy / "index.json").write_text('{"format_version": 1, "encoder": 3')
    else:
        (copy / "index.sqlite").unlink()

    with pytest.raises(DataError, match=f"{copy}.*(damaged|should hold|cannot be read|is no index)"):
        Index(copy).search("apples", pair, count=1)


def test_a_folder_that_cannot_be_written_to_can_be_searched(index, pair):
    before = seen(index, pair)
    index.close()
    with Index(index.folder, read_only=True) as reader:
        assert seen(reader, pair) == before
        with pytest.raises(OutputError, match="cannot be written to"):
            reader.remove(["apples"])
    assert sorted(path.name for path in index.folder.iterdir()) == [
        ".lock",
        "index.json",
        "index.sqlite",
        "vectors.f32",
    ]


# Kills


def write_without_end(folder, pair, pipe):
    """A child process that adds and replaces documents until it is killed, and says what is done."""
    growth.EMBEDDED_AT_ONCE = 5
    with Index(folder) as index:
        for number in itertools.count(1):
            index.add(
                [
                    document(f"d{one}", f"Round {number} of paper {one}.\n\nMore {number * one} words.")
                    for one in range(40)
                ],
                pair,
            )
            os.write(pipe, f"{number}\n".encode())


def test_a_kill_at_any_moment_leaves_one_of_the_versions_whole(index, pair):
    draw = np.random.default_rng(0)
    for _ in range(8):
        reader, pipe = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                write_without_end(index.folder, pair, pipe)
            finally:
                os._exit(1)
        os.close(pipe)
        time.sleep(float(draw.uniform(0.05, 0.5)))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with os.fdopen(reader) as stream:
            done = [int(line) for line in stream.read().split()]
        with Index(index.folder) as found:
            rounds = {
                int(passage.text.split()[1]) for passage in found.all_passages() if passage.text.startswith("Round")
            }
            assert len(rounds) <= 1
            assert not done or max(rounds) >= done[-1]
            found.require_sound()
            seen(found, pair)


def test_what_was_embedded_before_a_kill_is_not_embedded_again(index, pair, monkeypatch):
    monkeypatch.setattr(growth, "EMBEDDED_AT_ONCE", 3)
    new = [document(f"n{number}", f"Number {number} is new.") for number in range(10)]
    stored = growth.Growth._store_vectors
    calls = []

    def dies(*given):
        calls.append(given)
        if len(calls) == 3:
            raise KeyboardInterrupt
        stored(*given)

    monkeypatch.setattr(growth.Growth, "_store_vectors", dies)
    with pytest.raises(KeyboardInterrupt):
        index.add(new, pair)
    assert index.version == 1
    monkeypatch.setattr(growth.Growth, "_store_vectors", stored)

    assert index.add(new, pair).embedded == 4  # of ten, two times three were stored


def test_searches_during_writes_see_one_version_each(index, pair):
    faults, stop = [], threading.Event()

    def read():
        with Index(index.folder) as reader:
            while not stop.is_set():
                found = {hit.passage.text for hit in reader.lexical("round", 100)}
                if len(found) > 1:
                    faults.append(found)

    thread = threading.Thread(target=read)
    thread.start()
    for number in range(20):
        index.add([document(f"d{one}", f"Round {number}.") for one in range(10)], pair)
    stop.set()
    thread.join()

    assert faults == []


# Damage that searches would not notice


@pytest.mark.parametrize("what", ["a vector", "a text", "the words", "a passage", "the head"])
def test_a_thorough_look_finds_changed_contents(index, what):
    assert index.require_sound() == 6
    index.close()
    with sqlite3.connect(index.folder / "index.sqlite") as database:
        if what == "a vector":
            with (index.folder / "vectors.f32").open("r+b") as stream:
                stream.seek(70)
                stream.write(b"\x01")
        elif what == "a text":
            database.execute("update revision set text = replace(text, 'red', 'tan')")
        elif what == "the words":
            database.execute("delete from lexical_data where id > 10")
        elif what == "a passage":
            database.execute('update passage set "end" = "end" - 1 where id = 2')
        else:
            database.execute("delete from live where document = 'boats'")
    database.close()

    with Index(index.folder) as damaged, pytest.raises(DataError, match=r"damaged|differ"):
        damaged.require_sound()


def test_permissions_are_the_persons_own(index):
    mask = os.umask(0)
    os.umask(mask)
    for name in ("index.json", "index.sqlite", "vectors.f32"):
        assert (index.folder / name).stat().st_mode & 0o777 == 0o666 & ~mask
