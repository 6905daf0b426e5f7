"""Nothing is asked of any network: the whole line without one, and without a single socket."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.running import write_recipe
from tests.tiny import write_rows

ROOT = Path(__file__).resolve().parents[2]
# Every Python process that is told of this folder writes down what it does with sockets.
WATCH = """
import os, sys
def _watch(event, args):
    if event.startswith("socket."):
        with open(os.environ["SOCKETS"], "a") as out:
            out.write(f"{event} {args[1:]}\\n")
sys.addaudithook(_watch)
with open(os.environ["SOCKETS"] + ".watched", "a") as out:
    out.write(f"{os.getpid()} {' '.join(sys.orig_argv)}\\n")
"""
# All verbs in one process, as starting Python and torch anew costs seconds.
LINE = """
import sys
from ftkit.cli.app import main
for words in (
    "train recipe.yaml export=[adapter] --quiet",
    "verify run/export/adapter --quiet",
    "generate run/export/adapter --prompt hi --max-new-tokens 4",
):
    try:
        main(words.split())
    except SystemExit as ended:
        assert not ended.code, (words, ended.code)
"""


@pytest.fixture
def place(tmp_path, tiny_llama):
    """A folder with a recipe, and an environment in which no variable closes the hub."""
    write_rows(tmp_path / "rows.jsonl", 16)
    write_recipe(tmp_path, tiny_llama)
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "sitecustomize.py").write_text(WATCH)
    open_hub = {key: value for key, value in os.environ.items() if key not in ("HF_HUB_OFFLINE", "FTKIT_OFFLINE")}
    return tmp_path, open_hub | {
        "OMP_NUM_THREADS": "1", "SOCKETS": str(tmp_path / "sockets"),
        "PYTHONPATH": f"{tools}{os.pathsep}{ROOT}", "FTKIT_CACHE": str(tmp_path / "cache"),
        "HF_HOME": str(tmp_path / "hub"),
    }  # fmt: skip


def may_unshare() -> bool:
    try:
        return subprocess.run(["unshare", "-rn", "true"], check=False, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


def test_the_whole_line_works_in_an_empty_network_namespace_and_opens_no_socket(place):
    if not may_unshare():
        pytest.skip("unshare -rn is not permitted here, so no network namespace can be made")
    folder, environment = place
    # Not even a loopback that is up; also for the processes in which exports are loaded, which no hook can watch.
    words = ["unshare", "-rn", sys.executable, "-c", LINE]
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert (folder / "run" / "export" / "adapter" / "verify.json").is_file()
    assert (folder / "sockets.watched").is_file(), "the hook was not installed"
    assert not (folder / "sockets").exists(), (folder / "sockets").read_text()


def test_the_hook_does_see_sockets_of_children(place):
    folder, environment = place
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import socket; socket.socket()'])"
    subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, check=True)

    assert "socket.__new__" in (folder / "sockets").read_text()


def test_training_in_this_very_process_opens_no_socket(place):
    folder, environment = place
    code = (
        "import sys\n"
        "seen = []\n"
        "sys.addaudithook(lambda event, args: seen.append(event) if event.startswith('socket.') else None)\n"
        "from ftkit.cli.app import main\n"
        "try:\n"
        "    main(['train', 'recipe.yaml', 'export=[]', '--quiet'])\n"
        "except SystemExit as ended:\n"
        "    assert not ended.code, ended.code\n"
        "assert not seen, seen\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert not (folder / "sockets").exists(), (folder / "sockets").read_text()
    assert (folder / "run" / "result.json").is_file()
