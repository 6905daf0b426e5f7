from __future__ import annotations

import builtins
import hashlib
import importlib.util
import logging

import pytest

from ftkit.errors import MissingPartError
from ftkit.rag.chunking import chunk
from ftkit.rag.corpus import read_documents
from ftkit.rag.document import Document
from ftkit.rag.loaders import LOADERS
from tests.rag.pdf_bytes import lines, pdf


def read(folder, name: str, content: str | bytes) -> list[Document]:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(read_documents([path]).documents)


def texts(documents) -> dict[str, str]:
    return {document.id: document.text for document in documents}


@pytest.mark.parametrize("name", ["a.txt", "a.text", "a.rst", "a.TXT"])
def test_plain_text_keeps_its_characters_but_for_line_ends_and_a_byte_order_mark(tmp_path, name):
    raw = b"\xef\xbb\xbf  one\r\ntwo\rthree \xc2\xa0\x0c\n\n"

    assert texts(read(tmp_path, name, raw)) == {name: "  one\ntwo\nthree \u00a0\f\n\n"}


def test_front_matter_of_markdown_becomes_metadata_and_the_rest_is_the_text(tmp_path):
    [document] = read(
        tmp_path,
        "a.md",
        "---\ntitle: Pump\ndate: 2024-01-02\nsize: 3\nratio: 0.5\ndraft: false\nnone:\ntags: [a, ü]\n---\n"
        "# Care\n\nOil.\n",
    )

    assert document.text == "# Care\n\nOil.\n"
    assert document.metadata == {
        "title": "Pump", "date": "2024-01-02", "size": 3, "ratio": 0.5, "draft": False, "none": None,
        "tags": '["a", "ü"]',
    }  # fmt: skip


@pytest.mark.parametrize(
    "text", ["---\nOnly prose\n---\nmore\n", "---\nno end\n", "text\n---\na: b\n---\n", "----\na: b\n---\n"]
)
def test_text_between_rules_is_no_front_matter(tmp_path, text):
    [document] = read(tmp_path, "a.markdown", text)

    assert (document.text, document.metadata) == (text, {})


def test_a_web_page_becomes_text_with_markdowns_signs(tmp_path):
    page = """<!DOCTYPE html><html lang="de"><head><title> The
      pump </title><style>p{}</style></head><body>
      <nav><a href="/">Home</a></nav><h1>Pump&nbsp;1 <em>care</em><a class="headerlink" href="#c">¶</a></h1>
      <!-- hidden --><script>alert(1)</script>
      <template>later</template><p>Oil   it
      <b>well</b>.<br>Twice.</p>
      <ul><li>Oil<li>Rag<ol><li>dry</li><li><p>clean</p></li></ol></ul>
      <table><caption>Sizes</caption><thead><tr><th>part</th><th>mm</th></tr></thead>
        <tbody><tr><td>pump</td><td>a|b</td></tr></tbody></table>
      <h2>Code</h2><pre>run
        <b>stop</b></pre></body></html>"""

    [document] = read(tmp_path, "a.html", page)

    assert document.metadata == {"title": "The pump", "lang": "de"}
    assert document.text == (
        "# Pump\u00a01 care\n\nOil it well.\nTwice.\n\n- Oil\n- Rag\n  1. dry\n  2. clean\n\n"
        "Sizes\n\npart | mm\n--- | ---\npump | a\\|b\n\n## Code\n\n```\nrun\n        stop\n```"
    )


def test_a_table_that_only_places_things_on_the_page_is_read_as_blocks(tmp_path):
    page = "<table><tr><td><h1>Pump</h1><p>Oil it.</p></td><td>"
    page += "<table><tr><td>1</td><td>2</td></tr></table></td></tr></table>"

    assert texts(read(tmp_path, "a.htm", page)) == {"a.htm": "# Pump\n\nOil it.\n\n1 | 2"}


def test_headers_of_a_web_pages_table_stand_in_front_of_its_later_rows(tmp_path):
    rows = "".join(f"<tr><td>pump {number}</td><td>{number} mm</td></tr>" for number in (1, 2))
    [document] = read(tmp_path, "a.html", f"<table><tr><th>part</th><th>size</th></tr>{rows}</table>")

    found = chunk(document, limit=12, measure=lambda text: len(text.split()))

    # Header 3 words, dashes 3, each row 5.
    assert [(one.context, document.text[one.start : one.end]) for one in found] == [
        ("", "part | size\n--- | ---\npump 1 | 1 mm"),
        ("part | size", "pump 2 | 2 mm"),
    ]


