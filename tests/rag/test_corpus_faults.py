from __future__ import annotations

import io
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pypdf import PdfReader, PdfWriter

from ftkit.errors import DataError
from ftkit.rag.corpus import read_documents
from ftkit.rag.loaders import LOADERS, parser, plain, rows
from tests.rag.pdf_bytes import lines, pdf


@pytest.fixture
def folder(tmp_path):
    """A folder with one good document, so that `skip` has something to keep."""
    (tmp_path / "good.txt").write_text("Good.")
    return tmp_path


def faults(folder) -> list[str]:
    """All that is wrong with a folder, its own path left out; both ways of reading must agree on it."""
    skipped = read_documents([folder], on_fault="skip")
    assert "good.txt" in [document.id for document in skipped.documents]
    with pytest.raises(DataError) as raised:
        read_documents([folder])
    assert raised.value.problems == skipped.faults
    return [str(fault).replace(f"{folder}/", "") for fault in skipped.faults]


def test_all_faults_of_all_files_come_in_one_pass_and_the_good_documents_can_be_kept(folder):
    (folder / "a.txt").write_text(" \n")
    (folder / "b.md").write_bytes(b"MZ\0")
    (folder / "c.jsonl").write_text('{"text": "Kept."}\n{"text": \n')

    found = faults(folder)

    assert [fault.partition(": ")[0] for fault in found] == ["a.txt", "b.md", "c.jsonl:2"]
    kept = read_documents([folder], on_fault="skip").documents
    assert [document.id for document in kept] == ["c.jsonl#1", "good.txt"]


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("a.txt", b"", "a.txt: holds no text\n  Fill it in, or leave it out."),
        ("a.md", b"---\ntitle: x\n---\n\n", "a.md: holds no text\n  Fill it in, or leave it out."),
        ("a.html", b"<script>x</script>", "a.html: holds no text\n  Fill it in, or leave it out."),
        ("a.csv", b"text\n", "a.csv: holds no rows\n  Fill it in, or leave it out."),
        ("a.txt", b"\xef\xbb\xbfone\ntw\xff", "a.txt:2: not UTF-8 text (0xff at byte 9)\n  Save the file as UTF-8."),
        ("a.txt", "ab".encode("utf-16"), "a.txt: is UTF-16, not UTF-8 text\n  Save the file as UTF-8."),
        (
            "a.md",
            b"PNG\0\0",
            "a.md: is not text: a zero byte at byte 3\n  Give it the ending of its kind, or leave it out.",
        ),
        (
            "a.md",
            b"---\ntitle: x\na: b: c\n---\n",
            "a.md:3: front matter: not YAML: mapping values are not allowed here\n"
            "  Mend the YAML between the --- lines, or begin the file with an empty line if it is none.",
        ),
        (
            "a.jsonl",
            b'{"text": "x"}\n{"text": "y"\n',
            "a.jsonl:2: not valid JSON: Expecting ',' delimiter: column 13 (char 12)\n"
            "  Each line must be one JSON object.",
        ),
        ("a.jsonl", b"\n[1]\n", "a.jsonl:2: is a list, not an object with named fields"),
        ("a.jsonl", b'{"text": 3}\n', "a.jsonl:1: text: 3 is not text\n  Write it as text."),
        (
            "a.jsonl",
            b'{"text": "x", "id": [1]}\n',
            "a.jsonl:1: id: [1] is neither text nor a whole number\n  Write it as text.",
        ),
        (
            "a.jsonl",
            b'{"text": "\\ud800"}\n',
            "a.jsonl:1: holds half a surrogate pair, which is no character\n"
            "  Write the character that is meant, as UTF-8.",
        ),
        (
            "a.jsonl",
            b'{"text": "x\\u0000"}\n',
            "a.jsonl:1: holds a zero character\n  Write the character that is meant, as UTF-8.",
        ),
        ("a.csv", b"text,b\n,1\n", "a.csv:2: holds no text\n  Fill it in, or remove the row."),
        (
            "a.csv",
            b"text,b\nx,1\ny,2,3\n",
            "a.csv:3: 3 cells in a row, 2 in the header\n  Put cells that hold the separator in \"quotes\".",
        ),
        (
            "a.csv",
            b"id,text\nx,one\n\nx,two\n",
            "a.csv:4: the id 'x' stands in line 2 and in line 4\n  Give each row an id of its own.",
        ),
        ("a.csv", b"text\n\xff\n", "a.csv:2: not UTF-8 text (byte 0xff)\n  Save the file as UTF-8."),
    ],
)  # fmt: skip
def test_a_fault_says_where_it_is_what_it_is_and_how_to_mend_it(folder, name, content, fault):
    (folder / name).write_bytes(content)

    assert faults(folder) == [fault]


