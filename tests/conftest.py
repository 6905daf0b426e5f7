"""Settings of every test: no hub, no network, few threads where several test processes share the machine."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"
if "PYTEST_XDIST_WORKER" in os.environ:
    # Before torch is imported: threads of several processes, each waiting by spinning, hold each other up.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# What tests tokenise is no use to the person whose machine they run on.
os.environ["FTKIT_TOKEN_CACHE"] = tempfile.mkdtemp(prefix="ftkit-test-tokens-")

import pytest

from ftkit.errors import FtkitError
from ftkit.export import process
from ftkit.models.find import find_base
from tests.forking import ForkedRuns


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with tests on the real model come first: begun last, one of them would keep the other process waiting."""
    real = {item.path for item in items if item.get_closest_marker("real")}
    items.sort(key=lambda item: item.path not in real)


def pytest_collection_finish() -> None:
    # The trainer collects garbage after every run; it need not look through all of torch and pytest each time.
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    shutil.rmtree(os.environ["FTKIT_TOKEN_CACHE"], ignore_errors=True)


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
