"""``ftkit rag eval`` as it is typed: documents, files beside it, exit codes."""

from __future__ import annotations

import json

import pytest

from ftkit.rag.answering import RagSystem
from tests.cli.running import ftkit
from tests.rag.encoders import encoder_folder
from tests.rag.worlds import question_in, says
from tests.tiny import tiny_model_folder

ROWS = [
    {"question": "Who is mayor of Oum?", "answers": ["Ada Berg"], "document": "oum.md"},
    {"question": "What does Lir make?", "answers": ["paper"], "document": "lir.md"},
    {"question": "Who is mayor of Lir?", "answers": []},
]
SAID = {ROWS[0]["question"]: "Ada Berg", ROWS[1]["question"]: "iron", ROWS[2]["question"]: "Kim"}


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    return encoder_folder(folder / "encoder"), tiny_model_folder(folder / "model", max_position_embeddings=2048)


@pytest.fixture
def index(tmp_path, parts, monkeypatch):
    encoder, model = parts
    pages = tmp_path / "pages"
    pages.mkdir()
    (pages / "oum.md").write_text("The mayor of Oum is Ada Berg.")
    (pages / "lir.md").write_text("Lir makes paper.")
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    says(monkeypatch, lambda prompt: SAID[question_in(prompt)])
    folder = tmp_path / "index"
    built = ftkit("rag", "index", pages, "-o", folder, "--encoder", encoder, "--generator", model)
    assert built.code == 0, built.err
    return folder


def evaluated(index, *options):
    return ftkit("rag", "eval", index, "--data", index.parent / "q.jsonl", "--max-new-tokens", "8", *options)


def test_it_prints_the_document_of_the_contract_and_saves_the_same(index, tmp_path):
    outcome = evaluated(index, "--json", "--save", tmp_path / "run.json")

    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    assert found == json.loads((tmp_path / "run.json").read_text())
    assert found["exact_match"] == pytest.approx(1 / 3)
    # Both pages are given: "iron" and "Kim" stand in none of them.
    assert found["blame"] == {"correct": 1, "not_indexed": 0, "not_retrieved": 0, "not_read": 0, "unsupported": 2}
    assert len((tmp_path / "run.json.answers.jsonl").read_text().splitlines()) == 3


def test_in_words_every_figure_and_step_has_a_line(index):
    outcome = evaluated(index, "--limit", "2")

    assert outcome.out.startswith("2 questions")
    for name in ("exact_match", "nll", "recall_at_5", "coverage", "latency_s.generate.p95", "not_retrieved"):
        assert any(line.startswith(name) for line in outcome.out.splitlines()), name


def test_a_threshold_is_kept_and_the_next_question_is_held_to_it(index, monkeypatch):
    confidence = {"Ada Berg": -0.1, "iron": -0.2, "Kim": -0.3}
    monkeypatch.setattr(RagSystem, "_confidence", lambda _, ids, said: confidence[said.text])

    outcome = evaluated(index, "--set-threshold", "0", "--json")
    asked = [
        json.loads(ftkit("rag", "ask", index, "-q", row["question"], "--max-new-tokens", "8", "--json").out)
        for row in ROWS
    ]

    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["threshold"] == -0.1
    assert json.loads((index / "answering.json").read_text())["threshold"] == -0.1
    assert [answer["abstained"] for answer in asked] == [False, True, True]
    assert [answer["text"] for answer in asked] == ["Ada Berg", "", ""]


def test_a_canary_that_turned_wrong_ends_with_5_and_is_named(index, tmp_path, monkeypatch):
    saved = tmp_path / "run.json"
    assert evaluated(index, "--save", saved).code == 0
    assert evaluated(index, "--baseline", saved).code == 0

    says(monkeypatch, lambda prompt: {"Ada Berg": "Kim"}.get(SAID[question_in(prompt)], "paper"))
    words, document = evaluated(index, "--baseline", saved), evaluated(index, "--baseline", saved, "--json")

    assert words.code == document.code == 5
    assert "Who is mayor of Oum?: was right with 'Ada Berg', is wrong with 'Kim'" in words.err
    compared = json.loads(document.out)["baseline"]
    assert [one["id"] for one in compared["broken"]] == ["Who is mayor of Oum?"]
    assert [one["id"] for one in compared["mended"]] == ["What does Lir make?"]


def test_a_page_is_written(index, tmp_path):
    assert evaluated(index, "--report", tmp_path / "page.html").code == 0

    assert "Risk and coverage" in (tmp_path / "page.html").read_text()


def test_faults_of_the_questions_come_before_the_model_is_loaded(index, monkeypatch):
    (index.parent / "q.jsonl").write_text('{"question": 3, "answers": []}\n{"question": "x"}\n')
    monkeypatch.setattr("ftkit.rag.opening.open_target", lambda *_: pytest.fail("loaded"))

    outcome = evaluated(index)

    assert outcome.code == 3
    assert "q.jsonl:1: question: 3 is not a text" in outcome.err
    assert "q.jsonl:2: has no answers" in outcome.err


def test_a_risk_is_a_share(index):
    assert evaluated(index, "--set-threshold", "5").code == 2
