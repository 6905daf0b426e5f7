"""What a server logs: nothing unasked, words by consent alone, and never at the cost of an answer."""

from __future__ import annotations

import json
import os

import pytest

from ftkit.errors import UsageError
from ftkit.improve.log import read_log
from ftkit.pipeline.target import open_target
from ftkit.rag.settings import AnsweringDefaults, write_defaults
from ftkit.serve.app import build_app
from ftkit.serve.journal import Journal
from ftkit.serve.own import open_live
from tests.rag.encoders import encoder_folder
from tests.rag.shed import write_shed
from tests.rag.systems import QUESTION, shed_index
from tests.serve.running import ask, events, running, said

CHAT, FEEDBACK = "/v1/chat/completions", "/v1/feedback"
AGREED = {"metadata": {"consent": True}}
SECRET = "my words of blue sky"


@pytest.fixture(scope="module")
def target(tiny_llama):
    return open_target(str(tiny_llama))


@pytest.fixture(scope="module")
def system(tmp_path_factory, tiny_llama):
    folder = tmp_path_factory.mktemp("cited")
    encoder = encoder_folder(folder / "encoder")
    made = shed_index(write_shed(folder / "shed"), folder / "index", encoder, tiny_llama)
    write_defaults(made, AnsweringDefaults(mode="hybrid", passages=2, max_new_tokens=8))
    return open_live(str(made))


@pytest.fixture
def log(tmp_path):
    return tmp_path / "log.jsonl"


@pytest.fixture
def server(target, system, log):
    journal = Journal(log, {"tuned": "a" * 64, "shed": "b" * 64})
    with running(build_app({"tuned": target}, systems={"shed": system}, journal=journal)) as url:
        yield url


def chat(url, text=SECRET, **fields):
    return ask(url, CHAT, said(text, model="tuned", max_tokens=4, **fields))[1]


def lines(log):
    return [json.loads(line) for line in log.read_text().splitlines()]


def test_nothing_is_logged_unasked(target, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with running(build_app({"tuned": target})) as url:
        document = chat(url, **AGREED)

        assert document["choices"][0]["message"]["content"] is not None
        assert ask(url, FEEDBACK, {"id": document["id"], "rating": "up"})[0] == 404
        assert ask(url, "/health")[1] == {"status": "ok"}
    assert list(tmp_path.iterdir()) == []


def test_an_answer_is_logged_with_consent(server, log):
    document = chat(server, **AGREED)

    line = lines(log)[0]
    assert line["id"] == document["id"]
    assert line["messages"] == [{"role": "user", "content": SECRET}]
    assert line["answer"] == document["choices"][0]["message"]["content"]
    assert line["finish_reason"] == document["choices"][0]["finish_reason"]
    assert (line["consent"], line["model"], line["digest"]) == (True, "tuned", "a" * 64)
    assert line["counts"] == {"messages": 1, **document["usage"]}
    assert log.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("fields", "header", "consent"),
    [
        ({}, {}, False),
        ({}, {"X_Consent": "true"}, True),
        ({"metadata": {"consent": "true"}}, {}, True),
        ({"metadata": {"consent": False}}, {"X_Consent": "true"}, False),
        (AGREED, {"X_Consent": "false"}, False),
    ],
)
def test_words_are_written_only_where_consent_says_so(server, log, fields, header, consent):
    status, _ = ask(server, CHAT, said(SECRET, model="tuned", max_tokens=4, **fields), **header)

    assert status == 200
    assert lines(log)[0]["consent"] is consent
    assert (SECRET in log.read_text()) is consent
    if not consent:
        assert set(lines(log)[0]) == {
            "version", "kind", "id", "time", "model", "digest", "consent", "finish_reason", "counts",
        }  # fmt: skip


@pytest.mark.parametrize(
    "metadata", [{"consent": 1}, {"consent": "yes"}, {"consent": True, "user": "x"}, "consent", ["consent"]]
)
def test_a_consent_that_is_none_is_refused(server, log, metadata):
    status, document = ask(server, CHAT, said(SECRET, model="tuned", metadata=metadata))

    assert (status, document["error"]["type"]) == (400, "invalid_request_error")
    assert log.read_text() == ""


