"""Mixtures and memories as they are typed: checked, trained, resumed, asked, measured, and asked over HTTP."""

from __future__ import annotations

import json

import pytest

from ftkit.hybrid.opening import open_hybrid
from ftkit.serve.app import build_app
from ftkit.serve.own import open_live
from tests.cli.running import ftkit
from tests.hybrid.conftest import TOWNS
from tests.serve.running import ask, running, said

QUESTION = f"Who is the mayor of {TOWNS[1]}?"


@pytest.fixture(params=["mixture", "memory"])
def recipe(request, topics, tmp_path):
    members = {"docs": {"path": str(topics / "towns-index")}}
    if request.param == "mixture":
        members["plain"] = {"path": str(topics / "model")}
    lines = (topics / "questions.jsonl").read_text().splitlines()[::4]
    (tmp_path / "dev.jsonl").write_text("\n".join(lines))
    values = {
        "recipe": "hybrid",
        "kind": request.param,
        "members": members,
        "data": {"train": str(tmp_path / "dev.jsonl"), "validation": 0.3},
        "output": str(tmp_path / "run"),
    }
    (tmp_path / "hybrid.yaml").write_text(json.dumps(values))  # JSON is YAML
    return tmp_path / "hybrid.yaml"


def test_every_command_takes_it(recipe, tmp_path):
    run, kind = tmp_path / "run", json.loads(recipe.read_text())["kind"]
    checked = ftkit("check", recipe)
    trained = ftkit("train", recipe)
    resumed = ftkit("resume", run)
    document = json.loads(ftkit("rag", "ask", run, "-q", QUESTION, "--json").out)
    why = ftkit("rag", "ask", run, "-q", QUESTION, "--why")
    refused = ftkit("rag", "ask", run, "-q", QUESTION, "--passages", "2")
    options = ("--data", tmp_path / "dev.jsonl", "--report", tmp_path / "e.html", "--json")
    measured = json.loads(ftkit("rag", "eval", run, *options).out)

    assert checked.code == 0 and f"kind      {kind}" in checked.out and "few to choose a weight by" in checked.out
    assert ("questions are left to choose the weight by" in checked.out) == (kind == "memory")
    assert trained.code == 0 and "nats a token" in trained.out, trained.err
    assert resumed.code == 0 and "finished" in resumed.out
    system = open_hybrid(run)
    expected = system.ask(QUESTION)
    assert document["text"] == expected.text
    assert [one["document"] for one in document["citations"]] == [one.document for one in expected.citations]
    assert why.code == 0 and refused.code == 2 and "--passages" in refused.err
    settings = measured["settings"]
    assert (settings["kind"], settings["weight"]) == (kind, system.weight)
    assert (tmp_path / "e.html").is_file()
    with running(build_app({}, systems={"both": open_live(str(run))})) as url:
        status, chat = ask(url, "/v1/chat/completions", said(QUESTION))
    message = chat["choices"][0]["message"]
    assert status == 200 and message["abstained"] is expected.abstained
    assert [one["document"] for one in message["citations"]] == [one.document for one in expected.citations]
