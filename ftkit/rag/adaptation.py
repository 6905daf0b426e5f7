"""A training run's own questions: made from its corpus before anything is trained, and joined to those of people."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ftkit.errors import DataError, OutputError
from ftkit.evaluate.generation import stop_ids
from ftkit.files import sha256_json, write_json
from ftkit.notices import log
from ftkit.pipeline.session import Session
from ftkit.pipeline.target import Target, open_target
from ftkit.rag.answering import RagSystem
from ftkit.rag.building import build_index, corpus_settings
from ftkit.rag.document import Document
from ftkit.rag.encoder import EncoderPair
from ftkit.rag.questions import AskedQuestion, read_questions, split_questions
from ftkit.rag.roundtrip import RoundTrip
from ftkit.rag.synthetic import Making, make_questions, report_path, summary
from ftkit.recipe import RagRecipe
from ftkit.recipe.rag import SyntheticSection

FILE = Path("questions") / "synthetic.jsonl"
REPORT = "data_report.json"


def add_synthetic(
    recipe: RagRecipe,
    folder: Path,
    documents: Sequence[Document],
    encoders: EncoderPair,
    session: Session,
    asked: Sequence[AskedQuestion],
    held: Sequence[AskedQuestion],
) -> tuple[list[AskedQuestion], list[AskedQuestion]]:
    """Training and held-back questions, with those made from the corpus; they are made once in a run.

    Args:
        recipe: Asks for them.
        folder: Of the run; questions, report and tries go to its ``questions``.
        documents: The corpus.
        encoders: As they are before training.
        session: Of the generator.
        asked: Questions of people to train on, perhaps none.
        held: Of a validation file; without one, a fraction of all questions is held back, by document.

    Raises:
        DataError: Too few pass the filter, or none is left to train on.
        OutputError: The questions are not those that this run made.
    """
    section = recipe.data.synthetic
    assert section is not None, "the recipe asks for them"
    path = folder / FILE
    if report_path(path).is_file():
        _require_own(path)
    else:
        path.parent.mkdir(exist_ok=True)
        settings = corpus_settings(recipe.corpus, encoders, folder=folder / "index-0", generator=recipe.model.path)
        with build_index(folder / "index-0", documents, encoders, settings) as index:
            system = RagSystem(
                index=index, encoders=encoders, generator=_generator(section, session), mode=recipe.answer.mode
            )
            known = [one.question for one in (*asked, *held)]
            make_questions(system, making=_making(section, known), output=path)
    report = json.loads(report_path(path).read_text(encoding="utf-8"))
    log.info("from the corpus: %s", summary(report))
    write_json(folder / REPORT, synthetic_facts(folder))
    least = min(section.least, section.count)
    if report["kept"] < least:
        raise DataError(
            f"{summary(report)}; training needs {least}",
            fix=f"See why in {path}.tries.jsonl; add documents, name a stronger data.synthetic.generator, or lower "
            "data.synthetic.least.",
        )
    every = [*asked, *read_questions(path)]
    validation = recipe.data.validation
    if isinstance(validation, str):
        return every, list(held)
    train, held_back = split_questions(every, validation or 0.0)
    if not train:
        raise DataError("no question is left to train on", fix="Lower data.validation.")
    return train, held_back


def synthetic_facts(folder: Path) -> dict[str, Any]:
    """What a run's reports say about its questions from the corpus; nothing where it has none."""
    path = report_path(folder / FILE)
    return {"synthetic": json.loads(path.read_text(encoding="utf-8"))} if path.is_file() else {}


def _require_own(path: Path) -> None:
    report = json.loads(report_path(path).read_text(encoding="utf-8"))
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    try:
        same = sha256_json([json.loads(line) for line in lines]) == report["questions_sha256"]
    except ValueError:
        same = False
    if not same:
        raise OutputError(
            f"{path}: changed since the run began", fix="Put it back, or train into another output with data.train."
        )


def _making(section: SyntheticSection, known: Sequence[str]) -> Making:
    trip = RoundTrip(found_within=section.found_within, check=section.check, f1=section.f1, margin=section.margin)
    return Making(
        count=section.count, seed=section.seed, tries=section.tries, trip=trip, known=tuple(known),
        unanswerable=section.unanswerable,
    )  # fmt: skip


def _generator(section: SyntheticSection, session: Session) -> Target:
    if section.generator is not None:
        return open_target(section.generator)
    model = session.load_base().eval()
    return Target(
        model=model,
        tokenizer=session.tokenizer,
        stop_token_ids=stop_ids(model, session.tokenizer),
        compute=session.precision.compute,
    )
