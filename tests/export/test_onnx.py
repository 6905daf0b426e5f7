"""The ONNX export: made by the engine's builder, measured in it, refused before training where it would fail."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest

pytest.importorskip("onnxruntime_genai", reason="ONNX exports are made and read by onnxruntime-genai")
pytest.importorskip("onnx_ir", reason="the builder of onnxruntime-genai writes ONNX with onnx and onnx-ir")

from ftkit.errors import MissingPartError, ModelError, RecipeError
from ftkit.export.manifest import read_manifest
from ftkit.export.target import Target
from ftkit.export.targets import TARGETS
from ftkit.export.targets import onnx as onnx_target
from ftkit.export.verify import verify_export
from ftkit.export.write import write_export
from ftkit.models.find import find_base
from ftkit.pipeline.target import open_target
from tests.export.small_exports import change_manifest, tiny_trained
from tests.tiny import tiny_model_folder, tiny_tokenizer

# 32 / 2 = 16, the narrowest that the engine's attention takes; the tiny models' own heads are 8 wide.
WIDE_HEADS = {"num_attention_heads": 2, "num_key_value_heads": 1}


# The others of ARCHITECTURES take as long again.
@pytest.fixture(
    scope="module",
    params=["llama", "qwen2", *(pytest.param(name, marks=pytest.mark.slow) for name in ("mistral", "qwen3"))],
)
def exported(request, tmp_path_factory):
    """A float32 export; its model was trained to end answers at two tokens."""
    folder = tmp_path_factory.mktemp(request.param)
    base = tiny_model_folder(folder / "base", request.param, **WIDE_HEADS)
    trained = replace(tiny_trained(base, tiny_tokenizer()), stop_token_ids=[2, 1])
    write_export(trained, "onnx", "auto", folder / "onnx")
    return folder / "onnx"


def _copy(exported, tmp_path):
    return shutil.copytree(exported, tmp_path / "onnx")


def test_the_engine_computes_what_the_trained_model_does(exported):
    outcome = verify_export(exported)
    checks = {check.name: check for check in outcome.checks}

    assert outcome.failures == []
    assert read_manifest(exported).dtype == "float32"
    # Float rounding of two layers, on logits of up to 10.
    assert checks["logits_match_trained"].value["max_abs_diff"] < 1e-4
    assert checks["greedy_text_match"].value == {"equal": 1, "of": 1}
    # 4 texts and 3 conversations, by the engine's own tokenizer and template.
    assert checks["engine_tokenizer"].value == {"equal": 7, "of": 7}


def test_the_engine_stops_at_every_token_that_ends_a_trained_answer(exported):
    settings = json.loads((exported / "genai_config.json").read_text())

    assert settings["model"]["eos_token_id"] == [2, 1]


def test_a_stop_token_that_the_engine_lost_fails(exported, tmp_path):
    folder = _copy(exported, tmp_path)
    settings = json.loads((folder / "genai_config.json").read_text())
    settings["model"]["eos_token_id"] = 2
    (folder / "genai_config.json").write_text(json.dumps(settings))
    change_manifest(folder)

    failures = {check.name: check.detail for check in verify_export(folder).failures}

    assert list(failures) == ["chat_template"]
    assert "does not stop at [1]" in failures["chat_template"]


def test_damaged_weights_fail(exported, tmp_path):
    folder = _copy(exported, tmp_path)
    raw = (folder / "model.onnx.data").read_bytes()
    (folder / "model.onnx.data").write_bytes(bytes(len(raw) // 2) + raw[len(raw) // 2 :])
    change_manifest(folder)

    assert {check.name for check in verify_export(folder).failures} & {"loads", "logits_match_trained"}


def test_ftkit_says_that_the_engine_runs_it(exported):
    with pytest.raises(MissingPartError, match="an export to onnx, which ONNX Runtime GenAI reads"):
        open_target(str(exported))


@pytest.mark.parametrize(("width", "rounding"), [(32, "default"), (64, "k_quant_mixed")])
def test_four_bits_are_measured_and_recorded(tmp_path, width, rounding):
    base = tiny_model_folder(tmp_path / "base", hidden_size=width, intermediate_size=64, **WIDE_HEADS)
    manifest = write_export(tiny_trained(base, tiny_tokenizer()), "onnx", "int4", tmp_path / "onnx")
    checks = {check.name: check for check in verify_export(tmp_path / "onnx").checks}

    assert (manifest.dtype, manifest.notes["rounding"]) == ("int4", rounding)
    kl_mean = manifest.notes["quality_loss"]["kl_mean"]
    assert 1e-5 < kl_mean < 0.1  # float32 is below 1e-12
    assert kl_mean == pytest.approx(checks["logits_match_trained"].value["kl_mean"], rel=1e-3)
    assert f"{kl_mean:.2g} nats" in (tmp_path / "onnx" / "README.md").read_text()


def test_a_builder_that_fails_is_quoted(tmp_path):
    with pytest.raises(ModelError, match="the builder of onnxruntime-genai failed") as caught:
        onnx_target._build(tmp_path / "nothing", tmp_path / "out", tmp_path / "cache", dtype="float32")

    assert "Error" in str(caught.value)


@pytest.mark.parametrize(
    ("family", "sizes", "reason"),
    [
        ("gpt2", {}, "its architecture is GPT2LMHeadModel"),
        ("llama", {}, "its attention heads are 8 wide"),
        ("llama", WIDE_HEADS, None),
        ("mistral", WIDE_HEADS, None),
        ("gemma2", {"head_dim": 16}, "its architecture is Gemma2ForCausalLM"),
    ],
)
def test_what_the_engine_cannot_run_is_refused_before_training(tmp_path, family, sizes, reason):
    base = find_base(str(tiny_model_folder(tmp_path / "base", family, **sizes)))

    if reason is None:
        TARGETS["onnx"].require_possible("onnx", base, None)
    else:
        with pytest.raises(RecipeError, match=reason):
            TARGETS["onnx"].require_possible("onnx", base, None)


def test_a_sliding_window_is_refused_unless_it_is_switched_off(tmp_path):
    base = find_base(str(tiny_model_folder(tmp_path / "base", "mistral", **WIDE_HEADS)))
    windowed = replace(base, config=base.config | {"sliding_window": 4096})
    switched_off = replace(base, config=windowed.config | {"use_sliding_window": False})

    with pytest.raises(RecipeError, match="sliding window"):
        TARGETS["onnx"].require_possible("onnx", windowed, None)
    TARGETS["onnx"].require_possible("onnx", switched_off, None)


def test_missing_packages_are_named_with_the_command_that_brings_them():
    target = Target(write=TARGETS["onnx"].write, needs=(("no_such_engine",), TARGETS["onnx"].needs[1]))

    with pytest.raises(MissingPartError, match=r"no_such_engine(.|\n)*pip install 'ftkit\[onnx\]'"):
        target.require_parts("onnx")
