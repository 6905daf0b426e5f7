"""Files are whole or absent, folders belong to one process, and names from strangers stay inside."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from ftkit import files
from ftkit.errors import OutputError, ResourceError
from ftkit.files import (
    PARTIAL_PREFIX,
    error_number,
    files_in,
    folder_lock,
    inside,
    new_folder,
    remove_partials,
    require_empty,
    require_space,
    sha256_file,
    sha256_json,
    to_json,
    write_json,
    write_text,
)


@pytest.fixture
def umask():
    """Set the umask to 0o027 (group reads, others nothing) for one test."""
    before = os.umask(0o027)
    yield 0o027
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def full_disk(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# One file


def test_a_written_file_holds_the_text_in_utf_8_with_plain_line_breaks(tmp_path):
    write_text(tmp_path / "new" / "a.txt", "é\nb\n")

    assert (tmp_path / "new" / "a.txt").read_bytes() == b"\xc3\xa9\nb\n"
    assert files_in(tmp_path) == ["new/a.txt"]


@pytest.mark.parametrize("step", ["fsync", "chmod", "replace"])
def test_a_failed_write_leaves_the_old_content_and_no_partial_file(tmp_path, monkeypatch, step):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    monkeypatch.setattr(files.os, step, full_disk)

    with pytest.raises(OSError, match="No space left"):
        write_text(path, "new")

    monkeypatch.undo()
    assert path.read_text() == "old"
    assert files_in(tmp_path) == ["a.txt"]


def test_ctrl_c_during_a_write_leaves_the_old_content_and_no_partial_file(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_text(path, "new")

    assert path.read_text() == "old"
    assert files_in(tmp_path) == ["a.txt"]


def test_the_bytes_reach_the_disk_before_the_name_does(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(files.os, "fsync", lambda handle: (calls.append("fsync"), fsync(handle)))
    monkeypatch.setattr(files.os, "replace", lambda *names: (calls.append("replace"), replace(*names)))

    write_text(tmp_path / "a.txt", "text")

    assert calls == ["fsync", "replace", "fsync"]  # the content, the name, the folder that holds the name


def test_a_written_file_has_the_persons_permissions(tmp_path, umask):
    write_text(tmp_path / "a.txt", "text")

    assert mode(tmp_path / "a.txt") == 0o640


def test_json_that_is_not_json_is_never_written(tmp_path):
    write_json(tmp_path / "a.json", {"b": 1})

    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})

    assert json.loads((tmp_path / "a.json").read_text()) == {"b": 1}
    assert to_json({"b": "é", "a": 1}) == '{\n  "b": "é",\n  "a": 1\n}\n'


# A folder


def test_a_new_folder_appears_complete(tmp_path):
    with new_folder(tmp_path / "out") as partial:
        (partial / "inner").mkdir()
        (partial / "inner" / "a").write_text("a")
        assert not (tmp_path / "out").exists()

    assert files_in(tmp_path) == ["out/inner/a"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt(), ValueError("x")])
def test_a_folder_that_fails_half_way_does_not_appear_at_all(tmp_path, error):
    with pytest.raises(type(error)), new_folder(tmp_path / "out") as partial:
        (partial / "a").write_text("a")
        raise error

    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_flushed_does_not_appear_at_all(tmp_path, monkeypatch):
    monkeypatch.setattr(files.os, "fsync", full_disk)

    with pytest.raises(OSError, match="No space left"), new_folder(tmp_path / "out") as partial:
        (partial / "a").write_text("a")

    assert list(tmp_path.iterdir()) == []


def test_a_new_folder_may_take_the_place_of_an_empty_one_only(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")

    with new_folder(tmp_path / "empty") as partial:
        (partial / "a").write_text("a")
    with pytest.raises(OSError, match="not empty"), new_folder(tmp_path / "full") as partial:
        (partial / "a").write_text("a")

    assert files_in(tmp_path) == ["empty/a", "full/mine"]


def test_a_new_folder_and_its_files_have_the_persons_permissions(tmp_path, umask):
    with new_folder(tmp_path / "out") as partial:
        (partial / "weights").write_text("w")
        (partial / "weights").chmod(0o600)  # as safetensors does

    assert (mode(tmp_path / "out"), mode(tmp_path / "out" / "weights")) == (0o750, 0o640)


# Names


@pytest.mark.parametrize("name", ["a", "sub/b", "sub/../a", "./a", "not/yet/there"])
def test_names_below_the_folder_are_resolved(tmp_path, name):
    assert inside(tmp_path, name) == (tmp_path / name).resolve()


@pytest.mark.parametrize("name", ["/etc/passwd", "..", "../x", "sub/../../x", ".", "", "sub/.."])
def test_names_that_leave_the_folder_or_are_the_folder_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match="points outside its folder"):
        inside(tmp_path, name)


def test_names_that_leave_through_a_link_are_refused(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (root / "out").symlink_to(tmp_path)
    (root / "file").symlink_to("/etc/passwd")

    for name in ("out/x", "file", "out"):
        with pytest.raises(ValueError, match="points outside"):
            inside(root, name)


def test_a_sibling_folder_whose_name_begins_alike_is_outside(tmp_path):
    (tmp_path / "run").mkdir()

    with pytest.raises(ValueError, match="points outside"):
        inside(tmp_path / "run", "../run-other/x")


# Checks before work


def test_only_an_empty_or_absent_output_folder_is_accepted(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / ".hidden").touch()
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()

    require_empty(tmp_path / "none")
    require_empty(tmp_path / "empty")
    with pytest.raises(OutputError, match="is not empty"):
        require_empty(tmp_path / "full")
    with pytest.raises(OutputError, match="is a file, not a folder"):
        require_empty(tmp_path / "file")


def test_what_the_disk_cannot_hold_is_refused_with_both_numbers(tmp_path, monkeypatch):
    asked = []

    def usage(path):
        asked.append(path)
        return type("Usage", (), {"free": 1024})

    monkeypatch.setattr(files.shutil, "disk_usage", usage)

    require_space(tmp_path / "not" / "yet", 1024)
    with pytest.raises(ResourceError, match=r"needs about 1\.5 KiB of disk, 1\.0 KiB are free"):
        require_space(tmp_path / "not" / "yet", 1536)
    assert asked == [tmp_path, tmp_path]


# One process a folder

HOLD = """\
import sys, time
from pathlib import Path
from ftkit.files import folder_lock
with folder_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_folder_belongs_to_one_process_until_it_dies(tmp_path):
    with subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(OutputError, match="another process is working in this folder"), folder_lock(tmp_path):
                pass
        finally:
            holder.send_signal(signal.SIGKILL)

    with folder_lock(tmp_path):
        pass


