"""The report accounts for every row; long rows, duplicates, leaks and the digest."""

from __future__ import annotations

import datetime
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftkit.data.prepare import prepare
from ftkit.data.settings import encoder_settings
from ftkit.errors import DataError
from ftkit.recipe import DataSection
from tests.data.preparing import chat, prepare_path, prepare_rows, write_jsonl
from tests.data.storing import tiny_settings
from tests.tiny import CHATML, tiny_tokenizer

# 16 tokens with the answer "yo": 12 of prompt, the answer's 2, <|im_end|> and the line break; a letter adds one.
SHORT = chat("hi", "yo")
LONG = chat("hi", "yo" + "z" * 14)


def test_a_row_longer_than_max_length_is_an_error_that_says_how_long_it_is(tmp_path):
    with pytest.raises(DataError, match=r"rows\.jsonl:2: 30 tokens, data\.max_length is 29\n.*drop or truncate"):
        prepare_rows(tmp_path, [SHORT, LONG], max_length=29)
    assert prepare_rows(tmp_path, [SHORT, LONG], max_length=30).report.lengths["max"] == 30


def test_drop_leaves_long_rows_out_and_counts_them(tmp_path):
    report = prepare_rows(tmp_path, [SHORT, LONG, LONG], max_length=29, overflow="drop").report

    assert (report.rows_in, report.trained, report.dropped) == (3, 1, {"longer than max_length": 2})
    assert (report.truncated, report.tokens, report.supervised_tokens) == (0, 16, 3)


def test_truncate_cuts_long_rows_at_the_end_and_counts_them_among_the_trained(tmp_path):
    prepared = prepare_rows(tmp_path, [SHORT, LONG], max_length=20, overflow="truncate")
    whole = prepare_rows(tmp_path, [SHORT, LONG])

    assert prepared.train[1].input_ids == whole.train[1].input_ids[:20]
    assert prepared.train[1].labels == whole.train[1].labels[:20]
    assert (prepared.report.trained, prepared.report.truncated, prepared.report.dropped) == (2, 1, {})
    assert (prepared.report.tokens, prepared.report.supervised_tokens) == (16 + 20, 3 + 8)


def test_truncation_that_cuts_the_whole_answer_off_names_the_row(tmp_path):
    with pytest.raises(DataError, match=r"rows\.jsonl:2: no token of this row counts towards the loss"):
        prepare_rows(tmp_path, [chat("a", "b"), chat("h" * 40, "yo")], max_length=20, overflow="truncate")


def test_when_every_row_is_dropped_nothing_is_left_to_train_on(tmp_path):
    with pytest.raises(
        DataError, match=r"no row is left to train on \(1 longer than max_length\)\n  Raise data\.max_length"
    ):
        prepare_rows(tmp_path, [LONG], max_length=20, overflow="drop")


words = st.text("abc xyz", min_size=1, max_size=30).filter(str.strip)
rows = st.lists(st.lists(words, min_size=2, max_size=2).map(lambda texts: chat(*texts)), min_size=1, max_size=12)


@settings(max_examples=40, deadline=None)
@given(rows=rows, max_length=st.integers(13, 60), fraction=st.sampled_from([0.0, 0.2, 0.7]))
def test_rows_in_are_trained_or_validation_or_dropped_whatever_the_rows(rows, max_length, fraction):
    with tempfile.TemporaryDirectory() as folder:
        try:
            prepared = prepare_rows(Path(folder), rows, max_length=max_length, overflow="drop", validation=fraction)
        except DataError as error:
            assert "no row is left to train on" in str(error)
            return
    report = prepared.report
    assert report.rows_in == len(rows) == report.trained + report.validation + sum(report.dropped.values())
    assert (report.trained, report.validation) == (len(prepared.train), len(prepared.validation))
    assert all(len(example.input_ids) <= max_length for example in [*prepared.train, *prepared.validation])
    assert report.tokens == sum(len(example.input_ids) for example in prepared.train)
    assert report.supervised_tokens == sum(example.supervised_tokens for example in prepared.train)


