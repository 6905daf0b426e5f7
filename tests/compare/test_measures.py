"""What a comparison measures beside the answers, on a tiny corpus: every part is there, and means what it says."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from ftkit.compare import measuring
from ftkit.compare.arms import arms_of
from ftkit.compare.document import curve_points
from ftkit.compare.run import compare
from ftkit.errors import DataError
from ftkit.rag.index import Index
from ftkit.recipe import MeasureSection, copy_recipe, load_compare_spec

GENERAL = [
    {"text": "The rain fell on the roof all night, and in the morning the street was a river."},
    {"text": "She counted the spoons twice and wrote the number on the lid of the box."},
    {"query": "What is wet?", "choices": ["water", "sand"], "gold": 0},
    {"query": "What is dry?", "choices": ["water", "sand"], "gold": 1},
]
MEASURE = {
    "wordings": 4, "counterfactuals": 6, "updates": [1, 4], "updates_of": ["dense", "tuned", "plain"], "untouched": 4,
    "curve": [6], "noise": 0.5, "imbalance": 0.5, "variants_of": ["tuned"], "general_rows": 10,
}  # fmt: skip
SYSTEMS = {
    "plain": {},
    "dense": {"retrieval": "dense"},
    "oracle": {"retrieval": "oracle"},
    "tuned": {"learns": ["questions", "documents"]},
    "tuned-dense": {"learns": ["questions", "documents"], "retrieval": "dense"},
}
CLAIMS = [
    {"id": "finds", "text": "the right passages help", "a": "oracle", "b": "plain", "metric": "nll"},
    {"id": "data", "text": "more data help", "a": "tuned", "b": "tuned@6", "metric": "nll"},
    {"id": "cheap", "text": "nothing is cheaper", "a": "plain", "b": "tuned", "metric": "training_flops"},
    {"id": "follows", "text": "retrieval follows edits", "a": "dense", "b": "tuned", "metric": "updated_4"},
    {"id": "unharmed", "text": "others stay", "a": "dense", "b": "tuned", "metric": "unharmed_4"},
    {"id": "dear", "text": "tuning is cheaper", "a": "tuned", "b": "plain", "metric": "training_flops"},
]
STAGED = {"rungs": ["plain", "dense", "oracle"], "metric": "nll"}


@pytest.fixture(scope="module")
def general_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("general") / "general.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in GENERAL))
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory, module_spec, general_file):
    folder = tmp_path_factory.mktemp("measures") / "run"
    spec = module_spec(
        folder, systems=SYSTEMS, measure=MEASURE | {"general": str(general_file)}, claims=CLAIMS, staged=STAGED
    )
    return folder, compare(spec, quiet=True), spec


def test_every_part_is_measured_of_every_system_that_has_it(finished):
    _, document, _ = finished
    for name, figures in document["systems"].items():
        retrieves = SYSTEMS[name].get("retrieval") is not None
        assert {"wording_agreement", "wording_worst", "bits_per_byte", "kl_to_base", "choice_accuracy"} <= set(
            figures
        )
        assert ("follows_passage" in figures) == retrieves, name
        assert ("updated_4" in figures) == (name in MEASURE["updates_of"]), name
        assert {"components", "setup_steps", "memory_bytes", "tokens_per_s", "answer_flops"} <= set(figures)
    assert set(document["variants"]) == {"tuned@6", "tuned@noise", "tuned@imbalance", "tuned@balance"}
    assert [point["questions"] for point in document["curves"]["tuned"]] == [6, 13]


def test_what_is_not_tuned_has_not_moved_from_the_base(finished):
    _, document, _ = finished
    systems = document["systems"]
    base = systems["plain"]["bits_per_byte"]["value"]
    assert systems["plain"]["kl_to_base"]["value"] == systems["dense"]["kl_to_base"]["value"] == 0.0
    assert systems["dense"]["bits_per_byte"]["value"] == base
    assert systems["tuned"]["kl_to_base"]["value"] > 0 and systems["tuned"]["bits_per_byte"]["value"] != base
    # Both answer with the same generator, so that the two trainings were one.
    assert systems["tuned-dense"]["kl_to_base"] == systems["tuned"]["kl_to_base"]


def test_an_edit_costs_retrieval_an_embedding_and_tuning_a_training(finished):
    folder, document, _ = finished
    systems = document["systems"]
    assert systems["plain"]["update_flops_4"]["value"] == 0.0
    assert 0 < systems["dense"]["update_flops_1"]["value"] < systems["dense"]["update_flops_4"]["value"]
    assert systems["tuned"]["update_flops_4"]["value"] > 10 * systems["dense"]["update_flops_4"]["value"]
    lessons = (folder / "workload-edited-4" / "questions.jsonl").read_text().splitlines()
    assert sum("I would like to know" in line for line in lessons) == 4  # the edited facts, in other words
    documents = (folder / "workload-edited-4" / "documents.jsonl").read_text()
    assert documents != (folder / "workload" / "documents.jsonl").read_text()


def test_the_index_that_all_share_is_as_it_was(finished):
    folder, _, _ = finished
    (place,) = [one for one in folder.glob("index-*") if one.is_dir()]
    with Index(place) as index:
        assert index.version == 1 and len(index.documents) == 12


def test_claims_and_rungs_are_judged_as_their_contrasts_fall(finished):
    _, document, _ = finished
    verdicts = {one["id"]: one["verdict"] for one in document["claims"]}
    assert (verdicts["cheap"], verdicts["dear"]) == ("supported", "refuted")
    # Every system is asked the same after edits, whatever it knew before.
    followed = next(one for one in document["claims"] if one["id"] == "follows")
    assert followed["test"] == "bootstrap" and followed["difference"] is not None
    assert verdicts["data"] in ("supported", "refuted", "undetermined")
    assert [step["rung"] for step in document["staged"]["steps"]] == ["dense", "oracle"]
    standing = document["staged"]["stands"]
    accepted = [step["rung"] for step in document["staged"]["steps"] if step["accepted"]]
    assert standing == (accepted[-1] if accepted else "plain")


def test_a_share_of_the_questions_stands_on_a_curve_at_their_number():
    points = curve_points(MeasureSection(curve=[0.5, 50, 0.25]), "tuned", 72)
    assert points == [(18, "tuned@0.25"), (36, "tuned@0.5"), (50, "tuned@50"), (72, "tuned")]


def test_each_system_is_trained_in_the_ways_that_are_asked_of_it(module_spec, tmp_path):
    measure = {"curve": [6], "imbalance": 0.5, "variants_of": ["tuned", "plain"], "imbalance_of": "tuned-dense"}
    spec = module_spec(tmp_path, systems=SYSTEMS, measure=measure)
    assert {name: spec.variants_for(name) for name in spec.systems if spec.variants_for(name)} == {
        "tuned": ("6",), "tuned-dense": ("imbalance", "balance")
    }  # fmt: skip
    assert spec.varied == ("tuned", "tuned-dense")
    assert [arm.label for arm in arms_of(spec) if arm.variant] == [
        "tuned@6", "tuned-dense@imbalance", "tuned-dense@balance"
    ]  # fmt: skip
    with pytest.raises(ValidationError, match="'tuned@imbalance' is none of the systems"):
        module_spec(tmp_path, systems=SYSTEMS, measure=measure, primary=[{"a": "plain", "b": "tuned@imbalance"}])


def test_nothing_is_measured_twice(finished, monkeypatch):
    _, document, spec = finished
    for name in ("measure_wordings", "measure_counterfactuals", "measure_updates", "ask_all"):
        monkeypatch.setattr(measuring, name, lambda *_, name=name: pytest.fail(f"{name} again"))
    assert compare(spec, quiet=True) == document


def test_more_edits_than_documents_are_refused_before_anything_is_trained(tmp_path, module_spec):
    spec = module_spec(tmp_path / "out", systems={"plain": {}}, measure={"updates": [500]})
    with pytest.raises(DataError, match=r"500 documents cannot be edited: \d+ state the answer"):
        compare(spec, quiet=True)
    assert not (tmp_path / "out" / "trained").exists()


def test_a_curve_beyond_the_data_is_refused(tmp_path, module_spec):
    spec = module_spec(tmp_path / "out", systems=SYSTEMS, measure={"curve": [5000]})
    with pytest.raises(DataError, match="no smaller number"):
        compare(spec, quiet=True)


def test_the_shipped_claims_are_a_spec_that_brings_its_general_text(tmp_path):
    copied = copy_recipe("compare/claims", tmp_path)
    spec = load_compare_spec(copied[0])
    assert spec.measure.general == (str(tmp_path / "general.jsonl"),)
    assert len({one.id for one in spec.claims}) == len(spec.claims) >= 20


def test_each_of_the_six_methods_is_a_system_of_its_own(tmp_path, module_spec):
    methods = ("full", "lora", "qlora", "prefix", "prompt", "adapter")
    systems = {one: {"learns": ["questions"], "generator": {"recipe": one}} for one in methods}
    # One unit of a model this narrow may never be on.
    systems["adapter"]["generator"]["method"] = {"reduction_factor": 2}
    document = compare(module_spec(tmp_path / "six", systems=systems), quiet=True)
    parameters = {name: figures["trained_parameters"]["value"] for name, figures in document["systems"].items()}
    assert list(document["systems"]) == list(methods) and len(set(parameters.values())) >= 5
    assert max(parameters, key=lambda name: parameters[name]) == "full"
    assert len({figures["nll"]["value"] for figures in document["systems"].values()}) == 6
    assert set(document["kinds"].values()) == {"fine-tuning"}
