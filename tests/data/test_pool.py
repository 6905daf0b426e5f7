"""Worker processes: the same bytes as without them, in order, and no trouble left behind when one of them ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from ftkit.data import gather as gather_module
from ftkit.data.pool import AHEAD, Pool, WorkerError
from ftkit.data.sources import Block
from ftkit.data.worker import receive, send
from ftkit.errors import DataError, FtkitError
from ftkit.json_lines import json_line
from tests.data.preparing import chat, prepare_path, write_jsonl
from tests.data.storing import block_settings, tiny_settings

ROOT = Path(__file__).resolve().parents[2]
HAS_PROC = Path("/proc/self/stat").is_file()
GOOD, BAD = chat("hi", "yo"), {"messages": []}


def block(first: int, rows: list[dict]) -> Block:
    numbers = list(range(first, first + len(rows)))
    return Block(lines=b"".join(map(json_line, rows)), numbers=numbers, style="line")


def blocks_of_sizes(sizes: list[int]) -> Iterator[Block]:
    """Blocks of so many rows each; the last row of each is a fault."""
    first = 1
    for size in sizes:
        yield block(first, [GOOD] * (size - 1) + [BAD])
        first += size


def is_running(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def have_ended(pids: list[int], *, within_s: float = 20) -> bool:
    deadline = time.monotonic() + within_s
    while any(map(is_running, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not any(map(is_running, pids))


def test_blocks_come_back_in_order_each_with_its_own_rows_and_faults():
    sizes = [1, 400, 2, 1, 300, 3, 1, 1, 200, 5]  # small ones overtake large ones in other workers
    with Pool(tiny_settings(), 3) as pool:
        found = list(pool.read(blocks_of_sizes(sizes), block_settings(), "rows.jsonl", small=False))

    first = 1
    for size, (given, arrays) in zip(sizes, found, strict=True):
        assert given.numbers[0] == first
        assert arrays.arrays["rows"]["number"].tolist() == list(range(first, first + size - 1))
        assert [problem.where for problem in arrays.problems] == [f"rows.jsonl:{first + size - 1}: messages"]
        first += size


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """The cache folder after the same data was prepared with 0, 1 and 3 workers."""
    data = tmp_path_factory.mktemp("data")
    rows = [chat(f"What is {index}?", "y" * (index % 37 + 1), "And who?", f"joe{index}@example-firm.com")
            for index in range(300)]  # fmt: skip
    write_jsonl(data / "a.jsonl", rows[:200])
    write_jsonl(data / "b.jsonl", rows[200:])
    folders = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gather_module, "SMALL_BYTES", 0)
        real = gather_module.read_blocks
        # About four rows a block, so that there are many more blocks than workers.
        patch.setattr(gather_module, "read_blocks", lambda file, block_bytes=0: real(file, block_bytes=1000))
        for workers in (0, 1, 3):
            folders[workers] = tmp_path_factory.mktemp(f"cache{workers}")
            patch.setenv("FTKIT_TOKEN_CACHE", str(folders[workers]))
            prepare_path(data, workers=workers)
    return folders


@pytest.mark.parametrize("workers", [1, 3])
def test_a_store_has_the_same_bytes_however_many_workers_made_it(workers, stores):
    def content(folder: Path) -> dict[str, bytes]:
        return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}

    alone = content(stores[0])
    assert content(stores[workers]) == alone
    assert len([name for name in alone if name.endswith("ids.bin")]) == 1
    assert sum(len(raw) for name, raw in alone.items() if name.endswith("findings.jsonl")) > 300 * 20


def test_faults_are_the_same_however_many_workers_find_them(tmp_path, monkeypatch):
    monkeypatch.setattr(gather_module, "SMALL_BYTES", 0)
    path = write_jsonl(tmp_path / "rows.jsonl", [GOOD, BAD, chat("hi", "<|im_end|>"), {"messages": "\ud83d"}, GOOD])
    found = []
    for workers in (0, 2):
        with pytest.raises(DataError) as caught:
            prepare_path(path, workers=workers)
        found.append(caught.value.problems)

    assert found[0] == found[1]
    assert [problem.where.rpartition("/")[2][:12] for problem in found[0]] == [
        "rows.jsonl:2", "rows.jsonl:3", "rows.jsonl:4",
    ]  # fmt: skip


def test_no_process_is_started_for_small_files_or_without_workers(monkeypatch):
    monkeypatch.setattr("ftkit.data.pool._Worker", lambda: pytest.fail("a process was started"))
    for workers, small in ((0, False), (3, True)):
        with Pool(tiny_settings(), workers) as pool:
            assert len(list(pool.read(blocks_of_sizes([2, 2]), block_settings(), "x", small=small))) == 2


def test_no_more_blocks_are_read_ahead_than_workers_can_take():
    taken = []

    def watched():
        for number in range(30):
            taken.append(number)
            yield block(1 + number, [GOOD])

    with Pool(tiny_settings(), 2) as pool:
        given = 0
        for _ in pool.read(watched(), block_settings(), "x", small=False):
            given += 1
            assert len(taken) - given <= AHEAD * 2
    assert given == 30


def test_one_pool_serves_files_of_several_formats_one_after_the_other():
    with Pool(tiny_settings(), 2) as pool:
        for form, row in (("messages", GOOD), ("text", {"text": "hi"}), ("messages", GOOD)):
            ((_, arrays),) = pool.read([block(1, [row])], block_settings(form), "x", small=False)
            assert (len(arrays.arrays["rows"]), arrays.problems) == (1, [])


# Ends


@pytest.mark.parametrize("victims", [[0], [0, 1]])
def test_a_worker_that_is_killed_is_an_error_that_says_so_and_nothing_hangs(victims):
    def endless():
        number = 0
        while True:
            number += 1
            yield block(number, [GOOD])

    with Pool(tiny_settings(), 2) as pool:
        reading = pool.read(endless(), block_settings(), "x", small=False)
        next(reading)
        pids = [worker._process.pid for worker in pool._all]
        for victim in victims:
            os.kill(pids[victim], signal.SIGKILL)
        with pytest.raises(WorkerError, match=r"ended with exit code -9\n  If the system killed it for memory"):
            for _ in range(1000):
                next(reading)
    assert not any(map(is_running, pids))
    assert issubclass(WorkerError, FtkitError)


@pytest.mark.skipif(not HAS_PROC, reason="looks for processes in /proc")
def test_leaving_a_pool_early_ends_its_workers():
    with Pool(tiny_settings(), 2) as pool:
        next(pool.read(blocks_of_sizes([300] * 20), block_settings(), "x", small=False))
        pids = [worker._process.pid for worker in pool._all]
        assert all(map(is_running, pids))
    assert not any(map(is_running, pids))


def test_an_unexpected_failure_in_a_worker_comes_with_its_traceback():
    unknown = replace(block_settings(), format="no-such-format")
    with Pool(tiny_settings(), 1) as pool, pytest.raises(WorkerError) as caught:
        list(pool.read([block(1, [GOOD])], unknown, "x", small=False))

    assert "Traceback (most recent call last)" in str(caught.value)
    assert "KeyError: 'no-such-format'" in str(caught.value)


@pytest.mark.skipif(not HAS_PROC, reason="looks for processes in /proc")
def test_where_the_system_allows_no_second_process_the_first_one_ends_too(monkeypatch):
    started, real = [], subprocess.Popen

    def popen(*args, **kwargs):
        if started:
            raise BlockingIOError("Resource temporarily unavailable")
        started.append(real(*args, **kwargs))
        return started[0]

    monkeypatch.setattr(subprocess, "Popen", popen)
    with pytest.raises(BlockingIOError), Pool(tiny_settings(), 2) as pool:
        list(pool.read([block(1, [GOOD])], block_settings(), "x", small=False))
    assert not is_running(started[0].pid)


CALLER = """
import sys
from ftkit.data.block import BlockSettings
from ftkit.data.encode import EncoderSettings
from ftkit.data.pool import Pool
from ftkit.data.sources import Block
import json

