"""What a model says to the frozen test, question by question."""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ftkit.data.example import TokenizedExample
from ftkit.data.prepare import prepare
from ftkit.data.settings import encoder_settings
from ftkit.errors import UsageError
from ftkit.evaluate.forgetting import Forgetting
from ftkit.evaluate.general import read_general
from ftkit.evaluate.generation import generate
from ftkit.evaluate.loss import each_loss
from ftkit.evaluate.metrics import METRICS
from ftkit.files import sha256_file, sha256_json, write_json
from ftkit.improve.frozen import Frozen, Question
from ftkit.models.tokenizer import template_names
from ftkit.notices import log
from ftkit.pipeline.gguf_model import GgufModel
from ftkit.pipeline.target import Target, open_target
from ftkit.recipe import DataSection, ImproveSpec
from ftkit.train.progress import ProgressBar

ANSWERS = "answers"
RULES = 1  # counts up when the same model comes to other scores, so that stored ones are not taken for these
GENERAL_ROWS = 100  # of the text of forgetting, spread evenly
LONGEST = 1 << 20  # no question is cut; what a model cannot read is an error of its own


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A model on the test.

    Attributes:
        scores: Of each question: nats of its first right answer and of what ends it, or a score from 0 to 1.
        weights: Of each question: the tokens that the nats are of, else 1.
        answers: Texts; empty where only likelihoods are measured.
        bits_per_byte: Of the text of forgetting; None where nobody asked.
    """

    scores: list[float]
    weights: list[float]
    answers: list[str]
    bits_per_byte: float | None


def ask(place: str, digest: str, spec: ImproveSpec, frozen: Frozen, folder: Path) -> Asked:
    """Ask a model, or take what it answered before.

    Args:
        place: As `ftkit.pipeline.target.open_target` takes it.
        digest: Of what stands there.
        spec: How to judge.
        frozen: The test.
        folder: Of the output; chat data of the test stand there, answers are kept there.
    """
    gate = spec.gate
    text = None if gate.forgetting is None else sha256_file(Path(gate.forgetting))
    longest = gate.max_new_tokens if gate.metric != "nll" else None
    key = sha256_json([RULES, digest, frozen.sha256, gate.metric, longest, text])
    stored = folder / ANSWERS / f"{key[:16]}.json"
    if not stored.is_file():
        log.info("%s: %d questions", place, len(frozen.questions))
        write_json(stored, {"place": place, "digest": digest, **asdict(_asked(open_target(place), spec, frozen))})
    values: dict[str, Any] = json.loads(stored.read_text(encoding="utf-8"))
    return Asked(**{name: values[name] for name in ("scores", "weights", "answers", "bits_per_byte")})


def forget_answers(folder: Path, part: str) -> None:
    """Remove what models said to the test whose place holds a part of a path, such as a round's."""
    for stored in (folder / ANSWERS).glob("*.json"):
        if f"/{part}/" in json.loads(stored.read_text(encoding="utf-8"))["place"]:
            stored.unlink()


def _asked(target: Target, spec: ImproveSpec, frozen: Frozen) -> Asked:
    gate = spec.gate
    if isinstance(target.model, GgufModel) and (gate.metric == "nll" or gate.forgetting is not None):
        raise UsageError(
            "llama.cpp's models only generate: they say nothing of how likely a text is",
            fix="Set gate.metric to exact_match or f1 and gate.forgetting to null, or name the merged export.",
        )
    examples = _examples(target, frozen)
    answers: list[str] = []
    if gate.metric == "nll":
        with ProgressBar("likelihoods", len(examples)) as bar:
            losses = each_loss(target.model, examples, compute=target.compute, progress=bar)
        scores = [one.mean * one.tokens for one in losses]
        weights = [float(one.tokens) for one in losses]
    else:
        answers, scores = _generated(target, examples, frozen.questions, spec)
        weights = [1.0] * len(scores)
    bits = None
    if gate.forgetting is not None:
        general = read_general([gate.forgetting], most=GENERAL_ROWS)
        bits = Forgetting(general, target.tokenizer, target.compute).measure(target.model).bits_per_byte
        if bits is None:
            raise UsageError(f"{gate.forgetting}: has no general text", fix='Name a text, or lines of {"text": ...}.')
    return Asked(scores=scores, weights=weights, answers=answers, bits_per_byte=bits)


def _examples(target: Target, frozen: Frozen) -> list[TokenizedExample]:
    """The test as this model is trained and served on it: with its own template."""
    section = DataSection.model_validate({
        "train": [json.loads(one.line) for one in frozen.questions],
        "validation": None, "format": "messages", "train_on": "last", "near_duplicates": False,
        "max_length": LONGEST, "workers": 0,
    })  # fmt: skip
    encoder = encoder_settings(
        target.tokenizer,
        train_on="last",
        allow_control_tokens=False,
        today=datetime.date.today(),
        known_templates=template_names(),
    )
    examples = list(prepare(section, encoder).train)
    examples.sort(key=lambda one: int(one.place.rpartition(":")[2]))  # an epoch's order is not the file's
    assert len(examples) == len(frozen.questions), "one answer of each question counts"
    return examples


def _generated(
    target: Target, examples: Sequence[TokenizedExample], questions: Sequence[Question], spec: ImproveSpec
) -> tuple[list[str], list[float]]:
    with ProgressBar("answers", len(examples)) as bar:
        answers = generate(
            target.model,
            [one.input_ids[: one.answer_start] for one in examples],
            target.tokenizer,
            stop_token_ids=target.stop_token_ids,
            max_new_tokens=spec.gate.max_new_tokens,
            pads_prompts=target.pads_prompts,
            progress=bar,
        )
    # An answer that never ends its turn is not the reference, even where its first words are.
    ended = [one.text if one.finish_reason == "stop" else f"{one.text} …" for one in answers]
    measure = METRICS[spec.gate.metric]
    scores = [
        max(measure(text, right) for right in question.answers)
        for text, question in zip(ended, questions, strict=True)
    ]
    return [one.text for one in answers], scores
