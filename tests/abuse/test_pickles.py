"""Pickles wherever one could be slipped in: none is ever opened, for a payload would then leave its mark."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy
import pytest
import torch

from ftkit.data.store import DamagedStoreError, TokenStore
from ftkit.data.token_cache import tokens_folder
from ftkit.errors import ModelError
from ftkit.methods import load_adapter
from ftkit.models.find import find_base
from ftkit.models.load import load_model
from ftkit.models.tokenizer import load_tokenizer
from ftkit.train.checkpoint import newest_checkpoint
from tests.abuse.hostile import Payload, agree, write_pickle
from tests.cli.running import ftkit, write_recipe
from tests.tiny import write_rows


@pytest.fixture
def mark(tmp_path):
    """Where a payload would leave its mark."""
    path = tmp_path / "mark"
    yield path
    assert not path.exists(), "a pickle was opened"


def test_the_payload_does_leave_its_mark_when_it_is_opened(tmp_path):
    pickle.loads(write_pickle(tmp_path / "x", tmp_path / "there").read_bytes())

    assert (tmp_path / "there").exists()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "model.ckpt", "model.pkl"])
def test_a_base_of_nothing_but_a_pickle_is_refused(name, base, mark):
    (base / "model.safetensors").unlink()
    write_pickle(base / name, mark)

    with pytest.raises(ModelError, match="has only pickled weights"):
        find_base(str(base))


def test_a_pickle_beside_safetensors_is_left_alone(base, mark):
    for name in ("pytorch_model.bin", "adapter_model.bin", "training_args.bin", "vocab.pkl"):
        write_pickle(base / name, mark)

    find_base(str(base))
    load_model(base, dtype=torch.float32, device=torch.device("cpu"))
    load_tokenizer(base)


def test_an_index_cannot_name_a_pickle_as_a_shard(base, mark):
    (base / "model.safetensors").unlink()
    write_pickle(base / "pytorch_model.bin", mark)
    index = {"weight_map": {"x": "pytorch_model.bin"}}
    (base / "model.safetensors.index.json").write_text(json.dumps(index))

    with pytest.raises(ModelError, match=r"Shards are \.safetensors files"):
        find_base(str(base))


def test_a_pickle_under_the_name_of_safetensors_is_damaged(base, mark):
    write_pickle(base / "model.safetensors", mark)

    with pytest.raises(ModelError, match="damaged"):
        find_base(str(base))


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_a_pickle_in_the_place_of_a_tokenizer_is_refused(name, base, mark):
    write_pickle(base / name, mark)

    with pytest.raises(ModelError, match="tokenizer"):
        load_tokenizer(base)


def test_an_adapter_of_nothing_but_a_pickle_is_refused(run, tiny_llama, mark):
    (run.adapter / "adapter_model.safetensors").unlink()
    torch.save({"x": Payload(mark)}, run.adapter / "adapter_model.bin")
    agree(run.adapter)

    outcome = ftkit("generate", run.adapter, "--prompt", "hi")
    verified = ftkit("verify", run.adapter, "--json")
    with pytest.raises(ModelError, match="has only pickled weights"):
        load_adapter(load_model(tiny_llama, dtype=torch.float32, device=torch.device("cpu")), run.adapter)

    assert outcome.code == 7, outcome.err
    assert "has only pickled weights (adapter_model.bin)" in outcome.err
    assert verified.code == 5
    assert "has only pickled weights" in verified.out


def test_a_pickle_for_an_adapter_slipped_into_a_merged_export_is_refused(run, mark):
    write_pickle(run.merged / "adapter_model.bin", mark)
    shutil.copy(run.adapter / "adapter_config.json", run.merged)
    agree(run.merged)

    outcome = ftkit("verify", run.merged, "--json")

    assert outcome.code == 5
    assert "is an adapter, not a base model" in outcome.out
    assert ftkit("generate", run.merged, "--prompt", "hi").code == 7


@pytest.mark.parametrize("name", ["optimizer.safetensors", "trained.safetensors", "state.json", "checkpoint.json"])
def test_a_checkpoint_with_a_pickle_in_it_is_passed_over(name, run, mark):
    for checkpoint in (run.folder / "checkpoints").iterdir():
        write_pickle(checkpoint / name, mark)

    assert newest_checkpoint(run.folder / "checkpoints") is None


def test_pickles_that_a_trainer_would_look_for_are_not_opened_by_resume(run, mark):
    (run.folder / "result.json").unlink()
    shutil.rmtree(run.folder / "export")
    for checkpoint in (run.folder / "checkpoints").iterdir():
        for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin", "pytorch_model.bin"):
            write_pickle(checkpoint / name, mark)
    recipe = run.folder / "recipe.yaml"
    assert recipe.is_file()

    outcome = ftkit("resume", run.folder, "--quiet")

    assert outcome.code == 0, outcome.err


@pytest.mark.parametrize("name", ["logits.safetensors", "probes.json"])
def test_a_pickle_in_the_place_of_the_probes_fails_the_verification(name, run, mark):
    write_pickle(run.adapter / "verification" / name, mark)
    agree(run.adapter)

    assert ftkit("verify", run.adapter, "--json").code == 5


@pytest.mark.parametrize("name", ["rows.bin", "ids.bin", "store.json", "findings.jsonl"])
def test_a_pickle_in_the_token_cache_is_damage(name, tmp_path, tiny_llama, monkeypatch, mark):
    monkeypatch.setenv("FTKIT_TOKEN_CACHE", str(tmp_path / "tokens"))
    write_rows(tmp_path / "rows.jsonl", 8)
    recipe = write_recipe(tmp_path, tiny_llama)
    assert ftkit("check", recipe).code == 0
    (entry,) = [path for path in tokens_folder().iterdir() if path.is_dir()]
    numpy.save(entry / "whole.npy", numpy.array([Payload(mark)]), allow_pickle=True)
    (entry / "whole.npy").replace(entry / name)

    with pytest.raises(DamagedStoreError):
        TokenStore(entry)
    assert ftkit("check", recipe).code == 0  # it is made again


@pytest.mark.parametrize("suffix", [".pkl", ".pickle", ".pt", ".bin", ".npy", ".npz", ".joblib"])
def test_a_pickle_as_data_is_of_no_kind_that_is_read(suffix, tmp_path, tiny_llama, mark):
    write_pickle(tmp_path / f"rows{suffix}", mark)

    outcome = ftkit("check", write_recipe(tmp_path, tiny_llama, data=f"rows{suffix}"))

    assert outcome.code == 3
    assert "unknown kind of file" in outcome.err


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet", ".arrow", ".jsonl.gz"])
def test_a_pickle_under_the_name_of_data_is_bad_data(suffix, tmp_path, tiny_llama, mark):
    write_pickle(tmp_path / f"rows{suffix}", mark)

    outcome = ftkit("check", write_recipe(tmp_path, tiny_llama, data=f"rows{suffix}"))

    assert outcome.code == 3, outcome.err
    assert Path(tmp_path / f"rows{suffix}").name in outcome.err
