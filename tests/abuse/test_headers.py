"""Hostile safetensors: refused from the header, before anything is loaded or made room for."""

from __future__ import annotations

import json
import struct
import time

import pytest
from safetensors.torch import load_file, save_file

from ftkit.errors import ModelError
from ftkit.models.find import find_base
from ftkit.models.shards import Checkpoint
from ftkit.train.checkpoint import is_whole, newest_checkpoint
from tests.abuse.hostile import agree, change_json, entry, header_of
from tests.cli.running import ftkit

FOUR = bytes(4)
TWICE = f'{{"a": {json.dumps(entry())}, "a": {json.dumps(entry())}}}'.encode()
HEADERS = {
    "a length beyond the file": struct.pack("<Q", 1000) + b'{"a": 1}',
    "a length of 2**63": struct.pack("<Q", 2**63) + b"{}",
    "a length below zero": struct.pack("<q", -1) + b"{}",
    "no length": b"123",
    "no JSON": header_of(b"{nonsense"),
    "deep nesting": header_of(b'{"a":' * 50_000),
    "an endless number": header_of(b'{"a":{"shape":[' + b"9" * 5000 + b"]}}", FOUR),
    "overlapping tensors": header_of({"a": entry(0, 8, shape=(2,)), "b": entry(4, 12, shape=(2,))}, bytes(12)),
    "a gap": header_of({"a": entry(), "b": entry(8, 12)}, bytes(12)),
    "an end before its beginning": header_of({"a": entry(4, 0)}, FOUR),
    "offsets beyond the end": header_of({"a": entry(0, 4000, shape=(1000,))}, FOUR),
    "bytes that nobody owns": header_of({"a": entry()}, bytes(64)),
    "a size that overflows 64 bits": header_of({"a": entry(shape=(2**62, 4))}, FOUR),
    "a huge dimension beside a zero": header_of({"a": entry(0, 0, shape=(0, 2**70)), "b": entry()}, FOUR),
    "dimensions below zero": header_of({"a": entry(0, 16, shape=(-2, -2))}, bytes(16)),
    "a hundred thousand dimensions": header_of({"a": entry(shape=(2**62,) * 100_000)}, FOUR),
    "true and false as numbers": header_of({"a": entry(False, 4, shape=(True,))}, FOUR),
    "offsets with fractions": header_of({"a": entry(0.0, 4.0)}, FOUR),
    "three offsets": header_of({"a": {**entry(), "data_offsets": [0, 4, 4]}}, FOUR),
    "an unknown dtype": header_of({"a": entry(dtype="Q4_K")}, FOUR),
    "a dtype that is no text": header_of({"a": entry(dtype=["F32"])}, FOUR),
    "a shape that is text": header_of({"a": entry(shape="1")}, FOUR),
    "one name twice": header_of(TWICE, FOUR),
    "metadata that is a list": header_of({"__metadata__": [1], "a": entry()}, FOUR),
    "metadata of numbers": header_of({"__metadata__": {"format": 1}, "a": entry()}, FOUR),
    "half a character in a name": header_of(b'{"\\ud800":' + json.dumps(entry()).encode() + b"}", FOUR),
}


@pytest.mark.parametrize("raw", HEADERS.values(), ids=HEADERS)
def test_a_base_with_a_hostile_header_is_refused_at_once(raw, base):
    (base / "model.safetensors").write_bytes(raw)
    started = time.process_time()

    with pytest.raises(ModelError, match="damaged"):
        find_base(str(base))
    assert time.process_time() - started < 5


@pytest.mark.parametrize("raw", HEADERS.values(), ids=HEADERS)
def test_a_hostile_shard_is_refused_beside_good_ones(raw, base):
    (base / "model.safetensors").rename(base / "good.safetensors")
    (base / "bad.safetensors").write_bytes(raw)
    index = {"weight_map": {"a": "bad.safetensors", "b": "good.safetensors"}}
    (base / "model.safetensors.index.json").write_text(json.dumps(index))

    with pytest.raises(ModelError, match=r"bad\.safetensors: damaged"):
        find_base(str(base))


@pytest.mark.parametrize("name", ["a length of 2**63", "overlapping tensors", "an unknown dtype", "no JSON"])
def test_an_adapter_with_a_hostile_header_is_refused(name, run):
    (run.adapter / "adapter_model.safetensors").write_bytes(HEADERS[name])
    agree(run.adapter)

    outcome = ftkit("generate", run.adapter, "--prompt", "hi")

    assert outcome.code == 7, outcome.err
    assert "adapter_model.safetensors: damaged" in outcome.err


def test_an_adapter_cut_short_is_refused(run):
    path = run.adapter / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    agree(run.adapter)

    assert ftkit("generate", run.adapter, "--prompt", "hi").code == 7


def test_a_checkpoint_with_a_hostile_header_is_passed_over(run):
    newest = newest_checkpoint(run.folder / "checkpoints")
    assert newest is not None
    (newest / "optimizer.safetensors").write_bytes(HEADERS["a length of 2**63"])

    assert not is_whole(newest)
    assert newest_checkpoint(run.folder / "checkpoints") != newest


def test_the_streamed_reader_reads_what_a_checked_folder_holds_and_no_more(base):
    weights = load_file(base / "model.safetensors")
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    find_base(str(base))

    checkpoint = Checkpoint(base)

    assert {name: tuple(value.shape) for name, value in weights.items()} == checkpoint.shapes


@pytest.mark.parametrize("key", ["num_hidden_layers", "n_layer"])
def test_more_layers_than_tensors_are_refused_before_they_are_built(key, base):
    change_json(base / "config.json", **{key: 10**9})

    with pytest.raises(ModelError, match=f"says {key}: 1000000000, and there are"):
        find_base(str(base))


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation", "experts_implementation"])
def test_kernels_from_the_hub_are_code_of_somebody_elses(key, base):
    change_json(base / "config.json", **{key: "someone/kernels:attend"})

    with pytest.raises(ModelError, match="wants to run code from the hub"):
        find_base(str(base))
