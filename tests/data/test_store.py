"""Token stores and the sequences read from them: exact, lazy, and refused where a byte has changed."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from array import array
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftkit.data.arrays import TYPES, ArrayBuilder, TokenArrays
from ftkit.data.encode import Encoded, Encoder, example_of
from ftkit.data.example import TokenizedExample, lengths_of
from ftkit.data.sample import Content, Sample, Turn
from ftkit.data.store import DamagedStoreError, StoreWriter, TokenStore
from ftkit.data.stored import NamedStore, StoredExamples
from ftkit.errors import Problem
from tests.data.preparing import chat
from tests.data.storing import arrays_of, empty_arrays, tiny_settings, write_store

FILES = ["rows.bin", "sequences.bin", "ids.bin", "spans.bin", "texts.bin", "findings.jsonl"]


def sample(*contents: str, group: str | None = None) -> Sample:
    roles = ["user", "assistant"] * len(contents)
    turns = tuple(Turn(role=role, content=text) for role, text in zip(roles, contents, strict=False))
    return Sample(content=Content(turns=turns), kind="chat", place="rows.jsonl:1", group=group)


def encoded(ids: list[int], spans: list[tuple[int, int]], *, turn: int = 1) -> Encoded:
    return Encoded(ids=array("i", ids), spans=spans, answer_start=spans[-1][0], stop_id=ids[-1], turn=turn)


def by_hand() -> TokenArrays:
    """Two rows: one of a single sequence, one that is trained turn by turn in two."""
    builder = ArrayBuilder()
    builder.add(sample("hi", "yo"), 4, [encoded([7, 8, 9, 2], [(2, 4)])])
    second = [encoded([5, 6, 2], [(1, 3)]), encoded([5, 6, 2, 7, 1, 2], [(1, 2), (4, 6)], turn=3)]
    builder.add(sample("a", "b", "c", "d"), 6, second)
    return TokenArrays(arrays=builder.build(), findings=[("e-mail", 6, ": turn 0", "jo…@firma.de")])


def named(store: TokenStore, **changes) -> NamedStore:
    return NamedStore(**({"store": store, "names": ("rows.jsonl",), "styles": ("line",), "source": 0} | changes))


def all_of(*stores: NamedStore, max_length: int = 10**9) -> StoredExamples:
    chosen = [(which, index) for which, one in enumerate(stores) for index in range(len(one.store.sequences))]
    return StoredExamples(stores, np.array(chosen, np.int64).reshape(-1, 2), max_length)


def test_a_row_comes_back_as_it_was_put_in(tmp_path):
    store = write_store(tmp_path, by_hand())

    assert store.rows["number"].tolist() == [4, 6]
    assert store.rows["first_sequence"].tolist() == [0, 1]
    assert store.rows["sequences"].tolist() == [1, 2]
    assert [store.ids(index).tolist() for index in range(3)] == [[7, 8, 9, 2], [5, 6, 2], [5, 6, 2, 7, 1, 2]]
    assert [store.spans(index).tolist() for index in range(3)] == [[[2, 4]], [[1, 3]], [[1, 2], [4, 6]]]
    assert store.sequences["supervised"].tolist() == [2, 2, 3]
    assert store.sequences["row"].tolist() == [0, 1, 1]
    assert store.texts(0) == {"asked": [["hi", "yo"]]}
    assert store.texts(1) == {"asked": [["a", "b"], ["c", "d"]]}
    assert list(store.findings()) == list(store.findings()) == [(0, "e-mail", 6, ": turn 0", "jo…@firma.de")]


def test_a_block_put_behind_another_points_at_its_own_tokens(tmp_path):
    store = write_store(tmp_path, by_hand(), empty_arrays(), by_hand(), files=[0, 0, 1])

    assert store.rows["file"].tolist() == [0, 0, 1, 1]
    assert store.rows["first_sequence"].tolist() == [0, 1, 3, 4]
    assert store.sequences["row"].tolist() == [0, 1, 1, 2, 3, 3]
    assert [store.ids(index).tolist() for index in (3, 5)] == [[7, 8, 9, 2], [5, 6, 2, 7, 1, 2]]
    assert store.spans(5).tolist() == [[1, 2], [4, 6]]
    assert store.texts(3) == {"asked": [["a", "b"], ["c", "d"]]}
    assert [file for file, *_ in store.findings()] == [0, 1]


def test_tokens_of_neighbouring_sequences_are_read_at_once(tmp_path):
    store = write_store(tmp_path, by_hand())

    assert store.ids_between(0, 2).tolist() == [7, 8, 9, 2, 5, 6, 2]
    assert store.ids_between(1, 3).tolist() == [5, 6, 2, 5, 6, 2, 7, 1, 2]
    assert store.ids_between(1, 1).tolist() == []


def test_a_store_without_rows_is_a_store(tmp_path):
    store = write_store(tmp_path)

    assert (len(store.rows), len(store.sequences), list(store.findings())) == (0, 0, [])


def test_the_digest_is_of_the_tokens_and_not_of_what_is_shown_beside_them(tmp_path):
    first = write_store(tmp_path / "a", by_hand())
    without_findings, other_token = by_hand(), by_hand()
    without_findings.findings = []
    other_token.arrays["ids"][3] = 3

    assert write_store(tmp_path / "b", by_hand()).digest == first.digest
    assert write_store(tmp_path / "c", without_findings).digest == first.digest
    assert write_store(tmp_path / "d", other_token).digest != first.digest


@settings(max_examples=50, deadline=None)
@given(
    rows=st.lists(st.tuples(st.text(min_size=1), st.text(min_size=1)), max_size=5),
    problems=st.lists(st.tuples(st.text(), st.text(), st.text()), max_size=3),
)
def test_arrays_travel_between_processes_unchanged_whatever_the_texts(rows, problems):
    builder = ArrayBuilder()
    for number, (asked, said) in enumerate(rows):
        builder.add(sample(asked, said), number, [encoded([1, 2, 3], [(1, 3)])])
    sent = TokenArrays(
        arrays=builder.build(),
        problems=[Problem(where=where, what=what, fix=fix) for where, what, fix in problems],
        findings=[("secret", number, asked, said) for number, (asked, said) in enumerate(rows)],
    )
    come = TokenArrays.from_bytes(sent.to_bytes())

    assert come.problems == sent.problems
    assert come.findings == sent.findings
    for name, dtype in TYPES.items():
        assert come.arrays[name].dtype == dtype.base
        assert come.arrays[name].shape == sent.arrays[name].shape
        assert come.arrays[name].tobytes() == sent.arrays[name].tobytes()


def test_half_a_surrogate_pair_in_a_message_survives_the_way_between_processes():
    sent = empty_arrays()
    sent.problems = [Problem(where="rows.jsonl:1: \ud83d", what="is no key")]

    assert TokenArrays.from_bytes(sent.to_bytes()).problems == sent.problems


# Damage


@pytest.mark.parametrize("name", [*FILES, "store.json"])
def test_any_single_flipped_bit_is_noticed(name, tmp_path):
    write_store(tmp_path, by_hand())
    whole = (tmp_path / name).read_bytes()
    for place in {0, len(whole) // 3, len(whole) // 2, len(whole) - 2}:
        changed = bytearray(whole)
        changed[place] ^= 1
        (tmp_path / name).write_bytes(changed)
        with pytest.raises(DamagedStoreError):
            TokenStore(tmp_path)
    (tmp_path / name).write_bytes(whole)
    assert len(TokenStore(tmp_path).rows) == 2


@pytest.mark.parametrize("name", [*FILES, "store.json"])
@pytest.mark.parametrize("damage", ["cut", "longer", "empty", "gone", "a folder"])
def test_a_file_of_another_length_or_none_is_noticed(name, damage, tmp_path):
    write_store(tmp_path, by_hand())
    path = tmp_path / name
    whole = path.read_bytes()
    if damage in ("gone", "a folder"):
        path.unlink()
    if damage == "a folder":
        path.mkdir()
    if damage in ("cut", "longer", "empty"):
        path.write_bytes({"cut": whole[:-1], "longer": whole + b"{}\n", "empty": b""}[damage])

    if (name, damage) == ("store.json", "cut"):  # the line break at its end says nothing
        assert len(TokenStore(tmp_path).rows) == 2
    else:
        with pytest.raises(DamagedStoreError):
            TokenStore(tmp_path)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "7", "{}", "[" * 100_000, '{"format_version": 1}', '{"format_version": 1, "sha256": 3}'],
)
def test_a_list_of_contents_that_is_none_is_noticed(text, tmp_path):
    write_store(tmp_path, by_hand())
    (tmp_path / "store.json").write_text(text)

    with pytest.raises(DamagedStoreError):
        TokenStore(tmp_path)


def test_a_store_of_another_version_is_refused(tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr("ftkit.data.store.FORMAT_VERSION", 999)
        write_store(tmp_path, by_hand())

    with pytest.raises(DamagedStoreError, match="of another version"):
        TokenStore(tmp_path)


def test_facts_beside_the_arrays_are_guarded_too(tmp_path):
    write_store(tmp_path, by_hand())
    facts = json.loads((tmp_path / "store.json").read_text())
    facts["styles"] = ["index"]  # rows would be called by other numbers
    (tmp_path / "store.json").write_text(json.dumps(facts))

    with pytest.raises(DamagedStoreError, match=r"store\.json: has changed"):
        TokenStore(tmp_path)


def test_a_build_that_never_finishes_is_no_store(tmp_path):
    with StoreWriter(tmp_path) as writer:
        writer.append(by_hand(), file=0)

    with pytest.raises(DamagedStoreError):
        TokenStore(tmp_path)


def test_a_file_that_is_cut_while_it_is_in_use_is_an_error_and_not_zeros(tmp_path):
    store = write_store(tmp_path, by_hand())
    os.truncate(tmp_path / "ids.bin", 8)

    assert store.spans(0).tolist() == [[2, 4]]
    with pytest.raises(DamagedStoreError, match=r"ids\.bin became shorter"):
        store.ids(2)


def test_a_store_in_use_outlives_its_folder(tmp_path):
    store = write_store(tmp_path / "store", by_hand())
    shutil.rmtree(tmp_path / "store")

    assert store.ids(2).tolist() == [5, 6, 2, 7, 1, 2]
    assert store.texts(0) == {"asked": [["hi", "yo"]]}
    assert len(list(store.findings())) == 1


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts open files in /proc")
def test_a_store_keeps_four_files_open_and_lets_go_of_them(tmp_path):
    before = open_files()
    stores = [write_store(tmp_path / str(index), by_hand()) for index in range(10)]
    assert open_files() - before <= 4 * len(stores)

    for store in stores:
        list(store.findings())
    del stores, store
    assert open_files() <= before


# Sequences


words = st.text("abc xyz", min_size=1, max_size=20).filter(str.strip)
conversations = st.lists(
    st.lists(words, min_size=2, max_size=4).filter(lambda texts: len(texts) % 2 == 0), max_size=6
)


@settings(max_examples=30, deadline=None)
@given(contents=conversations, max_length=st.integers(13, 60))
def test_stored_sequences_are_those_of_the_encoder_cut_to_the_limit(contents, max_length):
    encoder = Encoder(tiny_settings())
    samples = [sample(*texts) for texts in contents]
    direct = [example_of(one, each).cut(max_length) for each in samples for one in encoder.encode(each)]
    with tempfile.TemporaryDirectory() as folder:
        store = write_store(Path(folder), arrays_of([chat(*texts) for texts in contents]))
        stored = all_of(named(store), max_length=max_length)

        assert [vars(one) | {"place": ""} for one in stored] == [vars(one) | {"place": ""} for one in direct]
        assert [one.place for one in stored] == [f"rows.jsonl:{number}" for number in range(1, len(contents) + 1)]
        assert stored.supervised.tolist() == [one.supervised_tokens for one in direct]
        assert lengths_of(stored) == stored.lengths.tolist() == [len(one.input_ids) for one in direct]


def test_a_sequence_that_is_cut_counts_only_what_is_left(tmp_path):
    stored = all_of(named(write_store(tmp_path, by_hand())), max_length=3)

    assert stored.lengths.tolist() == [3, 3, 3]
    assert stored.truncated.tolist() == [True, False, True]
    assert stored.supervised.tolist() == [1, 2, 1]  # of the spans 2-4, 1-3, and 1-2 with 4-6
    assert stored.rows_truncated == 2
    assert [one.labels for one in stored] == [[-100, -100, 9], [-100, 6, 2], [-100, 6, -100]]
    assert [one.answer_start for one in stored] == [2, 1, 3]


def test_each_sequence_shows_the_question_and_answer_of_its_own_turn(tmp_path):
    stored = all_of(named(write_store(tmp_path, by_hand())))

    assert [(one.question, one.answer) for one in stored] == [("hi", "yo"), ("a", "b"), ("c", "d")]
    assert [one.place for one in stored] == ["rows.jsonl:4", "rows.jsonl:6", "rows.jsonl:6"]


def test_plain_text_has_neither_question_nor_answer(tmp_path):
    (only,) = all_of(named(write_store(tmp_path, arrays_of([{"text": "some words"}], form="text"))))

    assert (only.question, only.answer, only.answer_start) == (None, None, 0)


def test_stored_sequences_are_a_sequence(tmp_path):
    stored = all_of(named(write_store(tmp_path, by_hand())))

    assert (len(stored), stored[-1], len(stored[1:])) == (3, stored[2], 2)
    assert isinstance(stored[0], TokenizedExample)
    assert stored[1:][0] == stored[1]
    assert [one.stop_id for one in stored[::-1]] == stored[::-1].stop_ids.tolist()
    with pytest.raises(IndexError):
        stored[3]


def test_rows_of_several_stores_keep_their_sources_names_and_keys_apart(tmp_path):
    first = named(write_store(tmp_path / "a", by_hand()), source=0)
    second = named(
        write_store(tmp_path / "b", by_hand(), by_hand(), files=[0, 1]),
        names=("x.parquet", "y.jsonl"), styles=("index", "line"), source=2,
    )  # fmt: skip
    stored = all_of(first, second)

    assert stored.sources.tolist() == [0] * 3 + [2] * 6
    assert len(set(stored.row_keys.tolist())) == 6
    assert [stored.place(index) for index in (0, 3, 8)] == ["rows.jsonl:4", "x.parquet[4]", "y.jsonl:6"]
    assert [stored[index].place for index in (0, 3, 8)] == ["rows.jsonl:4", "x.parquet[4]", "y.jsonl:6"]
    assert [one.where for one in second.findings()] == ["x.parquet[6]: turn 0", "y.jsonl:6: turn 0"]


def test_no_sequences_have_no_numbers_and_do_not_fail(tmp_path):
    nothing = all_of(named(write_store(tmp_path, by_hand())))[:0]

    assert (nothing.lengths.tolist(), nothing.supervised.tolist(), nothing.sources.tolist()) == ([], [], [])
    assert (nothing.rows_truncated, nothing.group_keys, list(nothing)) == (0, set(), [])


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """50,000 sequences of 16 to 65 tokens."""
    block = arrays_of([chat("hi", "y" * (1 + index % 50)) for index in range(500)])
    return write_store(tmp_path_factory.mktemp("many"), *[block] * 100)


@pytest.fixture
def reads(monkeypatch):
    """Which arrays were read from disk, in order."""
    done, real = [], TokenStore._read

    def counting(self, name, start, count):
        done.append(name)
        return real(self, name, start, count)

    monkeypatch.setattr(TokenStore, "_read", counting)
    return done


def test_facts_about_fifty_thousand_sequences_are_known_without_reading_any(many, reads):
    stored = all_of(named(many))
    assert len(stored) == 50_000
    assert (int(stored.lengths.min()), int(stored.lengths.max())) == (15, 64)
    assert len(np.unique(stored.row_keys)) == 50_000
    assert (stored.rows_truncated, set(stored.stop_ids.tolist()), set(stored.sources.tolist())) == (0, {2}, {0})
    assert int(stored.supervised.sum()) == 1000 * sum(letters + 1 for letters in range(1, 51))  # and the stop token
    assert len(stored[10_000:20_000]) == 10_000
    assert stored.place(49_999) == "rows.jsonl:500"
    assert len(lengths_of(stored)) == 50_000

    assert reads == []


def test_one_sequence_is_read_by_itself(many, reads):
    stored = all_of(named(many))
    stored[31_234]
    assert sorted(reads) == ["ids", "spans", "texts"]


def test_only_sequences_that_are_cut_are_looked_into_to_count_what_is_left(many, reads):
    cut = all_of(named(many), max_length=63)  # those of 64 tokens: one in fifty

    assert int(cut.truncated.sum()) == 1000
    assert len(cut.supervised) == 50_000
    assert reads == ["spans"] * 1000