def test_a_page_nested_deeper_than_python_calls_is_read(tmp_path):
    assert texts(read(tmp_path, "a.html", "<div>" * 20_000 + "deep")) == {"a.html": "deep"}


def test_the_page_of_each_character_of_a_pdf_is_known(tmp_path):
    [document] = read(tmp_path, "a.pdf", pdf([lines("Pump one", "and two"), lines("Valve")], title="Parts"))

    assert document.text == "Pump one\nand two\n\f\nValve"
    assert document.metadata == {"pages": 2, "title": "Parts"}
    assert document.page(0) == document.page(document.text.index("two")) == 1
    assert document.page(document.text.index("Valve")) == 2
    assert Document(id="a", text="a\fb").page(2) is None


def test_pages_of_a_pdf_without_text_are_named_and_the_others_kept(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, logger="ftkit"):
        [document] = read(tmp_path, "a.pdf", pdf([b"", b"", b"", lines("Valve"), b""]))

    assert document.metadata == {"pages": 5, "pages_without_text": "1-3, 5"}
    assert document.page(document.text.index("Valve")) == 4
    assert "no text on pages 1-3, 5" in caplog.text


def test_each_row_of_a_table_is_a_document_called_by_its_id_or_its_number(tmp_path):
    [first, second, third] = read(
        tmp_path,
        "a.csv",
        'id,title,text,size\np-1,Pump,"Oil it.\r\nDry it.",3\n,Valve,Turn it.,\n17,Hose,Roll it.,x\n',
    )

    assert texts([first, second, third]) == {
        "a.csv#p-1": "Oil it.\nDry it.", "a.csv#2": "Turn it.", "a.csv#17": "Roll it.",
    }  # fmt: skip
    assert first.metadata == {"title": "Pump", "size": "3"}


def test_rows_without_a_text_are_written_out_column_by_column(tmp_path):
    [row] = read(tmp_path, "a.tsv", "title\tsize\tcolour\nPump\t3\t\n")

    assert (row.id, row.text, row.metadata) == ("a.tsv#1", "title: Pump\nsize: 3", {"title": "Pump"})


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson"])
def test_json_lines_keep_the_types_of_their_metadata(tmp_path, name):
    rows = '{"text": "Oil.", "id": 7, "n": 3, "r": 0.5, "ok": true, "none": null, "tags": ["ü"], "bad": NaN}'
    rows += '\n\n{"part": "x"}\n'

    first, second = read(tmp_path, name, rows)

    assert (first.id, first.text) == (f"{name}#7", "Oil.")
    assert first.metadata == {"n": 3, "r": 0.5, "ok": True, "none": None, "tags": '["ü"]', "bad": None}
    assert (second.id, second.text, second.metadata) == (f"{name}#2", "part: x", {})


def test_a_digest_is_of_text_and_metadata_in_canonical_json():
    document = Document(id="a", text="ü", metadata={"b": 1, "a": None})

    canonical = '{"metadata":{"a":null,"b":1},"text":"ü"}'
    assert document.sha256 == hashlib.sha256(canonical.encode()).hexdigest()
    assert document.sha256 == Document(id="other", text="ü", metadata={"a": None, "b": 1}).sha256
    assert document.sha256 != Document(id="a", text="ü", metadata={"b": 2, "a": None}).sha256


@pytest.mark.parametrize(("library", "name"), [("pypdf", "a.pdf"), ("bs4", "a.html")])
def test_a_library_that_is_not_installed_is_named_with_the_command_that_installs_it(
    tmp_path, monkeypatch, library, name
):
    (tmp_path / name).write_text("x")
    real = builtins.__import__

    def without(wanted, *args, **kwargs):
        if wanted.partition(".")[0] == library:
            raise ModuleNotFoundError(wanted)
        return real(wanted, *args, **kwargs)

    spec = importlib.util.find_spec
    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.setattr(importlib.util, "find_spec", lambda wanted: None if wanted == library else spec(wanted))
    with pytest.raises(MissingPartError, match=r"which is not installed\n  Run: pip install 'ftkit\[rag\]'"):
        list(LOADERS[f".{name.partition('.')[2]}"](tmp_path / name, name))


def test_cells_that_a_row_lacks_at_its_end_are_empty(tmp_path):
    (tmp_path / "releases.csv").write_text("version,name,eol,eol-lts\n4.10,warty,2006-04-30\n,sid\n")

    assert [document.text for document in read_documents([tmp_path / "releases.csv"]).documents] == [
        "version: 4.10\nname: warty\neol: 2006-04-30",
        "name: sid",
    ]
