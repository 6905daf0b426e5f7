"""Settings of every test: no hub, no network, few threads where several test processes share the machine."""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
if "PYTEST_XDIST_WORKER" in os.environ:
    # Before torch is imported: threads of several processes, each waiting by spinning, hold each other up.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest

from ftkit.cache import cache_folder
from ftkit.errors import FtkitError
from ftkit.export import process
from ftkit.models.find import find_base
from ftkit.models.find_encoder import find_encoder
from tests.forking import ForkedRuns

FETCHED = ("models", "encoders", "wheels")  # the only folders of the person's own cache that tests read and fill


def own_cache() -> Path:
    """A cache for this session: what tests tokenise and hash is no use to the person whose machine they run on."""
    folder = Path(tempfile.mkdtemp(prefix="ftkit-test-cache-"))
    for name in FETCHED:
        fetched = cache_folder().resolve() / name
        with contextlib.suppress(OSError):  # a read-only home: each session fetches anew
            fetched.mkdir(parents=True, exist_ok=True)
            (folder / name).symlink_to(fetched)
    return folder


CACHE = own_cache()
os.environ["FTKIT_CACHE"] = str(CACHE)
os.environ["FTKIT_TOKEN_CACHE"] = str(CACHE / "tokens")  # wherever a test moves the rest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with tests on the real model come first: begun last, one of them would keep the other process waiting."""
    real = {item.path for item in items if item.get_closest_marker("real")}
    items.sort(key=lambda item: item.path not in real)


def pytest_collection_finish() -> None:
    # The trainer collects garbage after every run; it need not look through all of torch and pytest each time.
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    shutil.rmtree(CACHE, ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def forked_runs():
    """Readers of exports begin as forks, except in `own_process` and where a test starts the command."""
    runs = ForkedRuns()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "subprocess", runs)
        yield
    runs.close()


@pytest.fixture
def own_process(monkeypatch):
    """Readers of exports begin as they do outside of tests: by Python anew."""
    monkeypatch.setattr(process, "subprocess", subprocess)


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory):
    """A folder with a tiny random Llama; read-only for tests."""
    from tests.tiny import tiny_model_folder

    return tiny_model_folder(tmp_path_factory.mktemp("tiny") / "llama")


@pytest.fixture(scope="session")
def smollm2():
    """The real model; skipped with the reason where it can neither be found nor fetched."""
    try:
        return find_base("smollm2-135m")
    except FtkitError as error:
        pytest.skip(f"smollm2-135m: {error}")


@pytest.fixture(scope="session")
def minilm():
    """The real text encoder; skipped with the reason where it can neither be found nor fetched."""
    try:
        return find_encoder("all-minilm-l6-v2")
    except FtkitError as error:
        pytest.skip(f"all-minilm-l6-v2: {error}")
