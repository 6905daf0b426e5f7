"""Streams: the same sequence from wherever it is asked for, nothing held back in it, exact resumes of training."""

from __future__ import annotations

import functools
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ftkit.data import gather, stream, streaming
from ftkit.data.prepare import PreparedData
from ftkit.data.settings import encoder_settings
from ftkit.data.sources import DataFile, read_blocks
from ftkit.data.stream import StreamedExamples
from ftkit.data.streaming import prepare_stream
from ftkit.errors import DataError
from ftkit.files import sha256_file
from ftkit.methods import LoRAMethod
from ftkit.recipe import DataSection
from ftkit.train.checkpoint import newest_checkpoint
from ftkit.train.metrics_log import MetricsLog
from ftkit.train.trainer import fit
from tests.data.preparing import TODAY, chat, prepare_path, write_jsonl
from tests.tiny import tiny_tokenizer
from tests.train.fitting import attached, spec, trainable

# Drops the answers of earlier turns, so that each answer is a sequence of its own.
FORGETFUL = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] != 'assistant' or loop.last %}{{ message['content'] }}{% endif %}{{ '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
ROWS = [chat(f"question {index}", "yo" * (index % 4 + 1)) for index in range(30)]


@pytest.fixture(autouse=True)
def small_windows(monkeypatch):
    """Windows of 7 rows; the first look at a file sees about 6 of its rows."""
    monkeypatch.setattr(stream, "WINDOW", 7)
    monkeypatch.setattr(streaming, "FIRST_ROWS", 6)
    monkeypatch.setattr(gather, "read_blocks", functools.partial(read_blocks, block_bytes=300))


def streamed(path: Path, length: int, *, seed: int = 0, template: str | None = None, **settings: Any) -> PreparedData:
    section = DataSection(train=str(path), streaming=True, **({"validation": None} | settings))
    encoder = encoder_settings(
        tiny_tokenizer(template=template) if template else tiny_tokenizer(),
        train_on=section.train_on,
        allow_control_tokens=section.allow_control_tokens,
        today=TODAY,
    )
    return prepare_stream(section, encoder, length=length, seed=seed)


def questions(examples: Any) -> list[str | None]:
    return [example.question for example in examples]


def asked(rows: list[dict[str, Any]]) -> list[str]:
    return [row["messages"][0]["content"] for row in rows]


def test_the_first_look_sees_a_part_of_the_file_only(tmp_path):
    report = streamed(write_jsonl(tmp_path / "rows.jsonl", ROWS), 5).report

    # Otherwise the tests below about rows further on would be about nothing.
    assert 6 <= report.rows_in < 15
    assert report.streamed


def test_every_epoch_takes_each_row_once_and_another_begins_where_it_ends(tmp_path):
    train = streamed(write_jsonl(tmp_path / "rows.jsonl", ROWS), 75).train

    # 30 rows an epoch, in windows of 7: 28 rows are four windows, the fifth has 2 of this epoch and 5 of the next.
    found = questions(train)
    assert len(found) == len(train) == 75
    assert Counter(found[:28]) == Counter(asked(ROWS[:28]))
    assert Counter(found[28:35]) == Counter(asked(ROWS[28:] + ROWS[:5]))
    assert Counter(found[:70]) == Counter(asked(ROWS * 2 + ROWS[:10]))


def test_rows_are_shuffled_within_a_window_by_seed_and_differently_in_each(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", [chat(f"question {index % 7}", "yo") for index in range(28)])

    first, again, other = (questions(streamed(path, 28, seed=seed).train) for seed in (3, 3, 4))

    windows = [first[start : start + 7] for start in range(0, 28, 7)]
    assert first == again != other
    assert all(sorted(window) == sorted(windows[0]) for window in windows)
    assert len({tuple(window) for window in windows}) == 4
    assert tuple(f"question {index}" for index in range(7)) not in {tuple(window) for window in windows}


@pytest.mark.parametrize("index", [0, 1, 6, 7, 10, 29, 30, 34, 35, 74])
def test_from_any_index_on_a_new_stream_gives_what_the_first_one_gave(index, tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", ROWS)
    whole = list(streamed(path, 75, validation=0.2).train)

    later = streamed(path, 75, validation=0.2).train

    assert [later[at] for at in range(index, 75)] == whole[index:]
    assert later[0] == whole[0]  # and back again
    assert later[index : index + 3] == whole[index : index + 3]


def test_a_longer_run_of_the_same_seed_begins_as_a_shorter_one(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", ROWS)

    assert list(streamed(path, 20).train) == list(streamed(path, 60).train)[:20]


def test_there_is_nothing_behind_the_end(tmp_path):
    train = streamed(write_jsonl(tmp_path / "rows.jsonl", ROWS), 5).train

    with pytest.raises(IndexError):
        train[5]


def test_a_stream_trains_on_what_the_whole_file_in_memory_would_be_trained_on(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", ROWS)
    whole = prepare_path(path, validation=0.3)

    prepared = streamed(path, 3 * len(ROWS), validation=0.3)

    assert 3 < len(whole.validation) < 15
    by_place = {example.place: example for example in prepared.train}
    assert by_place == {example.place: example for example in whole.train}
    assert not set(questions(prepared.train)) & set(questions(whole.validation))
    assert prepared.stop_token_ids == whole.stop_token_ids


def test_what_is_validated_on_is_held_back_everywhere_copies_further_on_included(tmp_path):
    copies = [*ROWS, *reversed(ROWS), *ROWS[::2]]

    prepared = streamed(write_jsonl(tmp_path / "rows.jsonl", copies), 150, validation=0.3)

    held = set(questions(prepared.validation))
    assert held
    assert not held & set(questions(prepared.train))


def test_the_one_row_held_back_where_the_fraction_chooses_none_is_not_trained_on_either(tmp_path):
    # One in a million of 30 rows is none; the row with the least hash among the first ones is held back all the same.
    copies = [*ROWS, *ROWS]

    prepared = streamed(write_jsonl(tmp_path / "rows.jsonl", copies), 120, validation=1e-6)

    assert len(prepared.validation) == 1
    held = questions(prepared.validation)[0]
    assert set(questions(prepared.train)) == set(asked(ROWS)) - {held}


def test_rows_of_a_group_stand_on_one_side_wherever_they_are_in_the_file(tmp_path):
    rows = [row | {"customer": index % 6} for index, row in enumerate(ROWS)]
    owner = dict(zip(asked(ROWS), (index % 6 for index in range(30)), strict=True))

    prepared = streamed(write_jsonl(tmp_path / "rows.jsonl", rows), 60, validation=0.4, group_by="customer")

    held = {owner[question] for question in questions(prepared.validation)}
    trained = {owner[question] for question in questions(prepared.train)}
    assert held
    assert trained
    assert not held & trained


def test_rows_of_a_validation_file_are_what_is_validated_on(tmp_path):
    held = write_jsonl(tmp_path / "held.jsonl", [chat("other", "no")] * 20)

    prepared = streamed(write_jsonl(tmp_path / "rows.jsonl", ROWS), 35, validation=str(held))

    assert questions(prepared.validation) == ["other"] * 20
    assert set(questions(prepared.train)) == set(asked(ROWS))


def test_files_give_a_row_each_in_turn_and_the_longer_one_goes_on_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(stream, "WINDOW", 4)
    write_jsonl(tmp_path / "a.jsonl", [chat(f"a{index}", "yo") for index in range(2)])
    write_jsonl(tmp_path / "b.jsonl", [chat(f"b{index}", "yo") for index in range(6)])

    found = questions(streamed(tmp_path, 8).train)

    assert set(found[:4]) == {"a0", "b0", "a1", "b1"}
    assert set(found[4:]) == {"b2", "b3", "b4", "b5"}


def test_all_sequences_of_a_row_are_given_or_none_where_turns_are_trained_one_by_one(tmp_path):
    rows = [chat(f"q{index}", "a", f"r{index}", "b") for index in range(12)]

    prepared = streamed(write_jsonl(tmp_path / "rows.jsonl", rows), 24, validation=0.3, template=FORGETFUL)

    held, trained = (Counter(example.place for example in side) for side in (prepared.validation, prepared.train))
    assert held
    assert set(held.values()) == {2}
    assert not held.keys() & trained.keys()
    # Windows are filled in file order: the first 14 examples are the two sequences of each of seven rows.
    assert set(Counter(example.place for example in prepared.train[:14]).values()) == {2}


# 17 tokens of prompt (question and number), so "yo" makes 20 and 17 letters more 37.
LONG = chat("question 1", "yo" + "z" * 17)


def test_drop_leaves_long_rows_out_wherever_they_stand(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", [LONG, *ROWS, LONG])

    prepared = streamed(path, 60, overflow="drop", max_length=40)
    longest = max(len(example.input_ids) for example in prepare_path(path).train)
    assert longest == len(prepare_path(path).train[0].input_ids)
    shorter = streamed(path, 60, overflow="drop", max_length=longest - 1)

    assert "yo" + "z" * 17 in {example.answer for example in prepared.train}
    assert "yo" + "z" * 17 not in {example.answer for example in shorter.train}
    assert shorter.report.dropped == {"longer than max_length": 1}  # of the first rows


def test_truncate_cuts_as_it_does_without_streaming(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", [*ROWS, LONG])
    whole = prepare_path(path, overflow="truncate", max_length=22)

    found = {example.place: example for example in streamed(path, 60, overflow="truncate", max_length=22).train}

    assert found == {example.place: example for example in whole.train}
    assert len(found[f"{path}:31"].input_ids) == 22


@pytest.mark.parametrize(
    ("row", "settings", "message"),
    [
        (LONG, {"max_length": 30}, r":27: \d\d tokens, data\.max_length is 30\n.*drop or truncate"),
        (chat("z" * 60, "yo"), {"max_length": 30, "overflow": "truncate"}, r":27: no token of this row counts"),
        ({"messages": []}, {}, r":27: messages"),
        (chat("<|im_end|>", "yo"), {}, r":27: .*spells the control token"),
    ],
)
def test_a_row_at_fault_stops_the_stream_when_its_turn_comes_and_whenever_it_is_asked_again(
    row, settings, message, tmp_path
):
    rows = [*ROWS[:26], row, *ROWS[26:]]

    train = streamed(write_jsonl(tmp_path / "rows.jsonl", rows), 60, **settings).train

    # Windows of 7: rows 22 to 28 are the fourth.
    before = [train[index] for index in range(21)]
    for _ in range(2):
        with pytest.raises(DataError, match=message):
            train[21]
    assert [train[index] for index in range(21)] == before


def test_a_line_that_is_no_json_stops_the_stream_too(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", ROWS)
    path.write_text(path.read_text() + "{broken\n")

    with pytest.raises(DataError, match=r"rows\.jsonl:31: "):
        list(streamed(path, 60).train)


def test_a_stream_without_a_row_to_train_on_says_so_instead_of_going_round_for_ever():
    train = StreamedExamples(
        list, length=5, is_held=lambda key: False, max_length=9, overflow="drop", seed=0, first_lengths=np.zeros(1)
    )

    with pytest.raises(DataError, match="no row is left to train on"):
        train[0]


def test_the_digest_stays_for_the_same_file_and_changes_when_it_grows(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", ROWS)
    before, again = (streamed(path, 10, validation=0.2).report.digest for _ in range(2))
    write_jsonl(path, [*ROWS, chat("one more", "yo")])  # behind all that the first look sees

    assert before == again
    assert streamed(path, 10, validation=0.2).report.digest != before


def test_only_what_lies_on_this_machine_is_streamed(tmp_path):
    with pytest.raises(DataError, match="only files and folders on this machine can be streamed"):
        streamed(tmp_path / "none.jsonl", 5)


MEASURED = ("step", "epoch", "loss", "learning_rate", "grad_norm", "tokens", "supervised_tokens", "validation_loss")


@pytest.mark.parametrize("packing", [False, True])
def test_training_from_a_stream_is_bit_for_bit_the_same_when_it_is_interrupted_and_resumed(
    packing, tmp_path, tiny_llama, monkeypatch
):
    path = write_jsonl(tmp_path / "rows.jsonl", ROWS)
    steps, batch = 9, 5  # 45 examples: an epoch and a half; step 4 begins in the middle of the third window

    def course(folder: Path) -> Any:
        return spec(
            folder, packing=packing, validate_every=3, schedule="cosine", batch_size=batch, micro_batch_size=5,
            max_steps=steps, epochs=3,
        )  # fmt: skip

    def data() -> PreparedData:
        return streamed(path, steps * batch, validation=0.1)

    def model() -> Any:
        return attached(tiny_llama, LoRAMethod(rank=4, alpha=8, dropout=0.2))

    straight, halted, whole = model(), model(), data()
    fit(straight, whole.train, whole.validation, course(tmp_path / "straight"))
    with monkeypatch.context() as patched:
        original = stream.StreamedExamples.__getitem__

        def stopping(self: Any, index: Any) -> Any:
            if index == 18:  # an example of the fourth step
                os.kill(os.getpid(), signal.SIGINT)
            return original(self, index)

        patched.setattr(stream.StreamedExamples, "__getitem__", stopping)
        first = data()
        stopped = fit(halted, first.train, first.validation, course(tmp_path / "halted"))
    assert stopped.interrupted
    assert 0 < stopped.steps < steps
    torch.manual_seed(999)  # as in a new process
    resumed, later = model(), data()
    checkpoint = newest_checkpoint(tmp_path / "halted" / "checkpoints")
    result = fit(resumed, later.train, later.validation, course(tmp_path / "halted"), resume_from=checkpoint)

    assert result.steps == steps
    expected = trainable(straight)
    assert all(torch.equal(value, expected[name]) for name, value in trainable(resumed).items())
    lines = [MetricsLog(tmp_path / name / "metrics.jsonl").read() for name in ("straight", "halted")]
    kept = [[{key: line.get(key) for key in MEASURED} for line in course] for course in lines]
    assert kept[0] == kept[1]
    assert kept[0][-1]["step"] == steps


@pytest.mark.parametrize("at", [0, 50, 99])
def test_a_large_stream_is_known_by_its_size_and_parts_from_its_beginning_to_its_end(at, tmp_path, monkeypatch):
    monkeypatch.setattr(streaming, "WHOLE_BYTES", 99)
    monkeypatch.setattr(streaming, "PARTS", 3)  # bytes 0 to 3, 48 to 51, 96 to 99
    monkeypatch.setattr(streaming, "PART_BYTES", 4)
    path = tmp_path / "rows.jsonl"
    file = DataFile(path=path, name="rows.jsonl", kind="jsonl")
    path.write_bytes(b"x" * 100)
    before = streaming._fingerprint(file)

    path.write_bytes(b"x" * at + b"y" + b"x" * (99 - at))

    assert before[0] == 100
    assert streaming._fingerprint(file)[0] == 100
    assert streaming._fingerprint(file) != before


def test_a_small_stream_is_known_by_every_byte(tmp_path):
    path = tmp_path / "rows.jsonl"
    file = DataFile(path=path, name="rows.jsonl", kind="jsonl")
    path.write_bytes(b"abc")

    assert streaming._fingerprint(file) == (3, sha256_file(path))
