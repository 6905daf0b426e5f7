"""Chats with an index: the answer that `ftkit rag ask` gives, with its sources, from what the index holds by now."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace

import pytest

from ftkit.errors import UsageError
from ftkit.rag.exporting import export_rag
from ftkit.rag.index import Index
from ftkit.rag.opening import open_system
from ftkit.rag.reader import REFUSAL
from ftkit.rag.settings import AnsweringDefaults, write_defaults
from ftkit.serve.app import build_app
from ftkit.serve.engines import choose_engine
from ftkit.serve.own import open_live
from tests.rag.encoders import encoder_folder
from tests.rag.shed import write_shed
from tests.rag.systems import QUESTION, shed_index
from tests.serve.running import ask, events, running, said

CHAT = "/v1/chat/completions"
ADD = """
import sys
from ftkit.cli.app import main
main(["rag", "add", *sys.argv[1:], "--quiet"])
"""


@pytest.fixture(scope="module")
def index(tmp_path_factory, tiny_llama):
    folder = tmp_path_factory.mktemp("cited")
    encoder = encoder_folder(folder / "encoder")
    made = shed_index(write_shed(folder / "shed"), folder / "index", encoder, tiny_llama)
    write_defaults(made, AnsweringDefaults(mode="hybrid", passages=2, max_new_tokens=8))
    return made


@pytest.fixture(scope="module")
def system(index):
    return open_live(str(index))


@pytest.fixture(scope="module")
def server(system):
    with running(build_app({}, systems={"shed": system})) as url:
        yield url


def message(document):
    return document["choices"][0]["message"]


def as_json(citations):
    return json.loads(json.dumps([asdict(one) for one in citations]))


def test_a_chat_is_answered_as_the_index_is_asked(server, index):
    expected = open_system(index).ask(QUESTION)
    status, document = ask(server, CHAT, said(QUESTION, model="shed"))

    assert status == 200
    assert document["object"] == "chat.completion" and document["model"] == "shed"
    assert message(document) == {
        "role": "assistant", "content": expected.text, "citations": as_json(expected.citations), "abstained": False,
    }  # fmt: skip
    assert document["choices"][0]["finish_reason"] == expected.finish_reason
    assert document["usage"]["prompt_tokens"] == expected.prompt_tokens > 50
    assert document["usage"]["completion_tokens"] == expected.tokens
    assert set(message(document)["citations"][0]) == {"document", "version", "start", "end", "text", "score"}
    assert document["rag"]["mode"] == "hybrid" and document["rag"]["unread_messages"] == 0


def test_a_citation_is_the_stored_text_at_its_offsets(server, index):
    document = ask(server, CHAT, said(QUESTION))[1]

    with Index(index) as stored:
        for one in message(document)["citations"]:
            assert stored.text(one["document"], one["version"])[one["start"] : one["end"]] == one["text"]


def test_a_stream_is_the_answer_with_the_citations_in_its_last_chunk(server):
    whole = ask(server, CHAT, said(QUESTION))[1]
    chunks = events(server, CHAT, said(QUESTION, stream_options={"include_usage": True}))
    choices = [choice for chunk in chunks for choice in chunk["choices"]]

    assert "".join(choice["delta"].get("content", "") for choice in choices) == message(whole)["content"]
    assert choices[-1]["finish_reason"] == whole["choices"][0]["finish_reason"]
    assert choices[-1]["delta"] == {key: message(whole)[key] for key in ("citations", "abstained")}
    assert all("citations" not in choice["delta"] for choice in choices[:-1])
    assert chunks[-2]["rag"]["passages"] == 2
    assert chunks[-1]["usage"] == whole["usage"]


def test_only_the_last_user_message_is_read_and_the_others_are_counted(server):
    alone = ask(server, CHAT, said(QUESTION))[1]
    turns = [
        {"role": "system", "content": "Answer in French."},
        {"role": "user", "content": "What is the saw?"},
        {"role": "assistant", "content": "blue1"},
        {"role": "user", "content": [{"type": "text", "text": QUESTION}]},
    ]
    document = ask(server, CHAT, said(turns))[1]

    assert message(document) == message(alone)
    assert document["usage"] == alone["usage"]
    assert document["rag"]["unread_messages"] == 3


def test_below_its_threshold_a_system_says_that_it_does_not_know(system):
    strict = replace(system, threshold=0.0)  # nothing is certain
    with running(build_app({}, systems={"strict": strict})) as url:
        document = ask(url, CHAT, said(QUESTION))[1]
        chunks = events(url, CHAT, said(QUESTION))

    assert message(document)["content"] == REFUSAL and message(document)["abstained"] is True
    assert document["rag"]["threshold"] == 0.0 and document["rag"]["confidence"] < 0
    streamed = "".join(choice["delta"].get("content", "") for chunk in chunks for choice in chunk["choices"])
    assert streamed == REFUSAL  # not the answer that is withheld
    assert chunks[-1]["choices"][0]["delta"]["abstained"] is True


def test_what_another_process_adds_is_in_the_next_answer(server, index, tmp_path):
    text = "The quokka is turquoise99."
    (tmp_path / "quokka.txt").write_text(text)
    before = message(ask(server, CHAT, said("What is the quokka?"))[1])["citations"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", ADD, str(index), str(tmp_path / "quokka.txt")],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    after = message(ask(server, CHAT, said("What is the quokka?"))[1])["citations"]

    assert "quokka.txt" not in [one["document"] for one in before]
    assert (after[0]["document"], after[0]["text"]) == ("quokka.txt", text)
    assert after[0]["version"] == before[0]["version"] + 1

    with Index(index) as other:
        other.remove(["quokka.txt"])
    gone = message(ask(server, CHAT, said("What is the quokka?"))[1])["citations"]
    assert "quokka.txt" not in [one["document"] for one in gone]


@pytest.mark.parametrize(
    ("fields", "said_of_it"),
    [
        ({"temperature": 0.7}, "answers from documents are greedy; leave it out or send 0"),
        ({"top_p": 0.5}, "answers from documents are greedy; leave it out or send 1"),
        ({"stop": ["x"]}, "cannot follow stop"),
        ({"tools": [{"type": "function"}]}, "cannot follow tools"),
        ({"max_tokens": 0}, "must be a whole number from 1"),
        ({"messages": []}, "must be a list of at least one message"),
        ({"messages": [{"role": "assistant", "content": "hi"}]}, "the last message must be the user's question"),
        ({"messages": [{"role": "user", "content": "  "}]}, "the question is empty"),
        ({"messages": [{"role": "user", "content": "why " * 200}]}, "Ask in fewer words"),
        ({"messages": [{"role": "user", "content": "why " * 200}], "stream": True}, "Ask in fewer words"),
    ],
)
def test_what_cannot_be_followed_is_refused_with_the_reason(server, fields, said_of_it):
    status, document = ask(server, CHAT, said(QUESTION) | fields)

    assert status == 400
    assert said_of_it in document["error"]["message"]


def test_what_asks_for_nothing_else_is_allowed(server):
    usual = message(ask(server, CHAT, said(QUESTION))[1])
    body = said(QUESTION, temperature=0, top_p=1, seed=3, n=1, user="me", max_tokens=4096)

    assert message(ask(server, CHAT, body)[1]) == usual


def test_a_shorter_answer_rests_on_the_same_passages(server):
    usual = message(ask(server, CHAT, said(QUESTION))[1])
    short = ask(server, CHAT, said(QUESTION, max_tokens=1))[1]

    assert short["usage"]["completion_tokens"] == 1
    assert message(short)["citations"] == usual["citations"]


@pytest.mark.parametrize(("path", "body"), [("/v1/completions", {"prompt": "hi"}), ("/tokenize", {"prompt": "hi"})])
def test_other_forms_are_sent_to_the_chat(server, path, body):
    status, document = ask(server, path, body)

    assert status == 400
    assert "shed answers questions from documents" in document["error"]["message"]
    assert "POST /v1/chat/completions" in document["error"]["message"]


def test_systems_are_listed_and_unknown_names_refused(server, system):
    listed = ask(server, "/v1/models")[1]["data"]

    assert [(one["id"], one["max_model_len"]) for one in listed] == [("shed", system.generator.context_length)]
    assert ask(server, "/v1/models/shed")[1]["id"] == "shed"
    assert ask(server, CHAT, said(QUESTION, model="shelf"))[0] == 404


def test_a_key_is_asked_for_as_everywhere(system):
    with running(build_app({}, systems={"shed": system}, key="k")) as url:
        assert ask(url, CHAT, said(QUESTION))[0] == 401
        assert ask(url, CHAT, said(QUESTION), Authorization="Bearer k")[0] == 200


def test_models_and_systems_answer_side_by_side(system):
    with running(build_app({"plain": system.generator}, systems={"shed": system})) as url:
        cited = ask(url, CHAT, said(QUESTION, model="shed"))[1]
        plain = ask(url, CHAT, said(QUESTION, model="plain", max_tokens=4))[1]

        assert ask(url, CHAT, said(QUESTION))[0] == 400
        assert ask(url, "/tokenize", {"prompt": "hi", "model": "plain"})[0] == 200
    assert "citations" in message(cited) and "rag" in cited
    assert set(message(plain)) == {"role", "content"} and "rag" not in plain


def test_an_export_is_served_as_the_index_that_it_was_made_from(index, tmp_path, server):
    export_rag(index, tmp_path / "out", quiet=True)
    live = message(ask(server, CHAT, said(QUESTION))[1])
    with running(build_app({}, systems={"out": open_live(str(tmp_path / "out"))})) as url:
        assert message(ask(url, CHAT, said(QUESTION))[1]) == live


def test_no_other_engine_is_taken_for_one_that_answers_from_documents(index):
    assert choose_engine("auto", {"shed": str(index)}) == choose_engine("ftkit", {"shed": str(index)}) == "ftkit"
    for engine in ("transformers", "vllm", "llama-cpp"):
        with pytest.raises(UsageError, match=f"--engine {engine}: .* only ftkit's own server"):
            choose_engine(engine, {"shed": str(index)})


def test_an_index_that_others_may_change_unseen_is_said_to_be_one(index, monkeypatch, caplog):
    monkeypatch.setattr("ftkit.rag.index.os.access", lambda *_: False)
    with caplog.at_level("WARNING", logger="ftkit"):
        open_live(str(index))

    assert "what others add is seen after a new start" in caplog.text
