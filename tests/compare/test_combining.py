"""Combinations of systems: a router, a mixture, a model with a memory, measured like any other."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from ftkit.compare.combining import with_new_memory
from ftkit.compare.run import compare
from ftkit.hybrid.combining import pairs_of
from ftkit.hybrid.datastore import build_datastore
from ftkit.hybrid.mixture import MixtureSystem
from ftkit.hybrid.nearest import NearestSystem
from ftkit.hybrid.remembered import source_of
from ftkit.rag.encoder import EncoderPair, load_encoder
from ftkit.rag.index import create_index
from ftkit.rag.questions import AskedQuestion
from ftkit.rag.settings import IndexSettings
from tests.hybrid.targets import random_target

SYSTEMS = {
    "plain": {},
    "tuned": {"learns": ["questions"]},
    "dense": {"retrieval": "dense"},
    "routed": {"combines": {"kind": "router", "of": ["tuned", "dense"]}},
    "mixed": {"combines": {"kind": "mixture", "of": ["tuned", "dense"]}},
    "remembers": {"combines": {"kind": "memory", "of": "tuned", "neighbours": 4}},
}
MEASURE = {"wordings": 3, "counterfactuals": 4, "updates": [3]}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, module_spec):
    folder = tmp_path_factory.mktemp("combining") / "run"
    spec = module_spec(folder, systems=SYSTEMS, measure=MEASURE, seeds=[0, 1])
    return folder, compare(spec, quiet=True), spec


def test_a_combination_is_measured_like_any_other_system(finished):
    _, document, _ = finished
    systems = document["systems"]
    assert list(systems) == list(SYSTEMS)
    assert all("wording_agreement" in figures for figures in systems.values())
    assert {"follows_passage", "updated_3"} <= set(systems["mixed"])
    assert "updated_3" in systems["remembers"] and "follows_passage" not in systems["remembers"]
    # A router that was not promoted is what its best member is.
    assert [document["kinds"][name] for name in ("routed", "mixed", "remembers")] == ["rag", "hybrid", "hybrid"]
    assert systems["mixed"]["training_flops"] == systems["tuned"]["training_flops"]
    assert len(document["lifecycle"]["mixed"]["components"]) > len(document["lifecycle"]["tuned"]["components"])


def test_a_router_answers_as_the_member_that_it_sends_a_question_to(finished):
    folder, document, _ = finished
    choices = [json.loads(path.read_text()) for path in folder.glob("answers/routed-*-choice.json")]
    assert len(choices) == 2  # a seed each
    if not any(one["promoted"] for one in choices):
        (best,) = {one["best_member"] for one in choices}  # dense, as the members are hardly trained
        assert document["systems"]["routed"]["nll"]["value"] == document["systems"][best]["nll"]["value"]


def test_what_was_chosen_by_held_back_questions_is_never_worse_on_them_than_its_ends(finished):
    folder, _, _ = finished
    for name in ("mixed", "remembers"):
        paths = list(folder.glob(f"answers/{name}-*-choice.json"))
        assert len(paths) == 2
        for path in paths:
            choice = json.loads(path.read_text())
            ends = [point["nll"] for point in choice["curve"] if point["weight"] in (0.0, 1.0) and point["nll"]]
            assert choice["nll"] <= min(ends) + 1e-6 and choice["questions"] > 0


def test_after_an_edit_a_memory_has_neither_what_stood_there_nor_what_was_answered_from_it(tmp_path, tiny_encoder):
    reader, pair = random_target(1), EncoderPair(load_encoder(str(tiny_encoder)))
    asked = [
        AskedQuestion(question=f"What is {name}?", answers=(answer,), documents=(name,), id=name)
        for name, answer in (("a", "iron"), ("b", "clay"))
    ]
    settings = IndexSettings(encoder=str(tiny_encoder), encoder_sha256=pair.sha256, width=16)
    with create_index(tmp_path / "index", settings) as index:
        store = build_datastore(reader, ["It is iron.", *pairs_of(asked, None)], tmp_path / "memory")
        before = NearestSystem(
            index=index, encoders=pair, generator=reader, mode="lexical", datastore=store, weight=0.5, neighbours=2
        )
        after = with_new_memory(before, ["It is gold."], asked[:1], tmp_path / "now")

    left = {one for one in after.memory.sources if not one.is_any_of(after.memory.forgotten)}
    there, gone = (
        {source_of(one) for one in texts}
        for texts in (["It is iron.", "It is gold.", *pairs_of(asked[1:], None)], pairs_of(asked[:1], None))
    )
    assert left == there and not gone & left
    assert store.entries < after.datastore.entries and before.memory.forgotten == frozenset()


def test_it_goes_on_with_what_is_there(finished, monkeypatch):
    _, document, spec = finished
    for system in (MixtureSystem, NearestSystem):
        monkeypatch.setattr(system, "parts", lambda *_: pytest.fail("weighed again"))
    assert compare(spec, quiet=True) == document


@pytest.mark.parametrize(
    ("systems", "words"),
    [
        ({"a": {}, "b": {"combines": {"kind": "router", "of": ["a"]}}}, "a router is of two at least"),
        ({"a": {}, "b": {"combines": {"kind": "memory", "of": ["b"]}}}, "'b' is no system that can be combined"),
        (
            {"a": {}, "b": {}, "c": {"combines": {"kind": "mixture", "of": ["a", "b"]}}},
            "one without retrieval and one",
        ),
        ({"a": {}, "b": {"retrieval": "dense", "combines": {"kind": "memory", "of": ["a"]}}}, "is what its systems"),
    ],
)
def test_a_combination_of_nothing_is_refused(tmp_path, module_spec, systems, words):
    with pytest.raises(ValidationError, match=words):
        module_spec(tmp_path, systems=systems)


def test_a_combination_needs_questions_that_nothing_else_learnt_from(tmp_path, module_spec, shed):
    data = {"train": str(shed / "train.jsonl"), "test": str(shed / "test.jsonl"), "validation": None}
    with pytest.raises(ValidationError, match="held back, and there are none"):
        module_spec(tmp_path, systems=SYSTEMS, data=data)
