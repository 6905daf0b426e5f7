"""Whole RAG runs on tiny models: every stage, interruptions, and what is left behind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ftkit.errors import Interrupted, OutputError, RecipeError, UsageError
from ftkit.files import sha256_file
from ftkit.rag import learning
from ftkit.rag.checking import check_rag
from ftkit.rag.opening import open_system
from ftkit.rag.reader import REFUSAL
from ftkit.rag.run import resume_rag, run_rag
from ftkit.rag.run_page import write_run_page
from ftkit.recipe import RagRecipe, load_rag_recipe
from tests.rag.shed import shed_recipe, write_shed

ALL = ("reader", "retriever", "joint")


@pytest.fixture(scope="module")
def shed(tmp_path_factory):
    return write_shed(tmp_path_factory.mktemp("shed"))


def recipe(shed, model, encoder, output, **changes):
    return RagRecipe.model_validate(shed_recipe(shed, model, encoder, output=str(output), **changes))


@pytest.fixture(scope="module")
def finished(shed, tiny_llama, tiny_encoder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("rag") / "run"
    return run_rag(recipe(shed, tiny_llama, tiny_encoder, folder), quiet=True)


def trained_files(folder):
    """Digests of all that training made."""
    return {
        path.relative_to(folder).as_posix(): sha256_file(path)
        for path in sorted(folder.rglob("*.safetensors"))
        if path.parts[-2] in ("query", "document", "generator") or path.name == "adapter_model.safetensors"
    }


def test_a_run_trains_every_stage_and_says_what_it_measured(finished):
    stages = finished.result["stages"]

    assert list(stages) == ["reader", "retriever", "joint"]
    assert [stretch["folder"] for stretch in stages["joint"]] == ["retriever", "reader"] * 2
    assert all(stretch["steps"] == 2 for stretch in [stages["retriever"], *stages["joint"]])
    assert finished.result["documents"] == finished.result["passages"] == 12
    report = json.loads((finished.folder / "data_report.json").read_text())["train"]
    assert report["questions"] == 13 == sum(count for name, count in report.items() if name != "questions")
    assert report["unanswerable"] == 3


def test_each_stage_leaves_other_weights_than_it_found(finished, tiny_encoder):
    query = [
        sha256_file(folder / "encoders" / "query" / "model.safetensors")
        for folder in (finished.folder / "retriever", *sorted((finished.folder / "joint").glob("round-*")))
    ]
    generator = [
        sha256_file(finished.folder / path / "adapter_model.safetensors")
        for path in ("reader/export/adapter", "generator")
    ]

    assert len({sha256_file(tiny_encoder / "model.safetensors"), *query}) == 4
    assert len(set(generator)) == 2
    assert not (finished.folder / "retriever" / "encoders" / "document").exists()
    assert (finished.folder / "joint" / "round-2" / "encoders" / "document").is_dir()


def test_the_run_can_be_asked_also_after_it_was_moved(finished, tmp_path):
    moved = tmp_path / "elsewhere"
    shutil.copytree(finished.folder, moved)
    answers = [open_system(folder).ask("What is the rake?") for folder in (finished.folder, moved)]

    assert [cited.document for cited in answers[0].citations] == [cited.document for cited in answers[1].citations]
    assert answers[0].text == answers[1].text and len(answers[0].citations) == 3
    settings = json.loads((moved / "index" / "index.json").read_text())
    assert settings["generator"] == "../generator" and settings["encoder"].startswith("../joint/round-2/encoders")


def test_the_exported_generator_was_held_to_the_trained_one(finished):
    verified = json.loads((finished.folder / "generator" / "verify.json").read_text())

    assert verified["passed"]


def test_the_result_sums_up_all_stretches_under_the_names_that_every_run_has(finished):
    result = finished.result
    stretches = [result["stages"]["reader"], result["stages"]["retriever"], *result["stages"]["joint"]]
    own = json.loads((finished.folder / "reader" / "result.json").read_text())

    assert set(own) - set(result) <= {
        "first_loss", "last_loss", "micro_batch_size", "packing", "packing_reason", "engine", "device", "compute",
        "weights", "threads", "forgetting",
    }  # fmt: skip
    assert result["steps"] == 2 * len(stretches) == 12
    assert result["tokens"] == sum(one["tokens"] for one in stretches)
    judged = sum(one.get("judging_flops", 0) for one in stretches)
    assert result["flops"] == pytest.approx(sum(one["flops"] for one in stretches) + judged) and judged > 0
    assert result["tokens_per_s"] == pytest.approx(result["tokens"] / result["wall_s"], rel=0.01)
    assert result["losses"] == own["losses"] and result["metrics"] == own["metrics"]
    assert [(entry["path"], entry["stage"], entry["passed"]) for entry in result["exports"]] == [
        ("generator", "joint", True),
        ("reader/export/adapter", "reader", True),
    ]
    # Both encoders learn in the stage joint, and no other part of the generator than its LoRA.
    joint = result["stages"]["joint"][0]["trainable_parameters"] - 1  # the score of answering without a passage
    assert result["trainable_parameters"] == own["trainable_parameters"] + joint
    assert result["total_parameters"] > own["total_parameters"]


def test_check_knows_the_steps_of_a_run_and_bounds_its_readings(finished, shed, tiny_llama, tiny_encoder, tmp_path):
    found = check_rag(recipe(shed, tiny_llama, tiny_encoder, tmp_path / "run"))

    assert (found["steps"], found["steps_exact"]) == (finished.result["steps"], True)
    names = ["reader", "retriever", *(f"joint/round-{n}/{part}" for n in (1, 2) for part in ("retriever", "reader"))]
    assert [one["name"] for one in found["stretches"]] == names
    longest = json.loads((finished.folder / "reader" / "data_report.json").read_text())["lengths"]["max"]
    assert longest <= found["readings"]["longest_possible"] < longest + 12
    assert found["corpus"]["passages"] == finished.result["passages"]
    assert found["estimate"]["trainable_parameters"] == finished.result["stages"]["reader"]["trainable_parameters"]
    assert found["warnings"] == [] and not (tmp_path / "run").exists()


def test_the_report_shows_every_stretch_question_and_export_and_is_made_from_the_folder_alone(finished, tmp_path):
    page = (finished.folder / "report.html").read_text()
    moved = tmp_path / "elsewhere"
    shutil.copytree(finished.folder, moved)
    (moved / "report.html").unlink()
    resume_rag(moved, quiet=True)

    assert (moved / "report.html").read_text() == page
    assert page.count("<figcaption>") == 6 and page.count("<polyline") == 12
    assert "read with the passage that holds the answer" in page and "no document answers it, to be refused" in page
    assert "2 of 2" in page and "Generator as joint training leaves it: generator" in page
    assert '<th scope="row">passages</th><td>12</td>' in page and 'href="reader/report.html"' in page
    before, after = (finished.result["losses"][f"validation_{side}"] for side in ("before", "after"))
    assert f"the loss of the reader {'fell' if after < before else 'rose'} from {before:.3f} to {after:.3f}" in page
    assert "What is the plane?" in page and "http" not in page.replace("http-equiv", "")


def test_the_report_of_an_unfinished_run_says_how_far_it_came(finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished.folder, run)
    for gone in ("joint", "generator", "index"):
        shutil.rmtree(run / gone)
    (run / "result.json").unlink()
    (run / "retriever" / "result.json").unlink()
    report = {
        "synthetic": {"tried": 9, "kept": 4, "dropped": {"<i>not</i> found": 5}},
        "train": {"questions": 6, "with_gold": 4, "no passage holds the answer": 1},
    }
    (run / "data_report.json").write_text(json.dumps(report))
    page = write_run_page(run).read_text()

    assert "● not finished" in page and "result.json is not there: the run has not finished." in page
    assert page.count("<figcaption>") == 2 and "not finished</td>" in page
    assert "It cannot be read: " in page and "1 of 1" in page
    assert "dropped: &lt;i&gt;not&lt;/i&gt; found" in page and "left out: no passage holds the answer" in page
    assert '<td class="number">80%</td>' in page and "5 are accounted for" in page


@pytest.mark.parametrize("stop", ["retriever", "round-1/reader", "round-2/retriever"])
def test_interrupted_anywhere_and_resumed_is_the_uninterrupted_run(
    finished, shed, tiny_llama, tiny_encoder, tmp_path, monkeypatch, stop
):
    real = learning.fit

    def interrupted(model, rows, held, spec, **given):
        if spec.folder.as_posix().endswith(stop):
            monkeypatch.setattr(learning, "fit", real)
            raise Interrupted("stopped")
        return real(model, rows, held, spec, **given)

    monkeypatch.setattr(learning, "fit", interrupted)
    with pytest.raises(Interrupted):
        run_rag(recipe(shed, tiny_llama, tiny_encoder, tmp_path / "run"), quiet=True)
    resume_rag(tmp_path / "run", quiet=True)

    assert trained_files(tmp_path / "run") == trained_files(finished.folder)


def test_what_changed_since_a_run_began_is_named(shed, tiny_llama, tiny_encoder, tmp_path, monkeypatch):
    own = tmp_path / "shed"
    shutil.copytree(shed, own)
    monkeypatch.setattr(learning, "fit", lambda *_, **__: (_ for _ in ()).throw(Interrupted("stopped")))
    with pytest.raises(Interrupted):
        run_rag(recipe(own, tiny_llama, tiny_encoder, tmp_path / "run", stages=("retriever",)), quiet=True)
    (own / "docs" / "rake.txt").write_text("The rake is gone.")
    with (own / "train.jsonl").open("a") as stream:
        stream.write('{"question": "More?", "answers": ["yes"]}\n')

    with pytest.raises(OutputError, match="changed since the run began: questions, corpus"):
        resume_rag(tmp_path / "run", quiet=True)


def test_both_at_once_is_one_stretch_a_round(shed, tiny_llama, tiny_encoder, tmp_path):
    joint = {"rounds": 1, "passages": 2, "form": "simultaneous", "null_passage": False}
    done = run_rag(
        recipe(shed, tiny_llama, tiny_encoder, tmp_path / "run", stages=("reader", "joint"), joint=joint), quiet=True
    )

    assert [stretch["folder"] for stretch in done.result["stages"]["joint"]] == ["round-1"]
    assert json.loads((tmp_path / "run" / "generator" / "verify.json").read_text())["passed"]


def test_the_retriever_can_be_trained_by_a_reader_that_was_never_tuned(shed, tiny_llama, tiny_encoder, tmp_path):
    run_rag(recipe(shed, tiny_llama, tiny_encoder, tmp_path / "run", stages=("retriever",)), quiet=True)

    settings = json.loads((tmp_path / "run" / "index" / "index.json").read_text())
    assert settings["query_encoder"] == "../retriever/encoders/query"
    assert settings["encoder"] == str(tiny_encoder) and settings["generator"] == str(tiny_llama)


def test_a_folder_that_holds_something_is_not_touched(shed, tiny_llama, tiny_encoder, tmp_path, finished):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="is not empty"):
        run_rag(recipe(shed, tiny_llama, tiny_encoder, tmp_path), quiet=True)
    with pytest.raises(OutputError, match=r"is a run already\n.*ftkit resume"):
        run_rag(recipe(shed, tiny_llama, tiny_encoder, finished.folder), quiet=True)
    with pytest.raises(UsageError, match="is no RAG run"):
        resume_rag(tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("stages=[joint]", "joint training goes on from a trained reader"),
        ("stages=[retriever,reader]", "each once, in this order"),
        ("retriever.scored=99", "99 passages cannot be chosen from 22 candidates"),
        ("generator.recipe=loar", "Did you mean 'lora'?"),
        ("generator.method.rnk=4", "Did you mean 'rank'?"),
        ("retriever.encodr=x", "Did you mean 'encoder'?"),
        ("retriever.train=none", "the stage retriever has nothing to train"),
    ],
)
def test_a_fault_in_the_recipe_is_said_with_its_place(tmp_path, change, said):
    (tmp_path / "rag.yaml").write_text("recipe: rag\nmodel: smollm2-135m\ncorpus: docs\ndata: q.jsonl\n")

    with pytest.raises(RecipeError) as caught:
        load_rag_recipe(tmp_path / "rag.yaml", [change])

    assert said in str(caught.value)


def test_paths_of_a_recipe_are_relative_to_its_file(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "rag.yaml").write_text("recipe: rag\nmodel: m\ncorpus: [docs, more.pdf]\ndata: q.jsonl\n")
    read = load_rag_recipe(tmp_path / "rag.yaml")

    assert read.corpus.sources == (str(tmp_path / "docs"), str(tmp_path / "more.pdf"))
    assert read.data.train == str(tmp_path / "q.jsonl")


def test_the_recipe_that_ships_is_valid():
    shipped = Path(__file__).parents[2] / "recipes" / "rag" / "closed_world.yaml"
    read = load_rag_recipe(shipped)

    assert read.stages == ALL
    assert read.corpus.sources == (str(shipped.parent / "world" / "documents"),)


def test_steps_done_again_after_a_kill_are_written_once(shed, tiny_llama, tiny_encoder, tmp_path):
    run = tmp_path / "run"
    run_rag(recipe(shed, tiny_llama, tiny_encoder, run, stages=("retriever",)), quiet=True)
    before, lines = trained_files(run), (run / "retriever" / "metrics.jsonl").read_text().splitlines()
    # As a kill after the second step's line and before its checkpoint leaves it.
    (run / "result.json").unlink()
    (run / "retriever" / "result.json").unlink()
    for gone in ("retriever/checkpoints/step-00000002", "retriever/encoders", "index"):
        shutil.rmtree(run / gone)
    resume_rag(run, quiet=True)

    again = (run / "retriever" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in again] == [json.loads(line)["step"] for line in lines]
    assert trained_files(run) == before


def test_without_held_back_questions_nothing_that_was_trained_on_is_called_held_back(
    shed, tiny_llama, tiny_encoder, tmp_path
):
    data = {"train": str(shed / "train.jsonl"), "validation": None}
    done = run_rag(
        recipe(shed, tiny_llama, tiny_encoder, tmp_path / "run", stages=("reader",), data=data), quiet=True
    )

    losses = done.result["stages"]["reader"]["losses"]
    assert losses["validation_before"] is None and losses["validation_after"] is None
    assert list(json.loads((tmp_path / "run" / "data_report.json").read_text())) == ["train"]


def test_joint_training_goes_on_refusing_and_chooses_only_where_there_is_a_choice(
    shed, tiny_llama, tiny_encoder, tmp_path, monkeypatch
):
    seen, learn = {}, learning.learn

    def watched(folder, model, rows, held, pace, objective):
        seen[folder.name] = rows
        return learn(folder, model, rows, held, pace, objective)

    monkeypatch.setattr("ftkit.rag.joint.learn", watched)
    changes = {"stages": ("reader", "joint"), "joint": {"rounds": 1, "passages": 2}}
    run_rag(recipe(shed, tiny_llama, tiny_encoder, tmp_path / "run", **changes), quiet=True)

    assert all(len(row.candidates) > 1 for row in seen["retriever"])
    refused = [row for row in seen["reader"] if len(row.candidates) == 1]
    assert {row.question for row in refused} >= {"What is the cat?", "What is the dog?", "What is the sun?"}
    assert {row.candidates[0].reading.answer for row in refused} == {REFUSAL}
    assert len(seen["reader"]) == len(seen["retriever"]) + len(refused)
