"""Runs whose questions are made from their corpus: alone, beside those of people, resumed, and refused."""

from __future__ import annotations

import json
import re

import pytest

from ftkit.errors import DataError, Interrupted, OutputError, RecipeError
from ftkit.evaluate.generation import Answer
from ftkit.files import sha256_file
from ftkit.rag import learning, roundtrip, synthetic
from ftkit.rag.run import resume_rag, run_rag
from ftkit.recipe import RagRecipe, load_rag_recipe
from tests.rag.shed import THINGS, colour, shed_recipe, write_shed


@pytest.fixture
def shed(tmp_path, monkeypatch):
    """Each thing has a code; the generator is played, and the search finds everything in a corpus this small."""

    def generate(model, prompts, tokenizer, **given):
        return [
            Answer(text=said(tokenizer.decode(ids)), tokens=1, finish_reason="stop", wall_s=0.0) for ids in prompts
        ]

    def said(prompt):
        task = prompt[prompt.rindex("<|im_start|>user") :]
        if asked := re.search(r"The (\w+) is (\w+)\..*answers with exactly: (.*?)<\|im_end\|>", task, re.DOTALL):
            return f"What colour is the {asked[1]} here?"
        thing = re.search(r"Question: What colour is the (\w+) here", task)[1]
        return "purple" if thing == "mop" else colour(THINGS.index(thing))

    monkeypatch.setattr(synthetic, "generate", generate)
    monkeypatch.setattr(roundtrip, "generate", generate)
    monkeypatch.setattr(synthetic, "opening_of", lambda span: "")
    # The tiny model's 512 tokens, nearly one a letter, hold no solved examples.
    monkeypatch.setattr(synthetic, "_room", lambda system: None)
    return write_shed(tmp_path / "shed")


def recipe(shed, model, encoder, output, data, **changes):
    values = shed_recipe(shed, model, encoder, output=str(output), data=data, **changes)
    return RagRecipe.model_validate(values)


SYNTHETIC = {"count": 12, "least": 5, "found_within": 12}


def report_of(folder):
    return json.loads((folder / "data_report.json").read_text())


def test_a_corpus_without_any_labelled_question_is_trained_on_in_every_stage(
    shed, tiny_llama, tiny_encoder, tmp_path
):
    run = tmp_path / "run"
    data = {"synthetic": SYNTHETIC, "validation": 0.2}
    done = run_rag(recipe(shed, tiny_llama, tiny_encoder, run, data), quiet=True)

    made = done.result["synthetic"]
    assert list(done.result["stages"]) == ["reader", "retriever", "joint"]
    assert made["kept"] == 11 and made["dropped"] == {"is not read back": 1} and made["tried"] == 12
    report = report_of(run)
    assert report["synthetic"] == made
    assert report["train"]["questions"] + report["validation"]["questions"] == 11
    assert report["validation"]["questions"] > 0


def test_questions_of_people_and_of_the_corpus_are_trained_on_together(shed, tiny_llama, tiny_encoder, tmp_path):
    run = tmp_path / "run"
    (shed / "dev.jsonl").write_text('{"question": "What colour is the saw here?", "answers": ["blue1"]}\n')
    data = {"train": str(shed / "train.jsonl"), "validation": str(shed / "dev.jsonl"), "synthetic": SYNTHETIC}
    run_rag(recipe(shed, tiny_llama, tiny_encoder, run, data, stages=("reader",)), quiet=True)

    report = report_of(run)
    # 13 of people and 10 of the corpus: the mop's is not read back, and that of the saw is held back.
    assert report["synthetic"]["kept"] == 10 and report["synthetic"]["dropped"]["was asked before"] == 1
    assert report["train"]["questions"] == 23 and report["validation"]["questions"] == 1


def test_too_few_questions_are_an_error_that_says_why_before_training(shed, tiny_llama, tiny_encoder, tmp_path):
    data = {"synthetic": {**SYNTHETIC, "least": 12}}

    with pytest.raises(
        DataError, match=r"11 of 12 questions passed \(1 is not read back\); training needs 12"
    ) as got:
        run_rag(recipe(shed, tiny_llama, tiny_encoder, tmp_path / "run", data), quiet=True)
    assert got.value.exit_code == 3
    assert not (tmp_path / "run" / "reader").exists()


def test_a_run_cut_off_while_questions_were_made_or_later_ends_as_the_whole_one(
    shed, tiny_llama, tiny_encoder, tmp_path, monkeypatch
):
    data = {"synthetic": SYNTHETIC, "validation": 0.2}
    given = {"stages": ("retriever",)}
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    run_rag(recipe(shed, tiny_llama, tiny_encoder, whole, data, **given), quiet=True)
    real_read, real_fit = synthetic.read_back, learning.fit
    monkeypatch.setattr(synthetic, "read_back", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(Interrupted):
        run_rag(recipe(shed, tiny_llama, tiny_encoder, cut, data, **given), quiet=True)
    monkeypatch.setattr(synthetic, "read_back", real_read)
    monkeypatch.setattr(learning, "fit", lambda *_, **__: (_ for _ in ()).throw(Interrupted("stopped")))
    with pytest.raises(Interrupted):
        resume_rag(cut, quiet=True)
    monkeypatch.setattr(learning, "fit", real_fit)
    # Made once: nobody is asked again.
    monkeypatch.setattr(synthetic, "generate", None)
    resume_rag(cut, quiet=True)

    for name in ("questions/synthetic.jsonl", "retriever/encoders/query/model.safetensors"):
        assert sha256_file(cut / name) == sha256_file(whole / name)


def test_made_questions_that_changed_since_are_refused(shed, tiny_llama, tiny_encoder, tmp_path, monkeypatch):
    run = tmp_path / "run"
    monkeypatch.setattr(learning, "fit", lambda *_, **__: (_ for _ in ()).throw(Interrupted("stopped")))
    made = recipe(shed, tiny_llama, tiny_encoder, run, {"synthetic": SYNTHETIC}, stages=("retriever",))
    with pytest.raises(Interrupted):
        run_rag(made, quiet=True)
    path = run / "questions" / "synthetic.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))

    with pytest.raises(OutputError, match="changed since the run began"):
        resume_rag(run, quiet=True)


def test_a_recipe_names_questions_or_lets_them_be_made(tmp_path):
    path = tmp_path / "rag.yaml"
    path.write_text("recipe: rag\nmodel: m\ncorpus: docs\ndata: {validation: null}\n")
    with pytest.raises(RecipeError, match="name questions to train on, or let them be made"):
        load_rag_recipe(path)
    (tmp_path / "better").mkdir()
    path.write_text("recipe: rag\nmodel: m\ncorpus: docs\ndata: {synthetic: {count: 9, generator: better}}\n")
    read = load_rag_recipe(path)

    assert read.data.train is None and read.data.synthetic.count == 9
    assert read.data.synthetic.generator == str(tmp_path / "better")
    path.write_text("recipe: rag\nmodel: m\ncorpus: docs\ndata: {synthetic: 9}\n")
    assert load_rag_recipe(path).data.synthetic.count == 9
    with pytest.raises(RecipeError, match="Did you mean 'count'"):
        load_rag_recipe(path, ["data.synthetic={cont: 3}"])
