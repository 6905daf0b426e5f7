"""``ftkit check`` of ``recipe: rag`` and ``recipe: compare``: planted faults are found before anything is trained."""

from __future__ import annotations

import json

import pytest

from ftkit.compare.checking import check_compare
from ftkit.errors import DataError, ModelError, RecipeError, ResourceError
from ftkit.rag import checking
from ftkit.rag.checking import check_rag
from ftkit.recipe import CompareSpec, RagRecipe
from tests.cli.running import ftkit
from tests.rag.shed import THINGS, colour, shed_recipe, write_shed


@pytest.fixture
def shed(tmp_path):
    return write_shed(tmp_path / "shed")


@pytest.fixture
def values(shed, tiny_llama, tiny_encoder, tmp_path):
    return shed_recipe(shed, tiny_llama, tiny_encoder, output=str(tmp_path / "run"))


def looked_at(values, **changes):
    return check_rag(RagRecipe.model_validate(values | changes))


def add(path, *rows):
    with path.open("a") as stream:
        stream.writelines(json.dumps(row) + "\n" for row in rows)


def test_questions_that_do_not_fit_the_documents_are_counted_and_named(shed, values):
    add(
        shed / "train.jsonl",
        {"question": "What is the spade?", "answers": ["pink"], "document": "spade.txt"},
        {"question": "What is the lamp?", "answers": ["violet"], "document": "lamp.txt", "id": "lost"},
        {"question": "What is red?", "answers": ["a tomato"]},
        {"question": "Which one is blue1?", "answers": ["saw"]},
    )
    add(shed / "dev.jsonl", {"question": " what is the RAKE?", "answers": [colour(0)], "document": "rake.txt"})
    found = looked_at(values)

    train = found["questions"]["train"]
    assert (train["questions"], train["answerable"], train["unanswerable"]) == (17, 14, 3)
    assert train["unknown_documents"] == 1 and train["unknown_documents_at"][0].endswith(":14: spade.txt")
    # Of the spade nothing is known; of the lamp and the tomato it is known that nobody says so.
    assert [place[-3:] for place in train["answer_in_no_passage_at"]] == [":15", ":16"]
    # The lamp is still trained on, with a passage that does not say so; spade and tomato are left out.
    assert train["teaching_the_reader"] == 15
    assert found["questions"]["leaks"] == 1 and not found["steps_exact"]
    said = "\n".join(found["warnings"])
    assert "such as 'spade.txt'" in said and "stand in no passage" in said and "1 held-back questions" in said


def test_a_document_that_is_nearly_named_is_suggested(shed, values):
    add(shed / "train.jsonl", {"question": "And the rake?", "answers": [colour(0)], "document": "rakes.txt"})

    assert "did you mean 'rake.txt'?" in looked_at(values)["warnings"][0]


def test_questions_that_need_more_passages_than_are_given_are_left_out(shed, values):
    documents = ["rake.txt", "saw.txt", "axe.txt", "drill.txt"]
    add(shed / "train.jsonl", {"question": "Which are not?", "answers": ["red0"], "documents": documents})
    found = looked_at(values)

    assert found["questions"]["train"]["needing_more_passages"] == 1
    assert found["questions"]["train"]["teaching_the_reader"] == 13
    assert "raise reader.passages" in found["warnings"][0]


def test_readings_that_cannot_fit_are_an_error_and_those_that_may_not_a_warning(values):
    longest = looked_at(values)["readings"]["longest_possible"]
    data = values["data"]

    with pytest.raises(DataError, match=rf"train.jsonl:1: a reading of at least \d+ .*\n.*max_length to {longest}"):
        looked_at(values, data={**data, "max_length": 40})
    found = looked_at(values, data={**data, "max_length": longest - 1})
    assert found["readings"]["possibly_too_long"] > 0 and f"{longest} is enough for all" in found["warnings"][0]
    assert looked_at(values, data={**data, "max_length": longest})["warnings"] == []


def test_the_longest_passage_of_all_may_stand_beside_the_right_one(shed, values):
    before = looked_at(values)["readings"]["longest_possible"]
    (shed / "docs" / "hedge.txt").write_text("The hedge is high and wide and old, and none asks for it.")

    # Of three passages one is longer by the letters that no other document has.
    assert looked_at(values)["readings"]["longest_possible"] > before + 10


def test_faults_of_all_parts_are_told_in_one_pass_by_the_kind_of_the_first(shed, values, tmp_path):
    add(shed / "train.jsonl", {"question": "No answers?"})
    add(shed / "dev.jsonl", {"answers": ["no question"]})
    (shed / "docs" / "empty.txt").write_text(" ")

    with pytest.raises(DataError) as caught:
        looked_at(values)
    assert [str(problem).split(": ")[0].split("/")[-1] for problem in caught.value.problems] == [
        "train.jsonl:14", "dev.jsonl:3", "empty.txt",
    ]  # fmt: skip
    with pytest.raises(ModelError) as caught:
        looked_at(values, model=str(tmp_path / "nowhere"), retriever={"encoder": str(tmp_path / "none")})
    assert len(caught.value.problems) == 5


