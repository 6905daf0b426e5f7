"""Prompt tuning as a model of its own: its tokens stand in front of texts, and are never said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

import ftkit
from ftkit.errors import RecipeError, VerificationError
from ftkit.evaluate.generation import greedy_config, without_own_settings
from ftkit.export.probes import Probes, measure_base, measure_trained
from ftkit.export.soft_prompt import _common_direction, as_exported, silence, tokens_in_front
from ftkit.export.verify import verify_export
from ftkit.export.write import Trained, write_export
from ftkit.models.find import find_base
from tests.contract.cases import Case, train_steps
from tests.export.small_exports import change_manifest
from tests.tiny import CHATML, tiny_model_folder, tiny_tokenizer, write_rows

CASE = Case("prompt", "prompt", {"num_virtual_tokens": 4})
IDS = [5, 60, 7, 80, 9, 100, 11, 120]
FAMILIES = ("llama", "llama-untied", "gemma2", "qwen2", "gpt2")
NAMES = [f"<|ftkit_prompt_{number}|>" for number in range(4)]


def base_folder(folder: Path, family: str, *, tokenizer=None) -> Path:
    """A tiny model whose hidden states share a large component, as those of trained models do."""
    name, _, untied = family.partition("-")
    tiny_model_folder(folder, name, tokenizer=tokenizer)
    model = AutoModelForCausalLM.from_pretrained(folder)
    if untied:
        config = AutoConfig.from_pretrained(folder)
        config.tie_word_embeddings = False
        torch.manual_seed(1)
        other = AutoModelForCausalLM.from_config(config)
        other.load_state_dict({**model.state_dict(), "lm_head.weight": torch.randn(len(tiny_tokenizer()), 32)})
        model = other
    with torch.no_grad():
        model.get_input_embeddings().weight[:, 0] += 20 if name != "gemma2" else 4
    model.save_pretrained(folder)
    return folder


def scattered(folder: Path) -> Path:
    """A tiny model whose final states are as far apart as its tokens: hundreds of directions in 32 dimensions."""
    model = AutoModelForCausalLM.from_pretrained(tiny_model_folder(folder))
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(50)
    model.save_pretrained(folder)
    return folder


def trained_prompt(base: Path, tokenizer) -> Trained:
    """A few steps of prompt tuning, measured as a run measures them."""
    probes = Probes(ids=[IDS, IDS[:5]], positions=[[1, 2, 4, 7], [0, 4]], prompts=[IDS[:3], IDS[:6]])
    measure_base(probes, CASE.base(base))
    model = CASE.attached(base)
    train_steps(model, 5, learning_rate=0.1)
    measure_trained(probes, model.eval())
    return Trained(
        model=model, method=CASE.method(), base=find_base(str(base)), tokenizer=tokenizer, added_tokens={},
        stop_token_ids=[2], probes=probes, quantization=None,
        origin={
            "recipe": "prompt", "method": CASE.as_recipe().method.model_dump(mode="json"), "recipe_digest": "r",
            "data_digest": "d",
        },
        facts={
            "data": {"trained": 3, "supervised_tokens": 13, "validation": 0}, "metrics": {},
            "losses": {"before": None, "after": None},
        },
    )  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A trained prompt and its merged export, by family, made once."""
    done = {}

    def make(family: str) -> tuple[Trained, Path]:
        if family not in done:
            folder = tmp_path_factory.mktemp(family)
            trained = trained_prompt(base_folder(folder / "base", family), tiny_tokenizer())
            write_export(trained, "merged", "float32", folder / "merged")
            done[family] = trained, folder / "merged"
        return done[family]

    return make


@pytest.fixture
def copy(made, tmp_path):
    """A copy of the Llama's export, to be tampered with."""
    return Path(shutil.copytree(made("llama")[1], tmp_path / "merged"))


def failed(folder: Path) -> set[str]:
    return {check.name for check in verify_export(folder).failures}


def manifest_of(folder: Path):
    return json.loads((folder / "manifest.json").read_text())


