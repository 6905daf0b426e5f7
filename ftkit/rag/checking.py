"""Everything that can be known of a RAG run before training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ftkit.errors import OutputError
from ftkit.files import require_empty, require_space
from ftkit.pipeline.estimate import Estimate
from ftkit.pipeline.session import Session
from ftkit.rag.audit import Passages, audit_warnings
from ftkit.rag.beginning import leaked_questions
from ftkit.rag.corpus import Corpus
from ftkit.rag.encoder import Encoder
from ftkit.rag.ground import Ground, read_ground
from ftkit.rag.raft import draws_of
from ftkit.rag.reading_bounds import Bounds, generator_needs
from ftkit.rag.run import MARK
from ftkit.rag.totals import parameters_of
from ftkit.recipe import RagRecipe
from ftkit.train.batches import count_steps
from ftkit.units import format_bytes

FLOAT32 = 4


def check_rag(recipe: RagRecipe) -> dict[str, Any]:
    """Check models, documents, questions, lengths, steps, memory and disk; nothing is embedded, trained or written.

    Returns:
        ``model``, ``encoder``, ``corpus``, ``questions``, ``readings`` (bounds, as the search decides what is read),
        ``stretches`` with their steps, ``steps`` in all (at most, unless ``steps_exact``), ``estimate`` (memory of
        generator and encoders together; disk) and ``warnings``.

    Raises:
        FtkitError: Of the kind of the first part that fails, listing the faults of all parts.
    """
    recipe = recipe.resolved()
    ground = read_ground(recipe)
    needs = check_needs(recipe, ground)
    stretches = _stretches(recipe, ground)
    synthetic = recipe.data.synthetic
    exact = synthetic is None and all(one.documents or not one.answers for one in ground.train.asked)
    leaks = len(leaked_questions(ground.train.asked, ground.held.asked))
    warnings = _warnings(recipe, ground, needs)
    if leaks:
        warnings.append(f"{leaks} held-back questions are also trained on, so validation figures flatter")
    return {
        "recipe": recipe.model_dump(mode="json"),
        "model": model_facts(ground.session),
        "encoder": encoder_facts(ground.encoder),
        "device": str(ground.session.device),
        "compute": str(ground.session.precision.compute).removeprefix("torch."),
        "corpus": corpus_facts(ground.corpus, ground.passages, ground.session),
        "questions": {
            "train": ground.train.to_dict(),
            "validation": ground.held.to_dict(),
            "leaks": leaks,
            "synthetic": None if synthetic is None else {"wanted": synthetic.count, "least": synthetic.least},
        },
        "readings": reading_facts(ground.bounds, recipe.data.max_length),
        "steps": sum(one["steps"] for one in stretches),
        "steps_exact": exact,
        "stretches": stretches,
        "estimate": needs.to_dict(),
        "warnings": warnings,
    }


def model_facts(session: Session) -> dict[str, Any]:
    """The base model that was found."""
    base = session.base
    return {
        "name": base.portable_name,
        "path": str(base.folder),
        "sha256": base.sha256,
        "revision": base.revision,
    }


def encoder_facts(encoder: Encoder) -> dict[str, Any]:
    """The encoder that was found."""
    return {
        "name": encoder.found.portable_name,
        "path": str(encoder.found.folder),
        "sha256": encoder.found.sha256,
        "max_tokens": encoder.max_tokens,
        "width": encoder.width,
        "parameters": parameters_of(encoder.module),
    }


def corpus_facts(corpus: Corpus, passages: Passages, session: Session) -> dict[str, Any]:
    """What was read and cut; tokens are the generator's."""
    counted = session.tokenizer(passages.distinct, add_special_tokens=False, verbose=False)["input_ids"]
    return {
        "documents": len(corpus.documents),
        "passages": passages.count,
        "distinct_passages": len(passages.distinct),
        "tokens": sum(map(len, counted)),
        "longest_passage": max(map(len, counted)),
        "faults": [str(fault) for fault in corpus.faults],
        "left_out": [str(path) for path in corpus.left_out],
    }


def reading_facts(bounds: Bounds, max_length: int) -> dict[str, Any]:
    """How long readings can be."""
    return {
        "max_length": max_length,
        "longest_possible": bounds.longest,
        "possibly_too_long": len(bounds.may),
        "possibly_too_long_at": [one.place for one in bounds.may[:20]],
    }


def check_needs(recipe: RagRecipe, ground: Ground) -> Estimate:
    """Memory of generator and encoders, and disk.

    Raises:
        ResourceError: One of them certainly does not suffice.
    """
    size = encoder_bytes(recipe.stages, ground.encoder)
    needs = generator_needs(ground.session, ground.bounds, learns="reader" in recipe.stages, encoder_bytes=size)
    rounds = recipe.joint.rounds if "joint" in recipe.stages else 0
    needs = replace(needs, disk=needs.disk * (1 + rounds) + _own_disk(recipe, ground))
    needs.require_fit()
    require_space(Path(recipe.output or ""), needs.disk)
    return needs


