"""PDFs from anybody: whatever one does to its reader, it is a fault within seconds, and the others are read."""

from __future__ import annotations

import io
import os
import time

import pytest
from pypdf import PdfReader

from ftkit.errors import MissingPartError, Problem
from ftkit.rag.corpus import read_documents
from ftkit.rag.loaders import LOADERS, parser
from tests.rag.pdf_bytes import lines, pages_again, pdf


@pytest.fixture
def folder(tmp_path):
    """What is tested is called b.pdf, so that one good file is read before it and one after it."""
    for name in ("a.pdf", "c.pdf"):
        (tmp_path / name).write_bytes(pdf([lines("Pump")]))
    return tmp_path


def fault_of(folder, content: bytes) -> str:
    (folder / "b.pdf").write_bytes(content)
    corpus = read_documents([folder], on_fault="skip")
    assert [document.text for document in corpus.documents] == ["Pump", "Pump"]
    [fault] = corpus.faults
    return str(fault).replace(f"{folder}/", "")


def test_a_file_that_takes_too_long_is_a_fault_and_the_others_are_read(folder, monkeypatch):
    monkeypatch.setattr(parser, "MAX_SECONDS", 3.0)
    begun, started = time.monotonic(), parser.PARSER.started
    content = pages_again(lines(*["Pump"] * 100), 20_000)  # two million operators, out of 140 kB

    assert fault_of(folder, content) == (
        "b.pdf: takes more than 3 s to read\n  Split it, or leave it out if you do not trust it."
    )
    assert time.monotonic() - begun < 20
    assert parser.PARSER.started - started == 2  # one that was ended, and one for the file after it


def test_a_file_that_takes_too_much_memory_is_a_fault_and_the_others_are_read(folder, monkeypatch):
    pytest.importorskip("resource")
    monkeypatch.setattr(parser, "MAX_MEMORY_BYTES", 150 << 20)
    begun = time.monotonic()
    content = pdf([b" " * 60_000_000], deflate=True)
    assert len(content) < 100_000

    assert fault_of(folder, content) == (
        "b.pdf: takes more than 150.0 MiB of memory to read\n  Split it, or leave it out if you do not trust it."
    )
    assert time.monotonic() - begun < 20


@pytest.mark.parametrize(
    "content",
    [
        pdf([b"[" * 300_000]),
        pdf([lines("Pump")]).replace(b"/MediaBox [0 0 600 800]", b"/MediaBox " + b"[" * 300_000),
        pdf([lines("Pump")]).replace(b"/Kids [5 0 R]", b"/Kids [2 0 R]"),
    ],
    ids=["content", "object", "pages within themselves"],
)
def test_what_is_nested_without_end_is_a_fault_at_once(folder, content):
    begun = time.monotonic()

    assert fault_of(folder, content).startswith("b.pdf: ")
    assert time.monotonic() - begun < 20


def test_a_process_that_is_killed_is_a_fault_of_its_file_and_the_next_file_gets_another(tmp_path, monkeypatch):
    (tmp_path / "a.pdf").write_bytes(pages_again(lines(*["Pump"] * 100), 20_000))
    ask = parser.PdfParser._ask

    def killed(self, process, raw):
        process.kill()
        process.wait()
        return ask(self, process, raw)

    with monkeypatch.context() as patched:
        patched.setattr(parser.PdfParser, "_ask", killed)
        [found] = LOADERS[".pdf"](tmp_path / "a.pdf", "a.pdf")
    assert isinstance(found, Problem) and found.what == "ended the process that read it"
    (tmp_path / "a.pdf").write_bytes(pdf([lines("Pump")]))
    [document] = LOADERS[".pdf"](tmp_path / "a.pdf", "a.pdf")
    assert document.text == "Pump"


def test_what_is_interrupted_is_not_answered_to_the_next_file(tmp_path, monkeypatch):
    (tmp_path / "a.pdf").write_bytes(pdf([lines("Pump")]))
    ask = parser.PdfParser._ask

    def interrupted(self, process, raw):
        process.stdin.write(b'{"size": 0, "operators": 1, "seconds": 9, "memory": 2000000000}\n')
        process.stdin.flush()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(parser.PdfParser, "_ask", interrupted)
        with pytest.raises(KeyboardInterrupt):
            list(LOADERS[".pdf"](tmp_path / "a.pdf", "a.pdf"))
    assert ask is parser.PdfParser._ask
    assert [one.text for one in LOADERS[".pdf"](tmp_path / "a.pdf", "a.pdf")] == ["Pump"]


def test_fifty_small_files_are_read_by_one_process_in_about_the_time_that_they_took(tmp_path):
    contents = [pdf([lines(f"Pump {number}", *["It stands in the mill."] * 30)] * 4) for number in range(50)]
    wanted = [PdfReader(io.BytesIO(one)).pages[0].extract_text().splitlines()[0] for one in contents]
    begun = time.monotonic()
    for one in contents:
        [page.extract_text(visitor_operand_before=lambda *_: None) for page in PdfReader(io.BytesIO(one)).pages]
    within = time.monotonic() - begun
    for number, one in enumerate(contents):
        (tmp_path / f"{number:02}.pdf").write_bytes(one)
    parser.PARSER.close()
    begun, started = time.monotonic(), parser.PARSER.started
    found = read_documents([tmp_path]).documents
    outside = time.monotonic() - begun
    print(f"{within:.2f} s within, {outside:.2f} s outside")

    assert [one.text.splitlines()[0] for one in found] == wanted
    assert parser.PARSER.started - started == 1
    assert outside < 2 * within + 5  # five seconds to start it on a machine with much else to do


def test_no_process_is_left_when_the_documents_are_read(folder):
    read_documents([folder])
    assert parser.PARSER._process is None
    list(LOADERS[".pdf"](folder / "a.pdf", "a.pdf"))
    process = parser.PARSER._process
    parser.PARSER.close()
    assert process.returncode is not None
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)


def test_a_parser_that_lacks_its_library_says_so(folder, monkeypatch):
    monkeypatch.setattr(parser.PdfParser, "parse", lambda *_: {"fault": "not installed"})
    with pytest.raises(MissingPartError, match="reading PDF needs pypdf"):
        list(LOADERS[".pdf"](folder / "a.pdf", "a.pdf"))
