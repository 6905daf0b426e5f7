"""Rerankers: what is loaded, what is refused, what a score is of, and where in a system it is taken for what."""

from __future__ import annotations

import json

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from ftkit.errors import DataError, ModelError
from ftkit.models import find
from ftkit.models.find_reranker import find_reranker
from ftkit.notices import log
from ftkit.rag.building import answering_defaults
from ftkit.rag.document import Document
from ftkit.rag.evaluation import evaluate_rag
from ftkit.rag.index import create_index
from ftkit.rag.opening import Reranking, open_system
from ftkit.rag.questions import AskedQuestion
from ftkit.rag.reranker import load_reranker
from ftkit.rag.run import run_rag
from ftkit.rag.settings import AnsweringDefaults, IndexSettings, read_defaults, write_defaults
from ftkit.recipe import RagRecipe
from ftkit.recipe.compare import CompareSpec
from tests.cli.running import ftkit
from tests.rag.rerankers import MARKED, reranker_folder, rigged_folder
from tests.rag.shed import shed_recipe, write_shed
from tests.rag.systems import keep_threshold

QUESTION = "Which apples are red?"


@pytest.fixture(scope="module")
def random_one(tmp_path_factory):
    return reranker_folder(tmp_path_factory.mktemp("reranker") / "random")


@pytest.fixture(scope="module")
def rigged(tmp_path_factory):
    return rigged_folder(tmp_path_factory.mktemp("reranker") / "rigged")


@pytest.fixture
def folder(tmp_path, tiny_encoder, tiny_llama, pair):
    """Four documents about apples; only the reranker cares which of them is marked."""
    settings = IndexSettings(
        encoder=str(tiny_encoder), encoder_sha256=pair.sha256, width=16, passage_tokens=40, generator=str(tiny_llama)
    )
    texts = {
        "plain": "Red apples, red apples.", "bad": "Red apples $.", "other": "Pears are green.", "good": "A pear #."
    }  # fmt: skip
    with create_index(tmp_path / "index", settings) as index:
        index.add([Document(id=name, text=text) for name, text in texts.items()], pair)
    return tmp_path / "index"


def order(hits):
    return [hit.passage.document for hit in hits]


def test_scores_are_the_logits_that_sentence_transformers_gives_whatever_their_company(random_one):
    from sentence_transformers import CrossEncoder
    from torch import nn

    passages = ["short", "A somewhat longer passage about a mill.", "x " * 40, "#"]
    theirs = CrossEncoder(str(random_one), device="cpu", activation_fn=nn.Identity())
    wanted = theirs.predict([("Where is the mill?", passage) for passage in passages])
    reranker = load_reranker(str(random_one))

    assert reranker.scores("Where is the mill?", passages) == pytest.approx(wanted.tolist(), abs=1e-5)
    assert len(set(wanted.tolist())) == 4
    for passage, score in zip(passages, wanted.tolist(), strict=True):
        assert reranker.scores("Where is the mill?", [passage]) == pytest.approx([score], abs=1e-5)
    assert reranker.scores("Where is the mill?", []) == []


def test_the_passage_is_cut_and_never_the_question(rigged):
    """64 tokens: three special ones, the question, the rest of the passage's letters."""
    reranker = load_reranker(str(rigged))
    long = "w" * 40

    assert reranker.scores("a #", [long * 2]) == pytest.approx([MARKED], abs=1e-4)  # the question's mark is read
    assert reranker.scores("a", ["w" * 59 + " #"]) == pytest.approx([MARKED], abs=1e-4)  # the 60th token of it
    assert reranker.scores("a", ["w" * 60 + " #"]) == [0.0]
    assert reranker.scores("w" * 60, ["#" + long]) == pytest.approx([MARKED], abs=1e-4)
    assert (reranker.excess("w" * 60), reranker.excess("w" * 63)) == (0, 3)
    with pytest.raises(
        DataError, match=r"a question of 3 tokens more than rigged reads beside a passage \(64 in all\)"
    ):
        reranker.scores("w" * 63, ["#"])


