"""`ftkit rag train`: corpus -> index -> reader -> retriever -> both -> export -> index to be asked.

runs/rag/
  recipe.yaml       resolved
  rag.json          what the run began with: digests of recipe, questions, corpus, base and encoder
  questions/        those that were made from the corpus, where the recipe asks for them, with every try
  data_report.json  what became of every question
  reader/           an ordinary run folder: the generator, tuned to read
  retriever/        metrics, checkpoints, encoders
  joint/round-N/    the same, of each round
  generator/        the generator as it ends, a verified export (of the reader alone: reader/export/...)
  index/            to be asked, added to and served; names encoders and generator of this run
  result.json       what was measured
  report.html       all of it on one page
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ftkit.errors import DataError, OutputError, UsageError
from ftkit.export.probes import Probes
from ftkit.export.write import write_export
from ftkit.files import folder_lock, remove_partials, require_empty, sha256_json, write_json, write_text
from ftkit.notices import log, show_notices
from ftkit.pipeline import run as line
from ftkit.pipeline.exporting import describe_trained, load_trained, prove
from ftkit.pipeline.run_folder import RunFolder
from ftkit.pipeline.session import Session, open_session
from ftkit.rag.adaptation import add_synthetic, synthetic_facts
from ftkit.rag.beginning import generator_kind, leaked_questions, reader_recipe, run_corpus, run_questions
from ftkit.rag.building import answering_defaults, build_index, corpus_settings, name_generator, named_from
from ftkit.rag.corpus import Corpus
from ftkit.rag.encoder import EncoderPair, load_encoder
from ftkit.rag.joint import Course, train_jointly, train_retriever
from ftkit.rag.mining import mine
from ftkit.rag.questions import AskedQuestion
from ftkit.rag.raft import reader_rows
from ftkit.rag.reader import ReaderPrompts
from ftkit.rag.reranker import load_reranker
from ftkit.rag.run_page import PAGE, write_run_page
from ftkit.rag.settings import write_defaults
from ftkit.rag.totals import OF_READER, parameters_of, totals
from ftkit.recipe import RagRecipe, Recipe, dump_recipe, load_rag_recipe, recipe_digest

MARK, RESULT, REPORT = "rag.json", "result.json", "data_report.json"
INDEX = "index"


@dataclass(frozen=True, kw_only=True)
class FinishedRag:
    """A RAG run that has come to its end.

    Attributes:
        folder: Where everything stands.
        result: The content of result.json.
    """

    folder: Path
    result: dict[str, Any]


def is_rag_run(folder: Path) -> bool:
    """Whether a RAG run was started here."""
    return (folder / MARK).is_file()


def run_rag(recipe: RagRecipe, *, quiet: bool = False, known: Sequence[Path] = ()) -> FinishedRag:
    """Do everything that the recipe asks for.

    Args:
        recipe: What to do.
        quiet: Warnings only on stderr.
        known: Indexes of this corpus; vectors of the same encoders are taken from them.

    Raises:
        FtkitError: With the exit code of its kind; before training wherever it can be known.
        Interrupted: After saving what `resume_rag` goes on from.
    """
    show_notices(quiet=quiet)
    recipe = recipe.resolved()
    folder = Path(recipe.output or "")
    if is_rag_run(folder):
        raise OutputError(f"{folder}: is a run already", fix=f"Go on with it: ftkit resume {folder}")
    require_empty(folder)
    train, held = run_questions(recipe)
    corpus = run_corpus(recipe)
    facts = _identity(recipe, train, held, corpus)
    with folder_lock(folder):
        write_text(folder / "recipe.yaml", dump_recipe(recipe))
        write_json(folder / MARK, facts)
        return _go(recipe, folder, corpus, train, held, known)


def resume_rag(path: str | Path, *, quiet: bool = False, known: Sequence[Path] = ()) -> FinishedRag:
    """Go on with an interrupted run.

    Args:
        path: Its folder.
        quiet: Warnings only on stderr.
        known: See `run_rag`.

    Raises:
        OutputError: Recipe, questions, corpus or models changed since it began, or another process works on it.
    """
    show_notices(quiet=quiet)
    folder = Path(path)
    if not is_rag_run(folder):
        raise UsageError(f"{folder}: is no RAG run", fix="Name a folder that `ftkit rag train` wrote.")
    if (folder / RESULT).is_file():
        if not (folder / PAGE).is_file():  # it was killed between the two
            with folder_lock(folder):
                write_run_page(folder)
        log.info("%s is finished; there is nothing to resume", folder)
        return FinishedRag(folder=folder, result=json.loads((folder / RESULT).read_text(encoding="utf-8")))
    with folder_lock(folder):
        remove_partials(folder)
        recipe = load_rag_recipe(folder / "recipe.yaml", [f"output={folder}"])
        train, held = run_questions(recipe)
        corpus = run_corpus(recipe)
        before = json.loads((folder / MARK).read_text(encoding="utf-8"))
        now = _identity(recipe, train, held, corpus)
        if changed := [key for key in now if before.get(key) != now[key]]:
            raise OutputError(
                f"{folder}: changed since the run began: {', '.join(changed)}",
                fix="Put it back, or train into another output.",
            )
        return _go(recipe, folder, corpus, train, held, known)


def _identity(
    recipe: RagRecipe, train: Sequence[AskedQuestion], held: Sequence[AskedQuestion], corpus: Corpus
) -> dict[str, Any]:
    def digest(questions: Sequence[AskedQuestion]) -> str:
        return sha256_json([[asked.id, asked.question, asked.answers, asked.documents] for asked in questions])

    return {
        "format_version": 1,
        "recipe_digest": recipe_digest(recipe),
        "questions": digest(train),
        "held_back": digest(held),
        "corpus": sha256_json(sorted([document.id, document.sha256] for document in corpus.documents)),
    }


def _go(
    recipe: RagRecipe,
    folder: Path,
    corpus: Corpus,
    train: Sequence[AskedQuestion],
    held: Sequence[AskedQuestion],
    known: Sequence[Path],
) -> FinishedRag:
    encoder = load_encoder(recipe.retriever.encoder)
    if recipe.answer.reranker is not None:  # no hours of training for an index that cannot be asked
        load_reranker(recipe.answer.reranker)
    encoders = EncoderPair(encoder)
    if recipe.data.synthetic is not None:
        maker = open_session(reader_recipe(recipe, folder, validates=False))
        train, held = add_synthetic(recipe, folder, corpus.documents, encoders, maker, train, held)
    reader = reader_recipe(recipe, folder, validates=bool(held))
    session = open_session(reader)
    prompts = ReaderPrompts(session.tokenizer, room=None)
    course = Course(
        recipe=recipe, folder=folder, session=session, prompts=prompts, documents=corpus.documents, train=train,
        held=held, known=known,
    )  # fmt: skip
    log.info("%d documents, %d questions, %d held back", len(corpus.documents), len(train), len(held))
    if leaks := leaked_questions(train, held):
        log.warning("%d held-back questions are trained on too, so validation figures flatter", len(leaks))
    index = course.index("index-0", encoders)
    facts: dict[str, Any] = {**synthetic_facts(folder), "stages": {}}
    generator_name = recipe.model.path
    if "reader" in recipe.stages:
        facts["stages"]["reader"] = _train_reader(course, index, encoders, reader)
        generator_name = str(folder / "reader" / "export" / generator_kind(reader))
    generator: nn.Module | None = None
    if "retriever" in recipe.stages:
        generator = _generator(session, folder, recipe)
        encoders, facts["stages"]["retriever"] = train_retriever(course, index, encoders, generator)
    index.close()
    if "joint" in recipe.stages:
        generator = generator if generator is not None else _generator(session, folder, recipe)
        encoders, facts["stages"]["joint"] = train_jointly(course, encoders, generator)
        generator_name = str(_export(course, generator, reader))
    facts["passages"] = _write_index(course, encoders, generator_name)
    for scratch in folder.glob("index-*"):
        shutil.rmtree(scratch)
    facts["documents"] = len(corpus.documents)
    if "reader" in recipe.stages:
        size = facts["stages"]["reader"]["total_parameters"]
    else:
        assert generator is not None, "what is not the stage reader asks it"
        size = parameters_of(generator)
    facts = {**totals(recipe, folder, facts["stages"], encoders, size), "model": session.base.portable_name, **facts}
    write_json(folder / RESULT, facts)
    write_run_page(folder)
    return FinishedRag(folder=folder, result=facts)


def _write_index(course: Course, encoders: EncoderPair, generator: str) -> int:
    """The index that is asked, by the encoders as they end; how many passages it has."""
    recipe, folder = course.recipe, course.folder
    final = folder / INDEX
    named = named_from(final, generator)
    settings = corpus_settings(recipe.corpus, encoders, folder=final, generator=named)
    ready = [*folder.glob("index-*"), *course.known]
    with build_index(final, course.documents, encoders, settings, known=ready) as answering:
        passages = answering.passages
    name_generator(final, named)
    write_defaults(final, answering_defaults(recipe, final))
    return passages


def _train_reader(course: Course, index: Any, encoders: EncoderPair, reader: Recipe) -> dict[str, Any]:
    recipe, folder = course.recipe, course.folder
    data = folder / "reader-data"
    report: dict[str, Any] = {}
    sides = [("train", course.train), *([("validation", course.held)] if course.held else [])]
    for name, questions in sides:
        mined = mine(
            index, encoders, questions,
            dense=recipe.retriever.candidates, lexical=recipe.retriever.lexical_candidates,
        )  # fmt: skip
        rows, counts = reader_rows(
            mined, course.prompts, passages=recipe.reader.passages, without_gold=recipe.reader.without_gold,
            seed=recipe.train.seed,
        )  # fmt: skip
        report[name] = {"questions": len(questions), **counts}
        if not rows:
            raise DataError(
                f"none of the {len(questions)} {name} questions can teach reading: {counts}",
                fix="Name the document of each question, or use answers that stand in the documents.",
            )
        write_text(data / f"{name}.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    write_json(folder / REPORT, {**synthetic_facts(folder), **report})
    for name, counts in report.items():
        log.info("reader, %s: %s", name, ", ".join(f"{count} {kind}" for kind, count in counts.items()))
    run = RunFolder(folder / "reader")
    done = line.resume(run.path) if run.is_run() else line.run(reader)
    return {key: done.result[key] for key in OF_READER}


def _generator(session: Session, folder: Path, recipe: RagRecipe) -> nn.Module:
    """As the reader's run left it; without one, the base."""
    if "reader" in recipe.stages:
        return load_trained(session, RunFolder(folder / "reader"))
    model = session.load_base()
    for value in model.parameters():
        value.requires_grad_(False)
    return model.eval()


def _export(course: Course, generator: nn.Module, reader: Recipe) -> Path:
    """The generator as joint training leaves it, held to the live model like every other export."""
    target = course.folder / "generator"
    own = RunFolder(course.folder / "joint" / "generator")
    before = RunFolder(course.folder / "reader")
    if not target.is_dir():
        own.path.mkdir(parents=True, exist_ok=True)
        run = before.read("run.json")
        write_json(own.path / "run.json", run)
        result = before.read(RESULT)
        trained = describe_trained(
            course.session, generator, Probes.load(before.probes), run["stop_tokens"], own,
            {"data": before.read(REPORT), "metrics": {}, "losses": {"before": result["losses"]["validation_before"],
             "after": None}},
        )  # fmt: skip
        write_export(trained, generator_kind(reader), "auto", target)
        prove(target)
    return target
