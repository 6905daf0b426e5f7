"""A folder whose weights cannot be loaded safely and completely is refused from its headers alone."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ftkit.errors import ModelError
from ftkit.models.load import load_model
from ftkit.models.weights import check_model_folder, checkpoint_dtype, tensor_dtypes, weight_files

INDEX = "model.safetensors.index.json"


def write_header(folder: Path, header: bytes | object, data: bytes = b"") -> None:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(raw)) + raw + data)


def tensor(begin: int, end: int, *, dtype: str = "F32", shape: list | None = None) -> dict:
    return {"dtype": dtype, "shape": [(end - begin) // 4] if shape is None else shape, "data_offsets": [begin, end]}


def change_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def shard(folder: Path) -> list[str]:
    """Split the one weights file of a folder in two, with an index."""
    whole = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    halves = {"a.safetensors": sorted(whole)[::2], "b.safetensors": sorted(whole)[1::2]}
    for name, keys in halves.items():
        save_file({key: whole[key] for key in keys}, folder / name, metadata={"format": "pt"})
    weight_map = {key: name for name, keys in halves.items() for key in keys}
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return list(halves)


def load(folder: Path):
    return load_model(folder, dtype=torch.float32, device=torch.device("cpu"))


def test_a_complete_folder_passes_and_gives_its_config(tiny_llama):
    assert check_model_folder(tiny_llama)["model_type"] == "llama"


def test_the_dtype_of_a_checkpoint_is_that_of_most_parameters(spoilt):
    write_header(spoilt, {"a": tensor(0, 4), "b": tensor(4, 12, dtype="BF16", shape=[2, 2])}, bytes(12))

    assert tensor_dtypes(spoilt) == {"F32": 1, "BF16": 4}
    assert checkpoint_dtype(spoilt) == "bfloat16"


def test_shards_named_by_an_index_pass(spoilt):
    names = shard(spoilt)

    check_model_folder(spoilt)
    assert [path.name for path in weight_files(spoilt)] == names


def test_the_file_that_transformers_would_load_is_the_one_that_is_checked(spoilt):
    # With both an index and a single file transformers takes the single file.
    shutil.copy(spoilt / "model.safetensors", spoilt / "good.safetensors")
    (spoilt / INDEX).write_text(json.dumps({"weight_map": {"x": "good.safetensors"}}))
    (spoilt / "model.safetensors").write_bytes(b"spoilt")

    with pytest.raises(ModelError, match=r"model\.safetensors: damaged"):
        check_model_folder(spoilt)


# Folders


def test_a_folder_without_weights_is_refused(spoilt):
    (spoilt / "model.safetensors").unlink()

    with pytest.raises(ModelError, match=r"has no weights \(model.safetensors\)"):
        check_model_folder(spoilt)


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "consolidated.00.pth", "model.pt", "model.ckpt", "weights.pkl"]
)
def test_a_folder_with_nothing_but_pickles_is_refused_and_told_why(spoilt, name):
    (spoilt / "model.safetensors").rename(spoilt / name)

    with pytest.raises(ModelError, match=f"has only pickled weights \\({name}\\), which can run code"):
        check_model_folder(spoilt)


def test_a_folder_without_a_config_is_not_a_model(spoilt):
    (spoilt / "config.json").unlink()

    with pytest.raises(ModelError, match=r"has no config\.json, so it is not a model"):
        check_model_folder(spoilt)


@pytest.mark.parametrize(("text", "fault"), [("{", "is not readable JSON"), ("[1]", "is not a JSON object"),
                                             ("[" * 100_000, "is not readable JSON")])  # fmt: skip
def test_a_config_that_cannot_be_read_is_refused(spoilt, text, fault):
    (spoilt / "config.json").write_text(text)

    with pytest.raises(ModelError, match=fault):
        check_model_folder(spoilt)


def test_a_model_that_wants_to_run_its_own_code_is_refused(spoilt):
    change_config(spoilt, auto_map={"AutoModelForCausalLM": "modeling.Model"})

    with pytest.raises(ModelError, match=r"wants to run its own code \(auto_map in config.json\)"):
        check_model_folder(spoilt)


@pytest.mark.parametrize("with_config", [False, True])
def test_an_adapter_named_as_the_base_is_told_apart(spoilt, with_config):
    # Beside a config.json transformers would load the base that the adapter names instead of the checked weights.
    (spoilt / "adapter_config.json").write_text('{"base_model_name_or_path": "org/other", "peft_type": "LORA"}')
    if not with_config:
        (spoilt / "config.json").unlink()

    with pytest.raises(ModelError, match="is an adapter, not a base model"):
        check_model_folder(spoilt)


# Files


def test_a_file_cut_short_is_refused_with_what_it_has_and_what_it_should(spoilt):
    path = spoilt / "model.safetensors"
    whole = path.read_bytes()
    header_bytes = 8 + struct.unpack("<Q", whole[:8])[0]
    path.write_bytes(whole[:-100])

    with pytest.raises(ModelError) as caught:
        check_model_folder(spoilt)

    promised = len(whole) - header_bytes
    assert f"{promised - 100} bytes of weights, the header promises {promised}" in str(caught.value)


def test_bytes_after_the_last_tensor_are_refused(spoilt):
    with (spoilt / "model.safetensors").open("ab") as stream:
        stream.write(b"x")

    with pytest.raises(ModelError, match="damaged or truncated"):
        check_model_folder(spoilt)


@pytest.mark.parametrize(
    ("header", "data"),
    [
        (b"{" + b"x" * 40, b""),
        (b"\xff\xfe", b""),
        (b"[" * 100_000, b""),
        ("text", b""),
        ([1], b""),
        ({}, b""),
        ({"__metadata__": {"format": "pt"}}, b""),
        ({"a": 1}, b""),
        ({"a": {"dtype": "F32", "shape": [1]}}, bytes(4)),
        ({"a": tensor(0, 4, shape=["1"])}, bytes(4)),
        ({"a": tensor(0, 4, shape=[2])}, bytes(4)),
        ({"a": tensor(0, 4, dtype="F16", shape=[1])}, bytes(4)),
        ({"a": tensor(-4, 0)}, b""),
        ({"a": tensor(4, 8)}, bytes(8)),
        ({"a": tensor(0, 4), "b": tensor(8, 12)}, bytes(12)),
        ({"a": tensor(0, 4), "b": tensor(0, 4)}, bytes(4)),
        ({"a": tensor(0, 8), "b": tensor(4, 8)}, bytes(8)),
    ],
    ids=["not JSON", "not UTF-8", "nested", "text", "list", "empty", "only metadata", "number for a tensor",
         "no offsets", "shape of text", "too large a shape", "wrong dtype", "negative", "gap at the start", "gap",
         "twice the same bytes", "overlap"],
)  # fmt: skip
def test_a_corrupt_header_is_refused(spoilt, header, data):
    write_header(spoilt, header, data)

    with pytest.raises(ModelError, match=r"model\.safetensors: damaged"):
        check_model_folder(spoilt)


@pytest.mark.parametrize("raw", [b"", b"1234567", struct.pack("<Q", 2**63), struct.pack("<Q", 100_000_001) + b"{}"])
def test_a_header_with_a_giant_or_no_length_is_refused_without_reading_it(spoilt, raw):
    (spoilt / "model.safetensors").write_bytes(raw)

    with pytest.raises(ModelError, match=r"model\.safetensors: damaged"):
        check_model_folder(spoilt)


def test_every_damaged_shard_is_named_in_one_pass(spoilt):
    for name in shard(spoilt):
        (spoilt / name).write_bytes(b"short")

    with pytest.raises(ModelError) as caught:
        check_model_folder(spoilt)

    assert [problem.where for problem in caught.value.problems] == [
        f"{spoilt}/a.safetensors",
        f"{spoilt}/b.safetensors",
    ]


# Indices


def test_a_missing_shard_is_named(spoilt):
    shard(spoilt)
    (spoilt / "b.safetensors").unlink()

    with pytest.raises(ModelError, match=r"shards are missing: b\.safetensors\n"):
        check_model_folder(spoilt)


@pytest.mark.parametrize("name", ["../outside.safetensors", "sub/../../outside.safetensors", "{outside}", ""])
def test_an_index_cannot_name_files_outside_its_folder(spoilt, name):
    outside = spoilt.parent / "outside.safetensors"
    (spoilt / "model.safetensors").rename(outside)
    (spoilt / "sub").mkdir()
    (spoilt / INDEX).write_text(json.dumps({"weight_map": {"x": name.format(outside=outside)}}))

    with pytest.raises(ModelError, match="shards are missing"):
        check_model_folder(spoilt)


@pytest.mark.parametrize(
    "text",
    ["{", "[]", "{}"]
    + [f'{{"weight_map": {inner}}}' for inner in ("{}", "[]", '{"x": 1}', '{"x": ["a"]}', '{"x": 1, "y": "a"}')],
)
def test_an_index_that_makes_no_sense_is_refused(spoilt, text):
    (spoilt / "model.safetensors").unlink()
    (spoilt / INDEX).write_text(text)

    with pytest.raises(ModelError, match="is not a readable index of shards"):
        check_model_folder(spoilt)


# Loading


def test_a_checkpoint_loads_bit_for_bit_ready_to_generate(tiny_llama):
    model = load(tiny_llama)

    stored = load_file(tiny_llama / "model.safetensors")
    assert all(torch.equal(model.state_dict()[name], weight) for name, weight in stored.items())
    assert not model.training
    assert model.config.use_cache


def test_a_missing_tensor_is_refused_and_never_drawn_at_random(spoilt):
    weights = load_file(spoilt / "model.safetensors")
    del weights["model.layers.1.mlp.down_proj.weight"]
    save_file(weights, spoilt / "model.safetensors", metadata={"format": "pt"})
    check_model_folder(spoilt)

    with pytest.raises(ModelError, match=r"1 weights are missing .*model\.layers\.1\.mlp\.down_proj\.weight"):
        load(spoilt)


def test_a_tensor_of_the_wrong_shape_is_refused(spoilt):
    weights = load_file(spoilt / "model.safetensors")
    weights["model.norm.weight"] = torch.ones(31)
    save_file(weights, spoilt / "model.safetensors", metadata={"format": "pt"})
    check_model_folder(spoilt)

    with pytest.raises(ModelError):
        load(spoilt)


@pytest.mark.parametrize(
    "changes",
    [
        {"num_hidden_layers": 3},
        {"vocab_size": 10},
        {"model_type": "no-such-model"},
        {"hidden_size": "wide"},
        {"hidden_size": -1},
        {"num_attention_heads": 0},
        {"rope_parameters": "x"},
    ],
    ids=str,
)
def test_a_config_that_does_not_fit_the_weights_is_a_model_error(spoilt, changes):
    change_config(spoilt, **changes)
    check_model_folder(spoilt)

    with pytest.raises(ModelError):
        load(spoilt)