@torch.no_grad()
def greedy(model, ids: list[int]) -> list[int]:
    config = greedy_config([0], 16)
    config.eos_token_id = None
    row = torch.tensor([ids])
    with without_own_settings(model):
        output = model.generate(input_ids=row, attention_mask=torch.ones_like(row), generation_config=config)
    return output[0, len(ids) :].tolist()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_merged_model_has_the_live_models_logits_and_answers_behind_its_own_tokens(made, family):
    trained, folder = made(family)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder).eval()
    front = tokenizer.convert_tokens_to_ids(NAMES)
    assert front == manifest_of(folder)["prefix_ids"] == [400, 401, 402, 403]
    with torch.no_grad():
        live = trained.model(input_ids=torch.tensor([IDS]), use_cache=False).logits[0, -len(IDS) :]
        merged = model(input_ids=torch.tensor([front + IDS]), use_cache=False).logits[0, -len(IDS) :]

    torch.testing.assert_close(merged[:, :400], live, atol=1e-4, rtol=0)
    assert (merged[:, :400].min(-1).values > merged[:, 400:].max(-1).values).all()
    assert greedy(model, front + IDS) == greedy(trained.model, IDS)
    noted = manifest_of(folder)["notes"]["soft_prompt"]
    assert noted["logit_margin"] > 0
    assert noted["positions"] > 500  # the token contract's, besides the probes'
    assert json.loads((folder / "generation_config.json").read_text())["suppress_tokens"] == front
    assert json.loads((folder / "config.json").read_text())["tie_word_embeddings"] is False


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_an_untouched_export_passes_in_a_fresh_process(made, family):
    outcome = verify_export(made(family)[1])

    assert [str(check.detail) for check in outcome.failures] == []
    assert next(check for check in outcome.checks if check.name == "prompt_tokens_never_sampled").value > 0


def test_a_tampered_row_of_the_prompt_fails(copy):
    weights = load_file(copy / "model.safetensors")
    weights["model.embed_tokens.weight"][401] *= -1
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    change_manifest(copy)

    assert "logits_match_trained" in failed(copy)


def test_an_output_row_that_could_be_sampled_fails(copy):
    weights = load_file(copy / "model.safetensors")
    weights["lm_head.weight"][402] = weights["lm_head.weight"][7]  # as likely as a letter
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    change_manifest(copy)

    assert "prompt_tokens_never_sampled" in failed(copy)


def test_a_template_without_the_tokens_fails(copy):
    (copy / "chat_template.jinja").write_text(CHATML)
    change_manifest(copy)

    assert {"chat_template", "token_contract"} <= failed(copy)


def test_a_tokenizer_that_leaves_them_out_of_plain_text_fails(copy):
    state = json.loads((copy / "tokenizer.json").read_text())
    state["post_processor"] = None
    (copy / "tokenizer.json").write_text(json.dumps(state))
    change_manifest(copy)

    assert {"tokenizer", "token_contract"} <= failed(copy)


def test_a_model_whose_states_point_everywhere_is_refused_and_leaves_nothing_behind(tmp_path):
    base = scattered(tmp_path / "base")

    with pytest.raises(VerificationError, match=r"cannot be kept from being sampled.*no direction in common"):
        write_export(trained_prompt(base, tiny_tokenizer()), "merged", "float32", tmp_path / "merged")

    assert not (tmp_path / "merged").exists()


def test_the_adapter_export_of_the_same_model_knows_nothing_of_the_tokens(made, tmp_path):
    trained, _ = made("llama")
    write_export(trained, "adapter", "auto", tmp_path / "adapter")

    assert as_exported(trained, "adapter") is trained
    assert len(AutoTokenizer.from_pretrained(tmp_path / "adapter")) == 400
    assert manifest_of(tmp_path / "adapter")["prefix_ids"] == []


# The tokenizer


def test_the_tokens_stand_before_the_beginning_token_in_chats_and_in_plain_text():
    tokenizer = tiny_tokenizer(bos=True, template="{{ bos_token }}" + CHATML)
    begin = tokenizer.bos_token_id

    own, ids = tokens_in_front(tokenizer, 2, Path("base"))

    chat = [{"role": "user", "content": "hi"}]
    assert own.apply_chat_template(chat)["input_ids"][:4] == [400, 401, begin, tokenizer.vocab["<|im_start|>"]]
    assert own("hi")["input_ids"] == [*ids, begin, *tokenizer("hi", add_special_tokens=False)["input_ids"]]
    assert own("hi", add_special_tokens=False)["input_ids"] == tokenizer("hi", add_special_tokens=False)["input_ids"]
    assert len(tokenizer) == 400  # the one that was given is as it was


def test_a_second_prompt_stands_before_the_first():
    first, ids = tokens_in_front(tiny_tokenizer(template=None), 2, Path("base"))
    second, others = tokens_in_front(first, 1, Path("base"))

    assert second("hi")["input_ids"][:3] == [*others, *ids] == [402, 400, 401]


def test_a_template_that_tells_where_a_text_begins_is_refused_before_training(tmp_path):
    # The block's indentation is dropped only where nothing stands before it.
    template = "    {% if true %}{% endif %}" + CHATML
    base = base_folder(tmp_path / "base", "llama", tokenizer=tiny_tokenizer(template=template))

    with pytest.raises(RecipeError, match="cannot be merged into its base: with its tokens in front, 'user only'"):
        ftkit.run(recipe(tmp_path, base), quiet=True)

    assert not (tmp_path / "run").exists()