def test_lengths_are_percentiles_of_the_training_rows_by_nearest_rank(tmp_path):
    rows = [chat("hi", "y" * (index + 1)) for index in range(20)]  # 15, 16, ... 34 tokens; the 10th of them is 24

    assert prepare_rows(tmp_path, rows).report.lengths == {
        "min": 15, "mean": 24.5, "p50": 24, "p90": 32, "p95": 33, "p99": 34, "max": 34,
    }  # fmt: skip


def test_duplicates_are_training_rows_that_stood_earlier(tmp_path):
    report = prepare_rows(tmp_path, [SHORT, LONG, SHORT, SHORT]).report

    assert (report.rows_in, report.trained, report.duplicates, report.leaks) == (4, 4, 2, 0)


def test_leaks_are_validation_rows_that_are_trained_on_too(tmp_path):
    validation = write_jsonl(tmp_path / "held.jsonl", [LONG, chat("new", "row"), LONG])
    report = prepare_rows(tmp_path, [SHORT, LONG], validation=str(validation)).report

    assert (report.rows_in, report.validation, report.leaks) == (5, 3, 2)
    assert [Path(file.path).name for file in report.files] == ["rows.jsonl", "held.jsonl"]


def test_a_row_in_another_layout_is_still_the_same_row(tmp_path):
    held = write_jsonl(tmp_path / "held.jsonl", [{"prompt": "hi", "completion": "yo"}])

    assert prepare_rows(tmp_path, [SHORT], validation=str(held)).report.leaks == 1


def test_the_digest_tells_content_order_labels_and_sides_apart_and_nothing_else(tmp_path):
    def digest(rows, **settings):
        return prepare_rows(tmp_path, rows, **settings).report.digest

    rows = [SHORT, LONG, chat("one", "two", "three", "four")]
    other_name = tmp_path / "other"
    other_name.mkdir()
    assert digest(rows) == digest(rows) == prepare_rows(other_name, rows).report.digest
    different = {
        digest(rows),
        digest([*rows[:2], chat("one", "two", "three", "five")]),
        digest(rows[::-1]),
        digest(rows, train_on="last"),
        digest(rows, validation=0.5),
    }
    assert len(different) == 5


def test_stop_tokens_are_those_that_end_the_answers(tmp_path):
    prepared = prepare_rows(tmp_path, [SHORT])

    assert (prepared.stop_token_ids, prepared.report.stop_tokens) == ([2], ["<|im_end|>"])
    assert prepared.report.chat_template


def test_the_report_as_written_to_disk_adds_up(tmp_path):
    facts = prepare_rows(tmp_path, [SHORT, LONG], max_length=20, overflow="drop").report.to_dict()

    assert facts["rows_in"] == facts["trained"] + facts["validation"] + sum(facts["dropped"].values()) == 2
    assert facts["files"][0]["rows"] == 2
    assert len(facts["files"][0]["sha256"]) == 64


