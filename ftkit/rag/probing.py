"""What a system answers to a few questions, exactly enough that a copy of it can be held to them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from ftkit.rag.answering import RagSystem
from ftkit.rag.cited import Citation
from ftkit.rag.likelihood import answer_loss
from ftkit.rag.questions import AskedQuestion
from ftkit.rag.reader import REFUSAL

Found = TypeVar("Found")
PROBES = 8
LOGIT_POSITIONS = 4  # of each question: where its answer begins, and after the first tokens of it
QUESTION_WORDS = 24


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A question, and a text whose likelihood as its answer is measured.

    Attributes:
        question: That is asked.
        gold: The right answer, the refusal where there is none, or a sentence of the document.
    """

    question: str
    gold: str


@dataclass(frozen=True, kw_only=True)
class ProbedCitation:
    """A citation, with the digest of its text in place of the text.

    Attributes:
        document: See `ftkit.rag.cited.Citation`, as for the others.
        version: Of the index.
        start: First character.
        end: One past the last.
        text_sha256: Of the cited text.
        score: Of the search, or of the reranker.
    """

    document: str
    version: int
    start: int
    end: int
    text_sha256: str
    score: float


@dataclass(frozen=True, kw_only=True)
class Probed:
    """What a system answered to a probe.

    Attributes:
        text: See `ftkit.rag.cited.CitedAnswer`, as for ``abstained`` and ``confidence``.
        abstained: Whether it gave none.
        confidence: In nats a token; None where it was not asked for.
        finish_reason: Why it ended.
        citations: Best first.
        gold_nll: Negative log-likelihood of the gold text in nats a token.
    """

    text: str
    abstained: bool
    confidence: float | None
    finish_reason: str
    citations: tuple[ProbedCitation, ...]
    gold_nll: float


def choose_probes(asked: Sequence[AskedQuestion], system: RagSystem) -> list[Probe]:
    """A few questions: of those asked, else made from beginnings of documents and passages.

    Args:
        asked: Questions with their answers; those that encoder or reranker cannot read are passed over.
        system: That is asked.
    """
    index = system.index
    fit = [
        Probe(question=one.question, gold=(*one.answers, REFUSAL)[0])
        for one in asked
        if _is_readable(one.question, system)
    ]
    if fit:
        return fit[:PROBES]
    names = _spaced(index.documents, PROBES)
    each = -(-PROBES // len(names))  # of a few long documents, several passages
    passages = [passage for name in names for passage in _spaced(index.passages_of(name), each)]
    return [_about(passage.text, system) for passage in passages[:PROBES]]


def _spaced(found: Sequence[Found], count: int) -> list[Found]:
    """As many, from the first on and evenly spaced."""
    return list(found[:: max(1, len(found) // count)][:count])


def _is_readable(question: str, system: RagSystem) -> bool:
    query, reranker = system.encoders.query, system.reranker
    return query.count(question, "query") <= query.max_tokens and (reranker is None or not reranker.excess(question))


def _about(text: str, system: RagSystem) -> Probe:
    """A question made from a heading or first sentence, in as many words as encoder and reranker read."""
    lines = [line.strip("#*=- \t") for line in text.splitlines()]
    first = next((line for line in lines if line), "this")
    words = first.split(". ")[0].split()[:QUESTION_WORDS]
    while len(words) > 1 and not _is_readable(_question(words), system):
        words.pop()
    return Probe(question=_question(words), gold=" ".join(words))


def _question(words: Sequence[str]) -> str:
    return f"What about {' '.join(words).rstrip('.?!')}?"


def reranker_notes(system: RagSystem) -> dict[str, Any] | None:
    """What tells one reranking from another; None where there is none."""
    by = system.reranker
    return None if by is None else {"sha256": by.sha256, "reranked": system.reranked}


def probe(system: RagSystem, probes: Sequence[Probe]) -> tuple[list[Probed], Tensor]:
    """Ask a system every question.

    Args:
        system: Whose generator gives likelihoods.
        probes: The questions.

    Returns:
        An answer each, and logits behind the prompts, (at most `LOGIT_POSITIONS` a question, vocabulary), float32.
    """
    found, logits = [], []
    for one in probes:
        hits = system.retrieve(one.question)
        answer = system.read(one.question, hits)
        ids = system.prompts.prompt(one.question, [hit.passage.content for hit in hits]).ids
        logits.append(_logits(system, ids, one.gold))
        found.append(
            Probed(
                text=answer.text,
                abstained=answer.abstained,
                confidence=answer.confidence,
                finish_reason=answer.finish_reason,
                citations=tuple(map(without_text, answer.citations)),
                gold_nll=answer_loss(system.generator, ids, one.gold).mean,
            )
        )
    return found, torch.cat(logits)


@torch.no_grad()
def _logits(system: RagSystem, ids: Sequence[int], gold: str) -> Tensor:
    """Of the tokens that begin the gold answer, (positions, vocabulary)."""
    target = system.generator
    if target.choose is not None:
        target.choose()
    begun = list(target.tokenizer(gold, add_special_tokens=False)["input_ids"])[: LOGIT_POSITIONS - 1]
    device = next(target.model.parameters()).device
    read = torch.tensor([[*ids, *begun]], device=device)
    found: Tensor = target.model(input_ids=read).logits[0]
    return found[-len(begun) - 1 :].float().cpu().contiguous()


def without_text(citation: Citation) -> ProbedCitation:
    """A citation with the digest of its text."""
    values = asdict(citation)
    digest = hashlib.sha256(values.pop("text").encode()).hexdigest()
    return ProbedCitation(text_sha256=digest, **values)
