"""A question in, an answer with its sources out: retrieve, read, cite."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ftkit.errors import DataError
from ftkit.evaluate.generation import Answer, generate
from ftkit.evaluate.loss import Loss
from ftkit.pipeline.target import Target
from ftkit.rag.cited import CitedAnswer, Latency, Said, Why, cited
from ftkit.rag.corpus import read_documents
from ftkit.rag.encoder import EncoderPair
from ftkit.rag.growth import Change
from ftkit.rag.hops import two_hops
from ftkit.rag.index import Index
from ftkit.rag.likelihood import Reading, answer_loss
from ftkit.rag.passage import Hit
from ftkit.rag.reader import ReaderPrompt, ReaderPrompts, is_refusal
from ftkit.rag.reranker import Reranker
from ftkit.rag.settings import AnsweringDefaults, Mode
from ftkit.rag.threshold import Conditions, generator_sha256

USUAL = AnsweringDefaults()


@dataclass(frozen=True, kw_only=True)
class RagSystem:
    """An index, its encoders and a generator.

    Attributes:
        index: Open.
        encoders: That made it.
        generator: Any target: a base model, a run, an export.
        mode: How passages are searched for.
        passages: How many the generator is given at most.
        max_new_tokens: Longest answer.
        hops: Searches: 2 to search again with what the first passage brings (`ftkit.rag.hops`).
        reranker: Orders the first hits anew, by the question as it was asked; None for the order of the search.
        reranked: How many hits it orders.
        threshold: Answers of less confidence are not given; None to give all.
        measures_confidence: Whether answers carry their confidence without a threshold too.
    """

    index: Index
    encoders: EncoderPair
    generator: Target
    mode: Mode = USUAL.mode
    passages: int = USUAL.passages
    max_new_tokens: int = USUAL.max_new_tokens
    hops: int = USUAL.hops
    reranker: Reranker | None = None
    reranked: int = USUAL.reranked
    threshold: float | None = None
    measures_confidence: bool = False
    prompts: ReaderPrompts = field(init=False)

    def __post_init__(self) -> None:
        self.index.require_encoders(self.encoders)
        length = self.generator.context_length
        room = None if length is None else length - self.max_new_tokens
        if room is not None and room < 1:
            raise DataError(
                f"an answer of {self.max_new_tokens} tokens leaves no room for a question in a context of {length}",
                fix="Ask for shorter answers.",
            )
        object.__setattr__(self, "prompts", ReaderPrompts(self.generator.tokenizer, room=room))

    @property
    def conditions(self) -> Conditions:
        """What decides which passages the generator is given."""
        by = self.reranker
        return Conditions(
            mode=self.mode,
            passages=self.passages,
            hops=self.hops,
            reranker_sha256=None if by is None else by.sha256,
            reranked=0 if by is None else self.reranked,
        )

    @property
    def identity(self) -> str:
        """What tells whoever answers from another: answers and thresholds are kept under it."""
        return generator_sha256(self.generator)

    def retrieve(self, question: str, count: int | None = None) -> list[Hit]:
        """The passages for a question, best first.

        Args:
            question: Not empty.
            count: Passages wanted; None for as many as the generator is given at most.

        Raises:
            DataError: The question is empty, or longer than encoder or reranker read.
        """
        if not question.strip():
            raise DataError("the question is empty", fix="Ask something.")
        wanted = self.passages if count is None else count
        if self.reranker is None or wanted < 1:
            return self._found(question, wanted)
        found = self._found(question, max(wanted, self.reranked))
        return self.reranker.rerank(question, found, self.reranked)[:wanted]

    def _found(self, question: str, wanted: int) -> list[Hit]:
        """What the search finds, in its order."""
        found = self.index.search(question, self.encoders, count=wanted, mode=self.mode)
        if self.hops == 1:
            return found

        def again(text: str) -> list[Hit]:
            return self.index.search(self._fitted(text), self.encoders, count=wanted, mode=self.mode)

        return two_hops(found, again, question, wanted)

    def _fitted(self, text: str) -> str:
        """As many words as the encoder reads, from the first: unlike a person's question this one may be cut."""
        words, query = text.split(), self.encoders.query
        while len(words) > 1 and query.count(" ".join(words), "query") > query.max_tokens:
            words.pop()
        return " ".join(words)

    def timed_hits(self, question: str, count: int | None = None) -> tuple[list[Hit], float]:
        """What `retrieve` finds, and the seconds that it took."""
        started = time.perf_counter()
        hits = self.retrieve(question, count)
        return hits, time.perf_counter() - started

    def add(self, *sources: str | Path) -> Change:
        """Put new or changed documents in; the next answer knows them.

        Args:
            sources: Files and folders, as `ftkit rag add` takes them.

        Raises:
            DataError: Naming every document that cannot be read; nothing is added then.
        """
        return self.index.add(read_documents(sources).documents, self.encoders)

    def remove(self, *documents: str) -> Change:
        """Take documents out, by id."""
        return self.index.remove(documents)

    def rollback(self, version: int) -> Change:
        """Go back to a former version, or forward again."""
        return self.index.rollback(version)

    def ask(self, question: str) -> CitedAnswer:
        """Answer one question.

        Raises:
            DataError: The question is empty, or longer than encoder or generator read.
        """
        return self.read(question, *self.timed_hits(question))

    def explain(self, question: str) -> tuple[CitedAnswer, Why]:
        """Answer one question, and say what the answer rests on."""
        hits, seconds = self.timed_hits(question)
        answer = self.read(question, hits, seconds)
        without = self._say(question, []).answer
        return answer, Why(without=without.text, hits=tuple(hits), given=len(answer.citations))

    def read(
        self, question: str, hits: Sequence[Hit], retrieve_s: float = 0.0, *, max_new_tokens: int | None = None
    ) -> CitedAnswer:
        """Answer from passages that were found before.

        Args:
            question: Not empty.
            hits: Best first; those that there is no room for are left out, the worst first, and are not cited.
            retrieve_s: Seconds that finding them took.
            max_new_tokens: Longest answer, below the system's own; None for that.
        """
        return self._cited(question, hits, retrieve_s, self._say(question, hits, max_new_tokens))

    def read_together(self, found: Sequence[tuple[str, Sequence[Hit]]]) -> list[CitedAnswer]:
        """Answer several questions from passages that were found before, in batches: much faster, one by one slower.

        Args:
            found: Each question with its passages; see `read`.
        """
        pairs = zip(found, self._say_all(found), strict=True)
        return [self._cited(question, hits, 0.0, said) for (question, hits), said in pairs]

    def readings(self, question: str, hits: Sequence[Hit]) -> tuple[Reading, ...]:
        """Every prompt that an answer is read from.

        Raises:
            DataError: Not even the question alone leaves room for an answer.
        """
        return (Reading(target=self.generator, ids=self._prompt(question, hits).ids),)

    def answer_nll(self, question: str, hits: Sequence[Hit], answer: str, *, ended: bool = True) -> Loss:
        """How unlikely an answer is, in nats a token.

        Args:
            question: Not empty.
            hits: Best first, as for `read`.
            answer: Any text for which there is room (see `ftkit.rag.likelihood.has_room`).
            ended: Whether the token that ends an answer belongs to it.
        """
        return answer_loss(self.generator, self._prompt(question, hits).ids, answer, ended=ended)

    def _prompt(self, question: str, hits: Sequence[Hit]) -> ReaderPrompt:
        return self.prompts.prompt(question, [hit.passage.content for hit in hits])

    def _say(self, question: str, hits: Sequence[Hit], max_new_tokens: int | None = None) -> Said:
        prompt = self._prompt(question, hits)
        answer = self._generate(prompt.ids, max_new_tokens)
        return Said(answer=answer, given=prompt.given, prompt_tokens=len(prompt.ids))

    def _say_all(self, found: Sequence[tuple[str, Sequence[Hit]]]) -> list[Said]:
        prompts = [self._prompt(question, hits) for question, hits in found]
        answers = self._generate_all([prompt.ids for prompt in prompts], None)
        return [
            Said(answer=answer, given=prompt.given, prompt_tokens=len(prompt.ids))
            for prompt, answer in zip(prompts, answers, strict=True)
        ]

    def _cited(self, question: str, hits: Sequence[Hit], retrieve_s: float, said: Said) -> CitedAnswer:
        answer, given = said.answer, hits[: said.given]
        refused = is_refusal(answer.text)
        confidence = None if refused else self._confidence((question, given), answer)
        abstained = refused or is_withheld(confidence, self.threshold)
        return CitedAnswer(
            text="" if abstained else answer.text,
            abstained=abstained,
            citations=tuple(map(cited, given)),
            latency_s=Latency(retrieve=retrieve_s, generate=answer.wall_s),
            tokens=answer.tokens,
            finish_reason=answer.finish_reason,
            question=question,
            confidence=confidence,
            prompt_tokens=said.prompt_tokens,
        )

    def _confidence(self, asked: tuple[str, Sequence[Hit]], said: Answer) -> float | None:
        if self.threshold is None and not self.measures_confidence:
            return None
        if said.nats is not None:
            return -said.nats / said.tokens
        return -self.answer_nll(*asked, said.text, ended=said.finish_reason == "stop").mean

    def _generate(self, ids: list[int], max_new_tokens: int | None = None) -> Answer:
        return self._generate_all([ids], max_new_tokens)[0]

    def _generate_all(self, ids: list[list[int]], max_new_tokens: int | None) -> list[Answer]:
        target = self.generator
        if target.choose is not None:
            target.choose()
        answers: list[Answer] = generate(
            target.model,
            ids,
            target.tokenizer,
            stop_token_ids=target.stop_token_ids,
            max_new_tokens=max_new_tokens or self.max_new_tokens,
            pads_prompts=target.pads_prompts,
        )
        return answers


def is_withheld(confidence: float | None, threshold: float | None) -> bool:
    """Whether an answer of that confidence is not given."""
    return threshold is not None and confidence is not None and confidence < threshold
