"""What an index names: looked for on this machine, and never fetched because a file says so."""

from __future__ import annotations

import json

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from ftkit.errors import DataError, ModelError
from ftkit.models import find
from ftkit.rag.document import Document
from ftkit.rag.index import create_index
from ftkit.rag.opening import beside, open_encoders, open_or_create, open_system
from ftkit.rag.settings import AnsweringDefaults, IndexSettings, read_defaults, write_defaults
from tests.rag.encoders import encoder_folder


@pytest.fixture
def folder(tmp_path, tiny_encoder, tiny_llama, pair):
    settings = IndexSettings(
        encoder=str(tiny_encoder), encoder_sha256=pair.sha256, width=16, passage_tokens=32, generator=str(tiny_llama)
    )
    with create_index(tmp_path / "index", settings) as index:
        index.add([Document(id="a", text="Apples are red.")], pair)
    return tmp_path / "index"


def renamed(folder, **changes):
    values = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps(values | changes))


@pytest.mark.parametrize("key", ["encoder", "query_encoder", "generator"])
def test_a_strangers_index_cannot_make_anything_be_fetched(folder, monkeypatch, key):
    asked = []

    def snapshot(name, *, local_files_only, **_):
        asked.append((name, local_files_only))
        raise LocalEntryNotFoundError("not cached")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    monkeypatch.setattr(find, "is_hub_offline", lambda: False)
    renamed(folder, **{key: "some/body"})

    with pytest.raises(ModelError, match=r"some/body: is not on this machine(.|\n)*ftkit models pull some/body"):
        open_system(folder)
    assert asked == [("some/body", True)]


def test_an_encoder_that_stands_where_another_stood_is_refused(folder, tmp_path):
    renamed(folder, encoder=str(encoder_folder(tmp_path / "other", seed=5)))

    with pytest.raises(DataError, match="is another encoder"):
        open_encoders(folder)


def test_what_stands_beside_an_index_is_named_from_there(tmp_path):
    (tmp_path / "run" / "encoders").mkdir(parents=True)
    (tmp_path / "run" / "index").mkdir()

    assert beside(tmp_path / "run" / "index", "../encoders") == str(tmp_path / "run" / "encoders")
    assert beside(tmp_path / "run" / "index", "smollm2-135m") == "smollm2-135m"


def test_an_index_says_how_it_is_asked_unless_somebody_does(folder):
    write_defaults(folder, AnsweringDefaults(mode="lexical", passages=1, max_new_tokens=5))
    usual, other = open_system(folder), open_system(folder, mode="dense", passages=2, max_new_tokens=7)

    assert (usual.mode, usual.passages, usual.max_new_tokens) == ("lexical", 1, 5)
    assert (other.mode, other.passages, other.max_new_tokens) == ("dense", 2, 7)


@pytest.mark.parametrize("text", ["{", "[]", '{"mode": "psychic"}', '{"passages": -1}', '{"speed": 3}'])
def test_damaged_defaults_are_named(folder, text):
    (folder / "defaults.json").write_text(text)

    with pytest.raises(DataError, match=r"defaults\.json: cannot be read"):
        read_defaults(folder)


def test_other_settings_than_an_index_was_made_with_are_refused_by_name(folder):
    with pytest.raises(DataError, match="was made with passage_tokens 32, not 40"):
        open_or_create(folder, passage_tokens=40)