def test_the_number_of_a_row_does_not_change_with_faulty_rows_before_it(folder):
    (folder / "a.csv").write_text("text,b\nx,1\ny,2,3\nz,3\n")

    kept = read_documents([folder], on_fault="skip").documents

    assert [(document.id, document.text) for document in kept[:2]] == [("a.csv#1", "x"), ("a.csv#3", "z")]


def test_a_folders_files_of_other_kinds_are_left_out_and_named(folder, caplog):
    (folder / "a.docx").write_bytes(b"PK")
    (folder / "README").write_text("Read me.")
    (folder / "b.txt").write_text("Text.")
    with caplog.at_level("WARNING"):
        corpus = read_documents([folder])

    assert [document.id for document in corpus.documents] == ["README", "b.txt", "good.txt"]
    assert corpus.left_out == (folder / "a.docx",)
    assert f"left out 1 files of kinds that are not read: {folder / 'a.docx'}" in caplog.text


def test_a_file_of_another_kind_that_is_named_itself_is_a_fault_and_so_are_only_such_files(tmp_path):
    (tmp_path / "a.docx").write_bytes(b"PK")

    for source in (tmp_path, tmp_path / "a.docx"):
        with pytest.raises(DataError) as raised:
            read_documents([source])
        assert str(raised.value) == (
            f"{tmp_path / 'a.docx'}: is of a kind that is not read (.docx)\n  Leave it out, or convert it. Read are "
            ".txt, .text, .rst, .md, .markdown, .html, .htm, .pdf, .csv, .tsv, .jsonl, .ndjson."
        )


def test_a_scanned_pdf_is_told_to_need_ocr_and_its_pages_are_named(folder):
    (folder / "a.pdf").write_bytes(pdf([b"", b"q Q", b""]))

    assert faults(folder) == [
        "a.pdf: has no text on its pages (1-3)\n  If it is scanned, run OCR over it (such as ocrmypdf) first."
    ]


def test_an_encrypted_pdf_is_a_fault_and_one_that_anybody_may_open_is_not(folder):
    for name, password in (("locked.pdf", "secret"), ("open.pdf", "")):
        writer = PdfWriter(clone_from=PdfReader(io.BytesIO(pdf([lines("Pump")]))))
        writer.encrypt(user_password=password, owner_password="owner", algorithm="RC4-128")
        writer.write(folder / name)

    assert faults(folder) == ["locked.pdf: is encrypted\n  Save a copy without a password."]
    assert read_documents([folder / "open.pdf"]).documents[0].text == "Pump"


@pytest.mark.parametrize("damage", ["cut", "no pdf", "empty", "garbled"])
def test_a_damaged_pdf_is_a_fault_and_no_traceback(folder, damage):
    whole = pdf([lines("Pump")])
    content = {
        "cut": whole[:60],
        "no pdf": b"Hello.",
        "empty": b"",
        "garbled": whole.replace(b"/Kids [", b"/Kids 7 ["),
    }
    (folder / "a.pdf").write_bytes(content[damage])

    [fault] = faults(folder)

    assert fault.startswith(("a.pdf: is damaged, or no PDF: ", "a.pdf: has no text"))


