"""The data pipeline: files -> rows -> samples -> split -> tokenised examples -> report."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from ftkit.data.formats import FORMATS, RowFault, detect_format, rename_columns
from ftkit.data.render import RenderFault
from ftkit.data.report import DataReport, SourceFile, length_summary
from ftkit.data.sample import Sample
from ftkit.data.sources import data_files, read_rows
from ftkit.data.split import split_by_content
from ftkit.data.tokenize import TokenizedExample, Tokenizer
from ftkit.errors import DataError, Problem
from ftkit.files import sha256_file
from ftkit.recipe import DataSection

MAX_PROBLEMS = 1000  # a wrong column name makes every row wrong; a thousand are enough to see it


@dataclass(frozen=True, kw_only=True)
class PreparedData:
    """Everything that training needs of the data.

    Attributes:
        train: Examples to train on, in file order.
        validation: Examples held back.
        stop_token_ids: The tokens that end an answer, most frequent first.
        report: What happened to every row.
    """

    train: list[TokenizedExample]
    validation: list[TokenizedExample]
    stop_token_ids: list[int]
    report: DataReport


@dataclass(frozen=True, kw_only=True)
class _Side:
    """One of train and validation, tokenised."""

    examples: list[TokenizedExample]
    problems: list[Problem]
    dropped: int
    truncated: int


def prepare(
    settings: DataSection,
    tokenizer: PreTrainedTokenizerBase,
    *,
    bos_wanted: bool,
    template_names: Sequence[str],
    progress: Callable[[int, int], None] | None = None,
) -> PreparedData:
    """Read, check, split and tokenise the data of a recipe.

    Args:
        settings: The recipe's data section.
        tokenizer: With its chat template in its final form.
        bos_wanted: Whether the tokenizer begins plain text with BOS.
        template_names: Chat templates that can be named, for the error where one is missing.
        progress: Called with rows done and rows in all.

    Raises:
        DataError: Listing every fault of every row in one pass (up to a limit).
    """
    samples, files, problems = _read_sources(
        [(part.path, part.format, part.columns, part.max_rows) for part in settings.train], settings
    )
    held: list[Sample] = []
    if isinstance(settings.validation, str):
        held, held_files, held_problems = _read_sources([(settings.validation, "auto", None, None)], settings)
        files += held_files
        problems += held_problems
    if problems:
        raise DataError(problems[:MAX_PROBLEMS])
    if not isinstance(settings.validation, str):
        samples, held = split_by_content(samples, settings.validation or 0.0)
    _require_template(samples + held, tokenizer, template_names)
    encode = Tokenizer(tokenizer, train_on=settings.train_on, bos_wanted=bos_wanted)
    total = len(samples) + len(held)

    def show(done: int) -> None:
        if progress is not None:
            progress(done, total)

    train = _tokenise(samples, encode, settings, show)
    validation = _tokenise(held, encode, settings, lambda done: show(len(samples) + done))
    if train.problems or validation.problems:
        raise DataError([*train.problems, *validation.problems][:MAX_PROBLEMS])
    if not train.examples:
        raise DataError(
            "no row is left to train on",
            fix="Raise data.max_length, or give more data." if train.dropped else "Give at least two rows.",
        )
    stops = _stop_tokens(train.examples)
    return PreparedData(
        train=train.examples,
        validation=validation.examples,
        stop_token_ids=stops,
        report=_report(samples, held, train, validation, files, tokenizer, stops),
    )


def _tokenise(
    samples: Sequence[Sample], encode: Tokenizer, settings: DataSection, show: Callable[[int], None]
) -> _Side:
    examples: list[TokenizedExample] = []
    problems: list[Problem] = []
    dropped = truncated = 0
    for done, sample in enumerate(samples, start=1):
        show(done)
        try:
            example = encode(sample)
            if len(example.input_ids) > settings.max_length:
                if settings.overflow == "drop":
                    dropped += 1
                    continue
                example = _cut(example, settings.max_length, settings.overflow)
                truncated += 1
            _require_supervised(example)
        except RenderFault as fault:
            problems.append(Problem(where=sample.place, what=fault.what, fix=fault.fix))
            continue
        examples.append(example)
    return _Side(examples=examples, problems=problems, dropped=dropped, truncated=truncated)


def _read_sources(
    sources: Sequence[tuple[str, str, dict[str, str] | None, int | None]], settings: DataSection
) -> tuple[list[Sample], list[SourceFile], list[Problem]]:
    """All samples of several sources, what was read, and every fault in it."""
    samples: list[Sample] = []
    files: list[SourceFile] = []
    problems: list[Problem] = []
    for path, form, columns, max_rows in sources:
        taken = 0
        try:
            found_files = data_files(path)
        except DataError as error:
            problems += error.problems
            continue
        for file in found_files:
            left = None if max_rows is None else max_rows - taken
            if left == 0:
                break
            wanted = settings.format if form == "auto" else form
            found, name, faults = _read_file(file, wanted, columns or settings.columns, left)
            samples += found
            problems += faults
            taken += len(found) + len(faults)
            if not found and not faults:
                problems.append(Problem(where=str(file), what="has no rows", fix="Name a file with data."))
            files.append(SourceFile(path=str(file), sha256=sha256_file(file), format=name, rows=len(found)))
    return samples, files, problems


def _read_file(
    file: Path, form: str, columns: dict[str, str] | None, limit: int | None
) -> tuple[list[Sample], str, list[Problem]]:
    samples: list[Sample] = []
    problems: list[Problem] = []
    for place, row in read_rows(file):
        if limit is not None and len(samples) + len(problems) >= limit:
            break
        if isinstance(row, Problem):
            problems.append(row)
            continue
        renamed = rename_columns(row, columns)
        try:
            if form == "auto":
                form = detect_format(renamed, place)
            layout = FORMATS[form]
            samples.append(Sample(turns=layout.read(renamed), kind=layout.kind, place=place))
        except RowFault as fault:
            problems.append(Problem(where=f"{place}: {fault.field}", what=fault.what, fix=fault.fix))
        except DataError as error:
            problems += error.problems
            break  # without a format, no row of this file can be read
    return samples, form, problems


def _require_template(
    samples: Sequence[Sample], tokenizer: PreTrainedTokenizerBase, template_names: Sequence[str]
) -> None:
    if tokenizer.chat_template is not None:
        return
    for sample in samples:
        if sample.kind == "chat" or (sample.kind == "exchange" and len(sample.turns) != 2):
            raise DataError(
                Problem(
                    where=sample.place,
                    what="is a conversation, and this model's tokenizer has no chat template",
                    fix=f"Choose one with model.chat_template: {', '.join(template_names)}, or a Jinja file.",
                )
            )


def _cut(example: TokenizedExample, max_length: int, overflow: str) -> TokenizedExample:
    if overflow == "error":
        raise RenderFault(
            f"{len(example.input_ids)} tokens, data.max_length is {max_length}",
            "Raise data.max_length, or choose data.overflow: drop or truncate.",
        )
    return TokenizedExample(
        input_ids=example.input_ids[:max_length],
        labels=example.labels[:max_length],
        answer_start=min(example.answer_start, max_length),
        stop_id=example.stop_id,
        answer=example.answer,
        place=example.place,
        question=example.question,
    )


def _require_supervised(example: TokenizedExample) -> None:
    if example.supervised_tokens == 0:
        raise RenderFault(
            "no token of this row counts towards the loss",
            "Raise data.max_length so that its answer is not cut off, or remove the row.",
        )


def _stop_tokens(examples: Sequence[TokenizedExample]) -> list[int]:
    """The tokens that end an answer, most frequent first."""
    return [token for token, _ in Counter(example.stop_id for example in examples).most_common()]


def _report(
    samples: Sequence[Sample],
    held: Sequence[Sample],
    train: _Side,
    validation: _Side,
    files: list[SourceFile],
    tokenizer: Any,
    stops: list[int],
) -> DataReport:
    trained_digests = Counter(sample.digest for sample in samples)
    dropped = train.dropped + validation.dropped
    return DataReport(
        rows_in=len(samples) + len(held),
        trained=len(train.examples),
        validation=len(validation.examples),
        dropped={"longer than max_length": dropped} if dropped else {},
        truncated=train.truncated + validation.truncated,
        tokens=sum(len(example.input_ids) for example in train.examples),
        supervised_tokens=sum(example.supervised_tokens for example in train.examples),
        lengths=length_summary(train.examples),
        duplicates=len(samples) - len(trained_digests),
        leaks=sum(sample.digest in trained_digests for sample in held),
        stop_tokens=[str(tokenizer.convert_ids_to_tokens(token)) for token in stops],
        chat_template=tokenizer.chat_template is not None and samples[0].kind != "text",
        digest=_digest(train.examples, validation.examples),
        files=files,
    )


def _digest(*sides: Sequence[TokenizedExample]) -> str:
    digest = hashlib.sha256()
    for side in sides:
        for example in side:
            digest.update(f"{example.input_ids}{example.labels}".encode())
        digest.update(b"|")
    return digest.hexdigest()
