"""The processes in which exports are read: alone, and in tests the same as forks of one that has torch imported."""

from __future__ import annotations

import json
import os
import subprocess
from types import SimpleNamespace

import pytest

from ftkit.errors import ModelError
from ftkit.export import process
from ftkit.export.process import PROCESS, read_alone, run_alone
from ftkit.export.verify import verify_export
from tests.export.small_exports import MERGED, write_exports
from tests.tiny import tiny_tokenizer

SEES = """
import json, os, sys, threading
print(json.dumps({
    "argv": sys.argv, "path": sys.path, "folder": os.getcwd(), "name": __name__, "threads": threading.active_count(),
    "environment": {key: os.environ.get(key) for key in ("PATH", "HOME", "FTKIT_SEEN")},
    "ours": [name for name in sys.modules if name.split(".")[0] in ("ftkit", "tests", "pytest")],
    "input": sys.stdin.read(),
}))
print("a word", file=sys.stderr)
"""
ENDINGS = {
    "returns": "", "exits": "raise SystemExit(3)", "exits with words": "raise SystemExit('why')",
    "is killed": "import os; os.kill(os.getpid(), 9)",
}  # fmt: skip


@pytest.fixture(params=["as the product does", "forked"])
def ways(request):
    """Both ways of running a script, the second only in tests."""
    if request.param == "as the product does":
        request.getfixturevalue("own_process")
    return request.param


def script(folder, text):
    path = folder / "script.py"
    path.write_text(text)
    return path


def both(words, timeout_s=60.0):
    """What a script does as the product runs it, and forked."""
    done = {}
    for name, runs in (("fresh", subprocess), ("forked", process.subprocess)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(process, "subprocess", runs)
            done[name] = run_alone(words, timeout_s)
    assert process.subprocess is not subprocess
    return SimpleNamespace(**done)


def test_a_fork_sees_what_a_process_of_its_own_sees(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FTKIT_SEEN", "yes")

    done = both([script(tmp_path, SEES), "one", tmp_path])

    fresh, forked = (json.loads(one.stdout) for one in (done.fresh, done.forked))
    assert forked == fresh
    assert fresh["ours"] == []
    assert fresh["environment"]["FTKIT_SEEN"] == "yes"
    assert done.forked.stderr == done.fresh.stderr == "a word\n"


@pytest.mark.parametrize("end", ENDINGS.values(), ids=ENDINGS)
def test_a_fork_ends_as_a_process_of_its_own_ends(tmp_path, end):
    done = both([script(tmp_path, f"print('begun')\n{end}\n")])

    for stream in ("returncode", "stdout", "stderr"):
        assert getattr(done.forked, stream) == getattr(done.fresh, stream)


def test_a_script_that_does_not_end_is_ended(tmp_path, ways):
    endless = script(tmp_path, "import os, time\nopen('pid', 'w').write(str(os.getpid()))\ntime.sleep(60)\n")

    with pytest.MonkeyPatch.context() as patch, pytest.raises(subprocess.TimeoutExpired):
        patch.chdir(tmp_path)
        run_alone([endless], 1.0)

    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_reader_that_fails_is_told_by_its_last_line(tmp_path, ways):
    failing = script(tmp_path, "raise ValueError('why')")

    with pytest.raises(ModelError, match=r"^ValueError: why$"), read_alone({}, failing):
        pass


def test_the_reader_has_no_network(tmp_path, ways):
    words = (
        f"import runpy; runpy.run_path({str(PROCESS)!r}); import socket; socket.create_connection(('127.0.0.1', 9))"
    )

    done = run_alone([script(tmp_path, words)], 60.0)

    assert done.returncode == 1
    assert "PermissionError: verification needs no network, but socket." in done.stderr


def test_an_export_is_verified_by_a_process_of_its_own(tmp_path, tiny_llama, own_process):
    folder = write_exports(tmp_path, tiny_llama, tiny_tokenizer(), exports=MERGED) / "merged"

    assert verify_export(folder).passed
