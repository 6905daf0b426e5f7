"""That the gradient really reaches the retriever: published code has cut it and printed a falling loss."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch

from ftkit.data.example import TokenizedExample
from ftkit.evaluate.loss import row_losses
from ftkit.methods import LoRAMethod
from ftkit.rag import training
from ftkit.rag.encoder import EncoderPair
from ftkit.rag.objectives import posterior
from ftkit.rag.training import Candidate, RagExample, RagExamples, RagModel, RagObjective
from ftkit.train.checkpoint import newest_checkpoint
from ftkit.train.soundness import fingerprints
from ftkit.train.trainer import fit
from tests.train.fitting import attached, spec

PASSAGES = [
    "The mill stands in Arnow.", "Bread is baked daily.", "The river Tam is cold.", "Nine bells ring at noon.",
    "A fox lives in the yard.",
]  # fmt: skip


def reading(prompt, answer):
    ids = [*prompt, *answer, 2]
    return TokenizedExample(
        input_ids=ids, labels=[-100] * len(prompt) + ids[len(prompt) :], answer_start=len(prompt), stop_id=2,
        answer="", place="",
    )  # fmt: skip


def examples(count=8, *, likelihoods=False, null=False):
    draw = torch.Generator().manual_seed(0)

    def number(below):
        return int(torch.randint(5, below, (1,), generator=draw))

    made = RagExamples()
    for index in range(count):
        answer = [number(300) for _ in range(1 + index % 3)]
        chosen = [PASSAGES[(index + step) % len(PASSAGES)] for step in range(3)] + ([None] if null else [])
        candidates = tuple(
            Candidate(
                content=content,
                reading=reading([number(300) for _ in range(4)], answer),
                likelihood=-float(1 + number(40) / 10) if likelihoods else None,
            )
            for content in chosen
        )
        made.append(RagExample(question=f"What about {index}?", candidates=candidates, place=f"q.jsonl:{index + 1}"))
    return made


def joint_model(folder, pair, *, shared=False, null=None):
    query = pair.query.trainable_copy()
    encoders = EncoderPair(query, None if shared else pair.document.trainable_copy())
    generator = attached(folder, LoRAMethod(rank=4))
    # LoRA's B is zero at first; a reader that hears its passages has trained.
    torch.manual_seed(1)
    for name, value in generator.named_parameters():
        if "lora_B" in name:
            value.data.normal_(std=0.2)
    return RagModel(encoders, generator, temperature=0.05, null_score=null)


def objective(model, **changes):
    settings = {"likelihood": 1.0, "distillation": 0.5, "reader_temperature": 0.5} | changes
    return RagObjective(torch.float32, **settings).bind(model)


def first_layer(encoder):
    return next(v for n, v in encoder.named_parameters() if "attention.self.query.weight" in n)


@pytest.fixture
def model(tiny_llama, pair):
    return joint_model(tiny_llama, pair).eval()


def test_gradients_reach_the_first_layers_of_both_encoders_and_the_generator(model):
    objective(model).loss(model, objective(model).collate(examples())).backward()

    for encoder in (model.query_encoder, model.document_encoder):
        assert first_layer(encoder).grad.abs().max() > 1e-6
        assert all(value.grad is not None for value in encoder.parameters() if value.requires_grad)
    assert any(value.grad.abs().max() > 0 for name, value in model.named_parameters() if "lora_A" in name)


def test_the_gradient_in_the_scores_is_prior_minus_posterior_through_the_whole_model(model):
    loss = objective(model, distillation=0.0)
    batch = loss.collate(examples())
    kept = {}
    real = model.scores

    def scores(given):
        kept["scores"] = real(given)
        kept["scores"].retain_grad()
        return kept["scores"]

    model.scores = scores
    loss.loss(model, batch).backward()

    prior = (kept["scores"].detach() / 0.05).softmax(dim=1)
    expected = (prior - posterior(kept["scores"], loss.likelihoods(model, batch), 0.05)) / 0.05
    assert (kept["scores"].grad - expected).abs().max() / expected.abs().max() < 1e-6


@pytest.mark.parametrize("side", ["query_encoder", "document_encoder"])
def test_a_finite_difference_on_one_encoder_weight_agrees(model, side):
    model.double()
    loss = objective(model)
    batch = loss.collate(examples())
    weight = first_layer(getattr(model, side))
    value = loss.loss(model, batch)
    value.backward()
    place = divmod(int(weight.grad.abs().argmax()), weight.shape[1])

    ends = []
    for step in (1e-4, -1e-4):
        with torch.no_grad():
            weight[place] += step
            ends.append(float(loss.loss(model, batch)))
            weight[place] -= step

    assert (ends[0] - ends[1]) / 2e-4 == pytest.approx(float(weight.grad[place]), rel=1e-3)


def raised(model, loss, row):
    """By how much one small step raises the passage that explains the answer better than the retriever expected."""
    batch = loss.collate([row])
    with torch.no_grad():
        before = model.scores(batch)
        expected = (before / 0.05).softmax(dim=1)
        best = (posterior(before, loss.likelihoods(model, batch), 0.05) - expected).argmax(dim=1, keepdim=True)
    model.zero_grad()
    loss.loss(model, batch).backward()
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "encoder" in name and value.grad is not None:
                value -= 1e-5 * value.grad
        after = model.scores(batch)
    prior, now = ((scores / 0.05).softmax(dim=1).gather(1, best) for scores in (before, after))
    return float(now - prior)


def test_one_small_step_raises_the_passage_that_explains_the_answer(tiny_llama, pair):
    for row in examples():
        model = joint_model(tiny_llama, pair).eval()

        assert raised(model, objective(model, distillation=0.0), row) > 0


def test_with_detached_scores_nothing_of_this_holds(model):
    """The control: the loss still falls by the generator, and the retriever learns nothing."""
    real = model.scores
    model.scores = lambda batch: real(batch).detach()
    loss = objective(model)
    loss.loss(model, loss.collate(examples())).backward()

    assert first_layer(model.query_encoder).grad is None and first_layer(model.document_encoder).grad is None
    assert any(value.grad is not None for name, value in model.named_parameters() if "lora_A" in name)
    assert all(raised(model, loss, row) == 0.0 for row in examples())


def right_ones(count):
    """Each question is answered by the passage that stands at its place; the likelihoods say so."""
    rows = RagExamples()
    for index in range(count):
        candidates = tuple(
            Candidate(content=text, reading=reading([5], [6]), likelihood=-1.0 if place == index % 5 else -6.0)
            for place, text in enumerate(PASSAGES)
        )
        rows.append(RagExample(question=f"{PASSAGES[(index + 2) % 5]} {index}", candidates=candidates, place=""))
    return rows


def recall(model, rows):
    loss = objective(model)
    with torch.no_grad():
        batch = loss.collate(rows)
        return float((model.scores(batch).argmax(dim=1) == torch.arange(len(rows)) % 5).float().mean())


def permuted(rows):
    """The control: the likelihoods are there, and say nothing."""
    draw = torch.Generator().manual_seed(0)
    mixed = RagExamples()
    for row in rows:
        order = torch.randperm(5, generator=draw).tolist()
        values = [row.candidates[place].likelihood for place in order]
        candidates = tuple(
            dataclasses.replace(one, likelihood=value) for one, value in zip(row.candidates, values, strict=True)
        )
        mixed.append(dataclasses.replace(row, candidates=candidates))
    return mixed


def test_recall_rises_by_likelihoods_and_not_by_permuted_ones(pair, tmp_path):
    rows, found = right_ones(20), {}
    for name, given in (("real", rows), ("permuted", permuted(rows))):
        encoders = EncoderPair(pair.query.trainable_copy(), pair.document.trainable_copy())
        model = RagModel(encoders, None, temperature=0.05, null_score=None)
        before = recall(model, rows)
        how = spec(tmp_path / name, batch_size=5, micro_batch_size=5, epochs=15, learning_rate=3e-3)
        fit(model, given, [], how, objective=objective(model))
        found[name] = (before, recall(model, rows))

    assert found["real"][1] >= 0.9 and found["real"][0] <= 0.5
    assert found["permuted"][1] <= 0.5


@pytest.mark.parametrize("frozen", ["query_encoder", "document_encoder", "generator"])
def test_what_is_frozen_stays_bit_for_bit(tiny_llama, pair, tmp_path, frozen):
    model = joint_model(tiny_llama, pair)
    for value in getattr(model, frozen).parameters():
        value.requires_grad_(False)
    before = dict(fingerprints(model.named_parameters()))

    fit(model, examples(), [], spec(tmp_path, batch_size=4, micro_batch_size=2), objective=objective(model))

    moved = {
        name.split(".")[0] for name, value in fingerprints(model.named_parameters()).items() if before[name] != value
    }
    assert moved == {"query_encoder", "document_encoder", "generator"} - {frozen}


def test_a_step_is_the_same_whatever_it_is_cut_into(tiny_llama, pair, tmp_path):
    ends = []
    for micro in (1, 4):
        model = joint_model(tiny_llama, pair, null=0.3)
        how = spec(tmp_path / str(micro), batch_size=4, micro_batch_size=micro, max_steps=2)
        result = fit(model, examples(null=True), examples(2, null=True), how, objective=objective(model))
        ends.append((result, {n: v.detach().clone() for n, v in model.named_parameters() if v.requires_grad}))

    assert ends[0][0].first_loss == pytest.approx(ends[1][0].first_loss, rel=1e-5)
    for name, value in ends[0][1].items():
        # Softmax does not see a bias of all keys: its gradient is rounding, which Adam makes a whole step of.
        if "key.bias" not in name:
            torch.testing.assert_close(ends[1][1][name], value, atol=2e-5, rtol=0)
    assert "null_score" in ends[0][1]


def test_joint_training_interrupted_and_resumed_is_the_uninterrupted_run(tiny_llama, pair, tmp_path):
    how = {"batch_size": 4, "micro_batch_size": 2, "epochs": 3, "checkpoint_every": 2}
    straight = joint_model(tiny_llama, pair)
    fit(straight, examples(), [], spec(tmp_path / "straight", **how), objective=objective(straight))
    halted = joint_model(tiny_llama, pair)
    stopping = objective(halted)
    real, calls = stopping.loss, []

    def loss(*given):
        calls.append(1)
        if len(calls) == 8:  # within the fourth step
            raise RuntimeError("killed")
        return real(*given)

    stopping.loss = loss
    with pytest.raises(RuntimeError):
        fit(halted, examples(), [], spec(tmp_path / "halted", **how), objective=stopping)

    resumed = joint_model(tiny_llama, pair)
    found = newest_checkpoint(tmp_path / "halted" / "checkpoints")
    assert found.name == "step-00000002"
    fit(resumed, examples(), [], spec(tmp_path / "halted", **how), objective=objective(resumed), resume_from=found)

    assert fingerprints(resumed.named_parameters()) == fingerprints(straight.named_parameters())


def test_the_reader_learns_by_the_posterior_and_the_encoders_stand_still(tiny_llama, pair):
    model = joint_model(tiny_llama, pair).eval()
    rows = examples(likelihoods=True)
    joint, reader = objective(model, distillation=0.0), objective(model, reader_only=True)
    live = RagExamples(
        dataclasses.replace(
            row, candidates=tuple(dataclasses.replace(one, likelihood=None) for one in row.candidates)
        )
        for row in rows
    )
    # Where the cached likelihoods are the live ones, its gradient is the joint loss's in the generator.
    with torch.no_grad():
        known = joint.likelihoods(model, joint.collate(live))
    cached = RagExamples(
        dataclasses.replace(
            row,
            candidates=tuple(
                dataclasses.replace(one, likelihood=float(value))
                for one, value in zip(row.candidates, values, strict=True)
            ),
        )
        for row, values in zip(rows, known, strict=True)
    )
    gradients = []
    for loss, given in ((joint, live), (reader, cached)):
        model.zero_grad()
        loss.loss(model, loss.collate(given)).backward()
        gradients.append({n: copy.copy(v.grad) for n, v in model.generator.named_parameters() if v.grad is not None})

    assert first_layer(model.query_encoder).grad is None
    scale = max(float(value.abs().max()) for value in gradients[0].values())
    for name, value in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], value, atol=0.02 * scale, rtol=0)


def test_the_reader_is_not_asked_of_passages_that_count_for_nothing(tiny_llama, pair, monkeypatch):
    model = joint_model(tiny_llama, pair).eval()
    rows = RagExamples(
        dataclasses.replace(
            row,
            candidates=tuple(
                dataclasses.replace(one, likelihood=-1.0 if place == 0 else -90.0)
                for place, one in enumerate(row.candidates)
            ),
        )
        for row in examples()
    )
    asked = []

    def watched(generator, readings):
        asked.append(len(readings["input_ids"]))
        return row_losses(generator, readings)

    monkeypatch.setattr(training, "row_losses", watched)
    reader = objective(model, reader_only=True)
    loss = reader.losses(model, reader.collate(rows))

    assert asked == [8]  # of 24: one a question
    alone = [-reader.likelihoods(model, reader.collate([row]))[0, 0].item() for row in rows]
    assert loss.tolist() == pytest.approx(alone, rel=1e-4)


def test_shared_encoders_are_trained_once(tiny_llama, pair):
    model = joint_model(tiny_llama, pair, shared=True)

    assert model.query_encoder is model.document_encoder
    names = [name for name, _ in model.named_parameters()]
    assert not any(name.startswith("document_encoder") for name in names)


def test_a_question_of_fewer_candidates_counts_the_same_beside_others(model):
    loss = objective(model)
    rows = examples()
    short = dataclasses.replace(rows[0], candidates=rows[0].candidates[:2])
    alone = loss.loss(model, loss.collate([short])).item()
    others = loss.loss(model, loss.collate(rows[1:3])).item()

    assert loss.loss(model, loss.collate([short, *rows[1:3]])).item() == pytest.approx(alone + others, rel=1e-5)


def test_answering_without_a_passage_is_a_candidate_of_its_own(tiny_llama, pair):
    model = joint_model(tiny_llama, pair, null=0.25).eval()
    loss = objective(model)
    batch = loss.collate(examples(2, null=True))

    scores = model.scores(batch)
    assert scores[:, 3].tolist() == [0.25, 0.25]
    loss.loss(model, batch).backward()
    assert model.null_score.grad.abs() > 0
