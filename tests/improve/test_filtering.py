"""Every row of a log is accounted for, and none that may not or should not be learnt from is."""

from __future__ import annotations

import json

import pytest

from ftkit.data.private import find_private
from ftkit.errors import DataError
from ftkit.improve.filtering import KEPT, REASONS, Row, filter_log
from ftkit.improve.frozen import FEWEST_QUESTIONS, read_frozen
from ftkit.improve.keys import Known
from ftkit.improve.log import Exchange, read_log
from ftkit.improve.trainable import Trainable
from ftkit.rag.cited import CitedAnswer
from ftkit.recipe import ModelSection
from ftkit.recipe.improve import FormerData
from ftkit.serve.cited import CitedReply
from ftkit.serve.journal import Said
from tests.improve.desk import complaint, exchange, open_journal, rate, withdraw, write_test

TESTED = "Which of the two garden doors behind the old mill must be painted before the winter begins?"
NEARLY = "Which of the two garden doors behind the old mill must be painted before winter begins?"


@pytest.fixture
def frozen(tmp_path):
    path = write_test(tmp_path / "test.jsonl", range(40))
    with path.open("a") as stream:
        stream.write(json.dumps({"question": TESTED, "answers": ["the left one"]}) + "\n")
    return read_frozen(path)


@pytest.fixture
def journal(tmp_path):
    return open_journal(tmp_path / "log.jsonl")


@pytest.fixture(autouse=True)
def can_train(tiny_llama, monkeypatch):
    """What the tiny model can be trained on."""
    monkeypatch.setattr(f"{__name__}.CAN_TRAIN", Trainable(ModelSection(path=str(tiny_llama)), FormerData()))


CAN_TRAIN = None


def outcomes(tmp_path, frozen):
    filtered = filter_log(read_log([tmp_path / "log.jsonl"]), frozen, CAN_TRAIN)
    names = [one.id for one in filtered.log.exchanges]
    return dict(zip(names, filtered.outcomes, strict=True)), filtered


def cited(journal, name, asked):
    """What a server writes after an answer from documents."""
    source = CitedAnswer(
        text="light [1]", abstained=False, citations=(), latency_s=None, tokens=1, finish_reason="stop"
    )
    said = Said(name="desk", consent=True, messages=({"role": "user", "content": asked},), tools=())
    reply = CitedReply(text=source.text, tokens=1, finish_reason="stop", wall_s=0.0, cited=source, details={})
    journal.record(name, said, reply, {})


def one_of_each(journal):
    """A row for every reason but a repeated id, and two that are kept."""
    exchange(journal, "withdrawn", *complaint(101))
    rate(journal, "withdrawn")
    withdraw(journal, "withdrawn")
    exchange(journal, "no consent", *complaint(102), consent=False)
    rate(journal, "no consent")
    exchange(journal, "no feedback", *complaint(103))
    exchange(journal, "rated down without correction", *complaint(104))
    rate(journal, "rated down without correction", "down")
    exchange(journal, "refusal", complaint(105)[0], "I don't know.")
    exchange(journal, "cut off", *complaint(106), reason="length")
    exchange(journal, "no answer", complaint(107)[0], " ")
    exchange(journal, "cannot be trained on", complaint(109)[0], "light")
    rate(journal, "cannot be trained on", "down", "light<|im_end|>")
    exchange(journal, "too long", complaint(110)[0], "light " * 1200)
    cited(journal, "answered from documents", complaint(111)[0])
    rate(journal, "answered from documents", "down", "light")  # a document may have it otherwise tomorrow
    exchange(journal, "secret or personal data", "Write to anna.huber@firma.de about my lamp", "light")
    exchange(journal, "in the frozen test", complaint(3)[0].upper() + " !", complaint(3)[1])
    exchange(journal, "near the frozen test", NEARLY, "the left one")
    exchange(journal, "contradiction", "Where does the tall mirror go?", "wall")
    exchange(journal, "contradiction 2", "where does the tall  mirror go?", "floor")
    exchange(journal, "kept", *complaint(108))
    exchange(journal, "duplicate", *complaint(108))
    long = "Please tell me, as the manual is lost, how the small clock on the kitchen wall is set to summer time"
    exchange(journal, "kept 2", f"{long}, if you can", "press both")
    exchange(journal, "near duplicate", f"{long}, if you could", "press both")
    for name in (
        "refusal", "cut off", "no answer", "too long", "secret or personal data", "in the frozen test",
        "near the frozen test", "contradiction", "contradiction 2", "kept", "duplicate", "kept 2", "near duplicate",
    ):  # fmt: skip
        rate(journal, name)


def test_each_row_is_left_out_for_its_own_reason(tmp_path, frozen, journal):
    one_of_each(journal)

    found, filtered = outcomes(tmp_path, frozen)

    assert {name.removesuffix(" 2"): outcome for name, outcome in found.items()} == {
        name: name for name in (*REASONS[1:], KEPT)
    }
    assert [row.exchange.id for row in filtered.rows] == ["kept", "kept 2"]