def test_progress_counts_bytes_up_to_the_size_of_the_files(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", [SHORT, LONG, chat("a", "b")])
    size = path.stat().st_size
    seen = []

    prepare_path(path, progress=lambda *done: seen.append(done))

    assert seen == sorted(seen)
    assert {total for _, total in seen} == {size}
    assert seen[-1] == (size, size)


# Every row is accounted for, whatever is asked for


FEW = st.sampled_from([chat("a", "b"), chat("a", "c" * 9), chat("d", "b" * 20), chat("e", "f", "g", "h")])
SOURCES = st.lists(
    st.fixed_dictionaries(
        {"rows": st.lists(FEW, min_size=1, max_size=8)},
        optional={"weight": st.sampled_from([0.3, 0.5, 1.0, 1.5, 3.0]), "max_rows": st.integers(1, 6)},
    ),
    min_size=1,
    max_size=3,
)
REPLAY = st.none() | st.fixed_dictionaries(
    {"rows": st.lists(FEW, min_size=1, max_size=6), "share": st.sampled_from([0.1, 0.5, 0.8])},
    optional={"max_rows": st.integers(1, 3)},
)


def without_rows(source: dict[str, Any], path: Path) -> dict[str, Any]:
    """A drawn source as a recipe has it, its rows in a file."""
    write_jsonl(path, source["rows"])
    return {key: value for key, value in source.items() if key != "rows"} | {"path": str(path)}


@settings(max_examples=120, deadline=None)
@given(
    sources=SOURCES,
    replay=REPLAY,
    validation=st.sampled_from([None, 0.0, 0.3, 0.9]) | st.lists(FEW, min_size=1, max_size=4),
    evaluation=st.none() | st.lists(FEW, min_size=1, max_size=3),
    max_length=st.sampled_from([16, 30, 200]),
    overflow=st.sampled_from(["error", "drop", "truncate"]),
    dedup=st.sampled_from(["off", "exact", "near"]),
    seed=st.integers(0, 3),
)
def test_every_row_is_accounted_for_whatever_is_asked_for(
    sources, replay, validation, evaluation, max_length, overflow, dedup, seed
):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows_in = sum(len(one["rows"]) for one in (*sources, *([replay] if replay else ())))
        if isinstance(validation, list):
            rows_in += len(validation)
            validation = str(write_jsonl(folder / "held.jsonl", validation))
        section = DataSection(
            train=[without_rows(one, folder / f"train{index}.jsonl") for index, one in enumerate(sources)],
            validation=validation,
            evaluation=[] if evaluation is None else [str(write_jsonl(folder / "judged.jsonl", evaluation))],
            replay=None if replay is None else without_rows(replay, folder / "replay.jsonl"),
            max_length=max_length,
            overflow=overflow,
            dedup=dedup,
        )
        try:
            prepared = prepare(section, tiny_settings(), seed=seed)
        except DataError as error:
            reasons = {"no row is left to train on", "no token of this row", f"data.max_length is {max_length}"}
            assert any(reason in str(error) for reason in reasons)
            return
    # The files are gone by now; what is trained on is read from the stores.
    report, train, held = prepared.report, list(prepared.train), list(prepared.validation)
    trained_at, held_at = {one.place for one in train}, {one.place for one in held}

    assert report.rows_in == rows_in == report.trained + report.validation + sum(report.dropped.values())
    assert (report.trained, report.validation) == (len(trained_at), len(held_at))
    assert len(held) == len(held_at)
    assert not trained_at & held_at
    assert not any("judged" in place for place in trained_at | held_at)
    assert not any("replay" in place for place in held_at)
    assert report.epoch["sequences"] == len(train) == sum(line["sequences"] for line in report.mixture)
    assert report.trained == sum(line["rows"] for line in report.mixture)
    assert report.epoch["tokens"] == sum(len(one.input_ids) for one in train)
    assert report.epoch["tokens"] == sum(line["tokens"] for line in report.mixture)
    assert report.tokens == sum(len(one.input_ids) for one in {one.place: one for one in train}.values())
    assert all(len(one.input_ids) <= max_length and one.supervised_tokens for one in (*train, *held))
    assert report.truncated == 0 or overflow == "truncate"
    assert sum(bar["sequences"] for bar in report.histogram) == report.sequences == report.trained
    if dedup != "off" and replay is None and not any("weight" in one for one in sources):
        assert len({one.answer for one in train}) == len(train)  # the four rows have four answers


# What is held back


def held_rows(prepared) -> set[tuple[str | None, str | None]]:
    return {(one.question, one.answer) for one in prepared.validation}


def test_a_row_stays_on_its_side_when_rows_are_added_before_between_and_behind(tmp_path):
    rows = [chat(f"question {index}", f"answer {index}") for index in range(60)]
    before = prepare_rows(tmp_path, rows, validation=0.25)
    more = [row for index, row in enumerate(rows) for row in (chat(f"new {index}", "row"), row)]
    after = prepare_rows(tmp_path, [*more, chat("the last", "row")], validation=0.25)

    assert 5 < len(held_rows(before)) < 30
    assert {row for row in held_rows(after) if row[0].startswith("question")} == held_rows(before)


def test_a_row_stays_on_its_side_whatever_its_file_and_the_order(tmp_path):
    rows = [chat(f"question {index}", f"answer {index}") for index in range(60)]
    (tmp_path / "data").mkdir()
    write_jsonl(tmp_path / "data" / "a.jsonl", rows[:20])
    write_jsonl(tmp_path / "data" / "b.jsonl", rows[59:19:-1])
    in_two_files = prepare_path(tmp_path / "data", validation=0.25)

    assert held_rows(in_two_files) == held_rows(prepare_rows(tmp_path, rows, validation=0.25))


def test_rows_of_one_group_stay_together(tmp_path):
    rows = [chat(f"question {index}", "yo") | {"customer": index % 12} for index in range(60)]
    prepared = prepare_rows(tmp_path, rows, validation=0.3, group_by="customer")
    sides = [{int(one.question.split()[1]) % 12 for one in side} for side in (prepared.train, prepared.validation)]

    assert sides[0] | sides[1] == set(range(12))
    assert not sides[0] & sides[1]
    assert all(sides)


def test_a_column_to_group_by_that_no_row_has_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"rows\.jsonl:1: customer: is missing, and data\.group_by names it"):
        prepare_rows(tmp_path, [SHORT, LONG], validation=0.3, group_by="customer")