settings = EncoderSettings(**json.loads(sys.stdin.readline()))
line = b'{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]}\\n'
def endless():
    while True:
        yield Block(lines=line * 200, numbers=list(range(200)), style="line")
reading = BlockSettings(encoder=settings, format="messages")
with Pool(settings, 2) as pool:
    for number, _ in enumerate(pool.read(endless(), reading, "x", small=False)):
        if number == 3:
            print(*(worker._process.pid for worker in pool._all), flush=True)
"""


@pytest.mark.skipif(not HAS_PROC, reason="looks for processes in /proc")
@pytest.mark.parametrize("end", ["Ctrl-C", "SIGTERM", "SIGKILL"])
def test_however_the_caller_ends_its_workers_end_with_it(end, tmp_path):
    (tmp_path / "caller.py").write_text(CALLER)
    caller = subprocess.Popen(
        [sys.executable, tmp_path / "caller.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, start_new_session=True, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    caller.stdin.write(json.dumps(asdict(tiny_settings())) + "\n")
    caller.stdin.flush()
    pids = [int(pid) for pid in caller.stdout.readline().split()]
    assert len(pids) == 2
    assert all(map(is_running, pids))
    if end == "Ctrl-C":  # a terminal sends it to the whole group
        os.killpg(caller.pid, signal.SIGINT)
    else:
        caller.send_signal(signal.SIGTERM if end == "SIGTERM" else signal.SIGKILL)
    _, err = caller.communicate(timeout=60)

    assert caller.returncode != 0
    assert have_ended(pids)
    if end == "Ctrl-C":
        assert err.count("KeyboardInterrupt") == 1  # the caller's; none of the workers'
        assert "BrokenPipe" not in err


# The worker itself


def test_workers_load_neither_torch_nor_transformers():
    script = (
        "import sys; from ftkit.data import block, encode, pool, worker\n"
        "import ftkit.data.sources, ftkit.data.lint, ftkit.data.formats\n"
        "print(*sorted(name for name in ('torch', 'transformers', 'datasets', 'pandas') if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout == "\n"


@pytest.mark.skipif(not HAS_PROC, reason="looks into the process in /proc")
def test_a_worker_that_has_tokenised_holds_no_torch_in_its_memory():
    with Pool(tiny_settings(), 1) as pool:
        list(pool.read([block(1, [GOOD])], block_settings(), "x", small=False))
        maps = Path(f"/proc/{pool._all[0]._process.pid}/maps").read_text()

    assert "tokenizers" in maps
    assert "torch" not in maps


def test_a_message_that_is_cut_off_is_the_end():
    read, write = (os.fdopen(handle, mode) for handle, mode in zip(os.pipe(), ("rb", "wb"), strict=True))
    with read, write:
        send(write, b"one", b"", b" message")
        send(write, b"")
        write.write(b"\x09\x00\x00\x00\x00\x00\x00\x00only")
        write.close()

        assert [receive(read) for _ in range(3)] == [b"one message", b"", None]
