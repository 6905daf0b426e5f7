"""A base whose vocabulary lacks the chat template's tokens: they are added, trained, exported, and stop answers."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from peft import AutoPeftModelForCausalLM
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import ftkit
from ftkit.errors import Interrupted, OutputError
from ftkit.export.manifest import list_files
from ftkit.export.verify import Verification
from ftkit.files import sha256_file
from ftkit.models.chat_template import split_defaults
from ftkit.pipeline import exporting
from ftkit.pipeline.session import open_session
from ftkit.recipe import RECIPES
from ftkit.train import objective as objective_module
from ftkit.train.checkpoint import newest_checkpoint
from tests.cli.running import ftkit as command
from tests.models.bare import bare_tokenizer
from tests.tiny import tiny_model_folder

KNOWN, START, END = 300, 300, 301  # tokens of the base; the ids that <|im_start|> and <|im_end|> get
THINKING = (
    "{% if enable_thinking %}{{ '[think]' }}{% endif %}"
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
METHODS = {
    "lora": {"rank": 8, "alpha": 16},
    "qlora": {"rank": 8, "alpha": 16, "quantization": "nf4"},
    "full": {},
}


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """Models of 300 tokens without chat template: Llama's head is tied to its embedding, Qwen2's is not."""
    folder = tmp_path_factory.mktemp("bare")
    return {
        family: tiny_model_folder(folder / family, family, tokenizer=bare_tokenizer())
        for family in ("llama", "qwen2")
    }


def write_ok(path, count=24):
    """Questions that all have one short answer, so that a tiny model learns where it ends."""
    rows = [
        {"messages": [{"role": "user", "content": f"thing {n}?"}, {"role": "assistant", "content": "x"}]}
        for n in range(count)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def recipe_of(folder, base, recipe="lora", method=None, *, model=None, export=(), **train):
    values = {
        "recipe": recipe,
        "model": {"path": str(base), "chat_template": "chatml", **(model or {})},
        "data": {"train": str(write_ok(folder / "rows.jsonl")), "validation": 0.2},
        "method": METHODS[recipe] if method is None else method,
        "train": {"learning_rate": 1e-2, "epochs": 2, "batch_size": 4, **train},
        "evaluate": {"max_examples": 1, "max_new_tokens": 2},
        "export": list(export),
        "output": str(folder / "run"),
    }
    return RECIPES[recipe].model_validate(values)


def tables(model):
    return {
        "embedding": model.get_input_embeddings().weight.detach(),
        "head": model.get_output_embeddings().weight.detach(),
    }


# Every way to train them, on a tied and on an untied head

# Verified in a fresh process are as many as it takes to meet each method, each family and each kind of export.
VERIFIED = {("llama", "lora"), ("qwen2", "qlora"), ("qwen2", "full")}


@pytest.fixture(scope="module")
def runs(tmp_path_factory, bases):
    """Finished runs by family and recipe, with all exports of the recipe; read-only for tests."""
    finished = {}
    for family in bases:
        for recipe in METHODS:
            folder = tmp_path_factory.mktemp(f"{family}-{recipe}")
            kinds = ["merged"] if recipe == "full" else ["adapter", "merged"]
            made = recipe_of(folder, bases[family], recipe, export=kinds, learning_rate=2e-2, epochs=8)
            with pytest.MonkeyPatch.context() as patch:
                if (family, recipe) not in VERIFIED:
                    patch.setattr(exporting, "verify_export", lambda folder: Verification(passed=True, checks=()))
                finished[family, recipe] = ftkit.run(made, quiet=True)
    return finished


every_run = pytest.mark.parametrize(
    ("family", "recipe"), [(family, recipe) for family in ("llama", "qwen2") for recipe in METHODS]
)


@every_run
def test_the_exports_behave_like_the_trained_model(runs, family, recipe):
    run = runs[family, recipe]
    entries = run.result["exports"]

    assert all(entry["passed"] for entry in entries)
    for entry in entries:
        verdict = run.folder / entry["path"] / "verify.json"
        assert verdict.is_file() == ((family, recipe) in VERIFIED)
        manifest = json.loads((run.folder / entry["path"] / "manifest.json").read_text())
        assert manifest["added_tokens"] == [START, END]
    assert run.result["losses"]["validation_after"] < run.result["losses"]["validation_before"] / 2


@every_run
def test_run_adapter_and_merged_answer_alike(runs, family, recipe):
    run = runs[family, recipe]
    places = [run.folder, *(run.folder / entry["path"] for entry in run.result["exports"])]

    found = []
    for place in places:
        outcome = command("generate", place, "--prompt", "thing 3?", "--max-new-tokens", "12", "--json")
        assert outcome.code == 0, outcome.err
        found.append({**json.loads(outcome.out), "wall_s": None})

    assert found[0]["finish_reason"] == "stop"  # at a token that the base does not have
    assert all(answer == found[0] for answer in found)


@every_run
def test_the_merged_export_has_the_larger_vocabulary_and_stops_with_transformers_alone(runs, family, recipe):
    folder = runs[family, recipe].folder / "export" / "merged"

    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)

    assert model.config.vocab_size == len(tokenizer) == 302
    assert [tuple(table.shape) for table in tables(model).values()] == [(302, 32), (302, 32)]
    assert tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"]) == [START, END]
    chat = [{"role": "user", "content": "thing 3?"}]
    inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    assert inputs["input_ids"][0, 0] == START
    answer = model.generate(**inputs, max_new_tokens=30, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    assert tokenizer.decode(answer).endswith("<|im_end|>")


@pytest.mark.parametrize("recipe", ["lora", "qlora"])
@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_only_the_new_rows_of_embedding_and_head_move(runs, bases, family, recipe):
    before = tables(AutoModelForCausalLM.from_pretrained(bases[family]))
    after = tables(AutoModelForCausalLM.from_pretrained(runs[family, recipe].folder / "export" / "merged"))
    untrained = tables(open_session(recipe_of(runs[family, recipe].folder.parent, bases[family], recipe)).original())

    for name, table in before.items():
        assert torch.equal(after[name][:KNOWN], table), name
        assert [torch.equal(after[name][row], untrained[name][row]) for row in (START, END)] == [False, False], name


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_full_fine_tuning_moves_the_new_rows_too(runs, bases, family):
    after = tables(AutoModelForCausalLM.from_pretrained(runs[family, "full"].folder / "export" / "merged"))
    untrained = tables(open_session(recipe_of(runs[family, "full"].folder.parent, bases[family], "full")).original())

    for name, table in after.items():
        assert [torch.equal(table[row], untrained[name][row]) for row in (START, END)] == [False, False], name


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_peft_alone_gives_the_trained_logits_from_the_adapter(runs, family):
    run = runs[family, "lora"]
    probes = json.loads((run.folder / "probes" / "probes.json").read_text())
    trained = load_file(run.folder / "probes" / "logits.safetensors")["trained.0"]

    model = AutoPeftModelForCausalLM.from_pretrained(run.folder / "export" / "adapter").eval()

    with torch.no_grad():
        found = model(input_ids=torch.tensor(probes["ids"][:1])).logits[0, probes["positions"][0]]
    assert found.shape[-1] == 302
    torch.testing.assert_close(found, trained, atol=1e-4, rtol=0)


# Methods that have no place for them


@pytest.mark.parametrize(
    ("recipe", "method", "words"),
    [
        ("prefix", {}, "2 new in the vocabulary, and this method's adapter has no place for their rows"),
        ("prompt", {}, "2 new in the vocabulary, and this method's adapter has no place for their rows"),
        ("adapter", {}, "2 new in the vocabulary, and this method's adapter has no place for their rows"),
        ("lora", {"kind": "vera"}, "and this method's adapter has no place for their rows"),
        ("full", {"parameters": ["model.layers.*"]},
         "method.parameters: model.embed_tokens.weight stays frozen, and the recipe adds tokens whose rows it holds"),
    ],
)  # fmt: skip
def test_a_method_that_cannot_train_their_rows_is_refused_before_training(tmp_path, bases, recipe, method, words):
    path = tmp_path / "recipe.yaml"
    made = recipe_of(tmp_path, bases["llama"], recipe, method)
    path.write_text(json.dumps(made.model_dump(mode="json")), encoding="utf-8")

    outcome = command("train", path)

    assert outcome.code == 2, outcome.err
    assert words in outcome.err
    assert not (tmp_path / "run").exists()


def test_an_untied_head_that_stays_frozen_is_refused_by_its_name(tmp_path, bases):
    patterns = {"parameters": ["model.*"]}  # the embedding, but not lm_head

    with pytest.raises(ftkit.FtkitError, match=r"method\.parameters: lm_head\.weight stays frozen"):
        ftkit.run(recipe_of(tmp_path, bases["qwen2"], "full", patterns), quiet=True)
    ftkit.check(recipe_of(tmp_path, bases["llama"], "full", patterns))  # where it is tied, that is enough


def test_without_added_tokens_the_template_is_refused(tmp_path, bases):
    with pytest.raises(ftkit.FtkitError, match=r"the chat template uses <\|im_start\|>, which is not one token"):
        ftkit.run(recipe_of(tmp_path, bases["llama"], model={"added_tokens": []}), quiet=True)


def test_listed_tokens_are_added_after_the_templates_own_and_trained(tmp_path, bases):
    made = recipe_of(tmp_path, bases["llama"], model={"added_tokens": ["<tool>"]}, max_steps=1)

    run = ftkit.run(made, quiet=True)

    weights = load_file(newest_checkpoint(run.folder / "checkpoints") / "trained.safetensors")
    rows = [value for name, value in weights.items() if "trainable_tokens_delta" in name]
    assert [tuple(value.shape) for value in rows] == [(3, 32)]  # one table, as the head is tied
    assert run.target.tokenizer.convert_tokens_to_ids("<tool>") == 302


# Variables of the template


@pytest.fixture(scope="module")
def thinking(tmp_path_factory, bases):
    """A run whose template reads enable_thinking, set by the recipe, with its adapter export; read-only."""
    folder = tmp_path_factory.mktemp("thinking")
    (folder / "thinking.jinja").write_text(THINKING, encoding="utf-8")
    template = {"chat_template": str(folder / "thinking.jinja"), "chat_template_kwargs": {"enable_thinking": True}}
    made = recipe_of(folder, bases["llama"], model=template, export=["adapter"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporting, "verify_export", lambda folder: Verification(passed=True, checks=()))
        return made, ftkit.run(made, quiet=True)


def test_a_variable_of_the_template_is_in_what_is_trained(thinking):
    made, _ = thinking
    session = open_session(made)

    example = session.prepare_data().train[0]

    text = session.tokenizer.decode(example.input_ids)
    assert text.startswith("[think]<|im_start|>user\nthing ")
    assert text.endswith("<|im_start|>assistant\nx<|im_end|>\n")


def test_the_exported_tokenizer_renders_it_untold_and_lets_a_request_decide_otherwise(thinking):
    _, run = thinking
    tokenizer = AutoTokenizer.from_pretrained(run.folder / "export" / "adapter")
    chat = [{"role": "user", "content": "hi"}]

    untold = tokenizer.apply_chat_template(chat, tokenize=False)
    asked = tokenizer.apply_chat_template(chat, tokenize=False, enable_thinking=False)

    assert untold == "[think]<|im_start|>user\nhi<|im_end|>\n"
    assert asked == "<|im_start|>user\nhi<|im_end|>\n"


def test_an_export_whose_template_lost_the_default_fails_verification(thinking, tmp_path):
    _, run = thinking
    folder = Path(shutil.copytree(run.folder / "export" / "adapter", tmp_path / "copy"))
    template = folder / "chat_template.jinja"
    template.write_text(split_defaults(template.read_text(encoding="utf-8"))[1], encoding="utf-8")
    assert template.read_text(encoding="utf-8") == THINKING
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "files": list_files(folder)}))

    assert {check.name for check in ftkit.verify(folder).failures} == {"chat_template", "token_contract"}


# Resuming


@pytest.fixture
def halted(tmp_path, bases, monkeypatch):
    """The folder of a run that was interrupted in its fourth step."""
    real, calls = objective_module.summed_loss, []

    def watched(model, batch):
        calls.append(1)
        if len(calls) == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return real(model, batch)

    with monkeypatch.context() as patch:
        patch.setattr(objective_module, "summed_loss", watched)
        with pytest.raises(Interrupted):
            ftkit.run(recipe_of(tmp_path / "halted", bases["qwen2"], micro_batch_size=4), quiet=True)
    return tmp_path / "halted" / "run"


def test_a_run_with_added_tokens_is_resumed_as_if_nothing_had_happened(halted, tmp_path, bases):
    whole = ftkit.run(recipe_of(tmp_path / "straight", bases["qwen2"], micro_batch_size=4), quiet=True)
    torch.manual_seed(999)

    resumed = ftkit.resume(halted, quiet=True)

    assert resumed.result["losses"] == whole.result["losses"]
    ends = [newest_checkpoint(run.folder / "checkpoints") / "trained.safetensors" for run in (whole, resumed)]
    assert sha256_file(ends[0]) == sha256_file(ends[1])


def test_a_resume_with_other_added_tokens_is_refused(halted):
    recipe = halted / "recipe.yaml"
    text = recipe.read_text(encoding="utf-8")
    assert "added_tokens: auto" in text
    recipe.write_text(text.replace("added_tokens: auto", "added_tokens: ['<tool>']"), encoding="utf-8")

    with pytest.raises(OutputError, match="was changed since the run began"):
        ftkit.resume(halted, quiet=True)
