"""Verification catches what it is there for: one fault planted at a time."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

import ftkit
from ftkit.errors import VerificationError
from ftkit.export.manifest import list_files
from tests.tiny import tiny_model_folder, tiny_tokenizer, write_rows


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """Adapter and merged export of a short run, and the base folder."""
    folder = tmp_path_factory.mktemp("exports")
    base = tiny_model_folder(folder / "base")
    recipe = ftkit.LoRARecipe(
        model=str(base),
        data={"train": str(write_rows(folder / "rows.jsonl")), "validation": 0.2},
        train={"learning_rate": 1e-2, "epochs": 2.0, "batch_size": 8},
        output=str(folder / "run"),
    )
    ftkit.run(recipe, quiet=True)
    return folder / "run" / "export", base


def _copy(exports, kind: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exports[0] / kind, tmp_path / kind))


def _bless(folder: Path) -> None:
    """Make the manifest agree with the tampered bytes, so that only the behaviour can tell."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "files": list_files(folder)}))


def _failed(folder: Path) -> set[str]:
    outcome = ftkit.verify(folder)
    assert outcome.passed == (not outcome.failures)
    assert json.loads((folder / "verify.json").read_text())["passed"] == outcome.passed
    return {check.name for check in outcome.failures}


@pytest.mark.parametrize("kind", ["adapter", "merged"])
def test_an_untouched_copy_passes(exports, tmp_path, kind):
    assert _failed(_copy(exports, kind, tmp_path)) == set()


def test_one_flipped_byte_fails(exports, tmp_path):
    folder = _copy(exports, "merged", tmp_path)
    raw = bytearray((folder / "model.safetensors").read_bytes())
    raw[-3] ^= 1
    (folder / "model.safetensors").write_bytes(raw)

    assert "files" in _failed(folder)


def test_a_swapped_chat_template_fails_even_with_a_matching_manifest(exports, tmp_path):
    folder = _copy(exports, "merged", tmp_path)
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text().replace("assistant", "model"))
    _bless(folder)

    assert "chat_template" in _failed(folder)


def test_a_missing_chat_template_fails(exports, tmp_path):
    folder = _copy(exports, "adapter", tmp_path)
    (folder / "chat_template.jinja").unlink()
    _bless(folder)

    assert "chat_template" in _failed(folder)


def test_base_weights_in_place_of_merged_ones_fail(exports, tmp_path):
    folder = _copy(exports, "merged", tmp_path)
    shutil.copyfile(exports[1] / "model.safetensors", folder / "model.safetensors")
    _bless(folder)

    assert {"logits_match_trained", "differs_from_base"} <= _failed(folder)


def test_an_adapter_of_zeros_fails(exports, tmp_path):
    folder = _copy(exports, "adapter", tmp_path)
    weights = load_file(folder / "adapter_model.safetensors")
    save_file({name: value * 0 for name, value in weights.items()}, folder / "adapter_model.safetensors")
    _bless(folder)

    assert {"logits_match_trained", "differs_from_base"} <= _failed(folder)


def test_another_scale_of_the_adapter_fails(exports, tmp_path):
    folder = _copy(exports, "adapter", tmp_path)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "lora_alpha": config["lora_alpha"] * 2}))
    _bless(folder)

    assert "logits_match_trained" in _failed(folder)


def test_another_tokenizer_fails(exports, tmp_path):
    folder = _copy(exports, "merged", tmp_path)
    other = tiny_tokenizer(bos=True)
    other.chat_template = (folder / "chat_template.jinja").read_text()
    other.save_pretrained(folder)
    _bless(folder)

    assert "tokenizer" in _failed(folder)


def test_a_lost_stop_token_fails(exports, tmp_path):
    folder = _copy(exports, "merged", tmp_path)
    config = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps({**config, "eos_token_id": 0}))
    _bless(folder)

    assert "chat_template" in _failed(folder)


def test_a_missing_weight_file_does_not_load(exports, tmp_path):
    folder = _copy(exports, "merged", tmp_path)
    (folder / "model.safetensors").unlink()

    assert {"files", "loads"} <= _failed(folder)


def test_a_file_that_was_not_exported_fails(exports, tmp_path):
    folder = _copy(exports, "adapter", tmp_path)
    (folder / "modeling_evil.py").write_text("print('hello')")

    assert _failed(folder) == {"files"}


def test_a_base_with_other_weights_fails_an_adapter(exports, tmp_path):
    folder = _copy(exports, "adapter", tmp_path)
    other = tiny_model_folder(tmp_path / "other", seed=1)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": str(other)}))
    _bless(folder)

    assert {"base", "logits_match_trained"} <= _failed(folder)


def test_a_manifest_that_points_outside_its_folder_is_refused(exports, tmp_path):
    folder = _copy(exports, "adapter", tmp_path)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["../../etc/passwd"] = {"size": 1, "sha256": "0"}
    (folder / "manifest.json").write_text(json.dumps(manifest))

    with pytest.raises(VerificationError, match="points outside"):
        ftkit.verify(folder)


def test_a_folder_without_a_manifest_is_not_an_export(tmp_path):
    with pytest.raises(VerificationError, match=r"no manifest\.json"):
        ftkit.verify(tmp_path)
