"""The token cache: never stale, never half, never in the way."""

from __future__ import annotations

import contextlib
import datetime
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ftkit.data import gather as gather_module
from ftkit.data import token_cache
from ftkit.data.prepare import prepare
from ftkit.data.settings import encoder_settings
from ftkit.data.store import StoreWriter, TokenStore
from ftkit.data.token_cache import NotWorthKeepingError, cached, temporary
from ftkit.errors import DataError, ResourceError, UsageError
from ftkit.recipe import DataSection
from tests.data.preparing import chat, prepare_path, write_jsonl
from tests.data.storing import arrays_of, warnings_of
from tests.tiny import CHATML, tiny_tokenizer

KEY = "0123456789abcdef" * 4
ROWS = [chat("hi", "yo"), chat("one", "two", "three", "four"), chat("hi", "a longer answer")]
READS_DATE = "{{ strftime_now('%d %B %Y') }}" + CHATML
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A cache of its own for every test."""
    monkeypatch.setenv("FTKIT_TOKEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FTKIT_TOKEN_CACHE_GIB", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def builds(monkeypatch):
    """A key for each store that was made rather than found."""
    made = []

    def watched(key, build):
        def counting(writer):
            made.append(key)
            return build(writer)

        return cached(key, counting)

    monkeypatch.setattr(gather_module, "cached", watched)
    return made


def build_some(writer: StoreWriter) -> dict[str, object]:
    writer.append(arrays_of(ROWS), file=0)
    return {"rows_of_files": [len(ROWS)], "styles": ["line"], "format": "messages"}


def never(writer: StoreWriter) -> dict[str, object]:
    raise AssertionError("made again")


def entries(folder: Path) -> list[Path]:
    """Finished stores and unfinished ones, without locks."""
    return sorted(entry for entry in folder.iterdir() if entry.is_dir())


def prepare_on(path: Path, today: datetime.date, template: str):
    tokenizer = tiny_tokenizer(template=template)
    encoder = encoder_settings(tokenizer, train_on="assistant", allow_control_tokens=False, today=today)
    return prepare(DataSection(train=str(path), validation=None), encoder)


# What decides


def other_tokenizer():
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["wonder"])
    return tokenizer


@pytest.mark.parametrize(
    "changed",
    [
        {"tokenizer": tiny_tokenizer(template=CHATML.replace("\n", " "))},
        {"tokenizer": other_tokenizer()},
        {"tokenizer": tiny_tokenizer(bos=True)},
        {"train_on": "last"},
        {"train_on": "all"},
        {"allow_control_tokens": True},
        {"group_by": "who"},
        {"columns": {"messages": "others"}},
    ],
    ids=["template", "tokens", "bos", "last", "all", "control-tokens", "group", "columns"],
)
def test_what_decides_the_tokens_makes_another_entry(changed, builds, tmp_path):
    rows = [row | {"who": index % 2, "others": ROWS[0]["messages"]} for index, row in enumerate(ROWS)]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    prepare_path(path)
    prepare_path(path, **changed)

    assert len(set(builds)) == 2


def test_another_format_of_the_same_rows_makes_another_entry(builds, tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", [{"text": "words", "prompt": "hi", "completion": "yo"}])
    prepare_path(path, format="text")
    prepare_path(path, format="prompt-completion")

    assert len(set(builds)) == 2


def test_another_reading_of_the_same_bytes_makes_another_entry(builds, tmp_path):
    for name, rows in (("rows.txt", 2), ("rows.md", 1)):
        (tmp_path / name).write_text("one line\nanother line\n")
        assert prepare_path(tmp_path / name).report.rows_in == rows

    assert len(set(builds)) == 2


@pytest.mark.parametrize("content", ["row added", "letter changed", "order changed"])
def test_other_content_makes_another_entry(content, builds, tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", ROWS)
    prepare_path(path)
    before = path.stat()
    changed = {
        "row added": [*ROWS, ROWS[0]],
        "letter changed": [chat("hi", "ya"), *ROWS[1:]],
        "order changed": ROWS[::-1],
    }[content]
    write_jsonl(path, changed)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # as a copy that keeps times would have it
    prepared = prepare_path(path)

    assert len(set(builds)) == 2
    assert prepared.train[0].answer == changed[0]["messages"][-1]["content"]


@pytest.mark.parametrize(
    ("where", "name", "value"),
    [
        ("ftkit.data.token_cache", "TOKENS_VERSION", 10**6),
        ("ftkit.data.encode", "RULES", 10**6),
        ("ftkit.data.token_cache", "version", lambda package: f"{package} of tomorrow"),
    ],
)
def test_other_code_makes_another_entry(where, name, value, builds, tmp_path, monkeypatch):
    path = write_jsonl(tmp_path / "rows.jsonl", ROWS)
    prepare_path(path)
    monkeypatch.setattr(f"{where}.{name}", value)
    prepare_path(path)

    assert len(set(builds)) == 2


def test_the_date_makes_another_entry_only_where_the_template_reads_it(builds, tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", ROWS)
    for template in (CHATML, READS_DATE):
        for day in (1, 2, 1):
            prepare_on(path, datetime.date(2026, 3, day), template)

    assert len(builds) == len(set(builds)) == 1 + 2


# What does not


@pytest.mark.parametrize(
    "changed",
    [
        {"max_length": 24, "overflow": "truncate"},
        {"max_length": 24, "overflow": "drop"},
        {"validation": 0.5},
        {"dedup": "near"},
        {"near_duplicates": False},
        {"workers": 3},
        {"format": "messages"},
        {"packing": False},
    ],
)
def test_what_decides_only_about_rows_that_are_read_finds_the_entry(changed, builds, tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", ROWS)
    prepare_path(path)
    prepare_path(path, **changed)

    assert len(builds) == 1


def test_name_folder_and_time_do_not_matter_and_places_bear_todays_name(builds, tmp_path):
    first = write_jsonl(tmp_path / "rows.jsonl", [*ROWS, chat("hi", "write to joe.miller@example-firm.com")])
    (tmp_path / "b").mkdir()
    second = shutil.move(first, tmp_path / "b" / "renamed.jsonl") if prepare_path(first) else None
    os.utime(second, (1, 1))
    prepared = prepare_path(second)

    assert len(builds) == 1
    assert [one.place for one in prepared.train] == [f"{second}:{line}" for line in (1, 2, 3, 4)]
    assert {one.where.partition(":")[0] for one in prepared.findings() if one.code == "e-mail"} == {str(second)}
    assert prepared.report.files[0].path == str(second)


def test_the_seed_does_not_matter(builds, tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", ROWS)
    encoder = encoder_settings(
        tiny_tokenizer(), train_on="assistant", allow_control_tokens=False, today=datetime.date(2026, 1, 1)
    )
    section = DataSection(train=str(path), validation=None)
    for seed in (0, 1):
        prepare(section, encoder, seed=seed)

    assert len(builds) == 1


def test_what_is_found_equals_what_was_made(builds, tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", ROWS)
    made, found = prepare_path(path, validation=0.4), prepare_path(path, validation=0.4)

    assert len(builds) == 1
    assert made.report == found.report
    assert list(made.train) == list(found.train)
    assert list(made.validation) == list(found.validation)


def test_rows_with_faults_are_not_kept_and_reported_each_time(builds, folder, tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", [*ROWS, {"messages": []}])
    for _ in range(2):
        with pytest.raises(DataError, match=r"rows\.jsonl:4: messages"):
            prepare_path(path)

    assert len(builds) == 2
    assert entries(folder) == []


# Damage


@pytest.mark.parametrize(
    "name",
    ["rows.bin", "sequences.bin", "ids.bin", "spans.bin", "texts.bin", "findings.jsonl", "store.json"],
)
@pytest.mark.parametrize("damage", ["flipped", "cut", "gone"])
def test_a_damaged_entry_is_made_again_with_a_warning(name, damage, folder, builds, tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", [*ROWS, chat("hi", "write to joe.miller@example-firm.com")])
    whole = prepare_path(path)
    (entry,) = entries(folder)
    raw = bytearray((entry / name).read_bytes())
    raw[len(raw) // 2] ^= 0x10
    (entry / name).unlink()
    if damage != "gone":
        (entry / name).write_bytes(raw if damage == "flipped" else raw[: len(raw) // 2])
    with warnings_of("ftkit") as said:
        again = prepare_path(path)

    assert len(builds) == 2
    assert ["damaged and is made again" in text for text in said] == [True]
    assert again.report == whole.report
    assert list(again.train) == list(whole.train)
    assert prepare_path(path).report == whole.report
    assert len(builds) == 2


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"{}", b"\xff\xfe", b"[" * 50_000])
def test_an_entry_whose_list_of_contents_is_garbage_is_made_again(content, folder):
    cached(KEY, build_some)
    (entry,) = entries(folder)
    (entry / "store.json").write_bytes(content)
    with warnings_of("ftkit") as said:
        assert len(cached(KEY, build_some).rows) == 3

    assert len(said) == 1
    assert len(cached(KEY, never).rows) == 3


def test_an_entry_of_another_version_of_ftkit_is_made_again(folder, monkeypatch):
    with monkeypatch.context() as older:
        older.setattr("ftkit.data.store.FORMAT_VERSION", 0)
        cached(KEY, build_some)

    assert len(cached(KEY, build_some).rows) == 3
    (entry,) = entries(folder)
    assert json.loads((entry / "store.json").read_text())["format_version"] == 1


# Several processes, and ends that nobody planned


SCRIPT = """
import os, sys, time
from array import array
from pathlib import Path
from ftkit.data.arrays import ArrayBuilder, TokenArrays
from ftkit.data.encode import Encoded
from ftkit.data.sample import Content, Sample, Turn
from ftkit.data.token_cache import cached