def test_a_validation_file_is_held_back_whole_and_nothing_else_is(tmp_path):
    held = write_jsonl(tmp_path / "held.jsonl", [chat("new", "row"), chat("other", "row")])
    prepared = prepare_rows(tmp_path, [SHORT, LONG], validation=str(held))

    assert [one.place for one in prepared.validation] == [f"{held}:1", f"{held}:2"]
    assert [one.answer for one in prepared.train] == ["yo", "yo" + "z" * 14]


def test_evaluation_files_are_compared_with_and_nothing_else(tmp_path):
    judged = write_jsonl(tmp_path / "judged.jsonl", [LONG, chat("new", "row")])
    prepared = prepare_rows(tmp_path, [SHORT, LONG], evaluation=[str(judged)])
    report = prepared.report

    assert (report.rows_in, report.trained, report.validation, report.leaks) == (2, 2, 0, 1)
    assert [Path(place).name for place in report.leak_examples[0]["places"]] == ["judged.jsonl:1", "rows.jsonl:2"]
    assert {Path(one.place).name for one in prepared.train} == {"rows.jsonl:1", "rows.jsonl:2"}


def test_rows_that_are_in_an_evaluation_file_can_be_left_out_and_are_then_no_overflow(tmp_path):
    judged = write_jsonl(tmp_path / "judged.jsonl", [LONG])
    report = prepare_rows(tmp_path, [SHORT, LONG], evaluation=[str(judged)], dedup="exact", max_length=20).report

    assert (report.trained, report.dropped) == (1, {"also in evaluation": 1})


def test_an_evaluation_file_may_hold_longer_rows_than_are_trained_on(tmp_path):
    judged = write_jsonl(tmp_path / "judged.jsonl", [LONG])

    assert prepare_rows(tmp_path, [SHORT], evaluation=[str(judged)], max_length=20).report.trained == 1


def test_a_fault_of_an_evaluation_file_is_a_fault(tmp_path):
    judged = write_jsonl(tmp_path / "judged.jsonl", [{"messages": []}])

    with pytest.raises(DataError, match=r"judged\.jsonl:1: messages"):
        prepare_rows(tmp_path, [SHORT], evaluation=[str(judged)])


PAIR = {"prompt": "hi", "chosen": "yo", "rejected": "go away"}