def test_hits_are_ordered_by_the_reranker_and_keep_the_ranks_that_they_had(folder, rigged):
    before = open_system(folder, mode="hybrid").retrieve(QUESTION, 4)
    system = open_system(folder, mode="hybrid", reranking=Reranking(reranker=str(rigged)))
    hits = system.retrieve(QUESTION, 4)

    assert hits[0].passage.document == "good" and hits[-1].passage.document == "bad"
    assert order(hits[1:3]) == [one for one in order(before) if one in ("plain", "other")]  # equal: as they were
    assert [hit.score for hit in hits] == pytest.approx([MARKED, 0.0, 0.0, -MARKED], abs=1e-4)
    assert [hit.ranks["reranked"] for hit in hits] == [1, 2, 3, 4]
    former = {hit.passage.document: hit.ranks for hit in before}
    assert {hit.passage.document: hit.ranks for hit in hits} == {
        name: ranks | {"reranked": order(hits).index(name) + 1} for name, ranks in former.items()
    }
    assert order(system.retrieve(QUESTION, 2)) == order(hits)[:2]  # however few are wanted, as many are read
    assert system.retrieve(QUESTION, 0) == []
    answer = system.ask(QUESTION)
    assert answer.citations[0].document == "good" and answer.citations[0].score == pytest.approx(MARKED, abs=1e-4)


def test_only_the_first_hits_are_read_and_the_others_follow_as_they_were(folder, rigged):
    before = open_system(folder, mode="dense").retrieve(QUESTION, 4)
    system = open_system(folder, mode="dense", reranking=Reranking(reranker=str(rigged), reranked=2))
    hits = system.retrieve(QUESTION, 4)

    assert hits[2:] == before[2:]
    assert set(order(hits[:2])) == set(order(before[:2]))
    assert all("reranked" in hit.ranks for hit in hits[:2])


def test_a_reranker_without_all_its_weights_is_refused_as_chance_would_decide(tmp_path):
    place = reranker_folder(tmp_path / "gap")
    weights = load_file(place / "model.safetensors")
    for name in ("classifier.weight", "bert.pooler.dense.bias"):
        others = {key: value for key, value in weights.items() if key != name}
        save_file(others, place / "model.safetensors", {"format": "pt"})
        with pytest.raises(ModelError, match="1 weights that decide its numbers are in none of its files"):
            load_reranker(str(place))


def config(place, **changes):
    path = place / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_what_cannot_be_loaded_safely_or_orders_nothing_is_refused(tmp_path, tiny_encoder, tiny_llama):
    with pytest.raises(ModelError, match="no such folder, and no hub id of a reranker"):
        load_reranker("rerankerr")
    for other in (tiny_encoder, tiny_llama):
        with pytest.raises(ModelError, match=r"is no reranker|asks for sentence_transformers"):
            load_reranker(str(other))
    with pytest.raises(ModelError, match="gives each pair 3 scores"):
        load_reranker(str(reranker_folder(tmp_path / "three", labels=3)))
    place = reranker_folder(tmp_path / "own-code")
    config(place, auto_map={"AutoModelForSequenceClassification": "model.Own"})
    with pytest.raises(ModelError, match="wants to run its own code"):
        load_reranker(str(place))
    place = reranker_folder(tmp_path / "prompted")
    (place / "config_sentence_transformers.json").write_text(
        json.dumps({"prompts": {"q": "Judge: "}, "default_prompt_name": "q"})
    )
    with pytest.raises(ModelError, match="wants a prompt in front of each pair"):
        load_reranker(str(place))
    place = reranker_folder(tmp_path / "pickled")
    (place / "model.safetensors").rename(place / "pytorch_model.bin")
    with pytest.raises(ModelError, match="pickle"):
        load_reranker(str(place))


