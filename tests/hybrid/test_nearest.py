"""A memory is searched exactly, belongs to one model, and can be added to; with no weight on it there is none."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from ftkit.errors import DataError, ModelError, OutputError
from ftkit.files import sha256_file
from ftkit.hybrid import datastore, shards
from ftkit.hybrid.datastore import DATASTORE, Neighbours, build_datastore, open_datastore
from ftkit.hybrid.nearest import NearestSystem
from ftkit.hybrid.remembered import Pair, examples_of, source_of
from ftkit.rag.answering import RagSystem
from ftkit.rag.document import Document
from ftkit.rag.evaluation import evaluate_rag
from ftkit.rag.index import create_index
from ftkit.rag.questions import AskedQuestion
from tests.hybrid.targets import QUESTION, TEXTS, hits, random_target

MEMORY = [*TEXTS.values(), Pair(question="Who is mayor?", answer="Ada Berg"), Pair(question="Made?", answer="paper")]


@pytest.fixture(scope="session")
def store(tmp_path_factory, reader):
    return build_datastore(reader, MEMORY, tmp_path_factory.mktemp("memory") / "store", precision="float32")


@pytest.fixture
def system(parts, reader, store):
    return NearestSystem(**parts, generator=reader, datastore=store, weight=0.5, temperature=3.0, neighbours=5)


def said(answer):
    return answer.text, answer.abstained, answer.tokens, answer.finish_reason


@torch.no_grad()
def state(target, ids):
    """What the head reads behind some ids, by transformers' own account."""
    return target.model(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states[-1][0, -1]


def everything(store):
    blocks = list(store.blocks())
    return torch.cat([keys for keys, _ in blocks]), torch.cat([values for _, values in blocks])


def test_keys_are_what_the_head_reads_before_each_token(store, reader):
    keys, values = everything(store)
    text = reader.tokenizer(TEXTS["oum.md"], add_special_tokens=False)["input_ids"]

    assert values[: len(text) - 1].tolist() == text[1:]
    assert values[-1] == 2, "the token that ends an answer is remembered"
    for place in range(1, len(text)):
        assert torch.allclose(keys[place - 1], state(reader, text[:place]), atol=1e-4)


@pytest.mark.parametrize("found", [[], hits(0.9, 0.1)])
def test_without_weight_on_the_memory_it_is_the_model_alone(parts, system, reader, found):
    arm = RagSystem(**parts, generator=reader, measures_confidence=True)
    mix = replace(system, weight=0.0, measures_confidence=True)

    answer, alone = mix.read(QUESTION, found), arm.read(QUESTION, found)

    assert said(answer) == said(alone)
    assert (answer.citations, answer.prompt_tokens) == (alone.citations, alone.prompt_tokens)
    assert answer.confidence == pytest.approx(alone.confidence, abs=1e-6)
    assert mix.answer_nll(QUESTION, found, "Ada Berg").mean == pytest.approx(
        arm.answer_nll(QUESTION, found, "Ada Berg").mean, abs=1e-6
    )


def test_with_all_weight_on_it_what_was_remembered_is_said(system, reader):
    mix = replace(system, weight=1.0, neighbours=1)

    assert [mix.read(one.question, []).text for one in MEMORY if isinstance(one, Pair)] == ["Ada Berg", "paper"]
    assert mix.answer_nll("Made?", [], "paper").mean == pytest.approx(0, abs=1e-6)
    assert mix.read("Made?", []).finish_reason == "stop"


def test_its_likelihoods_are_those_worked_out_by_brute_force(system, store, reader):
    keys, values = everything(store)
    prompt = system.prompts.prompt(QUESTION, [hits(0.9)[0].passage.content]).ids
    tail = [*reader.tokenizer("Ada paper", add_special_tokens=False)["input_ids"], 2]
    expected = 0.0
    for place, token in enumerate(tail):
        ids = prompt + tail[:place]
        distances = (keys.double() - state(reader, ids).double()).square().sum(dim=1)
        nearest = distances.argsort()[:5]
        shares = (-distances[nearest] / 3.0).softmax(dim=0)
        remembered = shares[values[nearest] == token].sum().item()
        with torch.no_grad():
            own = reader.model(input_ids=torch.tensor([ids])).logits[0, -1].double().softmax(dim=0)[token].item()
        expected -= torch.tensor(0.5 * own + 0.5 * remembered).double().log().item()

    loss = system.answer_nll(QUESTION, hits(0.9), "Ada paper")

    assert (loss.mean, loss.tokens) == (pytest.approx(expected / len(tail), abs=1e-4), len(tail))


def test_neighbours_of_one_token_count_together():
    # exp(-0/2), exp(-2/2), exp(-2/2): shares 1, 1/e, 1/e of their sum.
    found = Neighbours(distances=torch.tensor([[0.0, 2.0, 2.0]]).double(), tokens=torch.tensor([[7, 3, 7]]))

    probs = found.log_probs(10, 2.0).exp()[0]

    whole = 1 + 2 / torch.e
    assert probs[7].item() == pytest.approx((1 + 1 / torch.e) / whole)
    assert probs[3].item() == pytest.approx((1 / torch.e) / whole)
    assert (probs.sum().item(), int((probs > 0).sum())) == (pytest.approx(1.0), 2)


def test_the_search_is_exact_over_blocks_and_shards(tmp_path, reader, monkeypatch):
    whole = build_datastore(reader, MEMORY, tmp_path / "whole", precision="float32")
    monkeypatch.setattr(datastore, "ROWS_AT_ONCE", 7)
    monkeypatch.setattr(shards, "ENTRIES_PER_SHARD", 10)
    cut = build_datastore(reader, MEMORY, tmp_path / "cut", precision="float32")
    keys, values = everything(whole)
    torch.manual_seed(0)
    # States far from the origin, whose distances differ in digits that a product of float32 loses.
    states = keys[::3] + 1e-3 * torch.randn_like(keys[::3])

    assert len(cut.shards) > 3
    for store in (whole, cut):
        found = store.nearest(states, 6)
        exact = (keys.double().unsqueeze(0) - states.double().unsqueeze(1)).square().sum(dim=2)
        order = exact.argsort(dim=1, stable=True)[:, :6]
        assert torch.allclose(found.distances, exact.gather(1, order), atol=0, rtol=1e-12)
        assert torch.equal(found.tokens, values[order])
    assert whole.nearest(states, 10_000).tokens.shape == (len(states), len(keys))


def test_what_is_added_is_remembered_as_if_it_had_been_there_from_the_first(tmp_path, parts, reader):
    whole = build_datastore(reader, MEMORY, tmp_path / "whole")
    first = build_datastore(reader, MEMORY[:2], tmp_path / "grown")
    grown = first.add(reader, MEMORY[2:4]).add(reader, MEMORY[4:])

    for one, other in zip(everything(whole), everything(open_datastore(tmp_path / "grown")), strict=True):
        assert torch.equal(one, other)
    assert (grown.entries, len(grown.shards), len({first.sha256, grown.sha256})) == (whole.entries, 3, 2)
    before, after = (
        NearestSystem(**parts, generator=reader, datastore=one, weight=1.0, neighbours=1) for one in (first, grown)
    )
    assert before.read("Made?", []).text != after.read("Made?", []).text == "paper"


@pytest.mark.parametrize(("rows", "entries"), [(16_384, 65_536), (7, 10)])
def test_what_is_forgotten_is_as_if_it_had_never_been_there(tmp_path, reader, monkeypatch, rows, entries):
    monkeypatch.setattr(datastore, "ROWS_AT_ONCE", rows)
    monkeypatch.setattr(shards, "ENTRIES_PER_SHARD", entries)
    gone, shown, *rest = MEMORY
    resting = Pair(question="What is said?", answer="something", passages=(shown,))
    whole = build_datastore(reader, [gone, *rest, resting, "to the end"], tmp_path / "whole", precision="float32")
    never = build_datastore(reader, [*rest, "to the end"], tmp_path / "never", precision="float32")
    digests = {source_of(one).sha256 for one in (gone, shown, "never heard of")}

    left = open_datastore(whole.folder).without(digests)

    for one, other in zip(everything(left), everything(never), strict=True):
        assert torch.equal(one, other)
    states = everything(never)[0][::3]
    found, expected = left.nearest(states, 4), never.nearest(states, 4)
    assert torch.equal(found.distances, expected.distances) and torch.equal(found.tokens, expected.tokens)
    assert left.sha256 != whole.sha256 == whole.without({"never heard of"}).sha256
    assert len(left.forgotten) == 2 and not left.is_empty
    # An answer is known by its question, whatever was shown with it.
    other = whole.without({source_of(replace(resting, passages=())).sha256})
    assert other.entries == whole.entries and len(everything(other)[1]) < len(everything(whole)[1])


def test_what_is_forgotten_twice_is_forgotten_together(store):
    one, other = (source_of(text).sha256 for text in MEMORY[:2])
    assert store.without({one}).without({other}) == store.without({one, other})


def test_a_shard_that_does_not_account_for_its_entries_is_refused(tmp_path, reader):
    store = build_datastore(reader, MEMORY, tmp_path / "store")
    path, notes = store.folder / store.shards[0].file, json.loads((store.folder / DATASTORE).read_text())
    tensors = load_file(path)
    for metadata, words in (({}, "does not say"), ({"sources": '[["ab", false, [], 1]]'}, "tells of 1 entries")):
        save_file(tensors, path, metadata=metadata)
        notes["shards"][0]["sha256"] = sha256_file(path)
        (store.folder / DATASTORE).write_text(json.dumps(notes))
        with pytest.raises(DataError, match=words):
            open_datastore(store.folder).without({source_of(MEMORY[0]).sha256})


def test_a_memory_of_which_nothing_is_left_says_what_the_model_says(parts, system, reader):
    store = system.datastore.without({text for one in system.datastore.sources for text in (one.sha256, *one.texts)})
    nothing = replace(system, datastore=store, weight=0.9)
    alone = RagSystem(**parts, generator=reader)

    assert store.is_empty and store.nearest(torch.zeros(2, 3), 4).tokens.shape == (2, 0)
    assert said(nothing.read(QUESTION, [])) == said(alone.read(QUESTION, []))
    mine, its = (one.answer_nll(QUESTION, [], "Ada") for one in (nothing, alone))
    assert mine.mean == pytest.approx(its.mean, abs=1e-5)


def test_a_memory_follows_its_documents(tmp_path, parts, reader):
    pair = parts["encoders"]
    index = create_index(tmp_path / "index", parts["index"].settings)
    index.add(
        [Document(id="made.md", text="It is made of paper."), Document(id="who.md", text="Ada Berg is it.")], pair
    )
    contents = [one.content for one in index.all_passages()]
    asked = Pair(question="Made?", answer="paper", passages=(contents[0],))
    store = build_datastore(reader, [*contents, asked], tmp_path / "memory", precision="float32")
    own = parts | {"index": index}
    follows, stays = (
        NearestSystem(**own, generator=reader, datastore=store, weight=1.0, neighbours=1, follows=one)
        for one in (True, False)
    )
    assert follows.memory.sha256 == stays.memory.sha256 == store.sha256
    before = said(follows.read("Made?", []))
    assert before == said(stays.read("Made?", []))

    index.add([Document(id="made.md", text="It is made of wood.")], pair)

    assert stays.memory.sha256 == store.sha256 and said(stays.read("Made?", [])) == before
    assert follows.identity != stays.identity
    # Neither the passage nor the answer that was given from it.
    assert {one.is_answer for one in store.sources if one.is_any_of(follows.memory.forgotten)} == {True, False}
    assert "paper" not in follows.read("Made?", []).text
    index.rollback(1)
    assert said(follows.read("Made?", [])) == before
    index.close()


def test_what_a_killed_process_left_is_not_remembered(tmp_path, reader, monkeypatch):
    store = build_datastore(reader, MEMORY[:1], tmp_path / "store")
    monkeypatch.setattr(shards, "ENTRIES_PER_SHARD", 1)

    def texts():
        yield "more to know"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.add(reader, texts())
    assert len(list(store.folder.glob("shard-*"))) == 2
    assert open_datastore(store.folder) == store
    added = store.add(reader, MEMORY[1:2])
    assert [shard.file for shard in added.shards] == ["shard-00000.safetensors", "shard-00001.safetensors"]
    assert open_datastore(store.folder) == added
    with pytest.raises(KeyboardInterrupt):
        build_datastore(reader, texts(), tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_the_memory_of_another_model_is_refused(parts, store, tuned):
    with pytest.raises(ModelError, match="was made by a model of digest"):
        NearestSystem(**parts, generator=tuned, datastore=store, weight=0.5)
    with pytest.raises(ModelError, match="was made by a model of digest"):
        store.add(tuned, ["more"])


def test_a_damaged_memory_is_refused(tmp_path, reader):
    store = build_datastore(reader, MEMORY, tmp_path / "store")
    path = store.folder / store.shards[0].file
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(DataError, match="is missing or damaged"):
        open_datastore(store.folder)
    notes = json.loads((store.folder / DATASTORE).read_text())
    for changes in ({"format_version": 3}, {"shards": []}, {"precision": "int8"}, {"more": 1}):
        (store.folder / DATASTORE).write_text(json.dumps(notes | changes))
        with pytest.raises(DataError, match="cannot be read"):
            open_datastore(store.folder)
    notes["shards"][0]["file"] = "../elsewhere.safetensors"
    (store.folder / DATASTORE).write_text(json.dumps(notes))
    with pytest.raises(DataError, match=r"cannot be read.*outside its folder"):
        open_datastore(store.folder)


def test_nothing_to_remember_and_a_folder_in_use_are_refused(tmp_path, reader):
    with pytest.raises(DataError, match="no token to remember"):
        build_datastore(reader, ["", "x"], tmp_path / "store")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("")
    with pytest.raises(OutputError, match="is not empty"):
        build_datastore(reader, MEMORY, tmp_path / "full")
    assert not (tmp_path / "store").exists()


def test_keys_of_sixteen_bits_that_would_overflow_are_refused(tmp_path, reader, monkeypatch):
    loud = random_target(2)
    with torch.no_grad():
        loud.model.model.norm.weight.fill_(1e6)
    with pytest.raises(DataError, match="beyond what float16 holds"):
        build_datastore(loud, MEMORY, tmp_path / "store")
    assert build_datastore(loud, MEMORY, tmp_path / "store", precision="float32").entries > 0


def test_a_long_text_is_read_in_windows_and_every_token_but_the_first_is_remembered_once():
    target = random_target(8, max_position_embeddings=16)
    text = "the quick brown fox jumps over the lazy dog 0123456789 " * 3
    ids = target.tokenizer(text, add_special_tokens=False)["input_ids"]

    windows = [example for _, example in examples_of(target, [text])]

    assert len(windows) > 2
    assert max(len(one.input_ids) for one in windows) == 16
    assert [label for one in windows for label in one.labels if label != -100] == ids[1:]
    with pytest.raises(DataError, match="tokens; this"):
        list(examples_of(target, [text, Pair(question="Who is it?", answer="Ada " * 20)]))


def test_answers_read_together_are_those_read_alone(system):
    found = [("Who?", []), (QUESTION, hits(0.9, 0.1)), ("What is made in Lir?", hits(0.2))]

    together = system.read_together(found)

    assert list(map(said, together)) == [said(system.read(*one)) for one in found]
    assert len({answer.text for answer in together}) == 3


def test_it_is_evaluated_like_any_other_and_its_answers_are_kept_under_its_own_name(system, tmp_path, reader):
    questions = [AskedQuestion(question="Who is mayor of Oum?", answers=("Ada Berg",), documents=("oum.md",))]
    found = evaluate_rag(system, questions, cache=tmp_path / "cache")

    loss = system.answer_nll(questions[0].question, system.retrieve(questions[0].question), "Ada Berg")
    assert found.values["nll"] == pytest.approx(loss.mean, rel=1e-9)
    assert found.settings["generator_sha256"] == system.identity
    changes = ({}, {"weight": 0.4}, {"temperature": 2.0}, {"neighbours": 4})
    assert len({replace(system, **one).identity for one in changes}) == 4