def test_preference_pairs_are_refused_for_training_and_welcome_to_be_looked_at(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", [PAIR])

    with pytest.raises(DataError, match=r"rows\.jsonl: holds preference pairs.*\n.*columns: {prompt: prompt, comp"):
        prepare_path(path)
    looked_at = prepare(DataSection(train=str(path), validation=None), tiny_settings(), takes_pairs=True)
    assert [one.answer for one in looked_at.train] == ["yo"]


def test_the_remedy_named_for_preference_pairs_works(tmp_path):
    columns = {"prompt": "prompt", "completion": "chosen"}
    prepared = prepare_rows(tmp_path, [PAIR], columns=columns, format="prompt-completion")

    assert [one.answer for one in prepared.train] == ["yo"]


def test_a_validation_row_whose_answer_is_cut_off_is_refused_too(tmp_path):
    held = write_jsonl(tmp_path / "held.jsonl", [chat("h" * 40, "yo")])

    with pytest.raises(DataError, match=r"held\.jsonl:1: no token of this row counts"):
        prepare_rows(tmp_path, [chat("a", "b")], validation=str(held), max_length=20, overflow="truncate")


def test_equal_rows_are_one_group_and_never_split(tmp_path):
    report = prepare_rows(tmp_path, [SHORT, SHORT], validation=0.5).report

    assert (report.trained, report.validation, report.leaks) == (2, 0, 0)


# The digest


ROWS = [SHORT, LONG, chat("one", "two", "three", "four"), chat("five", "six")]


def digest_of(folder: Path, rows: list[dict[str, Any]] = ROWS, **changed: Any) -> str:
    return prepare_rows(folder, rows, **changed).report.digest


@pytest.mark.parametrize(
    "changed",
    [
        {"rows": [chat("ho", "yo"), *ROWS[1:]]},
        {"rows": ROWS[:3]},
        {"rows": [*ROWS, ROWS[0]]},
        {"rows": [ROWS[1], ROWS[0], *ROWS[2:]]},
        {"max_length": 999},
        {"max_length": 20, "overflow": "drop"},
        {"max_length": 20, "overflow": "truncate"},
        {"train_on": "all"},
        {"validation": 0.5},
        {"tokenizer": tiny_tokenizer(template=CHATML.replace("<|im_end|>\n", "<|im_end|>\n\n"))},
    ],
)
def test_the_digest_changes_with_whatever_is_trained_on(changed, tmp_path):
    assert digest_of(tmp_path, **changed) != digest_of(tmp_path)


def test_the_digest_changes_with_how_often_rows_are_taken_and_with_the_seed_that_draws_them(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", ROWS)

    def digest(seed: int = 0, **source: Any) -> str:
        section = DataSection(train=[{"path": str(path), **source}], validation=None)
        return prepare(section, tiny_settings(), seed=seed).report.digest

    halves = {digest(seed, weight=0.5) for seed in range(8)}
    assert digest(0) == digest(1) == digest(weight=1.0)
    assert len(halves) > 1
    assert len({digest(), digest(weight=2.0), digest(max_rows=3)} | halves) == 3 + len(halves)


@pytest.mark.parametrize(
    "changed",
    [{}, {"near_duplicates": True}, {"dedup": "near"}, {"workers": 2}, {"format": "messages"}, {"packing": False}],
)
def test_the_digest_stays_where_only_the_way_to_the_rows_changes(changed, tmp_path):
    assert digest_of(tmp_path, **changed) == digest_of(tmp_path)


def test_the_digest_stays_when_an_evaluation_file_is_added_that_changes_nothing(tmp_path):
    judged = write_jsonl(tmp_path / "judged.jsonl", [LONG])
    general = write_jsonl(tmp_path / "general.jsonl", [chat("general", "knowledge")])
    replay = {"path": str(general), "share": 0.2}

    assert digest_of(tmp_path, evaluation=[str(judged)]) == digest_of(tmp_path)
    assert digest_of(tmp_path, evaluation=[str(judged)], replay=replay) == digest_of(tmp_path, replay=replay)


def test_the_date_of_a_template_is_part_of_the_digest_only_where_it_is_written(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", ROWS)

    def digest(day: int, template: str) -> str:
        encoder = encoder_settings(
            tiny_tokenizer(template=template), train_on="assistant", allow_control_tokens=False,
            today=datetime.date(2026, 5, day),
        )  # fmt: skip
        return prepare(DataSection(train=str(path), validation=None), encoder).report.digest

    dated = "{{ strftime_now('%d %B %Y') }}" + CHATML
    assert digest(1, CHATML) == digest(2, CHATML)
    assert digest(1, dated) == digest(1, dated) != digest(2, dated)
