"""``ftkit rag`` as it is typed: building, changing and asking an index, training, and what is refused."""

from __future__ import annotations

import json

import pytest

from tests.cli.running import ftkit
from tests.rag.encoders import encoder_folder
from tests.rag.shed import shed_recipe, write_shed
from tests.tiny import tiny_model_folder

PAGES = {
    "oum.md": "# Oum\n\nThe mayor of Oum is Ada Berg.",
    "lir.txt": "Lir makes paper.",
    "sub/a.txt": "Tam is a river.",
}


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    return encoder_folder(folder / "encoder"), tiny_model_folder(folder / "model", max_position_embeddings=2048)


@pytest.fixture
def pages(tmp_path):
    for name, text in PAGES.items():
        path = tmp_path / "pages" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "pages"


def built(pages, parts, *options):
    encoder, model = parts
    folder = pages.parent / "index"
    return folder, ftkit("rag", "index", pages, "-o", folder, "--encoder", encoder, "--generator", model, *options)


@pytest.fixture
def index(pages, parts):
    folder, outcome = built(pages, parts)
    assert outcome.code == 0, outcome.err
    return folder


def as_json(*words):
    outcome = ftkit("rag", *words, "--json")
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)


def asked(index, question, *options):
    found = as_json("ask", index, "--question", question, "--max-new-tokens", "4", *options)
    del found["latency_s"]
    return found


def test_ids_are_paths_below_the_source_and_file_names_of_files(index, pages, parts):
    shown = as_json("show", index, "--check")

    assert shown["documents"] == ["lir.txt", "oum.md", "sub/a.txt"] and shown["checked"] is True
    as_json("add", index, pages / "sub" / "a.txt")
    assert as_json("show", index)["documents"] == ["a.txt", "lir.txt", "oum.md", "sub/a.txt"]


def test_an_answer_has_the_fields_of_the_contract_and_its_citations_resolve(index, pages):
    found = as_json("ask", index, "--question", "Who is mayor of Oum?", "--max-new-tokens", "4", "--passages", "2")

    assert {"text", "abstained", "citations", "latency_s"} <= found.keys()
    assert found["latency_s"].keys() == {"retrieve", "generate"}
    assert len(found["citations"]) == 2
    for cited in found["citations"]:
        assert cited.keys() == {"document", "version", "start", "end", "text", "score"}
        stored = as_json("show", index, cited["document"], "--version", str(cited["version"]))["text"]
        assert stored[cited["start"] : cited["end"]] == cited["text"]
        assert cited["version"] == 1


def test_an_edit_is_in_the_next_answer_and_a_rollback_restores_the_former_one(index, pages):
    before = asked(index, "Who is mayor of Oum?")
    (pages / "oum.md").write_text("# Oum\n\nThe mayor of Oum is Kim Lund.")
    changed = as_json("add", index, pages)
    after = asked(index, "Who is mayor of Oum?")
    gone = as_json("remove", index, "lir.txt", "oum.md")
    none = asked(index, "Who is mayor of Oum?")
    back = as_json("rollback", index, "1")

    assert (changed["version"], changed["replaced"], changed["unchanged"]) == (
        2,
        ["oum.md"],
        ["lir.txt", "sub/a.txt"],
    )
    assert any("Kim Lund" in cited["text"] for cited in after["citations"])
    assert (gone["version"], gone["removed"], gone["documents"]) == (3, ["lir.txt", "oum.md"], 1)
    assert [cited["document"] for cited in none["citations"]] == ["sub/a.txt"]
    assert back["version"] == 1
    assert asked(index, "Who is mayor of Oum?") == before


def test_index_extends_what_stands_there_and_refuses_other_settings(index, pages, parts, tmp_path):
    (pages / "new.txt").write_text("Nim has a mill.")
    encoder, _ = parts
    outcome = ftkit("rag", "index", pages, "-o", index, "--json")
    assert json.loads(outcome.out)["added"] == ["new.txt"]

    refused = ftkit("rag", "index", pages, "-o", index, "--words", "trigrams")
    assert refused.code == 3 and "was made with words 'stems', not 'trigrams'" in refused.err
    long = ftkit("rag", "index", pages, "-o", tmp_path / "other", "--encoder", encoder, "--passage-tokens", "500")
    assert long.code == 3 and "passages of 500 tokens; encoder reads 64" in long.err


def test_faults_of_documents_come_all_at_once_or_are_skipped_and_named(pages, parts):
    (pages / "empty.txt").write_text(" \n")
    (pages / "bytes.txt").write_bytes(b"\x00\x01\x02")
    (pages / "latin.txt").write_bytes("Müller".encode("latin-1"))
    (pages / "picture.png").write_bytes(b"not read")
    folder, refused = built(pages, parts)

    assert refused.code == 3 and not folder.exists()
    assert all(name in refused.err for name in ("empty.txt", "bytes.txt", "latin.txt"))
    _, skipped = built(pages, parts, "--skip-unreadable", "--json")
    found = json.loads(skipped.out)
    assert skipped.code == 0 and found["documents"] == 3 and len(found["skipped"]) == 3
    assert found["left_out"] == [str(pages / "picture.png")]