def test_a_pdf_that_unpacks_to_far_more_than_it_holds_is_refused(folder):
    content = pdf([lines("Pump") + b" " * 200_000_000], deflate=True)
    assert len(content) < 300_000
    (folder / "a.pdf").write_bytes(content)

    [fault] = faults(folder)

    assert fault.startswith("a.pdf: ")


def test_a_pdf_that_draws_without_end_is_refused(folder, monkeypatch):
    monkeypatch.setattr(parser, "MAX_OPERATORS", 50)
    (folder / "a.pdf").write_bytes(pdf([lines("Pump")] * 5))  # 6 operators a page
    (folder / "b.pdf").write_bytes(pdf([lines("Pump")] * 10))

    assert faults(folder) == [
        "b.pdf: draws with more than 50 operators\n  Split it, or leave it out if you do not trust it."
    ]


def test_a_file_too_large_for_one_document_is_a_fault_before_it_is_read(folder, monkeypatch):
    monkeypatch.setattr(plain, "MAX_BYTES", 10)
    monkeypatch.setattr(rows, "MAX_BYTES", 10)
    (folder / "a.txt").write_text("x" * 11)
    (folder / "b.txt").write_text("x" * 10)
    (folder / "c.csv").write_text("text\nabcde\n")

    assert faults(folder) == [
        "a.txt: is larger than 10 B, too much for one document\n  Split it into several files.",
        "c.csv: has 11 B, more than 10 B\n  Split it, and index the parts one after the other.",
    ]


def test_a_source_that_is_not_there_is_named_with_the_nearest_that_is(folder):
    with pytest.raises(DataError) as raised:
        read_documents([folder / "goud.txt", folder / "quite-else", folder / "no" / "way.txt"])

    assert [str(problem).replace(str(folder), "F") for problem in raised.value.problems] == [
        "F/goud.txt: no such file or folder\n  Did you mean 'F/good.txt'?",
        "F/quite-else: no such file or folder\n  In F there are: good.txt.",
        "F/no/way.txt: no such file or folder\n"
        "  Its folder does not exist either. A path is relative to the current folder.",
    ]


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "~nobody-of-that-name/a.txt"])
def test_a_source_that_no_file_can_be_called_is_a_fault(name):
    with pytest.raises(DataError, match="no such file or folder"):
        read_documents([name])


@pytest.mark.parametrize("hidden", [False, True])
def test_a_folder_without_any_document_is_a_fault(tmp_path, hidden):
    if hidden:
        (tmp_path / ".git").mkdir()
        (tmp_path / ".git" / "a.txt").write_text("x")

    for on_fault in ("error", "skip"):
        with pytest.raises(DataError, match="holds no file\n  Hidden files are left out"):
            read_documents([tmp_path], on_fault=on_fault)
    with pytest.raises(DataError, match="no source is named"):
        read_documents([])


