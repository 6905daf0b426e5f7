"""Checkpoints written tensor by tensor are read by safetensors and transformers as if written at once."""

from __future__ import annotations

import json
import weakref

import pytest
import torch
from safetensors.torch import load_file, save_file

from ftkit.models.load import load_model
from ftkit.models.shards import Checkpoint, Shards
from tests.tiny import tiny_model_folder

TENSORS = [
    ("a", torch.arange(6.0).reshape(2, 3)),
    ("b", torch.tensor(3.5)),
    ("c", torch.arange(4.0) - 1.5),
    ("empty", torch.empty(0, 3)),
]
SHAPES = [(name, tuple(value.shape)) for name, value in TENSORS]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_library_reads_what_was_streamed(dtype, tmp_path):
    Shards.of(SHAPES, dtype).write(tmp_path, TENSORS)

    read = load_file(tmp_path / "model.safetensors")
    assert list(read) == [name for name, _ in TENSORS]
    for name, value in TENSORS:
        assert torch.equal(read[name], value.to(getattr(torch, dtype)))


def test_files_are_filled_up_to_the_limit_and_listed_in_an_index(tmp_path):
    # 24, 4, 16 and 0 bytes in float32: a and b fill 28, c begins the next file, nothing more fits a limit of 30.
    Shards.of(SHAPES, "float32", at_most=30).write(tmp_path, TENSORS)

    first, second = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    assert json.loads((tmp_path / "model.safetensors.index.json").read_text()) == {
        "metadata": {"total_parameters": 11, "total_size": 44},
        "weight_map": {"a": first, "b": first, "c": second, "empty": second},
    }
    assert list(load_file(tmp_path / second)) == ["c", "empty"]


def test_a_tensor_larger_than_the_limit_has_a_file_of_its_own():
    files = Shards.of(SHAPES, "float32", at_most=8).files

    # a has 24 bytes, b 4, c 16; the empty one fits wherever there is room, but behind 16 of 8 there is none.
    assert [[name for name, _ in entries] for _, entries in files] == [["a"], ["b"], ["c"], ["empty"]]


def test_each_tensor_is_let_go_of_before_the_next_is_asked_for(tmp_path):
    written: list[weakref.ref[torch.Tensor]] = []

    def coming():
        for name, value in TENSORS:
            assert [one() for one in written if one() is not None] == []
            copy = value.clone()
            written.append(weakref.ref(copy))
            yield name, copy
            del copy

    Shards.of(SHAPES, "float32").write(tmp_path, coming())
    assert len(written) == len(TENSORS)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (TENSORS[:-1], "nothing .* came where"),
        (TENSORS[1:], r"b \(\) came where a \(2, 3\) was due"),
        ([*TENSORS, ("more", torch.ones(1))], "more has no place"),
        ([("a", torch.ones(3, 2)), *TENSORS[1:]], r"a \(3, 2\) came where a \(2, 3\)"),
        ([("a", torch.full((2, 3), float("nan"))), *TENSORS[1:]], "a has values that are not finite"),
    ],
)
def test_whatever_does_not_fit_the_plan_is_refused(tensors, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        Shards.of(SHAPES, "float32").write(tmp_path, tensors)


def test_values_that_float16_cannot_hold_are_refused_and_not_stored_as_infinite(tmp_path):
    with pytest.raises(ValueError, match="a has values that are not finite"):
        Shards.of([("a", (1,))], "float16").write(tmp_path, [("a", torch.tensor([1e6]))])


def test_tensors_are_read_as_the_library_reads_them(tmp_path):
    stored = {"x": torch.randn(3, 5).bfloat16(), "y": torch.randn(2), "z": torch.randn(1, 1).half()}
    save_file(stored, tmp_path / "model.safetensors")

    checkpoint = Checkpoint(tmp_path)
    assert checkpoint.is_float
    assert checkpoint.shapes == {"x": (3, 5), "y": (2,), "z": (1, 1)}
    for name, value in stored.items():
        assert torch.equal(checkpoint.read(name), value)
    with pytest.raises(KeyError):
        checkpoint.read("nothing")


def test_a_model_streamed_into_several_files_is_the_same_model(tmp_path):
    base = tiny_model_folder(tmp_path / "base")
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "config.json").write_bytes((base / "config.json").read_bytes())
    checkpoint = Checkpoint(base)
    plan = Shards.of(list(checkpoint.shapes.items()), "float32", at_most=20_000)
    plan.write(copy, ((name, checkpoint.read(name)) for name in checkpoint.shapes))

    assert len(plan.files) > 3
    cpu = torch.device("cpu")
    one, other = (load_model(folder, dtype=torch.float32, device=cpu).state_dict() for folder in (base, copy))
    assert all(torch.equal(one[name], other[name]) for name in one)
