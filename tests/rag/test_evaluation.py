"""The figures of an evaluation, each worked out in view; what is kept of a run that was cut off; canaries."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from ftkit.errors import DataError
from ftkit.evaluate.generation import Answer
from ftkit.files import sha256_json
from ftkit.rag import measuring
from ftkit.rag.answering import RagSystem
from ftkit.rag.canaries import compare_runs, read_baseline
from ftkit.rag.document import Document
from ftkit.rag.evaluation import evaluate_rag, set_threshold
from ftkit.rag.evaluation_page import write_evaluation_page
from ftkit.rag.index import create_index
from ftkit.rag.passage import Hit
from ftkit.rag.questions import AskedQuestion
from ftkit.rag.settings import IndexSettings
from ftkit.rag.threshold import generator_sha256, read_threshold
from tests.rag.worlds import finds, question_in, says, tiny_target

TEXTS = {
    "oum.md": "Oum has a mayor, Ada Berg.",
    "vek.md": "Vek has a bridge of red iron.",
    "lir.md": "Lir makes paper.",
    "zed.md": "Zed is closed on Monday.",
}
QUESTIONS = [
    AskedQuestion(question="Who is mayor of Oum?", answers=("Ada Berg",), documents=("oum.md",)),
    AskedQuestion(
        question="What is the bridge of Vek made of?", answers=("red iron", "iron ore"), documents=("vek.md",)
    ),
    AskedQuestion(question="What do Lir and Zed do?", answers=("paper",), documents=("zed.md", "lir.md")),
    AskedQuestion(question="Who is mayor of Vek?", answers=()),
]
FOUND = {
    QUESTIONS[0].question: ["oum.md", "vek.md"],
    QUESTIONS[1].question: ["lir.md", "oum.md", "zed.md", "vek.md"],
    QUESTIONS[2].question: ["zed.md", "vek.md", "lir.md"],
    QUESTIONS[3].question: ["vek.md"],
}
SAID = {
    QUESTIONS[0].question: "The Ada Berg",
    QUESTIONS[1].question: "red old iron",
    QUESTIONS[2].question: "I don't know.",
    QUESTIONS[3].question: "Ada",
}


@pytest.fixture
def system(tmp_path, tiny_encoder, pair, monkeypatch):
    settings = IndexSettings(encoder=str(tiny_encoder), encoder_sha256=pair.sha256, width=16, passage_tokens=32)
    said = dict(SAID)
    finds(monkeypatch, FOUND.__getitem__)
    says(monkeypatch, lambda prompt: said[question_in(prompt)])
    with create_index(tmp_path / "index", settings) as index:
        index.add([Document(id=name, text=text) for name, text in TEXTS.items()], pair)
        made = RagSystem(index=index, encoders=pair, generator=tiny_target(), passages=3, max_new_tokens=8)
        object.__setattr__(made, "said", said)
        yield made


def test_a_document_that_is_found_by_another_part_of_it_is_no_answer(system, pair, monkeypatch):
    text = "Oum lies by the sea.\n\n" + "Its streets are steep." + "\n\nThe mayor is Ada Berg."
    system.index.add([Document(id="oum.md", text=text)], pair)
    parts = system.index.passages_of("oum.md")
    assert len(parts) > 1 and "Ada Berg" not in parts[0].content
    monkeypatch.setattr(
        RagSystem, "retrieve",
        lambda *_: [Hit(passage=part, score=1.0 - number, ranks={}) for number, part in enumerate(parts)],
    )  # fmt: skip
    found = evaluate_rag(system, QUESTIONS[:1]).to_dict()
    assert (found["recall_at_1"], found["answer_recall_at_1"], found["answer_recall_at_5"]) == (1.0, 0.0, 1.0)


def test_what_an_earlier_version_measured_has_no_answer_recall(system):
    evaluation = evaluate_rag(system, QUESTIONS)
    older = [replace(one.measured, answer_rank=-1) for one in evaluation.outcomes]
    outcomes = tuple(replace(one, measured=other) for one, other in zip(evaluation.outcomes, older, strict=True))
    assert replace(evaluation, outcomes=outcomes).values["answer_recall_at_5"] is None  # and not 0


def test_every_figure_is_what_its_name_says(system):
    found = evaluate_rag(system, QUESTIONS).to_dict()

    # Right as they stand: the first (without its article) alone. F1 of "red old iron" and "red iron": 2·2/(3+2).
    assert found["exact_match"] == 1 / 4
    assert found["f1"] == pytest.approx((1 + 4 / 5 + 0 + 0) / 4)
    # Of three questions with documents: rank 1; rank 4; ranks 1 and 3, both needed, of which 1 is the best.
    assert found["recall_at_1"] == pytest.approx(1 / 3)
    assert found["recall_at_5"] == pytest.approx(3 / 3)
    # Passages that state the answer: at ranks 1, 4 and 3; the fourth question has none.
    assert found["answer_recall_at_1"] == pytest.approx(1 / 3)
    assert found["answer_recall_at_5"] == pytest.approx(3 / 3)
    assert found["mrr"] == pytest.approx((1 + 1 / 4 + 1) / 3)
    assert found["coverage"] == 3 / 4
    # The second is given three passages, none of them of Vek; the third is given all and refused.
    assert found["blame"] == {"correct": 1, "not_indexed": 0, "not_retrieved": 1, "not_read": 1, "unsupported": 1}
    assert found["risk"] == pytest.approx(2 / 3)
    assert [one["text"] for one in found["answers"]] == ["The Ada Berg", "red old iron", None, "Ada"]
    assert [one["ranks"] for one in found["answers"]] == [
        {"oum.md": 1}, {"vek.md": 4}, {"zed.md": 1, "lir.md": 3}, {},
    ]  # fmt: skip


def test_the_keys_come_in_the_order_of_the_contract_with_an_interval_each(system):
    found = evaluate_rag(system, QUESTIONS).to_dict()

    assert list(found)[:8] == [
        "exact_match", "f1", "nll", "recall_at_1", "recall_at_5", "mrr", "coverage", "blame",
    ]  # fmt: skip
    assert list(found["blame"]) == ["correct", "not_indexed", "not_retrieved", "not_read", "unsupported"]
    for name in ("exact_match", "f1", "nll", "recall_at_1", "recall_at_5", "mrr", "coverage", "risk"):
        low, high = found["intervals"][name]
        assert low <= found[name] <= high, name
    assert found["intervals"]["latency_s"].keys() == found["latency_s"].keys() == {"retrieve", "generate"}
    assert found["latency_s"]["generate"]["p95"] == 0.01
    json.dumps(found, allow_nan=False)


def test_without_a_document_or_an_answer_figures_are_null_and_not_zero(system):
    found = evaluate_rag(system, [QUESTIONS[3]]).to_dict()

    assert [found[name] for name in ("recall_at_1", "recall_at_5", "mrr", "nll")] == [None] * 4
    assert found["intervals"]["mrr"] is None


def test_abstaining_is_right_where_no_document_answers(system):
    system.said[QUESTIONS[3].question] = "I don't know."

    found = evaluate_rag(system, [QUESTIONS[3]]).to_dict()

    assert (found["exact_match"], found["f1"], found["coverage"], found["risk"]) == (1, 1, 0, None)
    assert found["blame"]["correct"] == 1


def test_nll_is_of_the_first_answer_after_the_readers_own_prompt(system):
    found = evaluate_rag(system, QUESTIONS[:2]).to_dict()

    target, nats, tokens = system.generator, 0.0, 0
    for question in QUESTIONS[:2]:
        texts = [TEXTS[name] for name in FOUND[question.question][:3]]
        prompt = system.prompts.prompt(question.question, texts).ids
        tail = [*target.tokenizer(question.answers[0], add_special_tokens=False)["input_ids"], 2]
        with torch.no_grad():
            logits = target.model(input_ids=torch.tensor([prompt + tail])).logits[0].log_softmax(dim=-1)
        nats -= sum(logits[len(prompt) - 1 + place, token].item() for place, token in enumerate(tail))
        tokens += len(tail)
    assert found["nll"] == pytest.approx(nats / tokens, abs=1e-5)


def test_a_question_too_long_for_the_encoder_is_named_before_any_is_asked(system, monkeypatch):
    says(monkeypatch, lambda _: pytest.fail("asked"))
    long = AskedQuestion(question="why " * 80, answers=("x",), place="q.jsonl:9")

    with pytest.raises(DataError) as caught:
        evaluate_rag(system, [QUESTIONS[0], long])

    assert [problem.where for problem in caught.value.problems] == ["q.jsonl:9"]


def test_an_answer_that_was_cut_off_within_a_name_is_misread_and_not_invented(system, monkeypatch):
    cut = Answer(text="It is the bridge of Ve", tokens=8, finish_reason="length", wall_s=0.01)
    for reason, expected in (("length", "not_read"), ("stop", "unsupported")):
        said = replace(cut, finish_reason=reason)
        monkeypatch.setattr(RagSystem, "_generate", lambda *_, said=said: said)

        assert evaluate_rag(system, QUESTIONS[:1]).outcomes[0].blame == expected


def test_an_answer_that_needs_two_documents_needs_both_in_every_step(system, monkeypatch):
    question = QUESTIONS[2]  # its answer stands in lir.md
    finds(monkeypatch, lambda _: ["lir.md", "oum.md"])
    assert evaluate_rag(system, [question]).outcomes[0].blame == "not_retrieved"

    system.index.remove(["zed.md"])
    assert evaluate_rag(system, [question]).outcomes[0].blame == "not_indexed"


def test_a_question_that_names_no_document_is_looked_for_in_all(system, monkeypatch):
    finds(monkeypatch, lambda _: ["zed.md"])
    says(monkeypatch, lambda _: "iron")
    anywhere, nowhere = (AskedQuestion(question="What is made?", answers=(one,)) for one in ("paper", "glass"))

    found = evaluate_rag(system, [anywhere, nowhere])

    assert [one.blame for one in found.outcomes] == ["not_retrieved", "not_indexed"]


# Interruptions


def test_an_answer_is_kept_under_the_key_that_it_always_had(system, tmp_path):
    cache, question = tmp_path / "answers.jsonl", QUESTIONS[0]
    index = system.index
    version = index.version
    common = [
        2, str(index.folder.resolve()), version, {one.number: one.made for one in index.versions()}[version],
        system.encoders.sha256, generator_sha256(system.generator), "hybrid", 3, 8,
    ]  # fmt: skip
    asked = [question.question, question.answers, question.documents]

    evaluate_rag(system, [question], cache=cache)
    evaluate_rag(replace(system, hops=2), [question], cache=cache, confidences=False)

    keys = [json.loads(line)["key"] for line in cache.read_text().splitlines()]
    assert keys == [sha256_json([*common, *asked]), sha256_json([*common, "2 hops", "no confidence", *asked])]


def test_a_run_that_was_cut_off_goes_on_where_it_stopped(system, tmp_path, monkeypatch):
    cache = tmp_path / "run.json.answers.jsonl"
    whole = evaluate_rag(system, QUESTIONS)
    asked = []

    def stops(prompt):
        asked.append(question_in(prompt))
        if len(asked) == 3:
            raise KeyboardInterrupt
        return SAID[question_in(prompt)]

    says(monkeypatch, stops)
    with pytest.raises(KeyboardInterrupt):
        evaluate_rag(system, QUESTIONS, cache=cache)
    with cache.open("a") as stream:
        stream.write('{"key": "cut o')  # the process died within a line
    asked.clear()
    says(monkeypatch, lambda prompt: asked.append(question_in(prompt)) or SAID[question_in(prompt)])
    again = evaluate_rag(system, QUESTIONS, cache=cache)

    assert asked == [one.question for one in QUESTIONS[2:]]
    assert [one.text for one in again.outcomes] == [one.text for one in whole.outcomes]
    assert again.blame == whole.blame
    asked.clear()
    evaluate_rag(system, QUESTIONS, cache=cache)
    assert asked == []


@pytest.mark.parametrize("change", ["index", "generator", "passages", "answers"])
def test_what_was_kept_is_not_used_for_another_system_or_question(system, tmp_path, pair, monkeypatch, change):
    cache, questions = tmp_path / "cache.jsonl", list(QUESTIONS)
    evaluate_rag(system, questions, cache=cache)
    if change == "index":
        system.index.add([Document(id="new.md", text="New.")], pair)
    elif change == "generator":
        system = replace(system, generator=tiny_target(seed=1))
    elif change == "passages":
        system = replace(system, passages=1)
    else:
        questions = [replace(one, answers=("other",)) for one in questions]
    asked = []
    says(monkeypatch, lambda prompt: asked.append(prompt) or "x")

    evaluate_rag(system, questions, cache=cache)

    assert len(asked) == len(QUESTIONS)


# Thresholds from an evaluation


def test_a_threshold_is_chosen_kept_and_applied(system, tmp_path, monkeypatch):
    data = tmp_path / "dev.jsonl"
    data.write_text("as it was")
    confidence = {"The Ada Berg": -0.1, "red old iron": -0.2, "Ada": -0.3}
    monkeypatch.setattr(RagSystem, "_confidence", lambda _, ids, said: confidence[said.text])

    before = evaluate_rag(system, QUESTIONS)
    after, stored = set_threshold(before, system, data, max_risk=0.0)

    assert read_threshold(system.index.folder) == stored
    assert (stored.threshold, stored.coverage, stored.risk, stored.questions) == (-0.1, 0.25, 0.0, 4)
    assert [one.text for one in after.outcomes] == ["The Ada Berg", None, None, None]
    # The last has no answer in any document, so that abstaining is right now.
    assert after.blame == {"correct": 2, "not_indexed": 0, "not_retrieved": 1, "not_read": 1, "unsupported": 0}
    assert evaluate_rag(replace(system, threshold=-0.1), QUESTIONS).blame == after.blame


def test_a_risk_that_no_threshold_keeps_is_an_error_and_sets_none(system, tmp_path):
    data = tmp_path / "dev.jsonl"
    data.write_text("as it was")
    wrong = evaluate_rag(system, QUESTIONS[1:])

    with pytest.raises(DataError, match=r"no threshold keeps the risk at 0.1 .*the least is 1.000"):
        set_threshold(wrong, system, data, max_risk=0.1)
    assert read_threshold(system.index.folder) is None


# Canaries


def test_canaries_tell_what_broke_changed_moved_and_went_stale(system, tmp_path, pair):
    saved = tmp_path / "before.json"
    saved.write_text(json.dumps(evaluate_rag(system, QUESTIONS).to_dict()))
    before = read_baseline(saved)
    same = compare_runs(before, evaluate_rag(system, QUESTIONS), system.index)
    assert (same.compared, same.broken, same.mended, same.changed, same.cited_others, same.stale) == (
        4, (), (), (), (), (),
    )  # fmt: skip

    system.index.add([Document(id="oum.md", text="Oum has a mayor, Kim Holt.")], pair)
    system.index.remove(["lir.md"])
    system.said.update({QUESTIONS[0].question: "Kim Holt", QUESTIONS[2].question: "paper"})
    found = compare_runs(before, evaluate_rag(system, QUESTIONS), system.index)

    first, second, third, _ = QUESTIONS
    assert [(one.id, one.before, one.now, one.blame) for one in found.broken] == [
        (first.id, "The Ada Berg", "Kim Holt", "not_indexed")
    ]
    assert [one.id for one in found.mended] == [third.id]
    assert [one.id for one in found.changed] == [first.id, third.id]
    # Lir is gone: the second is given Vek in its place, the third one passage less.
    assert {one.id: one.documents for one in found.cited_others} == {
        second.id: ("lir.md", "vek.md"),
        third.id: ("lir.md",),
    }
    assert {one.id: one.documents for one in found.stale} == {
        first.id: ("oum.md",),
        second.id: ("lir.md", "oum.md"),
        third.id: ("lir.md",),
    }


def test_a_text_that_only_moved_within_its_document_is_not_stale(system, tmp_path, pair):
    saved = tmp_path / "before.json"
    saved.write_text(json.dumps(evaluate_rag(system, QUESTIONS[:1]).to_dict()))
    system.index.add([Document(id="oum.md", text=f"A new beginning.\n\n{TEXTS['oum.md']}")], pair)

    found = compare_runs(read_baseline(saved), evaluate_rag(system, QUESTIONS[:1]), system.index)

    assert found.stale == ()


@pytest.mark.parametrize("text", ["{", "[]", '{"answers": 3}', '{"answers": [{"id": "x"}]}'])
def test_a_baseline_that_is_none_is_refused(tmp_path, text):
    path = tmp_path / "run.json"
    path.write_text(text)

    with pytest.raises(DataError, match="is no saved evaluation"):
        read_baseline(path)


# The page


def test_the_page_is_whole_by_itself_and_marks_the_threshold(system, tmp_path, monkeypatch):
    system.said[QUESTIONS[3].question] = "<script>alert(1)</script>"
    confidence = {"The Ada Berg": -0.1, "red old iron": -0.2}
    monkeypatch.setattr(RagSystem, "_confidence", lambda _, ids, said: confidence.get(said.text, -0.3))
    path = tmp_path / "page.html"

    write_evaluation_page(path, evaluate_rag(replace(system, threshold=-0.2), QUESTIONS))

    page = path.read_text()
    assert "http://" not in page and "https://" not in page and "<script" not in page
    # Three points at coverages 1/4, 2/4, 3/4 with risks 0, 1/2, 2/3; the threshold's is the second.
    assert "threshold, at 0.500: 0.500" in page
    assert page.count("<polyline") == 2
    assert "not_retrieved" in page


def test_searches_are_judged_by_more_passages_than_the_reader_is_given(system):
    assert system.passages < measuring.DEPTH
    assert evaluate_rag(replace(system, passages=0), QUESTIONS[:3]).values["mrr"] == pytest.approx(2.25 / 3)