def build(writer):
    with open(sys.argv[2], "a") as log:
        log.write("built\\n")
    builder = ArrayBuilder()
    turns = (Turn(role="user", content="hi"), Turn(role="assistant", content="yo"))
    sample = Sample(content=Content(turns=turns), kind="chat", place="x:1")
    builder.add(sample, 1, [Encoded(ids=array("i", [4, 5, 6]), spans=[(1, 3)], answer_start=1, stop_id=6, turn=1)])
    writer.append(TokenArrays(arrays=builder.build()), file=0)
    print("building", flush=True)
    time.sleep(float(sys.argv[3]))
    return {}

store = cached(sys.argv[1], build)
print(store.digest, store.ids(0).tolist(), flush=True)
"""


def start(log: Path, *, takes_s: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, KEY, str(log), str(takes_s)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


def test_of_two_processes_that_want_one_store_one_makes_it_and_the_other_waits(tmp_path):
    log = tmp_path / "log"
    first = start(log, takes_s=1.5)
    assert first.stdout.readline() == "building\n"
    second = start(log, takes_s=0)
    outcomes = [process.communicate(timeout=60)[0].splitlines()[-1] for process in (first, second)]

    assert (first.returncode, second.returncode) == (0, 0)
    assert log.read_text() == "built\n"
    assert outcomes[0] == outcomes[1]
    assert outcomes[0].endswith("[4, 5, 6]")


def test_a_builder_that_is_killed_leaves_nothing_that_looks_finished_and_holds_up_nobody(folder, tmp_path):
    log = tmp_path / "log"
    killed = start(log, takes_s=600)
    assert killed.stdout.readline() == "building\n"
    waiting = start(log, takes_s=0)
    time.sleep(1.0)  # long enough for it to wait for the lock; where it is not, it waits a moment later
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=60)
    out, _ = waiting.communicate(timeout=60)

    assert waiting.returncode == 0
    assert out.endswith("[4, 5, 6]\n")
    assert log.read_text() == "built\nbuilt\n"
    wreck, whole = entries(folder)
    assert (wreck.name.startswith(".partial-"), whole.name) == (True, KEY[:32])
    assert not (wreck / "store.json").exists()


def test_a_builder_that_fails_leaves_nothing_at_all(folder):
    def fails(writer):
        build_some(writer)
        raise NotWorthKeepingError

    with pytest.raises(NotWorthKeepingError):
        cached(KEY, fails)
    assert entries(folder) == []
    assert len(cached(KEY, build_some).rows) == 3


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
def test_an_interrupted_builder_leaves_nothing_at_all(interruption, folder):
    def interrupted(writer):
        build_some(writer)
        raise interruption

    with pytest.raises(interruption):
        cached(KEY, interrupted)
    assert entries(folder) == []


# Folders that cannot be written to, and disks that are full


@contextlib.contextmanager
def refuses(error: OSError):
    raise error
    yield


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_where_the_cache_cannot_be_written_to_tokens_are_made_and_not_kept(number, folder, monkeypatch):
    monkeypatch.setattr(token_cache, "new_folder", lambda path: refuses(OSError(number, os.strerror(number))))
    with warnings_of("ftkit") as said:
        store = cached(KEY, build_some)

    assert said == [f"{folder} cannot be written to, so tokens are not kept"]
    assert entries(folder) == []
    assert store.texts(2) == {"asked": [["hi", "a longer answer"]]}
    assert len(store.ids(2)) > 12
    assert not store.folder.exists()


def test_a_cache_folder_that_cannot_be_made_is_no_reason_to_stop(tmp_path, monkeypatch):
    (tmp_path / "locked").write_text("")
    real = Path.mkdir

    def mkdir(self, *args, **kwargs):
        if self.name == "cache":
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        real(self, *args, **kwargs)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    with warnings_of("ftkit") as said:
        assert len(cached(KEY, build_some).rows) == 3
    assert len(said) == 1


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.ENOSPC, r"the disk is full while tokens are written\n  Free some space, or name .*FTKIT_TOKEN_CACHE"),
        (errno.EDQUOT, "the disk is full"),
        (errno.EMFILE, r"open no more files\n  Allow more \(ulimit -n 65536\)"),
    ],
)
@pytest.mark.parametrize("make", [lambda: cached(KEY, build_some), lambda: temporary(build_some)])
def test_a_shortage_is_said_and_nothing_is_left(number, says, make, folder, monkeypatch):
    def fails(self, block, *, file):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(StoreWriter, "append", fails)
    with pytest.raises(ResourceError, match=says) as caught:
        make()

    assert caught.value.exit_code == 4
    assert not folder.exists() or entries(folder) == []


def test_too_many_open_files_are_not_taken_for_damage(folder, monkeypatch):
    cached(KEY, build_some)
    (entry,) = entries(folder)
    real = Path.open

    def fails(self, *args, **kwargs):
        if self.name == "spans.bin":
            raise OSError(errno.EMFILE, "Too many open files")
        return real(self, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", fails)
        with pytest.raises(ResourceError, match="no more files"):
            cached(KEY, never)
    assert entries(folder) == [entry]
    assert len(cached(KEY, never).rows) == 3


def test_other_failures_of_the_system_are_not_hidden(monkeypatch):
    def fails(self, block, *, file):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(StoreWriter, "append", fails)
    with pytest.raises(OSError, match="Input/output error"):
        cached(KEY, build_some)


# Room


def fill(folder: Path, names: str) -> int:
    """Entries a, b, c, ... last used in this order, long ago; gives the bytes of one."""
    for age, name in enumerate(names):
        cached(name * 64, build_some)
        os.utime(folder / (name * 32), (1_000_000 + age, 1_000_000 + age))
    return sum(file.stat().st_size for file in (folder / (names[0] * 32)).iterdir())


def test_entries_used_longest_ago_go_when_the_cache_is_full(folder, monkeypatch):
    size = fill(folder, "abcd")
    monkeypatch.setenv("FTKIT_TOKEN_CACHE_GIB", str(3.5 * size / 2**30))
    cached("a" * 64, never)  # used once more, so now c and b have waited longest
    cached("e" * 64, build_some)

    assert [entry.name[0] for entry in entries(folder)] == ["a", "d", "e"]


def test_what_was_just_made_stays_however_small_the_limit(folder, monkeypatch):
    fill(folder, "ab")
    monkeypatch.setenv("FTKIT_TOKEN_CACHE_GIB", "0")
    cached("c" * 64, build_some)

    assert [entry.name[0] for entry in entries(folder)] == ["c"]


def test_within_the_limit_nothing_goes(folder):
    fill(folder, "abc")
    cached("d" * 64, build_some)

    assert [entry.name[0] for entry in entries(folder)] == ["a", "b", "c", "d"]


@pytest.mark.parametrize("text", ["plenty", "20GB", "inf", "nan"])
def test_a_limit_that_is_no_number_is_refused_before_anything_is_made(text, monkeypatch):
    monkeypatch.setenv("FTKIT_TOKEN_CACHE_GIB", text)
    with pytest.raises(UsageError, match=f"FTKIT_TOKEN_CACHE_GIB: '{text}' is not a number of GiB"):
        cached(KEY, never)


def test_wrecks_go_when_nothing_has_been_written_to_them_for_a_day(folder):
    now = time.time()
    for name, folder_age_h, file_age_h in (
        (".partial-old", 30, 25),
        (".partial-busy", 30, 1),
        (".partial-new", 0, 0),
    ):
        (folder / name).mkdir(parents=True)
        (folder / name / "ids.bin").write_bytes(b"half")
        os.utime(folder / name / "ids.bin", (now - 3600 * file_age_h,) * 2)
        os.utime(folder / name, (now - 3600 * folder_age_h,) * 2)
    cached(KEY, build_some)

    assert [entry.name for entry in entries(folder)] == [".partial-busy", ".partial-new", KEY[:32]]


# Files that change


@pytest.mark.parametrize("change", ["grown", "replaced", "gone"])
def test_a_file_that_changes_while_it_is_read_is_refused_and_not_kept(change, folder, tmp_path, monkeypatch):
    path = write_jsonl(tmp_path / "rows.jsonl", ROWS)
    real = gather_module.read_blocks

    def read_blocks(file, **options):
        yield from real(file, **options)
        if options:
            return  # the first look, for the format
        if change == "grown":
            path.write_text(path.read_text() + json.dumps(ROWS[0]) + "\n")
        if change == "replaced":
            write_jsonl(tmp_path / "new.jsonl", ROWS).replace(path)
        if change == "gone":
            path.unlink()

    monkeypatch.setattr(gather_module, "read_blocks", read_blocks)
    with pytest.raises(DataError, match=r"rows\.jsonl: changed while it was being read\n  Try again"):
        prepare_path(path)
    assert entries(folder) == []


def test_the_file_that_changed_is_named_and_not_its_neighbour(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    for name in ("a", "b", "c"):
        write_jsonl(tmp_path / "data" / f"{name}.jsonl", ROWS)
    real = gather_module.read_blocks

    def read_blocks(file, **options):
        yield from real(file, **options)
        if not options and file.path.name == "b.jsonl":
            write_jsonl(file.path, ROWS[:1])

    monkeypatch.setattr(gather_module, "read_blocks", read_blocks)
    with pytest.raises(DataError, match=r"b\.jsonl: changed"):
        prepare_path(tmp_path / "data")


def test_a_store_that_is_evicted_while_it_is_in_use_stays_readable(folder, monkeypatch):
    monkeypatch.setenv("FTKIT_TOKEN_CACHE_GIB", "0")
    first = cached("a" * 64, build_some)
    cached("b" * 64, build_some)

    assert [entry.name[0] for entry in entries(folder)] == ["b"]
    assert isinstance(first, TokenStore)
    assert first.texts(0) == {"asked": [["hi", "yo"]]}