def test_ids_are_paths_below_the_source_in_the_order_of_their_names_and_hidden_files_are_left_out(tmp_path):
    for name in ("b/c/d.txt", "b.txt", "a.txt", ".hidden.txt", "b/.git/x.txt", "b/ü é.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)

    assert [one.id for one in read_documents([tmp_path]).documents] == ["a.txt", "b.txt", "b/c/d.txt", "b/ü é.txt"]
    assert [one.id for one in read_documents([tmp_path / "b", tmp_path / "a.txt"]).documents] == [
        "c/d.txt", "ü é.txt", "a.txt",
    ]  # fmt: skip


def test_two_sources_that_give_one_id_are_both_named_and_the_first_is_kept(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.txt").write_text(name)

    corpus = read_documents([tmp_path / "a", tmp_path / "b", tmp_path / "b" / "x.txt"], on_fault="skip")

    assert [document.text for document in corpus.documents] == ["a"]
    assert [str(fault).replace(f"{tmp_path}/", "") for fault in corpus.faults] == 2 * [
        "b/x.txt: would have the id 'x.txt', and so has a/x.txt\n"
        "  Rename one of them, or name a folder above both as the source."
    ]
    for name in ("a", "b"):
        (tmp_path / name / "rows.csv").write_text("text\none\ntwo\n")
    assert len(read_documents([tmp_path / "a", tmp_path / "b"], on_fault="skip").faults) == 2  # a file, not each row
    (tmp_path / "a" / "rows.csv").unlink()
    [fault] = read_documents([tmp_path / "a", tmp_path / "a"], on_fault="skip").faults
    assert str(fault) == f"{tmp_path}/a/x.txt: is named twice\n  Name it once."


def test_a_row_whose_id_makes_it_look_like_another_file_is_a_fault(folder):
    (folder / "a.jsonl").write_text('{"id": "b.txt", "text": "row"}\n')
    (folder / "a.jsonl#b.txt").write_text("file")

    [fault] = faults(folder)

    assert fault.startswith(
        f"a.jsonl#b.txt: would have the id 'a.jsonl#b.txt', and so has {folder}/a.jsonl\n".replace(f"{folder}/", "")
    )


def test_links_out_of_the_folder_and_into_nowhere_are_named_and_not_followed(folder, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    (outside / "secret.txt").write_text("secret")
    (folder / "in").mkdir()
    (folder / "in" / "x.txt").write_text("x")
    (folder / "in" / "loop").symlink_to(folder)
    (folder / "inside.txt").symlink_to(folder / "in" / "x.txt")
    (folder / "out.txt").symlink_to(outside / "secret.txt")
    (folder / "outs").symlink_to(outside)
    (folder / "nowhere.txt").symlink_to(folder / "gone.txt")

    assert faults(folder) == [
        "nowhere.txt: is a link to nothing\n  Mend or remove the link.",
        f"out.txt: is a link out of its folder\n"
        f"  Name {outside}/secret.txt as a source of its own, or remove the link.",
        f"outs: is a link out of its folder\n  Name {outside} as a source of its own, or remove the link.",
    ]
    kept = read_documents([folder], on_fault="skip").documents
    assert [document.id for document in kept] == ["good.txt", "in/x.txt", "inside.txt"]


def test_pipes_and_names_that_are_no_text_are_faults_and_nothing_waits_for_them(folder):
    os.mkfifo(folder / "a.txt")
    (folder / os.fsdecode(b"b\xff.txt")).write_text("x")

    assert faults(folder) == [
        "a.txt: is neither a file nor a folder\n  Remove it.",
        "b\\xff.txt: its name is not UTF-8\n  Rename it.",
    ]


SNIPPETS = st.sampled_from(
    [
        b"---\n",
        b"a: [b\n",
        b"&a *a",
        b"<table>",
        b"<td",
        b"</ol>",
        b"<li>",
        b"<h1>",
        b"<![CDATA[",
        b"<!",
        b"&#0;",
        b"&#xD800;",
        b'"',
        b",",
        b"\t",
        b"{",
        b'{"text": "x"}\n',
        b'{"id": "x"}\n',
        b"\xff",
    ]
)


@settings(deadline=None, max_examples=200)
@given(suffix=st.sampled_from(sorted(set(LOADERS) - {".pdf"})), content=st.lists(SNIPPETS | st.binary(max_size=6)))
def test_whatever_a_file_holds_it_is_documents_or_faults_and_no_other_error(suffix, content):
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "good.txt").write_text("Good.")
        (Path(folder) / f"a{suffix}").write_bytes(b"".join(content))

        corpus = read_documents([folder], on_fault="skip")

    assert len(corpus.documents) + len(corpus.faults) > 1
    assert all(document.sha256 and document.text.strip() for document in corpus.documents)


@settings(deadline=None, max_examples=200)
@given(
    at=st.integers(0, 900),
    piece=st.binary(max_size=12) | st.sampled_from([b"0 R", b"<<", b"[", b"null", b"-1", b"9" * 12]),
)
def test_whatever_is_damaged_in_a_pdf_it_is_a_document_or_a_fault(at, piece):
    whole = pdf([lines("Pump"), lines("Valve")], title="Parts")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.pdf"
        path.write_bytes(whole[:at] + piece + whole[at + len(piece) :])

        found = list(LOADERS[".pdf"](path, "a.pdf"))

    assert len(found) == 1
