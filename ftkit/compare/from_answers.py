"""Figures that the answers to the test questions hold beside those of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from ftkit.compare.sheet import Sheet, floats, mean_of
from ftkit.evaluate.metrics import rouge_l
from ftkit.rag.blame import Wanted, comparable, searchable, stands_in
from ftkit.rag.evaluation import Evaluation
from ftkit.rag.figures import cluster_of
from ftkit.rag.index import Index
from ftkit.rag.intervals import Ratio
from ftkit.rag.measured import Cited
from ftkit.rag.outcomes import Outcome
from ftkit.rag.questions import AskedQuestion


class PassageTexts:
    """What stands in the passages of an index, and how often an answer does.

    Args:
        index: Is not written to meanwhile.
    """

    def __init__(self, index: Index) -> None:
        self._of = cache(lambda document: {(one.start, one.end): one.content for one in index.passages_of(document)})

    def content(self, cited: Cited) -> str:
        """Of a cited passage; empty where it is in the index no more."""
        return self._of(cited.document).get((cited.start, cited.end), "")

    def mentions(self, asked: AskedQuestion) -> int:
        """Passages, of the documents that a question names, that state an answer."""
        wanted = Wanted(asked.answers)
        contents = [text for document in asked.documents for text in self._of(document).values()]
        return sum(wanted.stands_in(searchable(text)) for text in contents)


def answer_sheet(
    evaluation: Evaluation, texts: PassageTexts, *, flops_a_token: float, branches: bool = False
) -> Sheet:
    """Citations, rare facts, several documents, style and operations of an evaluation's answers.

    Args:
        evaluation: Of the test questions.
        texts: Of the index that was searched.
        flops_a_token: Of the generator, forward.
        branches: Whether each token was computed behind each passage and without any, as mixtures do.
    """
    outcomes = evaluation.outcomes
    recall, precision = _citations(outcomes, texts)
    answered = [bool(one.question.answers) for one in outcomes]
    rare = [bool(one.question.answers) and texts.mentions(one.question) == 1 for one in outcomes]
    several = [bool(one.question.answers) and len(one.question.documents) > 1 for one in outcomes]
    figures = {
        "citation_recall": recall,
        "citation_precision": precision,
        "rouge_l": mean_of([_rouge(one) for one in outcomes]),
        "right": mean_of([one.right for one in outcomes]),
        # Who refuses has not taken on the form of the answers.
        "style_match": mean_of(
            [style_match(one.text or "", one.question.answers[0]) if known and one.text else 0.0
             for one, known in zip(outcomes, answered, strict=True)],
            answered,
        ),
        "answer_flops": mean_of(
            [flops_a_token * _tokens(one, branches=branches) for one in outcomes],
            [one.measured.tokens > 0 for one in outcomes],
        ),
    }  # fmt: skip
    for name, where in (("rare", rare), ("two_documents", several)):
        figures[f"exact_match_{name}"] = mean_of([one.exact_match for one in outcomes], where)
        figures[f"nll_{name}"] = _nll(outcomes, where)
    known = {name: one for name, one in figures.items() if one.denominators.any()}
    return Sheet(
        units=tuple(one.question.id for one in outcomes),
        clusters=tuple(cluster_of(one.question) for one in outcomes),
        figures=known,
    )


def _citations(outcomes: Sequence[Outcome], texts: PassageTexts) -> tuple[Ratio, Ratio]:
    """Recall: what is said stands in the cited passages together. Precision: share of citations that it needs.

    An answer without citations is not supported. A citation is needed where it supports the answer by itself, or
    where without it the others do not.

    Source:
        Gao et al. 2023 (ALCE, arXiv:2305.14627), section 3, with word overlap in place of an entailment model.
    """
    supported, cited_ones, needed, given = [], [], [], []
    for one in outcomes:
        said, cited = one.text, one.measured.citations
        words = [comparable(texts.content(each)) for each in cited] if said else []

        def holds(passages: list[list[str]], said: str = said or "", question: str = one.question.question) -> bool:
            return stands_in(said, question, [[word for passage in passages for word in passage]])

        together = bool(words) and holds(words)
        alone = [holds([each]) for each in words]
        without = [not holds([*words[:at], *words[at + 1 :]]) if len(words) > 1 else True for at in range(len(words))]
        supported.append(together)
        given.append(said is not None)
        needed.append(sum(own or (together and other) for own, other in zip(alone, without, strict=True)))
        cited_ones.append(len(words))
    return (
        Ratio(numerators=floats(supported), denominators=floats(given)),
        Ratio(numerators=floats(needed), denominators=floats(cited_ones)),
    )


def _tokens(one: Outcome, *, branches: bool) -> int:
    """That the generator read or wrote."""
    measured = one.measured
    return measured.prompt_tokens + measured.tokens * (1 + len(measured.citations) if branches else 1)


def _rouge(one: Outcome) -> float:
    if one.text is None or not one.question.answers:
        return one.f1
    return max(rouge_l(one.text, answer) for answer in one.question.answers)


def _nll(outcomes: Sequence[Outcome], where: Sequence[bool]) -> Ratio:
    chosen = floats(where)
    return Ratio(
        numerators=chosen * floats(one.measured.nll or 0.0 for one in outcomes),
        denominators=chosen * floats(one.measured.nll_tokens for one in outcomes),
    )


def style_of(text: str) -> tuple[object, ...]:
    """Features of form, whatever is said: length, first letter, end, lines, lists, whole sentence, politeness."""
    words = text.split()
    lowered = text.lower()
    return (
        int(np.log2(max(len(words), 1))),
        text[:1].isupper(),
        text[:1].isdigit(),
        text.rstrip()[-1:] in (".", "!", "?"),
        "\n" in text.strip(),
        any(mark in text for mark in ("**", "- ", "* ", "#", "`")),
        any(word in lowered for word in (" is ", " are ", " was ", " were ", " has ", " have ")),
        any(word in lowered for word in ("sure", "certainly", "please", "sorry", "i hope", "let me")),
    )


def style_match(said: str, wanted: str) -> float:
    """Share of the features of `style_of` in which an answer is like the reference."""
    ours, theirs = style_of(said), style_of(wanted)
    return sum(one == other for one, other in zip(ours, theirs, strict=True)) / len(ours)
