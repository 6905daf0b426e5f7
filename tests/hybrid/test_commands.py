"""A hybrid as it is typed: trained, checked, resumed, asked, measured, and asked over HTTP."""

from __future__ import annotations

import json

import pytest

from ftkit.hybrid.opening import open_hybrid
from ftkit.serve.app import build_app
from ftkit.serve.engines import choose_engine
from ftkit.serve.own import open_live
from tests.cli.running import ftkit
from tests.hybrid.conftest import TOOLS, TOWNS
from tests.hybrid.played import play
from tests.serve.running import ask, said

QUESTION = f"Who is the mayor of {TOWNS[1]}?"


@pytest.fixture
def run(values, monkeypatch, tmp_path):
    """The folder of a run that the command line made."""
    play(monkeypatch)
    (tmp_path / "hybrid.yaml").write_text(json.dumps(values))  # JSON is YAML
    done = ftkit("train", tmp_path / "hybrid.yaml")
    assert done.code == 0, done.err
    assert "the router beats the best single member" in done.out
    return tmp_path / "run"


def test_an_answer_names_its_member_and_its_sources(run):
    document = json.loads(ftkit("rag", "ask", run, "-q", QUESTION, "--json").out)
    words = ftkit("rag", "ask", run, "-q", QUESTION, "--why").out

    assert (document["member"], document["text"]) == ("towns", "Berg1")
    assert document["citations"][0]["document"] == f"{TOWNS[1]}.txt"
    assert "answered by towns" in words and "why these passages" in words


def test_options_that_members_have_of_their_own_are_refused(run, topics):
    for option in (["--mode", "dense"], ["--passages", "2"], ["--generator", "smollm2-135m"], ["--hops", "2"]):
        outcome = ftkit("rag", "ask", run, "-q", QUESTION, *option)
        assert outcome.code == 2 and option[0] in outcome.err
    data = topics / "questions.jsonl"
    assert ftkit("rag", "eval", run, "--data", data, "--set-threshold", "0.1").code == 2
    assert ftkit("rag", "ask", run, "-q", QUESTION, "--max-new-tokens", "3").code == 0


def test_an_evaluation_tells_who_answered_and_finds_what_each_member_says(run, topics, tmp_path):
    options = ("--data", topics / "questions.jsonl", "--save", tmp_path / "e.json", "--report", tmp_path / "e.html")
    document = json.loads(ftkit("rag", "eval", run, *options, "--json").out)

    assert document["exact_match"] == 1.0
    assert document["settings"]["routes"] == {"towns": 2 * len(TOWNS), "tools": 2 * len(TOOLS)}
    assert {answer["member"] for answer in document["answers"][: len(TOWNS)]} == {"towns"}
    assert document["answers"][0]["text"] == "Berg0"
    assert "towns (24)" in (tmp_path / "e.html").read_text()
    assert "answered by tools" in ftkit("rag", "eval", run, *options).out


def test_check_and_resume_take_it(run, tmp_path):
    checked = ftkit("check", tmp_path / "hybrid.yaml")
    resumed = ftkit("resume", run)

    assert checked.code == 0 and "12 documents, lexical search, 1 passages given" in checked.out
    assert resumed.code == 0 and "finished" in resumed.out
    assert (run / "report.html").read_text().count("<table") == 4


def test_a_chat_is_answered_as_the_hybrid_is_asked(run):
    from tests.serve.running import running

    assert choose_engine("auto", {"both": str(run)}) == "ftkit"
    expected = open_hybrid(run).ask(QUESTION)
    with running(build_app({}, systems={"both": open_live(str(run))})) as url:
        status, document = ask(url, "/v1/chat/completions", said(QUESTION))
        models = ask(url, "/v1/models")[1]

    message = document["choices"][0]["message"]
    assert status == 200
    assert (message["content"], message["member"]) == (expected.text, "towns")
    assert message["citations"][0]["document"] == expected.citations[0].document
    assert document["rag"]["member"] == "towns"
    assert models["data"][0]["max_model_len"] == 1024
