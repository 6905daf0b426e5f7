"""Thresholds and their curve, on numbers that can be followed by hand; and what a stored one does to answers."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from ftkit.errors import DataError
from ftkit.notices import log
from ftkit.rag import answering
from ftkit.rag.answering import RagSystem
from ftkit.rag.document import Document
from ftkit.rag.index import create_index
from ftkit.rag.opening import threshold_for
from ftkit.rag.settings import IndexSettings
from ftkit.rag.threshold import (
    ANSWERING,
    Conditions,
    StoredThreshold,
    choose_threshold,
    generator_sha256,
    read_threshold,
    risk_coverage,
    write_threshold,
)
from tests.rag.worlds import says, tiny_target

# Five questions; the last is not answered at all.
CONFIDENCES = [-0.1, -0.2, -0.3, -0.4, None]
CORRECT = [True, True, False, True, False]


def test_the_curve_says_what_each_threshold_buys():
    curve = risk_coverage(CONFIDENCES, CORRECT)

    assert [(point.threshold, point.coverage, point.risk) for point in curve] == [
        (-0.1, 1 / 5, 0),
        (-0.2, 2 / 5, 0),
        (-0.3, 3 / 5, pytest.approx(1 / 3)),
        (-0.4, 4 / 5, 1 / 4),
    ]


def test_the_area_is_the_mean_risk_over_the_coverages_reached():
    # Four steps of equal width: (0 + 0 + 1/3 + 1/4) / 4.
    assert choose_threshold(CONFIDENCES, CORRECT, 1.0).area == pytest.approx(7 / 48)
    assert choose_threshold([None, None], [False, False], 1.0).area is None


@pytest.mark.parametrize(("risk", "threshold"), [(0.0, -0.2), (0.2, -0.2), (0.25, -0.4), (1.0, -0.4)])
def test_the_lowest_threshold_within_the_risk_is_chosen(risk, threshold):
    assert choose_threshold(CONFIDENCES, CORRECT, risk).threshold == threshold


def test_there_may_be_no_threshold():
    assert choose_threshold([-0.1, -0.2], [False, True], 0.4).threshold is None
    assert choose_threshold([None], [False], 1.0).threshold is None


def test_equal_confidences_are_answered_together():
    curve = risk_coverage([-0.5, -0.5, -1.0], [True, False, True])

    assert [(point.coverage, point.risk) for point in curve] == [(2 / 3, 1 / 2), (1, 1 / 3)]


def stored(generator):
    return StoredThreshold(
        threshold=-1.5, max_risk=0.1, coverage=0.5, risk=0.1, questions=10, data_sha256="d", generator=generator,
        mode="lexical", passages=3,
    )  # fmt: skip


@pytest.fixture
def index(tmp_path, tiny_encoder, pair):
    settings = IndexSettings(encoder=str(tiny_encoder), encoder_sha256=pair.sha256, width=16, passage_tokens=32)
    with create_index(tmp_path / "index", settings) as made:
        made.add([Document(id="a.md", text="Ada lives in Oum.")], pair)
        yield made


def test_a_generator_is_told_from_one_with_other_weights():
    one = tiny_target()
    moved = tiny_target()
    with torch.no_grad():
        moved.model.model.layers[0].mlp.up_proj.weight += 1e-4

    digests = [generator_sha256(target) for target in (one, tiny_target(), tiny_target(seed=1), moved)]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_a_threshold_is_used_for_the_generator_that_it_was_chosen_for_alone(index, caplog, monkeypatch):
    monkeypatch.setattr(log, "propagate", True)  # a command of another test may have turned it off
    target = tiny_target()
    assert threshold_for(index.folder, target, Conditions(mode="lexical", passages=3)) is None
    write_threshold(index.folder, stored(generator_sha256(target)))

    assert read_threshold(index.folder) == stored(generator_sha256(target))
    assert threshold_for(index.folder, target, Conditions(mode="lexical", passages=3)) == -1.5
    assert caplog.records == []
    assert threshold_for(index.folder, tiny_target(seed=1), Conditions(mode="lexical", passages=3)) is None
    assert "chosen for another generator and is not used" in caplog.text
    assert threshold_for(index.folder, target, Conditions(mode="dense", passages=3)) == -1.5
    assert "chosen with --mode lexical --passages 3" in caplog.text


@pytest.mark.parametrize("text", ["{", "[]", '{"format_version": 2}', '{"format_version": 1, "threshold": "low"}'])
def test_a_damaged_threshold_is_an_error_and_not_none(index, text):
    (index.folder / ANSWERING).write_text(text)

    with pytest.raises(DataError, match=f"{ANSWERING}: cannot be read"):
        read_threshold(index.folder)


def test_a_threshold_that_is_no_number_is_refused(index):
    write_threshold(index.folder, stored("g"))
    values = json.loads((index.folder / ANSWERING).read_text())
    (index.folder / ANSWERING).write_text(json.dumps(values | {"threshold": "low"}))

    with pytest.raises(DataError, match="'low' is no number"):
        read_threshold(index.folder)


def test_confidence_is_the_mean_log_probability_of_the_answers_tokens(index, pair, monkeypatch):
    target = tiny_target()
    system = RagSystem(
        index=index, encoders=pair, generator=target, mode="lexical", max_new_tokens=8, measures_confidence=True
    )
    says(monkeypatch, lambda _: "Oum")

    answer = system.ask("Where does Ada live?")

    prompt = system.prompts.prompt("Where does Ada live?", ["Ada lives in Oum."]).ids
    tail = [*target.tokenizer("Oum", add_special_tokens=False)["input_ids"], target.stop_token_ids[0]]
    with torch.no_grad():
        logits = target.model(input_ids=torch.tensor([prompt + tail])).logits[0].log_softmax(dim=-1)
    by_hand = [logits[len(prompt) - 1 + place, token].item() for place, token in enumerate(tail)]
    assert answer.confidence == pytest.approx(sum(by_hand) / len(by_hand), abs=1e-5)


def test_confidence_comes_with_the_answer_and_reads_nothing_twice(index, pair, monkeypatch):
    target = tiny_target()
    system = RagSystem(
        index=index, encoders=pair, generator=target, mode="lexical", max_new_tokens=8, measures_confidence=True
    )
    monkeypatch.setattr(RagSystem, "answer_nll", lambda *_, **__: pytest.fail("the prompt is read again"))
    monkeypatch.setattr(answering, "is_refusal", lambda _: False)  # untrained, it says nothing but spaces

    answer, other = system.read_together([(text, system.retrieve(text)) for text in ("Where is Ada?", "Ada, where?")])
    prompt = system.prompts.prompt("Where is Ada?", ["Ada lives in Oum."]).ids
    ids, steps = list(prompt), []
    with torch.no_grad():
        for _ in range(answer.tokens):
            logits = target.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].log_softmax(dim=-1)
            ids.append(int(logits.argmax()))
            steps.append(logits.max().item())
    assert answer.confidence == pytest.approx(sum(steps) / len(steps), abs=1e-5)
    assert answer.confidence != other.confidence


def test_an_answer_below_the_threshold_is_not_given(index, pair, monkeypatch):
    system = RagSystem(index=index, encoders=pair, generator=tiny_target(), mode="lexical", max_new_tokens=8)
    says(monkeypatch, lambda _: "Oum")
    confidence = replace(system, measures_confidence=True).ask("Where is Ada?").confidence

    free, below, at = (
        replace(system, threshold=threshold).ask("Where is Ada?")
        for threshold in (None, confidence + 1e-6, confidence)
    )

    assert (free.text, free.abstained, free.confidence) == ("Oum", False, None)
    assert (below.text, below.abstained) == ("", True)
    assert (at.text, at.abstained) == ("Oum", False)


def test_a_refusal_is_no_answer_whatever_the_threshold(index, pair, monkeypatch):
    system = RagSystem(
        index=index, encoders=pair, generator=tiny_target(), mode="lexical", max_new_tokens=8, threshold=-100.0
    )
    says(monkeypatch, lambda _: "I don't know.")

    answer = system.ask("Where is Ada?")

    assert (answer.abstained, answer.text, answer.confidence) == (True, "", None)
