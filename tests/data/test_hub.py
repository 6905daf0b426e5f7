"""Data sets of the hub: what is fetched, said, refused and closed; with the real library and a stand-in of it."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import types
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub.constants
import pytest

from ftkit.data.sources import DataFile, Source, open_files
from ftkit.errors import DataError
from tests.data.hub_stand_in import COMMIT, FILES

ROOT = Path(__file__).resolve().parents[2]
FIX = (
    "  Check the spelling, HF_HUB_OFFLINE (1: only what is cached), FTKIT_OFFLINE, HF_ENDPOINT (a mirror), "
    "HF_TOKEN;\n  or give a file or a folder instead."
)


@pytest.fixture
def library(monkeypatch, tmp_path):
    """A stand-in for `datasets` that records how it is called, and whether the hub was open then."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("FTKIT_OFFLINE", raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    module = types.ModuleType("datasets")
    module.calls, module.splits = [], {"train": ["/cache/name-train.arrow"]}
    module.config = SimpleNamespace(HF_HUB_OFFLINE=False)
    module.exceptions = SimpleNamespace(DatasetsError=type("DatasetsError", (Exception,), {}))

    def load_dataset(path, name=None, *, revision=None):
        closed = (module.config.HF_HUB_OFFLINE, huggingface_hub.constants.HF_HUB_OFFLINE)
        module.calls.append((path, name, revision, closed))
        if isinstance(module.splits, Exception):
            raise module.splits
        return {
            split: SimpleNamespace(cache_files=[{"filename": file} for file in files])
            for split, files in module.splits.items()
        }

    module.load_dataset = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", module)
    info = SimpleNamespace(siblings=[SimpleNamespace(size=3 << 20), SimpleNamespace(size=None)])
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *_, **__: info)
    return module


def refusal(**settings) -> str:
    with pytest.raises(DataError) as caught:
        open_files(Source(**settings))
    return str(caught.value)


def test_a_hub_id_is_loaded_with_what_the_source_says_and_its_size_is_said_first(library, caplog):
    with caplog.at_level(logging.INFO, logger="ftkit"):
        files = open_files(Source(path="owner/name", revision="v1", subset="small"))

    assert library.calls == [("owner/name", "small", "v1", (False, False))]
    assert files == [
        DataFile(path=Path("/cache/name-train.arrow"), name="owner/name/name-train.arrow", kind="arrow", part="train")
    ]
    assert caplog.messages == [
        "fetching the data set owner/name from the hub (at most 3.0 MiB; what is cached is kept)"
    ]


@pytest.mark.parametrize("variable", ["FTKIT_OFFLINE", "HF_HUB_OFFLINE"])
def test_a_closed_hub_is_closed_for_the_library_too_and_open_again_afterwards(library, variable, monkeypatch, caplog):
    monkeypatch.setenv(variable, "1")

    with caplog.at_level(logging.INFO, logger="ftkit"):
        open_files(Source(path="owner/name"))
    assert library.calls == [("owner/name", None, None, (True, True))]
    assert (library.config.HF_HUB_OFFLINE, huggingface_hub.constants.HF_HUB_OFFLINE) == (False, False)
    assert caplog.messages == []


def test_a_library_that_was_closed_stays_closed(library):
    library.config.HF_HUB_OFFLINE = True

    open_files(Source(path="owner/name"))
    assert library.calls[0][3] == (True, False)


def test_of_several_splits_the_named_one_is_taken_else_train(library):
    library.splits = {"test": ["/cache/test.arrow"], "train": ["/cache/1.arrow", "/cache/2.arrow"]}

    assert [file.path.name for file in open_files(Source(path="owner/name"))] == ["1.arrow", "2.arrow"]
    assert [file.path.name for file in open_files(Source(path="owner/name", split="test"))] == ["test.arrow"]
    assert refusal(path="owner/name", split="tset") == "owner/name: has no split 'tset'\n  Did you mean 'test'?"


def test_of_several_splits_without_train_one_must_be_named(library):
    library.splits = {"test": [], "dev": []}

    assert refusal(path="owner/name") == (
        "owner/name: has no split called train, and none was named\n"
        "  Name one of its splits: {path: owner/name, split: ...}. It has: test, dev."
    )