def test_a_stream_is_logged_like_a_whole_answer(server, log):
    chunks = events(server, CHAT, said(SECRET, model="tuned", max_tokens=4, **AGREED))

    text = "".join(one["choices"][0]["delta"].get("content", "") for one in chunks)
    assert (lines(log)[0]["id"], lines(log)[0]["answer"]) == (chunks[0]["id"], text)


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_from_documents_is_logged_with_its_citations(server, log, stream):
    body = said(QUESTION, model="shed", **AGREED)
    document = events(server, CHAT, body)[-1] if stream else ask(server, CHAT, body)[1]

    line = lines(log)[0]
    said_by = document["choices"][0]["delta" if stream else "message"]
    assert (line["digest"], line["citations"]) == ("b" * 64, said_by["citations"])
    assert line["messages"] == [{"role": "user", "content": QUESTION}]


def test_feedback_reaches_the_log_and_outlives_the_server(server, log, target):
    one, two = chat(server, **AGREED)["id"], chat(server, **AGREED)["id"]
    assert ask(server, FEEDBACK, {"id": one, "rating": "up"})[0] == 200
    with running(build_app({"tuned": target}, journal=Journal(log, {"tuned": "a"}))) as url:  # a new start
        assert ask(url, FEEDBACK, {"id": one, "rating": "down", "correction": "better"})[0] == 200
        assert ask(url, FEEDBACK, {"id": two, "withdraw": True})[0] == 200
        assert ask(url, FEEDBACK, {"id": two, "rating": "up"})[0] == 409

    first, second = read_log([log]).exchanges
    assert (first.rating, first.correction, first.withdrawn) == ("down", "better", False)
    assert (second.rating, second.withdrawn) == (None, True)


def test_feedback_may_be_given_to_another_server_of_the_same_log(server, log, target):
    with running(build_app({"tuned": target}, journal=Journal(log, {"tuned": "a"}))) as other:
        known = chat(server, **AGREED)["id"]
        assert ask(other, FEEDBACK, {"id": known, "rating": "up"})[0] == 200
        assert ask(server, FEEDBACK, {"id": known, "withdraw": True})[0] == 200
        assert ask(other, FEEDBACK, {"id": known, "rating": "up"})[0] == 409


def test_feedback_that_cannot_be_taken_is_refused(server, log):
    agreed, silent = chat(server, **AGREED)["id"], chat(server)["id"]
    before = log.read_text()
    bodies = {
        404: [{"id": "chatcmpl-0", "rating": "up"}],
        400: [
            {"id": agreed}, {"rating": "up"}, {"id": agreed, "rating": "good"},
            {"id": agreed, "rating": "up", "x": 1}, {"id": agreed, "rating": "up", "correction": 3},
            {"id": agreed, "withdraw": "yes"},
            {"id": agreed, "withdraw": True, "rating": "up"}, {"id": agreed, "correction": "without a rating"},
        ],
        409: [{"id": silent, "rating": "down", "correction": "words of the same person"}],
    }  # fmt: skip
    for status, tried in bodies.items():
        for body in tried:
            got, document = ask(server, FEEDBACK, body)
            assert (got, set(document)) == (status, {"error"}), body

    assert log.read_text() == before
    assert ask(server, FEEDBACK, {"id": silent, "rating": "down"})[0] == 200


def test_a_full_disk_costs_no_answer_and_health_says_so(server, log, monkeypatch):
    known = chat(server, **AGREED)["id"]

    def full(handle, line):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("ftkit.serve.journal.os.write", full)
        lost = chat(server, **AGREED)
        health = ask(server, "/health")[1]
        unwritten = ask(server, FEEDBACK, {"id": known, "rating": "up"})
    assert lost["choices"][0]["message"]["content"] is not None
    assert health == {"status": "ok", "log": {"writing": False, "lost": 1, "fault": "No space left on device"}}
    assert unwritten[0] == 503
    assert ask(server, FEEDBACK, {"id": lost["id"], "rating": "up"})[0] == 404  # it is not in the log
    chat(server, **AGREED)
    assert ask(server, "/health")[1]["log"] == {"writing": True, "lost": 2}


def test_half_a_line_does_not_spoil_the_next(server, log, monkeypatch):
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr("ftkit.serve.journal.os.write", lambda handle, line: write(handle, line[:20]))
        chat(server, **AGREED)
    whole = chat(server, **AGREED)["id"]

    found = read_log([log])
    assert ([one.id for one in found.exchanges], found.torn) == ([whole], 1)


def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(UsageError, match="--log"):
            Journal(place, {})
