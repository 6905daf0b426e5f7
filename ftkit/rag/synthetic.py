"""Questions made from an index's own passages, for corpora that nobody wrote questions for.

A span of a passage is chosen as the answer, the generator writes a question for it, and the pair is kept only if it
comes through the round trip (`ftkit.rag.roundtrip`).

FILE               one kept question a line, as `data.train` of ``recipe: rag`` reads it
FILE.report.json   how many were tried, kept, and dropped for what; these add up
FILE.tries.jsonl   every try with what became of it, as it happens: an interrupted call goes on from there
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ftkit.errors import DataError, Interrupted, OutputError
from ftkit.evaluate.generation import generate
from ftkit.evaluate.metrics import squad_words
from ftkit.files import sha256_json, write_json, write_text
from ftkit.notices import log
from ftkit.rag.answering import RagSystem
from ftkit.rag.asking import MAX_QUESTION_TOKENS, QuestionPrompts, first_line, opening_of, surroundings
from ftkit.rag.drawing import Drawn, draw_spans, first_asked
from ftkit.rag.likelihood import gives_likelihoods
from ftkit.rag.roundtrip import RoundTrip, form_fault, read_back, retrieved_at
from ftkit.rag.threshold import generator_sha256
from ftkit.rag.unanswerable import make_unanswerable
from ftkit.train.progress import ProgressBar

# Tries that share the generator's passes. Of the journal's lines, so another number is another run.
BATCH = 16
FORMAT_VERSION = 2
KEPT = "kept"
TOO_LONG = "passage too long for the generator"


@dataclass(frozen=True, kw_only=True)
class Making:
    """How questions are made.

    Attributes:
        count: Wanted.
        seed: Of the order in which spans are tried.
        tries: Most spans that are tried for each question wanted.
        trip: What a question must pass.
        known: Questions that are there already and are not made again.
        unanswerable: Share of all questions that nothing in the corpus answers, made from the kept ones and beside
            them; from 0 to 0.5.
    """

    count: int = 200
    seed: int = 0
    tries: int = 10
    trip: RoundTrip = field(default_factory=RoundTrip)
    known: tuple[str, ...] = ()
    unanswerable: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Made:
    """What came of it.

    Attributes:
        rows: The kept questions: id, question, answers, document, passage (start, end, in the document's stored text,
            of passage and answer), synthetic; then those without an answer, with made_from in the place of document.
        report: tried, kept, dropped {reason: count} (these add up), not_tried, and what they were made with;
            unanswerable: tried, made, dropped (these add up too) and wanted.
    """

    rows: list[dict[str, Any]]
    report: dict[str, Any]


def make_questions(
    system: RagSystem,
    *,
    count: int = 200,
    seed: int = 0,
    making: Making | None = None,
    output: str | Path | None = None,
) -> Made:
    """Make questions from the passages of an index, without any label.

    Args:
        system: The generator writes and reads the questions, the search must find them.
        count: Questions wanted; fewer come back where the spans, or ten tries for each, run out.
        seed: The same index, models and seed give the same questions.
        making: Both and all other settings, in their place.
        output: A file for the questions, with the report and all tries beside it; None to write nothing. A call that
            was cut off goes on when it is made again.

    Raises:
        DataError: There is no span to ask for, or the generator gives no likelihoods and the check needs them.
        OutputError: Something stands under ``output`` that was not made by this.
        Interrupted: After Ctrl-C; what was tried is kept.
    """
    making = making or Making(count=count, seed=seed)
    if making.trip.check == "likelihood" and not gives_likelihoods(system.generator):
        raise DataError("this generator gives no likelihoods", fix="Check by what it extracts: check extract.")
    path = None if output is None else Path(output)
    journal = _Journal(path)
    passages = system.index.all_passages()
    drawn = draw_spans(passages, seed=making.seed)
    if not drawn:
        raise DataError(
            f"{system.index.folder}: none of its {system.index.passages} passages holds a name, a number, a date "
            "or a noun phrase to ask for",
            fix="Questions are made from prose; add documents.",
        )
    tries = _try_all(system, making, first_asked(drawn, making.count * making.tries), journal)
    kept = [_row(one) for one in tries if one["fate"] == KEPT]
    without = make_unanswerable(
        kept, passages, share=making.unanswerable, known=[*making.known, *(row["question"] for row in kept)],
        fault=lambda question: _too_long(system, question),
    )  # fmt: skip
    rows = [*kept, *without.rows]
    report = _report(system, making, tries, rows, spans=len(drawn)) | {"unanswerable": without.facts}
    if path is not None:
        write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        write_json(report_path(path), report)
    return Made(rows=rows, report=report)


def report_path(path: Path) -> Path:
    """The report beside a file of made questions."""
    return path.with_name(f"{path.name}.report.json")


def summary(report: dict[str, Any]) -> str:
    """One line of a report: how many of how many, and why not the others."""
    dropped = sorted(report["dropped"].items(), key=lambda one: (-one[1], one[0]))
    why = "; ".join(f"{count} {reason}" for reason, count in dropped)
    without = report["unanswerable"]["made"]
    more = f", and {without} without an answer" if without else ""
    return f"{report['kept']} of {report['tried']} questions passed" + (f" ({why})" if why else "") + more


class _Journal:
    """The tries of former calls, a line a batch: a batch is done or is done again, so its passes are the same.

    Args:
        path: Of the questions; None to keep nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = None if path is None else path.with_name(f"{path.name}.tries.jsonl")
        if path is not None and self._path is not None and path.exists() and not self._path.exists():
            raise OutputError(f"{path}: is there already, and was not made by this", fix="Name another file.")
        self.known: dict[str, list[dict[str, Any]]] = {}
        if self._path is not None and self._path.is_file():
            self._read(self._path)

    def _read(self, path: Path) -> None:
        raw = path.read_bytes()
        whole = []
        for line in raw.splitlines(keepends=True):
            try:
                found = json.loads(line)
                self.known[str(found["key"])] = list(found["tries"])
                whole.append(line)
            except (ValueError, KeyError, TypeError):
                log.info("%s: a line that was cut off is left out; its questions are tried again", path)
        if b"".join(whole) != raw or not raw.endswith(b"\n"):
            write_text(path, "".join(line.decode().rstrip("\n") + "\n" for line in whole))

    def write(self, key: str, tries: list[dict[str, Any]]) -> None:
        self.known[key] = tries
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps({"key": key, "tries": tries}, ensure_ascii=False) + "\n")