def test_search_shows_passages_without_a_generator(index):
    found = as_json("search", index, "--question", "paper", "--mode", "lexical")

    assert [(hit["document"], hit["ranks"]) for hit in found] == [("lir.txt", {"lexical": 1})]
    words = ftkit("rag", "search", index, "--question", "paper", "--mode", "lexical").out
    assert "[1] lir.txt:0-16" in words and "Lir makes paper." in words


def test_why_shows_ranks_and_the_answer_without_passages(index):
    found = as_json("ask", index, "--question", "Who is mayor?", "--max-new-tokens", "4", "--why")
    shown = ftkit("rag", "ask", index, "--question", "Who is mayor?", "--max-new-tokens", "4", "--why").out

    assert found["why"].keys() == {"without", "given", "passages"}
    assert found["why"]["passages"][0]["ranks"]
    assert "why these passages:" in shown and "without any passage the answer would be:" in shown


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["ask", "INDEX", "--question", " "], 3, "the question is empty"),
        (["ask", "INDEX", "--question", "why " * 40], 3, "Ask in fewer words"),
        (["ask", "NOWHERE", "--question", "x"], 3, "is no index"),
        (["remove", "INDEX", "oum.mdd"], 3, "Did you mean 'oum.md'?"),
        (["rollback", "INDEX", "9"], 3, "has no version 9"),
        (["show", "INDEX", "nothing.md"], 3, "no document 'nothing.md' in version 1"),
        (["add", "INDEX", "NOWHERE/x.md"], 3, "x.md"),
        (["ask", "INDEX", "--question", "x", "--generator", "nonsense"], 7, "nonsense"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_said_with_its_exit_code(index, tmp_path, words, code, said):
    given = [word.replace("INDEX", str(index)).replace("NOWHERE", str(tmp_path / "nowhere")) for word in words]
    outcome = ftkit("rag", *given)

    assert outcome.code == code and said in outcome.err


def test_a_run_is_trained_resumed_and_asked(tmp_path, parts):
    encoder, model = parts
    shed = write_shed(tmp_path / "shed")
    values = shed_recipe(shed, model, encoder, output=str(tmp_path / "run"), stages=["retriever"])
    values["corpus"]["sources"] = list(values["corpus"]["sources"])
    (tmp_path / "rag.yaml").write_text(json.dumps(values))

    found = as_json("train", tmp_path / "rag.yaml", "--quiet")
    assert found["folder"] == str(tmp_path / "run") and found["stages"]["retriever"]["steps"] == 2
    again = ftkit("resume", tmp_path / "run", "--json", "--quiet")
    assert json.loads(again.out) == found
    answer = as_json("ask", tmp_path / "run", "--question", "What is the rake?", "--max-new-tokens", "4")
    assert len(answer["citations"]) == 3
    plain = ftkit("train", tmp_path / "rag.yaml")
    assert plain.code == 2 and "ftkit rag train" in plain.err


def test_a_world_is_written_and_can_be_indexed(tmp_path, parts):
    found = as_json("world", "-o", tmp_path / "world", "--subjects", "6")
    encoder, model = parts
    outcome = ftkit(
        "rag", "index", tmp_path / "world" / "documents", "-o", tmp_path / "index", "--encoder", encoder,
        "--generator", model, "--json",
    )  # fmt: skip

    assert outcome.code == 0 and json.loads(outcome.out)["documents"] == found["documents"]["all"]
    rows = (tmp_path / "world" / "questions_train.jsonl").read_text().splitlines()
    named = {json.loads(row)["document"] for row in rows if json.loads(row)["document"]}
    assert named <= set(as_json("show", tmp_path / "index")["documents"])


def test_questions_made_from_an_index_are_accounted_for(index, tmp_path):
    """A model of random weights makes no question that passes, and each try says why."""
    out = tmp_path / "made.jsonl"
    found = as_json("questions", index, "-o", out, "--count", "2", "--tries", "1", "--check", "likelihood")

    assert found["file"] == str(out) and found["wanted"] == 2
    # All pages together hold one span that is no subject of its page: Ada Berg.
    assert found["tried"] == 1 == found["kept"] + sum(found["dropped"].values())
    assert len(out.read_text().splitlines()) == found["kept"]
    shown = ftkit("rag", "questions", index, "-o", out, "--count", "2", "--tries", "1", "--check", "likelihood")
    assert shown.code == 0 and f"{found['kept']} of 1 questions passed" in shown.out
    (tmp_path / "mine.jsonl").write_text("mine")
    assert ftkit("rag", "questions", index, "-o", tmp_path / "mine.jsonl").code == 2
