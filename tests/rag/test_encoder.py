"""Text encoders: what is loaded, what is refused, and that nothing is cut in silence."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ftkit.errors import DataError, ModelError
from ftkit.models.find_encoder import find_encoder
from ftkit.rag.encoder import EncoderPair, load_encoder
from tests.rag.encoders import encoder_folder


@pytest.fixture
def own(tmp_path):
    return encoder_folder(tmp_path / "own")


def modules(folder, change):
    path = folder / "modules.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


@pytest.mark.real
def test_vectors_are_those_of_sentence_transformers(minilm):
    from sentence_transformers import SentenceTransformer

    texts = ["Where is the mill?", "The mill stands in Arnow, beside the river.", "x " * 200]
    theirs = SentenceTransformer(str(minilm.folder), device="cpu").encode(texts)
    encoder = load_encoder("all-minilm-l6-v2")

    assert np.abs(encoder.vectors(texts, "query") - theirs).max() < 1e-5
    assert (encoder.width, encoder.max_tokens, encoder.similarity) == (384, 256, "cosine")


@pytest.mark.real
def test_the_real_encoder_finds_what_means_the_same(minilm):
    encoder = load_encoder("all-minilm-l6-v2")
    documents = encoder.vectors(["The cat sleeps on the sofa.", "Shares fell sharply on Monday."], "document")
    queries = encoder.vectors(["Where is the pet resting?", "What did the stock market do?"], "query")

    assert (queries @ documents.T).argmax(axis=1).tolist() == [0, 1]


def test_vectors_have_unit_length_and_do_not_depend_on_their_company(pair):
    texts = ["short", "a much longer text about mills and rivers", "mid size text"]
    together = pair.query.vectors(texts, "query")

    assert np.linalg.norm(together, axis=1) == pytest.approx([1, 1, 1], abs=1e-6)
    for text, vector in zip(texts, together, strict=True):
        assert pair.query.vectors([text], "query")[0] == pytest.approx(vector, abs=1e-5)


def test_a_text_longer_than_the_encoder_reads_is_refused_and_not_cut(pair):
    text = "w" * 62
    assert pair.query.count(text) == 64
    pair.query.vectors([text], "document")
    with pytest.raises(DataError, match="a document of 65 tokens; tiny reads 64"):
        pair.query.vectors([text + "w"], "document")


def test_what_the_encoder_wants_in_front_of_a_query_is_put_there(own):
    plain = load_encoder(str(own))
    settings = {"prompts": {"query": "ask: ", "document": ""}, "similarity_fn_name": "cosine"}
    (own / "config_sentence_transformers.json").write_text(json.dumps(settings))
    prompted = load_encoder(str(own))

    asked = prompted.vectors(["mill"], "query")
    assert np.array_equal(asked, plain.vectors(["ask: mill"], "query"))
    assert not np.array_equal(asked, prompted.vectors(["mill"], "document"))
    assert prompted.found.sha256 != plain.found.sha256


def test_the_digest_follows_weights_and_tokenizer_and_not_the_card(own):
    first = find_encoder(str(own)).sha256
    (own / "README.md").write_text("words")
    assert find_encoder(str(own)).sha256 == first
    tensors = load_file(own / "model.safetensors")
    name = next(iter(tensors))
    tensors[name] = tensors[name] + 1e-3
    save_file(tensors, own / "model.safetensors", metadata={"format": "pt"})
    assert find_encoder(str(own)).sha256 != first


def test_a_weight_that_is_in_no_file_is_not_filled_with_random_numbers(own):
    tensors = load_file(own / "model.safetensors")
    del tensors["encoder.layer.0.attention.self.query.weight"]
    save_file(tensors, own / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(ModelError, match="1 weights that decide its numbers are in none of its files"):
        load_encoder(str(own))


def test_a_part_that_could_be_anybodys_code_is_refused(own):
    modules(own, lambda values: values.append({"idx": 3, "name": "3", "path": "x", "type": "os.system"}))
    with pytest.raises(ModelError, match=r"entry 3 asks for os\.system"):
        find_encoder(str(own))


def test_a_part_that_stands_outside_of_the_folder_is_refused(own):
    modules(own, lambda values: values[1].update(path="../elsewhere"))
    with pytest.raises(ModelError, match="points outside its folder"):
        find_encoder(str(own))


def test_pickled_weights_are_refused(own):
    (own / "model.safetensors").rename(own / "pytorch_model.bin")
    with pytest.raises(ModelError, match="pickle"):
        find_encoder(str(own))


def test_a_saved_copy_gives_the_same_vectors_and_the_same_bytes_each_time(pair, tmp_path):
    twin = pair.query.trainable_copy()
    for name in ("a", "b"):
        twin.save(tmp_path / name)
    again = load_encoder(str(tmp_path / "a"))

    texts = ["the mill", "the river"]
    assert np.array_equal(again.vectors(texts, "query"), pair.query.vectors(texts, "query"))
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert [(tmp_path / "a" / f).read_bytes() for f in files] == [(tmp_path / "b" / f).read_bytes() for f in files]


def test_a_copy_to_train_shares_nothing_and_has_no_weight_without_effect(pair):
    twin = pair.query.trainable_copy()
    learning = [name for name, value in twin.module.named_parameters() if value.requires_grad]

    assert learning and not any("pooler" in name for name in learning)
    with torch.no_grad():
        next(twin.module.parameters()).add_(1)
    assert not np.array_equal(twin.vectors(["mill"], "query"), pair.query.vectors(["mill"], "query"))


def test_two_encoders_of_different_widths_are_no_pair(pair, tmp_path):
    with pytest.raises(ModelError, match="gives 16 numbers a text and the document encoder 32"):
        EncoderPair(pair.query, load_encoder(str(encoder_folder(tmp_path / "wide", width=32))))
