"""Mixtures and memories as recipes: chosen on dev questions, measured on others, and opened as what they were."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest

from ftkit.errors import DataError, OutputError, UsageError
from ftkit.hybrid import weighed
from ftkit.hybrid.checking import check_hybrid
from ftkit.hybrid.course import hybrid_questions
from ftkit.hybrid.datastore import build_datastore
from ftkit.hybrid.mixture import MixtureSystem
from ftkit.hybrid.nearest import NearestSystem
from ftkit.hybrid.opening import open_hybrid
from ftkit.hybrid.remembered import Pair
from ftkit.hybrid.remembering import remembered_of
from ftkit.hybrid.rereading import answers_of
from ftkit.hybrid.run import resume_hybrid, run_hybrid
from ftkit.hybrid.weights import TIED
from ftkit.notices import log
from ftkit.pipeline.target import open_target
from ftkit.rag.proving import check_distance, scores
from ftkit.rag.questions import read_questions, split_questions
from ftkit.rag.settings import AnsweringDefaults, write_defaults
from ftkit.rag.threshold import StoredThreshold, generator_sha256, write_threshold
from ftkit.recipe import HybridRecipe
from tests.hybrid.conftest import rows
from tests.hybrid.targets import random_target
from tests.tiny import tiny_tokenizer

HELD_BACK = 0.3
ASKED = ["Who is the mayor of Oum?", "What colour has the rake?", "The mayor of the town Lir is who?"]


@pytest.fixture(scope="module")
def world(topics, tmp_path_factory):
    """Two models that say different things, an index of towns, and a third of the questions."""
    folder = tmp_path_factory.mktemp("weighed")
    for seed, name in ((1, "tuned"), (2, "reader")):
        target = random_target(seed, max_position_embeddings=1024)
        target.model.save_pretrained(folder / name)
        tiny_tokenizer().save_pretrained(folder / name)
    shutil.copytree(topics / "towns-index", folder / "index")
    (folder / "dev.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows()[::3]))
    _, held = split_questions(read_questions(folder / "dev.jsonl"), HELD_BACK)
    told = [{"question": one.question, "answers": one.answers} for one in held]
    (folder / "held.jsonl").write_text("".join(json.dumps(row) + "\n" for row in told))
    return folder


@pytest.fixture
def mixture(world, tmp_path):
    return {
        "recipe": "hybrid",
        "kind": "mixture",
        "members": {
            "tuned": {"path": str(world / "tuned")},
            "docs": {"path": str(world / "reader"), "index": str(world / "index"), "passages": 2},
        },
        "data": {"train": str(world / "dev.jsonl"), "validation": HELD_BACK},
        "answer": {"max_new_tokens": 5},
        "output": str(tmp_path / "run"),
    }


@pytest.fixture
def memory(mixture):
    return mixture | {
        "kind": "memory",
        "members": {"docs": mixture["members"]["docs"]},
        "memory": {"neighbours": 4, "precision": "float32"},
    }


def made(values, **changes):
    return run_hybrid(HybridRecipe.model_validate(values | changes), quiet=True)


def nats(system, questions):
    """A token, over the first answers of some questions."""
    losses = [system.answer_nll(one.question, system.retrieve(one.question), one.answers[0]) for one in questions]
    return sum(one.mean * one.tokens for one in losses) / sum(one.tokens for one in losses)


def test_a_mixture_is_opened_as_what_was_measured(mixture, world):
    result = made(mixture).result
    system = open_hybrid(mixture["output"])
    train, held = hybrid_questions(HybridRecipe.model_validate(mixture))

    assert isinstance(system, MixtureSystem)
    assert generator_sha256(system.tuned) == generator_sha256(open_target(world / "tuned"))
    assert (system.weight, system.temperature) == (result["weight"], result["temperature"])
    assert nats(system, train) == pytest.approx(result["dev"]["nll"], abs=1e-5)
    assert len(held) == result["held_back"] == result["validation"]["questions"] > 0
    assert nats(system, held) == pytest.approx(result["validation"]["nll"], abs=1e-5)
    for side, asked in (("dev", train), ("validation", held)):
        alone, best = result[side]["halves"]
        assert nats(replace(system, weight=0.0), asked) == pytest.approx(alone, abs=1e-5)
        assert best is not None
    (point,) = (one for one in result["choice"]["curve"] if (one["weight"], one["temperature"]) == (0.5, 0.2))
    assert nats(replace(system, weight=0.5, temperature=0.2), train) == pytest.approx(point["nll"], abs=1e-5)
    in_memory = replace(system, generator=open_target(world / "reader"), tuned=open_target(world / "tuned"))
    assert answers_of(system, ASKED) == answers_of(in_memory, ASKED)


def test_a_memory_is_opened_as_what_was_measured_and_never_chosen_by_what_it_remembers(memory, tmp_path):
    result = made(memory).result
    system = open_hybrid(memory["output"])
    train, held = hybrid_questions(HybridRecipe.model_validate(memory))

    assert isinstance(system, NearestSystem)
    told = result["memory"]
    assert told["answers"] + result["choice"]["questions"] == len(train) and min(told["answers"], len(held)) > 0
    assert told["entries"] == system.datastore.entries
    # The same memory, built here from the passages and the half of the questions that did not choose.
    remembered = remembered_of(HybridRecipe.model_validate(memory), "docs", system, train, held)
    assert {one.question for one in remembered.dev}.isdisjoint({one.question for one in remembered.pairs})
    documents = {name for one in remembered.dev for name in one.documents}
    pairs = {one.question: one for one in train}
    assert documents.isdisjoint(name for one in remembered.pairs for name in pairs[one.question].documents)
    contents = [
        *sorted(one.content for one in system.index.all_passages()),
        *(
            Pair(
                question=one.question,
                answer=pairs[one.question].answers[0],
                passages=tuple(hit.passage.content for hit in system.retrieve(one.question)),
            )
            for one in remembered.pairs
        ),
    ]
    store = build_datastore(system.generator, contents, tmp_path / "own", precision="float32")
    assert store.sha256 == system.datastore.sha256
    assert answers_of(system, ASKED) == answers_of(replace(system, datastore=store), ASKED)
    assert nats(system, remembered.dev) == pytest.approx(result["dev"]["nll"], abs=1e-5)
    assert nats(system, held) == pytest.approx(result["validation"]["nll"], abs=1e-5)


@pytest.mark.parametrize("changes", [{"weight": 0.6}, {"temperature": 30.0}, {"neighbours": 3}])
def test_an_export_is_held_to_likelihoods_that_show_another_weight_or_memory(memory, changes):
    made(memory)
    system = replace(open_hybrid(memory["output"]), weight=0.5, temperature=3.0, neighbours=4)
    before, again, after = (answers_of(one, ASKED) for one in (system, system, replace(system, **changes)))

    assert check_distance("scores_match", ASKED, before, again, scores).passed
    assert not check_distance("scores_match", ASKED, before, after, scores).passed


@pytest.mark.parametrize("kind", ["mixture", "memory"])
def test_the_weight_is_never_worse_on_dev_questions_than_either_half(request, kind):
    finished = made(request.getfixturevalue(kind))
    result = finished.result

    assert result["dev"]["nll"] <= min(one for one in result["dev"]["halves"] if one is not None) + TIED
    assert {point["weight"] for point in result["choice"]["curve"]} >= {0.0, 0.5, 1.0}
    page = (finished.folder / "report.html").read_text()
    assert "Nats a token" in page and "<svg" in page


def test_where_one_half_answers_everything_it_says_so(mixture):
    result = made(mixture, mixture={"weights": []}).result  # no weight but 0 and 1

    name = ["tuned", "docs"][int(result["weight"])]
    assert result["because"].startswith(f"{name} answers everything")


def test_a_run_that_was_moved_answers_as_before_without_its_members_threshold(memory, world, tmp_path):
    shutil.copytree(world / "index", tmp_path / "index")
    memory["members"] = {
        "docs": memory["members"]["docs"] | {"index": str(tmp_path / "index"), "retrieval": "lexical"}
    }
    conditions = {"mode": "lexical", "passages": 2, "hops": 1, "reranker_sha256": None, "reranked": 0}
    stored = StoredThreshold(
        threshold=99.0, max_risk=0.1, coverage=0.0, risk=0.0, questions=1, data_sha256="0",
        generator=generator_sha256(open_target(world / "reader")), **conditions,
    )  # fmt: skip
    write_threshold(tmp_path / "index", stored)
    checked = check_hybrid(HybridRecipe.model_validate(memory))
    before = answers_of(open_hybrid(made(memory).folder), ASKED)
    moved = shutil.move(memory["output"], tmp_path / "elsewhere")

    assert any("its threshold was chosen for its own" in one for one in checked["warnings"])
    assert not any(one["abstained"] for one in before)
    assert answers_of(open_hybrid(moved), ASKED) == before


@pytest.mark.parametrize("kind", ["mixture", "memory"])
def test_a_run_that_was_cut_off_goes_on_without_reading_anew(request, monkeypatch, kind):
    values, system = request.getfixturevalue(kind), {"mixture": MixtureSystem, "memory": NearestSystem}[kind]
    parts, read, built = system.parts, [], []

    def cut_off(*given):
        read.append(given[1])
        if len(read) == 4:
            raise KeyboardInterrupt
        return parts(*given)

    def building(*given, **options):
        built.append(given)
        return build_datastore(*given, **options)

    monkeypatch.setattr(system, "parts", cut_off)
    monkeypatch.setattr(weighed, "build_datastore", building)
    with pytest.raises(KeyboardInterrupt):
        made(values)
    with pytest.raises(DataError, match="not finished"):
        open_hybrid(values["output"])
    with (request.getfixturevalue("tmp_path") / "run" / "answers" / "parts.jsonl").open("a") as stream:
        stream.write('{"key": "cut')
    finished = resume_hybrid(values["output"], quiet=True)

    assert len(read) - 1 == finished.result["choice"]["questions"] + finished.result["held_back"]
    assert len(built) == (kind == "memory")
    assert made(values).result == finished.result  # nothing is left to do
    other = made(values, output=values["output"] + "-other").result
    assert {**other, "wall_s": 0} == {**finished.result, "wall_s": 0}


@pytest.mark.parametrize(
    ("kind", "changes", "error", "fault"),
    [
        ("mixture", {"members": {"tuned": "TUNED", "plain": "READER"}}, UsageError, "neither is given passages"),
        ("mixture", {"members": {"towns": "INDEX", "more": "INDEX"}}, UsageError, "both are given passages"),
        ("memory", {"members": {"plain": "TUNED"}}, UsageError, r"members\.plain: has no documents of its own"),
        ("memory", {"memory": {"questions": "DEV"}}, DataError, r"of its questions are in data\.train too"),
        ("memory", {"memory": {"questions": "HELD"}}, DataError, r"of its questions are held back too"),
        ("memory", {"memory": {"texts": ["MISSING"]}}, DataError, "MISSING"),
    ],
)
def test_what_cannot_be_joined_is_refused_before_anything_is_asked(request, world, kind, changes, error, fault):
    places = {"TUNED": "tuned", "READER": "reader", "INDEX": "index", "DEV": "dev.jsonl", "HELD": "held.jsonl"}

    def placed(value):
        if isinstance(value, dict):
            return {key: placed(one) for key, one in value.items()}
        return str(world / places[value]) if isinstance(value, str) and value in places else value

    if "members" in changes:
        changes = {"members": {name: {"path": placed(one)} for name, one in changes["members"].items()}}
    recipe = HybridRecipe.model_validate(request.getfixturevalue(kind) | placed(changes))

    for verb in (check_hybrid, lambda one: run_hybrid(one, quiet=True)):
        with pytest.raises(error, match=fault):
            verb(recipe)


def test_a_check_counts_what_would_be_remembered(memory):
    found = check_hybrid(HybridRecipe.model_validate(memory))
    told = made(memory).result["memory"]

    assert found["encoder"] is None
    assert {key: found["memory"][key] for key in ("texts", "answers", "entries")} == {
        key: told[key] for key in ("texts", "answers", "entries")
    }
    assert abs(found["memory"]["bytes"] - told["bytes"]) < 1000


def test_another_text_or_member_is_refused_in_the_same_folder(memory, world, tmp_path):
    (tmp_path / "note.txt").write_text("The mayor of Oum is Kim9.")
    values = memory | {
        "members": {"plain": {"path": str(world / "tuned")}},
        "memory": {"texts": [str(tmp_path / "note.txt")], "questions": False},
    }
    folder = made(values).folder
    assert open_hybrid(folder).datastore.entries > 0  # neither index nor encoder is needed
    with pytest.raises(OutputError, match=r"members\.plain"):
        made(values | {"members": {"plain": {"path": str(world / "reader")}}})
    (tmp_path / "note.txt").write_text("The mayor of Oum is Ben3.")
    with pytest.raises(OutputError, match="remembered"):
        made(values)


def test_a_weight_that_was_written_over_is_refused(mixture, tmp_path):
    folder = made(mixture).folder
    values = json.loads((folder / "weight.json").read_text())
    for changes in ({"format_version": 2}, {"weight": "all"}, {"first": "other"}, {"more": 1}):
        (folder / "weight.json").write_text(json.dumps(values | changes))
        with pytest.raises(DataError, match="cannot be read"):
            open_hybrid(folder)
    (folder / "weight.json").write_text(json.dumps(values | {"weight": 2}))
    with pytest.raises(UsageError, match="is no share"):
        open_hybrid(folder)


@pytest.mark.parametrize("kind", ["mixture", "memory"])
def test_another_search_is_refused_where_its_scores_chose_and_warned_of_elsewhere(
    request, world, tmp_path, caplog, monkeypatch, kind
):
    monkeypatch.setattr(log, "propagate", True)
    values = request.getfixturevalue(kind)
    shutil.copytree(world / "index", tmp_path / "index")
    docs = values["members"]["docs"] | {"index": str(tmp_path / "index")}
    folder = made(values, members=values["members"] | {"docs": docs}).folder
    caplog.clear()
    open_hybrid(folder)
    assert "otherwise" not in caplog.text
    write_defaults(tmp_path / "index", AnsweringDefaults(mode="dense", passages=1, max_new_tokens=8))

    changed = r"mode dense, not lexical"
    if kind == "mixture":
        with pytest.raises(DataError, match=rf"members\.docs: passages are found otherwise.*\({changed}\)"):
            open_hybrid(folder)
    else:
        open_hybrid(folder)
        assert "passages of docs are found otherwise" in caplog.text and changed in caplog.text