@pytest.mark.parametrize("split", ["train[:10%]", "train+test", ""])
def test_a_part_of_a_split_is_refused_because_its_files_hold_all_of_it(library, split):
    assert refusal(path="owner/name", split=split) == (
        f"owner/name: {split!r} is not the name of a split\n  For a part of one, set max_rows."
    )
    assert library.calls == []


def test_a_commit_that_is_not_what_the_cache_holds_is_refused(library, monkeypatch):
    # Offline, the library gives the newest cached version whatever was asked for, and only warns.
    library.splits = {"train": [f"/cache/owner___name/{COMMIT}/name-train.arrow"]}

    assert open_files(Source(path="owner/name", revision=COMMIT))
    assert refusal(path="owner/name", revision="b" * 40) == (
        f"owner/name: revision {'b' * 40} is not in the cache, and the hub is closed or out of reach\n{FIX}"
    )


@pytest.mark.parametrize("kind", [ValueError, RuntimeError, ConnectionError, FileNotFoundError, "DatasetsError"])
def test_whatever_the_library_finds_wrong_is_a_data_error_in_its_first_line(library, kind):
    kind = library.exceptions.DatasetsError if kind == "DatasetsError" else kind
    library.splits = kind("Config name is missing.\nPlease pick one.")

    assert refusal(path="owner/name") == (
        f"owner/name: no such file or folder, and not to be had from the hub: Config name is missing.\n{FIX}"
    )


def test_rows_that_the_library_keeps_in_memory_alone_are_refused(library):
    library.splits = {"train": []}

    assert refusal(path="owner/name").startswith("owner/name: datasets keeps it in memory only")


# With the real library and a hub on this machine.


def ask(home: Path, *requests: dict | str) -> tuple[list[dict], str]:
    pytest.importorskip("datasets")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "FTKIT_"))}
    environment |= {"HF_HOME": str(home), "PYTHONPATH": str(ROOT), "HF_HUB_DISABLE_TELEMETRY": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.data.hub_stand_in", json.dumps(requests)],
        cwd=home, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


def test_the_real_library_fetches_a_split_once_and_then_works_without_the_hub(tmp_path):
    closed = {"environment": {"FTKIT_OFFLINE": "1"}}
    answers, said = ask(
        tmp_path,
        {"path": "owner/name"},
        {"path": "owner/name", "split": "test"},
        {"path": "owner/name", "revision": COMMIT},
        {"path": "owner/name", "subset": "other"},
        {"path": "owner/name", "revision": "none"},
        {"path": "owner/missing"},
        {"path": "owner/name", **closed},
        {"path": "owner/name", "revision": "b" * 40, **closed},
        {"path": "owner/missing", **closed},
    )
    fetched, test, pinned, other, no_revision, missing, cached, unpinned, never = answers

    train = FILES["train.jsonl"].decode()
    assert (fetched["lines"], fetched["parts"], fetched["names"]) == (
        train, ["train"], ["owner/name/name-train.arrow"],
    )  # fmt: skip
    assert test["lines"] == FILES["test.jsonl"].decode()
    assert pinned["lines"] == cached["lines"] == train
    assert "ftkit: fetching the data set owner/name from the hub (at most 98 B; what is cached is kept)" in said
    nowhere = "no such file or folder, and not to be had from the hub"
    assert other["error"].startswith(f"owner/name: {nowhere}: BuilderConfig 'other' not found.")
    assert no_revision["error"].startswith(f"owner/name: {nowhere}: it has no such revision")
    assert missing["error"].startswith(f"owner/missing: {nowhere}: it has no such data set, or you may not see it")
    assert unpinned["error"].startswith(f"owner/name: revision {'b' * 40} is not in the cache")
    assert never["error"].startswith(f"owner/missing: {nowhere} (closed by HF_HUB_OFFLINE or FTKIT_OFFLINE): ")
    assert [answer["asked"] for answer in (cached, unpinned, never)] == [0, 0, 0]
    assert fetched["asked"] > 0
    assert {answer["exit_code"] for answer in answers if "error" in answer} == {3}


def test_a_hub_that_does_not_answer_is_a_data_error(tmp_path):
    ((answer,), _) = ask(tmp_path, "stop the hub")

    assert answer["error"].startswith("owner/name: no such file or folder, and not to be had from the hub: ")
    assert "Connection refused" in answer["error"]