def test_a_lock_is_released_when_its_block_ends_even_badly(tmp_path):
    with pytest.raises(ValueError, match="x"), folder_lock(tmp_path / "run"):
        raise ValueError("x")

    with folder_lock(tmp_path / "run"):
        pass


# Digests


def test_the_digest_of_a_file_is_what_sha256sum_prints(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    assert sha256_file(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, B.1

    path.write_bytes(bytes(files.CHUNK_BYTES) + b"rest")
    assert sha256_file(path) == hashlib.sha256(bytes(files.CHUNK_BYTES) + b"rest").hexdigest()


def test_the_digest_of_a_value_does_not_depend_on_the_order_of_keys_but_on_all_else():
    canonical = '{"a":[1,2],"é":null}'.encode()

    assert sha256_json({"é": None, "a": [1, 2]}) == hashlib.sha256(canonical).hexdigest()
    assert sha256_json({"a": [1, 2], "é": None}) == hashlib.sha256(canonical).hexdigest()
    assert sha256_json({"a": [2, 1], "é": None}) != hashlib.sha256(canonical).hexdigest()


def test_files_are_listed_sorted_and_relative(tmp_path):
    for name in ("b", "a/c", "a/b"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    assert files_in(tmp_path) == ["a/b", "a/c", "b"]


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (OSError(errno.EROFS, "x"), errno.EROFS),
        (Exception("No space left on device (os error 28)"), errno.ENOSPC),
        (ValueError("os error 28"), None),
        (OSError("no number"), None),
    ],
)
def test_the_number_of_a_system_error_is_found_in_texts_of_rust_libraries_too(error, number):
    assert error_number(error) == number


def test_partials_are_removed_wherever_they_are_and_nothing_else_is(tmp_path):
    for name in ("a", "export/x/verify.json", f"export/x/{PARTIAL_PREFIX}1", f"{PARTIAL_PREFIX}2/deep/file"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")

    remove_partials(tmp_path)

    assert files_in(tmp_path) == ["a", "export/x/verify.json"]
    assert not (tmp_path / f"{PARTIAL_PREFIX}2").exists()


def test_a_lock_whose_file_was_removed_meanwhile_is_taken_again(tmp_path, monkeypatch):
    real, calls = fcntl.flock, []

    def flock(stream, how):
        calls.append(how)
        if len(calls) == 1:  # as a process does that held the folder and leaves nothing of it
            (tmp_path / "run" / ".lock").unlink()
            (tmp_path / "run").rmdir()
        real(stream, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    with folder_lock(tmp_path / "run"):
        assert len(calls) == 2
        with pytest.raises(OutputError, match="another process"), folder_lock(tmp_path / "run"):
            pass


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_a_folder_that_cannot_be_written_to_cannot_be_locked(number, tmp_path, monkeypatch):
    def refused(self, *args, **kwargs):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "mkdir", refused)
    says = f"run: cannot be written to: {os.strerror(number)}"
    with pytest.raises(OutputError, match=says), folder_lock(tmp_path / "run"):
        pass