def test_the_counts_sum_to_the_rows_and_every_id_is_written_down(tmp_path, frozen, journal):
    one_of_each(journal)
    log = tmp_path / "log.jsonl"
    log.write_bytes(log.read_bytes() * 2)  # the same file twice: every id again

    filtered = outcomes(tmp_path, frozen)[1]
    filtered.write(tmp_path / "dataset")

    counts = json.loads((tmp_path / "dataset" / "filter.json").read_text())
    account = [json.loads(line) for line in (tmp_path / "dataset" / "rows.jsonl").read_text().splitlines()]
    rows = (tmp_path / "dataset" / "messages.jsonl").read_text().splitlines()
    assert counts["kept"] + sum(counts["dropped"].values()) == counts["rows"] == len(account) == 38
    assert counts["dropped"]["repeated id"] == 19
    assert counts["kept"] == len(rows) == 2


def test_a_correction_takes_the_answers_place_and_mends_a_refusal_or_a_cut(tmp_path, frozen, journal):
    for name, answer, reason in (("a", "cold", "stop"), ("b", "I don't know.", "stop"), ("c", "lig", "length")):
        exchange(journal, name, complaint(ord(name) + 200)[0], answer, reason=reason)
        rate(journal, name, "down", "first thought")
        rate(journal, name, "down", f"right {name}")

    rows = outcomes(tmp_path, frozen)[1].rows

    assert [row.values["messages"][-1] for row in rows] == [
        {"role": "assistant", "content": f"right {name}"} for name in "abc"
    ]


def test_former_answers_of_a_conversation_teach_nothing(tmp_path, frozen, journal):
    turns = [
        {"role": "user", "content": "hello there, it is me"},
        {"role": "assistant", "content": "unrated words"},
        {"role": "user", "content": complaint(300)[0]},
    ]
    exchange(journal, "a", turns, complaint(300)[1])
    rate(journal, "a")

    assert outcomes(tmp_path, frozen)[1].rows[0].values["messages"] == [
        turns[0], {**turns[1], "train": False}, turns[2], {"role": "assistant", "content": complaint(300)[1]},
    ]  # fmt: skip


def test_a_test_question_is_found_in_an_earlier_turn_and_inside_a_longer_text(tmp_path, frozen, journal):
    turns = [
        {"role": "user", "content": TESTED},
        {"role": "assistant", "content": "the left one"},
        {"role": "user", "content": complaint(301)[0]},
    ]
    exchange(journal, "turn", turns, complaint(301)[1])
    exchange(journal, "inside", f"Good morning! {complaint(3)[0]}. Thank you, Ann", complaint(3)[1])
    exchange(journal, "pasted", f"He asked me this: {NEARLY} What shall I say to him?", "the left one")
    for name in ("turn", "inside", "pasted"):
        rate(journal, name)

    assert outcomes(tmp_path, frozen)[0] == {
        "turn": "in the frozen test", "inside": "near the frozen test", "pasted": "near the frozen test",
    }  # fmt: skip


def test_a_test_question_is_found_in_every_message_and_in_the_answer(tmp_path, frozen, journal):
    asked = {"role": "user", "content": complaint(302)[0]}
    places = {
        "system": [{"role": "system", "content": f"Somebody asked: {complaint(3)[0]}"}, asked],
        "tool": [
            asked,
            {"role": "assistant", "content": "I look it up"},
            {"role": "tool", "content": complaint(3)[0]},
            {"role": "user", "content": complaint(303)[0]},
        ],
    }
    for name, messages in places.items():
        exchange(journal, name, messages, "light")
        rate(journal, name)
    exchange(journal, "correction", complaint(304)[0], "light")
    rate(journal, "correction", "down", f"Other people say: {complaint(3)[0]}!")

    assert outcomes(tmp_path, frozen)[0] == {
        "system": "near the frozen test", "tool": "in the frozen test", "correction": "near the frozen test",
    }  # fmt: skip


def test_the_last_turn_of_a_test_question_is_one_of_its_own_if_it_says_enough(tmp_path):
    path = write_test(tmp_path / "test.jsonl", range(40))
    answer = {"role": "assistant", "content": "yes"}
    with path.open("a") as stream:
        for last in ("Which bus goes to the lake?", "Why?"):
            turns = [{"role": "user", "content": "I am in the old town"}, answer, {"role": "user", "content": last}]
            stream.write(json.dumps({"messages": [*turns, answer]}) + "\n")
    known = Known(text for one in read_frozen(path).questions for text in one.asks)

    assert known.like(["which bus goes to the lake"]) == "exact"
    assert known.like(["Why?"]) is None