def test_a_question_longer_than_the_encoder_reads_is_an_error(shed, values):
    add(shed / "dev.jsonl", {"question": "why " * 70, "answers": [colour(0)], "document": "rake.txt"})

    with pytest.raises(DataError, match=r"dev.jsonl:3: a question of \d+ tokens; tiny reads 64"):
        looked_at(values)


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        (["reader"], "none of the 1 train questions can teach reading"),
        (["retriever"], "no train question has an answer"),
    ],
)
def test_a_stage_with_nothing_to_learn_from_is_an_error(shed, values, stages, said):
    row = (
        {"question": "Who?", "answers": ["nobody knows"]}
        if stages == ["reader"]
        else {"question": "?", "answers": []}
    )
    (shed / "train.jsonl").write_text(json.dumps(row) + "\n")

    with pytest.raises(DataError, match=said):
        looked_at(values, stages=stages)


def test_questions_to_be_made_count_as_many_as_are_wanted(values):
    found = looked_at(values, data={"synthetic": {"count": 30}, "max_length": 400}, stages=["reader"])

    assert [(one["questions"], one["steps"]) for one in found["stretches"]] == [(30, 2)]
    assert found["questions"]["synthetic"] == {"wanted": 30, "least": 20} and not found["steps_exact"]
    assert 60 < found["readings"]["longest_possible"] < 400


def test_the_steps_are_those_of_each_stretch(values):
    train = {**values["train"], "max_steps": None, "epochs": 3}
    found = looked_at(values, train=train, joint={"rounds": 1, "passages": 3, "form": "simultaneous"})

    # 13 questions teach reading and 10 have answers, in steps of 4; the retriever's own epochs are 1. Both together
    # are also shown the 3 that nothing answers and 2 of the 10 with a wrong passage.
    assert {one["name"]: one["steps"] for one in found["stretches"]} == {
        "reader": 12, "retriever": 3, "joint/round-1": 4,
    }  # fmt: skip


def test_what_does_not_fit_is_refused_and_an_output_in_use_is_a_warning(values, tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("mine")
    assert "is not empty" in looked_at(values)["warnings"][0]

    monkeypatch.setattr(checking, "encoder_bytes", lambda *_: 1 << 50)
    with pytest.raises(ResourceError, match=r"need 1.* of memory"):
        looked_at(values)


def test_passages_that_repeat_too_much_are_a_fault_of_the_recipe(values):
    with pytest.raises(RecipeError, match=r"corpus.overlap_tokens: 40 is more than half of a passage of 60 tokens"):
        looked_at(values, corpus={**values["corpus"], "overlap_tokens": 40})


def test_the_command_prints_what_it_found_and_leaves_nothing(values, shed, tmp_path):
    values["corpus"]["sources"] = list(values["corpus"]["sources"])
    (tmp_path / "rag.yaml").write_text(json.dumps(values))
    before = sorted(tmp_path.rglob("*"))
    words = ftkit("check", tmp_path / "rag.yaml")
    found = json.loads(ftkit("check", tmp_path / "rag.yaml", "--json", "--quiet").out)

    assert words.code == 0 and "12 documents, 12 passages" in words.out
    assert "13 to train on: 10 with an answer, 3 without" in words.out and "2 joint/round-2/reader" in words.out
    assert found["steps"] == 12 and sorted(tmp_path.rglob("*")) == before
    assert ftkit("check", tmp_path / "rag.yaml", "retriever.encodr=x").code == 2
    assert ftkit("check", tmp_path / "rag.yaml", f"data.train={tmp_path / 'none.jsonl'}").code == 3
    assert ftkit("check", tmp_path / "rag.yaml", f"model={tmp_path / 'none'}").code == 7


def comparison(values, shed, **changes):
    test = [{"question": f"Which colour has the {thing}?", "answers": [colour(number)], "document": f"{thing}.txt"}
            for number, thing in enumerate(THINGS)]  # fmt: skip
    (shed / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in test))
    same = {key: values[key] for key in ("model", "corpus", "generator", "retriever", "joint", "train", "answer")}
    data = {**values["data"], "test": str(shed / "test.jsonl")}
    return {**same, "recipe": "compare", "data": data, "systems": ["bm25", "reader", "joint"], **changes}


def test_a_comparison_is_checked_with_its_systems(values, shed, tmp_path):
    spec = comparison(values, shed, seeds=[0, 1], output=str(tmp_path / "compared"))
    found = check_compare(CompareSpec.model_validate(spec))

    assert [(one["name"], one["stages"], one["seeds"]) for one in found["systems"]] == [
        ("bm25", [], [0]), ("reader", ["reader"], [0, 1]), ("joint", ["reader", "joint"], [0, 1]),
    ]  # fmt: skip
    assert {name: side["questions"] for name, side in found["questions"].items()} == {
        "train": 13, "validation": 2, "test": 12,
    }  # fmt: skip
    assert found["estimate"]["trainable_parameters"] > 0 and found["warnings"] == []
    assert not (tmp_path / "compared").exists()


def test_a_comparison_is_refused_for_its_data_and_models(values, shed, tmp_path):
    spec = comparison(values, shed)
    add(shed / "test.jsonl", {"question": "What is the saw?", "answers": [colour(1)]})
    spec["corpus"] = {"sources": list(spec["corpus"]["sources"]), "passage_tokens": 60}
    (tmp_path / "compare.yaml").write_text(json.dumps(spec))

    assert ftkit("check", tmp_path / "compare.yaml").code == 3
    refused = ftkit("check", tmp_path / "compare.yaml", f"model={tmp_path / 'none'}")
    # Once each, though several systems would be trained from that base.
    assert refused.code == 7 and refused.err.count("no such folder") == 1
    assert "also in the training questions" in refused.err
    assert ftkit("check", tmp_path / "compare.yaml", "systems=[jont]").code == 2