def test_a_function_that_its_settings_name_is_not_called(tmp_path, random_one):
    place = reranker_folder(tmp_path / "named")
    settings = {"model_type": "CrossEncoder", "activation_fn": "torch.nn.modules.activation.Sigmoid"}
    (place / "config_sentence_transformers.json").write_text(json.dumps(settings))
    named, plain = load_reranker(str(place)), load_reranker(str(random_one))

    assert named.scores("a", ["b c", "d"]) == plain.scores("a", ["b c", "d"])  # logits, beyond 0 to 1
    assert named.sha256 == plain.sha256


@pytest.fixture
def asked_of_the_hub(monkeypatch):
    asked = []

    def snapshot(name, *, local_files_only, **_):
        asked.append((name, local_files_only))
        raise LocalEntryNotFoundError("not cached")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    monkeypatch.setattr(find, "is_hub_offline", lambda: False)
    monkeypatch.setattr(find, "_hub_bytes", lambda _: 0)
    monkeypatch.setattr(
        huggingface_hub.HfApi, "model_info", lambda *_, **__: type("Info", (), {"siblings": []})(), raising=False
    )
    return asked


def test_a_strangers_index_cannot_make_a_reranker_be_fetched_and_naming_one_can(folder, asked_of_the_hub):
    write_defaults(folder, AnsweringDefaults(reranker="some/body"))
    with pytest.raises(ModelError, match=r"some/body: is not on this machine(.|\n)*ftkit models pull some/body"):
        open_system(folder)
    with pytest.raises(ModelError):
        open_system(folder, reranking=Reranking(reranker="some/one"))
    assert asked_of_the_hub == [("some/body", True), ("some/one", False)]


def test_an_index_names_its_reranker_unless_somebody_asks_otherwise(folder, rigged, random_one):
    write_defaults(folder, AnsweringDefaults(reranker=str(rigged), reranked=7))
    usual, none = open_system(folder), open_system(folder, reranking=Reranking(reranker="none"))
    other = open_system(folder, reranking=Reranking(reranker=str(random_one), reranked=3))

    assert usual.reranker.sha256 == find_reranker(str(rigged)).sha256
    assert (usual.reranked, other.reranked) == (7, 3)
    assert none.reranker is None
    assert other.reranker.sha256 not in (usual.reranker.sha256, None)


@pytest.mark.parametrize("text", ['{"reranker": 3}', '{"reranked": 0}'])
def test_damaged_defaults_of_reranking_are_named(folder, text):
    (folder / "defaults.json").write_text(text)
    with pytest.raises(DataError, match=r"defaults\.json: cannot be read"):
        read_defaults(folder)


def test_answers_of_other_rerankers_are_kept_apart_and_an_evaluation_says_which_it_was(
    folder, tmp_path, rigged, random_one
):
    asked = [AskedQuestion(question=QUESTION, answers=("red",), documents=("good",), id="1")]
    cache = tmp_path / "answers.jsonl"
    ways = [None, Reranking(reranker=str(rigged)), Reranking(reranker=str(rigged), reranked=2),
            Reranking(reranker=str(random_one))]  # fmt: skip
    for count, way in enumerate(ways, start=1):
        system = open_system(folder, reranking=way, max_new_tokens=2)
        found = evaluate_rag(system, asked, cache=cache)
        evaluate_rag(system, asked, cache=cache)
        assert len(cache.read_text().splitlines()) == count
        sha256 = None if system.reranker is None else system.reranker.sha256
        assert found.settings["reranker_sha256"] == sha256
        assert found.settings["reranked"] == (0 if way is None else way.reranked or 20)
    reranked = open_system(folder, reranking=ways[1])
    assert evaluate_rag(reranked, asked).values["recall_at_1"] == 1.0
    too_long = AskedQuestion(question="w" * 62, answers=("red",), documents=("good",), id="2", place="q.jsonl:2")
    with pytest.raises(DataError, match=r"q\.jsonl:2: a question of 2 tokens more than the reranker reads"):
        evaluate_rag(open_system(folder, mode="lexical", reranking=ways[1]), [too_long])


