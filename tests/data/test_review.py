"""Results that looked right and were not: one test for each."""

from __future__ import annotations

import resource

import pytest

from ftkit.data import gather, prepare, stream
from ftkit.data.settings import encoder_settings
from ftkit.errors import DataError
from ftkit.recipe import DataSection
from tests.data.preparing import TODAY, chat, prepare_path, prepare_rows, write_jsonl
from tests.data.test_stream import FORGETFUL, streamed
from tests.tiny import tiny_tokenizer


def test_a_group_is_one_group_whether_its_name_is_a_number_or_text(tmp_path):
    # Cells of CSV are text, JSON has numbers, and tables with gaps have 3.0.
    write_jsonl(
        tmp_path / "a.jsonl",
        [{"prompt": f"a{index}", "completion": "yo", "customer": index % 10} for index in range(30)],
    )
    write_jsonl(
        tmp_path / "b.jsonl",
        [{"prompt": f"b{index}", "completion": "yo", "customer": float(index % 10)} for index in range(30)],
    )
    cells = "".join(f"c{index},yo,{index % 10}\n" for index in range(30))
    (tmp_path / "c.csv").write_text("prompt,completion,customer\n" + cells)

    prepared = prepare_path(tmp_path, validation=0.4, group_by="customer")

    held, trained = (
        {int(str(example.question)[1:]) % 10 for example in side} for side in (prepared.validation, prepared.train)
    )
    assert held
    assert trained
    assert not held & trained
    assert held | trained == set(range(10))


def test_groups_that_only_look_alike_are_kept_apart(tmp_path):
    rows = [
        {"prompt": f"q{index}", "completion": "yo", "customer": name}
        for index, name in enumerate([1, 1.5, True, "one", [1], {"a": 1}])
    ]

    gathered = prepare_rows(tmp_path, rows, group_by="customer").train

    assert len({int(key) for key in gathered.stores[0].store.rows["group"]}) == 6


@pytest.mark.parametrize("overflow", ["error", "truncate"])
def test_where_more_rows_are_wrong_than_are_listed_the_message_says_how_many(overflow, tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "MOST_PROBLEMS", 3)

    with pytest.raises(DataError) as caught:
        prepare_rows(
            tmp_path, [chat(f"question {index}", "yo") for index in range(5)], max_length=4, overflow=overflow
        )

    assert str(caught.value).splitlines()[0] == "5 rows are wrong; the first 3 are listed"
    assert [problem.where.rpartition(":")[2] for problem in caught.value.problems] == ["", "1", "2", "3"]


def test_where_more_rows_cannot_be_read_than_are_listed_the_message_says_how_many(tmp_path, monkeypatch):
    monkeypatch.setattr(gather, "MOST_PROBLEMS", 3)

    with pytest.raises(DataError, match=r"^5 rows are wrong; the first 3 are listed\n.*rows\.jsonl:2: "):
        prepare_rows(tmp_path, [chat("hi", "yo"), *[{"messages": []}] * 5])


def test_the_share_of_rows_counts_rows_and_not_their_sequences(tmp_path):
    three_answers = [chat(f"q{index}", "a", f"r{index}", "b", f"s{index}", "c") for index in range(10)]
    write_jsonl(tmp_path / "a.jsonl", three_answers)
    write_jsonl(tmp_path / "b.jsonl", [chat(f"t{index}", "a") for index in range(10)])
    train = [{"path": str(tmp_path / "a.jsonl")}, {"path": str(tmp_path / "b.jsonl"), "weight": 2}]
    section = DataSection(train=train, validation=None)
    encoder = encoder_settings(
        tiny_tokenizer(template=FORGETFUL), train_on="assistant", allow_control_tokens=False, today=TODAY
    )

    report = prepare.prepare(section, encoder).report

    # An epoch takes 10 rows of three sequences each, and 10 rows of one sequence twice.
    assert [(line["rows"], line["sequences"], line["row_share"]) for line in report.mixture] == [
        (10, 30, 0.3333),
        (10, 20, 0.6667),
    ]
    assert report.epoch["rows"] == 30


def test_a_folder_of_more_files_than_may_be_open_is_streamed(tmp_path, monkeypatch):
    monkeypatch.setattr(stream, "WINDOW", 400)  # one epoch
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for index in range(200):
        write_jsonl(tmp_path / f"{index:03}.jsonl", [chat(f"q{index}-{row}", "yo") for row in range(2)])

    resource.setrlimit(resource.RLIMIT_NOFILE, (150, hard))
    try:
        found = [example.question for example in streamed(tmp_path, 400).train]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert sorted(map(str, found)) == sorted(f"q{index}-{row}" for index in range(200) for row in range(2))


@pytest.mark.parametrize("asked_before", [5, 0])
def test_a_file_that_grows_while_it_is_streamed_stops_the_run(asked_before, tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", [chat(f"question {index}", "yo") for index in range(5)])
    train = streamed(path, 6000).train
    for index in range(asked_before):
        assert train[index].answer == "yo"

    path.write_text(path.read_text() * 2)

    with pytest.raises(DataError, match=r"rows\.jsonl: has changed since training began\n.*resume"):
        train[5999]
