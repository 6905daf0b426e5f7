"""Whole comparisons on tiny models: what is there, what is done again, and what is refused."""

from __future__ import annotations

import json

import pytest

from ftkit.compare import measuring
from ftkit.compare import run as running
from ftkit.compare.run import compare
from ftkit.errors import DataError, Interrupted, OutputError, RecipeError, ResourceError
from ftkit.recipe import load_compare_spec

SYSTEMS = ["closed-book", "closed-book-tuned", "dense", "oracle", "reader", "joint"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, module_spec):
    folder = tmp_path_factory.mktemp("compare") / "run"
    spec = module_spec(folder, systems=SYSTEMS, equal_flops="joint")
    return folder, compare(spec, quiet=True), spec


def test_every_system_has_its_figures_with_intervals_and_costs(finished):
    folder, document, _ = finished
    assert list(document["systems"]) == SYSTEMS
    for name, figures in document["systems"].items():
        assert figures["nll"]["low"] <= figures["nll"]["value"] <= figures["nll"]["high"]
        assert ("recall_at_5" in figures) == (not name.startswith("closed-book"))
        assert (figures["training_flops"]["value"] > 0) == (name in ("closed-book-tuned", "reader", "joint"))
    assert document["systems"]["oracle"]["recall_at_1"]["value"] == 1.0
    assert document["scale"]["test_questions"] == 12 and not document["waiting"]
    assert json.loads((folder / "comparison.json").read_text()) == document


def test_systems_are_given_the_operations_of_the_one_that_is_named(finished):
    _, document, _ = finished
    flops = {name: figures["training_flops"]["value"] for name, figures in document["systems"].items()}
    steps = {name: figures["training_steps"]["value"] for name, figures in document["systems"].items()}
    for name in ("reader", "closed-book-tuned"):
        one_step = flops[name] / steps[name]
        assert abs(flops[name] - flops["joint"]) < 2 * one_step, (name, flops)


def test_the_page_needs_nothing_and_names_every_system(finished):
    folder, document, _ = finished
    page = (folder / "comparison.html").read_text()
    assert all(name in page for name in SYSTEMS)
    assert "src=" not in page and "http://" not in page.replace("http://www.w3.org", "")
    assert "Another scale may give another order" in page
    assert len(document["tests"]) == 4


def test_what_was_done_is_taken_as_it_is(finished, monkeypatch):
    _, document, spec = finished
    monkeypatch.setattr(measuring, "ask_all", lambda *_: pytest.fail("asked again"))
    again = compare(spec, quiet=True)
    assert again == document


def test_a_changed_setting_asks_again_only_whom_it_touches(finished, module_spec, monkeypatch):
    folder, _, _ = finished
    asked = []
    before = measuring.ask_all

    def noted(seat, *rest):
        asked.append(seat.arm.name)
        return before(seat, *rest)

    monkeypatch.setattr(measuring, "ask_all", noted)
    wider = {**dict.fromkeys(SYSTEMS), "wide": {"retrieval": "dense", "passages": 2}}
    document = compare(module_spec(folder, systems=wider, equal_flops="joint"), quiet=True)
    assert asked == ["wide"]
    assert list(document["systems"]) == [*SYSTEMS, "wide"]


def test_a_comparison_that_was_stopped_goes_on_to_the_same_figures(tmp_path, module_spec, monkeypatch):
    systems = ["dense", "oracle", "bm25"]
    whole = compare(module_spec(tmp_path / "whole", systems=systems), quiet=True)
    before, count = measuring.ask_all, []

    def stop(*given):
        count.append(1)
        if len(count) == 2:
            raise Interrupted("stopped")
        return before(*given)

    monkeypatch.setattr(measuring, "ask_all", stop)
    with pytest.raises(Interrupted, match=r"oracle: stopped\n.*same command goes on"):
        compare(module_spec(tmp_path / "cut", systems=systems), quiet=True)
    half = json.loads((tmp_path / "cut" / "comparison.json").read_text())
    assert list(half["systems"]) == ["dense"]  # what was measured so far can be looked at
    resumed = compare(module_spec(tmp_path / "cut", systems=systems), quiet=True)
    assert len(count) == 4

    def quality(document):
        return {
            name: {key: figures[key]["value"] for key in ("nll", "exact_match", "recall_at_5")}
            for name, figures in document["systems"].items()
        }

    assert quality(resumed) == quality(whole)


def test_another_number_of_searches_is_another_answer(tmp_path, module_spec, monkeypatch):
    spec = module_spec(tmp_path / "out", systems=["dense"])
    compare(spec, quiet=True)
    asked, before = [], measuring.ask_all

    def noted(*given):
        asked.append(given[0].system.hops)
        return before(*given)

    monkeypatch.setattr(measuring, "ask_all", noted)
    compare(spec.model_copy(update={"answer": spec.answer.model_copy(update={"hops": 2})}), quiet=True)
    assert asked == [2]


def test_test_questions_that_are_trained_on_are_refused(tmp_path, module_spec, shed):
    leaked = tmp_path / "leaked.jsonl"
    leaked.write_text((shed / "test.jsonl").read_text() + (shed / "train.jsonl").read_text().splitlines()[0] + "\n")
    spec = module_spec(tmp_path / "out")
    spec = spec.model_copy(update={"data": spec.data.model_copy(update={"test": str(leaked)})})
    with pytest.raises(DataError, match=r"1 test questions are also in the training questions: .*leaked\.jsonl:13"):
        compare(spec, quiet=True)
    assert not (tmp_path / "out").exists()


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path, module_spec):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError):
        compare(module_spec(tmp_path), quiet=True)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_too_little_time_is_said_before_anything_is_trained(tmp_path, module_spec):
    with pytest.raises(ResourceError, match="minutes at least"):
        compare(module_spec(tmp_path / "out", budget=0.0001), quiet=True)


def test_when_time_is_over_the_rest_waits_and_the_next_call_does_it(tmp_path, module_spec, monkeypatch):
    spec = module_spec(tmp_path / "out", systems=["dense", "oracle"], budget=100.0)
    clock = iter([0.0, 1.0, 7000.0])
    monkeypatch.setattr(running, "clock", lambda: next(clock))
    first = compare(spec, quiet=True)
    assert (list(first["systems"]), first["waiting"]) == (["dense"], ["oracle"])
    monkeypatch.undo()
    second = compare(spec, quiet=True)
    assert (list(second["systems"]), second["waiting"]) == (["dense", "oracle"], [])


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("systems=[nope]", "no rung of the ladder is called nope"),
        ("systems={a: {retrieval: none, stages: [reader]}}", "stages need passages"),
        ("systems={a: {retrieval: lexical, stages: [retriever]}}", "a trained retriever is not asked"),
        ("equal_flops=dense", "no system with the stage reader"),
        ("systems={x: {retrieval: dense, generator: {recipe: lora, method: {rnak: 8}}}}", "Did you mean 'rank'"),
        ("primary=[{a: joint, b: nope}]", "'nope' is none of the systems"),
        ("recipe=rag", "ftkit rag train"),
        ("model.chat_template=chatml", "prompts would differ"),
        ("seeds=[]", "should not be empty"),
    ],
)
def test_a_fault_in_a_spec_is_named(tmp_path, override, words):
    path = tmp_path / "spec.yaml"
    path.write_text(
        "recipe: compare\nmodel: {path: m}\ncorpus: docs\ndata: {train: a.jsonl, test: b.jsonl}\nsystems: ladder\n"
    )
    with pytest.raises(RecipeError) as caught:
        load_compare_spec(path, [override])
    assert words in str(caught.value)