def _try_all(system: RagSystem, making: Making, drawn: Sequence[Drawn], journal: _Journal) -> list[dict[str, Any]]:
    """Batch after batch, until enough are kept."""
    tries: list[dict[str, Any]] = []
    key = sha256_json(_identity(system, making))
    asked = set(map(_normal, making.known))
    kept = 0
    prompts = QuestionPrompts(system.generator.tokenizer, room=_room(system))
    try:
        with ProgressBar("making questions", making.count) as bar:
            for begin in range(0, len(drawn), BATCH):
                batch = drawn[begin : begin + BATCH]
                # Chained: whether a question is new depends on all that came before it.
                key = sha256_json([key, [[one.passage.content, one.span.text, one.start] for one in batch]])
                if key not in journal.known:
                    journal.write(key, _try(system, making.trip, batch, prompts, asked))
                for one in journal.known[key]:
                    asked.add(_normal(one["question"]))
                    surplus = one["fate"] == KEPT and kept >= making.count
                    kept += one["fate"] == KEPT and not surplus
                    tries.append({**one, "fate": "more than were asked for"} if surplus else one)
                bar.update(kept, f"{len(tries)} tried")
                if kept >= making.count:
                    break
    except KeyboardInterrupt:
        raise Interrupted(f"stopped after {len(tries)} tries; the same command goes on from there") from None
    return tries


