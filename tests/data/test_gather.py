"""All sources into stores: places, formats, groups of small files, every fault of every file, progress."""

from __future__ import annotations

import csv
import gzip
import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from ftkit.data import gather as gather_module
from ftkit.data.gather import Gathered, Part, gather
from ftkit.data.sources import Source
from ftkit.data.tables import examples_of, row_table, token_ids
from ftkit.errors import Problem
from tests.data.preparing import chat, prepare_path, write_jsonl
from tests.data.storing import tiny_settings

GOOD = chat("hi", "yo")


def gathered(*parts: Part | Path, group_by: str | None = None, progress=None, **options) -> Gathered:
    listed = [one if isinstance(one, Part) else Part(role="train", source=Source(path=str(one))) for one in parts]
    return gather(
        listed,
        tiny_settings(),
        group_by=group_by,
        workers=0,
        progress=progress or (lambda done, total: None),
        **options,
    )


def texts(problems) -> list[str]:
    """Each problem's first line, from the file's name on."""
    return [str(problem).splitlines()[0].rpartition("/")[2] for problem in problems]


@pytest.fixture(autouse=True)
def fresh_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FTKIT_TOKEN_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "data"
    path.mkdir()
    return path


def test_rows_of_many_files_keep_their_own_places(folder):
    (folder / "a.jsonl").write_text(f"\n{json.dumps(GOOD)}\n\n{json.dumps(chat('a', 'b'))}\n")
    with (folder / "b.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("prompt", "completion"), ("two\nlines", "yo"), ("c", "d")])
    (folder / "c.json").write_text(json.dumps([GOOD, chat("e", "f")]))
    write_jsonl(folder / "d.jsonl", [{"text": "plain words"}])
    prepared = prepare_path(folder)

    assert [one.place.rpartition("/")[2] for one in prepared.train] == [
        "a.jsonl:2", "a.jsonl:4", "b.csv:2", "b.csv:4", "c.json[0]", "c.json[1]", "d.jsonl:1",
    ]  # fmt: skip
    assert [one.answer for one in prepared.train] == ["yo", "b", "yo", "d", "yo", "f", None]
    files = prepared.report.files
    assert [(Path(one.path).name, one.format, one.rows) for one in files] == [
        ("a.jsonl", "messages", 2), ("b.csv", "prompt-completion", 2), ("c.json", "messages", 2),
        ("d.jsonl", "text", 1),
    ]  # fmt: skip


def test_small_files_of_one_format_share_a_store(folder):
    for index in range(30):
        write_jsonl(folder / f"{index:02}.jsonl", [chat(f"q{index}", "yo")])
    found = gathered(folder)

    assert [len(named.store.rows) for named in found.stores] == [30]
    assert [found.stores[0].place(row).rpartition("/")[2] for row in (0, 29)] == ["00.jsonl:1", "29.jsonl:1"]
    assert [one.rows for one in found.files] == [1] * 30
    assert len({one.sha256 for one in found.files}) == 30


def test_a_store_takes_no_more_files_than_fit_its_size(folder, monkeypatch):
    for index in range(5):
        write_jsonl(folder / f"{index}.jsonl", [GOOD])
    size = (folder / "0.jsonl").stat().st_size
    monkeypatch.setattr(gather_module, "GROUP_BYTES", 2 * size)

    assert [len(named.store.rows) for named in gathered(folder).stores] == [2, 2, 1]


def test_a_large_file_has_a_store_of_its_own(folder, monkeypatch):
    for name, count in (("a", 1), ("b", 50), ("c", 1)):
        write_jsonl(folder / f"{name}.jsonl", [GOOD] * count)
    monkeypatch.setattr(gather_module, "GROUP_BYTES", 1000)

    assert [len(named.store.rows) for named in gathered(folder).stores] == [1, 50, 1]


def test_sources_never_share_a_store(folder):
    first, second = (write_jsonl(folder / f"{name}.jsonl", [GOOD]) for name in "ab")

    assert [named.source for named in gathered(first, second).stores] == [0, 1]


def test_one_file_as_two_sources_is_read_for_each(folder):
    path = write_jsonl(folder / "a.jsonl", [GOOD, chat("a", "b")])
    found = gathered(path, path)

    assert row_table(found).source.tolist() == [0, 0, 1, 1]
    assert [one.rows for one in found.files] == [2, 2]


def test_the_format_is_that_of_the_first_row_that_can_be_read(folder):
    (folder / "a.jsonl").write_text(f"not json\n[]\n{json.dumps(GOOD)}\n" + '{"prompt": "a", "completion": "b"}\n')

    assert texts(gathered(folder).problems) == [
        "a.jsonl:1: not valid JSON: Expecting value: column 1 (char 0)",
        "a.jsonl:2: is a list, not an object with named fields",
        "a.jsonl:4: messages: is not a list of messages",
    ]


def test_a_file_in_which_nothing_can_be_read_reports_each_line(folder):
    (folder / "a.jsonl").write_text("no\nnope\n")

    assert texts(gathered(folder).problems) == [
        "a.jsonl:1: not valid JSON: Expecting value: column 1 (char 0)",
        "a.jsonl:2: not valid JSON: Expecting value: column 1 (char 0)",
    ]


def test_each_file_that_cannot_be_used_is_named_and_the_others_are_read_on(folder, tmp_path):
    write_jsonl(folder / "a.jsonl", [{"unknown": 1}])
    (folder / "b.jsonl").write_text("")
    write_jsonl(folder / "c.jsonl", [GOOD, {"messages": 3}])
    found = gathered(tmp_path / "nowhere.jsonl", folder)

    assert [text.partition(",")[0] for text in texts(found.problems)] == [
        "nowhere.jsonl: no such file or folder",
        "a.jsonl:1: its fields (unknown) fit no format",
        "b.jsonl: has no rows",
        "c.jsonl:2: messages: is not a list of messages",
    ]


@pytest.mark.parametrize("reason", ["Permission denied", "Input or output error"])
def test_a_file_that_the_system_will_not_give_is_a_problem_beside_the_others(reason, folder, monkeypatch):
    for name, row in (("a", GOOD), ("b", GOOD), ("c", {"messages": []})):
        write_jsonl(folder / f"{name}.jsonl", [row, GOOD])
    real = gather_module.sha256_file

    def sha256_file(path):
        if path.name == "b.jsonl":
            raise OSError(13 if reason == "Permission denied" else 5, reason)
        return real(path)

    monkeypatch.setattr(gather_module, "sha256_file", sha256_file)

    assert texts(gathered(folder).problems) == [
        f"b.jsonl: cannot be read: {reason}",
        "c.jsonl:1: messages: is not a list of messages",
    ]


def test_a_file_that_vanishes_after_it_was_listed_is_a_problem(folder, monkeypatch):
    path = write_jsonl(folder / "a.jsonl", [GOOD])
    real = gather_module.open_files

    def open_files(source):
        files = real(source)
        path.unlink()
        return files

    monkeypatch.setattr(gather_module, "open_files", open_files)

    assert texts(gathered(path).problems) == ["a.jsonl: cannot be read: No such file or directory"]


def test_problems_are_kept_up_to_a_limit_and_the_others_counted(folder, monkeypatch):
    monkeypatch.setattr(gather_module, "MOST_PROBLEMS", 3)
    write_jsonl(folder / "a.jsonl", [{"messages": []}] * 5)
    write_jsonl(folder / "b.jsonl", [{"messages": []}] * 2)
    found = gathered(folder)

    assert (len(found.problems), found.unlisted) == (3, 4)
    found.note([Problem(what="one more")])
    assert (len(found.problems), found.unlisted) == (3, 5)


def test_problems_beyond_the_limit_are_counted_in_words(folder, monkeypatch):
    monkeypatch.setattr(gather_module, "MOST_PROBLEMS", 2)
    path = write_jsonl(folder / "a.jsonl", [{"messages": []}] * 1005)
    with pytest.raises(Exception, match="1,005 rows are wrong; the first 2 are listed"):
        prepare_path(path)


def test_a_column_groups_training_rows_and_means_nothing_elsewhere(folder):
    train = write_jsonl(folder / "train.jsonl", [GOOD | {"who": "ann"}, chat("a", "b") | {"who": "ann"}])
    held = write_jsonl(folder / "held.jsonl", [GOOD])
    found = gathered(train, Part(role="evaluation", source=Source(path=str(held))), group_by="who")

    assert found.problems == []
    groups = row_table(found).group.tolist()
    assert groups[0] == groups[1] != groups[2]


@pytest.mark.parametrize("row", [GOOD, GOOD | {"who": None}])
def test_a_row_without_the_column_that_groups_is_a_fault(row, folder):
    path = write_jsonl(folder / "a.jsonl", [GOOD | {"who": 0}, row])
    (problem,) = gathered(path, group_by="who").problems

    assert str(problem) == (
        f"{path}:2: who: is missing, and data.group_by names it\n  Fill it in, or remove data.group_by."
    )


@pytest.mark.parametrize("first_rows", [None, 3])
def test_progress_rises_to_the_bytes_of_all_files(first_rows, folder):
    total = 0
    for index in range(4):
        total += write_jsonl(folder / f"{index}.jsonl", [chat(f"q{row}", "yo") for row in range(50)]).stat().st_size
    for _ in range(2):  # the second time all of it is found in the cache
        seen: list[tuple[int, int]] = []
        gathered(folder, progress=lambda *done, seen=seen: seen.append(done), first_rows=first_rows)

        done = [one for one, _ in seen]
        assert done == sorted(done)
        assert seen[-1] == (total, total)
        assert {of for _, of in seen} == {total}


def test_progress_reaches_the_end_where_rows_have_faults_and_where_archives_are_small(folder):
    lines = "".join(json.dumps(GOOD) + "\n" for _ in range(3000)).encode()
    (folder / "a.jsonl.gz").write_bytes(gzip.compress(lines))
    write_jsonl(folder / "b.jsonl", [GOOD, {"messages": []}])
    total = sum(file.stat().st_size for file in folder.iterdir())
    seen: list[tuple[int, int]] = []
    gathered(folder, progress=lambda *done: seen.append(done))

    assert seen[-1] == (total, total)
    assert max(done for done, _ in seen) == total


def test_a_first_look_reads_about_so_many_rows_and_keeps_nothing(folder, tmp_path, monkeypatch):
    real = gather_module.read_blocks
    monkeypatch.setattr(
        gather_module, "read_blocks", lambda file, block_bytes=500: real(file, block_bytes=block_bytes)
    )
    path = write_jsonl(folder / "a.jsonl", [chat(f"q{row}", "yo") for row in range(1000)])
    held = write_jsonl(folder / "held.jsonl", [chat(f"h{row}", "yo") for row in range(20)])
    found = gathered(path, Part(role="evaluation", source=Source(path=str(held))), first_rows=10)

    assert 10 <= len(found.stores[0].store.rows) <= 20
    assert len(found.stores[1].store.rows) == 20
    assert len([entry for entry in (tmp_path / "cache").iterdir() if entry.is_dir()]) == 1  # of the evaluation file
    assert len(gathered(path).stores[0].store.rows) == 1000


# As planning takes it


def test_the_table_of_rows_says_what_each_one_holds(folder):
    path = write_jsonl(folder / "a.jsonl", [GOOD, chat("one", "two", "three", "four"), GOOD])
    found = gathered(path)
    table = row_table(found)

    assert len(table) == 3
    assert table.longest.tolist() == table.tokens.tolist() == found.stores[0].store.sequences["length"].tolist()
    assert table.longest[0] == 16  # 12 of prompt, the answer's 2, <|im_end|> and the line break
    assert table.supervised[0] == 3
    assert (table.digest[0] == table.digest[2]).all()
    assert table.group.tolist() == table.digest[:, 0].tolist()


def test_without_any_rows_the_table_is_empty(folder, tmp_path):
    found = gathered(tmp_path / "nowhere")

    assert len(row_table(found)) == 0
    assert token_ids(found).offsets.tolist() == [0]


@pytest.mark.parametrize("in_memory", [10**9, 0])
def test_token_ids_of_all_rows_stand_one_after_the_other_in_memory_or_in_a_file(in_memory, folder, monkeypatch):
    monkeypatch.setattr("ftkit.data.tables.IDS_IN_MEMORY", in_memory)
    first = write_jsonl(folder / "a.jsonl", [GOOD, chat("a", "b", "c", "d")])
    second = write_jsonl(folder / "b.jsonl", [{"text": "plain"}])
    found = gathered(first, second)
    sequences = token_ids(found)
    (third,) = examples_of(found, np.array([2]), 10**6)

    ends = sequences.offsets.tolist()
    rows = [sequences.ids[start:end].tolist() for start, end in itertools.pairwise(ends)]
    assert rows[0] == found.stores[0].store.ids(0).tolist()
    assert rows[1] == found.stores[0].store.ids(1).tolist()
    assert rows[2] == third.input_ids == found.stores[1].store.ids(0).tolist()
    assert len(rows) == 3
