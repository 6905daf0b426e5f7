"""One stretch of training within a RAG run: a folder with metrics and checkpoints, that a resume goes on from."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ftkit.errors import Interrupted, VerificationError
from ftkit.files import new_folder, write_json
from ftkit.models.find_encoder import find_encoder
from ftkit.notices import log
from ftkit.rag.encoder import Encoder, EncoderPair
from ftkit.rag.training import RagExamples, RagModel, RagObjective
from ftkit.recipe import TrainSection
from ftkit.train.batches import choose_micro_batch_size
from ftkit.train.checkpoint import newest_checkpoint, remove_newer_checkpoints, step_of
from ftkit.train.counters import TrainResult
from ftkit.train.metrics_log import MetricsLog
from ftkit.train.spec import FitSpec
from ftkit.train.trainer import fit

RESULT = "result.json"
# The null passage's score is one number among cosines, and has as far to go as they have.
NULL_RATE = 10.0
SAVED_WITHIN = 1e-5  # of a vector's numbers, between an encoder in memory and the same one read from disk


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How fast what learns in one stretch.

    Attributes:
        learning_rate: Of the generator, or where none learns of the encoders.
        encoder_rate: Of the encoders.
        epochs: Passes over the questions.
        train: The recipe's section, for all that is the same everywhere.
        compute: dtype of the generator's matrix products.
    """

    learning_rate: float
    encoder_rate: float
    epochs: float
    train: TrainSection
    compute: torch.dtype


def learn(
    folder: Path, model: RagModel, rows: RagExamples, held: RagExamples, pace: Pace, objective: RagObjective
) -> dict[str, Any]:
    """Train what requires a gradient, or take it from where it was trained before.

    Args:
        folder: Of this stretch.
        model: As it is at its beginning.
        rows: Questions to learn from.
        held: Questions held back; may be empty.
        pace: How fast.
        objective: What to minimise.

    Returns:
        The content of its result.json.

    Raises:
        Interrupted: After saving a checkpoint.
    """
    folder.mkdir(parents=True, exist_ok=True)
    spec = _spec(folder, model, rows, pace)
    objective.bind(model)
    checkpoint = newest_checkpoint(folder / "checkpoints")
    # What is done again after a kill is written again.
    done = -1 if checkpoint is None else step_of(checkpoint)
    MetricsLog(folder / "metrics.jsonl").keep_through(done)
    remove_newer_checkpoints(folder / "checkpoints", max(done, 0))
    trainable = sum(value.numel() for value in model.parameters() if value.requires_grad)
    log.info("%s: %d questions, %d parameters learn", folder.name, len(rows), trainable)
    before = objective.mean_loss(model, held) if held and checkpoint is None else None
    result = fit(model, rows, held, spec, resume_from=checkpoint, objective=objective)
    objective.spent.steps = result.steps - max(done, 0)
    if result.interrupted:
        run = next((parent for parent in folder.parents if (parent / "rag.json").is_file()), folder)
        raise Interrupted(
            f"stopped after step {result.steps} of {result.total_steps} of {folder.name}; everything is saved",
            fix=f"Go on with: ftkit resume {run}",
        )
    model.eval()
    if (folder / RESULT).is_file():  # it was finished before, and what it measured then cannot be measured now
        facts = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    else:
        facts = _facts(result, before, trainable) | {"flops": _flops(objective, result)}
        write_json(folder / RESULT, facts)
    return {"folder": folder.name, **facts}


def _facts(result: TrainResult, before: float | None, trainable: int) -> dict[str, Any]:
    facts = {key: value for key, value in asdict(result).items() if key != "interrupted"}
    return facts | {"validation_loss_before": before, "trainable_parameters": trainable}


def _flops(objective: RagObjective, result: TrainResult) -> float | None:
    """Of the whole stretch, by the steps that this process did; None where it did none."""
    spent = objective.spent
    return spent.flops * result.steps / spent.steps if spent.steps else None


def _spec(folder: Path, model: RagModel, rows: RagExamples, pace: Pace) -> FitSpec:
    train = pace.train
    sizes = [sum(len(one.reading.input_ids) for one in row.candidates) for row in rows]
    device = next(model.parameters()).device.type
    micro = choose_micro_batch_size(sizes, batch_size=train.batch_size, device_type=device)
    factors = {
        name: pace.encoder_rate / pace.learning_rate * (NULL_RATE if name == "null_score" else 1.0)
        for name, value in model.named_parameters()
        if value.requires_grad and not name.startswith("generator.")
    }
    return FitSpec(
        learning_rate=pace.learning_rate,
        schedule=train.schedule,
        warmup=train.warmup,
        weight_decay=train.weight_decay,
        max_grad_norm=train.max_grad_norm,
        epochs=pace.epochs,
        max_steps=train.max_steps,
        batch_size=train.batch_size,
        micro_batch_size=micro,
        packing=False,
        gradient_checkpointing=False,
        compute=pace.compute,
        seed=train.seed,
        checkpoint_every=train.checkpoint_every,
        keep_last=train.keep_last,
        keep_best=0,
        validate_every=train.validate_every,
        log_every=train.log_every,
        folder=folder,
        learning_rate_factors={name: factor for name, factor in factors.items() if factor != 1.0},
    )


def learning_pair(encoders: EncoderPair, which: str) -> EncoderPair:
    """Copies of two encoders, of which the named ones learn.

    Args:
        encoders: Left as they are.
        which: ``query``, ``both`` or ``none``. With ``query`` the documents' vectors stay what they are.
    """
    shared = encoders.query is encoders.document
    query = encoders.query.trainable_copy()
    document = query if shared and which == "both" else encoders.document.trainable_copy()
    for encoder, learns in ((query, which != "none"), (document, which == "both")):
        if not learns:
            for value in encoder.module.parameters():
                value.requires_grad_(False)
    return EncoderPair(query, document)


def store_pair(folder: Path, live: EncoderPair, before: EncoderPair, which: str) -> EncoderPair:
    """Write the encoders that learnt, and read them back; the others are what they were.

    Args:
        folder: Made here, with ``query`` and perhaps ``document`` in it; a former, whole one is read.
        live: As trained.
        before: As they were.
        which: Which of them learnt.

    Raises:
        VerificationError: What was read back is not what was trained.
    """
    shared = live.query is live.document
    if not folder.is_dir():
        with new_folder(folder) as partial:
            live.query.save(partial / "query")
            if which == "both" and not shared:
                live.document.save(partial / "document")
    query = Encoder(find_encoder(str(folder / "query")))
    if which == "query":
        pair = EncoderPair(query, before.document)
    else:
        pair = EncoderPair(query, None if shared else Encoder(find_encoder(str(folder / "document"))))
    _require_equal(live, pair)
    return pair


def _require_equal(live: EncoderPair, stored: EncoderPair) -> None:
    texts = ["What does the stored encoder make of this?", "A passage about nothing in particular, with 7 numbers."]
    sides: list[tuple[str, Callable[[EncoderPair], Any]]] = [
        ("query", lambda pair: pair.query.vectors(texts, "query")),
        ("document", lambda pair: pair.document.vectors(texts, "document")),
    ]
    for name, vectors in sides:
        apart = float(abs(vectors(live) - vectors(stored)).max())
        if apart > SAVED_WITHIN:
            raise VerificationError(
                f"the {name} encoder, read back, gives vectors that differ by {apart:.2g} from the trained one's",
                fix="Do not use this run; its disk or its library lost something.",
            )
