"""Every method through the whole line on tiny models: it learns, it is exported, resumed, and refused in time."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BloomConfig, OlmoConfig

import ftkit
from ftkit.errors import Interrupted
from ftkit.export.manifest import list_files
from ftkit.export.verify import Verification
from ftkit.files import sha256_file
from ftkit.pipeline import exporting
from ftkit.recipe import RECIPES
from ftkit.train import objective as objective_module
from ftkit.train.checkpoint import newest_checkpoint
from tests.cli.running import ftkit as command
from tests.tiny import tiny_model_folder, tiny_tokenizer, write_rows

THIN = {"rank": 4, "alpha": 8}
SOFT = {"num_virtual_tokens": 4}
QUESTIONS = ["What colour is thing 3?", "hello there"]


def recipe_of(folder, model, recipe, method, *, export=(), **train):
    values = {
        "recipe": recipe,
        "model": str(model),
        "data": {"train": str(write_rows(folder / "rows.jsonl")), "validation": 0.2},
        "method": method,
        "train": {"learning_rate": 1e-2, "epochs": 2, "batch_size": 4, **train},
        "evaluate": {"max_examples": 1, "max_new_tokens": 2},
        "export": list(export),
        "output": str(folder / "run"),
    }
    return RECIPES[recipe].model_validate(values)


def answers(place):
    """What a run or an export answers, loaded anew."""
    return [answer.text for answer in ftkit.open_target(str(place)).generate(QUESTIONS, max_new_tokens=8)]


@torch.no_grad()
def logits(place):
    """What a run or an export makes of one row of tokens, loaded anew."""
    model = ftkit.open_target(str(place)).model
    return model(input_ids=torch.tensor([[5, 60, 7, 80, 9]]), use_cache=False).logits[0, -5:].float()


def assert_learned(result):
    assert result["losses"]["validation_after"] < result["losses"]["validation_before"]


# Exports

HOUSES = {"prefix": SOFT, "adapter": {"reduction_factor": 4, "architecture": "pfeiffer", "quantization": "nf4"}}


@pytest.fixture(scope="module")
def exported(tmp_path_factory, tiny_llama):
    """A run with its verified adapter export, of a prefix and of bottlenecks on a base in 4 bits; read-only."""
    runs = {}
    for recipe, method in HOUSES.items():
        folder = tmp_path_factory.mktemp(recipe)
        made = recipe_of(folder, tiny_llama, recipe, method, export=["adapter"], epochs=6)
        runs[recipe] = ftkit.run(made, quiet=True)
    return runs


@pytest.fixture
def unverified(monkeypatch):
    """Exports without the fresh process: it takes longer than all the rest, and the test looks for itself."""
    monkeypatch.setattr(exporting, "verify_export", lambda folder: Verification(passed=True, checks=()))


def assert_same_model(run, kind):
    export = run.folder / "export" / kind
    # A base in 4 bits computes in the dtype of whoever loads it.
    tolerance = 0.05 if json.loads((export / "manifest.json").read_text())["quantization"] else 1e-4
    torch.testing.assert_close(logits(run.folder), logits(export), atol=tolerance, rtol=0)
    assert answers(run.folder) == answers(export)


@pytest.mark.parametrize("recipe", HOUSES)
def test_what_is_not_merged_learns_and_is_exported_verified(exported, recipe):
    run = exported[recipe]

    assert_learned(run.result)
    assert [(entry["kind"], entry["passed"]) for entry in run.result["exports"]] == [("adapter", True)]
    assert_same_model(run, "adapter")


@pytest.mark.usefixtures("unverified")
@pytest.mark.parametrize(
    ("recipe", "method", "kind", "rate"),
    [
        ("prefix", {**SOFT, "prefix_projection": True}, "adapter", 1e-2),
        ("adapter", {"reduction_factor": 4}, "adapter", 1e-2),
        ("lora", {**THIN, "init": "pissa"}, "adapter", 1e-2),
        ("lora", {**THIN, "init": "pissa"}, "merged", 1e-2),
        ("lora", {"kind": "adalora", "target_rank": 2, "initial_rank": 4}, "adapter", 5e-2),
        ("lora", {"kind": "adalora", "target_rank": 2, "initial_rank": 4}, "merged", 5e-2),
        ("lora", {**THIN, "use_dora": True}, "merged", 1e-2),
    ],
    ids=["prefix-projection", "houlsby", "pissa", "pissa-merged", "adalora", "adalora-merged", "dora-merged"],
)
def test_the_export_and_the_run_are_one_model(tmp_path, tiny_llama, recipe, method, kind, rate):
    made = recipe_of(tmp_path, tiny_llama, recipe, method, export=[kind], learning_rate=rate, epochs=4)

    run = ftkit.run(made, quiet=True)

    assert_learned(run.result)
    assert_same_model(run, kind)


# Without exports


@pytest.mark.parametrize(
    ("recipe", "method", "rate"),
    [
        ("prefix", {**SOFT, "init": "text", "init_text": "sky"}, 5e-2),
        ("prompt", {**SOFT, "init": "text", "init_text": "sky"}, 5e-2),
        ("lora", {**THIN, "use_dora": True}, 1e-2),
        ("lora", {**THIN, "init": "eva"}, 1e-2),
        ("lora", {**THIN, "loraplus_lr_ratio": 16}, 1e-3),
        ("lora", {"kind": "vera", "rank": 16}, 1e-1),
        ("lora", {"kind": "ia3"}, 1e-1),
    ],
    ids=["prefix-text", "prompt-text", "dora", "eva", "loraplus", "vera", "ia3"],
)
def test_every_other_method_learns_and_is_the_same_model_when_its_run_is_opened(
    tmp_path, tiny_llama, recipe, method, rate
):
    run = ftkit.run(recipe_of(tmp_path, tiny_llama, recipe, method, learning_rate=rate), quiet=True)

    assert_learned(run.result)
    # The probes hold the live model's logits; a run that is opened must give them again.
    probes = json.loads((run.folder / "probes" / "probes.json").read_text())
    live = load_file(run.folder / "probes" / "logits.safetensors")["trained.0"]
    ids = probes["ids"][0]
    with torch.no_grad():
        opened = run.target.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -len(ids) :]
    torch.testing.assert_close(opened[probes["positions"][0]].float(), live, atol=1e-5, rtol=0)


def test_lora_plus_moves_b_faster_and_a_as_before(tmp_path, tiny_llama):
    weights = []
    for ratio in (None, 16):
        folder = tmp_path / str(ratio)
        method = {**THIN, "loraplus_lr_ratio": ratio}
        ftkit.run(recipe_of(folder, tiny_llama, "lora", method, max_steps=1, schedule="constant"), quiet=True)
        weights.append(load_file(newest_checkpoint(folder / "run" / "checkpoints") / "trained.safetensors"))

    plain, fast = weights
    for name, value in plain.items():
        # B starts at zero, and AdamW's first step is the learning rate itself.
        factor = 16 if ".lora_B." in name else 1
        torch.testing.assert_close(fast[name], factor * value, rtol=1e-4, atol=1e-7)


# Interrupted and resumed


def interrupt_in_pass(monkeypatch, number):
    """Press Ctrl-C while the forward pass with that number runs."""
    calls = []
    real = objective_module.summed_loss

    def watched(model, batch):
        calls.append(1)
        if len(calls) == number:
            os.kill(os.getpid(), signal.SIGINT)
        return real(model, batch)

    monkeypatch.setattr(objective_module, "summed_loss", watched)


@pytest.mark.parametrize(
    ("recipe", "method"),
    [
        ("prefix", SOFT),
        ("lora", {**THIN, "init": "eva", "rank_pattern": {"k_proj": 2}, "dropout": 0.1}),
        ("lora", {**THIN, "init": "pissa"}),
        ("lora", {"kind": "adalora", "target_rank": 2, "initial_rank": 4}),
        ("qlora", {**THIN, "init": "loftq", "loraplus_lr_ratio": 4}),
    ],
    ids=["prefix-data", "eva", "pissa", "adalora", "loftq"],
)
def test_interrupted_and_resumed_is_as_if_nothing_had_happened(tmp_path, tiny_llama, monkeypatch, recipe, method):
    straight = recipe_of(tmp_path / "straight", tiny_llama, recipe, method, micro_batch_size=4)
    halted = recipe_of(tmp_path / "halted", tiny_llama, recipe, method, micro_batch_size=4)
    whole = ftkit.run(straight, quiet=True)

    with monkeypatch.context() as patch:
        interrupt_in_pass(patch, 5)
        with pytest.raises(Interrupted):
            ftkit.run(halted, quiet=True)
    assert newest_checkpoint(tmp_path / "halted" / "run" / "checkpoints").name == "step-00000005"
    torch.manual_seed(999)  # a new process has other random states
    resumed = ftkit.resume(tmp_path / "halted" / "run", quiet=True)

    assert whole.result["steps"] == resumed.result["steps"] > 5
    assert resumed.result["losses"] == whole.result["losses"]
    ends = [newest_checkpoint(run.folder / "checkpoints") for run in (whole, resumed)]
    files = [{path.name: sha256_file(path) for path in end.glob("*.safetensors")} for end in ends]
    assert files[0] == files[1]
    assert ("method.safetensors" in files[0]) == (method.get("kind") == "adalora")


# Refused before training


@pytest.fixture(scope="module")
def bases(tmp_path_factory, tiny_llama):
    """Folders of models by family; Olmo is one whose (IA)3 layers PEFT does not know, Bloom hides its branches."""
    folder, tokenizer = tmp_path_factory.mktemp("bases"), tiny_tokenizer()
    found = {"llama": tiny_llama, "gpt2": tiny_model_folder(folder / "gpt2", "gpt2")}
    shared = {"vocab_size": len(tokenizer), "hidden_size": 32, "bos_token_id": None, "eos_token_id": 2}
    olmo = OlmoConfig(**shared, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, pad_token_id=2)
    bloom = BloomConfig(**shared, n_layer=2, n_head=4, pad_token_id=2)
    for name, config in (("olmo", olmo), ("bloom", bloom)):
        AutoModelForCausalLM.from_config(config).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
        found[name] = folder / name
    return found


LAYERS = "q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj"
REFUSED = {
    "prefix text too long": (
        "llama", "prefix", {"num_virtual_tokens": 2, "init": "text", "init_text": "The sky is blue"},
        ["method.init_text: is 5 tokens, method.num_virtual_tokens is 2", "Set num_virtual_tokens to at least 5"],
    ),
    "prompt text too long": (
        "llama", "prompt", {"num_virtual_tokens": 2, "init": "text", "init_text": "The sky is blue"},
        ["method.init_text: is 5 tokens, method.num_virtual_tokens is 2"],
    ),
    "targets": (
        "llama", "lora", {"target_modules": ["q_prj", "o_proj"]},
        ["method.target_modules: 'q_prj' matches no layer", "Did you mean 'q_proj'?", LAYERS],
    ),
    "targets of a relative": (
        "llama", "lora", {"kind": "lokr", "target_modules": ["q_prj"]},
        ["method.target_modules: 'q_prj' matches no layer"],
    ),
    "rank_pattern": (
        "llama", "lora", {"rank_pattern": {"layers.7.mlp.down_proj": 4}},
        ["method.rank_pattern: 'layers.7.mlp.down_proj' matches no layer that this recipe adapts",
         "One of these is model.layers.0.self_attn.q_proj"],
    ),
    "alpha_pattern of a layer that is not a target": (
        "llama", "lora", {"target_modules": ["q_proj"], "alpha_pattern": {"v_proj": 4}},
        ["method.alpha_pattern: 'v_proj' matches no layer that this recipe adapts"],
    ),
    "modules_to_save": (
        "llama", "lora", {"modules_to_save": ["lm_hed"]},
        ["method.modules_to_save: 'lm_hed' is no module of this model", "Did you mean 'lm_head'?"],
    ),
    "modules_to_save that are quantised": (
        "llama", "qlora", {"target_modules": ["q_proj"], "modules_to_save": ["down_proj"]},
        ["method.modules_to_save: 'down_proj' is held in quantised form, which cannot be trained"],
    ),
    "trainable_tokens": (
        "llama", "lora", {"trainable_tokens": ["<tool>", "$"]},
        ["method.trainable_tokens: '<tool>' is not one token of this vocabulary", "model.added_tokens"],
    ),
    "adalora with too few steps": (
        "llama", "lora", {"kind": "adalora", "warmup_share": 0.5, "final_share": 0.4},
        ["method: 10 steps are too few for ranks to fall in: 5 go to the warm-up and 4 to the end"],
    ),
    "ia3 on an unknown architecture": (
        "olmo", "lora", {"kind": "ia3"},
        ["method.target_modules: PEFT does not know which layers of olmo (IA)3 scales", LAYERS],
    ),
    "oft on transposed layers": ("gpt2", "lora", {"kind": "oft"}, ["method: this model cannot take it", "Conv1D"]),
    "loha on transposed layers": ("gpt2", "lora", {"kind": "loha"}, ["method: this model cannot take it", "Conv1D"]),
    "olora on transposed layers": (
        "gpt2", "lora", {"init": "olora"}, ["PEFT's OLoRA takes a transposed weight", "Use init: pissa"],
    ),
    "oft with a block that does not fit": (
        "llama", "lora", {"kind": "oft", "block_size": 24},
        ["method.block_size: 24 does not divide 32, the width of what model.layers.0.self_attn.q_proj receives",
         "Use a divisor of 32."],
    ),
    "an adapter without a unit": (
        "llama", "adapter", {"reduction_factor": 64},
        ["method: reduction_factor 64 is larger than the model's width, 32", "Use at most 32."],
    ),
    "an adapter where there is no place": (
        "bloom", "adapter", {"reduction_factor": 4},
        ["method: BloomBlock adds the residual inside its feed-forward", "Use another method."],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("family", "recipe", "method", "words"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_work_is_refused_before_training(tmp_path, bases, family, recipe, method, words):
    write_rows(tmp_path / "rows.jsonl")
    values = {
        "recipe": recipe, "model": str(bases[family]), "data": {"train": "rows.jsonl", "validation": 0.2},
        "method": method, "train": {"epochs": 2, "batch_size": 4}, "output": str(tmp_path / "run"),
    }  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(json.dumps(values), encoding="utf-8")  # JSON is YAML

    outcome = command("train", tmp_path / "recipe.yaml")

    assert outcome.code == 2, outcome.err
    assert [word for word in words if word not in outcome.err] == []
    assert "Traceback" not in outcome.err
    assert newest_checkpoint(tmp_path / "run" / "checkpoints") is None
    # What is quantised is seen only once the weights are in memory; everything else before the run has a folder.
    assert (tmp_path / "run").exists() == ("is held in quantised form" in outcome.err)


def test_eva_on_less_data_than_its_rank_is_refused_before_training(tmp_path, tiny_llama):
    (tmp_path / "few.jsonl").write_text('{"prompt": "a", "completion": "b"}\n', encoding="utf-8")
    made = recipe_of(tmp_path, tiny_llama, "lora", {"rank": 32, "init": "eva", "target_modules": ["q_proj"]})
    data = made.data.model_validate({"train": str(tmp_path / "few.jsonl"), "validation": None})

    with pytest.raises(ftkit.FtkitError, match="eva cannot find 32 directions, the highest rank: the training data"):
        ftkit.run(made.model_copy(update={"data": data}), quiet=True)

    assert newest_checkpoint(tmp_path / "run" / "checkpoints") is None


# Planted faults


def bless(folder):
    """Make the manifest agree with the tampered bytes, so that only the behaviour can tell."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "files": list_files(folder)}))


def failed(folder):
    return {check.name for check in ftkit.verify(folder).failures}


@pytest.mark.parametrize("recipe", ["prefix", "adapter"])
def test_a_tampered_weight_fails_even_with_a_matching_manifest(exported, tmp_path, recipe):
    folder = Path(shutil.copytree(exported[recipe].folder / "export" / "adapter", tmp_path / "copy"))
    weights = load_file(folder / "adapter_model.safetensors")
    name = sorted(weights)[-1]
    weights[name] = weights[name] + 0.5
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    bless(folder)

    assert "logits_match_trained" in failed(folder)


@pytest.mark.parametrize("recipe", ["prefix", "adapter"])
def test_another_base_fails(exported, tmp_path, recipe):
    folder = Path(shutil.copytree(exported[recipe].folder / "export" / "adapter", tmp_path / "copy"))
    other = tiny_model_folder(tmp_path / "other", seed=1)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": str(other)}))
    bless(folder)

    assert {"base", "logits_match_trained"} <= failed(folder)
    with pytest.raises(ftkit.FtkitError, match="was trained on"):
        ftkit.open_target(str(folder))