def test_a_threshold_of_another_reranking_is_used_with_a_warning(folder, rigged, caplog, monkeypatch):
    monkeypatch.setattr(log, "propagate", True)  # a command of another test may have turned it off
    write_defaults(folder, AnsweringDefaults(reranker=str(rigged)))
    keep_threshold(folder, -9.0)
    assert open_system(folder).threshold == -9.0
    assert caplog.records == []
    assert open_system(folder, reranking=Reranking(reranker="none")).threshold == -9.0
    assert "the first 20 by reranker" in caplog.text and "here the risk may be another" in caplog.text


def test_commands_take_a_reranker(folder, rigged, tmp_path):
    asked = ["-q", QUESTION, "--reranker", rigged, "--json"]
    found = ftkit("rag", "search", folder, *asked, "--passages", "2")
    answer = ftkit("rag", "ask", folder, *asked, "--why", "--max-new-tokens", "2", "--reranked", "3")

    assert found.code == answer.code == 0, found.err + answer.err
    assert json.loads(found.out)[0]["document"] == "good" and json.loads(found.out)[0]["ranks"]["reranked"] == 1
    reasons = json.loads(answer.out)["why"]["passages"]
    assert [one["ranks"]["reranked"] for one in reasons] == [1, 2, 3]
    data = tmp_path / "questions.jsonl"
    data.write_text(json.dumps({"question": QUESTION, "answers": ["red"], "document": "good"}) + "\n")
    scored = ftkit(
        "rag", "eval", folder, "--data", data, "--reranker", rigged, "--max-new-tokens", "2", "--json", "--quiet"
    )
    assert scored.code == 0, scored.err
    assert json.loads(scored.out)["settings"]["reranker_sha256"] == find_reranker(str(rigged)).sha256


def test_a_recipe_names_one_and_a_comparison_refuses_it(tmp_path, rigged):
    run = tmp_path / "run"
    values = {"recipe": "rag", "model": "m", "corpus": "docs", "data": "q.jsonl", "output": str(run)}
    recipe = RagRecipe.model_validate(values | {"answer": {"reranker": str(rigged), "reranked": 5}})
    made = answering_defaults(recipe, run / "index")

    assert (made.reranker, made.reranked) == (str(rigged), 5)
    with pytest.raises(ValidationError, match="reranked"):
        RagRecipe.model_validate(values | {"answer": {"reranked": 0}})
    spec = {
        "recipe": "compare", "model": "m", "corpus": "docs", "data": {"train": "q.jsonl", "test": "t.jsonl"},
        "systems": ["dense"],
    }  # fmt: skip
    with pytest.raises(ValidationError, match="in the order of each system's search"):
        CompareSpec.model_validate(spec | {"answer": {"reranker": str(rigged)}})


def test_a_trained_run_is_asked_with_the_reranker_that_its_recipe_names(tmp_path, tiny_llama, tiny_encoder, rigged):
    shed = write_shed(tmp_path / "shed")
    values = shed_recipe(shed, tiny_llama, tiny_encoder, output=str(tmp_path / "run"), stages=("reader",))
    answer = values["answer"] | {"reranker": str(rigged), "reranked": 4}
    run_rag(RagRecipe.model_validate(values | {"answer": answer}), quiet=True)
    system = open_system(tmp_path / "run")

    assert system.reranker.sha256 == find_reranker(str(rigged)).sha256
    assert system.conditions.reranked == 4
    with pytest.raises(ModelError, match="no such folder, and no hub id of a reranker"):
        run_rag(RagRecipe.model_validate(values | {"output": str(tmp_path / "b"), "answer": {"reranker": "no"}}))
    assert not (tmp_path / "b" / "reader").exists()  # before anything was trained