def encoder_bytes(stages: Sequence[str], encoder: Encoder) -> int:
    """Memory of the encoders: as they come, copies that learn, gradients and moments."""
    size = FLOAT32 * parameters_of(encoder.module)
    if "joint" in stages:
        return size * (2 + 2 * 4)
    return size * (2 + 4) if "retriever" in stages else size


def _own_disk(recipe: RagRecipe, ground: Ground) -> int:
    """Indexes, and encoders with their checkpoints."""
    size = FLOAT32 * parameters_of(ground.encoder.module)
    text = sum(len(document.text.encode()) for document in ground.corpus.documents)
    index = 3 * text + FLOAT32 * ground.encoder.width * ground.passages.count
    rounds = recipe.joint.rounds if "joint" in recipe.stages else 0
    stretches = rounds + ("retriever" in recipe.stages)
    kept = 3 * recipe.train.keep_last + 1
    return index * (2 + rounds) + 2 * size * stretches * kept


def _refusing(recipe: RagRecipe, ground: Ground) -> int:
    """Questions that joint training also shows with a passage that lacks the answer; one at most each."""
    share, seed = recipe.reader.without_gold, recipe.train.seed
    return sum(not one.answers or draws_of(one, seed).random() < share for one in ground.train.asked)


def _stretches(recipe: RagRecipe, ground: Ground) -> list[dict[str, Any]]:
    """Each stretch with its questions and steps, as far as that is known before the search."""
    train, made = recipe.train, 0 if recipe.data.synthetic is None else recipe.data.synthetic.count
    reading, choosing = len(ground.train.teaching) + made, len(ground.train.answerable) + made
    planned: list[tuple[str, int, float]] = []
    if "reader" in recipe.stages:
        planned.append(("reader", reading, train.epochs))
    if "retriever" in recipe.stages:
        planned.append(("retriever", choosing, recipe.retriever.epochs))
    together = recipe.joint.form == "simultaneous" or (
        recipe.joint.form == "auto" and ground.session.device.type == "cuda"
    )
    for number in range(1, recipe.joint.rounds + 1) if "joint" in recipe.stages else ():
        name = f"joint/round-{number}"
        # The score of answering without a passage learns even where the encoders do not.
        turns = recipe.retriever.train != "none" or recipe.joint.null_passage
        planned += [(f"{name}/retriever", choosing, 1.0)] if turns and not together else []
        planned.append((name if together else f"{name}/reader", choosing + _refusing(recipe, ground), 1.0))
    return [
        {
            "name": name,
            "questions": count,
            "steps": count_steps(count, batch_size=train.batch_size, epochs=epochs, max_steps=train.max_steps),
        }
        for name, count, epochs in planned
    ]


def _warnings(recipe: RagRecipe, ground: Ground, needs: Estimate) -> list[str]:
    warnings = [
        *audit_warnings("training", ground.train, ground.passages),
        *audit_warnings("held-back", ground.held, ground.passages),
    ]
    wanted, most = recipe.corpus.passage_tokens, ground.encoder.max_tokens
    if wanted is not None and wanted > most:
        warnings.append(f"corpus.passage_tokens: the encoder reads {most} tokens, so passages are cut to that")
    if ground.corpus.faults:
        warnings.append(f"{len(ground.corpus.faults)} sources cannot be read and are left out")
    return [
        *warnings,
        *length_warnings(ground.bounds, recipe.data.max_length),
        *memory_warnings(needs),
        *output_warnings(Path(recipe.output or ""), goes_on=MARK),
    ]


def length_warnings(bounds: Bounds, max_length: int) -> list[str]:
    """Readings that may come out too long."""
    if not bounds.may:
        return []
    return [
        f"{len(bounds.may)} questions may have readings longer than data.max_length {max_length}, which would stop "
        f"the run; {bounds.longest} is enough for all"
    ]


def memory_warnings(needs: Estimate) -> list[str]:
    """Memory that may not suffice."""
    if needs.memory <= needs.available:
        return []
    return [
        f"memory may not suffice: about {format_bytes(needs.memory)} of {format_bytes(needs.available)}; "
        "train.micro_batch_size=1 needs less"
    ]


def output_warnings(output: Path, *, goes_on: str) -> list[str]:
    """An output folder that is not fresh.

    Args:
        output: The folder.
        goes_on: A file in it by which the same can go on there.
    """
    if (output / goes_on).is_file():
        return [f"{output}: was begun already; the same goes on there, another recipe is refused"]
    try:
        require_empty(output)
    except OutputError as error:
        return [str(error)]
    return []