def _try(
    system: RagSystem, trip: RoundTrip, batch: Sequence[Drawn], prompts: QuestionPrompts, asked: set[str]
) -> list[dict[str, Any]]:
    """What becomes of some spans: each is kept, or dropped for the first thing that it fails."""
    begun = [opening_of(one.span) for one in batch]
    ids = [
        prompts.ids(surroundings(one.passage, one.span), one.span.text, opening=opening)
        if one.fault is None
        else None
        for one, opening in zip(batch, begun, strict=True)
    ]
    said = iter(_said(system, [one for one in ids if one is not None]))
    tries, seen, reading = [], set(asked), []
    for one, prompt, opening in zip(batch, ids, begun, strict=True):
        question = "" if prompt is None else first_line(f"{opening} {next(said)}")
        fate = _fault(system, question, one, seen) if prompt is not None else one.fault or TOO_LONG
        rank = None
        if fate is None:
            rank = retrieved_at(system, question, one, trip.found_within)
            fate = None if rank is not None else "is not retrieved"
        seen.add(_normal(question))
        tries.append({**_origin(one), "question": question, "fate": fate, "rank": rank})
        if fate is None:
            reading.append((tries[-1], (question, one)))
    for (found, _), (passed, figures) in zip(
        reading, read_back(system, prompts, [pair for _, pair in reading], trip), strict=True
    ):
        found.update(fate=KEPT if passed else "is not read back", **figures)
    return tries


def _said(system: RagSystem, ids: Sequence[Sequence[int]]) -> list[str]:
    target = system.generator
    if not ids:
        return []
    if target.choose is not None:
        target.choose()
    answers = generate(
        target.model, ids, target.tokenizer, stop_token_ids=target.stop_token_ids,
        max_new_tokens=MAX_QUESTION_TOKENS, pads_prompts=target.pads_prompts,
    )  # fmt: skip
    return [one.text for one in answers]


def _fault(system: RagSystem, question: str, drawn: Drawn, seen: set[str]) -> str | None:
    if fault := form_fault(question, drawn.span.text, drawn.passage.content):
        return fault
    if _normal(question) in seen:
        return "was asked before"
    return _too_long(system, question)


def _too_long(system: RagSystem, question: str) -> str | None:
    query = system.encoders.query
    return "is longer than the encoder reads" if query.count(question, "query") > query.max_tokens else None


def _room(system: RagSystem) -> int | None:
    length = system.generator.context_length
    return None if length is None else length - MAX_QUESTION_TOKENS


def _normal(question: str) -> str:
    return " ".join(squad_words(question))


def _origin(drawn: Drawn) -> dict[str, Any]:
    passage = drawn.passage
    place = {"start": passage.start, "end": passage.end, "answer_start": drawn.start, "answer_end": drawn.end}
    return {"document": passage.document, "passage": place, "answer": drawn.span.text, "kind": drawn.span.kind}


def _row(one: dict[str, Any]) -> dict[str, Any]:
    name = sha256_json([one["document"], one["question"], one["answer"]])[:16]
    return {
        "id": f"synthetic-{name}",
        "question": one["question"],
        "answers": [one["answer"]],
        "document": one["document"],
        "passage": one["passage"],
        "synthetic": True,
    }


def _identity(system: RagSystem, making: Making) -> list[Any]:
    """What a try depends on besides its span; how many are wanted decides only when to stop."""
    # The search looks at every passage, so a document that is added may change what is found.
    passages = sha256_json(sorted(passage.content for passage in system.index.all_passages()))
    return [
        FORMAT_VERSION, BATCH, asdict(making.trip), making.seed, list(making.known),
        generator_sha256(system.generator), system.encoders.sha256, system.mode, passages,
    ]  # fmt: skip


def _report(
    system: RagSystem, making: Making, tries: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]], *, spans: int
) -> dict[str, Any]:
    dropped = Counter(str(one["fate"]) for one in tries if one["fate"] != KEPT)
    kept = sum(bool(row["answers"]) for row in rows)
    assert kept + dropped.total() == len(tries), "every try is kept or has a reason"
    return {
        "format_version": FORMAT_VERSION,
        "wanted": making.count,
        "tried": len(tries),
        "kept": kept,
        "dropped": dict(sorted(dropped.items())),
        "not_tried": spans - len(tries),
        "documents": len({row["document"] for row in rows if row["answers"]}),
        "documents_in_index": len(system.index.documents),
        "kinds": dict(sorted(Counter(one["kind"] for one in tries if one["fate"] == KEPT).items())),
        "settings": {"seed": making.seed, "tries": making.tries, **asdict(making.trip), "mode": system.mode},
        "generator_sha256": generator_sha256(system.generator),
        "encoders_sha256": system.encoders.sha256,
        "questions_sha256": sha256_json(list(rows)),
    }
