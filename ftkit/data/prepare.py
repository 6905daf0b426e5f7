"""The data pipeline: sources -> token stores -> a plan of what becomes of each row -> examples and a report."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer

from ftkit.data.encode import EncoderSettings
from ftkit.data.example import TokenizedExample
from ftkit.data.gather import MOST_PROBLEMS, Gathered, Part, gather
from ftkit.data.lint import Finding
from ftkit.data.mixture import SourceMix
from ftkit.data.plan import MAX_ROWS_SEARCHED, Plan, PlanSettings, make_plan
from ftkit.data.report import DataReport
from ftkit.data.rows import Rows
from ftkit.data.sources import Source
from ftkit.data.stored import StoredExamples
from ftkit.data.summary import (
    RowTexts,
    answer_summary,
    data_digest,
    findings_of,
    length_numbers,
    lint_summary,
    mixture,
    pair_examples,
    shown_examples,
)
from ftkit.data.tables import examples_of, row_table, token_ids
from ftkit.errors import DataError, Problem
from ftkit.notices import log
from ftkit.recipe import DataSection
from ftkit.recipe.sections import ReplaySection, SourceSection

MOST_WORKERS = 8


@dataclass(frozen=True, kw_only=True)
class PreparedData:
    """Everything that training needs of the data.

    Attributes:
        train: Examples of one epoch, in file order; those of a source with a weight above 1 repeatedly.
        validation: Examples held back.
        stop_token_ids: The tokens that end an answer, most frequent first.
        report: What happened to every row.
        findings: What is suspicious, all of it; reads from disk.
    """

    train: Sequence[TokenizedExample]
    validation: Sequence[TokenizedExample]
    stop_token_ids: list[int]
    report: DataReport
    findings: Callable[[], Iterator[Finding]]


def prepare(
    settings: DataSection,
    encoder: EncoderSettings,
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    takes_pairs: bool = False,
    limits: Sequence[int] = (),
    first_rows: int | None = None,
) -> PreparedData:
    """Read, check, tokenise, split and mix the data of a recipe.

    Args:
        settings: The recipe's data section.
        encoder: Of the tokenizer, its chat template in its final form.
        seed: Of everything drawn at random.
        progress: Called with bytes read and bytes in all.
        takes_pairs: Whether preference pairs are welcome: to be looked at, not to be trained on as if the rejected
            answers were not there.
        limits: Further lengths for the report's table of what a limit would cut.
        first_rows: Read only about so many rows of each training file.

    Raises:
        DataError: Listing every fault of every row in one pass (up to a limit).
        MissingPartError: A source needs a package that is not installed.
    """
    parts = parts_of(settings)
    gathered = gather(
        parts,
        encoder,
        group_by=settings.group_by,
        workers=_workers(settings.workers),
        progress=progress or _show_nothing,
        first_rows=first_rows,
    )
    if gathered.problems:
        raise DataError(_listed(gathered.problems, gathered.unlisted))
    if not takes_pairs:
        _require_no_pairs(gathered)
    rows = row_table(gathered)
    mixes = _mixes(settings, parts)
    ids = token_ids(gathered) if _searches(settings, len(rows)) else None
    plan = make_plan(rows, mixes, _plan_settings(settings, seed), ids)
    epoch = examples_of(gathered, plan.epoch, settings.max_length)
    train = examples_of(gathered, plan.train, settings.max_length)
    validation = examples_of(gathered, plan.validation, settings.max_length)
    _require_no_overflow(rows, plan, settings, RowTexts(gathered.stores))
    _require_supervised(train, validation)
    _require_rows(plan)
    return PreparedData(
        train=epoch,
        validation=validation,
        stop_token_ids=[int(stop) for stop, _ in Counter(train.stop_ids.tolist()).most_common()],
        report=_report(_Outcome(parts, gathered, rows, plan, train, epoch, validation), encoder, limits),
        findings=lambda: findings_of(plan.train, rows.longest[plan.train], RowTexts(gathered.stores)),
    )


def parts_of(settings: DataSection) -> list[Part]:
    """Every source that the section names, and what its rows are for."""

    def source(path: str) -> Source:
        return Source(path=path, format=settings.format, columns=settings.columns)

    def of(section: SourceSection | ReplaySection) -> Source:
        return Source(
            path=section.path,
            format=settings.format if section.format == "auto" else section.format,
            columns=section.columns or settings.columns,
            revision=section.revision,
            subset=section.subset,
            split=section.split,
        )

    parts = [Part(role="train", source=of(one)) for one in settings.train]
    if isinstance(settings.validation, str):
        parts.append(Part(role="validation", source=source(settings.validation)))
    parts += [Part(role="evaluation", source=source(path)) for path in settings.evaluation]
    if settings.replay is not None:
        # General data has its own layout, whatever the training rows look like.
        replay = settings.replay
        parts.append(Part(role="replay", source=Source(
            path=replay.path, format=replay.format, columns=replay.columns, revision=replay.revision,
            subset=replay.subset, split=replay.split,
        )))  # fmt: skip
    return parts


def _show_nothing(done: int, total: int) -> None:
    pass


def _workers(setting: str | int) -> int:
    if isinstance(setting, int):
        return setting
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 0 if cores == 1 else min(cores, MOST_WORKERS)


def _listed(problems: Sequence[Problem], unlisted: int) -> list[Problem]:
    """Problems for people; how many there are comes first, as only the first ones are shown on a terminal."""
    if not unlisted:
        return list(problems)
    count = len(problems) + unlisted
    return [Problem(what=f"{count:,} rows are wrong; the first {len(problems):,} are listed"), *problems]


def _searches(settings: DataSection, rows: int) -> bool:
    """Whether anybody will look for nearly equal rows."""
    if settings.dedup == "near" or settings.near_duplicates != "auto":
        return settings.dedup == "near" or settings.near_duplicates is True
    return rows <= MAX_ROWS_SEARCHED


def _plan_settings(settings: DataSection, seed: int) -> PlanSettings:
    return PlanSettings(
        validation=0.0
        if settings.validation is None or isinstance(settings.validation, str)
        else settings.validation,
        max_length=settings.max_length if settings.overflow == "drop" else None,
        dedup=settings.dedup,
        near_duplicates=settings.near_duplicates,
        replay_share=0.0 if settings.replay is None else settings.replay.share,
        seed=seed,
    )


def _mixes(settings: DataSection, parts: Sequence[Part]) -> list[SourceMix]:
    mixes = [SourceMix(role="train", weight=one.weight, max_rows=one.max_rows) for one in settings.train]
    mixes += [SourceMix(role=part.role) for part in parts[len(mixes) :]]
    if settings.replay is not None:
        mixes[-1] = SourceMix(role="replay", max_rows=settings.replay.max_rows)
    return mixes


def _require_no_pairs(gathered: Gathered) -> None:
    problems = [
        Problem(
            where=file.path,
            what="holds preference pairs, which supervised fine-tuning cannot learn from",
            fix="To train on the chosen answers alone, name them: columns: {prompt: prompt, completion: chosen} with "
            "format: prompt-completion; for lists of messages columns: {messages: chosen} with format: messages.",
        )
        for file in gathered.files
        if file.format == "preference"
    ]
    if problems:
        raise DataError(problems)


def _require_no_overflow(rows: Rows, plan: Plan, settings: DataSection, texts: RowTexts) -> None:
    """Nothing is cut or left out unless the recipe says so."""
    if settings.overflow != "error":
        return
    kept = np.concatenate([plan.train, plan.validation])
    long = np.sort(kept[rows.longest[kept] > settings.max_length])
    problems = [
        Problem(
            where=texts.place(int(row)),
            what=f"{int(rows.longest[row])} tokens, data.max_length is {settings.max_length}",
            fix="Raise data.max_length, or choose data.overflow: drop or truncate.",
        )
        for row in long[:MOST_PROBLEMS]
    ]
    if problems:
        raise DataError(_listed(problems, len(long) - len(problems)))


def _require_rows(plan: Plan) -> None:
    if not len(plan.train):
        dropped = ", ".join(f"{count} {reason}" for reason, count in plan.dropped.items())
        raise DataError(
            "no row is left to train on" + (f" ({dropped})" if dropped else ""),
            fix="Raise data.max_length, or give more data." if dropped else "Give at least two rows.",
        )
    if plan.replay_repeats > 1:
        log.warning("data.replay has too few rows for its share: an epoch takes some %d times", plan.replay_repeats)


def _require_supervised(*sides: StoredExamples) -> None:
    """A row whose answer is cut off altogether has nothing to teach, and would be counted as if it had."""
    found = [(side, int(index)) for side in sides for index in np.flatnonzero(side.supervised == 0)]
    problems = [
        Problem(
            where=side.place(index),
            what="no token of this row counts towards the loss",
            fix="Raise data.max_length so that its answer is not cut off, or remove the row.",
        )
        for side, index in found[:MOST_PROBLEMS]
    ]
    if problems:
        raise DataError(_listed(problems, len(found) - len(problems)))


@dataclass(frozen=True)
class _Outcome:
    parts: Sequence[Part]
    gathered: Gathered
    rows: Rows
    plan: Plan
    train: StoredExamples
    epoch: StoredExamples
    validation: StoredExamples


def _report(done: _Outcome, encoder: EncoderSettings, limits: Sequence[int]) -> DataReport:
    plan, rows = done.plan, done.rows
    texts = RowTexts(done.gathered.stores)
    tokenizer = Tokenizer.from_str(encoder.tokenizer_json)

    def decode(ids: list[int]) -> str:
        return str(tokenizer.decode(ids, skip_special_tokens=False))

    stops = dict.fromkeys(stop for stop, _ in Counter(done.train.stop_ids.tolist()).most_common())
    answers, _ = answer_summary(plan.train, texts)
    return DataReport(
        rows_in=plan.rows_in,
        trained=len(plan.train),
        validation=len(plan.validation),
        dropped=plan.dropped,
        truncated=done.train.rows_truncated + done.validation.rows_truncated,
        sequences=len(done.train),
        tokens=int(done.train.lengths.sum()),
        supervised_tokens=int(done.train.supervised.sum()),
        epoch={
            "rows": len(plan.epoch),
            "sequences": len(done.epoch),
            "tokens": int(done.epoch.lengths.sum()),
        },
        **length_numbers(done.train, rows.longest[plan.train], limits),
        duplicates=plan.duplicates.count,
        leaks=plan.leaks.count,
        near_duplicates=None if plan.near_duplicates is None else plan.near_duplicates.count,
        near_leaks=None if plan.near_leaks is None else plan.near_leaks.count,
        duplicate_examples=pair_examples([plan.duplicates, plan.near_duplicates], texts),
        leak_examples=pair_examples([plan.leaks, plan.near_leaks], texts),
        mixture=mixture(done.parts, done.epoch.sources, done.epoch),
        answers=answers,
        lint=lint_summary(findings_of(plan.train, rows.longest[plan.train], texts)),
        examples=shown_examples(done.train, decode),
        stop_tokens=[str(tokenizer.id_to_token(stop)) for stop in stops],
        chat_template=encoder.chat is not None and any(file.format != "text" for file in done.gathered.files),
        digest=data_digest(done.gathered, done.epoch, done.validation),
        files=done.gathered.files,
    )
