"""What the generator reads of a question with one passage, and how likely it finds the answer then."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ftkit.data.collate import collate
from ftkit.data.example import TokenizedExample
from ftkit.data.prepare import prepare
from ftkit.data.settings import encoder_settings
from ftkit.errors import DataError
from ftkit.evaluate.loss import row_losses
from ftkit.models.precision import arithmetic
from ftkit.models.tokenizer import template_names
from ftkit.pipeline.session import Session
from ftkit.rag.mining import Mined
from ftkit.rag.questions import AskedQuestion
from ftkit.rag.reader import REFUSAL, ReaderPrompts
from ftkit.rag.training import Candidate, RagExample, RagExamples
from ftkit.recipe import DataSection
from ftkit.train.progress import ProgressBar
from ftkit.train.work import matrices_of

# No gradient is kept, so a pass may hold more than one of training.
TOKENS_PER_PASS = 2048


def rag_examples(
    mined: Sequence[Mined],
    session: Session,
    prompts: ReaderPrompts,
    *,
    candidates: int,
    max_length: int,
    null: bool,
    refused: Sequence[tuple[AskedQuestion, str]] = (),
) -> RagExamples:
    """Questions with tokenised candidates; those with one candidate alone have nothing to choose and are left out.

    Args:
        mined: Questions with their passages; unanswerable ones are left out, as nothing is likely there.
        session: Of the generator.
        prompts: Of the generator.
        candidates: Passages of each question.
        max_length: Longest reading.
        null: Whether answering without a passage is a candidate too.
        refused: Questions with a passage that does not hold the answer, from `refusals`: each becomes an example of
            its own with that one candidate, and a refusal as its answer.

    Raises:
        DataError: A reading is longer than ``max_length``.
    """
    chosen: list[tuple[AskedQuestion, list[str | None], str]] = []
    for one in mined:
        contents: list[str | None] = [passage.content for passage in one.candidates(candidates)]
        contents += [None] if null else []
        if one.asked.answers and len(contents) > 1:
            chosen.append((one.asked, contents, one.asked.answers[0]))
    if not chosen:
        raise DataError(
            "no question has two passages to choose from",
            fix="Retrieval is trained on questions with answers, over a corpus of more than one passage.",
        )
    chosen += [(asked, [text], REFUSAL) for asked, text in refused]
    rows = [
        {
            "messages": [
                {"role": "user", "content": prompts.text(asked.question, [] if text is None else [text])},
                {"role": "assistant", "content": answer},
            ]
        }
        for asked, contents, answer in chosen
        for text in contents
    ]
    readings = iter(_tokenised(rows, session, max_length))
    examples = RagExamples()
    for asked, contents, _ in chosen:
        made = tuple(Candidate(content=text, reading=next(readings)) for text in contents)
        examples.append(RagExample(question=asked.question, candidates=made, place=asked.place))
    return examples


def _tokenised(rows: list[dict[str, Any]], session: Session, max_length: int) -> Sequence[TokenizedExample]:
    """By the pipeline that all data goes through, so that templates and masks are those of every other run."""
    encoder = encoder_settings(
        session.tokenizer,
        train_on="assistant",
        allow_control_tokens=False,
        today=session.today,
        known_templates=template_names(),
    )
    section = DataSection.model_validate(
        {"train": rows, "validation": None, "max_length": max_length, "near_duplicates": False}
    )
    found = list(prepare(section, encoder).train)
    assert len(found) == len(rows), "every row is kept, in its place, or is an error"
    return found


class Scorer:
    """Asks a reader how likely it finds each answer, and remembers what it said over interruptions.

    Args:
        generator: That judges; it stands still.
        compute: dtype of its matrix products.
        cache: A file for this generator in this state, made if it is not there.
    """

    def __init__(self, generator: nn.Module, compute: torch.dtype, cache: Path) -> None:
        self._generator, self._compute, self._cache = generator, compute, cache

    def flops(self, examples: RagExamples) -> float:
        """Floating-point operations of judging these from nothing."""
        readings = {_key(one.reading): len(one.reading.input_ids) for row in examples for one in row.candidates}
        return matrices_of(self._generator).forward(sum(readings.values()))

    @torch.no_grad()
    def likelihoods(self, readings: Sequence[TokenizedExample]) -> list[float]:
        """``log p(answer | prompt)`` of each, nats over the whole answer."""
        keys = [_key(one) for one in readings]
        known = self._read()
        missing = {key: one for key, one in zip(keys, readings, strict=True) if key not in known}
        was_training = self._generator.training
        self._generator.eval()
        device = next(self._generator.parameters()).device
        self._cache.parent.mkdir(parents=True, exist_ok=True)
        try:
            with ProgressBar("judging passages", len(missing)) as bar, self._cache.open("a", encoding="utf-8") as log:
                for done, group in _groups(missing):
                    batch = collate([missing[key] for key in group])
                    with arithmetic(device, self._compute):
                        losses = row_losses(
                            self._generator, {name: value.to(device) for name, value in batch.items()}
                        )
                    found = dict(zip(group, (-losses).tolist(), strict=True))
                    log.write("".join(json.dumps([key, value]) + "\n" for key, value in found.items()))
                    log.flush()
                    known |= found
                    bar.update(done)
        finally:
            self._generator.train(was_training)
        return [known[key] for key in keys]

    def _read(self) -> dict[str, float]:
        known = {}
        lines = self._cache.read_text(encoding="utf-8").splitlines() if self._cache.is_file() else []
        for line in lines:
            try:
                key, value = json.loads(line)
                known[str(key)] = float(value)
            except (ValueError, TypeError):
                continue  # the end of a line that a kill cut off
        return known


def _key(one: TokenizedExample) -> str:
    return hashlib.sha256(json.dumps([one.input_ids, one.labels]).encode()).hexdigest()[:32]


def _groups(readings: dict[str, TokenizedExample]) -> list[tuple[int, list[str]]]:
    """Keys in groups of similar length, with how many are done after each."""
    groups: list[list[str]] = []
    for key in sorted(readings, key=lambda key: (-len(readings[key].input_ids), key)):
        if groups and (len(groups[-1]) + 1) * len(readings[groups[-1][0]].input_ids) <= TOKENS_PER_PASS:
            groups[-1].append(key)
        else:
            groups.append([key])
    done, counted = 0, []
    for group in groups:
        done += len(group)
        counted.append((done, group))
    return counted


def with_likelihoods(examples: RagExamples, scorer: Scorer) -> RagExamples:
    """The same examples, judged."""
    readings = [one.reading for example in examples for one in example.candidates]
    values = iter(scorer.likelihoods(readings))
    judged = RagExamples()
    for example in examples:
        candidates = tuple(
            Candidate(content=one.content, reading=one.reading, likelihood=next(values)) for one in example.candidates
        )
        judged.append(RagExample(question=example.question, candidates=candidates, place=example.place))
    return judged