# The rows


def test_the_common_direction_leans_to_the_state_that_is_farthest_off():
    # In the plane, at 0, 10 and 90 degrees: the best is the bisector of the outermost two, 45 degrees from each.
    angles = torch.tensor([0.0, 10.0, 90.0]).deg2rad()
    states = torch.stack([angles.cos() * 3, angles.sin() * 3], dim=1)

    direction, cosine = _common_direction(states)

    torch.testing.assert_close(direction, torch.tensor([0.5, 0.5]).sqrt(), atol=1e-3, rtol=0)
    assert cosine == pytest.approx(0.5**0.5, abs=1e-3)


def test_states_on_opposite_sides_have_no_common_direction():
    _, cosine = _common_direction(torch.tensor([[1.0, 0.0], [-1.0, 1e-9], [0.0, -1.0], [0.0, 1.0]]))

    assert cosine <= 1e-6


def test_a_head_with_a_bias_needs_no_direction(tmp_path):
    model = AutoModelForCausalLM.from_pretrained(tiny_model_folder(tmp_path / "base", "qwen2")).eval()
    model.lm_head.bias = torch.nn.Parameter(torch.zeros(400))

    found = silence(model, [398, 399], [IDS], skip=2)

    logits = model(input_ids=torch.tensor([IDS])).logits[0]
    assert found.margin > 0
    assert found.positions == len(IDS) - 2
    assert (logits[:, 398:] == model.lm_head.bias[398]).all()


# The line


def recipe(folder: Path, base: Path, **data) -> ftkit.PromptRecipe:
    return ftkit.PromptRecipe(
        model=str(base),
        data={"train": str(write_rows(folder / "rows.jsonl")), "validation": 0.2, **data},
        method={"num_virtual_tokens": 4},
        train={"learning_rate": 0.1, "epochs": 2.0, "batch_size": 8},
        evaluate={"max_examples": 1, "max_new_tokens": 4},
        export=["adapter", "merged"],
        output=str(folder / "run"),
    )


def test_a_run_exports_it_verified_and_the_export_answers_and_scores_as_the_run_does(tmp_path):
    base = base_folder(tmp_path / "base", "llama", tokenizer=tiny_tokenizer(bos=True))

    run = ftkit.run(recipe(tmp_path, base), quiet=True)

    assert [(entry["kind"], entry["passed"]) for entry in run.result["exports"]] == [
        ("adapter", True),
        ("merged", True),
    ]
    live, merged = ftkit.open_target(str(run.folder)), ftkit.open_target(str(run.folder / "export" / "merged"))
    questions = ["What colour is thing 3?", "hello there"]
    assert [answer.text for answer in live.generate(questions, max_new_tokens=8)] == [
        answer.text for answer in merged.generate(questions, max_new_tokens=8)
    ]
    for train_on in ("assistant", "all"):
        scores = [one.evaluate(tmp_path / "rows.jsonl", settings={"train_on": train_on}) for one in (live, merged)]
        assert scores[0]["tokens"] == scores[1]["tokens"]
        assert scores[0]["loss"] == pytest.approx(scores[1]["loss"], abs=1e-4)


def test_without_a_chat_template_the_tokenizer_itself_puts_the_prompt_before_plain_text(tmp_path):
    base = base_folder(tmp_path / "base", "llama", tokenizer=tiny_tokenizer(template=None, bos=True))
    rows = tmp_path / "texts.jsonl"
    rows.write_text("".join(json.dumps({"text": f"One two three {index}"}) + "\n" for index in range(12)))

    run = ftkit.run(recipe(tmp_path, base, train=str(rows)), quiet=True)

    live, merged = ftkit.open_target(str(run.folder)), ftkit.open_target(str(run.folder / "export" / "merged"))
    (ours,), (theirs,) = (one.generate(["One two"], max_new_tokens=8) for one in (live, merged))
    assert ours.text == theirs.text
    losses = [one.evaluate(rows) for one in (live, merged)]
    assert losses[0]["tokens"] == losses[1]["tokens"]
    assert losses[0]["loss"] == pytest.approx(losses[1]["loss"], abs=1e-4)


def test_a_run_whose_merge_is_refused_is_finished_and_says_why(tmp_path):
    base = scattered(tmp_path / "base")

    with pytest.raises(VerificationError, match=r"export/merged: .*cannot be kept from being sampled"):
        ftkit.run(recipe(tmp_path, base), quiet=True)

    exports = json.loads((tmp_path / "run" / "result.json").read_text())["exports"]
    assert [(entry["kind"], entry["passed"]) for entry in exports] == [("adapter", True), ("merged", False)]
    assert "no direction in common" in exports[1]["refused"]