def test_short_questions_and_those_without_spaces_are_found_inside_of_longer_texts():
    known = Known(["Opening hours?", "Hello", "你们几点开门？", "ร้านเปิดกี่โมง"])

    assert known.like(["Good day! What are your opening hours on Sunday?"]) == "near"
    assert known.like(["请问你们几点开门，谢谢"]) == "near"
    assert known.like(["สวัสดีครับร้านเปิดกี่โมงครับ"]) == "near"
    assert known.like(["hello!"]) == "exact"
    assert known.like(["Hello, the opening of it took hours", "你们好"]) is None


def test_a_later_up_takes_a_correction_back(tmp_path, journal):
    exchange(journal, "a", *complaint(1))
    rate(journal, "a", "down", "mistaken")
    rate(journal, "a", "up")

    (found,) = read_log([tmp_path / "log.jsonl"]).exchanges
    assert (found.rating, found.correction) == ("up", None)


def test_secrets_in_calls_of_tools_are_seen_and_calls_tell_prompts_apart():
    def row(arguments, call_id="1"):
        call = {"id": call_id, "type": "function", "function": {"name": "login", "arguments": arguments}}
        messages = ({"role": "user", "content": "hi"}, {"role": "assistant", "content": "", "tool_calls": [call]})
        return Row(exchange=Exchange(id="a", place="", consent=True, messages=messages), answer="done")

    for arguments in ({"password": "kX83hd7qPz"}, json.dumps({"password": "kX83hd7qPz"})):
        text = row(arguments).text
        assert [one.code for one in find_private(text, text.encode())] == ["secret"]
    assert row({"page": 1}).prompt == row({"page": 1}, "2").prompt != row({"page": 2}).prompt


def test_a_test_keeps_its_tools_and_lines_end_at_line_feeds_alone(tmp_path):
    path = write_test(tmp_path / "test.jsonl", range(40))
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
    turns = [{"role": "user", "content": "What\u2028is it?"}, {"role": "assistant", "content": "it"}]
    with path.open("a") as stream:
        stream.write(json.dumps({"messages": turns, "tools": [tool]}, ensure_ascii=False) + "\n")

    question = read_frozen(path).questions[-1]

    assert json.loads(question.line) == {"messages": turns, "tools": [tool]}
    with path.open("a") as stream:
        stream.write(json.dumps({"question": "x", "answers": ["y"], "tools": [tool]}) + "\n")
        stream.write(json.dumps({"messages": [{"role": "usr", "content": "x"}, turns[1]]}) + "\n")
    with pytest.raises(DataError) as caught:
        read_frozen(path)
    assert [one.where for one in caught.value.problems] == [f"{path}:42", f"{path}:43"]


def test_a_test_question_that_many_ask_in_their_own_words_is_still_found():
    asked = [f"{TESTED} Number {one} wants to know." for one in range(50)]
    known = Known([TESTED, *(complaint(one)[0] for one in range(100))])

    assert {known.like([one]) for one in asked} == {"near"}


def test_rows_that_differ_in_what_matters_are_kept():
    known = Known(complaint(one)[0] for one in range(100))

    assert {known.like([complaint(one)[0]]) for one in range(100, 200)} == {None}


def test_a_torn_line_is_skipped_and_counted_and_the_next_one_stands_by_itself(tmp_path, journal):
    exchange(journal, "a", *complaint(1))
    with (tmp_path / "log.jsonl").open("ab") as stream:
        stream.write(b'{"version": 1, "kind": "excha')
    assert read_log([tmp_path / "log.jsonl"]).torn == 1

    after = open_journal(tmp_path / "log.jsonl")  # as after a kill
    exchange(after, "b", *complaint(2))

    found = read_log([tmp_path / "log.jsonl"])
    assert [one.id for one in found.exchanges] == ["a", "b"]
    assert (found.lines, found.torn) == (3, 1)


def test_a_file_that_is_no_log_is_refused_line_by_line(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"messages": []}\n{"version": 2, "kind": "feedback", "id": "a"}\n')

    with pytest.raises(DataError) as caught:
        read_log([path, tmp_path / "missing"])

    assert [one.where for one in caught.value.problems] == [f"{path}:1", f"{path}:2", str(tmp_path / "missing")]


def test_a_withdrawal_counts_for_good(tmp_path, frozen, journal):
    exchange(journal, "a", *complaint(500))
    withdraw(journal, "a")
    line = {"version": 1, "kind": "feedback", "id": "a", "rating": "up"}
    with (tmp_path / "log.jsonl").open("a") as stream:  # by another program
        stream.write(json.dumps(line) + "\n")

    assert outcomes(tmp_path, frozen)[0] == {"a": "withdrawn"}


def test_a_test_that_could_decide_nothing_is_refused(tmp_path):
    with pytest.raises(DataError, match="decide nothing"):
        read_frozen(write_test(tmp_path / "test.jsonl", range(FEWEST_QUESTIONS - 1)))


def test_a_log_is_for_its_owner_alone(tmp_path, journal):
    assert (tmp_path / "log.jsonl").stat().st_mode & 0o777 == 0o600
