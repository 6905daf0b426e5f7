"""Hostile data: exit code 3 and the place, within the limits of a row, and nothing is waited for."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import zipfile
from pathlib import Path

import pytest

from ftkit.data.sources import Source, open_files, read_blocks
from ftkit.data.sources import blocks as blocks_module
from ftkit.data.sources import streams as streams_module
from ftkit.errors import DataError
from tests.cli.running import ftkit, write_recipe

ROW = '{"messages": [{"role": "user", "content": %s}, {"role": "assistant", "content": "b"}]}\n'
GOOD = ROW % '"a"'
ROWS = {
    "deep lists": ("[" * 100_000 + "\n", "nested too deeply"),
    "deep objects": ('{"a":' * 100_000 + "\n", "nested too deeply"),
    "half a character": (ROW % '"\\ud800"', "rows.jsonl:2"),
    "an endless number": (ROW % ("9" * 5000), "not valid JSON"),
    "a number for text": (ROW % "1e999", "rows.jsonl:2"),
    "NaN for text": (ROW % "NaN", "rows.jsonl:2"),
    "zero bytes": ("\0\0\0\n", "not valid JSON"),
    "no object": ("[1]\n", "is a list"),
}


@pytest.mark.parametrize(("row", "words"), ROWS.values(), ids=ROWS)
def test_a_hostile_row_is_named(row, words, tmp_path, tiny_llama):
    (tmp_path / "rows.jsonl").write_text(GOOD + row)

    outcome = ftkit("check", write_recipe(tmp_path, tiny_llama))

    assert outcome.code == 3, outcome.err
    assert "rows.jsonl:2" in outcome.err
    assert words in outcome.err


FILES = {
    "deep.json": b"[" * 100_000,
    "deep_objects.json": b'{"a":' * 100_000,
    "number.json": b"9" * 100_000,
    "quote.csv": b'prompt,completion\n"' + b"x" * 10_000,
    "junk.parquet": b"PAR1" + bytes(range(200)) + b"PAR1",
    "junk.arrow": b"ARROW1\0\0" + bytes(range(250)) + b"ARROW1",
    "stream.arrow": b"\xff\xff\xff\xff\xff\xff\xff\x7f" + bytes(100),
    "junk.jsonl.gz": b"\x1f\x8b" + bytes(range(100)),
    "junk.jsonl.zst": b"\x28\xb5\x2f\xfd" + bytes(range(100)),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_garbage_is_named(name, tmp_path, tiny_llama):
    (tmp_path / name).write_bytes(FILES[name])

    outcome = ftkit("check", write_recipe(tmp_path, tiny_llama, data=name))

    assert outcome.code == 3, outcome.err
    assert name in outcome.err


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz", "rows.txt", "rows.csv"])
def test_a_line_without_an_end_is_given_up_at_the_limit_of_a_row(name, tmp_path, monkeypatch):
    monkeypatch.setattr(streams_module, "MAX_ROW_BYTES", 1 << 20)
    raw = b"x" * (8 << 20)
    (tmp_path / name).write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)

    (file,) = open_files(Source(path=str(tmp_path / name)))
    found = [problem for block in read_blocks(file, block_bytes=1 << 16) for problem in block.problems]

    assert blocks_module.MAX_ROW_BYTES == 1 << 28  # the limit of everybody else's rows
    assert len(found) == 1
    assert "has a line of more than 1 MiB" in str(found[0])


@pytest.mark.parametrize(
    "make",
    [
        os.mkfifo,
        lambda path: path.symlink_to("/dev/zero"),
        lambda path: path.symlink_to("/nowhere/at/all"),
        lambda path: path.symlink_to(path),
    ],
    ids=["a pipe", "a device without an end", "a link to nothing", "a link to itself"],
)
@pytest.mark.parametrize("key", ["data.train", "data.validation"])
def test_what_is_no_file_is_not_waited_for(key, make, tmp_path, tiny_llama):
    (tmp_path / "rows.jsonl").write_text(GOOD)
    make(tmp_path / "odd.jsonl")

    outcome = ftkit("check", write_recipe(tmp_path, tiny_llama), f"{key}={tmp_path / 'odd.jsonl'}")

    assert outcome.code in (2, 3), outcome.err
    assert "Traceback" not in outcome.err


def test_pipes_and_loops_in_a_folder_are_passed_over(tmp_path):
    os.mkfifo(tmp_path / "a.jsonl")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "b.jsonl").write_text(GOOD)

    assert [Path(file.name).name for file in open_files(Source(path=str(tmp_path)))] == ["b.jsonl"]


@pytest.mark.parametrize(
    "state", ['{"_data_files": [{"filename": "../rows.arrow"}]}', '{"_data_files": [{"filename": "/etc/passwd"}]}',
              '{"_data_files": [{"filename": "a\\u0000b"}]}', '{"_data_files": 7}', "[" * 100_000, "[1]"],
    ids=range(6),
)  # fmt: skip
def test_a_saved_data_set_cannot_name_files_outside_its_folder(state, tmp_path):
    (tmp_path / "saved").mkdir()
    (tmp_path / "rows.arrow").write_bytes(b"")
    (tmp_path / "saved" / "state.json").write_text(state)

    with pytest.raises(DataError):
        open_files(Source(path=str(tmp_path / "saved")))


def _zip() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("../../evil", "x")
    return out.getvalue()


def _bomb() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        info = tarfile.TarInfo("BUNDLE.json")
        info.size = 64 << 20
        archive.addfile(info, io.BytesIO(bytes(info.size)))
    return out.getvalue()


@pytest.mark.parametrize("make", [_zip, _bomb, lambda: b"", lambda: b"\x1f\x8b", lambda: bytes(20_480)])
@pytest.mark.parametrize("verb", ["verify", "unbundle"])
def test_what_is_no_bundle_is_refused_and_nothing_is_unpacked(verb, make, tmp_path):
    # What a bundle may hold is held to tests/export/test_bundle.py.
    (tmp_path / "b.tar").write_bytes(make())

    more = ["-o", tmp_path / "out"] if verb == "unbundle" else []
    outcome = ftkit(verb, tmp_path / "b.tar", *more)

    assert outcome.code == 5, outcome.err
    assert [path.name for path in tmp_path.iterdir()] == ["b.tar"]
