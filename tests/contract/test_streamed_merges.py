"""Merging module by module into files gives bit for bit what merging in memory gives."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ftkit.export.targets import merged
from ftkit.methods import MergeBase
from ftkit.methods.layerwise import LayerwiseMerge
from ftkit.models.load import load_model
from tests.contract.cases import CPU, MERGING_PAIRS, is_slow, train_steps

# Their layers share projections, read ranks from values, or hold tables: they are merged in memory.
IN_MEMORY = {"adalora", "vera", "oft"}
# A soft prompt is merged into new rows of the vocabulary, in memory; tests/pipeline/test_prompt_merged.py has that.
PAIRS: list[tuple[Any, str, MergeBase]] = [
    (case, family, base)
    for case, family in MERGING_PAIRS
    for base in case.method().merge_bases
    if case.recipe != "prompt"
]


@pytest.mark.parametrize(
    ("case", "family", "base"),
    [
        pytest.param(*found, id="-".join([found[0].id, *found[1:]]), marks=[pytest.mark.slow] * is_slow(*found[:2]))
        for found in PAIRS
    ],
)
def test_every_tensor_and_the_config_equal_those_merged_in_memory(case, family, base, bases, tmp_path, monkeypatch):
    method, model = case.method(), case.attached(bases / family)
    train_steps(model, 2, hooks=method.training_hooks(model, 10))
    streamed = []
    monkeypatch.setattr(merged, "stream", lambda *args, **named: streamed.append(1) or STREAM(*args, **named))
    trained: Any = SimpleNamespace(
        model=model, method=method, base=SimpleNamespace(folder=bases / family), added_tokens={}, prefix_ids=[]
    )
    for folder in ("streamed", "whole"):
        (tmp_path / folder).mkdir()

    merged._write_merge(trained, base, "float32", tmp_path / "streamed")
    whole = method.merge(model, load_model(bases / family, dtype=torch.float32, device=CPU), base=base)
    whole.save_pretrained(tmp_path / "whole")

    assert bool(streamed) == (case.id not in IN_MEMORY)
    ours, theirs = (load_file(tmp_path / folder / "model.safetensors") for folder in ("streamed", "whole"))
    assert ours.keys() == theirs.keys()
    assert [name for name in theirs if not torch.equal(ours[name], theirs[name])] == []
    untouched = load_file(bases / family / "model.safetensors")
    assert [name for name in ours if not torch.equal(ours[name], untouched[name])], "nothing was merged"
    configs = [json.loads((tmp_path / folder / "config.json").read_text()) for folder in ("streamed", "whole")]
    assert configs[0] == configs[1]


STREAM = merged.stream


def test_a_value_that_neither_the_adapter_nor_the_base_has_is_refused_and_never_left_to_chance(bases, tmp_path):
    (case, family) = next(pair for pair in MERGING_PAIRS if pair[0].id == "lora")
    method, model = case.method(), case.attached(bases / family)
    method.save(model, tmp_path)
    weights = load_file(tmp_path / "adapter_model.safetensors")
    merger = LayerwiseMerge(merged._skeleton(bases / family, {}), tmp_path)
    merger._names = {name: file for name, file in merger._names.items() if "lora_B" not in name}

    assert any("lora_B" in name for name in weights)
    with pytest.raises(ValueError, match=r"q_proj.*lora_B.* is neither in the adapter nor in its base"):
        list(merger.merged(["model.layers.0.self_attn.q_proj.weight"], lambda name: torch.zeros(32, 32)))
